"""Step 4: fit the ensemble on the out-of-fold predictions and write model_configs.json."""

from hearback.engine import cli
from hearback.reading.steps.get_config import main

if __name__ == "__main__":
    cli.run(main)
