"""Transformer encoders against sentence-transformers and against the models' own forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("sentence_transformers")
    import sentence_transformers  # noqa: F401

from tests.transformer_models import (
    FAMILIES,
    MAX_LENGTH,
    TEXTS,
    WIDTH,
    save_model,
    sentence_transformer,
)

from clrelkt.encoders import RaggedBatch, TrainableEncoder, TransformerOptions, load_encoder
from clrelkt.encoders.pieces import GrowableEncoder
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.encoders.transformer.grouped_attention import GroupedAttention
from clrelkt.encoders.transformer.layout import TextLayout, VarlenAttention
from clrelkt.errors import EncoderError, SettingsError

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{library}(\..*)?")
    for library in ("sentence_transformers", "transformers", "huggingface_hub", "torch.jit")
]

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return ``folder(family)``: a plain folder of Hugging Face with made weights."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = save_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of


def load(folder: Path, options: TransformerOptions | None = None) -> TransformerEncoder:
    encoder = load_encoder(folder, options)
    assert isinstance(encoder, TransformerEncoder)
    return encoder


@pytest.fixture(scope="module")
def encoder(folder: Folder) -> TransformerEncoder:
    """An XLM-R encoder. Mind that tests share it."""
    return load(folder("xlm-roberta"))


class TestAgainstSentenceTransformers:
    @pytest.mark.parametrize("family", [*FAMILIES, "distilbert"])
    def test_vectors_are_the_same(self, folder: Folder, family: str) -> None:
        encoder = load(folder(family))
        assert isinstance(encoder, TransformerEncoder)
        assert encoder.network.unpadded is (family != "distilbert")
        peer = sentence_transformer(folder(family))
        texts = [text for text in TEXTS for _ in range(3)]
        assert 14 < max(map(len, encoder.tokenizer(texts))) <= MAX_LENGTH
        expected = peer.encode(texts, normalize_embeddings=True, batch_size=4)
        found = encoder.encode(texts)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5
        # The vectors tell texts apart, else being equal would mean little.
        assert np.sort(expected @ expected[0])[:20].max() < 0.999

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("family", ["xlm-roberta", "distilbert"])
    def test_pooling(self, folder: Folder, family: str, mode: str) -> None:
        encoder = load(folder(family), TransformerOptions(pooling=(mode,)))
        peer = sentence_transformer(folder(family), pooling=mode)
        expected = peer.encode(list(TEXTS), normalize_embeddings=True)
        assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5

    def test_joined_pooling_in_the_order_that_is_given(self, folder: Folder) -> None:
        modes = ("mean", "cls")
        encoder = load(folder("bert"), TransformerOptions(pooling=modes))
        peer = sentence_transformer(folder("bert"), pooling=modes)
        expected = peer.encode(list(TEXTS), normalize_embeddings=True)
        assert encoder.dimension == 2 * WIDTH
        assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5

    def test_prompts(self, folder: Folder) -> None:
        options = TransformerOptions(question_prompt="query: ", passage_prompt="passage: ")
        encoder = load(folder("xlm-roberta"), options)
        peer = sentence_transformer(
            folder("xlm-roberta"), prompts={"query": "query: ", "document": "passage: "}
        )
        texts = list(TEXTS[:4])
        for found, expected in (
            (encoder.encode(texts, "question"), peer.encode_query(texts)),
            (encoder.encode(texts), peer.encode_document(texts)),
        ):
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
            assert np.abs(found - expected).max() < 1e-5
        assert np.abs(encoder.encode(texts, "question") - encoder.encode(texts)).max() > 1e-3

    @pytest.mark.parametrize("family", FAMILIES)
    def test_gradients_are_the_same(self, folder: Folder, family: str) -> None:
        encoder = load(folder(family))
        peer = sentence_transformer(folder(family))
        target = torch.randn(len(TEXTS), WIDTH, generator=torch.Generator().manual_seed(1))
        batch = encoder.tokenize(TEXTS)
        (encoder(batch) * target).sum().backward()
        features = peer.preprocess(list(TEXTS))
        vectors = functional.normalize(peer.eval()(features)["sentence_embedding"], dim=1)
        (vectors * target).sum().backward()
        theirs = dict(peer[0].model.named_parameters())
        compared = 0
        for name, parameter in encoder.network.model.named_parameters():
            expected = theirs[name].grad
            assert parameter.grad is not None, name
            if expected is None:
                expected = torch.zeros_like(parameter)
            scale = max(1.0, float(expected.abs().max()))
            assert float((parameter.grad - expected).abs().max()) < 2e-5 * scale, name
            compared += 1
        assert compared > 15


class TestEncoder:
    def test_it_keeps_the_protocols(self, encoder: TransformerEncoder) -> None:
        assert isinstance(encoder, TrainableEncoder)
        assert isinstance(encoder, GrowableEncoder)
        assert encoder.save_forms == ("whole",)
        assert not any("pooler" in name for name, _ in encoder.named_parameters())

    def test_vectors_do_not_depend_on_the_company(self, encoder: TransformerEncoder) -> None:
        together = encoder.encode(TEXTS)
        for text, vector in zip(TEXTS, together, strict=True):
            assert np.abs(encoder.encode([text])[0] - vector).max() < 1e-6

    def test_training_and_encoding_agree(self, encoder: TransformerEncoder) -> None:
        vectors = encoder(encoder.tokenize(TEXTS))
        assert vectors.requires_grad
        assert np.abs(vectors.detach().numpy() - encoder.encode(TEXTS)).max() < 1e-6
        with torch.no_grad():
            assert encoder(RaggedBatch.from_lists([])).shape == (0, WIDTH)
        assert encoder.encode([]).shape == (0, WIDTH)

    @pytest.mark.parametrize("family", [*FAMILIES, "distilbert"])
    def test_sixteen_bits(self, folder: Folder, family: str) -> None:
        encoder = load(folder(family))
        expected = encoder.encode(TEXTS)
        encoder.compute_dtype = torch.bfloat16
        found = encoder.encode(TEXTS)
        assert found.dtype == np.float32
        assert (found * expected).sum(1).min() > 0.99
        assert np.abs(found - expected).max() > 1e-5
        encoder(encoder.tokenize(TEXTS)).sum().backward()
        assert all(
            p.grad.dtype == torch.float32 for p in encoder.parameters() if p.grad is not None
        )

    def test_an_autocast_block_counts(self, encoder: TransformerEncoder) -> None:
        batch = encoder.tokenize(TEXTS)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            inside = encoder(batch)
        with torch.no_grad():
            assert 1e-5 < float((inside - encoder(batch)).abs().max()) < 0.2
        assert inside.dtype == torch.float32

    def test_many_texts_in_small_runs(
        self, encoder: TransformerEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [text for text in TEXTS for _ in range(5)]
        expected = encoder.encode(texts)
        monkeypatch.setattr("clrelkt.encoders.transformer.encoder._BLOCK_CHARACTERS", 200)
        monkeypatch.setattr("clrelkt.encoders.transformer.encoder._CPU_BATCH_TOKENS", 50)
        again = TransformerEncoder(encoder.network, encoder.tokenizer, encoder.identity)
        assert np.abs(again.encode(texts) - expected).max() < 1e-6


class TestCompactVocabulary:
    @pytest.mark.parametrize("family", [*FAMILIES, "distilbert"])
    def test_same_vectors_and_written_back(self, folder: Folder, family: str) -> None:
        encoder = load(folder(family))
        texts = TEXTS[:4]
        compact = encoder.compact(encoder.tokenize(texts).token_ids)
        rows = compact.tokenizer.rows
        assert rows is not None
        assert compact.embedding.shape[0] == len(rows) < encoder.embedding.shape[0]
        assert np.abs(compact.encode(texts) - encoder.encode(texts)).max() < 1e-6
        with torch.no_grad():
            for _, parameter in compact.named_parameters():
                parameter.add_(0.01)
        back = encoder.write_back(compact)
        assert np.abs(back.encode(texts) - compact.encode(texts)).max() < 1e-6
        untouched = torch.ones(encoder.embedding.shape[0], dtype=torch.bool)
        untouched[rows] = False
        assert torch.equal(back.embedding[untouched], encoder.embedding[untouched])
        assert back.network.model.config.vocab_size == encoder.network.model.config.vocab_size
        with pytest.raises(EncoderError, match="outside the compact vocabulary"):
            compact.tokenize(["Rain on the hills ☃"])
        with pytest.raises(EncoderError, match="compact already"):
            compact.compact(rows)
        with pytest.raises(EncoderError, match="whole vocabulary"):
            encoder.write_back(encoder)
        with pytest.raises(EncoderError, match="not made from this"):
            load(folder(family)).write_back(compact)

    def test_gradients_are_those_of_the_whole_table(self, encoder: TransformerEncoder) -> None:
        texts = TEXTS[:5]
        compact = encoder.compact(encoder.tokenize(texts).token_ids)
        found = []
        for one in (encoder, compact):
            one.zero_grad()
            one(one.tokenize(texts))[:, :5].sum().backward()
            assert one.embedding.grad is not None
            found.append(one.embedding.grad)
        torch.testing.assert_close(found[0][compact.tokenizer.rows], found[1])


SENTENCES = [f"Who wrote the book {n} and {n} of the hills at last?" for n in range(1, 6)]


class TestLongTexts:
    def test_passages_are_whole_sentences(self, encoder: TransformerEncoder) -> None:
        text = " ".join(SENTENCES)
        tokenizer = encoder.tokenizer
        (ids,) = tokenizer([text])
        starts = tokenizer.marks.passage_starts(np.array(ids)).tolist()
        parts = [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
        assert len(parts) > 2
        assert all(len(part) <= MAX_LENGTH for part in parts)
        read = [tokenizer.source.decode(part, skip_special_tokens=True) for part in parts]
        assert all(part.strip().endswith("last?") for part in read)
        assert "".join(" ".join(read).split()) == "".join(text.split())

    def test_the_vector_is_the_weighted_mean_of_the_passages(
        self, encoder: TransformerEncoder
    ) -> None:
        text = " ".join(SENTENCES)
        tokenizer = encoder.tokenizer
        (ids,) = tokenizer([text])
        starts = tokenizer.marks.passage_starts(np.array(ids)).tolist()
        lengths = np.diff([*starts, len(ids)])
        parts = RaggedBatch.from_lists(
            [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
        )
        with torch.no_grad():
            vectors = encoder(parts).numpy()
        mean = (vectors * lengths[:, None]).sum(0)
        found = encoder.encode(["the cat", text, "a dog"])
        assert np.abs(found[1] - mean / np.linalg.norm(mean)).max() < 1e-6
        assert np.abs(found[0] - encoder.encode(["the cat"])[0]).max() < 1e-6
        compact = encoder.compact(encoder.tokenize([text]).token_ids)
        assert np.abs(compact.encode([text])[0] - found[1]).max() < 1e-6

    def test_every_passage_has_the_prompt(self, folder: Folder) -> None:
        options = TransformerOptions(passage_prompt="passage: ")
        encoder = load(folder("xlm-roberta"), options)
        batch = encoder.tokenize([" ".join(SENTENCES)])
        ids = batch.token_ids.numpy()
        starts = encoder.tokenizer.marks.passage_starts(ids)
        prompt = encoder.tokenizer.segment(["passage: "])[0][:3]
        assert len(starts) > 2
        assert all(ids[start + 1 : start + 4].tolist() == prompt for start in starts)

    def test_ids_without_seams_are_cut_at_the_limit(self, encoder: TransformerEncoder) -> None:
        ids = encoder.tokenizer([SENTENCES[0]])[0]
        inner = (ids[1:-1] * 9)[: 2 * MAX_LENGTH + 5]
        with torch.no_grad():
            (vector,) = encoder(RaggedBatch.from_lists([inner]))
            parts = [inner[:MAX_LENGTH], inner[MAX_LENGTH : 2 * MAX_LENGTH], inner[-5:]]
            vectors = encoder(RaggedBatch.from_lists(parts))
        mean = (vectors * torch.tensor([MAX_LENGTH, MAX_LENGTH, 5.0])[:, None]).sum(0)
        torch.testing.assert_close(vector, functional.normalize(mean, dim=0), atol=1e-6, rtol=0)

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.text(alphabet="ab c.дแ猫\n", max_size=300))
    def test_nothing_is_lost(self, encoder: TransformerEncoder, text: str) -> None:
        tokenizer = encoder.tokenizer
        (ids,) = tokenizer([text])
        starts = tokenizer.marks.passage_starts(np.array(ids)).tolist()
        parts = [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
        assert all(len(part) <= MAX_LENGTH for part in parts)
        whole = tokenizer.segment([text])[0]
        mark = [piece for piece, _ in tokenizer.scored_pieces()].index("\u2581")
        kept = [number for part in parts for number in part[1:-1]]
        # Cutting a word in two may cut its tokens otherwise; unknown ones count characters joined.
        characters = [tokenizer.source.convert_ids_to_tokens(n) for n in kept if n != mark]
        expected = [tokenizer.source.convert_ids_to_tokens(n) for n in whole if n != mark]
        joined = "".join(characters).replace("\u2581", "").replace("<unk>", "")
        assert joined == "".join(expected).replace("\u2581", "").replace("<unk>", "")


class TestMemory:
    def test_the_budget_is_halved_and_said_so(
        self, encoder: TransformerEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = encoder.encode(TEXTS)
        network = encoder.network
        whole = network.forward
        sizes = []

        def small(batch: RaggedBatch, lengths: tuple[int, ...] | None = None) -> torch.Tensor:
            sizes.append(batch.tokens)
            if batch.tokens > 60:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(batch, lengths)

        again = TransformerEncoder(network, encoder.tokenizer, encoder.identity)
        monkeypatch.setattr(network, "forward", small)
        with pytest.warns(RuntimeWarning, match=r"out of memory on .* at once; going on with"):
            found = again.encode(TEXTS)
        assert np.abs(found - expected).max() < 1e-6
        before = len(sizes)
        again.encode(TEXTS)  # The budget stays: nothing fails, and nothing is said.
        assert all(size <= 60 for size in sizes[before:])

    def test_a_text_that_never_fits(
        self, encoder: TransformerEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(batch: RaggedBatch, lengths: tuple[int, ...] | None = None) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        again = TransformerEncoder(encoder.network, encoder.tokenizer, encoder.identity)
        monkeypatch.setattr(encoder.network, "forward", none)
        with pytest.raises(EncoderError, match="out of memory on a single text of 4 tokens"):
            again.encode(["x"])


class TestAttention:
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    @pytest.mark.parametrize("window", [None, 3])
    def test_both_kinds_are_the_same(self, window: int | None) -> None:
        lengths = (7, 1, 30, 30, 2)
        layout = TextLayout(torch.tensor(lengths, device="cuda"), lengths)
        generator = torch.Generator("cuda").manual_seed(0)
        parts = torch.randn(3, sum(lengths), 4, 16, generator=generator, device="cuda").bfloat16()
        found = VarlenAttention(layout)(*parts, window=window)
        expected = GroupedAttention(layout)(*parts.float(), window=window)
        torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)

    def test_a_window_by_hand(self) -> None:
        lengths = (5, 3)
        layout = TextLayout(torch.tensor(lengths), lengths)
        generator = torch.Generator().manual_seed(0)
        query, key, value = torch.randn(3, 8, 2, 4, generator=generator)
        found = GroupedAttention(layout)(query, key, value, window=1).view(8, 2, 4)
        for start, length in ((0, 5), (5, 3)):
            for place in range(length):
                near = [n for n in range(length) if abs(n - place) <= 1]
                for head in range(2):
                    keys = key[[start + n for n in near], head]
                    weights = torch.softmax(keys @ query[start + place, head] / 2, 0)
                    expected = weights @ value[[start + n for n in near], head]
                    torch.testing.assert_close(found[start + place, head], expected)


class TestOptions:
    def test_a_shorter_limit(self, folder: Folder) -> None:
        encoder = load(folder("bert"), TransformerOptions(max_length=12))
        peer = sentence_transformer(folder("bert"))
        peer.max_seq_length = 12
        short = [text for text in TEXTS if len(encoder.tokenizer([text])[0]) <= 12]
        assert 2 < len(short) < len(TEXTS)
        expected = peer.encode(short, normalize_embeddings=True)
        assert np.abs(encoder.encode(short) - expected).max() < 1e-5
        assert all(
            np.diff([*encoder.tokenizer.marks.passage_starts(np.array(ids)), len(ids)]).max() <= 12
            for ids in encoder.tokenizer(TEXTS)
        )

    @pytest.mark.parametrize(
        "options", [{"pooling": ("some",)}, {"max_length": 0}, {"pooling": ()}]
    )
    def test_values_that_cannot_be(self, options: dict[str, object]) -> None:
        with pytest.raises(SettingsError):
            TransformerOptions(**options)  # type: ignore[arg-type]

    def test_a_limit_beyond_the_model(self, folder: Folder) -> None:
        with pytest.raises(SettingsError, match=f"has {MAX_LENGTH} places"):
            load(folder("xlm-roberta"), TransformerOptions(max_length=MAX_LENGTH + 1))
        with pytest.raises(EncoderError, match="leaves no room beside the 2 marks"):
            load(folder("xlm-roberta"), TransformerOptions(max_length=2))
        with pytest.raises(SettingsError, match="options are for transformers"):
            load_encoder("muse", TransformerOptions())

    def test_half_of_a_surrogate_pair(self, encoder: TransformerEncoder) -> None:
        with pytest.raises(EncoderError, match="half of a surrogate pair"):
            encoder.encode(["good", "bad \ud800"])
