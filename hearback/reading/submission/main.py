"""Score data/ and write submission.csv beside this file: main.py of the competition's submission.

`python -m hearback.reading.submission.pack` packs it. It takes the flags of infer.py, which
override the packed ones. Every row first gets the base rate of its task, so that there is a
submission even if scoring fails. Importing this file has no effect, because processes that render
texts import it.
"""

import csv
import json
import shutil
from pathlib import Path

from hearback.engine.submission import runtime

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
SUBMISSION = HERE / "submission.csv"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, by column."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_base_rates() -> None:
    """Write a submission with the training base rate of each row's task."""
    rates = json.loads((HERE / "model_configs.json").read_text(encoding="utf-8"))["base_rates"]
    metadata = read_rows(DATA / "test_metadata.csv")
    tasks = {row["filename"].strip(): row["task"].strip() for row in metadata}
    table = DATA / "submission_format.csv"
    names = [row["filename"].strip() for row in (read_rows(table) if table.exists() else metadata)]
    with SUBMISSION.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "score"))
        writer.writerows((name, rates.get(tasks.get(name), rates["all"])) for name in names)


def score(scratch: Path) -> None:
    """Run infer.py with temporary files in `scratch`, and exit with its status."""
    # Rendered references are added to the folder, and the packed one may be read-only. Without a
    # model that hears reference speech, there is none.
    if (HERE / "tts_data").is_dir():
        shutil.copytree(HERE / "tts_data", scratch / "tts_data")
    runtime.set_flags(
        "infer.py",
        ["--no_page", *json.loads((HERE / "infer_flags.json").read_text(encoding="utf-8"))],
        data=DATA,
        tts_data=scratch / "tts_data",
        store=scratch / "store",
        assets=HERE / "assets",
        config=HERE / "model_configs.json",
        submission=SUBMISSION,
    )
    from hearback.engine import cli  # noqa: PLC0415
    from hearback.reading.steps import infer  # noqa: PLC0415  (base rates are written first)

    cli.run(infer.main)


if __name__ == "__main__":
    runtime.run(HERE, write_base_rates, score)
