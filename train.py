"""Train every model and fold that is not yet done, then show the table of check_models.py."""

from pathlib import Path

import check_models
from hearback import cli, recipe
from hearback.launching import command
from hearback.launching.command import Competition
from hearback.options import TrainingOptions

HERE = Path(__file__).parent


def competition() -> Competition:
    """Return this competition's recipes and how they are trained."""
    return Competition(
        description=__doc__,
        recipes=recipe.find_recipes(HERE),
        options=TrainingOptions,
        program=lambda model: (str(HERE / f"train_{model}.py"),),
        show=check_models.show,
        folders=("data", "tts_data"),
    )


if __name__ == "__main__":
    cli.run(lambda: command.main(competition()))
