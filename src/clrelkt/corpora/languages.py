"""Language codes, and the languages that a file's name tells of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ISO_639_1", "FileLanguages", "languages_of_file"]

_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy
da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu
hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb
lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om
or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw
ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""

ISO_639_1 = frozenset(_CODES.split())
"""The two-letter codes of ISO 639-1."""

_QUESTION = re.compile(r"question-([a-z]{2})(?![a-z])")
_CONTEXT = re.compile(r"context-([a-z]{2})(?![a-z])")
_LAST = re.compile(r"(?:^|[.\-_])([a-z]{2})$")


@dataclass(frozen=True, slots=True)
class FileLanguages:
    """The languages of a file's questions and contexts, as codes; not checked to exist."""

    question: str
    context: str


def languages_of_file(path: Path) -> FileLanguages:
    """Tell the languages from a name such as ``name.de.json`` or ``context-en-question-de.json``.

    A name without a code, and contexts without one of their own, count as English.
    """
    stem = path.stem.lower()
    question = _QUESTION.search(stem) or _LAST.search(stem)
    context = _CONTEXT.search(stem)
    return FileLanguages(
        question=question.group(1) if question else "en",
        context=context.group(1) if context else "en",
    )
