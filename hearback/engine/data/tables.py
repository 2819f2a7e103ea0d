"""The competition's CSV files: read, check, and report every problem at once.

The layout is that of https://www.drivendata.org/competitions/298/literacy-screening/: metadata with
the columns `filename`, `task`, `expected_text`, `grade` (here also, if there is one, `speaker`);
labels and submission format with `filename`, `score`.

Nothing here raises for what a file contains. Each fault becomes a `Problem` in a `Report`, and the
caller decides: training refuses (`Report.raise_if_errors`), inference goes on with the rows it has.
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

from hearback.engine.data.problems import Problem, Report, _count, quoted
from hearback.engine.io import atomic_write, open_file

PROBLEMS = "submission_problems.csv"  # beside a submission

# Bytes of a table. The competition's has 3 MB for 38,095 recordings; what is larger is another
# file, and takes up to sixteen times as much memory.
LARGEST_TABLE = 64 * 1024 * 1024

# Lines of a file that one row may take: to look for the end of a quote in all that follow would
# take hours where every line opens one.
_MOST_LINES = 100

# Of what a file contains, a message repeats so much: names of columns, characters of a field.
_MOST_COLUMNS_LISTED = 20


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV (UTF-8, no index), whole or not at all."""
    # Python's csv writes a lone carriage return bare, and readers take it for the end of a line.
    texts = frame.select_dtypes(exclude="number")
    has_return = any(
        "\r" in text for name in texts for text in texts[name] if isinstance(text, str)
    ) or any("\r" in name for name in frame.columns)
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", quoting=quoting)


def write_problems(report: Report, submission: Path) -> None:
    """Print what a submission suffers from, and write it to `PROBLEMS` beside it."""
    problems = submission.with_name(PROBLEMS)
    if report.problems:
        write_table(report.frame(), problems)
        print(f"\nWARNING, also in {problems}:\n{report}")
    else:
        problems.unlink(missing_ok=True)  # one of an earlier run would mislead


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file that were asked for, all strings, and the int column `line`."""

    frame: pd.DataFrame
    fits: pd.Series  # bool: the row has as many fields as the header, and no broken letters
    columns_there: frozenset[str]  # the columns asked for that the file has


def read_table(
    path: Path,
    required: Sequence[str],
    report: Report,
    optional: Sequence[str] = (),
    *,
    has_header: bool = True,
) -> Table:
    """Read a CSV file and check all that does not depend on what its columns mean.

    Where it has no header, its columns are the `required` ones in their order. The first of those
    is what a recording is called, which no two rows may share. Problems go into `report`.
    """
    # Not pandas' reader: it makes numbers of the grades and NaN of the words "null" and "nan",
    # gives up at the first row with a field too many, and does not tell line numbers.
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
    fault: str | None = None  # why it is not CSV


def _rows(path: Path, report: Report, columns: Sequence[str], has_header: bool) -> Iterator[_Row]:
    """Yield the header and the rows of a CSV file that are not blank, with their line numbers."""
    text = _text(path, report)
    if text is None:
        return
    # splitlines() would also split at form feeds and the like, which editors do not.
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
            # A stray quote swallows what follows. Give up this line, not the rest of the file.
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
    """The lines from `row` on, for a csv reader; csv.Error where one row takes too many of them.

    `next` is the line that is read next. Whoever reads says where a row ends, by moving `row`.
    """

    def __init__(self, lines: Sequence[str], row: int) -> None:
        self.row = self.next = row
        self._lines = lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self.next == len(self._lines):
            raise StopIteration
        if self.next == self.row + _MOST_LINES:
            raise csv.Error(f"a quote is open for {_MOST_LINES} lines")
        self.next += 1
        return self._lines[self.next - 1]


def _text(path: Path, report: Report) -> str | None:
    """Return the file's text without a byte order mark, or None if it cannot be read as text."""
    save_as = "save it as CSV in UTF-8"
    try:
        with open_file(path) as file:
            content = file.read(LARGEST_TABLE + 1)
    except FileNotFoundError:
        report.add(Problem(str(path), None, "there is no such file", "put it there"))
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
    # Spreadsheets begin UTF-8 with a byte order mark. What is not UTF-8 becomes U+FFFD, and the
    # rows that have one are reported.
    return content.decode("utf-8-sig", errors="replace")


def _check_header(path: Path, header: _Row, required: Sequence[str], report: Report) -> None:
    names = header.fields
    if (fault := _fault(header, len(names), "")) is not None:
        report.add(Problem(str(path), header.line, *fault))
    listed = [quoted(name) for name in names[:_MOST_COLUMNS_LISTED]]
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
    """Return what is wrong with a row whatever its columns mean, and the cure; None if nothing."""
    if row.fault is not None:
        cure = 'close each quote; write a quote inside quotes as ""; shorten what is too long'
        return f"not CSV: {row.fault}", cure
    if len(row.fields) != n_columns:
        what = f"{_count(len(row.fields), 'field')} {expected}"
        return what, "put text that has a comma in double quotes"
    if any("\ufffd" in field for field in row.fields):
        return "not UTF-8", "save the file as CSV in UTF-8"
    if any("\0" in field for field in row.fields):
        return "not text: a zero byte", "write the row again"
    return None


def _check_filenames(path: Path, frame: pd.DataFrame, report: Report) -> None:
    """Report filenames that are empty or stand twice, also when spelled differently (`./a.wav`)."""
    first_line: dict[str, int] = {}
    for line, filename in zip(frame["line"].tolist(), frame["filename"], strict=True):
        if not filename:
            report.add(Problem(str(path), line, "empty filename", "name the recording"))
            continue
        first = first_line.setdefault(posixpath.normpath(filename), line)
        if first != line:
            what = f"duplicated filename, first on line {first}"
            report.add(Problem(str(path), line, what, "keep one row", filename=filename))


def _check_join(
    path: Path,
    frame: pd.DataFrame,
    metadata: pd.DataFrame,
    report: Report,
    unlisted: Literal["error", "warning"] = "error",
) -> None:
    """Report the filenames that stand in only one of a table and the metadata."""
    known, listed = metadata["filename"], frame["filename"]
    # Where one of them could not be read at all, that has been said, and is the one fault.
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
