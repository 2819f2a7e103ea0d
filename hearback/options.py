"""What a training's command line says beside the recipe and the fold."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hearback import cli, near_misses
from hearback.dataset import TrainingData, load_training_data
from hearback.files import sha256_of
from hearback.precision import TRAINING_PRECISIONS
from hearback.recipe import PRESETS, Recipe


@dataclass(frozen=True)
class TrainingOptions:
    """What the command line says beside the recipe and the fold; the same for every training."""

    data: Path
    tts_data: Path
    store: Path
    assets: Path
    runs: Path
    n_folds: int
    group_by: str | None
    limit: int | None
    device: str | None
    workers: int | None
    backbone: str | None
    epochs: int | None
    preset: str
    window: str | None
    set: tuple[str, ...]
    precision: str
    strict: bool
    checkpoint_minutes: float

    def adapt(self, recipe: Recipe) -> Recipe:
        """Return `recipe` as these options change it."""
        recipe = recipe.with_preset(self.preset)
        if self.backbone is not None:
            recipe = replace(recipe, backbone=self.backbone)
        if self.window is not None:
            recipe = recipe.with_settings([f"window={self.window}"])
        recipe = recipe.with_settings(self.set)
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

    def identity(self, recipe: Recipe, data: TrainingData) -> dict[str, Any]:
        """Return what makes two trainings of a fold the same; `recipe` is the adapted one."""
        table = self.tts_data / near_misses.TABLE
        rendered = recipe.near_misses > 0 and recipe.pair != "tokens" and table.exists()
        return {
            "recipe": recipe.as_dict(),
            "recipe_fingerprint": recipe.fingerprint,
            "n_folds": self.n_folds,
            "group_by": self.group_by,
            "limit": self.limit,
            "data_fingerprint": data.fingerprint,
            "near_misses": sha256_of(table)[:16] if rendered else None,
        }

    def as_flags(self) -> list[str]:
        """Return the options that are not the defaults, as a command line has them."""
        parser = cli.parser(None)
        add_options(parser)
        defaults = vars(options_from(parser.parse_args([])))
        flags: list[str] = []
        for name, value in vars(self).items():
            if value == defaults[name] and name != "n_folds":  # which fold 3 is, should be plain
                continue
            if isinstance(value, tuple):
                flags += [part for item in value for part in (f"--{name}", item)]
            elif isinstance(value, bool):
                flags += [f"--{name}"]
            else:
                flags += [f"--{name}", str(value)]
        return flags


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `TrainingOptions`."""
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the tables and recordings")
    add("--tts_data", type=Path, default=Path("tts_data"), help="folder of the reference speech")
    add("--store", type=Path, default=Path("store"), help="folder of the decoded recordings")
    add("--assets", type=Path, default=Path("assets"), help="folder of backbones and trained folds")
    add("--runs", type=Path, default=Path("runs"), help="folder of the TensorBoard logs")
    add("--n_folds", type=int, default=6, help="number of folds that the table is split into")
    add(
        "--group_by",
        choices=("speaker", "expected_text", "none"),
        help="rows that are held out together (default: speaker, where there is that column)",
    )
    add("--limit", type=int, help="use only the first rows of the table, for a quick look")
    add("--device", help="cpu, cuda, cuda:1, … (default: a GPU where there is one)")
    add("--workers", type=int, help="processes that load and augment (default: by device)")
    add("--backbone", help="hub id, or directory in Transformers' layout (default: the recipe's)")
    add("--epochs", type=int, help="train for so many (default: the recipe's)")
    add("--preset", choices=tuple(PRESETS), default="competition", help="recipes' values for …")
    add("--window", choices=("trimmed", "fixed"), help="as long as the pair, or always 16 s")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a recipe's field")
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of the matrix products; auto: bf16 where the device has it, fp16 on other GPUs",
    )
    add(
        "--checkpoint_minutes",
        type=float,
        default=10.0,
        help="keep what is done so often, and after every epoch; a training that is killed goes on",
    )
    add(
        "--strict", action="store_true", help="refuse converted recordings too (stereo, 44.1 kHz …)"
    )


def options_from(arguments: argparse.Namespace) -> TrainingOptions:
    """Gather the flags that `add_options` declared."""
    values = {name: getattr(arguments, name) for name in TrainingOptions.__dataclass_fields__}
    return TrainingOptions(**{**values, "set": tuple(values["set"])})
