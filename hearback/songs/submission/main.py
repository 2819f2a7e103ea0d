"""Classify the snippets in data/ and write submission.csv here: main.py of a submission.

`python -m hearback.songs.submission.pack` packs it with what it needs; flags are those of hearback.songs.steps.infer. Before
anything is heard every snippet gets the commonest class of the training (`hearback.engine.submission.runtime`).
"""

import csv
import json
from pathlib import Path

from hearback.engine.submission import runtime

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
CONFIG = HERE / "model_configs.json"
SUBMISSION = HERE / "submission.csv"


def write_commonest_class() -> None:
    """Write a submission of what no snippet needs to be heard for."""
    from hearback.songs.tables import list_snippets  # noqa: PLC0415  (packages are the runtime's from now)

    shares = json.loads(CONFIG.read_text(encoding="utf-8"))["class_shares"]
    filenames = list_snippets(DATA)["filename"]
    with SUBMISSION.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "label"))
        writer.writerows((filename, shares.index(max(shares))) for filename in filenames)


def score(scratch: Path) -> None:
    """Run hearback.songs.steps.infer, with what it writes on the way in `scratch`; it exits with its status."""
    runtime.set_flags(
        "hearback.songs.steps.infer",
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
    runtime.run(HERE, write_commonest_class, score)
