"""Public corpora, and an embedded sample, in the competition's layout.

Each module is a command: `python -m hearback.reading.corpora.<name> ... data/`. This one holds what they
share: which tables a corpus becomes, and the rule that one corpus never overwrites another's.
"""

import re
from pathlib import Path

import pandas as pd

from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError

METADATA = ["filename", "task", "expected_text", "grade", "speaker"]
LABELS = ["filename", "score"]
TABLES = (
    "train_metadata.csv",
    "train_labels.csv",
    "test_metadata.csv",
    "test_labels.csv",  # for checking a submission afterwards; no step reads it
    "submission_format.csv",
    "provenance.csv",  # how each score came about; for error analysis, never an input
)


def make_way(folder: Path, ours: re.Pattern[str]) -> None:
    """Remove the tables that an earlier build of the same corpus left in `folder`.

    They go before the first recording is written and come back after the last, so that a build
    that is killed leaves no table that speaks of other recordings. `ours` matches the filenames
    that the corpus's builder gives. Raises HearbackError, and removes nothing, where a table names
    any other file: it belongs to another corpus.
    """
    found = [path for name in TABLES if (path := folder / name).exists()]
    foreign = [path for path in found if not _names_only(path, ours)]
    if foreign:
        raise HearbackError(
            f"{', '.join(str(path) for path in foreign)}: of another corpus, and not overwritten. "
            f"Choose another folder, or move what lies in {folder} away first."
        )
    for path in found:
        path.unlink()


def _names_only(path: Path, ours: re.Pattern[str]) -> bool:
    """Return whether this is a table of recordings whose every filename `ours` matches."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):  # pandas' parser and decoding errors are ValueErrors
        return False
    return "filename" in table and all(ours.fullmatch(name) for name in table["filename"])


def write_tables(folder: Path, rows: pd.DataFrame, provenance: list[str]) -> None:
    """Write the tables of `TABLES`, train_metadata.csv last; none of a test half without rows.

    `rows` has a row per recording and the columns `half` ("train" or "test"), those of `METADATA`,
    `score` (0.0 or 1.0), and those that `provenance` names.
    """
    train, test = (rows[rows["half"] == half] for half in ("train", "test"))
    write_table(rows[["filename", "half", *provenance]], folder / "provenance.csv")
    if not test.empty:
        write_table(test[LABELS], folder / "test_labels.csv")
        write_table(test[LABELS].assign(score=0.0), folder / "submission_format.csv")
        write_table(test[METADATA], folder / "test_metadata.csv")
    write_table(train[LABELS], folder / "train_labels.csv")
    write_table(train[METADATA], folder / "train_metadata.csv")
