"""The reading competition's tables: metadata, labels and submission format, read and checked."""

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hearback.engine.data.paths import UNSAFE_FILENAME, leads_out
from hearback.engine.data.problems import Problem, Report, quoted
from hearback.engine.data.tables import check_join, read_table

TASKS = ("deletion", "blending", "nonword_repetition", "sentence_repetition")
GRADES = ("KG", "1", "2", "3")
YOUNGEST = "KG and 1"
AGE_GROUPS = {YOUNGEST: ("KG", "1"), "2 and 3": ("2", "3")}
_GROUP_OF_GRADE = {grade: group for group, grades in AGE_GROUPS.items() for grade in grades}

METADATA_COLUMNS = ("filename", "task", "expected_text", "grade")
LABEL_COLUMNS = ("filename", "score")

# Bytes of UTF-8. A token has at least one byte, so such a text fits in the 448 positions of
# Whisper's decoder. It is also more than a learner can say in the encoder's window of 16 s.
LONGEST_TEXT = 400

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def age_groups(grades: np.ndarray) -> np.ndarray:
    """Return the age group of each grade, (rows,) str; "" for an unknown grade."""
    return np.array([_GROUP_OF_GRADE.get(grade, "") for grade in grades], dtype=str)


def metadata_path(data: Path, split: str) -> Path:
    """Return the path of the metadata of a split, "train" or "test"."""
    return data / f"{split}_metadata.csv"


def read_metadata(path: Path, report: Report) -> pd.DataFrame:
    """Read and check a metadata table.

    Args:
        path: the CSV file.
        report: receives the problems.

    Returns:
        A row per row of the file, including those with problems, so that inference can continue:
        the string columns `filename`, `task`, `expected_text`, `grade` and, if present, `speaker`,
        all stripped, and the int column `line`. Missing columns and texts longer than
        `LONGEST_TEXT` are empty strings. Other columns are dropped.
    """
    table = read_table(path, METADATA_COLUMNS, report, optional=("speaker",))
    frame, present = table.frame, table.columns

    def add(
        wrong: pd.Series, what: str, cure: str, severity: Literal["error", "warning"] = "error"
    ) -> None:
        # Rows with too few or too many fields are reported elsewhere; their columns are unreliable.
        for row in frame[wrong & table.fits].to_dict("records"):
            message = what.format(**{column: quoted(str(value)) for column, value in row.items()})
            filename = row["filename"] or None
            report.add(Problem(str(path), row["line"], message, cure, severity, filename))

    if "filename" in present:
        for row in frame[_matches(UNSAFE_FILENAME, frame["filename"])].to_dict("records"):
            report.add(leads_out(path, row["line"], row["filename"]))
    for column, allowed in (("task", TASKS), ("grade", GRADES)):
        if column in present:
            what = f"unknown {column} {{{column}}}"
            add(~frame[column].isin(allowed), what, f"use one of {', '.join(allowed)}")
    if "expected_text" in present:
        texts = frame["expected_text"]
        fill_in = "fill in the text that the learner was asked to say"
        add(texts == "", "empty expected_text", fill_in)
        too_long = texts.str.encode("utf-8").str.len() > LONGEST_TEXT
        add(
            too_long,
            "expected_text is too long to be said in 16 s",
            f"at most {LONGEST_TEXT} bytes; split the recording",
        )
        wordless = (texts != "") & ~_matches(_LETTER_OR_DIGIT, texts)
        add(wordless, "expected_text {expected_text} has no letter and no digit", fill_in)
        frame["expected_text"] = texts.where(~too_long, "")
    if "speaker" in frame:
        add(
            frame["speaker"] == "",
            "empty speaker; all rows without one count as one speaker",
            "fill in the speaker, or remove the column",
            "warning",
        )
    return frame


def read_labels(path: Path, metadata: pd.DataFrame, report: Report) -> pd.Series:
    """Read the labels of the rows of `metadata`, joined on filename.

    Args:
        path: the CSV file, its rows in any order.
        metadata: the table, from `read_metadata`.
        report: receives the problems.

    Returns:
        `score`, float32, with the index of `metadata`: 0, 1, or NaN if the label is missing or
        invalid. The first of several rows for a recording counts.
    """
    table = read_table(path, LABEL_COLUMNS, report)
    frame = table.frame
    label_of: dict[str, float] = {}
    if table.columns.issuperset(LABEL_COLUMNS):
        frame = frame[table.fits]
        values = {score: _label(score) for score in frame["score"].unique()}
        for row in frame[frame["score"].map(values).isna()].to_dict("records"):
            what = f"the label is {quoted(row['score'])}"
            cure = "a label is 1 (the learner said the expected text) or 0"
            filename = row["filename"] or None
            report.add(Problem(str(path), row["line"], what, cure, filename=filename))
        for filename, score in zip(frame["filename"], frame["score"], strict=True):
            label_of.setdefault(filename, values[score])
        check_join(path, table.frame, metadata, report)
    labels = [label_of.get(filename, np.nan) for filename in metadata["filename"]]
    return pd.Series(labels, index=metadata.index, dtype=np.float32, name="score")


def read_labelled(data: Path, report: Report) -> tuple[pd.DataFrame, np.ndarray]:
    """Read the training table in the folder `data` and its labels, (rows,) float32."""
    metadata = read_metadata(metadata_path(data, "train"), report)
    labels = read_labels(data / "train_labels.csv", metadata, report)
    return metadata, labels.to_numpy()


def read_submission_format(path: Path, metadata: pd.DataFrame, report: Report) -> list[str]:
    """Read the filenames that a submission must list, in order; the scores are placeholders.

    A filename without a metadata row is an error (there is no text to score it by); a metadata row
    that is not listed is a warning.

    Args:
        path: the CSV file.
        metadata: the table, from `read_metadata`.
        report: receives the problems.

    Returns:
        The filenames, without empty ones.
    """
    table = read_table(path, ("filename",), report)
    if "filename" in table.columns:
        check_join(path, table.frame, metadata, report, unlisted="warning")
    return [filename for filename in table.frame["filename"] if filename]


def _matches(pattern: re.Pattern[str], texts: pd.Series) -> pd.Series:
    # Not Series.str.contains: with pyarrow installed, its engine knows only ASCII letters.
    found = [pattern.search(text) is not None for text in texts]
    return pd.Series(found, index=texts.index, dtype=bool)


def _label(score: str) -> float:
    """Return 0.0 or 1.0, or NaN for any other text."""
    try:
        value = float(score)
    except ValueError:
        return np.nan
    return value if value in (0.0, 1.0) else np.nan
