"""What a training's command line says beside the recipe and the fold."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hearback.engine.io import sha256_of
from hearback.engine.training.options import FoldOptions, declare_common
from hearback.reading import hard_negatives
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.recipe import PRESETS, Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FoldOptions):
    """What the command line says beside the recipe and the fold; the same for every training."""

    tts_data: Path
    backbone: str | None
    preset: str
    window: str | None

    @classmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the flags of these options."""
        declare_common(parser, group_by=("speaker", "expected_text"))
        add = parser.add_argument
        add("--tts_data", type=Path, default=Path("tts_data"), help="the reference speech")
        add("--backbone", help="hub id, or directory in Transformers' layout (default: recipe's)")
        add("--preset", choices=tuple(PRESETS), default="competition", help="recipes' values for …")
        add("--window", choices=("trimmed", "fixed"), help="as long as the pair, or always 16 s")

    def adapt(self, recipe: Recipe) -> Recipe:
        """Return `recipe` as these options change it."""
        recipe = recipe.with_preset(self.preset)
        if self.backbone is not None:
            recipe = replace(recipe, backbone=self.backbone)
        if self.window is not None:
            recipe = recipe.with_settings([f"window={self.window}"])
        recipe = recipe.with_seed(self.seed).with_settings(self.set)
        return recipe if self.epochs is None else recipe.with_epochs(self.epochs)

    def load_data(self) -> TrainingData:
        """Load and check the training set that these options name."""
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
        """Return what makes two trainings of a fold the same; `recipe` is the adapted one."""
        table = self.tts_data / hard_negatives.TABLE
        rendered = recipe.hard_negatives > 0 and recipe.pair != "tokens" and table.exists()
        return {
            **super().run_key(recipe, data),
            "hard_negatives": sha256_of(table)[:16] if rendered else None,
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `TrainingOptions`."""
    TrainingOptions.declare(parser)


def options_from(arguments: argparse.Namespace) -> TrainingOptions:
    """Gather the flags that `add_options` declared."""
    return TrainingOptions.gather(arguments)
