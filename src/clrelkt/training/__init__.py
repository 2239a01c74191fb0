"""Recipes, stages, runs."""

from __future__ import annotations

from clrelkt.training.recipe import Recipe, known_recipes, load_recipe
from clrelkt.training.run import BASELINE, ZERO_SHOT, Run, RunSettings, train

__all__ = [
    "BASELINE",
    "ZERO_SHOT",
    "Recipe",
    "Run",
    "RunSettings",
    "known_recipes",
    "load_recipe",
    "train",
]
