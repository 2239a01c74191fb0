"""Requests that no well-meaning client sends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_from_bytes

__all__ = ["SCRIPTS", "Attack", "attacks"]

Attack = tuple[str, str, bytes | None, dict[str, str]]
"""Method, target, body and headers."""

_JSON = {"content-type": "application/json"}
SCRIPTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "</title><script>alert(1)</script>",
    "{{constructor.constructor('alert(1)')()}}",
    "'; DROP TABLE documents; --",
    '" OR 1=1 --',
    "../../../../etc/passwd",
    "%s%n%x",
    "${jndi:ldap://localhost/a}",
    "\u202e\u2066gnp.exe",
)
"""Texts that must be shown as texts."""
_CHARACTERS = "".join(
    (
        "abc äöü ß ñ",
        "".join(map(chr, range(32))),
        "\x7f\x80\x85\x9f\u00ad\u200b\u200d\u200f\u2028\u2029\u202e\ufeff\ufffd\ufffe\uffff",
        "مرحبا שלום नमस्ते สวัสดี 你好 こんにちは 한국어",
        "🦊👩‍👩‍👧‍👦🏳️‍🌈\U0010ffff\U000e0041",
        "e\u0301\u0302\u0303\u0304\u0305",
        "<>&\"'`\\/%{}[]();:=+-*#?!@$^~|",
    )
)


def attacks(count: int, seed: int = 0) -> Iterator[Attack]:
    """Yield ``count`` requests, the same for the same seed."""
    generator = random.Random(seed)
    makers: tuple[Callable[[random.Random], Attack], ...] = (
        _odd_question,
        _huge_question,
        _script,
        _surrogate,
        _deep,
        _wrong_types,
        _broken_json,
        _random_bytes,
        _random_query,
        _random_path,
        _odd_documents,
        _odd_headers,
        _odd_where,
    )
    for number in range(count):
        yield makers[number % len(makers)](generator)


def _body(value: object) -> Attack:
    return "POST", "/search", json.dumps(value).encode(), _JSON


def _text(generator: random.Random, longest: int) -> str:
    size = generator.choice((0, 1, 2, 10, longest))
    return "".join(generator.choices(_CHARACTERS, k=size))


def _asked(generator: random.Random, question: str) -> Attack:
    if generator.random() < 0.5:
        return _body({"question": question, "k": generator.randint(1, 3)})
    return "GET", f"/search?question={quote(question, safe='', errors='replace')}&k=2", None, {}


def _odd_question(generator: random.Random) -> Attack:
    return _asked(generator, _text(generator, 300))


def _huge_question(generator: random.Random) -> Attack:
    size = generator.choice((999, 1000, 1001, 5000, 60_000, 200_000))
    return _body({"question": generator.choice(("a", "\u0e01", "字", "🦊", " ", "a ")) * size})


def _script(generator: random.Random) -> Attack:
    return _asked(generator, generator.choice(SCRIPTS) + _text(generator, 20))


def _surrogate(generator: random.Random) -> Attack:
    half = generator.choice(("\\ud800", "\\udfff", "\\udc00\\ud800", "\\ud83e", "a\\ud800b"))
    name = generator.choice(("question", "by", "where", "languages"))
    fields = {"question": '"a"'} | {name: f'"{half}"'}
    if name == "where":
        fields[name] = f'{{"{half}": "{half}"}}'
    text = ",".join(f'"{key}":{value}' for key, value in fields.items())
    return "POST", "/search", f"{{{text}}}".encode(), _JSON


def _deep(generator: random.Random) -> Attack:
    depth = generator.choice((10, 500, 1100, 20_000))
    opening, closing = generator.choice((("[", "]"), ('{"a":', "}")))
    name = generator.choice(("question", "where", "languages", "other"))
    inside = opening * depth + "1" + closing * generator.choice((0, depth))
    return "POST", "/search", f'{{"question":"a","{name}":{inside}}}'.encode(), _JSON


def _wrong_types(generator: random.Random) -> Attack:
    odd: list[object] = [None, True, 0, -1, 1.5, 1e308, 2**70, -(2**70), "", "a"]
    odd += [[], [[]], {}, {"a": None}]
    names = ("question", "k", "languages", "where", "by", "hybrid", "balanced", "answers", "_")
    chosen = generator.sample(names, generator.randint(1, 4))
    return _body({"question": "a"} | {name: generator.choice(odd) for name in chosen})


def _broken_json(generator: random.Random) -> Attack:
    text = json.dumps({"question": _text(generator, 30), "k": 3, "languages": ["en"]}).encode()
    place = generator.randrange(len(text))
    cut = generator.choice((text[:place], text[:place] + b"\x00" + text[place:], text[place:]))
    return "POST", "/search", cut, _JSON


def _random_bytes(generator: random.Random) -> Attack:
    kind = generator.choice(("application/json", "text/html", "multipart/form-data", "\xff", ""))
    return "POST", "/search", generator.randbytes(generator.randint(0, 400)), {"content-type": kind}


def _random_query(generator: random.Random) -> Attack:
    path = generator.choice(("/search", "/documents", "/documents/a", "/healthz", "/"))
    raw = quote_from_bytes(generator.randbytes(generator.randint(0, 60)), safe="=&;%+")
    return "GET", f"{path}?question=a&{raw}", None, {}


def _random_path(generator: random.Random) -> Attack:
    parts = (
        "..",
        ".",
        "%2e%2e",
        "%2f",
        "%00",
        "page",
        "etc/passwd",
        "",
        "documents",
        quote(_text(generator, 20), safe=""),
        quote_from_bytes(generator.randbytes(8), safe=""),
        "a" * generator.choice((1, 3000, 20_000)),
    )
    path = "/".join(generator.choices(parts, k=generator.randint(1, 5)))
    return generator.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS")), f"/{path}", None, {}


def _odd_documents(generator: random.Random) -> Attack:
    odd = ("-1", "0", "1", "99999999999999999999", "1e3", "٣", "NaN", "", " 1", "0x10", "true")
    query = f"first={quote(generator.choice(odd))}&count={quote(generator.choice(odd))}"
    return "GET", f"/documents?{query}", None, {}


def _odd_headers(generator: random.Random) -> Attack:
    name = generator.choice(
        ("accept", "cookie", "x-forwarded-for", "if-none-match", "range", "upgrade", "origin")
    )
    value = generator.choice(("*", "a" * 4000, "websocket", "bytes=0-", "\x80\xff", "1.2.3.4, ::1"))
    return "GET", generator.choice(("/", "/search?question=a", "/page.js")), None, {name: value}


def _odd_where(generator: random.Random) -> Attack:
    keys = [_text(generator, 20) or "k" for _ in range(generator.choice((1, 2, 16, 17)))]
    values: tuple[object, ...] = ("", _text(generator, 50), 1, -0.0, 1e308, True, 2**63, 2**70)
    return _body({"question": "a", "where": {key: generator.choice(values) for key in keys}})
