"""A package with an encoder: built by pip, installed, and found by its name."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from clrelkt.encoders import MuseEncoder, load_encoder
from clrelkt.encoders.installed import installed_encoders
from clrelkt.errors import EncoderError, SettingsError, StorageError, UnknownNameError
from clrelkt.sharing import PackageSettings, write_package
from clrelkt.sharing.package import encoder_folder
from clrelkt.training.provenance import describe_encoder

TEXTS = ["Where is the river?", "Wo liegt der Fluss?", "แม่น้ำอยู่ที่ไหน"]
SETTINGS = PackageSettings("muse-trial", version="1.2", card="# A trial\n", licence="MIT")


@pytest.fixture(scope="module")
def trained(muse: MuseEncoder) -> MuseEncoder:
    compact = muse.compact(muse.tokenize(TEXTS).token_ids)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in compact.network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return muse.write_back(compact)


@pytest.fixture(scope="module")
def source(trained: MuseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "clrelkt-muse-trial"
    write_package(trained, folder, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def site(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the package into."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    (wheel,) = wheels.glob("clrelkt_muse_trial-1.2-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as zipped:
        names = set(zipped.namelist())
    assert "clrelkt_muse_trial/encoder/clrelkt.json" in names
    assert "clrelkt_muse_trial/py.typed" in names
    install = [*pip, "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return site


def test_the_source_says_what_it_is(source: Path, trained: MuseEncoder) -> None:
    assert (source / "README.md").read_text("utf-8") == "# A trial\n"
    settings = (source / "pyproject.toml").read_text("utf-8")
    assert 'name = "clrelkt-muse-trial"' in settings
    assert 'license = "MIT"' in settings
    description = json.loads((encoder_folder(source, SETTINGS) / "clrelkt.json").read_text("utf-8"))
    assert description["form"] == "delta-int6"


def test_an_installed_encoder_is_known_by_name(
    site: Path, trained: MuseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="no encoder 'muse-trial'") as missing:
        load_encoder("muse-trial")
    assert "muse-8bit" in str(missing.value)
    monkeypatch.syspath_prepend(str(site))
    assert installed_encoders()["muse-trial"] == "clrelkt-muse-trial"
    loaded = load_encoder("muse-trial")
    assert loaded.name == "muse-trial"
    assert loaded.identity.base == "muse"
    cosines = (loaded.encode(TEXTS).astype(np.float64) * trained.encode(TEXTS)).sum(1)
    assert 0.9999 <= cosines.min() < 1
    described = describe_encoder("muse-trial")
    assert described is not None
    assert described["clrelkt.json"]["form"] == "delta-int6"


def test_a_broken_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[clrelkt.encoders]\nmuse-broken = nowhere:folder\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EncoderError, match="brings the encoder 'muse-broken' is broken"):
        load_encoder("muse-broken")


def test_a_package_is_replaced_and_nothing_else(
    source: Path, trained: MuseEncoder, tmp_path: Path
) -> None:
    write_package(trained, source, SETTINGS)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is no package of an encoder"):
        write_package(trained, tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Muse XQuAD"}, "name 'Muse XQuAD': lower-case words"),
        ({"name": 'a"\nb'}, "name 'a"),
        ({"name": "a", "version": "1.0-rc"}, "version '1.0-rc'"),
        ({"name": "a", "bits": 5}, "bits 5: 4, 6 or 8"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PackageSettings(**settings)  # type: ignore[arg-type]
