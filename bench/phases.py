"""Which functions a computation's time goes to, the device's work included."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

__all__ = ["Phases"]


class Phases:
    """Clocks around functions; what a watched function spends in another counts for the other.

    ``wait`` lets the device finish, before and after each call: whatever the host and the device
    would have done at the same time is thus counted twice.
    """

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._seconds: dict[str, float] = {}
        self._calls: dict[str, int] = {}
        self._inner: list[float] = []
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Phases:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for undo in self._undo:
            undo()

    def watch(self, owner: Any, names: Iterable[str]) -> None:
        """Put a clock around some functions of a class or a module, until the end."""
        for name in names:
            if not hasattr(owner, name):
                continue
            function = getattr(owner, name)
            own = vars(owner).get(name)
            setattr(owner, name, self._clocked(f"{owner.__name__}.{name}", function))
            self._undo.append(
                lambda owner=owner, name=name, own=own: (  # type: ignore[misc]
                    delattr(owner, name) if own is None else setattr(owner, name, own)
                )
            )

    def _clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any, **options: Any) -> Any:
            self._wait()
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self._wait()
                spent = time.perf_counter() - start
                own = spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent
                self._seconds[name] = self._seconds.get(name, 0.0) + own
                self._calls[name] = self._calls.get(name, 0) + 1

        return clocked

    def show(self) -> None:
        """Print the functions, the longest first."""
        total = sum(self._seconds.values())
        for name, seconds in sorted(self._seconds.items(), key=lambda pair: -pair[1]):
            share = seconds / max(total, 1e-9)
            print(
                f"{seconds * 1e3:>10.2f} ms {share:>6.1%} {self._calls[name]:>6}  {name}",
                flush=True,
            )
