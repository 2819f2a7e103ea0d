"""Train many small models: none that learns may be stopped, every stall must be seen.

    OMP_NUM_THREADS=1 python -m tests.soak.soak_stall_detector --n 72 --seed 0

healthy  trainings of the toy world (`tests.toy`): every family of recipes, with learning rates
         and precisions of all kinds, three folds of each, so that the first is judged by its own
         start and the last by two others. Also judged from the end, each by all of its siblings.
stalls   each of `tests.soak.stalls` in the first attempt at a fold, `--n_stalls` times: the guard
         must say what it is, and the second attempt must finish.

`margin` is the least distance from a soft stall (`guard.StallDetector.margin`): below 1 for 20 steps
in a row, a training would be stopped. Exit status 1 where a healthy training was stopped or a stall
was not seen.
"""

import argparse
import io
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata, sibling_metadata
from hearback.engine.training.stall_detector import Curve, StallDetector
from hearback.reading.augment import LIGHT
from hearback.reading.dataset import TrainingData
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.options import TrainingOptions, add_options, options_from
from hearback.reading.recipe import Recipe
from hearback.reading.training import train_fold
from tests import toy
from tests.soak import stalls
from tests.soak.stalls import Stall, provoked
from train_model2ds import RECIPE as MEAN
from train_model3mapd import RECIPE as ATTENTION
from train_model3scp import RECIPE as BOTH_POOLINGS
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS
from train_modeltokown import RECIPE as OWN

N_FOLDS, N_CLIPS = 3, 48
EPOCHS, BATCH_SIZE = 6, 2  # 96 steps or more: the guard judges from the 41st
RATES = (1e-3, 1e-4, 1e-2, 1e-5)  # of the backbone; the head's is ten times that
PRECISIONS = ("float32", "bfloat16", "float16")
RECIPES = (MEAN, ATTENTION, BOTH_POOLINGS, ALIGNED, TOKENS, OWN)
LEARNING = replace(MEAN, hidden="width")  # what a soft stall is compared with must have learned


@dataclass(frozen=True)
class World:
    """The toy data, and where its folds go."""

    folder: Path
    options: TrainingOptions
    data: TrainingData

    def into(self, name: str, precision: str) -> TrainingOptions:
        """Return the options that train into an empty folder of that name."""
        assets = self.folder / "assets" / name
        return replace(self.options, assets=assets, precision=precision)

    def train(
        self, recipe: Recipe, fold: int, options: TrainingOptions, attempt: int = 1
    ) -> FoldMetadata:
        """Train a fold without a word."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return train_fold(recipe, fold, options, self.data, attempt)


def main() -> int:
    """Train, print the table, and return 1 where the guard was wrong."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--n", type=int, default=72, help="healthy trainings, at least")
    add("--n_stalls", type=int, default=3, help="of each kind")
    add("--seed", type=int, default=0, help="of the data and of the recipes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), asked.seed)
        lines = [*train_healthy(world, asked), *train_stalled(world, asked)]
    columns = ["kind", "trainings", "stopped", "should be", "steps until seen", "margin"]
    table = pd.DataFrame(lines, columns=columns)
    print(table.to_string(index=False, float_format=lambda number: f"{number:.3g}", na_rep="–"))
    n_wrong = int((table["stopped"] != table["should be"]).sum())
    print(
        f"\n{table['trainings'].sum()} trainings; {n_wrong or 'no'} lines where the guard is wrong"
    )
    return 1 if n_wrong else 0


def make_world(folder: Path, seed: int) -> World:
    """Write the toy data: clips, references, hard negatives and a backbone."""
    toy.make_corpus(folder, N_CLIPS, np.random.default_rng(seed))
    near = {
        text: (HardNegative(other, "neighbour", (0,)),)
        for text, other in zip(toy.TEXTS, [*toy.TEXTS[1:], toy.TEXTS[0]], strict=True)
    }
    write_hard_negatives(near, folder / "tts_data")
    parser = cli.parser(None)
    add_options(parser)
    names = ("data", "tts_data", "store", "runs")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    backbone = toy.make_backbone(folder / "backbone")
    flags += ["--backbone", str(backbone), "--n_folds", str(N_FOLDS), "--device", "cpu"]
    options = options_from(parser.parse_args(flags))
    return World(folder, options, options.load_data())


def small(recipe: Recipe, rate: float, seed: int) -> Recipe:
    """Return a recipe with the toy's sizes and these random numbers."""
    return replace(
        recipe,
        learning_rate=rate,
        head_learning_rate=10 * rate,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        schedule_epochs=EPOCHS,
        augment_learner=LIGHT,
        frozen_share=0.0,
        seed=seed,
        data_seed=seed,
    )


def train_healthy(world: World, asked: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Train folds that learn, or could; give a line of the table for each recipe."""
    n_settings = -(-asked.n // N_FOLDS)
    kinds = [
        (recipe, rate, precision)
        for rate, precision in zip(RATES, cycle(PRECISIONS), strict=False)
        for recipe in RECIPES
    ]
    found: dict[str, list[tuple[int, float]]] = {}
    n_trainings = dict.fromkeys([recipe.name for recipe in RECIPES], 0)
    with tqdm(total=n_settings * N_FOLDS, desc="healthy", file=sys.stderr) as bar:
        for number, kind in enumerate(islice(cycle(kinds), n_settings)):
            recipe = small(kind[0], kind[1], asked.seed + number)
            options = world.into(f"healthy_{number}", kind[2])
            seen = found.setdefault(recipe.name, [])
            for fold in range(N_FOLDS):
                seen.append((attempts_that_stalled(world, recipe, fold, options), math.inf))
                seen.append(compute_logits(options, world.data, recipe, fold, range(fold)))
                n_trainings[recipe.name] += 1
                bar.update()
            for fold in range(N_FOLDS):
                seen.append(compute_logits(options, world.data, recipe, fold, range(N_FOLDS)))
    for name, seen in found.items():
        stopped, margins = zip(*seen, strict=True)
        yield f"healthy {name}", n_trainings[name], sum(stopped), 0, None, min(margins)


def attempts_that_stalled(world: World, recipe: Recipe, fold: int, options: TrainingOptions) -> int:
    """Train a fold; return how many attempts at it were stopped."""
    try:
        attempts = world.train(recipe, fold, options)["attempts"]
    except HearbackError as error:
        tqdm.write(str(error))
        return 3
    for past in attempts[:-1]:
        tqdm.write(f"{recipe.name} fold {fold}: {past['reason']}")
    return len(attempts) - 1


def compute_logits(
    options: TrainingOptions,
    data: TrainingData,
    recipe: Recipe,
    fold: int,
    others: Sequence[int],
) -> tuple[int, float]:
    """Let the guard see a finished fold with these others to compare; return stops and margin."""
    nobody = FoldFiles(options.assets, recipe.name, -1)
    metadata_by_fold = sibling_metadata(nobody, options.run_key(options.adapt(recipe), data))
    if fold not in metadata_by_fold:
        return 0, math.inf  # its attempts stalled, which has been counted
    curves = [
        Curve.of(metadata_by_fold[other]["epochs"])
        for other in others
        if other in {*metadata_by_fold} - {fold}
    ]
    guard = StallDetector([curve for curve in curves if curve is not None])
    stopped = guard.replay(metadata_by_fold[fold]["epochs"]) is not None
    return int(stopped), guard.margin


def train_stalled(world: World, asked: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Provoke each stall; give a line of the table for each."""
    n_kinds = len(stalls.PLAIN) + 2
    with tqdm(total=n_kinds * asked.n_stalls, desc="stalls", file=sys.stderr) as bar:
        for name, stall in stalls.PLAIN.items():
            steps = []
            for number in range(asked.n_stalls):
                recipe = small(RECIPES[number % len(RECIPES)], RATES[0], asked.seed + number)
                options = world.into(f"{name}_{number}", stall.precision)
                steps.append(steps_until_seen(world, recipe, stall, options))
                bar.update()
            yield line_of(name, steps)
        for name, whose, after in (
            ("dull, others have learned", "other folds there had", 0),
            ("dull after 30 steps, first fold", "its first 20 steps had", 30),
        ):
            steps = []
            for number in range(asked.n_stalls):
                recipe = small(LEARNING, 1e-3, asked.seed + number)
                options = world.into(f"{name}_{number}", "float32")
                if not after:
                    for fold in (1, 2):
                        world.train(recipe, fold, options)
                stall = Stall(stalls.dull, whose)
                steps.append(steps_until_seen(world, recipe, stall, options, after))
                bar.update()
            yield line_of(name, steps)


def steps_until_seen(
    world: World, recipe: Recipe, stall: Stall, options: TrainingOptions, after: int = 0
) -> int | None:
    """Provoke a stall in the first attempt; return how many steps it lasted, None if unseen."""
    with provoked(stall.deed, attempts=[1], after=after) as steps:
        fold_metadata = world.train(recipe, 0, options)
    first, *_, last = fold_metadata["attempts"]
    seen = first["outcome"] == "stalled" and re.search(stall.said, first["reason"])
    if not seen or (last["attempt"], last["outcome"]) != (2, "finished"):
        tqdm.write(f"{recipe.name}: {stall.said!r} was to be seen, and is {first['reason']!r}")
        return None
    return steps.count(1) - after


def line_of(name: str, steps: Sequence[int | None]) -> tuple[object, ...]:
    """Return a kind's line of the table."""
    seen = [number for number in steps if number is not None]
    span = f"{min(seen)} to {max(seen)}" if seen else None
    return name, len(steps), len(seen), len(steps), span, float("nan")


if __name__ == "__main__":
    cli.run(main)
