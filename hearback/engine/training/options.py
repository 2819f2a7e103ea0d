"""What a training's command line says in every competition."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from hearback.engine import cli
from hearback.engine.devices import TRAINING_PRECISIONS


@dataclass(frozen=True, kw_only=True)
class FoldOptions(ABC):
    """What the command line says beside the recipe and the fold; the same for every training.

    A competition derives its own, with the flags that it has beside these. Its options also say how
    they change a recipe (`adapt`), load the data that they name (`load_data`), and tell what makes
    two trainings of a fold the same (`run_key`).
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

    @classmethod
    @abstractmethod
    def declare(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the flags of these options."""

    @classmethod
    def gather(cls, arguments: argparse.Namespace) -> Self:
        """Gather the flags that `declare` declared."""
        values = {name: getattr(arguments, name) for name in cls.__dataclass_fields__}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

    @abstractmethod
    def adapt(self, recipe: Any) -> Any:  # noqa: ANN401  (a competition's own recipe)
        """Return `recipe` as these options change it."""

    def for_data(self) -> Self:
        """Return options that load the same data, whatever the seed; equal ones load it once."""
        return replace(self, seed=None)

    @abstractmethod
    def load_data(self) -> Any:  # noqa: ANN401  (a competition's own data)
        """Load and check the training set that these options name."""

    def run_key(self, recipe: Any, data: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return what makes two trainings of a fold the same; `recipe` is the adapted one."""
        return {
            "recipe": recipe.as_dict(),
            "recipe_fingerprint": recipe.fingerprint,
            "n_folds": self.n_folds,
            "group_by": self.group_by,
            "limit": self.limit,
            "data_fingerprint": data.fingerprint,
        }

    def as_flags(self) -> list[str]:
        """Return the options that are not the defaults, as a command line has them."""
        parser = cli.parser(None)
        self.declare(parser)
        defaults = vars(self.gather(parser.parse_args([])))
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


def declare_common(
    parser: argparse.ArgumentParser, *, subfolder: str = "", group_by: Sequence[str]
) -> None:
    """Declare the flags of `FoldOptions`.

    The folders are data, store, assets and runs, or a `subfolder` of each; `group_by` are the
    columns whose values may be held out together.
    """
    add = parser.add_argument
    add("--data", type=Path, default=Path("data", subfolder), help="tables and recordings")
    add("--store", type=Path, default=Path("store", subfolder), help="decoded recordings")
    add("--assets", type=Path, default=Path("assets", subfolder), help="backbones, trained folds")
    add("--runs", type=Path, default=Path("runs", subfolder), help="TensorBoard logs")
    add("--n_folds", type=int, default=6, help="number of folds that the table is split into")
    add(
        "--group_by",
        choices=(*group_by, "none"),
        help=f"rows that are held out together (default: {group_by[0]}, where that is known)",
    )
    add("--limit", type=int, help="use only the first rows of the table, for a quick look")
    add("--device", help="cpu, cuda, cuda:1, … (default: a GPU where there is one)")
    add("--workers", type=int, help="processes that load and augment (default: by device)")
    add("--epochs", type=int, help="train for so many (default: the recipe's)")
    add("--seed", type=int, help="another model of the recipe, NAME_sSEED (default: its own seed)")
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
