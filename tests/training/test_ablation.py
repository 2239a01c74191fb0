from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clrelkt.errors import SettingsError
from clrelkt.training import Recipe, RunSettings, load_recipe
from clrelkt.training.ablation import WHOLE, ablate, variants
from clrelkt.training.recipe import Contrastive, recipe_from_json


def test_each_part_is_left_out_once() -> None:
    recipe = load_recipe("xquad-plus")
    found = variants(recipe)
    assert found[WHOLE] == recipe
    method = recipe.stages[-1].method
    assert isinstance(method, Contrastive)
    for part in ("whole_documents", "translated", "sentences", "english", "anchor"):
        other = found[f"without {part}"].stages[-1].method
        assert getattr(other, part) == 0 < getattr(method, part)
        assert replace(other, **{part: getattr(method, part)}) == method
    assert found["without pairs"].stages[-1].method.pairs is None  # type: ignore[union-attr]
    assert found["without token_dropout"].stages[-1].optimisation.token_dropout == 0
    assert len({str(variant.to_json()) for variant in found.values()}) == len(found)


def test_other_stages_are_refused(tiny_recipe: Recipe) -> None:
    with pytest.raises(SettingsError, match="'student' is not contrastive"):
        variants(tiny_recipe)


def test_figures_are_of_dev_and_of_every_variant(
    tiny_table: dict[str, Any], tmp_path: Path
) -> None:
    tiny_table["stages"] = [
        {
            "name": "contrastive",
            "method": {"kind": "contrastive", "anchor": 1.0},
            "optimisation": {"epochs": 1, "batch": 64, "learning_rate": 1e-4},
            "dev": {"times_per_epoch": 1, "patience": 1},
        }
    ]
    recipe = recipe_from_json(tiny_table)
    settings = RunSettings(tmp_path, save_form="whole", device="cpu")
    record = ablate(recipe, settings, [0], jobs=2)
    assert record["weights"] == "made at random"
    for block in record["tests"].values():
        assert list(block)[1:] == list(variants(recipe))
        for variant in block.values():
            values = [row["hit_rate@1"] for row in variant["per_seed"]]
            assert len(values) == 1
            assert variant["summary"]["hit_rate@1"]["mean"] == pytest.approx(np.mean(values))
    for folder in tmp_path.glob("*-seed-*"):
        if folder.is_dir():
            assert '"results": {}' in (folder / "results.json").read_text()
    # All is there: nothing is carried out again.
    assert ablate(recipe, settings, [0], jobs=2)["tests"] == record["tests"]
