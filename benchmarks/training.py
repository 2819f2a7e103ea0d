"""The processor time of training with encoder outputs computed once, against training as a whole.

    python -m benchmarks.training --data DATA --store STORE --backbone assets/whisper-tiny.en

Trains the folds of both models in turn, fold by fold, on the first --rows rows: modeltok, whose
lower encoder layers are frozen, and modeltoklow, whose whole encoder is, so that it encodes every
recording a few times for all folds. That is part of its first fold's time, as are the features for
the initialisation with both. They have the epochs of their recipes. Decoding is not timed.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import CLOCKS, Clock, machine, silence
from benchmarks.setting import threads
from hearback.engine import cli
from hearback.engine.malloc import keep_freed_memory
from hearback.reading.dataset import TrainingData
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe
from hearback.reading.training import train_fold
from train_modeltok import RECIPE as WHOLE
from train_modeltoklow import RECIPE as ENCODED_ONCE


@dataclass(frozen=True)
class Side:
    """A recipe, the folder that keeps its encoder outputs and folds, and the seconds by fold."""

    recipe: Recipe
    folder: Path
    seconds: list[float] = field(default_factory=list)

    def train(self, fold: int, options: TrainingOptions, data: TrainingData, clock: Clock) -> None:
        """Train a fold, without output, and time it."""
        with silence():
            started = clock()
            train_fold(self.recipe, fold, options, data)
            self.seconds.append(clock() - started)


def main() -> None:
    """Train the folds, and print times and their ratio."""
    arguments = _parse()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder, threads(arguments.threads):
        sides = time_folds(arguments, Path(folder))
    print(f"{machine()}; {arguments.threads} threads, {arguments.clock} time")
    print(f"{arguments.rows} rows, {arguments.folds} folds, {arguments.backbone.name}")
    for line in describe(sides):
        print(line)


def _parse() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the training tables and recordings")
    add("--store", type=Path, default=Path("store"), help="folder of the decoded recordings")
    add("--backbone", type=Path, default=Path("assets/whisper-tiny.en"), help="a Whisper")
    add("--rows", type=cli.int_of_at_least(1), default=300, help="the first rows of the table")
    add("--folds", type=cli.int_of_at_least(2), default=6, help="number of folds, all trained")
    add("--threads", type=cli.int_of_at_least(1), default=1, help="of torch")
    add("--clock", choices=CLOCKS, default="cpu", help="the time that is measured")
    add("--precision", default="auto", help="of the matrix products")
    return parser.parse_args()


def time_folds(arguments: argparse.Namespace, folder: Path) -> list[Side]:
    """Return both sides, with the time of every fold; the order alternates from fold to fold."""
    sides = [Side(recipe, folder / recipe.name) for recipe in (WHOLE, ENCODED_ONCE)]
    options = [_options(arguments, side.folder) for side in sides]
    data = _options(arguments, folder, store=arguments.store).load_data([WHOLE, ENCODED_ONCE])
    for fold in range(arguments.folds):
        turns = list(zip(sides, options, strict=True))
        for side, of_side in turns if fold % 2 == 0 else reversed(turns):
            side.train(fold, of_side, data, CLOCKS[arguments.clock])
    return sides


def _options(
    arguments: argparse.Namespace, folder: Path, store: Path | None = None
) -> TrainingOptions:
    """Return the options of a training whose files are in `folder`."""
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    flags: dict[str, object] = {
        "--data": arguments.data,
        "--store": store or folder / "store",
        "--assets": folder / "assets",
        "--runs": folder / "runs",
        "--backbone": arguments.backbone.resolve(),
        "--limit": arguments.rows,
        "--n_folds": arguments.folds,
        "--device": "cpu",
        "--precision": arguments.precision,
    }
    return TrainingOptions.gather(
        parser.parse_args([str(part) for flag in flags.items() for part in flag])
    )


def describe(sides: Sequence[Side]) -> list[str]:
    """Return a line for each side, with its time relative to the first side's."""
    total = sum(sides[0].seconds)
    return [
        f"{side.recipe.name:<12} {sum(side.seconds):7.1f} s, {sum(side.seconds) / total:.2f} times "
        f"as long; folds {' '.join(f'{seconds:.1f}' for seconds in side.seconds)}"
        for side in sides
    ]


if __name__ == "__main__":
    cli.run(main)
