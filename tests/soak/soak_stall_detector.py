"""Train many small models: no healthy training may be stopped, every stall must be detected.

    OMP_NUM_THREADS=1 python -m tests.soak.soak_stall_detector --n 72 --seed 0

healthy  trainings on toy data (`tests.toy`): every family of recipes, with several learning rates
         and precisions, three folds of each: the first is compared with its own start, the last
         with two other folds. Afterwards each is compared with all other folds.
stalls   each of `tests.soak.stalls` in the first attempt at a fold, `--n_stalls` times: the stall
         detector must report the reason, and the second attempt must finish.

`margin` is `StallDetector.margin`, the smallest distance from the bounds; a training is stopped if
the distance is below 1 for 20 steps in a row. The exit status is 1 if a healthy training was
stopped or a stall was not detected.
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
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe
from hearback.reading.training import train_fold
from tests import toy
from tests.soak import stalls
from tests.soak.stalls import Stall, injected
from train_model2ds import RECIPE as MEAN
from train_model3mapd import RECIPE as ATTENTION
from train_model3scp import RECIPE as BOTH_POOLINGS
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS
from train_modeltokown import RECIPE as OWN

N_FOLDS, N_CLIPS = 3, 48
EPOCHS, BATCH_SIZE = 6, 2  # 96 steps or more: gradients are compared from the 41st on
RATES = (1e-3, 1e-4, 1e-2, 1e-5)  # of the backbone; the head's is ten times that
PRECISIONS = ("float32", "bfloat16", "float16")
RECIPES = (MEAN, ATTENTION, BOTH_POOLINGS, ALIGNED, TOKENS, OWN)
LEARNING = replace(MEAN, hidden="width")  # stalls are compared with folds that have learned


@dataclass(frozen=True)
class ToySetup:
    """Toy data, and the options to train on it."""

    folder: Path
    options: TrainingOptions
    data: TrainingData

    def options_for(self, name: str, precision: str) -> TrainingOptions:
        """Return options with an own folder of assets, `name`."""
        assets = self.folder / "assets" / name
        return replace(self.options, assets=assets, precision=precision)

    def train(
        self, recipe: Recipe, fold: int, options: TrainingOptions, attempt: int = 1
    ) -> FoldMetadata:
        """Train a fold without output."""
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return train_fold(recipe, fold, options, self.data, attempt)


def main() -> int:
    """Train, print the table, and return 1 if the stall detector was wrong."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--n", type=int, default=72, help="minimum number of healthy trainings")
    add("--n_stalls", type=int, default=3, help="trainings per kind of stall")
    add("--seed", type=int, default=0, help="seed of the data and the recipes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        setup = make_setup(Path(folder), arguments.seed)
        lines = [*train_healthy(setup, arguments), *train_stalled(setup, arguments)]
    columns = ["kind", "trainings", "stopped", "expected", "steps until detected", "margin"]
    table = pd.DataFrame(lines, columns=columns)
    print(table.to_string(index=False, float_format=lambda number: f"{number:.3g}", na_rep="–"))
    n_wrong = int((table["stopped"] != table["expected"]).sum())
    print(
        f"\n{table['trainings'].sum()} trainings; "
        f"{n_wrong or 'no'} lines where the stall detector is wrong"
    )
    return 1 if n_wrong else 0


def make_setup(folder: Path, seed: int) -> ToySetup:
    """Write toy data: clips, references, hard negatives and a backbone."""
    toy.make_corpus(folder, N_CLIPS, np.random.default_rng(seed))
    negatives = {
        text: (HardNegative(other, "neighbour", (0,)),)
        for text, other in zip(toy.TEXTS, [*toy.TEXTS[1:], toy.TEXTS[0]], strict=True)
    }
    write_hard_negatives(negatives, folder / "tts_data")
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    names = ("data", "tts_data", "store", "runs")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    backbone = toy.make_backbone(folder / "backbone")
    flags += ["--backbone", str(backbone), "--n_folds", str(N_FOLDS), "--device", "cpu"]
    options = TrainingOptions.gather(parser.parse_args(flags))
    return ToySetup(folder, options, options.load_data())


def small(recipe: Recipe, rate: float, seed: int) -> Recipe:
    """Return a recipe with toy sizes and this seed."""
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


def train_healthy(setup: ToySetup, arguments: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Train healthy folds; yield a line of the table for each recipe."""
    n_settings = -(-arguments.n // N_FOLDS)
    kinds = [
        (recipe, rate, precision)
        for rate, precision in zip(RATES, cycle(PRECISIONS), strict=False)
        for recipe in RECIPES
    ]
    found: dict[str, list[tuple[int, float]]] = {}
    n_trainings = dict.fromkeys([recipe.name for recipe in RECIPES], 0)
    with tqdm(total=n_settings * N_FOLDS, desc="healthy", file=sys.stderr) as bar:
        for number, kind in enumerate(islice(cycle(kinds), n_settings)):
            recipe = small(kind[0], kind[1], arguments.seed + number)
            options = setup.options_for(f"healthy_{number}", kind[2])
            results = found.setdefault(recipe.name, [])
            for fold in range(N_FOLDS):
                results.append((count_stalls(setup, recipe, fold, options), math.inf))
                results.append(replay(options, setup.data, recipe, fold, range(fold)))
                n_trainings[recipe.name] += 1
                bar.update()
            for fold in range(N_FOLDS):
                results.append(replay(options, setup.data, recipe, fold, range(N_FOLDS)))
    for name, results in found.items():
        stopped, margins = zip(*results, strict=True)
        yield f"healthy {name}", n_trainings[name], sum(stopped), 0, None, min(margins)


def count_stalls(setup: ToySetup, recipe: Recipe, fold: int, options: TrainingOptions) -> int:
    """Train a fold; return the number of its attempts that were stopped."""
    try:
        attempts = setup.train(recipe, fold, options)["attempts"]
    except HearbackError as error:
        tqdm.write(str(error))
        return 3
    for past in attempts[:-1]:
        tqdm.write(f"{recipe.name} fold {fold}: {past['reason']}")
    return len(attempts) - 1


def replay(
    options: TrainingOptions,
    data: TrainingData,
    recipe: Recipe,
    fold: int,
    others: Sequence[int],
) -> tuple[int, float]:
    """Compare a finished fold with `others`; return whether it stalls, and the margin."""
    no_fold = FoldFiles(options.assets, recipe.name, -1)  # so that all folds are its siblings
    metadata_by_fold = sibling_metadata(no_fold, options.run_key(options.adapt(recipe), data))
    if fold not in metadata_by_fold:
        return 0, math.inf  # its attempts stalled and were counted
    curves = [
        Curve.of(metadata_by_fold[other]["epochs"])
        for other in others
        if other in {*metadata_by_fold} - {fold}
    ]
    detector = StallDetector([curve for curve in curves if curve is not None])
    stopped = detector.replay(metadata_by_fold[fold]["epochs"]) is not None
    return int(stopped), detector.margin


def train_stalled(setup: ToySetup, arguments: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    """Inject each kind of stall; yield a line of the table for each."""
    n_kinds = len(stalls.IMMEDIATE) + 2
    with tqdm(total=n_kinds * arguments.n_stalls, desc="stalls", file=sys.stderr) as bar:
        for name, stall in stalls.IMMEDIATE.items():
            steps = []
            for number in range(arguments.n_stalls):
                recipe = small(RECIPES[number % len(RECIPES)], RATES[0], arguments.seed + number)
                options = setup.options_for(f"{name}_{number}", stall.precision)
                steps.append(steps_until_detected(setup, recipe, stall, options))
                bar.update()
            yield line_of(name, steps)
        for name, source, after in (
            ("constant logits, others have learned", "other folds at this step had", 0),
            ("constant logits after 30 steps, first fold", "its first 20 steps had", 30),
        ):
            steps = []
            for number in range(arguments.n_stalls):
                recipe = small(LEARNING, 1e-3, arguments.seed + number)
                options = setup.options_for(f"{name}_{number}", "float32")
                if not after:
                    for fold in (1, 2):
                        setup.train(recipe, fold, options)
                stall = Stall(stalls.constant_logits, source)
                steps.append(steps_until_detected(setup, recipe, stall, options, after))
                bar.update()
            yield line_of(name, steps)


def steps_until_detected(
    setup: ToySetup, recipe: Recipe, stall: Stall, options: TrainingOptions, after: int = 0
) -> int | None:
    """Stall the first attempt; return the steps until that was detected, None if it was not."""
    with injected(stall.fault, attempts=[1], after=after) as steps:
        fold_metadata = setup.train(recipe, 0, options)
    first, *_, last = fold_metadata["attempts"]
    detected = first["outcome"] == "stalled" and re.search(stall.reason, first["reason"])
    if not detected or (last["attempt"], last["outcome"]) != (2, "finished"):
        tqdm.write(f"{recipe.name}: expected {stall.reason!r}, not {first['reason']!r}")
        return None
    return steps.count(1) - after


def line_of(name: str, steps: Sequence[int | None]) -> tuple[object, ...]:
    """Return the line of the table for a kind of stall."""
    detected = [number for number in steps if number is not None]
    span = f"{min(detected)} to {max(detected)}" if detected else None
    return name, len(steps), len(detected), len(steps), span, float("nan")


if __name__ == "__main__":
    cli.run(main)
