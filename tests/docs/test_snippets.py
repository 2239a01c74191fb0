"""Every command and snippet of the README and the docs.

Blocks that are quick run for real, those of a page one after the other in one folder (marked
``<!-- test: run -->``). Of the others every command is parsed by the real command line, and every
name of a piece of Python must exist.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import pytest

from clrelkt.cli.main import cli, main

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<mark>\w+) -->\n)?```(?P<kind>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

KINDS_WITHOUT_CODE = {"", "text", "{eval-rst}", "{include}", "{toctree}"}
"""Fences that hold nothing to run: outlines, and what Sphinx reads."""


@dataclass(frozen=True)
class Snippet:
    """A block: where it stands, what it is in, and whether it is run or only read."""

    file: Path
    line: int
    kind: Literal["sh", "python"]
    mark: Literal["run", "parse"]
    code: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block, without comments."""
        joined = self.code.replace("\\\n", " ")
        lines = (shlex.split(line, comments=True) for line in joined.splitlines())
        return [words for words in lines if words]


def snippets_of(path: Path) -> list[Snippet]:
    """Return the blocks of a file. Without a mark a block is read, not run."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        mark = match["mark"] or "parse"
        assert mark in ("run", "parse"), f"{path}: a mark {mark!r}"
        line = text[: match.start("code")].count("\n") + 1
        found.append(Snippet(path, line, match["kind"], mark, match["code"]))  # type: ignore[arg-type]
    return found


def plain_blocks(path: Path) -> list[tuple[str, str]]:
    """Return the other blocks of a file: what their fence says, and what is in them."""
    found = []
    opened: tuple[str, list[str]] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if opened is None and line.startswith("```"):
            opened = (line.removeprefix("```"), [])
        elif opened is not None and line == "```":
            found.append((opened[0], "\n".join(opened[1])))
            opened = None
        elif opened is not None:
            opened[1].append(line)
    assert opened is None, f"{path}: a block without an end"
    return [(kind, code) for kind, code in found if kind not in ("sh", "python")]


def pages() -> list[Path]:
    """Return the files whose blocks are tested."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


PAGES = [page for page in pages() if page.is_file()]
SNIPPETS = [snippet for page in PAGES for snippet in snippets_of(page)]
READ = [snippet for snippet in SNIPPETS if snippet.mark == "parse"]
RUN = [page for page in PAGES if any(snippet.mark == "run" for snippet in snippets_of(page))]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    for kind, code in plain_blocks(page):
        assert kind.split(" ")[0] in KINDS_WITHOUT_CODE, f"```{kind} is not tested"
        assert not re.search(r"^(clrelkt|pip|make) ", code, re.MULTILINE), f"not in ```sh: {code}"


@pytest.mark.parametrize("snippet", [s for s in READ if s.kind == "sh"], ids=str)
def test_commands_are_understood(snippet: Snippet) -> None:
    for words in snippet.commands:
        if words[0] == "clrelkt":
            understand(words[1:])
        elif words[0] == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            for target in words[1:]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
        elif words[:2] == ["pip", "install"]:
            for extras in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
                known = SETTINGS["project"]["optional-dependencies"]
                assert set(extras.split(",")) <= set(known), extras
        else:
            assert words[0] in ("pip", "docker", "curl", "git", "hf"), words


def understand(words: list[str]) -> None:
    """Parse a command as the command line does, without carrying it out."""
    command: click.Command | None = cli
    context: click.Context | None = None
    name: str | None = "clrelkt"
    try:
        while command is not None:
            context = command.make_context(name, words, parent=context)
            if not isinstance(command, click.Group):
                return
            name, command, words = command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
    except click.BadParameter as error:
        # Files that a reader has and this test has not.
        if "does not exist" not in error.message:
            raise


@pytest.mark.parametrize(
    "line", ["nosuch x", "train", "train x --nosuch", "export x -o y --to z", "data nosuch"]
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        understand(line.split())


@pytest.mark.parametrize("snippet", [s for s in READ if s.kind == "python"], ids=str)
def test_names_of_python_exist(snippet: Snippet) -> None:
    tree = ast.parse(snippet.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clrelkt"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), alias.name
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "clrelkt":
            assert hasattr(importlib.import_module("clrelkt"), node.attr), node.attr


@pytest.fixture
def no_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_marked_blocks_run(page: Path, no_tracks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for snippet in snippets_of(page):
        if snippet.mark == "parse":
            continue
        if snippet.kind == "python":
            with warnings.catch_warnings():
                # What other libraries warn about is not these pages' to mend.
                warnings.simplefilter("ignore")
                exec(compile(snippet.code, str(snippet), "exec"), names)
            continue
        for words in snippet.commands:
            assert words[0] == "clrelkt", f"{snippet}: only clrelkt is run here"
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            assert ended.value.code == 0, f"{snippet}: {words}\n{capsys.readouterr().err}"


def test_something_runs_on_each_page_of_use() -> None:
    assert {page.name for page in RUN} >= {
        "first-ten-minutes.md",
        "sharing.md",
        "your-own-corpus.md",
        "your-own-encoder.md",
    }
