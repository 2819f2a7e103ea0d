"""The recordings and texts to score: one file, a folder of files, or a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from hearback.engine.data.filenames import are_there, nearest_files
from hearback.engine.data.problems import (
    BadInputError,
    Problem,
    Report,
    count_noun,
    quoted,
)
from hearback.engine.data.table_reader import read_header
from hearback.engine.data.tables import column_key, read_table
from hearback.engine.data.text_files import is_unicode, shown_name
from hearback.engine.errors import HearbackError
from hearback.reading.scoring import manifest
from hearback.reading.scoring.paired_files import (
    is_recording_file,
    list_files,
    possible_texts,
    read_one_text,
    report_unused_texts,
)
from hearback.reading.tables import (
    GRADES,
    LONGEST_PASSAGE,
    SYNONYMS,
    TASKS,
    normalize_expected_texts,
    parse_grade,
    parse_task,
    report_unsafe_filenames,
)
from hearback.reading.text_normalizer import APOSTROPHES, CAPITALS, CHARACTERS, PUNCTUATION

REQUIRED = ("filename", "expected_text")
TEXT = "text"  # the name of an expected text here, for users
OPTIONAL = ("grade", "task", "speaker")
COLUMNS = (*REQUIRED, *OPTIONAL)

# Other names that a table's columns may have, most likely first. Grade and task have none: a column
# "class" may hold anything.
_NAMES: dict[str, tuple[str, ...]] = {
    **{column: SYNONYMS[column] for column in REQUIRED},
    **{"grade": (), "task": (), "speaker": ("speaker_id",)},
}
_SYNONYMS = {**_NAMES, TEXT: ("expected_text", *_NAMES["expected_text"])}
# Texts are sentences, as people write them.
USUAL_CHANGES = (CAPITALS, PUNCTUATION, APOSTROPHES, CHARACTERS)


@dataclass(frozen=True)
class Inputs:
    """Recordings and texts to score.

    Attributes:
        origin: the table, the folder, or the one recording, that messages name.
        folder: the folder that filenames are relative to.
        frame: a row per recording with the string columns `filename`, `written_text`,
            `expected_text` (as words; "" if it cannot be read), `grade`, `task` and `speaker`
            ("" if unknown), and `line` (None where there is no table).
        notes: lines about how the input was understood.
        durations: in s, by filename, where a manifest tells them.
        is_table: whether `origin` is a table.
    """

    origin: Path
    folder: Path
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    durations: Mapping[str, float] = field(default_factory=dict)
    is_table: bool = False


def read_inputs(
    path: Path,
    text: str | None,
    report: Report,
    *,
    grade: str = "",
    task: str = "",
    data: Path | None = None,
) -> Inputs:
    """Read what `score.py` is given: a recording and its text, a folder, or a table.

    Problems of rows go into the report. `grade` and `task` are those of a recording or of all
    recordings of a folder; `data` is the folder of a table's recordings. Raises HearbackError if
    there is nothing to score, and BadInputError for a table that cannot be read.
    """
    if not is_unicode(str(path)):
        raise HearbackError(f"{shown_name(str(path))}: the name is no UTF-8; rename it")
    if not path.exists():
        near = are_there(nearest_files(path))
        cure = "name a recording, a folder of recordings, or a table"
        raise HearbackError(
            "; ".join(filter(None, (f"{path}: no such file or folder", near, cure)))
        )
    grade = check_allowed("grade", grade, GRADES, parse_grade(grade))
    task = check_allowed("task", task, TASKS, parse_task(task))
    is_recording = not path.is_dir() and not _is_table(path) and is_recording_file(path)
    if text is not None and path.is_dir():
        raise HearbackError(
            f"{path}: --text is for one recording; in a folder, put each text beside its "
            "recording (clip.wav, clip.txt)"
        )
    if text is not None and _is_table(path):
        raise HearbackError(f"{path}: --text is for a recording, and this is a table: leave it out")
    is_table = not path.is_dir() and text is None and not is_recording
    if data is not None and not is_table:
        raise HearbackError(f"--data {data}: is for a table; {path} is none")
    if path.is_dir():
        return read_folder(path, report, grade=grade, task=task)
    if not is_table:
        return _read_recording(path, text, report, grade=grade, task=task)
    if grade or task:
        raise HearbackError(f"{path}: for a table, put grade and task into its columns")
    return read_score_table(path, report, data)


def check_allowed(what: str, value: str, allowed: Sequence[str], parsed: str) -> str:
    """Return `parsed`, "" for an empty `value`; raise HearbackError if it is not allowed."""
    if value and parsed not in allowed:
        raise HearbackError(f"unknown {what} {quoted(value)}: use one of {', '.join(allowed)}")
    return parsed if value else ""


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl")


def _read_recording(
    path: Path, text: str | None, report: Report, *, grade: str, task: str
) -> Inputs:
    """Return one recording with its text, from the command line or from the file beside it."""
    path = path.absolute()  # not resolved: the text is beside a link, not beside its target
    name = TEXT if text is None else "--text"
    if text is None:
        beside = [path.with_name(name) for name in possible_texts(path.name)]
        found = [each for each in beside if each.is_file()]
        if not found:
            raise HearbackError(
                f'{path.name}: which text was read? Add --text "the words", or put them into '
                f"{beside[0].name} beside it"
            )
        text = read_one_text(found, path.name, path, report)
    rows = [(path.name, text, grade, task, "")]
    return _of_files(path, path.parent, rows, report, name)


def read_folder(folder: Path, report: Report, *, grade: str = "", task: str = "") -> Inputs:
    """Return the recordings below a folder, each with the text beside it (`.txt` or `.lab`).

    Recordings without a text, and texts without a recording, are reported. Raises HearbackError if
    there is no pair.
    """
    listing = list_files(folder, report)
    rows: list[tuple[str, str | None, str, str, str]] = []
    for name in listing.recordings:
        # Another recording of the same name, such as clip.mp3, may have the same text.
        found = listing.texts_of(name)
        text = None
        if found:
            text = read_one_text([folder / each for each in found], name, folder, report)
        else:
            what = "the recording has no text beside it"
            stem = Path(name).stem
            cure = f"put the words into {stem}.txt (or {stem}.lab) in the same folder"
            report.add(Problem(str(folder), None, what, cure, filename=name))
        rows.append((name, text, grade, task, ""))
    report_unused_texts(folder, listing, report)
    if not any(map(listing.texts_of, listing.recordings)):
        raise HearbackError(_describe_no_pair(folder, listing.recordings, list(listing.texts)))
    return _of_files(folder, folder, rows, report)


def _describe_no_pair(folder: Path, recordings: Sequence[str], texts: Sequence[str]) -> str:
    """Return the message for a folder in which no recording has a text."""
    tables = sorted(each.name for each in folder.iterdir() if _is_table(each))
    if not recordings:
        what = f"{folder}: no recording there"
        if texts:
            what += f", only {count_noun(len(texts), 'text')}"
        return f"{what}; put clip.wav beside clip.txt, or name the folder that has them"
    n = len(recordings)
    of_which = "its recording has no" if n == 1 else f"none of its {n} recordings has a"
    what = f"{folder}: {of_which} text beside it"
    cure = "put the words of clip.wav into clip.txt (or clip.lab)"
    if tables:
        cure += f", or name the table: {folder / tables[0]}"
    return f"{what}; {cure}"


def _of_files(
    origin: Path,
    folder: Path,
    rows: Sequence[tuple[str, str | None, str, str, str]],
    report: Report,
    name: str = TEXT,
) -> Inputs:
    """Return the inputs of files in a folder; a text is None if its problem is in the report.

    `origin` is the folder or one recording, and `name` what texts are called, for messages.
    """
    frame = pd.DataFrame(rows, columns=["filename", "written_text", "grade", "task", "speaker"])
    has_text = frame["written_text"].notna()
    frame["written_text"] = frame["written_text"].fillna("").astype(str)
    frame["line"] = pd.Series([None] * len(frame), dtype=object)
    # Texts of their own files are no column: a missing one has been reported.
    frame["expected_text"] = normalize_expected_texts(
        origin, frame, has_text, report, USUAL_CHANGES, longest=LONGEST_PASSAGE, name=name
    )
    _check_context(origin, frame, report)
    return Inputs(origin, folder, frame)


def read_score_table(path: Path, report: Report, folder: Path | None = None) -> Inputs:
    """Read a table of recordings and texts; filenames are relative to its folder, or to `folder`.

    Its columns are `filename` and `text` or `expected_text`, and perhaps grade, task and speaker.
    It is CSV, or JSON lines, such as NeMo's manifests, whose paths may be absolute. Raises
    BadInputError if the table or a column that is needed cannot be read.
    """
    columns = _read_columns(path)
    names = _choose_columns(columns)
    required = [names.get("filename", "filename"), names.get("expected_text", TEXT)]
    optional = [names[column] for column in OPTIONAL if column in names]
    table = read_table(path, required, report, [*optional, manifest.DURATION], synonyms=_SYNONYMS)
    if report.table_errors:
        raise BadInputError(report)
    own = {name: column for column, name in names.items()}
    frame = table.frame.rename(columns=own).rename(columns={"expected_text": "written_text"})
    notes, durations = [], {}
    if table.is_json:
        folder, frame["filename"] = manifest.locate(frame["filename"].tolist(), path, folder)
        notes.append(f"{path}: read as JSON lines; its recordings are in {folder}")
        if manifest.DURATION in table.columns:
            durations = manifest.read_durations(path, frame[table.fits], report)
    frame = frame.drop(columns=manifest.DURATION, errors="ignore")
    report_unsafe_filenames(path, frame, report)
    frame["expected_text"] = normalize_expected_texts(
        path,
        frame,
        table.fits,
        report,
        USUAL_CHANGES,
        longest=LONGEST_PASSAGE,
        name=names["expected_text"],
    )
    for column in OPTIONAL:
        if column not in frame:
            frame[column] = ""
    _check_context(path, frame, report)
    shown = {"expected_text": TEXT}
    notes += [
        f"{path}: its column {quoted(name)} is read as {shown.get(column, column)}"
        for column, name in names.items()
        if column_key(name) != column_key(column) and name != "text"
    ]
    other = columns.get(TEXT)
    if other not in (None, names["expected_text"]):
        chosen = quoted(names["expected_text"])
        notes.append(f"{path}: its column {quoted(str(other))} is not used, {chosen} is the text")
    folder = path.parent if folder is None else folder
    return Inputs(path, folder, frame, tuple(notes), durations, is_table=True)


def _read_columns(path: Path) -> dict[str, str]:
    """Return the names in a table's header, by their `column_key`."""
    own = {column_key(column) for column in COLUMNS}
    others = {column_key(name) for column in COLUMNS for name in _NAMES[column]}

    def count(header: Sequence[str]) -> int:
        keys = {column_key(name) for name in header}
        return 100 * len(own & keys) + len(others & keys)

    fields: dict[str, str] = {}
    for name in read_header(path, count):
        fields.setdefault(column_key(name), name)
    return fields


def _choose_columns(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the table's own name of each of `COLUMNS` that it has, under any of its names.

    `fields` are those of `_read_columns`.
    """
    chosen: dict[str, str] = {}
    for column in COLUMNS:
        for name in (column, *_NAMES[column]):
            found = fields.get(column_key(name))
            if found is not None and found not in chosen.values():
                chosen[column] = found
                break
    return chosen


def _check_context(origin: Path, frame: pd.DataFrame, report: Report) -> None:
    """Read grades and tasks in any spelling; unknown ones are reported and left out."""
    allowed: dict[str, tuple[tuple[str, ...], Any]] = {
        "grade": (GRADES, parse_grade),
        "task": (TASKS, parse_task),
    }
    for column, (values, parse) in allowed.items():
        parsed = [parse(value) if value else "" for value in frame[column]]
        for at, value in enumerate(parsed):
            if value and value not in values:
                row = frame.iloc[at]
                what = f"unknown {column} {quoted(value)}, scored without it"
                cure = f"use one of {', '.join(values)}, or leave it empty"
                line, name = row["line"], row["filename"] or None
                report.add(Problem(str(origin), line, what, cure, "warning", name))
                parsed[at] = ""
        frame[column] = parsed
