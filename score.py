"""Score recordings without labels; needs no training."""

from hearback.engine import cli
from hearback.reading.steps.score import main

if __name__ == "__main__":
    cli.run(main)
