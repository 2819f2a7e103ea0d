"""A dry run of the reading competition's runtime: what submission.zip does there.

    python -m hearback.reading.submission.dry_run --zip demo/submission.zip --data demo/data

As `hearback.engine.submission.sandbox` plays it, on some of the test recordings, some of them with a text that has no
reference. The submission is compared, row by row, with the format and with what infer.py gives.
"""

import csv
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.submission.sandbox import (
    TOLERANCE,
    DryRun,
    Sandbox,
    copy_clips,
    declare,
    evenly,
    run_here,
    show,
    unpack,
)

# Said by nobody, so no corpus has them. Rendered, not scored well, is what they must be.
UNKNOWN_TEXTS = ("seven otters hid my kite", "plonkervidge", "a wug in a tin boat")


@dataclass(frozen=True)
class ReadingStage(Sandbox):
    """`unknown` are the filenames of the recordings whose texts have no reference."""

    unknown: tuple[str, ...]

    @property
    def wanted(self) -> Path:
        """The submission's format."""
        return self.data / "submission_format.csv"


class ReadingPlay(DryRun[ReadingStage]):
    """The reading competition's submission."""

    def set_up(self, folder: Path) -> ReadingStage:
        """Unpack the zip into a new folder and put smoke clips and their tables beside it."""
        runtime, workdir = unpack(
            self.archive, folder, "python -m hearback.reading.submission.pack"
        )
        metadata = _choose_clips(self.data / "test_metadata.csv", self.n_clips)
        texts = UNKNOWN_TEXTS if (runtime / "packages").is_dir() else ()
        known = pd.read_csv(runtime / "tts_data" / "data_paths.csv", dtype=str)["text"]
        if not known[known.isin(texts)].empty:
            raise HearbackError(
                f"{self.archive}: has references of {', '.join(texts)}; choose other texts"
            )
        metadata.loc[: len(texts) - 1, "expected_text"] = texts
        names = metadata["filename"].tolist()
        damaged = copy_clips(self.data, names, runtime)
        sandbox = ReadingStage(runtime, workdir, damaged, tuple(names[: len(texts)]))
        metadata.to_csv(sandbox.data / "test_metadata.csv", index=False)
        # In another order than the metadata's.
        metadata[["filename"]][::-1].assign(score=0.0).to_csv(sandbox.wanted, index=False)
        return sandbox

    def compare(self, sandbox: ReadingStage) -> tuple[list[str], float]:
        """Compare with the format, and with the scores of infer.py here."""
        return compare(sandbox.submission, sandbox.wanted, score_here(sandbox))

    def describe(self, sandbox: ReadingStage) -> str:
        """Return how many rows there were, and of what kinds."""
        n_rows = len(_read_rows(sandbox.wanted)) - 1
        return (
            f"{n_rows} rows in the order of the format, {len(sandbox.unknown)} with texts that were "
            "rendered there, one damaged, listed and at its base rate"
        )


def _choose_clips(path: Path, n_clips: int) -> pd.DataFrame:
    """Return rows of a metadata table, evenly from all of it."""
    if not path.is_file():
        raise HearbackError(f"{path}: not there; give --data the folder of test recordings")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if len(table) <= len(UNKNOWN_TEXTS):
        raise HearbackError(f"{path}: {len(table)} rows are too few for a dry run")
    return table.iloc[list(evenly(len(table), n_clips))].reset_index(drop=True)


def score_here(sandbox: ReadingStage) -> Path:
    """Run the project's infer.py on the same recordings and folds; return its submission."""
    folder = sandbox.workdir / "here"
    shutil.copytree(sandbox.runtime / "tts_data", folder / "tts_data")
    run_here(
        [str(ROOT / "infer.py")],
        data=sandbox.data,
        tts_data=folder / "tts_data",
        store=folder / "store",
        assets=sandbox.runtime / "assets",
        config=sandbox.runtime / "model_configs.json",
        submission=folder / "submission.csv",
    )
    return folder / "submission.csv"


def compare(submission: Path, wanted: Path, expected: Path) -> tuple[list[str], float]:
    """Compare a submission, row by row, with its format and with expected scores.

    Returns what is wrong, and the largest difference of a score.
    """
    faults, largest = [], 0.0
    rows, format_rows, expected_rows = map(_read_rows, (submission, wanted, expected))
    scores = dict(expected_rows[1:])
    if len(rows) != len(format_rows):
        faults.append(f"{len(rows) - 1} rows, not {len(format_rows) - 1}")
    if rows[:1] != [["filename", "score"]]:
        faults.append(f"header {rows[:1]}, not filename,score")
    for line, (row, wanted_row) in enumerate(zip(rows[1:], format_rows[1:], strict=False), 2):
        if len(row) != 2 or row[0] != wanted_row[0]:
            faults.append(f"line {line}: {row}, not the score of {wanted_row[0]}")
            continue
        score = _as_number(row[1])
        if not 0 <= score <= 1:
            faults.append(f"line {line}: {row[1]} is no probability")
        difference = abs(score - _as_number(scores.get(row[0], "nan")))
        largest = max(largest, difference)
        if not difference <= TOLERANCE:  # so said, NaN is a fault too
            faults.append(f"line {line}: {row[0]} {row[1]}, here {scores.get(row[0])}")
    return faults, largest


def _read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def main() -> None:
    """Parse and rehearse."""
    parser = cli.parser("Play the competition's runtime, and compare what main.py writes there.")
    declare(parser, Path("data"))
    asked = parser.parse_args()
    show(ReadingPlay(asked.zip, asked.data, asked.clips), asked.python)


if __name__ == "__main__":
    cli.run(main)
