from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.encoders.protocol import SaveForm
from clrelkt.encoders.storage import SHARD_BYTES, save_muse
from clrelkt.encoders.transformer.encoder import TransformerEncoder
from clrelkt.encoders.vocabulary import NewPieces, with_vocabulary
from clrelkt.errors import EncoderError, StorageError

TEXTS = ["the cat sat on the mat", "", "a dog", "das Haus am Fluss"]
CHANGED_ROWS = 20_000


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write files of more than ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_same_tensors(left: MuseEncoder | TransformerEncoder, right: MuseEncoder) -> None:
    expected = dict(right.network.named_parameters())
    got = dict(left.network.named_parameters())
    assert got.keys() == expected.keys()
    for name, parameter in got.items():
        assert torch.equal(parameter, expected[name]), name


@pytest.fixture(scope="module")
def trained(muse: MuseEncoder) -> MuseEncoder:
    """MUSE with 20,000 rows and two matrices changed a little."""
    rows = torch.arange(3, 3 + 5 * CHANGED_ROWS, 5)
    compact = muse.compact(rows)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in ("embedding", "hidden_0", "convolution_2_window_5"):
            parameter = compact.network.get_parameter(name)
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return muse.write_back(compact)


@pytest.fixture(scope="module")
def delta_folder(trained: MuseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "delta"
    trained.save(folder, form="delta")
    return folder


@pytest.fixture
def delta_copy(delta_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(delta_folder, tmp_path / "delta"))


@pytest.fixture
def whole_folder(small_encoder: MuseEncoder, tmp_path: Path) -> Path:
    small_encoder.save(tmp_path / "whole")
    return tmp_path / "whole"


def edit_description(folder: Path, **values: object) -> None:
    path = folder / "clrelkt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestWhole:
    def test_round_trip_is_exact(self, small_encoder: MuseEncoder, whole_folder: Path) -> None:
        loaded = load_encoder(whole_folder)
        assert_same_tensors(loaded, small_encoder)
        assert np.array_equal(loaded.encode(TEXTS), small_encoder.encode(TEXTS))
        assert loaded.name == str(whole_folder)
        assert loaded.weights == small_encoder.weights
        assert loaded.languages == small_encoder.languages
        assert loaded.identity.base == "small"

    def test_files_can_be_read_by_others(self, whole_folder: Path) -> None:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in whole_folder.iterdir()}
        assert set(modes) == {
            "clrelkt.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentencepiece.model",
        }
        assert set(modes.values()) == {0o644}
        assert stat.S_IMODE(whole_folder.stat().st_mode) == 0o755

    def test_an_encoder_that_is_there_is_replaced(
        self, small_encoder: MuseEncoder, whole_folder: Path
    ) -> None:
        (whole_folder / "delta-00000.safetensors").write_bytes(b"of an older save")
        small_encoder.save(whole_folder)
        assert not (whole_folder / "delta-00000.safetensors").exists()
        assert_same_tensors(load_encoder(whole_folder), small_encoder)

    def test_float16_is_half_the_size(
        self, small_encoder: MuseEncoder, whole_folder: Path, tmp_path: Path
    ) -> None:
        small_encoder.save(tmp_path / "half", form="whole-float16")
        sizes = [
            (folder / "model.safetensors").stat().st_size
            for folder in (tmp_path / "half", whole_folder)
        ]
        assert sizes[0] < 0.51 * sizes[1]
        loaded = load_encoder(tmp_path / "half")
        assert isinstance(loaded, MuseEncoder)
        assert loaded.network.hidden_0.dtype == torch.float32
        assert torch.equal(loaded.network.hidden_0, small_encoder.network.hidden_0.half().float())

    def test_a_compact_encoder_is_not_saved(
        self, small_encoder: MuseEncoder, tmp_path: Path
    ) -> None:
        with pytest.raises(EncoderError, match="write it back first"):
            small_encoder.compact(torch.arange(40)).save(tmp_path / "compact")
        assert list(tmp_path.iterdir()) == []


class TestDelta:
    def test_round_trip_is_exact(self, trained: MuseEncoder, delta_folder: Path) -> None:
        loaded = load_encoder(delta_folder)
        assert_same_tensors(loaded, trained)
        assert np.array_equal(loaded.encode(TEXTS), trained.encode(TEXTS))
        assert loaded.identity.base == "muse"

    def test_it_holds_what_changed_and_no_more(self, delta_folder: Path) -> None:
        stored: dict[str, torch.Tensor] = {}
        for path in delta_folder.glob("*.safetensors"):
            stored |= load_file(str(path))
        rows = stored.pop("embedding.rows")
        assert torch.equal(rows, torch.arange(3, 3 + 5 * CHANGED_ROWS, 5, dtype=torch.int32))
        values = [name for name in stored if name.startswith("embedding.values.")]
        assert sum(stored[name].shape[0] for name in values) == CHANGED_ROWS
        assert stored.keys() - values == {"hidden_0", "convolution_2_window_5"}

    def test_no_file_is_larger_than_15_mib(self, delta_folder: Path) -> None:
        sizes = [path.stat().st_size for path in delta_folder.iterdir()]
        assert len(sizes) >= 5
        assert max(sizes) <= SHARD_BYTES == 15 * 1024 * 1024

    def test_float16_is_half_the_size_and_nearly_the_same(
        self, trained: MuseEncoder, delta_folder: Path, tmp_path: Path
    ) -> None:
        trained.save(tmp_path / "half", form="delta-float16")

        def size(folder: Path) -> int:
            return sum(path.stat().st_size for path in folder.glob("*.safetensors"))

        assert size(tmp_path / "half") < 0.51 * size(delta_folder)
        loaded = load_encoder(tmp_path / "half")
        assert loaded.network.embedding.dtype == torch.float32
        cosines = (loaded.encode(TEXTS).astype(np.float64) * trained.encode(TEXTS)).sum(1)
        assert cosines.min() >= 0.999_999

    @pytest.mark.parametrize(
        ("form", "share", "cosine"),
        [
            ("delta-int8", 0.26, 0.999_99),
            ("delta-int6", 0.22, 0.999_9),
            ("delta-int4", 0.17, 0.999),
        ],
    )
    def test_few_bits_lose_little(
        self,
        trained: MuseEncoder,
        delta_folder: Path,
        tmp_path: Path,
        form: SaveForm,
        share: float,
        cosine: float,
    ) -> None:
        trained.save(tmp_path / "small", form=form)

        def size(folder: Path) -> int:
            return sum(path.stat().st_size for path in folder.glob("*.safetensors"))

        assert size(tmp_path / "small") < share * size(delta_folder)
        loaded = load_encoder(tmp_path / "small")
        cosines = (loaded.encode(TEXTS).astype(np.float64) * trained.encode(TEXTS)).sum(1)
        assert cosine <= cosines.min() < 1

    def test_few_bits_round_the_difference_from_the_base(
        self, muse: MuseEncoder, trained: MuseEncoder, tmp_path: Path
    ) -> None:
        trained.save(tmp_path / "small", form="delta-int6")
        loaded = load_encoder(tmp_path / "small")
        rows = [2, 3, 8]  # Row 2 is not changed.
        base = muse.network.embedding.detach()[rows]
        difference = trained.network.embedding.detach()[rows] - base
        got = loaded.network.embedding.detach()[rows] - base
        scale = difference.abs().amax(1, keepdim=True) / 31
        assert torch.equal(got[0], torch.zeros_like(got[0]))
        assert ((got - difference).abs() <= scale / 2 + 1e-6).all()

    def test_few_bits_with_new_pieces(self, muse: MuseEncoder, tmp_path: Path) -> None:
        pieces = NewPieces(tuple(f"ᚠᚢ{number}ᚦ" for number in range(14)), (-9.0,) * 14)
        rows = torch.randn(14, 512, generator=torch.Generator().manual_seed(0))
        grown = with_vocabulary(muse, pieces, rows, ("is",))
        grown.save(tmp_path / "small", form="delta-int8")
        loaded = load_encoder(tmp_path / "small")
        assert loaded.languages == muse.languages | {"is"}
        table = loaded.network.embedding.detach()
        assert table.shape == (128_014, 512)
        # The first ten stand where the base has rows that no token ever had.
        scale = rows[10:].abs().amax(1, keepdim=True) / 127
        assert ((table[128_010:] - rows[10:]).abs() <= scale / 2 + 1e-6).all()
        text = ["ᚠᚢ7ᚦ"]
        assert float((loaded.encode(text) * grown.encode(text)).sum()) >= 0.9999

    def test_few_bits_without_their_scales_are_refused(
        self, trained: MuseEncoder, tmp_path: Path
    ) -> None:
        folder = tmp_path / "small"
        trained.save(folder, form="delta-int4")
        for path in folder.glob("delta-*.safetensors"):
            stored = load_file(str(path))
            stored.pop("embedding.scales", None)
            save_file(stored, str(path))
        with pytest.raises(EncoderError, match=f"{folder}: the changed rows do not fit"):
            load_encoder(folder)

    def test_of_an_unchanged_encoder(self, muse: MuseEncoder, tmp_path: Path) -> None:
        muse.save(tmp_path / "same", form="delta")
        assert_same_tensors(load_encoder(tmp_path / "same"), muse)

    def test_values_that_float16_cannot_hold_are_refused(
        self, muse: MuseEncoder, tmp_path: Path
    ) -> None:
        compact = muse.compact(torch.tensor([1, 2]))
        with torch.no_grad():
            compact.network.hidden_1[0, 0] = 70_000.0
        with pytest.raises(EncoderError, match="hidden_1 holds values that delta-float16 cannot"):
            muse.write_back(compact).save(tmp_path / "half", form="delta-float16")
        assert list(tmp_path.iterdir()) == []

    def test_needs_a_published_base(self, small_encoder: MuseEncoder, tmp_path: Path) -> None:
        with pytest.raises(EncoderError, match=r"base is 'small'\. Save it whole"):
            small_encoder.save(tmp_path / "delta", form="delta")
        assert list(tmp_path.iterdir()) == []

    def test_of_other_base_weights_is_refused(self, delta_copy: Path) -> None:
        edit_description(delta_copy, base_sha256="0" * 64)
        with pytest.raises(EncoderError, match=f"{delta_copy} is a delta of other 'muse' weights"):
            load_encoder(delta_copy)

    def test_of_an_unknown_base_is_refused(self, delta_copy: Path) -> None:
        edit_description(delta_copy, base="elsewhere")
        with pytest.raises(EncoderError, match=f"{delta_copy} is a delta of 'elsewhere'"):
            load_encoder(delta_copy)

    @pytest.mark.parametrize("position", [0, 1, -1])
    def test_a_missing_file_is_named(self, delta_copy: Path, position: int) -> None:
        path = sorted(delta_copy.glob("delta-*.safetensors"))[position]
        path.unlink()
        with pytest.raises(EncoderError, match=str(path)):
            load_encoder(delta_copy)

    def test_rows_outside_the_base_are_refused(self, delta_copy: Path) -> None:
        for path in delta_copy.glob("delta-*.safetensors"):
            stored = load_file(str(path))
            if "embedding.rows" in stored:
                stored["embedding.rows"] += 128_010
                save_file(stored, str(path))
        with pytest.raises(EncoderError, match=f"{delta_copy}: the changed rows do not fit"):
            load_encoder(delta_copy)

    def test_without_a_list_of_files_is_refused(self, delta_copy: Path) -> None:
        edit_description(delta_copy, files=None)
        with pytest.raises(EncoderError, match=f"{delta_copy}: .* does not list"):
            load_encoder(delta_copy)


class TestFoldersThatAreNoEncoder:
    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(EncoderError, match=f"{tmp_path} is no encoder"):
            load_encoder(tmp_path)

    def test_truncated_json(self, whole_folder: Path) -> None:
        path = whole_folder / "clrelkt.json"
        path.write_text(path.read_text()[:40])
        with pytest.raises(EncoderError, match=f"{whole_folder} is no encoder: clrelkt.json"):
            load_encoder(whole_folder)

    def test_json_of_another_kind(self, whole_folder: Path) -> None:
        (whole_folder / "clrelkt.json").write_text("[]")
        with pytest.raises(EncoderError, match=f"{whole_folder}.*no format version"):
            load_encoder(whole_folder)

    def test_a_newer_format(self, whole_folder: Path) -> None:
        edit_description(whole_folder, format=4)
        with pytest.raises(EncoderError, match=r"format 4, .* up to 3; install a newer clrelkt"):
            load_encoder(whole_folder)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("kind", "bert", "kind 'bert' is not known"),
            ("kind", None, "kind is None, expected a str"),
            ("form", "half", "form 'half', expected one of whole, whole-float16, delta,"),
            ("base", 3, "base is 3, expected a str"),
            ("languages", "en", "languages is 'en', expected a list"),
        ],
    )
    def test_a_wrong_value(self, whole_folder: Path, key: str, value: object, message: str) -> None:
        edit_description(whole_folder, **{key: value})
        with pytest.raises(EncoderError, match=f"{whole_folder / 'clrelkt.json'}: {message}"):
            load_encoder(whole_folder)

    @pytest.mark.parametrize("size", [0, 4, 500, 1_000_000])
    def test_truncated_tensors(self, whole_folder: Path, size: int) -> None:
        path = whole_folder / "model.safetensors"
        os.truncate(path, size)
        with pytest.raises(EncoderError, match=f"{path}: tensors cannot be read"):
            load_encoder(whole_folder)

    @pytest.mark.parametrize("name", ["model.safetensors", "sentencepiece.model"])
    def test_a_missing_file(self, whole_folder: Path, name: str) -> None:
        (whole_folder / name).unlink()
        with pytest.raises(EncoderError, match=str(whole_folder / name)):
            load_encoder(whole_folder)

    def test_a_spoilt_sentencepiece_model(self, whole_folder: Path) -> None:
        path = whole_folder / "sentencepiece.model"
        path.write_bytes(b"spoilt")
        with pytest.raises(EncoderError, match=f"{path}: cannot be read"):
            load_encoder(whole_folder)

    def test_a_table_with_fewer_rows_than_pieces(self, whole_folder: Path) -> None:
        path = whole_folder / "model.safetensors"
        tensors = load_file(str(path))
        save_file(tensors | {"embedding": tensors["embedding"][:10].contiguous()}, str(path))
        with pytest.raises(EncoderError, match=r"has \d+ pieces, the embedding table only 10 rows"):
            load_encoder(whole_folder)

    def test_other_tensors(self, whole_folder: Path) -> None:
        save_file({"weight": torch.zeros(3)}, str(whole_folder / "model.safetensors"))
        with pytest.raises(EncoderError, match=f"{whole_folder}: not mUSE's tensors"):
            load_encoder(whole_folder)


class TestPlacesThatCannotBeWritten:
    def test_a_file_where_the_parent_should_be(
        self, small_encoder: MuseEncoder, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StorageError, match=str(tmp_path / "file")):
            small_encoder.save(tmp_path / "file" / "encoder")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_file_where_the_folder_should_be(
        self, small_encoder: MuseEncoder, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StorageError, match=r"file is there and is no encoder"):
            small_encoder.save(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_folder_of_other_things_is_left_alone(
        self, small_encoder: MuseEncoder, tmp_path: Path
    ) -> None:
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(StorageError, match="is no encoder: saving would remove it"):
            small_encoder.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_an_empty_folder_is_filled(self, small_encoder: MuseEncoder, tmp_path: Path) -> None:
        (tmp_path / "encoder").mkdir()
        small_encoder.save(tmp_path / "encoder")
        assert_same_tensors(load_encoder(tmp_path / "encoder"), small_encoder)

    def test_a_disk_that_fills_up_leaves_nothing(
        self, small_encoder: MuseEncoder, tmp_path: Path
    ) -> None:
        with (
            files_at_most(1_000_000),
            pytest.raises(StorageError, match=r"File too large.*Free some space"),
        ):
            small_encoder.save(tmp_path / "encoder")
        assert list(tmp_path.iterdir()) == []

    def test_a_save_that_fails_midway_leaves_the_encoder_that_was_there(
        self, small_encoder: MuseEncoder, whole_folder: Path
    ) -> None:
        before = {path.name: path.read_bytes() for path in whole_folder.iterdir()}
        with files_at_most(1_000_000), pytest.raises(StorageError):
            save_muse(small_encoder, whole_folder)
        assert {path.name: path.read_bytes() for path in whole_folder.iterdir()} == before
        assert [path.name for path in whole_folder.parent.iterdir()] == [whole_folder.name]
