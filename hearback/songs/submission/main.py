"""main.py of submission.zip: classify the snippets in data/ and write submission.csv beside it.

`python -m hearback.songs submission` packs it. Its flags are those of the step infer. First every
snippet gets the most common training class, so that a submission exists even if scoring fails.
"""

import csv
import json
from pathlib import Path

from hearback.engine.submission import runtime

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
CONFIG = HERE / "model_configs.json"
SUBMISSION = HERE / "submission.csv"


def write_most_common_class() -> None:
    """Write a submission with the most common training class for every snippet."""
    from hearback.songs.tables import list_snippets  # noqa: PLC0415  (needs packages)

    shares = json.loads(CONFIG.read_text(encoding="utf-8"))["class_shares"]
    filenames = list_snippets(DATA)["filename"]
    with SUBMISSION.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "label"))
        writer.writerows((filename, shares.index(max(shares))) for filename in filenames)


def score(scratch: Path) -> None:
    """Run the step infer with temporary files in `scratch`, and exit with its status."""
    runtime.set_flags(
        "python -m hearback.songs infer",
        ["--no_page"],
        data=DATA,
        store=scratch / "store",
        assets=HERE / "assets",
        config=CONFIG,
        submission=SUBMISSION,
    )
    from hearback.engine import cli  # noqa: PLC0415
    from hearback.songs.steps import infer  # noqa: PLC0415

    cli.run(infer.main)


if __name__ == "__main__":
    runtime.run(HERE, write_most_common_class, score)
