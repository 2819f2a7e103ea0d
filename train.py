"""Step 2: train every model and fold that is not done yet."""

from hearback.engine import cli
from hearback.reading.steps.train import main

if __name__ == "__main__":
    cli.run(main)
