"""Tables: read, check, and report every problem at once.

Nothing here raises for the content of a file: each fault becomes a `Problem` in a `Report`.
"""

import csv
import posixpath
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd

from hearback.engine.data.filenames import are_there, match_names, nearest_names, portable
from hearback.engine.data.json_lines import is_json_lines
from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.engine.data.table_reader import read_rows_of
from hearback.engine.data.table_rows import Row
from hearback.engine.data.text_files import read_text
from hearback.engine.errors import HearbackError, nearest
from hearback.engine.io import atomic_write

PROBLEMS = "submission_problems.csv"  # beside submission.csv; see `problems_path`

_MAX_COLUMNS_LISTED = 20  # in a message
_MAX_NAME = 40  # characters of a column's name that a row lacks
# Short forms of columns' names, by their `column_key`, that are too unlike them for difflib.
_SHORT_FORMS = {
    "sent": "sentence",
    "utt": "utterance",
    "ref": "reference",
    "trans": "transcript",
    "fn": "filename",
    "rec": "recording",
    "lbl": "label",
}
_LIKE_A_SYNONYM = 0.85  # cutoff of difflib
_MAX_SUGGESTIONS = 20  # rows of a table whose message names the nearest name


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV (UTF-8, no index), atomically."""
    # Python's csv does not quote a lone carriage return, which readers take for a line's end.
    texts = frame.select_dtypes(exclude="number")
    has_return = any(
        "\r" in text for name in texts for text in texts[name] if isinstance(text, str)
    ) or any("\r" in name for name in frame.columns)
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", quoting=quoting)


def problems_path(table: Path) -> Path:
    """Return the file of the problems of a table of scores: x_problems.csv beside x.csv."""
    return table.with_name(f"{table.stem}_problems.csv")


def save_problems(report: Report, table: Path) -> None:
    """Write the problems of a table of scores to its `problems_path`, if there are any."""
    if report.problems:
        write_table(report.frame(), problems_path(table))
    else:
        problems_path(table).unlink(missing_ok=True)  # an earlier run's would mislead


def write_problems(report: Report, submission: Path) -> None:
    """Print the problems of a submission, and save them beside it."""
    save_problems(report, submission)
    if report.problems:
        print(f"\nWARNING, also in {problems_path(submission)}:\n{report}")


def read_problems(submission: Path) -> list[Problem]:
    """Return the problems of a table of scores that were saved; [] if there are none."""
    path = problems_path(submission)
    if not path.is_file():
        return []
    frame = read_written(path, [field.name for field in fields(Problem)])
    return [
        Problem(
            row["file"],
            int(row["row"]) if row["row"] else None,
            row["what"],
            row["cure"],
            "warning" if row["severity"] == "warning" else "error",
            row["filename"] or None,
            row["status"],
        )
        for row in cast(list[dict[str, str]], frame.to_dict("records"))
    ]


def read_written(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table that a step wrote, all strings; HearbackError if it lacks any of `columns`."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split())
        raise HearbackError(f"{path}: cannot be read ({what}); write it again") from None
    if missing := [name for name in columns if name not in frame]:
        raise HearbackError(
            f"{path}: has no column {', '.join(missing)}; write it again, or move it away"
        )
    return frame


@dataclass(frozen=True)
class Table:
    """The requested columns of a table, all strings, and the int column `line`."""

    frame: pd.DataFrame
    fits: pd.Series  # bool: the row has as many fields as the header, and is valid text
    columns: frozenset[str]  # the requested columns that the file has
    is_json: bool = False  # the columns are the keys of JSON lines


def read_table(
    path: Path,
    required: Sequence[str],
    report: Report,
    optional: Sequence[str] = (),
    *,
    one_of: Mapping[str, str] | None = None,
    has_header: bool = True,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    unique: bool = True,
) -> Table:
    """Read a table and make the checks that do not depend on the meaning of its columns.

    It is CSV, or JSON lines, whose keys are the columns. Without a header, the columns are the
    `required` ones in their order. The first of them is the recording's filename and, with
    `unique`, must be so. Names of columns are compared without case, spaces and punctuation:
    "Expected Text" is expected_text. `synonyms` are other names of a column, which an error
    suggests to rename. `one_of` has optional columns, with what they contain, of which there must
    be one. Problems go into `report`. If a required column is missing, its rows are
    not checked.
    """
    columns = _Columns(path, required, optional, one_of or {}, synonyms or {}, report)
    header, rows = _read(columns, has_header)
    names = list(required) if header is None else columns.understand(header, rows)
    if header is not None and header.fields and not rows:
        report.add(Problem(str(path), None, "no rows below the header", "add the rows"))
    texts: dict[str, list[str]] = {}
    for name in (*required, *optional):
        if name in names:
            at = names.index(name)
            texts[name] = [row.fields[at] if at < len(row.fields) else "" for row in rows]
        elif name in required:
            texts[name] = [""] * len(rows)
    name_of_row = required[0]
    n_named = _count_named(names)
    expected = f"where {'a row' if header is None else 'the header'} has {n_named}"
    faults = [_fault(row, n_named, names, expected) for row in rows]
    lines = np.array([row.line for row in rows], dtype=np.int64)
    frame = pd.DataFrame(texts, dtype=str).assign(line=lines)
    if columns.has_all(names):
        for row, fault, filename in zip(rows, faults, texts[name_of_row], strict=True):
            if fault is not None:
                report.add(Problem(str(path), row.line, *fault, filename=filename or None))
    fits = pd.Series([fault is None for fault in faults], index=frame.index, dtype=bool)
    if name_of_row in names:
        named = frame.rename(columns={name_of_row: "filename"})
        _check_filenames(path, named[fits], report, unique=unique)
    is_json = header is not None and header.line == 0
    return Table(frame, fits, frozenset(texts).intersection(names), is_json)


def _read(columns: "_Columns", has_header: bool) -> tuple[Row | None, list[Row]]:
    """Return the header, None if there is none, and the rows below it."""
    path, report = columns.path, columns.report
    text = read_text(path, report)
    rows: list[Row] = []
    if text is not None:
        has_header = has_header or is_json_lines(text.lines)
        rows = read_rows_of(text, columns.count, None if has_header else len(columns.required))
        if not rows:
            cure = f"a line for each row: {','.join(columns.required)}"
            if has_header:
                cure = "its first line must name the columns"
            report.add(Problem(str(path), None, "the file is empty", cure))
    # A table that needs no header may still have one.
    if not has_header and not (rows and columns.has_all(columns.recognize(rows[0].fields))):
        return None, rows
    header, *rows = rows or [Row(1, [])]
    again = [row for row in rows if row.fields == header.fields]
    if again:
        rows = [row for row in rows if row.fields != header.fields]
        where = ", ".join(str(row.line) for row in again[:3])
        what = f"the header again, left out: {count_noun(len(again), 'line')} ({where}"
        what += ", …)" if len(again) > 3 else ")"
        cure = "if tables were joined, check that all of their columns are in the same order"
        report.add(Problem(str(path), None, what, cure, "warning"))
    return header, rows


@dataclass(frozen=True)
class _Columns:
    """The columns that a table must or may have, and how its header is understood."""

    path: Path
    required: Sequence[str]
    optional: Sequence[str]
    one_of: Mapping[str, str]
    synonyms: Mapping[str, Sequence[str]]
    report: Report

    def recognize(self, header: Sequence[str]) -> list[str]:
        """Return the header with columns' names in place of their other spellings."""
        # A column that is there in the right spelling is meant, whatever others look like it.
        own = {
            column_key(name): name
            for name in (*self.required, *self.optional)
            if name not in header
        }
        return [own.get(column_key(name), name) for name in header]

    def count(self, header: Sequence[str]) -> int:
        """Return how many columns or synonyms of them a header names, for the separator's choice.

        A required column counts more than all others together.
        """
        names = set(self.recognize([name.strip() for name in header]))
        n_required = len(names.intersection(self.required))
        others = {column_key(name) for listed in self.synonyms.values() for name in listed}
        others.update(map(column_key, self.optional))
        return 100 * n_required + min(99, len(others.intersection(map(column_key, names))))

    def has_all(self, names: Sequence[str]) -> bool:
        """Return whether all required columns are there."""
        return set(self.required).issubset(names)

    def understand(self, header: Row, rows: Sequence[Row]) -> list[str]:
        """Return the recognized names of the header's fields, and report what is wrong.

        `rows` are those below it, among which a header is looked for if it names no column.
        """
        names = self.recognize(header.fields)
        if not names:  # an empty file has been reported
            return names
        if (fault := _fault(header, 0, names, "")) is not None:
            self.report.add(Problem(str(self.path), header.line, *fault))
        if len(names) == 1 and self.has_all(self.recognize(names[0].split())):
            what = f"no columns, but spaces between their names: {quoted(names[0])}"
            cure = "write the table with commas between the columns"
            self.report.add(Problem(str(self.path), None, what, cure))
            return names
        listed = [quoted(name) for name in header.fields[:_MAX_COLUMNS_LISTED]]
        if n_more := len(names) - len(listed):
            listed.append(f"and {n_more} more")
        there = f"the columns that are there: {', '.join(listed)}"
        is_unknown = not self.count(header.fields)
        if header.line and is_unknown and not any(self._suggest(n, names) for n in self.required):
            later = next(
                (row for row in rows[:10] if self.has_all(self.recognize(row.fields))), None
            )
            cure = f"write a first line with the columns' names: {','.join(self.required)}"
            if later is not None:
                cure = f"remove what is above line {later.line}, which names them"
            what = f"its first line names no column: {', '.join(listed)}"
            self.report.add(Problem(str(self.path), None, what, cure))
            return names
        for name in self.required:
            if name not in names:
                what = f"the column {name!r} is missing"
                cure = self._suggest(name, names) + there
                self.report.add(Problem(str(self.path), None, what, cure))
        if self.one_of and not set(self.one_of).intersection(names):
            what = f"no column {' or '.join(self.one_of)}"
            cure = " or ".join(f"`{name}` ({text})" for name, text in self.one_of.items())
            near = "".join(self._suggest(name, names) for name in self.one_of)
            self.report.add(Problem(str(self.path), None, what, f"add {cure}; {near}{there}"))
        for name in (*self.required, *self.optional):
            if names.count(name) > 1:
                what = f"the column {name!r} is there {names.count(name)} times"
                self.report.add(Problem(str(self.path), None, what, "keep one of them"))
        return names

    def _suggest(self, column: str, names: Sequence[str]) -> str:
        """Return the sentence that suggests which column to rename, or ""."""
        taken = {*self.required, *self.optional}
        free = {column_key(name): name for name in names if name not in taken}
        own = column_key(column)
        others = {column_key(name): name for name in self.synonyms.get(column, ())}
        synonym = next((key for key in others if key in free), None)
        if synonym is not None:
            return f"{quoted(free[synonym])} is there: rename it to {column}; "
        short = (key for key in free if _SHORT_FORMS.get(key) in (own, *others))
        if near := next(short, None) or nearest(own, free):
            return f"{quoted(free[near])} is there: is it {column}? Then rename it; "
        for key, name in others.items():
            if near := nearest(key, free, _LIKE_A_SYNONYM):  # a mistyped synonym
                return f"{quoted(free[near])} is there: is it {name}? Then rename it to {column}; "
        return ""


def column_key(column: str) -> str:
    """Return the letters and digits of a column's name, in lower case."""
    return re.sub(r"[\W_]+", "", column.casefold())


def _count_named(names: Sequence[str]) -> int:
    return max((at + 1 for at, name in enumerate(names) if name), default=0)  # up to the last one


def _fault(row: Row, n_named: int, names: Sequence[str], expected: str) -> tuple[str, str] | None:
    """Return a row's fault and its cure, independent of the meaning of its columns, or None.

    A row has `n_named` fields, or up to one for each of the `names`; empty ones may follow.
    """
    if row.fault is not None:
        return row.fault, row.cure
    # Spreadsheets add empty fields to the end of a line, or leave them away.
    what = f"{count_noun(len(row.fields), 'field')} {expected}"
    if len(row.fields) < n_named:
        missing = names[len(row.fields) : n_named]
        shown = ", ".join(name[:_MAX_NAME] for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return (
            f"{what}: no {shown}{more}",
            "add what is missing; an empty field needs its comma, too",
        )
    if any(row.fields[len(names) :]):
        is_curly = any(field[:1] in "“„" for field in row.fields if field)
        straight = ' (straight ones: ", not “)' if is_curly else ""
        return what, f"put text that has a comma in double quotes{straight}"
    if any("\0" in field for field in row.fields):
        return "not text: a zero byte", "write the row again"
    return None


def _check_filenames(path: Path, frame: pd.DataFrame, report: Report, *, unique: bool) -> None:
    """Report empty and, with `unique`, duplicated filenames, also differing ones (`./a.wav`)."""
    first_line: dict[str, int] = {}
    for line, filename in zip(frame["line"].tolist(), frame["filename"], strict=True):
        if not filename:
            report.add(Problem(str(path), line, "empty filename", "name the recording"))
            continue
        first = first_line.setdefault(posixpath.normpath(portable(filename)), line)
        if unique and first != line:
            what = f"duplicated filename, first on line {first}"
            report.add(Problem(str(path), line, what, "keep one row", filename=filename))


def check_join(
    path: Path,
    frame: pd.DataFrame,
    metadata: pd.DataFrame,
    report: Report,
    unlisted: Literal["error", "warning"] = "error",
) -> dict[str, str]:
    """Report the filenames that are only in the table or only in the metadata.

    Returns the metadata's filename for each one that the table spells otherwise, where there is one
    that fits (`match_names`); these are a warning.
    """
    known, listed = metadata["filename"], frame["filename"]
    # A table that could not be read at all has been reported already.
    if (known == "").all() or (listed == "").all():
        return {}
    match_of = match_names(listed, known)
    if match_of:
        report.add(respelled(path, match_of, "than in the metadata"))
    joined = listed.map(lambda name: match_of.get(name, name))
    alone = frame[~joined.isin(known) & (listed != "")]
    unmatched = [name for name in known[~known.isin(joined)] if name]
    for at, row in enumerate(alone.to_dict("records")):
        what = "the filename has no row in the metadata"
        cure = "remove the row here, or add one to the metadata"
        if at < _MAX_SUGGESTIONS and (near := nearest_names(row["filename"], unmatched)):
            cure += f"; {are_there(near)}"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"]))
    for filename in unmatched:
        what = "no row for a recording of the metadata"
        cure = "add the row here, or remove the one of the metadata"
        report.add(Problem(str(path), None, what, cure, unlisted, filename))
    return match_of


def respelled(path: Path, match_of: Mapping[str, str], than: str) -> Problem:
    """Return the warning that filenames of the table at `path` are spelled otherwise `than` …"""
    pairs = list(match_of.items())[:3]
    shown = [" is ".join(map(_shown_of(*pair), pair)) for pair in pairs]
    more = ", …" if len(match_of) > len(shown) else ""
    verb = "is" if len(match_of) == 1 else "are"
    what = (
        f"{count_noun(len(match_of), 'filename')} {verb} spelled otherwise {than}: "
        f"{', '.join(shown)}{more}"
    )
    cure = "used, because only these fit; to be certain, spell them alike"
    return Problem(str(path), None, what, cure, "warning")


def _shown_of(name: str, match: str) -> Callable[[str], str]:
    """Return how to show two names that differ: letters that look alike by their numbers."""
    looks_alike = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", match)
    return ascii if looks_alike else quoted
