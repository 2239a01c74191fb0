"""Ids by way of words are the tokenizer's own, whatever texts hold."""

from __future__ import annotations

import copy
import io
import pickle
import re
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from clrelkt.corpora import load_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.transformer.tokenizer import TransformerTokenizer
from clrelkt.encoders.words.rules import WordRules
from clrelkt.encoders.words.table import WordTable, spliced
from clrelkt.errors import EncoderError

MARKS = ((0,), (2,))
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

SENTENCE = """the cat sat. on, mats; The CAT's well-known 1,234.5 km² “quoted” (so) don't ``old''
    Straße naïve İstanbul ΣΟΦΟΣ σοφός fi \ufb01ne Ⅷ ½ \uff46\uff55\uff4c\uff4c \uff41\uff42
    ☎️ 👩\u200d👩\u200d👧 🇩🇪🇫🇷 👍🏽 ✓ Привет мир й ё الطَّقْسُ جميلٌ ﷺ הַשָּׁלוֹם ประเทศไทย ที่นี่ น้ำ
    北京大学在中国 日本語 テスト ﾃﾞ 한국어 हिन्दी में क्षेत्र বাংলা ไทย ▁ ▁low a▁b <s> </s> <mask>
    x<mask>y [CLS] [SEP] [MASK] [unk] Ünit ünit
    </s>\u0338 b\u3000 \u3000b"""
WORDS = re.split("[ \n]+", SENTENCE)
CHARACTERS = (
    " \t\n\r\u00a0\u2003\u2009\u202f\u3000\u200b\u200c\u200d\u2060\ufeff\u00ad\u0085\x00\x01\x1f"
    "\x7f\u0300\u0301\u0308\u0327\u0345\u064b\u0651\u093c\u093f\u0e33\u0eb3\u0e31\u3099\uff9e"
    "\uff9f\u0600\u06dd\u070f\u0d4e\U000111c2\U0001f3fb\U000e0041\ufe0f\u20dd\u1100\u1161\u11a8"
    "\uac00\u00a8\u00b4\u1fbf\u2581\u2024\u2026\ufdfa\u017f\u212b\u0130\u03a3\u1e9e\ufffd\ue000"
    "\u0378aA.,'`<>[]"
)


@pytest.fixture(scope="module")
def muse_model(muse: MuseEncoder) -> Any:
    """mUSE's SentencePiece model: real pieces, their scores and a real table of characters."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(muse.tokenizer.model)
    return model


@pytest.fixture(scope="module")
def charsmap(muse_model: Any) -> bytes:
    found: bytes = muse_model.normalizer_spec.precompiled_charsmap
    assert len(found) > 100_000
    return found


@pytest.fixture(scope="module")
def pieces(muse_model: Any) -> list[tuple[str, float]]:
    return [(piece.piece, piece.score) for piece in muse_model.pieces if piece.type == 1]


def unigram(
    pieces: list[tuple[str, float]], normalizer: Any, pre_tokenizer: Any = None
) -> Tokenizer:
    """Return a tokenizer of Unigram with XLM-R's marks."""
    table = [(mark, 0.0) for mark in SPECIAL] + pieces
    backend = Tokenizer(models.Unigram(table, unk_id=3))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens([*SPECIAL[:4], AddedToken("<mask>", lstrip=True)])
    return backend


def wordpiece(normalizer: Any, pre_tokenizer: Any = None) -> Tokenizer:
    """Return a tokenizer of WordPiece with BERT's marks."""
    table = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({form for word in WORDS for form in (word, word.lower()) if form})
    letters = sorted(set("".join(words) + CHARACTERS) - {" "})
    entries = dict.fromkeys(table + words + letters + ["##" + one for one in letters])
    vocabulary = {word: number for number, word in enumerate(entries)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(table)
    return backend


def stripped(charsmap: bytes) -> Any:
    """Return what converters from SentencePiece made of its rules in many saved tokenizers."""
    return normalizers.Sequence(
        [
            normalizers.Precompiled(charsmap),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "\u2581"),
        ]
    )


def old_albert(charsmap: bytes) -> Any:
    return normalizers.Sequence(
        [
            normalizers.Replace("``", '"'),
            normalizers.Replace("''", '"'),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Precompiled(charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def split_first(scheme: str = "always") -> Any:
    """Return XLM-R's pre-tokenizer."""
    split, mark = pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return pre_tokenizers.Sequence([split, mark])


Pipelines = dict[str, Tokenizer]


@pytest.fixture(scope="module")
def pipelines(pieces: list[tuple[str, float]], charsmap: bytes) -> Pipelines:
    """Tokenizers of a few thousand pieces, of all kinds whose words may be cut apart."""
    few = [piece for number, piece in enumerate(pieces) if number < 3_000 or len(piece[0]) == 1]
    precompiled = normalizers.Precompiled(charsmap)
    first = pre_tokenizers.Metaspace(prepend_scheme="first")
    added = unigram(few, precompiled, split_first())
    added.add_tokens([AddedToken("Ünit", normalized=True), AddedToken("low", single_word=True)])
    lower = wordpiece(normalizers.BertNormalizer())
    lower.add_tokens([AddedToken("NAÏVE", normalized=True), AddedToken("cat", rstrip=True)])
    albert = unigram(few, old_albert(charsmap))
    albert.add_tokens([AddedToken("naive", normalized=True)])
    gaps = normalizers.Sequence([precompiled, normalizers.Replace(Regex(" {2,}"), "x")])
    right = normalizers.Sequence([precompiled, normalizers.Strip(left=False, right=True)])
    tail = normalizers.Sequence([normalizers.Strip(), normalizers.Nmt(), precompiled])
    return {
        "metaspace": unigram(few, precompiled),
        "metaspace, no normaliser": unigram(few, None),
        "metaspace first": unigram(few, normalizers.NFKC(), first),
        "stripped": unigram(few, stripped(charsmap)),
        "stripped, split": unigram(few, stripped(charsmap), split_first()),
        "XLM-R": unigram(few, precompiled, split_first()),
        "added tokens": added,
        "ALBERT": albert,
        "stripped at the right": unigram(few, right),
        "gaps": unigram(few, gaps, split_first()),
        "stripped first": unigram(few, tail, split_first()),
        "NFD": unigram(few, normalizers.NFD(), pre_tokenizers.WhitespaceSplit()),
        "BERT": wordpiece(normalizers.BertNormalizer(lowercase=False)),
        "BERT, lower case": lower,
        "WordPiece, no normaliser": wordpiece(None, pre_tokenizers.WhitespaceSplit()),
    }


def table_of(backend: Tokenizer, **settings: Any) -> WordTable:
    marks = ((2,), (3,)) if type(backend.model).__name__ == "WordPiece" else MARKS
    table = WordTable.of(backend, marks, **settings)
    assert table is not None
    return table


def own(backend: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch(texts)]


def rows(found: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    flat, lengths = found
    assert flat.dtype == lengths.dtype == np.int64
    assert lengths.sum() == len(flat)
    return [row.tolist() for row in np.split(flat, lengths.cumsum())[:-1]]


ATOMS = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(CHARACTERS),
    st.just(" "),
    st.characters(codec="utf-8"),
)
TEXTS = st.lists(
    st.one_of(
        st.lists(ATOMS, max_size=8).map("".join),
        st.lists(st.lists(ATOMS, max_size=3).map("".join), max_size=6).map(" ".join),
    ),
    max_size=12,
)


class TestEquality:
    @settings(max_examples=150, deadline=None)
    @given(texts=TEXTS)
    def test_ids_are_the_tokenizers_own(self, pipelines: Pipelines, texts: list[str]) -> None:
        for name, backend in pipelines.items():
            expected = own(backend, texts)
            table = table_of(backend)
            assert rows(table.ids(texts)) == expected, name
            assert rows(table.ids(texts[::-1])) == expected[::-1], name

    @settings(max_examples=100, deadline=None)
    @given(left=ATOMS, right=ATOMS, gap=st.sampled_from([" ", "  ", "", " \u00a0", "\t "]))
    def test_pairs_of_what_is_met_seldom(
        self, pipelines: Pipelines, left: str, right: str, gap: str
    ) -> None:
        texts = [f"a{left}{gap}{right}b", f"{left}{gap}{right}", f" {left} {right} ", left, right]
        for name, backend in pipelines.items():
            assert rows(table_of(backend).ids(texts)) == own(backend, texts), name

    def test_whatever_is_special_beside_words(self, pipelines: Pipelines) -> None:
        forms = ("a {0} b", "{0} {0}", " {0}", "b{0} {0}a ", "a  {0}")
        texts = [form.format(one) for one in (*WORDS, *CHARACTERS) for form in forms]
        for name, backend in pipelines.items():
            assert rows(table_of(backend).ids(texts)) == own(backend, texts), name

    def test_every_character_beside_spaces(self, pipelines: Pipelines) -> None:
        for name in ("metaspace", "stripped", "XLM-R", "ALBERT", "BERT, lower case"):
            backend = pipelines[name]
            marks = [one for one in map(chr, range(0x3100)) if not one.isalnum()]
            texts = [text for one in marks for text in (f"a {one} {one}b", f"{one}b{one} a{one}")]
            assert rows(table_of(backend).ids(texts)) == own(backend, texts), name

    def test_real_texts_of_all_languages(
        self,
        pieces: list[tuple[str, float]],
        charsmap: bytes,
        data_folder: Path,
    ) -> None:
        corpus = load_corpus(data_folder / "xquad")
        texts = [question.text for question in corpus.questions[::40]]
        texts += [passage.text for passage in list(corpus.passage_by_id.values())[::20]]
        backend = unigram(pieces, normalizers.Precompiled(charsmap), split_first())
        expected = own(backend, texts)
        table = table_of(backend)
        assert rows(table.ids(texts)) == expected
        known = len(table)
        assert known > 1_000
        assert rows(table.ids(texts)) == expected
        assert len(table) == known
        backend.normalizer, backend.pre_tokenizer = stripped(charsmap), pre_tokenizers.Metaspace()
        assert rows(table_of(backend).ids(texts)) == own(backend, texts)

    def test_clusters_are_those_of_the_normaliser(self, tmp_path: Path) -> None:
        # With rules for every character, alone and behind a space, clusters lose what is behind.
        # All blocks but those of ideographs, syllables and what nobody has assigned.
        limits = [(0x7F, 0x3400), (0xA000, 0xAC00), (0xF900, 0x12000), (0x1D000, 0x20000)]
        numbers = chain.from_iterable(range(*limit) for limit in [*limits, (0xE0000, 0xE0100)])
        characters = [
            one for one in map(chr, numbers) if unicodedata.category(one) not in ("Cn", "Co")
        ]
        rules = tmp_path / "rules.tsv"
        lines = [f"{ord(one):X}\t54\n20 {ord(one):X}\t54\n" for one in characters]
        rules.write_text("".join(lines), encoding="utf-8")
        normalizer = normalizers.Precompiled(trained_charsmap(rules))
        backend = unigram([("\u2581", -1.0), ("T", -1.0), ("x", -1.0)], normalizer, split_first())
        texts = [f"x {one}x x{one} x" for one in characters]
        assert sum(normalizer.normalize_str(text) != "x Tx xT x" for text in texts) > 1_000
        assert rows(table_of(backend).ids(texts)) == own(backend, texts)


def trained_charsmap(rules: Path) -> bytes:
    """Return the compiled form of rules: characters and what they become, in hexadecimal."""
    from sentencepiece import sentencepiece_model_pb2

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ab ba"] * 3),
        model_writer=written,
        model_type="char",
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
        normalization_rule_tsv=str(rules),
    )
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(written.getvalue())
    found: bytes = model.normalizer_spec.precompiled_charsmap
    return found


Change = Callable[[Tokenizer], Any]

UNFIT: dict[str, Change] = {
    "marks the first word alone": lambda it: setattr(it, "pre_tokenizer", split_first("first")),
    "no sign of a space at the first": lambda it: setattr(
        it, "pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="never")
    ),
    "does not cut at spaces": lambda it: setattr(
        it, "pre_tokenizer", pre_tokenizers.Metaspace(split=False)
    ),
    "bytes": lambda it: setattr(it, "pre_tokenizer", pre_tokenizers.ByteLevel()),
    "no cuts": lambda it: setattr(it, "pre_tokenizer", None),
    "writes spaces": lambda it: setattr(it, "normalizer", normalizers.Replace(" ", "\u2581")),
    "no spaces": lambda it: setattr(it, "normalizer", normalizers.Replace(" ", "")),
    "any expression": lambda it: setattr(
        it, "normalizer", normalizers.Replace(Regex("t. t"), "tt")
    ),
    "a sign before the text": lambda it: setattr(it, "normalizer", normalizers.Prepend("x")),
    "an added token with a space": lambda it: it.add_tokens(["the cat"]),
    "an added token that becomes spaced": lambda it: it.add_tokens(
        [AddedToken("a\u00a0b", normalized=True)]
    ),
    "text twice": lambda it: setattr(
        it,
        "post_processor",
        processors.TemplateProcessing(
            single="<s> $A $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        ),
    ),
    "other parts": lambda it: setattr(
        it, "post_processor", processors.Sequence([processors.ByteLevel()])
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_tokenizer_whose_words_depend_on_each_other_has_no_table(kind: str) -> None:
    pieces = [("\u2581", -2.0), ("t", -3.0), ("a", -3.0)]
    backend = unigram(pieces, normalizers.NFKC())
    assert WordTable.of(backend, MARKS) is not None
    UNFIT[kind](backend)
    assert WordTable.of(backend, MARKS) is None


@pytest.mark.parametrize(
    ("name", "alone"),
    [("stripped", True), ("metaspace", False), ("ALBERT", False), ("XLM-R", True), ("gaps", False)],
)
def test_whether_a_text_with_two_spaces_is_cut_by_words(
    pipelines: Pipelines, name: str, alone: bool
) -> None:
    rules = WordRules.of(pipelines[name])
    assert rules is not None
    # The normaliser makes a space of the second word's first character.
    assert rules.apart(["", "\ufeffword"]) == [alone, name == "XLM-R"]


class TestTable:
    def test_it_keeps_within_its_bound(self, pipelines: Pipelines) -> None:
        backend = pipelines["metaspace"]
        table = table_of(backend, most_words=100)
        sizes = []
        for start in range(0, 2_000, 30):
            texts = [f"w{number} of {number // 7}" for number in range(start, start + 40)]
            assert rows(table.ids(texts)) == own(backend, texts)
            sizes.append(len(table))
        assert max(sizes) <= 100
        assert sum(late < early for early, late in pairwise(sizes)) > 10

    def test_a_block_of_more_words_than_it_keeps(self, pipelines: Pipelines) -> None:
        backend = pipelines["metaspace"]
        table = table_of(backend, most_words=10)
        texts = [f"w{number} and {number % 13}" for number in range(600)]
        for _ in range(2):
            assert rows(table.ids(texts)) == own(backend, texts)

    def test_sentences_without_spaces_are_not_kept(self, pipelines: Pipelines) -> None:
        backend = pipelines["XLM-R"]
        table = table_of(backend)
        texts = ["北京大学在中国" * 20, "word " * 40 + "ก" * 65, "ประเทศไทย" * 6, "a word"]
        assert rows(table.ids(texts)) == own(backend, texts)
        assert len(table) <= 4

    def test_threads_share_it(self, pipelines: Pipelines) -> None:
        backend = pipelines["stripped"]
        table = table_of(backend, most_words=300)
        rng = np.random.default_rng(0)
        many = [
            [" ".join(f"w{n}" for n in rng.zipf(1.3, 9) % 2_000) for _ in range(300)]
            for _ in range(24)
        ]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(6) as pool:
                found = list(pool.map(table.ids, many))
        finally:
            sys.setswitchinterval(interval)
        assert [rows(one) for one in found] == [own(backend, texts) for texts in many]

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_a_copy_knows_no_words(
        self, pipelines: Pipelines, copied: Callable[[WordTable], WordTable]
    ) -> None:
        table = table_of(pipelines["XLM-R"])
        expected = rows(table.ids(["some few words"]))
        again = copied(table)
        assert len(table) == 3 > len(again) == 0
        assert rows(again.ids(["some few words"])) == expected

    def test_nothing_is_learnt_from_what_is_no_text(self, pipelines: Pipelines) -> None:
        table = table_of(pipelines["metaspace"])
        with pytest.raises((TypeError, UnicodeError)):
            table.ids(["good words", "a \ud800 b"])
        assert len(table) == 0
        assert rows(table.ids(["good words"])) == own(pipelines["metaspace"], ["good words"])

    def test_no_texts(self, pipelines: Pipelines) -> None:
        assert rows(table_of(pipelines["BERT"]).ids([])) == []
        assert rows(table_of(pipelines["BERT"]).ids(["", " ", ""])) == [[2, 3]] * 3


def test_splicing() -> None:
    flat, lengths = spliced(np.arange(6), np.array([2, 0, 3, 1]), {1: [8, 9], 2: [], 3: [7]})
    assert flat.tolist() == [0, 1, 8, 9, 7]
    assert lengths.tolist() == [2, 2, 0, 1]


class TestTransformerTokenizer:
    @pytest.fixture(autouse=True)
    def compiled(self, pipelines: Pipelines) -> None:
        """Make texts go by way of their words, however few there are."""
        table_of(pipelines["XLM-R"]).ids(["a"])

    @pytest.fixture
    def tokenizer(self, pipelines: Pipelines) -> TransformerTokenizer:
        backend = Tokenizer.from_str(pipelines["XLM-R"].to_str())
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        return TransformerTokenizer.of(
            PreTrainedTokenizerFast(tokenizer_object=backend, **names), 24
        )

    @settings(max_examples=40, deadline=None)
    @given(texts=TEXTS, prompt=st.sampled_from(["", "query: ", "in", "<mask> "]))
    def test_many_texts_are_cut_as_each_alone(
        self, pipelines: Pipelines, texts: list[str], prompt: str
    ) -> None:
        source = PreTrainedTokenizerFast(tokenizer_object=pipelines["XLM-R"], unk_token="<unk>")
        tokenizer = TransformerTokenizer.of(source, 24)
        texts = [*texts, *WORDS[:8], "A sentence of words. And one more of some. " * 4]
        expected = [tokenizer([text], prompt)[0] for text in texts]
        assert tokenizer(texts, prompt) == expected
        batch = tokenizer.batch(texts, prompt)
        assert batch.token_ids.tolist() == [one for ids in expected for one in ids]
        assert batch.lengths.tolist() == [len(ids) for ids in expected]

    def test_a_compact_vocabulary(self, tokenizer: TransformerTokenizer) -> None:
        texts = [" ".join(WORDS[place : place + 4]) for place in range(30)]
        whole = tokenizer(texts)
        kept = torch.unique(torch.tensor([one for ids in whole for one in ids]))
        compact = tokenizer.restricted_to(kept)
        assert compact.shares_source(tokenizer)
        assert [kept[torch.tensor(ids)].tolist() for ids in compact(texts)] == whole
        strange = next(
            text for text in map(chr, range(0x4E00, 0x9FFF)) if not _known(tokenizer, text, kept)
        )
        with pytest.raises(EncoderError, match=f"{strange}' holds a token outside the compact"):
            compact([*texts, strange, "cat"])

    def test_half_of_a_surrogate_pair_is_named(self, tokenizer: TransformerTokenizer) -> None:
        for word in ("\ud800", "long" * 30 + "\udfff"):
            with pytest.raises(EncoderError, match=r"text 11 .* half of a surrogate pair"):
                tokenizer([*WORDS[:10], "\u4e00" * 30, f"some {word} there"])
        assert len(tokenizer(WORDS[:12])) == 12

    def test_copies_cut_alike(self, tokenizer: TransformerTokenizer) -> None:
        expected = tokenizer(WORDS)
        for again in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
            assert again(WORDS) == expected
        assert tokenizer.with_max_length(30)(WORDS) == expected


def _known(tokenizer: TransformerTokenizer, text: str, kept: torch.Tensor) -> bool:
    return set(tokenizer([text])[0]) <= set(kept.tolist())
