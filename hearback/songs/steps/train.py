"""Step 2: train every model, seed and fold that is not yet done, then show how good they are.

    python -m hearback.songs.steps.train --seeds 1 2 3 4 --jobs 2

A model of seed 2 is another of the same recipe, as system 1 averages 4 to 20 of them.
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


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the flag that makes several models of a recipe, beside --seeds."""
    parser.add_argument(
        "--separations",
        nargs="+",
        choices=get_args(SeparationName),
        help="a model for each (default: that of --separate)",
    )


def variants(arguments: argparse.Namespace, asked: SongOptions) -> Sequence[SongOptions]:
    """Return the options of each separation."""
    separations = arguments.separations or [asked.separate]
    return [replace(asked, separate=separate) for separate in dict.fromkeys(separations)]


def competition() -> Competition:
    """Return the songs' recipes and how they are trained."""
    return Competition(
        description=__doc__ or "",
        recipes=find_recipes(),
        options=SongOptions,
        program=lambda model: ("-m", f"hearback.songs.recipes.{model}"),
        show=check_models.show,
        declare=declare,
        variants=variants,
    )


if __name__ == "__main__":
    cli.run(lambda: command.main(competition()))
