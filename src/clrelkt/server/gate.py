"""What every request passes on its way in and out: limits, counts, headers.

It is plain ASGI and stands around everything else, so that a request that is refused costs next to
nothing and no answer goes out without its headers.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from clrelkt.server.answers import Failure, encode
from clrelkt.server.metrics import Metrics
from clrelkt.server.requests import RequestError
from clrelkt.server.settings import ServerSettings

__all__ = ["Gate", "failure_response", "read_body", "send_bytes"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_JSON = b"application/json"
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_BODY_SECONDS = 20.0
_UNMEASURED = frozenset({"/healthz", "/metrics"})
"""Watchers may look in however busy the server is."""


class Gate:
    """Wraps an application; ``known`` maps a path to what the metrics call it."""

    def __init__(
        self,
        app: App,
        settings: ServerSettings,
        metrics: Metrics,
        known: Callable[[str], str],
    ) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._known = known
        self._clients: Counter[str] = Counter()
        self._hosts = frozenset(host.encode() for host in settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        client = scope["client"][0] if scope.get("client") else ""
        self._metrics.under_way.inc()
        self._clients[client] += 1
        try:
            self._check(scope, client)
            await self._app(scope, receive, send_with_headers)
        except RequestError as error:
            await failure_response(error, send_with_headers)
        finally:
            self._clients[client] -= 1
            if self._clients[client] <= 0:
                del self._clients[client]
            self._metrics.under_way.dec()
            path = self._known(scope["path"])
            self._metrics.answered(path, status, time.perf_counter() - began)

    def _check(self, scope: Scope, client: str) -> None:
        settings = self._settings
        target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if target > settings.max_target:
            raise RequestError(
                414,
                "too_large",
                f"the address has {target} bytes; at most {settings.max_target} expected",
            )
        if self._hosts and _host(scope) not in self._hosts:
            raise RequestError(
                421,
                "wrong_host",
                "this server does not go by that name; --allow-host NAME makes it",
            )
        limit = settings.max_per_client
        if limit and self._clients[client] > limit and scope["path"] not in _UNMEASURED:
            raise RequestError(
                429,
                "too_many_requests",
                f"{limit} requests from this address are under way already; ask again in a second",
            )


def _host(scope: Scope) -> bytes:
    value: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
    name = value.lower().rstrip(b".")
    if name.startswith(b"["):
        return name.partition(b"]")[0] + b"]"
    return name.partition(b":")[0].rstrip(b".")


async def failure_response(error: RequestError, send: Send) -> None:
    """Answer with an error."""
    headers = [(b"retry-after", b"1")] if error.status in (429, 503) else []
    if error.status in (413, 414):
        headers.append((b"connection", b"close"))
    await send_bytes(send, encode(Failure(error.reason, str(error))), error.status, headers)


async def send_bytes(
    send: Send,
    body: bytes,
    status: int = 200,
    headers: list[tuple[bytes, bytes]] | None = None,
    content_type: bytes = _JSON,
) -> None:
    """Send a whole answer."""
    start = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the body of a request.

    Raises:
        RequestError: it is longer than ``limit`` bytes, of which no more are kept, or does not
            come.
    """
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if told.isdigit() and int(told[:20]) > limit:
        raise _too_long(limit)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await _gather(receive, limit)
    except TimeoutError:
        message = f"the body did not come within {_BODY_SECONDS:g} seconds"
        raise RequestError(408, "invalid", message) from None


async def _gather(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "invalid", "the request ended before its body")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_long(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_long(limit: int) -> RequestError:
    return RequestError(413, "too_large", f"the body is longer than {limit} bytes")
