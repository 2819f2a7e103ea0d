"""The command-line options of a training script that every competition has."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.machine import TRAINING_PRECISIONS
from hearback.engine.whisper import pretrained

N_FOLDS = 6  # by default


@dataclass(frozen=True, kw_only=True)
class FoldOptions(ABC):
    """Options of a training besides the recipe and the fold.

    A competition's subclass adds flags. It implements `declare` and `load_data`, and extends
    `adapt` and `run_key` if its flags change the training.
    """

    data: Path
    store: Path
    assets: Path
    runs: Path
    n_folds: int
    group_by: str | None
    limit: int | None
    device: str | None
    workers: int | None
    epochs: int | None
    seed: int | None
    set: tuple[str, ...]
    precision: str
    strict: bool
    checkpoint_minutes: float
    micro_batch: int | None
    gradient_checkpointing: bool

    @classmethod
    @abstractmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags of these options to a parser."""

    @classmethod
    def gather(cls, arguments: argparse.Namespace) -> Self:
        """Build the options from parsed arguments."""
        values = {name: getattr(arguments, name) for name in cls.__dataclass_fields__}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

    def adapt(self, recipe: Any) -> Any:  # noqa: ANN401  (a competition's own recipe)
        """Return `recipe` with --seed, --set and --epochs applied."""
        recipe = recipe.with_seed(self.seed).with_settings(self.set)
        return recipe if self.epochs is None else recipe.with_epochs(self.epochs)

    def for_recipe(self, recipe: Any) -> Self:  # noqa: ANN401
        """Return the options without those that a recipe, before `adapt`, does not use."""
        return self

    def refuse_unused(self, recipe: Any) -> None:  # noqa: ANN401
        """Raise HearbackError if a recipe does not use one of the options."""
        used = self.for_recipe(recipe)
        for name, value in vars(self).items():
            if getattr(used, name) != value:
                raise HearbackError(
                    f"--{name} {value}: {recipe.name} does not use it; leave the flag out"
                )

    def for_data(self) -> Self:
        """Return the options without those that do not affect the data, as a key to loaded data."""
        return replace(self, seed=None)

    @abstractmethod
    def load_data(self, recipes: Sequence[Any] | None = None) -> Any:  # noqa: ANN401
        """Load and validate what `recipes`, by default all, need of the training set."""

    def pretrained_models(self, recipe: Any) -> frozenset[tuple[str, Path]]:  # noqa: ANN401
        """Return the pretrained models that a recipe starts from, and their folders.

        They are arguments of `resolve_model`. `recipe` is the result of `adapt`.
        """
        return frozenset()

    def resolve_model(self, name: str, folder: Path) -> Path:
        """Return the directory of a pretrained model, downloaded if it is not there.

        Raises HearbackError if it cannot be had.
        """
        return pretrained.resolve(name, folder)

    def resolve_pretrained(self, recipes: Sequence[Any]) -> None:
        """Download the pretrained models of some recipes that are not there.

        Raises HearbackError with a line for each of them that cannot be had.
        """
        faults = []
        models = {model for recipe in recipes for model in self.pretrained_models(recipe)}
        for name, folder in sorted(models):
            try:
                self.resolve_model(name, folder)
            except HearbackError as error:
                faults.append(str(error))
        if faults:
            raise HearbackError("\n".join(faults))

    def run_key(self, recipe: Any, data: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the JSON values that identify a training: recipe, split and data.

        Trainings of a fold with equal keys are the same. `recipe` is the result of `adapt`.
        """
        return {
            "recipe": recipe.as_dict(),
            "recipe_fingerprint": recipe.fingerprint,
            "n_folds": self.n_folds,
            "group_by": self.group_by,
            "limit": self.limit,
            "data_fingerprint": data.fingerprint,
        }

    def as_flags(self) -> list[str]:
        """Return the command-line flags of options that differ from the defaults."""
        parser = cli.parser(None)
        self.declare(parser)
        defaults = vars(self.gather(parser.parse_args([])))
        flags: list[str] = []
        for name, value in vars(self).items():
            # Always with --n_folds: the fold's number depends on it.
            if value == defaults[name] and name != "n_folds":
                continue
            if isinstance(value, tuple):
                flags += [part for item in value for part in (f"--{name}", item)]
            elif isinstance(value, bool):
                flags += [f"--{name}"]
            else:
                flags += [f"--{name}", str(value)]
        return flags


def declare_common(
    parser: argparse.ArgumentParser, *, subfolder: str = "", group_by: Sequence[str]
) -> None:
    """Add the flags of `FoldOptions` to a parser.

    The default folders are data, store, assets and runs, or a `subfolder` of each. `group_by` lists
    the columns by which rows can be grouped into folds.
    """
    folders = {
        "data": "folder of the tables and recordings",
        "store": "folder of the decoded recordings",
        "assets": "folder of the backbones and trained folds",
        "runs": "folder of the TensorBoard logs",
    }
    cli.add_folders(parser, folders, subfolder)
    add = parser.add_argument
    add("--n_folds", type=int, default=N_FOLDS, help="number of cross-validation folds")
    add(
        "--group_by",
        choices=(*group_by, "none"),
        help=f"keep rows with the same value in one fold (default: {group_by[0]}, where known)",
    )
    add("--limit", type=cli.int_of_at_least(1), help="use only the first LIMIT rows of the table")
    add("--device", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    add(
        "--workers", type=cli.int_of_at_least(0), help="data loading processes (default: by device)"
    )
    add("--epochs", type=cli.int_of_at_least(1), help="number of epochs (default: the recipe's)")
    add("--seed", type=int, help="train the model NAME_sSEED (default: the recipe's seed)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe",
    )
    _declare_computation(parser)
    add(
        "--strict",
        action="store_true",
        help="refuse recordings that need converting (stereo, 44.1 kHz …)",
    )


def _declare_computation(parser: argparse.ArgumentParser) -> None:
    """Add the flags of how a training computes, and not of what it learns."""
    add = parser.add_argument
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of matrix products; auto: bf16 where the device supports it, fp16 on other GPUs",
    )
    add(
        "--checkpoint_minutes",
        type=cli.number_of_at_least(0),
        default=10.0,
        help="minutes between checkpoints within an epoch; a killed training resumes from the last",
    )
    add(
        "--micro_batch",
        type=cli.int_of_at_least(1),
        metavar="N",
        help="examples that are computed at once (default: a whole batch); fewer need less memory, "
        "and the model learns the same",
    )
    add(
        "--gradient_checkpointing",
        action="store_true",
        help="compute the backbone's layers again for their gradients instead of keeping their "
        "results: less memory, about a third more time, and the model learns the same",
    )
