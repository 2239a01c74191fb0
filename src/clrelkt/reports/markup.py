"""HTML and SVG from Python, in which a text can never become markup by itself."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from typing import Any

__all__ = ["Markup", "data_block", "joined", "plain_number", "tag"]


class Markup(str):
    """Text that is markup already, as ``tag`` returns it; any other text is escaped."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """Return an element. Children that are no ``Markup`` are escaped, and so are attributes.

    In names of attributes ``_`` stands for ``-``, and one at the end is left off (``class_``).
    None and False leave an attribute out, True gives it no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.removesuffix("_").replace("_", "-")
        if value is True:
            parts.append(written)
            continue
        shown = value if isinstance(value, str) else plain_number(value)
        parts.append(f'{written}="{html.escape(shown)}"')
    return Markup(f"<{' '.join(parts)}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """Return the parts one after the other, those that are no ``Markup`` escaped."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def plain_number(value: float) -> str:
    """Write a coordinate: at most two decimals, no exponent.

    Raises:
        ValueError: it is no finite number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is no coordinate")
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def data_block(id_: str, value: Any) -> Markup:
    """Return JSON for scripts to read; nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{html.escape(id_)}">{text}</script>')
