"""The house: what may import what, and that every public name exists."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import clrelkt

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(clrelkt.__path__, "clrelkt.")
    if module.name != "clrelkt.__main__"
)


def test_a_room_imports_from_those_above_it_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    importlinter = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    failed = importlinter.lint_imports(no_cache=True)
    assert not failed, capsys.readouterr().out


def test_every_room_has_its_layer() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name for layer in layers for name in layer.split(" : ")}
    rooms = {name for name in MODULES if name.count(".") == 1}
    holds_no_code = {"clrelkt.recipes"}
    assert rooms - holds_no_code == named - holds_no_code


@pytest.mark.parametrize("name", ["clrelkt", *MODULES])
def test_every_public_name_exists(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", ())
    assert len(set(public)) == len(public)
    for item in public:
        assert getattr(module, item) is not None


@pytest.mark.parametrize("name", ["clrelkt", *MODULES])
def test_every_module_says_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    code = [item for item in vars(module).values() if getattr(item, "__module__", "") == name]
    assert hasattr(module, "__all__") or not code
