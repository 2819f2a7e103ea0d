"""The command-line options of the reading competition's training scripts."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hearback.engine.io import sha256_of
from hearback.engine.training.options import FoldOptions, declare_common
from hearback.reading import hard_negatives
from hearback.reading.dataset import GROUPINGS, TrainingData, load_training_data
from hearback.reading.recipe import PRESETS, Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FoldOptions):
    """Options of a training, in addition to the recipe and the fold."""

    tts_data: Path
    backbone: str | None
    preset: str
    window: str | None

    @classmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags of these options to a parser."""
        declare_common(parser, group_by=GROUPINGS)
        add = parser.add_argument
        add("--tts_data", type=Path, default=Path("tts_data"), help="reference speech")
        add(
            "--backbone",
            help="hub id, or directory in Transformers' layout (default: the recipe's)",
        )
        add(
            "--preset",
            choices=tuple(PRESETS),
            default="competition",
            help="set of values for the recipes",
        )
        add(
            "--window",
            choices=("trimmed", "fixed"),
            help="encoder window: the pair's length, or 16 s",
        )

    def adapt(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with these options applied."""
        recipe = recipe.with_preset(self.preset)
        if self.backbone is not None:
            recipe = replace(recipe, backbone=self.backbone)
        if self.window is not None:
            recipe = recipe.with_settings([f"window={self.window}"])
        adapted: Recipe = super().adapt(recipe)
        return adapted

    def load_data(self) -> TrainingData:
        """Load and validate the training set."""
        return load_training_data(
            self.data,
            self.tts_data,
            self.store,
            n_folds=self.n_folds,
            group_by=self.group_by,
            limit=self.limit,
            strict=self.strict,
        )

    def run_key(self, recipe: Recipe, data: TrainingData) -> dict[str, Any]:
        """Return the settings that identify a training of a fold, as JSON."""
        table = self.tts_data / hard_negatives.TABLE
        rendered = recipe.hard_negatives > 0 and recipe.pair != "tokens" and table.exists()
        return {
            **super().run_key(recipe, data),
            "hard_negatives": sha256_of(table)[:16] if rendered else None,
        }
