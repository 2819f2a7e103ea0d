"""The reading competition's tables: metadata, labels and submission format, read and checked."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hearback.engine.data import corrections
from hearback.engine.data.corrections import Corrections, LabelledTable
from hearback.engine.data.filenames import portable
from hearback.engine.data.paths import UNSAFE_FILENAME, leads_out
from hearback.engine.data.problems import Problem, Report, place_of, quoted
from hearback.engine.data.table_rows import FORMULA_CURE, is_formula
from hearback.engine.data.tables import check_join, read_table
from hearback.engine.data.text_files import is_unicode, shown_name
from hearback.reading import step_command
from hearback.reading.text_language import report_other_language
from hearback.reading.text_normalizer import (
    CHANGED_CURE,
    DECODING_CURE,
    NormalizedText,
    UnspeakableTextError,
    describe_changes,
    normalize_text,
)

TASKS = ("deletion", "blending", "nonword_repetition", "sentence_repetition")
GRADES = ("KG", "1", "2", "3")
YOUNGEST = "KG and 1"
AGE_GROUPS = {YOUNGEST: ("KG", "1"), "2 and 3": ("2", "3")}
_GROUP_OF_GRADE = {grade: group for group, grades in AGE_GROUPS.items() for grade in grades}

METADATA_COLUMNS = ("filename", "task", "expected_text", "grade")
LABEL_COLUMNS = ("filename", "score")
LABELS = {0: "0", 1: "1"}  # with their names in messages

# Other names of the columns, most likely first: an error suggests to rename them.
SYNONYMS = {
    "filename": (
        *("file", "path", "audio", "clip", "recording", "wav", "audio_file", "audio_path"),
        *("audio_filename", "audio_filepath", "file_path", "clip_path", "wav_path", "name", "id"),
    ),
    "task": ("task_type", "task_name", "type", "exercise", "category"),
    "expected_text": (
        *("text", "sentence", "transcript", "prompt", "transcription", "expected", "target_text"),
        *("reference_text", "reference", "phrase", "word", "words", "utterance", "target"),
    ),
    "grade": ("level", "grade_level", "school_year", "class", "year"),
    "score": ("label", "class", "target", "correct", "is_correct", "labels", "y"),
}

# How tables write a grade: K, Kindergarten, 1st, First, Grade 1, 1st grade, G1, and a
# spreadsheet's 1.0.
_NAMES_OF_GRADES = {
    "KG": r"kg?|kinder|kindergarten",
    "1": r"1(?:[.,]0+)?|1st|one|first",
    "2": r"2(?:[.,]0+)?|2nd|two|second",
    "3": r"3(?:[.,]0+)?|3rd|three|third",
}
_GRADE_PATTERNS = {
    grade: re.compile(rf"(?:(?:grade|gr|g)[\s._-]*)?(?:{names})(?:[\s._-]*(?:grade|gr))?\.?")
    for grade, names in _NAMES_OF_GRADES.items()
}

# Bytes of UTF-8. A token has at least one byte, so such a text fits in the 448 positions of
# Whisper's decoder. It is also more than a learner can say in the encoder's window of 16 s.
LONGEST_TEXT = 400
LONGEST_PASSAGE = 20_000  # bytes, of a text whose recording is scored in several windows

_MISSING_VALUES = frozenset({"nan", "null", "<na>", "#n/a", "n/a"})  # as programs export them
_FILL_IN = "fill in the text that the learner was asked to say"


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
        A row per row of the file, including those with problems, so that inference can continue.
        String columns, stripped: `filename` (as in the file), `task` and `grade` (one of `TASKS`
        and `GRADES`, or as in the file if unknown), `expected_text` (as the words that a reader
        says: `text_normalizer`), `written_text` (as in the file) and, if present, `speaker`; and
        the int column `line`. Missing columns, texts longer than `LONGEST_TEXT` and texts that can
        be read in several ways are empty strings. Other columns are dropped.
    """
    table = read_table(path, METADATA_COLUMNS, report, optional=("speaker",), synonyms=SYNONYMS)
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
        report_unsafe_filenames(path, frame, report)
    for column, allowed, parse in (("task", TASKS, parse_task), ("grade", GRADES, parse_grade)):
        if column in present:
            values = {value: parse(value) for value in frame[column].unique()}
            frame[column] = frame[column].map(values).astype(str)
            what = f"unknown {column} {{{column}}}"
            cure = f"use one of {', '.join(allowed)}"
            is_empty = frame[column] == ""
            add(is_empty, f"empty {column}", cure)
            add(~frame[column].isin(allowed) & ~is_empty, what, cure)
    frame["written_text"] = frame["expected_text"]
    if "expected_text" in present:
        frame["expected_text"] = normalize_expected_texts(path, frame, table.fits, report)
    if "speaker" in frame:
        add(
            frame["speaker"] == "",
            "empty speaker; all rows without one count as one speaker",
            "fill in the speaker, or remove the column",
            "warning",
        )
    return frame


def labels_path(data: Path) -> Path:
    """Return the path of the training labels in the folder `data`."""
    return data / "train_labels.csv"


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
    table = read_table(path, LABEL_COLUMNS, report, synonyms=SYNONYMS)
    frame = table.frame
    label_of: dict[str, float] = {}
    if table.columns.issuperset(LABEL_COLUMNS):
        frame = frame[table.fits]
        values = {score: _label(score) for score in frame["score"].unique()}
        for row in frame[frame["score"].map(values).isna()].to_dict("records"):
            what = f"the label is {quoted(row['score'])}"
            cure = "a label is 1 (the learner said the expected text) or 0, or true or false"
            filename = row["filename"] or None
            report.add(Problem(str(path), row["line"], what, cure, filename=filename))
        match_of = check_join(path, table.frame, metadata, report)
        for filename, score in zip(frame["filename"], frame["score"], strict=True):
            label_of.setdefault(match_of.get(filename, filename), values[score])
    labels = [label_of.get(filename, np.nan) for filename in metadata["filename"]]
    return pd.Series(labels, index=metadata.index, dtype=np.float32, name="score")


def read_labelled(data: Path, report: Report) -> tuple[pd.DataFrame, np.ndarray]:
    """Read the training table in the folder `data` and its labels, (rows,) float32."""
    metadata = read_metadata(metadata_path(data, "train"), report)
    labels = read_labels(labels_path(data), metadata, report)
    return metadata, labels.to_numpy()


def read_corrections(
    path: Path | None, data: Path, metadata: pd.DataFrame, labels: np.ndarray, report: Report
) -> Corrections:
    """Read the corrections of the training table of `read_labelled`; none without a path.

    A label may also be "said" or "not said". A recording that is left out may have any problem:
    those that are in `report` are removed.
    """

    def parse(written: str) -> float:
        return {"not said": 0.0, "said": 1.0}.get(written.casefold(), _label(written))

    filenames = metadata["filename"].tolist()
    table = LabelledTable(labels_path(data), filenames, labels, LABELS, parse)
    found = corrections.read_corrections(path, table, report)
    found.discard_problems(report)
    return found


def read_submission_format(path: Path, metadata: pd.DataFrame, report: Report) -> list[str]:
    """Read the filenames that a submission must list, in order; the scores are placeholders.

    A filename without a metadata row is an error (there is no text to score it by); a metadata row
    that is not listed is a warning.

    Args:
        path: the CSV file.
        metadata: the table, from `read_metadata`.
        report: receives the problems.

    Returns:
        The filenames as written, without empty ones. `match_names` gives the metadata's filename
        of one that is spelled otherwise there.
    """
    table = read_table(path, ("filename",), report, synonyms=SYNONYMS)
    if "filename" in table.columns:
        check_join(path, table.frame, metadata, report, unlisted="warning")
    return [filename for filename in table.frame["filename"] if filename]


def report_unsafe_filenames(path: Path, frame: pd.DataFrame, report: Report) -> None:
    """Report the rows of a table whose `filename` leads out of the data folder."""
    names = frame["filename"].map(portable)
    for row in frame[_matches(UNSAFE_FILENAME, names)].to_dict("records"):
        report.add(leads_out(path, row["line"], row["filename"], path.parent))


def normalize_expected_texts(
    path: Path,
    frame: pd.DataFrame,
    fits: pd.Series,
    report: Report,
    usual_changes: Collection[str] = (),
    *,
    longest: int = LONGEST_TEXT,
    name: str = "expected_text",
) -> pd.Series:
    """Return the texts of `written_text` as the words that a reader says, "" for invalid ones.

    Reports each invalid text, and once for the file how many were changed, with the place of the
    first one and three examples, and how many look like another language than English.
    `usual_changes` are kinds of changes that are not worth a mention; `longest` and `name` as in
    `normalize_expected_text`.
    """
    spoken: list[str] = []
    changed: list[tuple[str, NormalizedText]] = []
    first = ""  # place of the first of them
    columns = (frame["filename"], frame["line"].tolist(), frame["written_text"], fits)
    for filename, line, written, row_fits in zip(*columns, strict=True):
        try:
            normalized = normalize_expected_text(written, longest, name)
        except UnspeakableTextError as error:
            spoken.append("")
            # Rows with too few or too many fields are reported elsewhere.
            if row_fits:
                where = (str(path), line, str(error), error.cure)
                report.add(Problem(*where, filename=filename or None, status=error.status))
            continue
        spoken.append(normalized.text)
        if not row_fits:
            continue
        if not set(normalized.changes) <= set(usual_changes):
            changed.append((written, normalized))
            first = first or place_of(line, filename)
        if normalized.is_suspicious:
            what = f"{name} {quoted(written)} may have wrongly decoded characters"
            report.add(Problem(str(path), line, what, DECODING_CURE, "warning", filename or None))
        if written.casefold() in _MISSING_VALUES:
            what = f"{name} {quoted(written)} is scored as a word, but may be a missing value"
            report.add(Problem(str(path), line, what, _FILL_IN, "warning", filename or None))
    if changed:
        what = describe_changes(changed, len(frame), first)
        report.add(Problem(str(path), None, what, CHANGED_CURE, "warning"))
    checked = [text if row_fits else "" for text, row_fits in zip(spoken, fits, strict=True)]
    report_other_language(path, frame, checked, report)
    return pd.Series(spoken, index=frame.index, dtype=str)


def normalize_expected_text(
    written: str, longest: int = LONGEST_TEXT, name: str = "expected_text"
) -> NormalizedText:
    """Return an expected text as the words that a reader says.

    `name` is what the user calls it, such as its column, for messages. Raises
    UnspeakableTextError, also for a text that is empty or of more than `longest` bytes.
    """
    if not written:
        raise UnspeakableTextError(f"empty {name}", _FILL_IN)
    if is_formula(written):
        what = f"{name}: {quoted(written)} is a formula or an error of a spreadsheet, not a value"
        raise UnspeakableTextError(what, FORMULA_CURE)
    if not is_unicode(written):
        raise UnspeakableTextError(f"{name} is no UTF-8: {shown_name(written)}", "write it again")
    if len(written.encode()) > longest:
        raise _too_long(longest, name)
    try:
        normalized = normalize_text(written)
    except UnspeakableTextError as error:
        raise UnspeakableTextError(f"{name}: {error}", error.cure) from None
    if not normalized.text:
        what = f"{name} {quoted(written)} has no letter and no digit"
        raise UnspeakableTextError(what, _FILL_IN)
    if len(normalized.text.encode()) > longest:
        raise _too_long(longest, name)
    return normalized


def _too_long(longest: int, name: str) -> UnspeakableTextError:
    what = f"{name} has over {longest} bytes"
    cure = "split the recording and its text"
    if longest < LONGEST_PASSAGE:
        cure += f"; {step_command('score')} scores passages of minutes"
    return UnspeakableTextError(what, cure, "too_long")


def _matches(pattern: re.Pattern[str], texts: pd.Series) -> pd.Series:
    # Not Series.str.contains: with pyarrow installed, its engine knows only ASCII letters.
    found = [pattern.search(text) is not None for text in texts]
    return pd.Series(found, index=texts.index, dtype=bool)


def parse_task(value: str) -> str:
    """Return the task that is written in another way ("Sentence Repetition"), or the value."""
    task = re.sub(r"[\W_]+", "", value.casefold())
    return next((known for known in TASKS if known.replace("_", "") == task), value)


def parse_grade(value: str) -> str:
    """Return the grade that is written in another way ("1st grade"), or the value."""
    written = " ".join(value.casefold().split())
    matches = [grade for grade, names in _GRADE_PATTERNS.items() if names.fullmatch(written)]
    return matches[0] if matches else value


def _label(score: str) -> float:
    """Return 0.0 or 1.0, or NaN for any other text; a comma may stand for the decimal point."""
    if (word := score.casefold()) in ("true", "false"):
        return float(word == "true")
    try:
        value = float(score.replace(",", ".", 1))
    except ValueError:
        return np.nan
    return value if value in (0.0, 1.0) else np.nan
