"""Running a server: one process, one event loop, a graceful end."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clrelkt.errors import MissingExtraError, StorageError

if TYPE_CHECKING:
    import uvicorn

    from clrelkt.server.service import SearchService

__all__ = ["Address", "bound_socket", "make_server", "serve"]

_BACKLOG = 1024
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; port 0 is a free one."""

    host: str = "127.0.0.1"
    port: int = 8080

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that a server there goes by; none is any."""
        return (*_LOOPBACK, self.host) if self.is_loopback else ()


def make_server(service: SearchService, address: Address, *, grace: float = 30.0) -> uvicorn.Server:
    """Return a server that is not running yet; ``grace`` seconds are left to what runs at its end.

    Raises:
        MissingExtraError: FastAPI or uvicorn is not installed.
    """
    try:
        import uvicorn

        from clrelkt.server.app import create_app
        from clrelkt.server.protocol import BoundedProtocol
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    config = uvicorn.Config(
        create_app(service),
        host=address.host,
        port=address.port,
        http=BoundedProtocol,
        ws="none",
        loop="uvloop" if _has_uvloop() else "asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(grace)),
        backlog=_BACKLOG,
    )
    return uvicorn.Server(config)


def serve(service: SearchService, address: Address, *, grace: float = 30.0) -> None:
    """Serve until the process is told to end (SIGINT, SIGTERM); what runs then is finished.

    Raises:
        MissingExtraError: FastAPI or uvicorn is not installed.
        StorageError: there is no such address here, or another program listens there already.
    """
    server = make_server(service, address, grace=grace)
    with bound_socket(address) as sock, _quick_switches(), _short_collections(), _clean_end():
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}/", flush=True)
        server.run(sockets=[sock])


def bound_socket(address: Address) -> socket.socket:
    """Return a socket that listens at ``address``; who connects waits for the server.

    Raises:
        StorageError: there is no such address here, or another program listens there already.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as failure:
            sock = failure.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
            sock.listen(_BACKLOG)
            failure.pop_all()
    except OSError as error:
        raise StorageError(
            f"{address.host} port {address.port}: {error.strerror or error}. Name another --port "
            "or --host"
        ) from error
    return sock


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    # A thread that computes shall not keep the event loop waiting for Python's default of 5 ms.
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def _short_collections() -> Iterator[None]:
    # What is there at the start stays, and is more than all that requests make: the garbage
    # collector shall not look through it again and again.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _clean_end() -> Iterator[None]:
    """Let a server that was told to end be one that ended well.

    uvicorn hands signals on when it has ended; nothing is left to be done about them then.
    """
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.signal(name, lambda *_: None) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None
