"""Reading JSON that others wrote: every value knows where it stands, and every fault is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clrelkt.errors import CorpusError, Fault

__all__ = ["FaultLog", "Node", "read_json", "read_json_lines", "read_text"]


class FaultLog:
    """The faults found so far."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Every fault, in the order in which it was found."""
        return tuple(self._faults)

    def add(self, file: Path, record: str, message: str) -> None:
        """Note a fault."""
        self._faults.append(Fault(str(file), record, message))

    def stop_if_any(self) -> None:
        """Raise what was found.

        Raises:
            CorpusError: there is at least one fault.
        """
        if self._faults:
            raise CorpusError(self._faults)


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON value, its place in its file, and the log that its faults go to.

    The methods that look inside return None, and note a fault, where the value does not fit.
    """

    value: object
    file: Path
    place: str
    log: FaultLog
    name: str = ""

    @property
    def record(self) -> str:
        """The place, and the id of the record where it is known."""
        return f"{self.place} ({self.name})" if self.name else self.place

    def named(self, name: str) -> Node:
        """Return the node with a name, which everything inside it carries too."""
        return replace(self, name=name)

    def fault(self, message: str) -> None:
        """Note a fault of this value."""
        self.log.add(self.file, self.record, message)

    def get(self, key: str) -> Node | None:
        """Return the value under ``key``, or None (and no fault) where there is none."""
        if not isinstance(self.value, dict) or key not in self.value:
            return None
        place = f"{self.place}.{key}" if self.place else key
        return replace(self, value=self.value[key], place=place)

    def member(self, key: str) -> Node | None:
        """Return the value under ``key`` of an object."""
        if not isinstance(self.value, dict):
            self.fault(f"is {_kind(self.value)}, expected an object with {key!r}")
            return None
        if key not in self.value:
            self.fault(f"has no {key!r}")
        return self.get(key)

    def members(self, key: str) -> Iterator[Node]:
        """Yield the values of the list under ``key`` of an object."""
        node = self.member(key)
        if node is None:
            return
        if not isinstance(node.value, list):
            node.fault(f"is {_kind(node.value)}, expected a list")
            return
        for position, value in enumerate(node.value):
            yield replace(node, value=value, place=f"{node.place}[{position}]")

    def text(self, key: str, what: str) -> str | None:
        """Return the text under ``key``; text of nothing but white space is a fault."""
        node = self.member(key)
        return None if node is None else node.as_text(what)

    def as_text(self, what: str) -> str | None:
        """Return this value as text; text of nothing but white space is a fault."""
        if not isinstance(self.value, str):
            self.fault(f"is {_kind(self.value)}, expected text")
            return None
        if not self.value.strip():
            self.fault(f"{what} is empty")
            return None
        if any("\ud800" <= character <= "\udfff" for character in self.value):
            self.fault(f"{what} holds half of a surrogate pair, which is no character")
            return None
        return self.value

    def integer(self, key: str) -> int | None:
        """Return the whole number under ``key``."""
        node = self.member(key)
        if node is None:
            return None
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            node.fault(f"is {_kind(node.value)}, expected a whole number")
            return None
        return node.value


def read_text(file: Path, log: FaultLog) -> str | None:
    """Return the text of a UTF-8 file, or None and a fault."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        log.add(file, "", f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        log.add(file, f"byte {error.start}", "is not UTF-8 text; save it as UTF-8")
    return None


def read_json(file: Path, log: FaultLog) -> Node | None:
    """Return the value in a JSON file, or None and a fault."""
    text = read_text(file, log)
    return None if text is None else _parse(text, file, 1, "", log)


def read_json_lines(file: Path, log: FaultLog) -> Iterator[Node]:
    """Yield the value in each line of a JSON Lines file; blank lines are passed over."""
    text = read_text(file, log)
    # Not splitlines(): a JSON string may hold U+2028 or U+0085 as it is.
    for number, line in enumerate((text or "").split("\n"), start=1):
        if line.strip():
            node = _parse(line, file, number, f"line {number}", log)
            if node is not None:
                yield node


def _parse(text: str, file: Path, line: int, place: str, log: FaultLog) -> Node | None:
    try:
        return Node(json.loads(text), file, place, log)
    except json.JSONDecodeError as error:
        at = f"line {line + error.lineno - 1}, column {error.colno}"
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        hint = "; the file seems to be cut short, fetch it again" if cut else ""
        log.add(file, at, f"is not valid JSON: {error.msg}{hint}")
    except (RecursionError, ValueError) as error:
        log.add(file, place, f"is not JSON that can be read: {error}")
    return None


def _kind(value: object) -> str:
    """Name the JSON type of a value, with its article."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
