"""The competition's CSV files: read, check, and report every problem at once.

The layout is that of https://www.drivendata.org/competitions/298/literacy-screening/: metadata with
the columns `filename`, `task`, `expected_text`, `grade` (here also, if there is one, `speaker`);
labels and submission format with `filename`, `score`.

Nothing here raises for what a file contains. Each fault becomes a `Problem` in a `Report`, and the
caller decides: training refuses (`Report.raise_if_errors`), inference goes on with the rows it has.
"""

import csv
import os
import posixpath
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd

from hearback.errors import HearbackError
from hearback.files import open_file, whole_file

TASKS = ("deletion", "blending", "nonword_repetition", "sentence_repetition")
GRADES = ("KG", "1", "2", "3")

METADATA_COLUMNS = ("filename", "task", "expected_text", "grade")
LABEL_COLUMNS = ("filename", "score")

PROBLEMS = "submission_problems.csv"  # beside a submission

# Bytes of UTF-8. A Whisper's decoder reads 448 tokens, none of them shorter than a byte, and in the
# 16 s that the encoder hears nobody says so much.
LONGEST_TEXT = 400

# Bytes of a table. The competition's has 3 MB for 38,095 recordings; what is larger is another
# file, and takes up to sixteen times as much memory.
LARGEST_TABLE = 64 * 1024 * 1024

# Lines of a file that one row may take: to look for the end of a quote in all that follow would
# take hours where every line opens one.
_MOST_LINES = 100

# Up to this many rows with the same fault get a line each, with their filename; more of them are
# said as ranges of line numbers. A whole corpus at 44.1 kHz is one line, and no row goes unsaid.
_MOST_ROWS_LISTED = 20

# Of what a file contains, a message repeats so much: names of columns, characters of a field.
_MOST_COLUMNS_LISTED = 20
_MOST_LETTERS_SHOWN = 80

# What a filename must not have: a root or a drive, a backslash (a separator on Windows, a letter
# elsewhere: the same table would mean two things), a `..` folder, a control character.
_UNSAFE_FILENAME = re.compile(r"^/|^[A-Za-z]:|\\|(?:^|/)\.\.(?:/|$)|[\x00-\x1f\x7f]")

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Problem:
    """One fault of one file.

    `row` is the line number that an editor shows (the header is line 1), None when the fault is
    the whole file's; `filename` is the recording concerned, where there is one; `cure` says what
    to do about it. A warning is something that was dealt with and should be known.
    """

    file: str
    row: int | None
    what: str
    cure: str
    severity: Literal["error", "warning"] = "error"
    filename: str | None = None


class Report:
    """The problems of one run, in the order in which they were found. The same one counts once."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        # A dict is an ordered set: two checks may come upon the same fault.
        self._problems: dict[Problem, None] = dict.fromkeys(problems)

    def add(self, problem: Problem) -> None:
        """Add one problem."""
        self._problems[problem] = None

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several problems."""
        self._problems.update(dict.fromkeys(problems))

    @property
    def problems(self) -> list[Problem]:
        """All problems, errors and warnings."""
        return list(self._problems)

    @property
    def errors(self) -> list[Problem]:
        """What training refuses."""
        return [problem for problem in self._problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """What was dealt with and should be known."""
        return [problem for problem in self._problems if problem.severity == "warning"]

    def raise_if_errors(self, strict: bool = False) -> None:
        """Raise BadInput with the whole report if it has errors, or if `strict`, warnings."""
        if self.errors or (strict and self.warnings):
            raise BadInput(self)

    def frame(self) -> pd.DataFrame:
        """Return the problems as a table, a row each, a column for each of Problem's fields."""
        columns = [field.name for field in fields(Problem)]
        frame = pd.DataFrame([asdict(problem) for problem in self._problems], columns=columns)
        return frame.astype({"row": "Int64"})  # else one None makes floats of all line numbers

    def __str__(self) -> str:
        """Say every problem, by file, the rows with the same fault together."""
        if not self._problems:
            return "no problems"
        counts = [_count(len(self.errors), "error"), _count(len(self.warnings), "warning")]
        lines = [", ".join(count for count in counts if count)]
        by_file: dict[str, dict[tuple[str, str, str], list[Problem]]] = {}
        for problem in [*self.errors, *self.warnings]:
            fault = (problem.severity, problem.what, problem.cure)
            by_file.setdefault(problem.file, {}).setdefault(fault, []).append(problem)
        for file, faults in by_file.items():
            lines += ["", file]
            for (severity, what, cure), problems in faults.items():
                lines.append(f"  {severity}: {what}")
                lines += [f"    {line}" for line in _rows_said(problems)]
                lines.append(f"    -> {cure}")
        return "\n".join(lines)


class BadInput(HearbackError, ValueError):  # noqa: N818  (the error is the input's)
    """The input has problems; `report` has them, and `str` of this is the whole report."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


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


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV (UTF-8, no index), whole or not at all."""
    # Python's csv writes a lone carriage return bare, and readers take it for the end of a line.
    texts = frame.select_dtypes(exclude="number")
    has_return = any(
        "\r" in text for name in texts for text in texts[name] if isinstance(text, str)
    ) or any("\r" in name for name in frame.columns)
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    with whole_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", quoting=quoting)


def write_problems(report: Report, submission: Path) -> None:
    """Print what a submission suffers from, and write it to `PROBLEMS` beside it."""
    problems = submission.with_name(PROBLEMS)
    if report.problems:
        write_table(report.frame(), problems)
        print(f"\nWARNING, also in {problems}:\n{report}")
    else:
        problems.unlink(missing_ok=True)  # one of an earlier run would mislead


def quoted(text: str) -> str:
    """Return a text of unknown origin as a message shows it: in quotes, on one short line."""
    if len(text) <= _MOST_LETTERS_SHOWN:
        return repr(text)
    return f"{text[:_MOST_LETTERS_SHOWN]!r}… ({len(text)} characters)"


def contained(folder: Path, filename: str) -> Path | None:
    """Return the path of `filename` in `folder`, or None if it leads out of the folder.

    Symbolic links are followed: the folder may be one, but what lies in it must not lead out of
    it. The path need not exist.
    """
    return containing(folder)(filename)


def containing(folder: Path) -> Callable[[str], Path | None]:
    """Return `contained` of one folder, for many filenames: each of their folders is resolved once.

    Links to folders must not change while it is used.
    """
    root = folder.resolve()
    resolved: dict[Path, Path] = {}

    def path_of(filename: str) -> Path | None:
        if _UNSAFE_FILENAME.search(filename):
            return None
        path = root / filename
        try:
            if os.path.islink(path):  # noqa: PTH114  (Path.is_symlink raises for a name too long)
                path = path.resolve()
            else:
                if path.parent not in resolved:
                    resolved[path.parent] = path.parent.resolve()
                path = resolved[path.parent] / path.name
        except (OSError, RuntimeError):  # links that go round in a circle lead nowhere
            return None
        return path if path.is_relative_to(root) else None

    return path_of


def leads_out(path: Path, line: int, filename: str) -> Problem:
    """Return the problem of a `filename` that `contained` refuses, in the table at `path`."""
    what = "the filename leads out of the data folder"
    cure = (
        "name a file inside it, folders with '/'; no '..', drive, backslash, control character or "
        "link to outside"
    )
    return Problem(str(path), line, what, cure, filename=filename)


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


def _rows_said(problems: Sequence[Problem]) -> list[str]:
    """Say which rows have one fault: a line each if they are few, else as ranges of lines."""
    rows = [problem.row for problem in problems if problem.row is not None]
    if len(problems) <= _MOST_ROWS_LISTED or len(rows) < len(problems):
        return [said for problem in problems if (said := _row_said(problem))]
    ranges = []
    # Within a run of successive lines, line and place differ by the same number.
    for _, run in groupby(enumerate(sorted(set(rows))), key=lambda item: item[1] - item[0]):
        ends = [line for _, line in run]
        ranges.append(f"{ends[0]}-{ends[-1]}" if len(ends) > 1 else str(ends[0]))
    return textwrap.wrap(f"{len(problems)} rows, lines {', '.join(ranges)}", width=96)


def _row_said(problem: Problem) -> str:
    line = "" if problem.row is None else f"line {problem.row}"
    filename = "" if problem.filename is None else f"({quoted(problem.filename)})"
    return f"{line} {filename}".strip()


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}" if n else ""
