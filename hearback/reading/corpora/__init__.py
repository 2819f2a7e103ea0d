"""Public corpora, and an embedded sample, in the competition's layout.

The commands `python -m hearback.reading.corpora.sample` and `….speechocean762` write a corpus. This
module has their shared parts: writing the tables, and the check that a corpus does not overwrite
another one.
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
    "train_words.csv",  # labels of words; optional
    "test_metadata.csv",
    "test_labels.csv",  # to evaluate a submission; not read by any step
    "submission_format.csv",
    "provenance.csv",  # the origin of each score, for error analysis; never an input
)


def remove_tables(folder: Path, filename: re.Pattern[str]) -> None:
    """Remove the tables of an earlier build of the same corpus from `folder`.

    Call it before the first recording is written: a killed build must not leave tables of other
    recordings. `filename` matches the corpus's filenames. If a table lists any other file, it
    belongs to another corpus: HearbackError is raised and nothing is removed.
    """
    found = [path for name in TABLES if (path := folder / name).exists()]
    foreign = [path for path in found if not _lists_only(path, filename)]
    if foreign:
        raise HearbackError(
            f"{', '.join(map(str, foreign))}: belongs to another corpus, not overwritten. "
            f"Choose another folder, or move the content of {folder} away first."
        )
    for path in found:
        path.unlink()


def _lists_only(path: Path, filename: re.Pattern[str]) -> bool:
    """Return whether this is a table of recordings that all match `filename`."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):  # pandas' parser and decoding errors are ValueErrors
        return False
    return "filename" in table and all(filename.fullmatch(name) for name in table["filename"])


def write_tables(
    folder: Path, rows: pd.DataFrame, provenance: list[str], words: pd.DataFrame | None = None
) -> None:
    """Write `TABLES`, train_metadata.csv last; no test tables if the test half is empty.

    `rows` has a row per recording and the columns `half` ("train" or "test"), those of `METADATA`,
    `score` (0.0 or 1.0), and those of `provenance`. `words` are the labels of the words of the
    training half, as `word_label_table` reads them; None: the corpus has none.
    """
    train, test = (rows[rows["half"] == half] for half in ("train", "test"))
    write_table(rows[["filename", "half", *provenance]], folder / "provenance.csv")
    if not test.empty:
        write_table(test[LABELS], folder / "test_labels.csv")
        write_table(test[LABELS].assign(score=0.0), folder / "submission_format.csv")
        write_table(test[METADATA], folder / "test_metadata.csv")
    if words is not None:
        write_table(words, folder / "train_words.csv")
    write_table(train[LABELS], folder / "train_labels.csv")
    write_table(train[METADATA], folder / "train_metadata.csv")
