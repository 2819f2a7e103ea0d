"""Step 2: train every model, seed and fold that is not done yet, then print their scores.

    python -m hearback.songs train --seeds 1 2 3 4 --jobs 2

Each seed is a separate model. System 1 averages 4 to 20 seeds of one recipe.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from hearback.engine import cli
from hearback.engine.launch import command
from hearback.engine.launch.command import Competition
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SeparationName, find_recipes
from hearback.songs.steps import check_models
from hearback.songs.steps.train_model import load_workload


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the flag --separations."""
    parser.add_argument(
        "--separations",
        nargs="+",
        choices=get_args(SeparationName),
        help="train each model once per separation (default: --separate)",
    )


def variants(arguments: argparse.Namespace, options: SongOptions) -> Sequence[SongOptions]:
    """Return a copy of the options for each separation."""
    separations = arguments.separations or [options.separate]
    return [replace(options, separate=separate) for separate in dict.fromkeys(separations)]


def competition() -> Competition:
    """Return the songs competition's part of the training command."""
    return Competition(
        description=__doc__ or "",
        recipes=find_recipes(),
        options=SongOptions,
        program=lambda model: ("-m", f"hearback.songs.recipes.{model}"),
        show=check_models.show_trained,
        folders=("data", "corrections"),
        declare=declare,
        variants=variants,
        load_workload=load_workload,
    )


def main() -> int:
    """Train all missing folds; return 1 if a fold is not trained."""
    return command.main(competition())


if __name__ == "__main__":
    cli.run(main)
