"""CSV tables: read, check, and report every problem at once.

Nothing here raises for the content of a file: each fault becomes a `Problem` in a `Report`.
"""

import csv
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.engine.io import atomic_write, open_file

PROBLEMS = "submission_problems.csv"  # beside a submission

# Bytes. A table of 38,095 recordings has 3 MB; a larger file is probably no table, and would need
# up to 16 times its size in memory.
LARGEST_TABLE = 64 * 1024 * 1024

# Lines of a file that one row may span: searching the rest of the file for the end of a quote would
# take hours if every line opens one.
_MAX_ROW_LINES = 100

MISSING_CURE = "put it there, or name the folder that has it (--data)"

_MAX_COLUMNS_LISTED = 20  # in a message


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


def write_problems(report: Report, submission: Path) -> None:
    """Print the problems of a submission, and write them to `PROBLEMS` beside it."""
    problems = submission.with_name(PROBLEMS)
    if report.problems:
        write_table(report.frame(), problems)
        print(f"\nWARNING, also in {problems}:\n{report}")
    else:
        problems.unlink(missing_ok=True)  # an earlier run's would mislead


@dataclass(frozen=True)
class Table:
    """The requested columns of a CSV file, all strings, and the int column `line`."""

    frame: pd.DataFrame
    fits: pd.Series  # bool: the row has as many fields as the header, and is valid UTF-8
    columns: frozenset[str]  # the requested columns that the file has


def read_table(
    path: Path,
    required: Sequence[str],
    report: Report,
    optional: Sequence[str] = (),
    *,
    has_header: bool = True,
) -> Table:
    """Read a CSV file and make the checks that do not depend on the meaning of its columns.

    Without a header, the columns are the `required` ones in their order. The first of them is the
    recording's filename and must be unique. Problems go into `report`.
    """
    # pandas' reader would convert grades to numbers and the words "null" and "nan" to NaN, stop at
    # the first row with too many fields, and not report line numbers.
    rows = list(_rows(path, report, required, has_header))
    names = list(required)
    if has_header:
        header, *rows = rows or [_Row(1, [])]
        names = header.fields
        if names:
            _check_header(path, header, required, report)
            if not rows:
                report.add(Problem(str(path), None, "no rows below the header", "add the rows"))
    columns: dict[str, list[str]] = {}
    for name in (*required, *optional):
        if name in names:
            at = names.index(name)
            columns[name] = [row.fields[at] if at < len(row.fields) else "" for row in rows]
        elif name in required:
            columns[name] = [""] * len(rows)
    name_of_row = required[0]
    expected = f"where {'the header' if has_header else 'a row'} has {len(names)}"
    faults = [_fault(row, len(names), expected) for row in rows]
    for row, fault, filename in zip(rows, faults, columns[name_of_row], strict=True):
        if fault is not None:
            report.add(Problem(str(path), row.line, *fault, filename=filename or None))
    lines = np.array([row.line for row in rows], dtype=np.int64)
    frame = pd.DataFrame(columns, dtype=str).assign(line=lines)
    if name_of_row in names:
        _check_filenames(path, frame.rename(columns={name_of_row: "filename"}), report)
    fits = pd.Series([fault is None for fault in faults], index=frame.index, dtype=bool)
    return Table(frame, fits, frozenset(columns).intersection(names))


@dataclass(frozen=True)
class _Row:
    line: int
    fields: list[str]  # stripped
    fault: str | None = None  # the CSV error


def _rows(path: Path, report: Report, columns: Sequence[str], has_header: bool) -> Iterator[_Row]:
    """Yield the header and the rows of a CSV file that are not blank, with their line numbers."""
    text = _text(path, report)
    if text is None:
        return
    # Unlike editors, splitlines() also splits at form feeds and other characters.
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    start = n_rows = 0
    while start < len(lines):
        source = _Lines(lines, start)
        try:
            for cells in csv.reader(source, strict=True):
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    n_rows += 1
                    yield _Row(source.row + 1, stripped)
                source.row = source.next
            break
        except csv.Error as error:
            # A stray quote swallows the following lines. Skip this line, not the rest of the file.
            n_rows += 1
            guessed = [cell.strip().strip('"') for cell in lines[source.row].split(",")]
            yield _Row(source.row + 1, guessed, fault=str(error))
            start = source.row + 1
    if n_rows == 0:
        cure = f"a line for each row: {','.join(columns)}"
        if has_header:
            cure = "its first line must name the columns"
        report.add(Problem(str(path), None, "the file is empty", cure))


class _Lines:
    """The lines from `row` on, for a csv reader; raises csv.Error if one row spans too many.

    `next` is the index of the next line. The consumer marks the end of a row by moving `row`.
    """

    def __init__(self, lines: Sequence[str], row: int) -> None:
        self.row = self.next = row
        self._lines = lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self.next == len(self._lines):
            raise StopIteration
        if self.next == self.row + _MAX_ROW_LINES:
            raise csv.Error(f"a quote is open for {_MAX_ROW_LINES} lines")
        self.next += 1
        return self._lines[self.next - 1]


def _text(path: Path, report: Report) -> str | None:
    """Return the file's text without a byte order mark, or None if it is not text."""
    save_as = "save it as CSV in UTF-8"
    try:
        with open_file(path) as file:
            content = file.read(LARGEST_TABLE + 1)
    except FileNotFoundError:
        report.add(Problem(str(path), None, "there is no such file", MISSING_CURE))
        return None
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        report.add(Problem(str(path), None, what, "make it a readable CSV file"))
        return None
    if len(content) > LARGEST_TABLE:
        what = f"the file is larger than {LARGEST_TABLE >> 20} MB"
        report.add(Problem(str(path), None, what, "it is no table of recordings, or split it"))
        return None
    if b"\0" in content.partition(b"\n")[0]:  # UTF-16, a spreadsheet, an archive
        report.add(Problem(str(path), None, "the file is not UTF-8 text", save_as))
        return None
    # Spreadsheets write a byte order mark. Invalid UTF-8 becomes U+FFFD, and rows with it are
    # reported.
    return content.decode("utf-8-sig", errors="replace")


def _check_header(path: Path, header: _Row, required: Sequence[str], report: Report) -> None:
    names = header.fields
    if (fault := _fault(header, len(names), "")) is not None:
        report.add(Problem(str(path), header.line, *fault))
    listed = [quoted(name) for name in names[:_MAX_COLUMNS_LISTED]]
    if n_more := len(names) - len(listed):
        listed.append(f"and {n_more} more")
    cure = f"the columns that are there: {', '.join(listed)}"
    if len(names) == 1 and re.search(r"[;\t]", names[0]):
        cure += "; separate columns with commas"
    for name in required:
        if name not in names:
            report.add(Problem(str(path), None, f"the column {name!r} is missing", cure))
        elif names.count(name) > 1:
            what = f"the column {name!r} is there {names.count(name)} times"
            report.add(Problem(str(path), None, what, "keep one of them"))


def _fault(row: _Row, n_columns: int, expected: str) -> tuple[str, str] | None:
    """Return a row's fault and its cure, independent of the meaning of its columns, or None."""
    if row.fault is not None:
        cure = 'close each quote; write a quote inside quotes as ""; shorten what is too long'
        return f"not CSV: {row.fault}", cure
    if len(row.fields) != n_columns:
        what = f"{count_noun(len(row.fields), 'field')} {expected}"
        return what, "put text that has a comma in double quotes"
    if any("\ufffd" in field for field in row.fields):
        return "not UTF-8", "save the file as CSV in UTF-8"
    if any("\0" in field for field in row.fields):
        return "not text: a zero byte", "write the row again"
    return None


def _check_filenames(path: Path, frame: pd.DataFrame, report: Report) -> None:
    """Report empty and duplicated filenames, also those spelled differently (`./a.wav`)."""
    first_line: dict[str, int] = {}
    for line, filename in zip(frame["line"].tolist(), frame["filename"], strict=True):
        if not filename:
            report.add(Problem(str(path), line, "empty filename", "name the recording"))
            continue
        first = first_line.setdefault(posixpath.normpath(filename), line)
        if first != line:
            what = f"duplicated filename, first on line {first}"
            report.add(Problem(str(path), line, what, "keep one row", filename=filename))


def check_join(
    path: Path,
    frame: pd.DataFrame,
    metadata: pd.DataFrame,
    report: Report,
    unlisted: Literal["error", "warning"] = "error",
) -> None:
    """Report the filenames that are only in the table or only in the metadata."""
    known, listed = metadata["filename"], frame["filename"]
    # A table that could not be read at all has been reported already.
    if (known == "").all() or (listed == "").all():
        return
    for row in frame[~listed.isin(known) & (listed != "")].to_dict("records"):
        what = "the filename has no row in the metadata"
        cure = "remove the row here, or add one to the metadata"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"]))
    for filename in known[~known.isin(listed) & (known != "")]:
        what = "no row for a recording of the metadata"
        cure = "add the row here, or remove the one of the metadata"
        report.add(Problem(str(path), None, what, cure, unlisted, filename))
