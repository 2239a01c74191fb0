"""Small transformers with made weights, of real architectures, saved as folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

WIDTH, LAYERS, HEADS, INNER = 32, 3, 4, 48
FAMILIES = ("bert", "xlm-roberta", "modernbert", "mpnet")
MAX_LENGTH = 64

TEXTS = (
    "the cat sat on the mat",
    "a dog ran after the cat, and the cat ran after a bird",
    "Who wrote the book?",
    "Die Katze saß auf der Matte.",
    "Кошка сидела на коврике.",
    "แมวนั่งบนเสื่อ",
    "",
    "x",
    "Rain fell on the hills for nine days and the river rose at last.",
    "Unbekannte 12345 Zeichen ☃!",
)


def made_tokenizer(family: str, texts: Sequence[str], pieces: int = 300) -> Any:
    """Return a tokenizer of the family's kind, learnt from the texts."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    if family == "xlm-roberta":
        marks = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>"}
        backend = Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=pieces,
            special_tokens=list(marks.values()),
            unk_token="<unk>",
            show_progress=False,
            initial_alphabet=["\u2581"],
        )
    else:
        names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
        # MPNet's padding has the id 1, as in RoBERTa.
        order = ["cls", "pad", "sep", "unk"] if family == "mpnet" else list(names)
        marks = {name: names[name] for name in order}
        if family == "modernbert":
            backend = Tokenizer(models.BPE())
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            trainer = trainers.BpeTrainer(
                vocab_size=pieces,
                special_tokens=list(marks.values()),
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
        else:
            backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            backend.normalizer = normalizers.BertNormalizer(lowercase=False)
            backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            trainer = trainers.WordPieceTrainer(
                vocab_size=pieces, special_tokens=list(marks.values()), show_progress=False
            )
    backend.train_from_iterator(texts, trainer)
    ids = {token: backend.token_to_id(token) for token in marks.values()}
    backend.post_processor = processors.TemplateProcessing(
        single=f"{marks['cls']} $A {marks['sep']}",
        pair=f"{marks['cls']} $A {marks['sep']} $B {marks['sep']}",
        special_tokens=[(token, ids[token]) for token in (marks["cls"], marks["sep"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=MAX_LENGTH,
        **{f"{name}_token": token for name, token in marks.items()},
    )


def made_model(family: str, rows: int, *, seed: int = 0, **changes: Any) -> Any:
    """Return a model of the family with random weights, none of them zero or one."""
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": MAX_LENGTH,
    }
    if family == "bert":
        config: Any = transformers.BertConfig(**shape | {"pad_token_id": 0} | changes)
    elif family == "xlm-roberta":
        shape |= {
            "max_position_embeddings": MAX_LENGTH + 2,
            "pad_token_id": 1,
            "type_vocab_size": 1,
        }
        config = transformers.XLMRobertaConfig(**shape | changes)
    elif family == "mpnet":
        shape |= {"max_position_embeddings": MAX_LENGTH + 2, "pad_token_id": 1}
        config = transformers.MPNetConfig(**shape | changes)
    elif family == "modernbert":
        # A window narrower than most texts; one layer in three sees everything.
        shape |= {"local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0}
        marks = dict.fromkeys(("bos_token_id", "cls_token_id"), 2) | dict.fromkeys(
            ("eos_token_id", "sep_token_id"), 3
        )
        config = transformers.ModernBertConfig(**shape | marks | changes)
    elif family == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=rows,
            dim=WIDTH,
            n_layers=2,
            n_heads=HEADS,
            hidden_dim=INNER,
            max_position_embeddings=MAX_LENGTH,
            **changes,
        )
    else:
        raise ValueError(family)
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.15))
    return model.eval()


def save_model(
    folder: Path,
    family: str = "xlm-roberta",
    *,
    texts: Sequence[str] = TEXTS,
    pieces: int = 300,
    **changes: Any,
) -> Path:
    """Write a plain folder of Hugging Face: a model and its tokenizer."""
    kind = "bert" if family == "distilbert" else family
    tokenizer = made_tokenizer(kind, texts, pieces)
    tokenizer.save_pretrained(str(folder))
    made_model(family, len(tokenizer), **changes).save_pretrained(str(folder))
    return folder


def sentence_transformer(folder: Path, *more: Any, pooling: Any = "mean", **settings: Any) -> Any:
    """Return a SentenceTransformer around a plain folder, with ``more`` modules at its end."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(folder))
    width = transformer.get_embedding_dimension()
    modules = [transformer, Pooling(width, pooling), *more]
    return SentenceTransformer(modules=modules, device="cpu", **settings)
