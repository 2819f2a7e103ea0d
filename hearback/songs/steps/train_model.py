"""Train one fold of a model: what its module in recipes/ runs."""

from functools import partial
from typing import TYPE_CHECKING

from hearback.engine.training import script
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe, program_of

if TYPE_CHECKING:
    from hearback.engine.plan.workload import MakeWorkload
    from hearback.songs.training import SongTask


def main(recipe: SongRecipe) -> None:
    """Train the fold given on the command line."""
    script.main(load_task, SongOptions, recipe, program_of(recipe), show_plan)


def load_task() -> "type[SongTask]":
    """Return the training task, which imports torch."""
    from hearback.songs.training import SongTask  # noqa: PLC0415

    return SongTask


def show_plan(recipe: FoldRecipe, fold: int, options: FoldOptions) -> None:
    """Print what the training of a fold will take."""
    from hearback.engine.plan.command import show_fold  # noqa: PLC0415

    show_fold(load_workload(), recipe, fold, options)


def load_workload() -> "MakeWorkload":
    """Return what --plan measures, which imports torch."""
    from hearback.songs.workload import SongWorkload  # noqa: PLC0415

    return partial(SongWorkload, load_task())
