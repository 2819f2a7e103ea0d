"""From a model's probability to how often the learner did say the text.

A calibration is fitted on out-of-fold predictions. None of those here changes the order in which
the recordings of one age group are ranked (`isotonic` may make some of them equal).
"""

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hearback.engine.data.paths import _UNSAFE_FILENAME, leads_out
from hearback.engine.data.problems import Problem, Report, quoted
from hearback.engine.data.tables import _check_join, read_table

AGE_GROUPS = {"KG and 1": ("KG", "1"), "2 and 3": ("2", "3")}
YOUNGEST = "KG and 1"
_GROUP_OF_GRADE = {grade: group for group, grades in AGE_GROUPS.items() for grade in grades}


TASKS = ("deletion", "blending", "nonword_repetition", "sentence_repetition")
GRADES = ("KG", "1", "2", "3")

METADATA_COLUMNS = ("filename", "task", "expected_text", "grade")
LABEL_COLUMNS = ("filename", "score")

# Bytes of UTF-8. A Whisper's decoder reads 448 tokens, none of them shorter than a byte, and in the
# 16 s that the encoder hears nobody says so much.
LONGEST_TEXT = 400

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def age_groups(grades: np.ndarray) -> np.ndarray:
    """Return the age group of each of (rows,) grades, (rows,) str; "" for an unknown grade."""
    return np.array([_GROUP_OF_GRADE.get(grade, "") for grade in grades], dtype=str)


def metadata_path(data: Path, split: str) -> Path:
    """Return where the metadata of "train" or "test" lies in the data folder."""
    return data / f"{split}_metadata.csv"


def read_metadata(path: Path, report: Report) -> pd.DataFrame:
    """Read and check a metadata table.

    Returns a row per row of the file, also of those with problems, so that inference can go on:
    the string columns `filename`, `task`, `expected_text`, `grade` and, where the file has it,
    `speaker`, all stripped, and the int column `line`. A column that is missing is empty strings,
    and so is a text that is longer than `LONGEST_TEXT`: nobody is to render it. Other columns are
    left out. Problems go into `report`.
    """
    table = read_table(path, METADATA_COLUMNS, report, optional=("speaker",))
    frame, there = table.frame, table.columns_there

    def add(
        wrong: pd.Series, what: str, cure: str, severity: Literal["error", "warning"] = "error"
    ) -> None:
        # What stands in which column is a guess in a row with too few or too many fields, and
        # that has been reported.
        for row in frame[wrong & table.fits].to_dict("records"):
            said = what.format(**{column: quoted(str(value)) for column, value in row.items()})
            filename = row["filename"] or None
            report.add(Problem(str(path), row["line"], said, cure, severity, filename))

    if "filename" in there:
        for row in frame[_matches(_UNSAFE_FILENAME, frame["filename"])].to_dict("records"):
            report.add(leads_out(path, row["line"], row["filename"]))
    for column, allowed in (("task", TASKS), ("grade", GRADES)):
        if column in there:
            what = f"unknown {column} {{{column}}}"
            add(~frame[column].isin(allowed), what, f"use one of {', '.join(allowed)}")
    if "expected_text" in there:
        texts = frame["expected_text"]
        asked = "say what the learner was asked to say"
        add(texts == "", "empty expected_text", asked)
        too_long = texts.str.encode("utf-8").str.len() > LONGEST_TEXT
        add(
            too_long,
            "an expected_text that nobody can say in 16 s",
            f"at most {LONGEST_TEXT} bytes; split the recording",
        )
        wordless = (texts != "") & ~_matches(_LETTER_OR_DIGIT, texts)
        add(wordless, "expected_text {expected_text} has no letter and no digit", asked)
        frame["expected_text"] = texts.where(~too_long, "")
    if "speaker" in frame:
        add(
            frame["speaker"] == "",
            "empty speaker; all rows without one count as one speaker",
            "say who speaks, or leave the column out",
            "warning",
        )
    return frame


def read_labels(path: Path, metadata: pd.DataFrame, report: Report) -> pd.Series:
    """Read the labels of `metadata`'s rows, joined on filename, in whatever order they stand.

    Returns `score`, float32, with `metadata`'s index: 0.0, 1.0, or NaN where the label is missing
    or is neither; of two rows for one recording, the first counts. Problems go into `report`.
    """
    table = read_table(path, LABEL_COLUMNS, report)
    frame = table.frame
    label_of: dict[str, float] = {}
    if table.columns_there.issuperset(LABEL_COLUMNS):
        frame = frame[table.fits]
        values = {score: _label(score) for score in frame["score"].unique()}
        for row in frame[frame["score"].map(values).isna()].to_dict("records"):
            what = f"the label is {quoted(row['score'])}"
            cure = "a label is 1 (the learner said the expected text) or 0"
            filename = row["filename"] or None
            report.add(Problem(str(path), row["line"], what, cure, filename=filename))
        for filename, score in zip(frame["filename"], frame["score"], strict=True):
            label_of.setdefault(filename, values[score])
        _check_join(path, table.frame, metadata, report)
    labels = [label_of.get(filename, np.nan) for filename in metadata["filename"]]
    return pd.Series(labels, index=metadata.index, dtype=np.float32, name="score")


def read_submission_format(path: Path, metadata: pd.DataFrame, report: Report) -> list[str]:
    """Read which filenames a submission must list, in which order; the scores are placeholders.

    Returns the filenames as they stand, less the empty ones. A filename without a metadata row is
    an error (nothing is known to score it by), a metadata row that is not listed a warning.
    Problems go into `report`.
    """
    table = read_table(path, ("filename",), report)
    if "filename" in table.columns_there:
        _check_join(path, table.frame, metadata, report, unlisted="warning")
    return [filename for filename in table.frame["filename"] if filename]


def _matches(pattern: re.Pattern[str], texts: pd.Series) -> pd.Series:
    # Not Series.str.contains: where pyarrow is installed its engine knows only ASCII letters.
    found = [pattern.search(text) is not None for text in texts]
    return pd.Series(found, index=texts.index, dtype=bool)


def _label(score: str) -> float:
    """Return 0.0 or 1.0, or NaN for any other text."""
    try:
        value = float(score)
    except ValueError:
        return np.nan
    return value if value in (0.0, 1.0) else np.nan
