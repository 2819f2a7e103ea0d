"""Problems found in input files: collected in a report, and printed together.

Readers of input files raise nothing for their content. Each fault becomes a `Problem` in a
`Report`, and the caller decides: training refuses (`Report.raise_if_errors`), inference continues
with the usable rows.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Literal

import pandas as pd

from hearback.engine.errors import HearbackError

# Up to this many rows with the same fault are printed on a line each, with their filename; more are
# printed as ranges of line numbers, so that a whole corpus at 44.1 kHz takes one line.
_MAX_ROWS_LISTED = 20
_MAX_FAULTS_LISTED = 200  # of a file; 5,000 recordings may have a fault of their own each
_MAX_CHARACTERS_SHOWN = 80


@dataclass(frozen=True)
class Problem:
    """One fault of one file.

    `row` is the line number in an editor (the header is line 1), or None for a fault of the whole
    file. `filename` is the affected recording, if any. `cure` describes how to fix it. A warning is
    a fault that was handled automatically. `status` says what became of the recording in one word
    ("silent", "too_long", ...), "" if the problem does not tell.
    """

    file: str
    row: int | None
    what: str
    cure: str
    severity: Literal["error", "warning"] = "error"
    filename: str | None = None
    status: str = ""


def as_row(problem: Problem) -> dict[str, Any]:
    """Return the fields of a problem, without those of its subclass."""
    return {field.name: getattr(problem, field.name) for field in fields(Problem)}


class Report:
    """The problems of one run, in the order in which they were found, without duplicates."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        # A dict is an ordered set: two checks may find the same fault.
        self._problems: dict[Problem, None] = dict.fromkeys(problems)

    def add(self, problem: Problem) -> None:
        """Add one problem."""
        self._problems[problem] = None

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add several problems."""
        self._problems.update(dict.fromkeys(problems))

    def discard(self, problem: Problem) -> None:
        """Remove a problem, if it is there: another one says more."""
        self._problems.pop(problem, None)

    @property
    def problems(self) -> list[Problem]:
        """All problems, errors and warnings."""
        return list(self._problems)

    @property
    def errors(self) -> list[Problem]:
        """The problems of severity "error": training refuses input that has any."""
        return [problem for problem in self._problems if problem.severity == "error"]

    @property
    def table_errors(self) -> list[Problem]:
        """The errors of whole tables: a missing file or column, rather than a row."""
        return [
            problem
            for problem in self.errors
            if problem.filename is None and problem.row in (None, 1)
        ]

    @property
    def warnings(self) -> list[Problem]:
        """The problems of severity "warning", which were handled automatically."""
        return [problem for problem in self._problems if problem.severity == "warning"]

    def raise_if_errors(self, strict: bool = False) -> None:
        """Raise BadInputError with the whole report if it has errors, or if `strict`, warnings."""
        if self.errors or (strict and self.warnings):
            raise BadInputError(self)

    def frame(self) -> pd.DataFrame:
        """Return the problems as a table, with one column for each field of Problem."""
        columns = [field.name for field in fields(Problem)]
        frame = pd.DataFrame([as_row(problem) for problem in self._problems], columns=columns)
        return frame.astype({"row": "Int64"})  # a None would turn all line numbers into floats

    def __str__(self) -> str:
        """Format the problems, grouped by file, cure and fault; of many, the first ones.

        `frame` has all of them.
        """
        if not self._problems:
            return "no problems"
        counts = {"error": len(self.errors), "warning": len(self.warnings)}
        lines = [", ".join(count_noun(n, noun) for noun, n in counts.items() if n)]
        by_file: dict[str, list[Problem]] = {}
        for problem in [*self.errors, *self.warnings]:
            by_file.setdefault(problem.file, []).append(problem)
        for file, problems in by_file.items():
            lines += ["", file, *_format_faults(problems)]
        return "\n".join(lines)


class BadInputError(HearbackError, ValueError):
    """The input has problems; `report` contains them and is the message."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


def quoted(text: str) -> str:
    """Quote a text of unknown origin for a message: on one line, truncated if long."""
    if len(text) <= _MAX_CHARACTERS_SHOWN:
        return repr(text)
    return f"{text[:_MAX_CHARACTERS_SHOWN]!r}… ({len(text)} characters)"


def _format_faults(problems: Iterable[Problem]) -> list[str]:
    """Format the problems of a file, by fault; a cure that several faults have stands once."""
    by_cure: dict[tuple[str, str], dict[str, list[Problem]]] = {}
    for problem in problems:
        faults = by_cure.setdefault((problem.severity, problem.cure), {})
        faults.setdefault(problem.what, []).append(problem)
    lines, n_listed = [], 0
    for (severity, cure), faults in by_cure.items():
        listed = list(faults.items())[: max(0, _MAX_FAULTS_LISTED - n_listed)]
        n_listed += len(listed)
        for what, of_fault in listed:
            lines.append(f"  {severity}: {what}")
            lines += [f"    {line}" for line in _format_rows(of_fault)]
        lines += [f"    -> {cure}"] if listed else []
    if (n_more := sum(map(len, by_cure.values())) - n_listed) > 0:
        lines.append(f"  … and {count_noun(n_more, 'other fault')}")
    return lines


def _format_rows(problems: Sequence[Problem]) -> list[str]:
    """Format the rows with one fault: a line each if they are few, otherwise ranges of lines."""
    rows = [problem.row for problem in problems if problem.row is not None]
    if len(problems) <= _MAX_ROWS_LISTED or len(rows) < len(problems):
        texts = [text for problem in problems if (text := _format_row(problem))]
        n_more = len(texts) - _MAX_ROWS_LISTED
        return texts if n_more <= 0 else [*texts[:_MAX_ROWS_LISTED], f"… and {n_more} more"]
    ranges = []
    # Within a run of consecutive lines, line number minus index is constant.
    for _, run in groupby(enumerate(sorted(set(rows))), key=lambda item: item[1] - item[0]):
        ends = [line for _, line in run]
        ranges.append(f"{ends[0]}-{ends[-1]}" if len(ends) > 1 else str(ends[0]))
    return textwrap.wrap(f"{len(problems)} rows, lines {', '.join(ranges)}", width=96)


def _format_row(problem: Problem) -> str:
    line = "" if problem.row is None else f"line {problem.row}"
    filename = "" if problem.filename is None else f"({quoted(problem.filename)})"
    return f"{line} {filename}".strip()


def place_of(row: int | None, filename: str) -> str:
    """Return e.g. "on line 3 ('a.wav')", or "in 'a.wav'" where there is no table."""
    if row is None:
        return f"in {quoted(filename)}"
    return f"on line {row} ({quoted(filename)})" if filename else f"on line {row}"


def count_noun(n: int, noun: str) -> str:
    """Return e.g. "2 errors", "1 error" or "no errors"."""
    return f"{n or 'no'} {noun}{'' if n == 1 else 's'}"
