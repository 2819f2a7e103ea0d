"""Train one fold of a model: what its train_model*.py runs."""

from typing import TYPE_CHECKING

from hearback.engine.training import script
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe, program_of

if TYPE_CHECKING:
    from hearback.engine.plan.workload import MakeWorkload
    from hearback.reading.training import ReadingTask


def main(recipe: Recipe) -> None:
    """Train the fold given on the command line."""
    script.main(load_task, TrainingOptions, recipe, program_of(recipe), show_plan)


def load_task() -> "type[ReadingTask]":
    """Return the training task, which imports torch."""
    from hearback.reading.training import ReadingTask  # noqa: PLC0415

    return ReadingTask


def show_plan(recipe: FoldRecipe, fold: int, options: FoldOptions) -> None:
    """Print what the training of a fold will take."""
    from hearback.engine.plan.command import show_fold  # noqa: PLC0415

    show_fold(load_workload(), recipe, fold, options)


def load_workload() -> "MakeWorkload":
    """Return what --plan measures, which imports torch."""
    from hearback.reading.workload import ReadingWorkload  # noqa: PLC0415

    return ReadingWorkload
