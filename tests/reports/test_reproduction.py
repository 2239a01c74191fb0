"""``clrelkt reproduce``: every seed ends in a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clrelkt.cli.main import main
from clrelkt.training import Recipe


def test_every_seed_has_a_report(
    tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tiny_recipe.to_json()
    record["stages"] = record["stages"][:1]
    record["stages"][0]["optimisation"]["epochs"] = 1
    recipe = tmp_path / "short.json"
    recipe.write_text(json.dumps(record), "utf-8")
    output = tmp_path / "runs"
    command = ["reproduce", record["corpus"], "--recipe", str(recipe), "--seeds", "2"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "-o", str(output), "--device", "cpu", "--save-form", "whole"])
    assert ended.value.code == 0
    assert "seed-N/report.html" in capsys.readouterr().out.replace("\n", "")
    for seed in (0, 1):
        html = (output / f"seed-{seed}" / "report.html").read_text("utf-8")
        assert f"<h1>tiny, seed {seed}</h1>" in html
        assert (output / f"seed-{seed}" / "encoders" / "warm-up" / "README.md").exists()
