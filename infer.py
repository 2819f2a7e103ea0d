"""Step 5: score the test recordings and write submission.csv; no network."""

from hearback.engine import cli
from hearback.reading.steps.infer import main

if __name__ == "__main__":
    cli.run(main)
