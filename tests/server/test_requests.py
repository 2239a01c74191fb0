"""From bytes to a checked request."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clrelkt.server import ServerSettings
from clrelkt.server.requests import (
    RequestError,
    SearchRequest,
    documents_request,
    search_request_from_body,
    search_request_from_query,
)

SETTINGS = ServerSettings(max_question=50, max_hits=20)


def from_body(value: Any) -> SearchRequest:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return search_request_from_body(body, SETTINGS)


def from_query(query: str) -> SearchRequest:
    return search_request_from_query(query.encode(), SETTINGS)


def test_both_ways_lead_to_the_same_request() -> None:
    values = {
        "question": "Wer war es? 谁",
        "k": 7,
        "languages": ["de", "en"],
        "where": {"year": 1998, "name": "a:b", "old": True, "text": "1998"},
        "by": "passage",
        "hybrid": False,
        "balanced": True,
        "answers": False,
    }
    conditions = ["year:1998", "name:a:b", "old:true", 'text:"1998"']
    query = [(k, v) for k, v in values.items() if k not in ("languages", "where")]
    query += [("languages", "de,en"), *(("where", text) for text in conditions)]
    words = [(k, str(v).lower() if isinstance(v, bool) else v) for k, v in query]
    assert from_query(urlencode(words)) == from_body(values)


def test_what_is_not_given_has_its_usual_value() -> None:
    assert from_query("question=a") == from_body({"question": "a"}) == SearchRequest("a")
    assert from_query("question=a&languages=").languages is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "missing required field `question`"),
        ("question=", "length >= 1"),
        ("question=%20%09", "the question is empty"),
        ("question=" + "a" * 51, "51 characters; at most 50"),
        ("question=a&k=0", "`int` >= 1"),
        ("question=a&k=21", "k is 21; at most 20"),
        ("question=a&k=x", "Expected `int`"),
        ("question=a&by=sentence", "Invalid enum value 'sentence'"),
        ("question=a&languages=xx", "'xx' is no code of ISO 639-1"),
        ("question=a&languages=english", "matching regex"),
        ("question=a&where=year", "expected key:value"),
        ("question=a&question=b", "stands twice"),
        ("question=a&colour=red", "unknown field `colour`"),
        ("question=a&hybrid=perhaps", "Expected `bool"),
        ("question=a" + "&where=a:b" * 64, "more than 64 fields"),
        ("question=a" + "".join(f"&where={n}:1" for n in range(17)), "17 keys; at most 16"),
    ],
)
def test_a_query_that_cannot_be_is_told_why(query: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        from_query(query)
    assert (caught.value.status, caught.value.reason) == (422, "invalid")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "truncated"),
        (b"{", 400, "truncated"),
        (b"[]", 422, "Expected `object`, got `array`"),
        (b'{"question": 3}', 422, "Expected `str`, got `int`"),
        (b'{"question": "a", "k": 1.5}', 422, "Expected `int`, got `float`"),
        (b'{"question": "a", "k": true}', 422, "Expected `int`, got `bool`"),
        (b'{"question": "\\ud800"}', 400, "not JSON"),
        (b'{"question": "\xff"}', 400, "not UTF-8"),
        (b"[" * 60_000, 422, "got `array`"),
        (b'{"where": ' + b"[" * 60_000, 422, "got `array`"),
        (b'{"x": ' + b"[" * 60_000, 422, "unknown field"),
        (b'{"question": "a", "k": NaN}', 400, "not JSON"),
        (b'{"question": "a", "where": {"a": {}}}', 422, "got `object`"),
    ],
)
def test_a_body_that_cannot_be_is_told_why(body: bytes, status: int, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        from_body(body)
    assert caught.value.status == status


def test_percent_signs_must_hide_utf_8() -> None:
    with pytest.raises(RequestError, match="not UTF-8") as caught:
        from_query("question=%ff%fe")
    assert caught.value.status == 400


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_are_refused(found: bytes) -> None:
    for read in (search_request_from_body, search_request_from_query, documents_request):
        refusal = None
        try:
            read(found, SETTINGS)
        except RequestError as error:
            refusal = error
        assert refusal is None or (refusal.status in (400, 422) and str(refusal))


@given(st.text(min_size=1, max_size=50).filter(lambda text: text.strip() != ""))
def test_any_question_arrives_as_it_was_written(question: str) -> None:
    assert from_query(f"question={quote(question, safe='')}").question == question
    assert from_body({"question": question}).question == question


def test_documents_are_asked_for_in_parts() -> None:
    request = documents_request(b"first=40&count=20&languages=de", SETTINGS)
    assert (request.first, request.count, request.languages) == (40, 20, ["de"])
    for query in (b"first=-1", b"count=0", b"count=21", b"first=99999999999999999999"):
        with pytest.raises(RequestError) as caught:
            documents_request(query, SETTINGS)
        assert caught.value.status == 422
