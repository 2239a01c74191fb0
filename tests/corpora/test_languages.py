from __future__ import annotations

from pathlib import Path

import pytest

from clrelkt.corpora.languages import ISO_639_1, FileLanguages, languages_of_file


@pytest.mark.parametrize(
    ("name", "question", "context"),
    [
        ("xquad.de.json", "de", "en"),
        ("de.json", "de", "en"),
        ("my-questions-th.json", "th", "en"),
        ("dev-context-zh-question-hi.json", "hi", "zh"),
        ("train-v1.1.json", "en", "en"),
        ("train.json", "en", "en"),
        ("Name.ES.json", "es", "en"),
        ("name.xx.json", "xx", "en"),
    ],
)
def test_languages_are_told_from_the_name(name: str, question: str, context: str) -> None:
    assert languages_of_file(Path("folder") / name) == FileLanguages(question, context)


def test_codes_are_those_of_the_standard() -> None:
    assert {"en", "zh", "th", "te", "yo"} <= ISO_639_1
    assert not {"xx", "qq", "jp", "cn"} & ISO_639_1
    assert len(ISO_639_1) == 184
