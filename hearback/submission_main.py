"""Score data/ and write submission.csv beside this file: main.py of the competition's submission.

`python -m hearback.submission` packs it with what it needs; flags are those of infer.py, after the
ones that were packed. Nothing is installed and no network is asked. Before anything is scored every
row of submission.csv gets the base rate of its task, so that a submission stands from the first
second; what fails then ends with its own exit status. It imports no package before that, and, as
rendering starts processes that import it again, nothing happens when it is imported.
"""

import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
SUBMISSION = HERE / "submission.csv"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, by column."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_base_rates() -> None:
    """Write a submission of base rates: what the rows have in common with the training's."""
    rates = json.loads((HERE / "model_configs.json").read_text(encoding="utf-8"))["base_rates"]
    metadata = read_rows(DATA / "test_metadata.csv")
    tasks = {row["filename"].strip(): row["task"].strip() for row in metadata}
    wanted = DATA / "submission_format.csv"
    names = [
        row["filename"].strip() for row in (read_rows(wanted) if wanted.exists() else metadata)
    ]
    with SUBMISSION.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "score"))
        writer.writerows((name, rates.get(tasks.get(name), rates["all"])) for name in names)


def score(scratch: Path, flags: Sequence[str]) -> None:
    """Run infer.py, with what it writes on the way in `scratch`; it exits with its status."""
    # Rendered references are added to them, and this folder may be read-only.
    shutil.copytree(HERE / "tts_data", scratch / "tts_data")
    os.environ["NUMBA_CACHE_DIR"] = str(scratch / "numba")  # as librosa's folder may be
    paths = {
        "data": DATA,
        "tts_data": scratch / "tts_data",
        "store": scratch / "store",
        "assets": HERE / "assets",
        "config": HERE / "model_configs.json",
        "submission": SUBMISSION,
    }
    packed = json.loads((HERE / "infer_flags.json").read_text(encoding="utf-8"))
    places = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    sys.argv = ["infer.py", *places, *packed, *flags]
    import infer  # noqa: PLC0415  (base rates come first)
    from hearback import cli  # noqa: PLC0415

    cli.run(infer.main)


def main() -> None:
    """Write base rates, then scores."""
    print((HERE / "VERSION").read_text(encoding="utf-8"), flush=True)
    os.environ.update(OFFLINE)
    sys.path.insert(0, str(HERE))
    sys.path.append(str(HERE / "packages"))  # last: a package that the runtime has is the runtime's
    try:
        write_base_rates()
    except (OSError, KeyError, ValueError, AttributeError, csv.Error) as error:
        # infer.py checks the tables itself, and says what is wrong with them.
        print(f"no base rates could be written ({error!r})", file=sys.stderr)
    scored = False
    with tempfile.TemporaryDirectory(prefix="hearback-") as scratch:
        try:
            score(Path(scratch), sys.argv[1:])
        except SystemExit as end:
            scored = not end.code
            raise
        finally:
            if not scored:
                print(f"scoring failed; {SUBMISSION} has base rates, no scores", file=sys.stderr)


if __name__ == "__main__":
    main()
