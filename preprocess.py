"""Step 1: check the tables and recordings, and render the reference speech."""

from hearback.engine import cli
from hearback.reading.steps.preprocess import main

if __name__ == "__main__":
    cli.run(main)
