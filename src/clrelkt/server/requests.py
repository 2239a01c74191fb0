"""What a client asks: from the bytes of a query or a body to a checked request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.server.settings import ServerSettings

__all__ = [
    "DocumentsRequest",
    "Reason",
    "RequestError",
    "SearchRequest",
    "documents_request",
    "search_request_from_body",
    "search_request_from_query",
]

_FIELDS = 64
_VALUES = 16
_SHOWN = 80

Reason = Literal[
    "not_json",
    "not_utf8",
    "invalid",
    "not_found",
    "wrong_method",
    "wrong_type",
    "wrong_host",
    "too_large",
    "too_many_requests",
    "overloaded",
    "stopping",
    "internal",
]
"""Why a request was refused, in a word that a program can tell apart."""

Language = Annotated[str, msgspec.Meta(pattern="^[a-z]{2}$")]
Languages = Annotated[list[Language], msgspec.Meta(max_length=32)]
Scalar = str | int | float | bool


class RequestError(Exception):
    """A request that is answered with an error: status, reason, and a sentence for people."""

    def __init__(self, status: int, reason: Reason, message: str) -> None:
        self.status = status
        self.reason: Reason = reason
        super().__init__(message)


class SearchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A search."""

    question: Annotated[str, msgspec.Meta(description="In any language.", min_length=1)]
    k: Annotated[int, msgspec.Meta(description="Hits, at most.", ge=1)] = 10
    languages: Annotated[
        Languages | None,
        msgspec.Meta(description="Only documents in these languages (ISO 639-1)."),
    ] = None
    where: Annotated[
        dict[str, Scalar] | None,
        msgspec.Meta(description="Only documents whose metadata have these values."),
    ] = None
    by: Annotated[
        Literal["document", "passage"],
        msgspec.Meta(description="Each document once, by its best passage, or every passage."),
    ] = "document"
    hybrid: Annotated[
        bool | None,
        msgspec.Meta(description="Join BM25's ranking in; null is the index's default."),
    ] = None
    balanced: Annotated[
        bool, msgspec.Meta(description="Whether languages take turns among the hits.")
    ] = False
    answers: Annotated[
        bool, msgspec.Meta(description="Whether the server's reader looks for answers in hits.")
    ] = True


class DocumentsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the list of documents."""

    first: Annotated[int, msgspec.Meta(description="From this one on, from 0.", ge=0)] = 0
    count: Annotated[int, msgspec.Meta(description="Documents, at most.", ge=1)] = 20
    languages: Annotated[Languages | None, msgspec.Meta(description="Only in these languages.")] = (
        None
    )


Asked = TypeVar("Asked", SearchRequest, DocumentsRequest)

_search_body = msgspec.json.Decoder(SearchRequest)


def search_request_from_body(body: bytes, settings: ServerSettings) -> SearchRequest:
    """Read a search from JSON.

    Raises:
        RequestError: it is no JSON, or not a search that this server carries out.
    """
    try:
        request = _search_body.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except UnicodeDecodeError as error:
        raise RequestError(400, "not_utf8", f"the body is not UTF-8: {error.reason}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(400, "not_json", f"the body is not JSON: {error}") from error
    return _checked(request, settings)


def search_request_from_query(query: bytes, settings: ServerSettings) -> SearchRequest:
    """Read a search from a query, whose keys are those of the JSON.

    ``languages`` may stand several times or hold several codes between commas; ``where`` is
    ``key:value`` and may stand several times.

    Raises:
        RequestError: it is not UTF-8, or not a search that this server carries out.
    """
    values = _query_values(query, lists=("languages", "where"))
    if "where" in values:
        values["where"] = dict(_condition(text) for text in values["where"])
    _split_languages(values)
    return _checked(_converted(values, SearchRequest), settings)


def documents_request(query: bytes, settings: ServerSettings) -> DocumentsRequest:
    """Read what part of the documents is asked for.

    Raises:
        RequestError: it is not UTF-8, or no part that this server shows.
    """
    values = _query_values(query, lists=("languages",))
    _split_languages(values)
    request = _converted(values, DocumentsRequest)
    if request.count > settings.max_hits:
        raise _invalid(f"count is {request.count}; at most {settings.max_hits} expected")
    if request.first > 2**53:
        raise _invalid("first is beyond any number of documents")
    _check_languages(request.languages)
    return request


def _query_values(query: bytes, lists: tuple[str, ...]) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_FIELDS,
        )
    except UnicodeDecodeError as error:
        raise RequestError(
            400, "not_utf8", "the query is not UTF-8 behind its percent signs"
        ) from error
    except ValueError as error:
        raise _invalid(f"the query has more than {_FIELDS} fields") from error
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in lists:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise _invalid(f"{key:.{_SHOWN}} stands twice")
        else:
            values[key] = value
    return values


def _split_languages(values: dict[str, Any]) -> None:
    if "languages" in values:
        codes = [code.strip() for text in values["languages"] for code in text.split(",")]
        values["languages"] = [code for code in codes if code] or None


def _condition(text: str) -> tuple[str, Scalar]:
    key, colon, value = text.partition(":")
    if not colon or not key:
        raise _invalid(f"where is {text[:_SHOWN]!r}; expected key:value")
    # A value that reads as JSON is what it reads as: year:1998 is a number, year:"1998" a text.
    try:
        found = msgspec.json.decode(value.encode(), type=str | int | float | bool)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return key, value
    return key, found


def _converted(values: Mapping[str, Any], kind: type[Asked]) -> Asked:
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error


def _checked(request: SearchRequest, settings: ServerSettings) -> SearchRequest:
    if not request.question.strip():
        raise _invalid("the question is empty")
    if len(request.question) > settings.max_question:
        raise _invalid(
            f"the question has {len(request.question)} characters; at most "
            f"{settings.max_question} expected"
        )
    if request.k > settings.max_hits:
        raise _invalid(f"k is {request.k}; at most {settings.max_hits} expected")
    if request.where is not None and len(request.where) > _VALUES:
        raise _invalid(f"where has {len(request.where)} keys; at most {_VALUES} expected")
    _check_languages(request.languages)
    return request


def _check_languages(languages: list[Language] | None) -> None:
    for code in languages or ():
        if code not in ISO_639_1:
            raise _invalid(f"language {code!r} is no code of ISO 639-1")


def _invalid(message: str) -> RequestError:
    return RequestError(422, "invalid", message)
