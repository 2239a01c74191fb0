# ruff: noqa: RUF001
from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from clrelkt.corpora.folders import find_data
from clrelkt.corpora.xquad import read_xquad
from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.encoders.vocabulary import (
    NewPieces,
    VocabularySettings,
    aligned_rows,
    learn_pieces,
    segment_rows,
    with_vocabulary,
)
from clrelkt.errors import DataError, EncoderError, SettingsError

SETTINGS = VocabularySettings(pieces=400)


def lines(path: Path, count: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.split("\t")[1] for line, _ in zip(file, range(count), strict=False)]


@pytest.fixture(scope="module")
def greek(data_folder: Path) -> list[str]:
    return lines(data_folder / "parallel/el/sentences.tsv.gz", 1500)


@pytest.fixture(scope="module")
def new(muse: MuseEncoder, greek: list[str]) -> NewPieces:
    return learn_pieces(muse.tokenizer, {"el": greek}, SETTINGS)


@pytest.fixture(scope="module")
def grown(muse: MuseEncoder, new: NewPieces) -> MuseEncoder:
    return with_vocabulary(muse, new, segment_rows(muse, new), ["el"])


@pytest.fixture(scope="module")
def delta(grown: MuseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "delta"
    grown.save(folder, form="delta")
    return folder


@pytest.fixture
def delta_copy(delta: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(delta, tmp_path / "delta"))


class TestLearning:
    def test_pieces_have_a_letter_beyond_ascii(self, new: NewPieces) -> None:
        assert 200 < len(new) <= 400
        assert all(not piece.replace("\u2581", "").isascii() for piece in new.pieces)

    def test_pieces_are_new_and_in_use(
        self, muse: MuseEncoder, new: NewPieces, greek: list[str]
    ) -> None:
        old = sentencepiece.SentencePieceProcessor(model_proto=muse.tokenizer.model)
        assert all(old.piece_to_id(piece) == old.unk_id() for piece in new.pieces)
        tokens = muse.tokenizer.grown(new)(greek)
        used = {number for text in tokens for number in text}
        assert used >= set(range(128_000, 128_000 + len(new)))

    def test_it_is_deterministic(self, muse: MuseEncoder, new: NewPieces, greek: list[str]) -> None:
        assert learn_pieces(muse.tokenizer, {"el": greek}, SETTINGS) == new

    def test_fewer_tokens_and_no_unknown_ones(
        self, muse: MuseEncoder, grown: MuseEncoder, greek: list[str]
    ) -> None:
        before, after = muse.tokenizer(greek), grown.tokenizer(greek)
        assert sum(map(len, after)) < 0.7 * sum(map(len, before))
        assert sum(text.count(0) for text in after) < 0.01 * sum(text.count(0) for text in before)

    @pytest.mark.parametrize("scope", ["non-ascii", "all"])
    def test_protected_texts_keep_their_tokens(
        self, muse: MuseEncoder, data_folder: Path, scope: str
    ) -> None:
        finnish = lines(data_folder / "parallel/fi/sentences.tsv.gz", 1500)
        german = lines(data_folder / "parallel/de/sentences.tsv.gz", 1500)
        settings = VocabularySettings(pieces=800, scope=scope)  # type: ignore[arg-type]
        tokenizer = muse.tokenizer
        free = learn_pieces(tokenizer, {"fi": finnish}, settings)
        safe = learn_pieces(tokenizer, {"fi": finnish}, settings, protected=german)
        assert 0 < len(safe) < len(free)
        old = muse.tokenizer(german)
        assert tokenizer.grown(free)(german) != old
        assert tokenizer.grown(safe)(german) == old

    def test_ascii_pieces_only_where_they_are_asked_for(
        self, muse: MuseEncoder, data_folder: Path
    ) -> None:
        finnish = lines(data_folder / "parallel/fi/sentences.tsv.gz", 1500)
        for scope, expected in (("non-ascii", False), ("all", True)):
            settings = VocabularySettings(pieces=800, scope=scope)  # type: ignore[arg-type]
            found = learn_pieces(muse.tokenizer, {"fi": finnish}, settings)
            plain = [piece for piece in found.pieces if piece.replace("\u2581", "").isascii()]
            assert bool(plain) is expected

    def test_too_few_texts(self, muse: MuseEncoder) -> None:
        with pytest.raises(DataError, match="'el'"):
            learn_pieces(muse.tokenizer, {"el": []}, SETTINGS)

    @pytest.mark.parametrize("values", [{"pieces": 0}, {"scope": "some"}, {"coverage": 0.0}])
    def test_settings_that_cannot_be(self, values: dict[str, object]) -> None:
        with pytest.raises(SettingsError):
            VocabularySettings(**values)  # type: ignore[arg-type]


class TestGrownModel:
    def test_pieces_get_the_ids_that_follow(self, muse: MuseEncoder) -> None:
        new = NewPieces(("\u2581γάτα", "x" * 200 + "ω"), (-5.5, -7.25))
        model = muse.tokenizer.grown(new).model
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        assert processor.get_piece_size() == 128_002
        assert [processor.id_to_piece(n) for n in (128_000, 128_001)] == list(new.pieces)
        assert [processor.get_score(n) for n in (128_000, 128_001)] == [-5.5, -7.25]
        assert processor.encode("γάτα") == [128_000]

    def test_it_grows_twice(self, grown: MuseEncoder) -> None:
        more = NewPieces(("\u2581кошкаωω",), (-6.0,))
        twice = with_vocabulary(grown, more, torch.ones(1, 512), ["el"])
        assert twice.tokenizer.pieces == grown.tokenizer.pieces + 1
        assert twice.tokenizer(["кошкаωω"]) == [[1, grown.tokenizer.pieces, 2]]
        assert torch.equal(twice.network.embedding[grown.tokenizer.pieces], torch.ones(512))


class TestGrownEncoder:
    def test_english_is_as_before(self, muse: MuseEncoder, grown: MuseEncoder) -> None:
        folder = find_data("xquad")
        if folder is None:
            pytest.skip("XQuAD is not here")
        corpus = read_xquad(folder, name="xquad").in_languages(["en"])
        questions = [question.text for question in corpus.questions]
        passages = [passage.text for passage in corpus.passage_by_id.values()]
        for texts in (questions, passages):
            ascii_only = [text for text in texts if text.isascii()]
            assert len(ascii_only) > 100
            assert grown.tokenizer(ascii_only) == muse.tokenizer(ascii_only)
        some = [text for text in passages if text.isascii()][:20] + questions[:40]
        some = [text for text in some if text.isascii()]
        assert np.array_equal(grown.encode(some), muse.encode(some))

    def test_other_known_languages_are_as_before(
        self, muse: MuseEncoder, grown: MuseEncoder, data_folder: Path
    ) -> None:
        for language in ("ja", "ko", "de", "th"):
            texts = lines(data_folder / f"parallel/{language}/sentences.tsv.gz", 100)
            assert grown.tokenizer(texts) == muse.tokenizer(texts)
            assert np.array_equal(grown.encode(texts[:10]), muse.encode(texts[:10]))

    def test_languages_and_rows(
        self, muse: MuseEncoder, grown: MuseEncoder, new: NewPieces
    ) -> None:
        assert grown.languages == muse.languages | {"el"}
        assert grown.network.embedding.shape == (128_000 + len(new), 512)
        assert torch.equal(grown.network.embedding[:128_000], muse.network.embedding[:128_000])

    def test_few_pieces_leave_the_table_as_long_as_it_was(self, muse: MuseEncoder) -> None:
        one = with_vocabulary(muse, NewPieces(("\u2581γάταω",), (-5.0,)), torch.ones(1, 512), [])
        assert one.network.embedding.shape == (128_010, 512)
        assert torch.equal(one.network.embedding[128_001:], muse.network.embedding[128_001:])

    def test_rows_start_as_the_mean_of_the_old_pieces(self, muse: MuseEncoder) -> None:
        table = muse.network.embedding
        old = sentencepiece.SentencePieceProcessor(model_proto=muse.tokenizer.model)
        new = NewPieces(("\u2581dog\u2581house", "\U0001f9ff"), (-5.0, -5.0))
        rows = segment_rows(muse, new)
        ids = [old.piece_to_id("\u2581dog"), old.piece_to_id("\u2581house")]
        torch.testing.assert_close(rows[0], table[ids].mean(0))
        torch.testing.assert_close(rows[1], table[:128_000].mean(0))

    def test_compact_and_write_back(self, grown: MuseEncoder, greek: list[str]) -> None:
        texts = greek[:20]
        compact = grown.compact(grown.tokenize(texts).token_ids)
        np.testing.assert_allclose(compact.encode(texts), grown.encode(texts), atol=1e-6)
        with torch.no_grad():
            compact.network.embedding.add_(1)
        back = grown.write_back(compact)
        assert back.tokenizer.rows is None
        assert torch.equal(
            back.network.embedding[compact.tokenizer.rows], compact.network.embedding
        )

    def test_too_few_rows_are_refused(self, muse: MuseEncoder) -> None:
        with pytest.raises(EncoderError, match="128000 pieces, but only 5 rows"):
            muse.with_table(torch.ones(5, 512), muse.tokenizer, [])


class TestDelta:
    def test_round_trip_is_exact_and_small(
        self, grown: MuseEncoder, delta: Path, greek: list[str]
    ) -> None:
        loaded = load_encoder(delta)
        assert isinstance(loaded, MuseEncoder)
        assert torch.equal(loaded.network.embedding, grown.network.embedding)
        assert loaded.tokenizer.model == grown.tokenizer.model
        assert loaded.languages == grown.languages
        assert np.array_equal(loaded.encode(greek[:9]), grown.encode(greek[:9]))
        assert sum(path.stat().st_size for path in delta.iterdir()) < 5e6
        assert json.loads((delta / "clrelkt.json").read_text())["format"] == 2

    def test_float16(self, grown: MuseEncoder, tmp_path: Path) -> None:
        grown.save(tmp_path / "half", form="delta-float16")
        loaded = load_encoder(tmp_path / "half")
        assert torch.equal(
            loaded.network.embedding[128_000:], grown.network.embedding[128_000:].half().float()
        )

    def test_a_whole_encoder_needs_no_newer_format(
        self, grown: MuseEncoder, tmp_path: Path
    ) -> None:
        grown.save(tmp_path / "whole")
        assert json.loads((tmp_path / "whole/clrelkt.json").read_text())["format"] == 1
        loaded = load_encoder(tmp_path / "whole")
        assert isinstance(loaded, MuseEncoder)
        assert loaded.tokenizer.model == grown.tokenizer.model

    @pytest.mark.parametrize("cut", [1, 20, 2_600_000])
    def test_a_damaged_sentencepiece_model_is_refused(self, delta_copy: Path, cut: int) -> None:
        path = delta_copy / "sentencepiece.model"
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(EncoderError, match=str(path)):
            load_encoder(delta_copy)

    def test_missing_files_are_refused(self, delta_copy: Path) -> None:
        (delta_copy / "sentencepiece.model").unlink()
        with pytest.raises(EncoderError, match=r"sentencepiece\.model"):
            load_encoder(delta_copy)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_rows_that_do_not_add_up_are_refused(self, delta_copy: Path, change: int) -> None:
        path = delta_copy / "clrelkt.json"
        description = json.loads(path.read_text())
        path.write_text(json.dumps(description | {"rows": description["rows"] + change}))
        with pytest.raises(EncoderError, match="the changed rows do not fit"):
            load_encoder(delta_copy)

    def test_missing_rows_are_refused(self, delta_copy: Path) -> None:
        (path,) = delta_copy.glob("delta-*.safetensors")
        stored = load_file(str(path))
        keep = torch.ones(len(stored["embedding.rows"]), dtype=torch.bool)
        keep[-3] = False
        for name in ("embedding.rows", "embedding.values.0"):
            stored[name] = stored[name][keep]
        save_file(stored, str(path))
        with pytest.raises(EncoderError, match="the changed rows do not fit"):
            load_encoder(delta_copy)


class TestAlignedRows:
    def test_a_piece_starts_as_the_word_that_it_translates(self, muse: MuseEncoder) -> None:
        new = NewPieces(("\u2581γάτα", "\u2581σκύλος", "\u2581ωωω"), (-6.0, -6.0, -6.0))
        english = ["cat", "dog", "cat dog", "dog cat"] * 5
        greek = ["γάτα", "σκύλος", "γάτα σκύλος", "σκύλος γάτα"] * 5
        rows = aligned_rows(muse, new, [(english, greek)], rounds=20)
        old = sentencepiece.SentencePieceProcessor(model_proto=muse.tokenizer.model)
        table = muse.network.embedding
        for row, word in ((0, "cat"), (1, "dog")):
            target = table[old.piece_to_id(f"\u2581{word}")]
            assert torch.cosine_similarity(rows[row], target, dim=0) > 0.99
        assert torch.equal(rows[2], segment_rows(muse, new)[2])

    def test_unknown_marks_become_known(self, muse: MuseEncoder) -> None:
        hindi = ["यह एक बिल्ली है।", "वह एक कुत्ता है।", "मैं घर जाता हूँ।"] * 30
        assert any(0 in ids for ids in muse.tokenizer(["।"]))
        new = learn_pieces(muse.tokenizer, {"hi": hindi}, VocabularySettings(pieces=40))
        grown = muse.tokenizer.grown(new)
        assert not any(0 in ids for ids in grown(hindi))
