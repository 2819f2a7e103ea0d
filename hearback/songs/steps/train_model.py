"""Train one fold of a model: what its module in recipes/ runs."""

from typing import TYPE_CHECKING

from hearback.engine.training import script
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe, program_of

if TYPE_CHECKING:
    from hearback.songs.training import SongTask


def main(recipe: SongRecipe) -> None:
    """Train the fold given on the command line."""
    script.main(load_task, SongOptions, recipe, program_of(recipe))


def load_task() -> "type[SongTask]":
    """Return the training task, which imports torch."""
    from hearback.songs.training import SongTask  # noqa: PLC0415

    return SongTask
