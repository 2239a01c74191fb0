from __future__ import annotations

from pathlib import Path

import pytest

from clrelkt.corpora.catalogue import catalogue_entry, known_corpora
from clrelkt.corpora.download import fault_of_file
from clrelkt.corpora.languages import ISO_639_1
from clrelkt.errors import UnknownNameError


def test_entries_are_whole() -> None:
    names = [entry.name for entry in known_corpora()]
    assert names == ["bundled", "xquad", "mlqa", "xorqa", "xquad-r", "muse-8bit"]
    for entry in known_corpora():
        assert entry.licence
        assert entry.citation
        assert set(entry.languages) <= ISO_639_1
        for file in entry.files:
            assert file.size > 0
            assert len(bytes.fromhex(file.sha256)) == 32
            assert not Path(file.path).is_absolute()
            assert (file.url or "https://").startswith("https://")
            # What has no address of its own comes out of an archive or a package.
            assert file.url or entry.wheel or entry.archives
        for archive in entry.archives:
            assert archive.url.startswith("https://")


def test_sizes_and_checksums_are_those_of_the_real_files(data_folder: Path) -> None:
    for name in ("xquad", "mlqa", "xorqa", "xquad-r"):
        entry = catalogue_entry(name)
        for file in entry.files:
            assert (
                fault_of_file(data_folder / entry.folder / file.path, file.size, file.sha256)
                is None
            )


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="no corpus 'squad'; known are bundled xquad mlqa"):
        catalogue_entry("squad")
