"""Which tokenizers of Hugging Face cut words, apart from each other by spaces, independently."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["WordRules"]

_BY_CHARACTER = {
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "StripAccents",
    "BertNormalizer",
    "Nmt",
}
"""Normalisers to which a space is a character like any other, and a starter of no composition."""

_SPLITTERS = {"WhitespaceSplit", "BertPreTokenizer"}
"""Pre-tokenizers that cut at every white space and leave none."""

_PROCESSORS = {"BertProcessing", "RobertaProcessing"}
"""What puts marks around a text and changes nothing else."""

_UNDERSCORE = "\u2581"
_CONTROLS = frozenset("\u00ad\u200b\u200e\u200f\u2060\ufeff")
_NOT_FIRST = frozenset("\u0e33\u0eb3\uff9e\uff9f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_NOT_LAST = frozenset(
    "\u0d4e\U000111c2\U000111c3\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84\U00011a85"
    "\U00011a86\U00011a87\U00011a88\U00011a89\U00011d46\U00011f02"
)


@dataclass(frozen=True, slots=True)
class _Step:
    """One normaliser, and what a word must be for it to see no further than to its spaces.

    ``by_clusters``: it looks at grapheme clusters, so none may hold a space and a part of a word.
    ``at_spaces``: it changes white space at the ends of a text, or several spaces, so none may
    come from the ends of a word.
    """

    normalise: Callable[[str], str]
    by_clusters: bool = False
    at_spaces: bool = False


@dataclass(frozen=True, slots=True)
class WordRules:
    """What is known of a tokenizer whose texts' ids are those of their words one after the other.

    Words are what stands between the characters U+0020 of a text. ``spaces_count``: an empty word
    has tokens of its own, unless ``gaps_vanish``: several spaces are as good as one and those at
    the ends of a text as none.
    """

    steps: tuple[_Step, ...]
    spaces_count: bool
    gaps_vanish: bool
    added: tuple[str, ...]

    @classmethod
    def of(cls, backend: Any) -> Self | None:
        """Return the rules of a tokenizer of the package ``tokenizers``; None: it has none.

        It has where the model is Unigram or WordPiece and does not draw, the pre-tokenizer cuts at
        spaces and treats every word alike, the normalisers look at no neighbour across a space, and
        no added token holds white space.
        """
        spaces_count = _spaces_count(_state(backend.pre_tokenizer))
        steps = _steps(backend.normalizer)
        if spaces_count is None or steps is None or not _is_fixed(backend.model):
            return None
        if not _only_marks(_state(backend.post_processor)):
            return None
        rules = cls(steps, spaces_count, spaces_count and _gaps_vanish(steps), ())
        contents = {token.content for token in backend.get_added_tokens_decoder().values()}
        contents |= {rules._normalised(content) for content in contents}
        if any(content.split() != [content] for content in contents):
            return None
        return dataclasses.replace(rules, added=tuple(sorted(contents)))

    def apart(self, words: Sequence[str]) -> list[bool]:
        """Return of each word whether its ids are the same alone and in every text.

        A text with one that is not so must be cut whole. Raises what ``tokenizers`` raises at half
        of a surrogate pair.
        """
        found = self._free_of_added(words)
        forms = list(words)
        for step in self.steps:
            if step.by_clusters:
                found = _both(found, map(_is_own_clusters, forms))
            if step.at_spaces:
                found = _both(found, map(_is_bare, forms))
            forms = list(map(step.normalise, forms))
        if self.spaces_count:
            found = _both(found, map(_is_bare, forms))
        found = _both(found, self._free_of_added(forms))
        if self.gaps_vanish:
            found = [alone or not word for alone, word in zip(found, words, strict=True)]
        return found

    def _free_of_added(self, words: Sequence[str]) -> list[bool]:
        together = " ".join(words)
        held = [content for content in self.added if content in together]
        if not held:
            return [True] * len(words)
        return [not any(content in word for content in held) for word in words]

    def _normalised(self, text: str) -> str:
        for step in self.steps:
            text = step.normalise(text)
        return text


def _both(some: Sequence[bool], others: Any) -> list[bool]:
    return [one and other for one, other in zip(some, others, strict=True)]


def _state(part: Any) -> dict[str, Any]:
    """Return what a part of a tokenizer is made of; empty for none.

    A part written in Python cannot be looked into and has the type "Custom".
    """
    if part is None:
        return {}
    try:
        return dict(json.loads(part.__getstate__()))
    except Exception:  # The package raises no other kind.
        return {"type": "Custom"}


def _is_fixed(model: Any) -> bool:
    """Whether the model gives a word the same ids every time."""
    kind = type(model).__name__
    draws = getattr(model, "alpha", None) or getattr(model, "nbest_size", None)
    return kind == "WordPiece" or (kind == "Unigram" and not draws)


def _only_marks(processor: dict[str, Any]) -> bool:
    """Whether a post-processor puts marks around a text and does nothing else."""
    if processor.get("type") == "TemplateProcessing":
        return sum("Sequence" in part for part in processor["single"]) == 1
    return not processor or processor["type"] in _PROCESSORS


def _spaces_count(cutter: dict[str, Any]) -> bool | None:
    """Whether a pre-tokenizer makes something of empty words; None: words are not cut alike."""
    kind = cutter.get("type")
    if kind in _SPLITTERS:
        return False
    if kind == "Metaspace":
        return True if _prepends(cutter) in ("always", "first") else None
    if kind == "Sequence":
        first, *others = cutter["pretokenizers"] or [{}]
        # Behind a cut at white space "first" is the first word alone.
        marked = len(others) == 1 and _prepends(others[0]) == "always"
        return False if first.get("type") == "WhitespaceSplit" and marked else None
    return None


def _prepends(cutter: dict[str, Any]) -> str:
    known = cutter["type"] == "Metaspace" and cutter["replacement"] == _UNDERSCORE
    return str(cutter["prepend_scheme"]) if known and cutter["split"] else ""


def _steps(normaliser: Any) -> tuple[_Step, ...] | None:
    """Return the steps of a normaliser; None: one of them can look across a space."""
    state = _state(normaliser)
    if not state:
        return ()
    if state["type"] == "Sequence":
        parts = [_steps(normaliser[place]) for place in range(len(state["normalizers"]))]
        return None if None in parts else tuple(step for part in parts for step in part or ())
    step = _step(normaliser, state)
    if step is None or step.normalise("a a") != " ".join([step.normalise("a")] * 2):
        return None
    return (step,)


def _gaps_vanish(steps: tuple[_Step, ...]) -> bool:
    """Whether the last two steps, and no others, take away what spaces are too many.

    One space at the start of a text is the sign of it that stands before every first word.
    """
    if [step.at_spaces for step in steps] != [False] * (len(steps) - 2) + [True, True]:
        return False
    stripped = steps[-2].normalise("a b  ")
    return stripped == "a b" and steps[-1].normalise("a  b") in (f"a{_UNDERSCORE}b", "a b")


def _step(normaliser: Any, state: dict[str, Any]) -> _Step | None:
    kind, normalise = state["type"], normaliser.normalize_str
    if kind in _BY_CHARACTER:
        return _Step(normalise)
    if kind == "Precompiled":
        return _Step(normalise, by_clusters=True)
    if kind == "Strip":
        return _Step(normalise, at_spaces=True)
    if kind == "Replace":
        if state["pattern"] == {"Regex": " {2,}"}:
            return _Step(normalise, at_spaces=True)
        pattern = state["pattern"].get("String", "")
        return _Step(normalise) if pattern.split() == [pattern] else None
    return None


def _is_bare(word: str) -> bool:
    """Whether a word is more than white space, has none outside, and no sign of a space first."""
    return bool(word) and word.strip() == word and word[0] != _UNDERSCORE


def _is_own_clusters(word: str) -> bool:
    """Whether no grapheme cluster (Unicode, UAX 29) holds a part of the word and a space beside it.

    Some words of which that is true are said not to be so: those with characters at their ends of
    which little is known.
    """
    if word.isascii():
        return True
    first, last = word[0], word[-1]
    return (
        (first in _CONTROLS or unicodedata.category(first)[0] in "LNPSZ")
        and first not in _NOT_FIRST
        and (last in _CONTROLS or unicodedata.category(last)[0] in "LNPSZM")
        and last not in _NOT_LAST
    )
