"""Step 2: train every model and fold that is not done yet, then print their scores."""

from hearback.engine import cli
from hearback.engine.launch import command
from hearback.engine.launch.command import Competition
from hearback.engine.project import SHIPPED
from hearback.reading import recipe
from hearback.reading.options import TrainingOptions
from hearback.reading.steps import check_models
from hearback.reading.steps.train_model import load_workload


def competition() -> Competition:
    """Return the reading competition's part of the training command."""
    return Competition(
        description=__doc__,
        recipes=recipe.find_recipes(),
        options=TrainingOptions,
        program=lambda model: (str(SHIPPED / f"train_{model}.py"),),
        show=check_models.show_trained,
        folders=("data", "tts_data", "corrections"),
        load_workload=load_workload,
    )


def main() -> int:
    """Train all missing folds; return 1 if a fold is not trained."""
    return command.main(competition())


if __name__ == "__main__":
    cli.run(main)
