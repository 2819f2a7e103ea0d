"""The time of the default ensemble, against that of the token scorers before it.

    python -m benchmarks.ensembles --data DATA --store STORE

Six folds of each model score the same recordings in turns. "before" are the token scorers of the
ensemble of 2026-11-28 (modeltok with two seeds and modeltokb; its fourth model, model2ds, needs
reference speech and is left out, which favours it); "now" are modeltok, modeltoklow and modelseg.
The updates of the models are random, for times do not depend on the weights.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import CLOCKS, Side, machine, take_turns, warm_up
from benchmarks.members import (
    CPU,
    declare,
    describe,
    describe_clips,
    draw_clips,
    make_group,
    make_model,
    score,
)
from benchmarks.setting import threads
from hearback.engine import cli
from hearback.engine.devices import compute_dtype
from hearback.engine.malloc import keep_freed_memory
from hearback.reading.inference.model_group import ModelGroup
from hearback.reading.models.backbones import open_backbone
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import find_recipes

TINY, BASE = "whisper-tiny.en", "whisper-base"
# Names of recipes, and their backbones.
BEFORE = (("modeltok", TINY), ("modeltok", TINY), ("modeltokb", BASE))
NOW = (("modeltok", TINY), ("modeltoklow", BASE), ("modelseg", BASE))
N_FOLDS = 6


def main() -> None:
    """Time both ensembles, and each model of today's, and print the ratios."""
    arguments = parse()
    keep_freed_memory()
    source, rows = draw_clips(arguments)
    dtype = compute_dtype(CPU, arguments.precision)
    make = partial(make_folds, assets=arguments.assets, dtype=dtype)
    before = [make(*each, seed=number) for number, each in enumerate(BEFORE)]
    now = [make(*each, seed=number) for number, each in enumerate(NOW)]
    sides = [side("before", before, source, rows), side("now", now, source, rows)]
    sides += [
        side(f"now: {name}", [group], source, rows)
        for (name, _), group in zip(NOW, now, strict=True)
    ]
    with threads(1):
        warm_up(sides)
        turns = take_turns(sides, arguments.rounds, CLOCKS["cpu"])
    print(f"{machine()}; 1 thread, {dtype}, CPU time; {N_FOLDS} folds of each model")
    print(describe_clips(source, rows))
    for each, of_side in zip(sides, turns, strict=True):
        print(describe(each.name, of_side, turns[0]))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    declare(parser, clips=32)
    assets = Path("assets")
    parser.add_argument("--assets", type=Path, default=assets, help="folder of the backbones")
    return parser.parse_args()


def make_folds(
    name: str, backbone: str, *, seed: int, assets: Path, dtype: torch.dtype
) -> ModelGroup:
    """Return the folds of a model; those with a frozen encoder are encoded once."""
    recipe = replace(find_recipes()[name], backbone=backbone)
    opened = open_backbone(recipe, assets)
    is_encoded_once = recipe.n_augmented > 0
    seeds = range(N_FOLDS * seed, N_FOLDS * (seed + 1))
    folds = [make_model(recipe, each, backbone=opened, dtype=dtype) for each in seeds]
    return make_group(
        folds, dtype, shared=is_encoded_once, joint_key=name if is_encoded_once else ""
    )


def side(name: str, groups: Sequence[ModelGroup], source: PairSource, rows: np.ndarray) -> Side:
    """Return a side that scores the rows with every fold of the groups."""

    def run() -> float:
        return float(np.mean([score(group, source, rows) for group in groups]))

    return Side(name, run)


if __name__ == "__main__":
    cli.run(main)
