"""Train one fold of a model: what its train_model*.py runs."""

from typing import TYPE_CHECKING

from hearback.engine.training import script
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe, program_of

if TYPE_CHECKING:
    from hearback.reading.training import ReadingTask


def main(recipe: Recipe) -> None:
    """Train the fold given on the command line."""
    script.main(load_task, TrainingOptions, recipe, program_of(recipe))


def load_task() -> "type[ReadingTask]":
    """Return the training task, which imports torch."""
    from hearback.reading.training import ReadingTask  # noqa: PLC0415

    return ReadingTask
