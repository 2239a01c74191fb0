"""The HTTP interface: ``/search``, ``/documents``, ``/healthz``, ``/metrics`` and the page."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from clrelkt.server.answers import Failure, encode
from clrelkt.server.gate import App, Gate, read_body
from clrelkt.server.metrics import CONTENT_TYPE
from clrelkt.server.openapi import describe
from clrelkt.server.pages import PAGE_FILES, PageFile
from clrelkt.server.requests import (
    Reason,
    RequestError,
    SearchRequest,
    documents_request,
    search_request_from_body,
    search_request_from_query,
)
from clrelkt.server.service import SearchService

__all__ = ["create_app"]

_log = logging.getLogger("clrelkt.server")

_REASONS: dict[int, Reason] = {404: "not_found", 405: "wrong_method"}
_JSON_TYPES = ("application/json", "")


def create_app(service: SearchService) -> App:
    """Return the ASGI application that serves ``service``; its lifespan starts and stops it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="clrelkt",
        version=version("clrelkt"),
        lifespan=lifespan,
        docs_url=None,  # They load scripts from elsewhere.
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_routes(app, service)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _broken)
    document = describe(app, service.settings)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return Gate(app, service.settings, service.metrics, _known_path)


def _known_path(path: str) -> str:
    if path in ("/search", "/documents", "/healthz", "/metrics", "/openapi.json"):
        return path
    if path.startswith("/documents/"):
        return "/documents/{id}"
    return "page" if path.removeprefix("/") in PAGE_FILES else "other"


def _add_routes(app: FastAPI, service: SearchService) -> None:
    settings = service.settings

    async def answer_search(request: SearchRequest) -> Response:
        return _json(await service.search(request))

    async def search(request: Request) -> Response:
        return await answer_search(
            search_request_from_query(request.scope["query_string"], settings)
        )

    async def search_by_body(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _JSON_TYPES:
            message = f"the body is {kind[:80]!r}; application/json expected"
            raise RequestError(415, "wrong_type", message)
        body = await read_body(request.scope, request.receive, settings.max_body)
        return await answer_search(search_request_from_body(body, settings))

    async def documents(request: Request) -> Response:
        asked = documents_request(request.scope["query_string"], settings)
        return _json(await service.documents(asked))

    async def document(request: Request) -> Response:
        return _json(await service.document(request.path_params["id"]))

    async def health(request: Request) -> Response:
        found = service.health()
        return _json(found, 200 if found.status == "ok" else 503)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    routes: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
        "search": ("/search", search),
        "documents": ("/documents", documents),
        "document": ("/documents/{id:path}", document),
        "health": ("/healthz", health),
        "metrics": ("/metrics", metrics),
    }
    for name, (path, endpoint) in routes.items():
        app.add_route(path, endpoint, methods=["GET"], name=name)
    app.add_route("/search", search_by_body, methods=["POST"], name="search_by_body")
    for name, file in PAGE_FILES.items():
        app.add_route(f"/{name}", _page_endpoint(file), methods=["GET"], name=f"page-{name}")


def _page_endpoint(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    headers = {"content-type": file.content_type, "etag": file.etag, "cache-control": "no-cache"}

    async def page(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers)

    return page


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(answer), status, headers, media_type="application/json")


def _failure(status: int, reason: Reason, message: str) -> Response:
    headers = {"retry-after": "1"} if status in (429, 503) else None
    return _json(Failure(reason, message), status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _failure(error.status, error.reason, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = _REASONS.get(error.status_code, "invalid")
    message = {
        "not_found": "there is nothing at this address; /openapi.json lists what there is",
        "wrong_method": f"{request.method[:20]} is not possible here",
    }.get(reason, str(error.detail))
    response = _failure(error.status_code, reason, message)
    response.headers.update(error.headers or {})
    return response


async def _broken(request: Request, error: Exception) -> Response:
    _log.error("a request to %s failed", _known_path(request.url.path), exc_info=error)
    return _failure(500, "internal", "the server could not answer; its log says more")
