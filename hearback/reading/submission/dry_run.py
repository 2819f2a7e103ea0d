"""Try submission.zip in an imitation of the competition's runtime, and check its scores.

    python -m hearback.reading.submission.dry_run --zip demo/submission.zip --data demo/data

`hearback.engine.submission.sandbox` describes the dry run. It scores some of the test recordings; a
few of them get a text that has no reference. The submission is compared row by row with the format
and with the scores of infer.py.
"""

import csv
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.submission.sandbox import (
    TOLERANCE,
    DryRun,
    Sandbox,
    add_arguments,
    check_submission,
    copy_clips,
    evenly_spaced,
    run_here,
    unpack,
)

# Texts that are in no corpus. They only have to be rendered; their scores do not matter.
UNKNOWN_TEXTS = ("seven otters hid my kite", "plonkervidge", "a wug in a tin boat")


@dataclass(frozen=True)
class ReadingSandbox(Sandbox):
    """A sandbox; `unknown` are the filenames of recordings with a text that has no reference."""

    unknown: tuple[str, ...]

    @property
    def submission_format(self) -> Path:
        """The table of the rows that the submission must have."""
        return self.data / "submission_format.csv"


class ReadingDryRun(DryRun[ReadingSandbox]):
    """A dry run of the reading competition's submission."""

    def set_up(self, folder: Path) -> ReadingSandbox:
        """Unpack the zip into a new folder, with some recordings and their tables beside it."""
        runtime, workdir = unpack(
            self.archive, folder, "python -m hearback.reading.submission.pack"
        )
        metadata = _choose_clips(self.data / "test_metadata.csv", self.n_clips)
        texts = UNKNOWN_TEXTS if (runtime / "packages" / "hibari").is_dir() else ()
        if texts:
            known = pd.read_csv(runtime / "tts_data" / "data_paths.csv", dtype=str)["text"]
            if not known[known.isin(texts)].empty:
                raise HearbackError(
                    f"{self.archive}: has references for {', '.join(texts)}; choose other texts"
                )
        metadata.loc[: len(texts) - 1, "expected_text"] = texts
        names = metadata["filename"].tolist()
        damaged = copy_clips(self.data, names, runtime)
        sandbox = ReadingSandbox(runtime, workdir, damaged, tuple(names[: len(texts)]))
        metadata.to_csv(sandbox.data / "test_metadata.csv", index=False)
        # In another order than the metadata: the submission must follow the format.
        metadata[["filename"]][::-1].assign(score=0.0).to_csv(
            sandbox.submission_format, index=False
        )
        return sandbox

    def compare(self, sandbox: ReadingSandbox) -> tuple[list[str], float]:
        """Compare with the format, and with the scores of infer.py in this environment."""
        return compare(sandbox.submission, sandbox.submission_format, score_here(sandbox))

    def describe(self, sandbox: ReadingSandbox) -> str:
        """Return a line with the numbers of rows of each kind."""
        n_rows = len(_read_rows(sandbox.submission_format)) - 1
        return (
            f"{n_rows} rows in the order of the format, {len(sandbox.unknown)} with texts rendered "
            "in the sandbox, one damaged, listed and at its base rate"
        )


def _choose_clips(path: Path, n_clips: int) -> pd.DataFrame:
    """Return evenly spaced rows of a metadata table."""
    if not path.is_file():
        raise HearbackError(f"{path}: not there; set --data to the folder of test recordings")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if len(table) <= len(UNKNOWN_TEXTS):
        raise HearbackError(f"{path}: {len(table)} rows are too few for a dry run")
    return table.iloc[list(evenly_spaced(len(table), n_clips))].reset_index(drop=True)


def score_here(sandbox: ReadingSandbox) -> Path:
    """Run infer.py on the same recordings and folds; return its submission."""
    folder = sandbox.submission_here.parent
    if (sandbox.runtime / "tts_data").is_dir():
        shutil.copytree(sandbox.runtime / "tts_data", folder / "tts_data")
    run_here(
        ["hearback.reading.steps.infer"],
        data=sandbox.data,
        tts_data=folder / "tts_data",
        store=folder / "store",
        assets=sandbox.runtime / "assets",
        config=sandbox.runtime / "model_configs.json",
        submission=sandbox.submission_here,
    )
    return sandbox.submission_here


def compare(submission: Path, submission_format: Path, expected: Path) -> tuple[list[str], float]:
    """Compare a submission row by row with its format and with expected scores.

    Returns the faults and the largest difference of a score.
    """
    faults, largest = [], 0.0
    rows, format_rows, expected_rows = map(_read_rows, (submission, submission_format, expected))
    scores = dict(expected_rows[1:])
    if len(rows) != len(format_rows):
        faults.append(f"{len(rows) - 1} rows, not {len(format_rows) - 1}")
    if rows[:1] != [["filename", "score"]]:
        faults.append(f"header {rows[:1]}, not filename,score")
    for line, (row, format_row) in enumerate(zip(rows[1:], format_rows[1:], strict=False), 2):
        if len(row) != 2 or row[0] != format_row[0]:
            faults.append(f"line {line}: {row}, not the score of {format_row[0]}")
            continue
        score = _as_number(row[1])
        if not 0 <= score <= 1:
            faults.append(f"line {line}: {row[1]!r} is not a probability")
        difference = abs(score - _as_number(scores.get(row[0], "nan")))
        largest = max(largest, difference)
        if not difference <= TOLERANCE:  # also true for NaN
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
    """Parse the command line and do a dry run."""
    parser = cli.parser(__doc__)
    add_arguments(parser, Path("data"))
    arguments = parser.parse_args()
    dry_run = ReadingDryRun(arguments.zip, arguments.data, arguments.clips)
    check_submission(dry_run, arguments.python)


if __name__ == "__main__":
    cli.run(main)
