"""Step 3: show the out-of-fold log loss of the trained models and the folds to train again."""

from hearback.engine import cli
from hearback.reading.steps.check_models import main

if __name__ == "__main__":
    cli.run(main)
