"""The recordings and texts to score: one file, a folder of files, or a table."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hearback.engine.data.csv_reader import choose_separator, read_rows, read_text
from hearback.engine.data.filenames import RECORDING_SUFFIXES
from hearback.engine.data.problems import BadInputError, Problem, Report, quoted
from hearback.engine.data.tables import column_key, read_table
from hearback.engine.errors import HearbackError
from hearback.reading.tables import (
    GRADES,
    LONGEST_PASSAGE,
    SYNONYMS,
    TASKS,
    parse_grade,
    parse_task,
    report_unsafe_filenames,
    spoken_texts,
)
from hearback.reading.text_normalizer import APOSTROPHES, CAPITALS, CHARACTERS, PUNCTUATION

TEXT_SUFFIXES = (".txt", ".lab")  # of the text beside a recording
REQUIRED = ("filename", "expected_text")
OPTIONAL = ("grade", "task", "speaker")
COLUMNS = (*REQUIRED, *OPTIONAL)

# Other names that a table's columns may have, most likely first. Grade and task have none: a column
# "class" may hold anything.
_NAMES: dict[str, tuple[str, ...]] = {
    **{column: SYNONYMS[column] for column in REQUIRED},
    **{"grade": (), "task": (), "speaker": ("speaker_id",)},
}
# Texts are sentences, as people write them.
USUAL_CHANGES = (CAPITALS, PUNCTUATION, APOSTROPHES, CHARACTERS)
_LARGEST_TEXT = 1 << 20  # bytes of a file with one text


@dataclass(frozen=True)
class Inputs:
    """Recordings and texts to score.

    Attributes:
        origin: the table, or the folder, that messages name.
        folder: the folder that filenames are relative to.
        frame: a row per recording with the string columns `filename`, `written_text`,
            `expected_text` (as words; "" if it cannot be read), `grade`, `task` and `speaker`
            ("" if unknown), and `line` (None where there is no table).
        notes: lines about how the input was understood.
    """

    origin: Path
    folder: Path
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


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
    if not path.exists():
        raise HearbackError(
            f"{path}: no such file or folder; name a recording, a folder of recordings, or a table"
        )
    grade = known("grade", grade, GRADES, parse_grade(grade))
    task = known("task", task, TASKS, parse_task(task))
    is_recording = path.suffix.lower() in RECORDING_SUFFIXES
    if text is not None and path.is_dir():
        raise HearbackError(
            f"{path}: --text is for one recording; in a folder, put each text beside its "
            "recording (clip.wav, clip.txt)"
        )
    if text is not None and not is_recording and _is_table(path):
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


def known(what: str, value: str, allowed: Sequence[str], parsed: str) -> str:
    """Return `parsed`, "" for an empty `value`; raise HearbackError if it is not allowed."""
    if value and parsed not in allowed:
        raise HearbackError(f"unknown {what} {quoted(value)}: use one of {', '.join(allowed)}")
    return parsed if value else ""


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def _read_recording(
    path: Path, text: str | None, report: Report, *, grade: str, task: str
) -> Inputs:
    """Return one recording with its text, from the command line or from the file beside it."""
    path = path.absolute()  # not resolved: the text is beside a link, not beside its target
    if text is None:
        beside = [path.with_suffix(suffix) for suffix in TEXT_SUFFIXES]
        found = [each for each in beside if each.is_file()]
        if not found:
            raise HearbackError(
                f'{path.name}: which text was read? Add --text "the words", or put them into '
                f"{beside[0].name} beside it"
            )
        text = _read_one_text(found, path.name, path.parent, report)
    rows = [(path.name, text, grade, task, "")]
    return _of_files(path.parent, rows, report)


def read_folder(folder: Path, report: Report, *, grade: str = "", task: str = "") -> Inputs:
    """Return the recordings below a folder, each with the text beside it (`.txt` or `.lab`).

    Recordings without a text, and texts without a recording, are reported. Raises HearbackError if
    there is no pair.
    """
    recordings, texts = _list_files(folder)
    rows: list[tuple[str, str | None, str, str, str]] = []
    for name in recordings:
        found = texts.pop(_stem(name), [])
        if not found:
            what = "the recording has no text beside it"
            stem = Path(name).stem
            cure = f"put the words into {stem}.txt (or {stem}.lab) in the same folder"
            report.add(Problem(str(folder), None, what, cure, filename=name))
            rows.append((name, None, grade, task, ""))
            continue
        text = _read_one_text([folder / each for each in found], name, folder, report)
        rows.append((name, text, grade, task, ""))
        # Another recording of the same name, such as clip.mp3, may have the same text.
        texts.setdefault(_stem(name), found)
    used = {_stem(name) for name in recordings}
    for stem, found in texts.items():
        if stem not in used:
            what = "the text has no recording beside it"
            cure = "put the recording of the same name there, or remove the text"
            report.add(Problem(str(folder), None, what, cure, "warning", found[0]))
    if all(text is None for _, text, *_ in rows):
        raise HearbackError(_describe_no_pair(folder, recordings, list(texts)))
    return _of_files(folder, rows, report)


def _list_files(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the recordings below a folder, and the texts by their name without suffix.

    Links are followed; a folder that several links lead to is read once.
    """
    recordings: list[str] = []
    texts: dict[str, list[str]] = {}
    known: set[Path] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(parent).resolve()
        if real in known:
            folders.clear()
            continue
        known.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            relative = (Path(parent) / name).relative_to(folder).as_posix()
            suffix = Path(name).suffix.lower()
            if suffix in RECORDING_SUFFIXES:
                recordings.append(relative)
            elif suffix in TEXT_SUFFIXES:
                texts.setdefault(_stem(relative), []).append(relative)
    return sorted(recordings), texts


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122  (of a relative name, with its folders)


def _describe_no_pair(folder: Path, recordings: Sequence[str], texts: Sequence[str]) -> str:
    """Return the message for a folder in which no recording has a text."""
    tables = sorted(each.name for each in folder.iterdir() if _is_table(each))
    if not recordings:
        what = f"{folder}: no recording there"
        if texts:
            what += f", only {len(texts)} texts"
        return f"{what}; put clip.wav beside clip.txt, or name the folder that has them"
    what = f"{folder}: none of its {len(recordings)} recordings has a text beside it"
    cure = "put the words of clip.wav into clip.txt (or clip.lab)"
    if tables:
        cure += f", or name the table: {folder / tables[0]}"
    return f"{what}; {cure}"


def _read_one_text(paths: Sequence[Path], name: str, folder: Path, report: Report) -> str | None:
    """Return the text of the files beside a recording; None, with a problem, if it is unclear."""
    texts: dict[str, Path] = {}
    for path in paths:
        problems = Report()
        text = _read_text_file(path, problems)
        for problem in problems.problems:
            file, severity = str(folder), problem.severity
            what = f"its text in {path.name}: {problem.what}"
            report.add(Problem(file, None, what, problem.cure, severity, filename=name))
        if text is None:
            return None
        texts.setdefault(text, path)
    if len(texts) > 1:
        names = " and ".join(path.name for path in texts.values())
        what = f"two texts that differ: {names}"
        report.add(Problem(str(folder), None, what, "keep the right one", filename=name))
        return None
    return next(iter(texts))


def _read_text_file(path: Path, report: Report) -> str | None:
    """Return a file's text on one line; None, with a problem, if it is no text."""
    try:
        size = path.stat().st_size
    except OSError as error:
        report.add(Problem(str(path), None, f"{error.strerror}", "make it readable"))
        return None
    if size > _LARGEST_TEXT:
        what = f"{size / 1e6:.1f} MB are no text of a recording"
        report.add(Problem(str(path), None, what, "put the words alone there"))
        return None
    content = read_text(path, report)
    return None if content is None else " ".join(" ".join(content.lines).split())


def _of_files(
    folder: Path, rows: Sequence[tuple[str, str | None, str, str, str]], report: Report
) -> Inputs:
    """Return the inputs of files in a folder; a text is None if its problem is in the report."""
    frame = pd.DataFrame(rows, columns=["filename", "written_text", "grade", "task", "speaker"])
    has_text = frame["written_text"].notna()
    frame["written_text"] = frame["written_text"].fillna("").astype(str)
    frame["line"] = pd.Series([None] * len(frame), dtype=object)
    # Texts of their own files are no column: a missing one has been reported.
    frame["expected_text"] = spoken_texts(
        folder, frame, has_text, report, USUAL_CHANGES, longest=LONGEST_PASSAGE
    )
    _check_context(folder, frame, report)
    return Inputs(folder, folder, frame)


def read_score_table(path: Path, report: Report, folder: Path | None = None) -> Inputs:
    """Read a table of recordings and texts; filenames are relative to its folder, or to `folder`.

    Its columns are `filename` and `text` or `expected_text`, and perhaps grade, task and speaker.
    Raises BadInputError if the table or a column that is needed cannot be read.
    """
    names = _choose_columns(path)
    required = [names.get(column, column) for column in REQUIRED]
    optional = [names[column] for column in OPTIONAL if column in names]
    table = read_table(path, required, report, optional, synonyms=_NAMES)
    if report.table_errors:
        raise BadInputError(report)
    own = {name: column for column, name in names.items()}
    frame = table.frame.rename(columns=own).rename(columns={"expected_text": "written_text"})
    report_unsafe_filenames(path, frame, report)
    frame["expected_text"] = spoken_texts(
        path, frame, table.fits, report, USUAL_CHANGES, longest=LONGEST_PASSAGE
    )
    for column in OPTIONAL:
        if column not in frame:
            frame[column] = ""
    _check_context(path, frame, report)
    notes = [
        f"{path}: its column {quoted(name)} is read as {column}"
        for column, name in names.items()
        if column_key(name) != column_key(column) and name != "text"
    ]
    return Inputs(path, path.parent if folder is None else folder, frame, tuple(notes))


def _choose_columns(path: Path) -> dict[str, str]:
    """Return the table's own name of each of `COLUMNS` that it has, under any of its names."""
    text = read_text(path, Report())  # `read_table` reports what is wrong
    if text is None:
        return {}
    own = {column_key(column) for column in COLUMNS}
    others = {column_key(name) for column in COLUMNS for name in _NAMES[column]}

    def count(header: Sequence[str]) -> int:
        keys = {column_key(name) for name in header}
        return 100 * len(own & keys) + len(others & keys)

    start, separator = choose_separator(text, count)
    header = next(iter(read_rows(text, start, separator)), None)
    fields: dict[str, str] = {}
    for name in () if header is None else header.fields:
        fields.setdefault(column_key(name), name)
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
