"""The competition's CSV files: read, check, and report every problem at once.

The layout is that of https://www.drivendata.org/competitions/298/literacy-screening/: metadata with
the columns `filename`, `task`, `expected_text`, `grade` (here also, if there is one, `speaker`);
labels and submission format with `filename`, `score`.

Nothing here raises for what a file contains. Each fault becomes a `Problem` in a `Report`, and the
caller decides: training refuses (`Report.raise_if_errors`), inference goes on with the rows it has.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Literal

import pandas as pd

from hearback.engine.errors import HearbackError

# Up to this many rows with the same fault get a line each, with their filename; more of them are
# said as ranges of line numbers. A whole corpus at 44.1 kHz is one line, and no row goes unsaid.
_MOST_ROWS_LISTED = 20
_MOST_LETTERS_SHOWN = 80


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


def quoted(text: str) -> str:
    """Return a text of unknown origin as a message shows it: in quotes, on one short line."""
    if len(text) <= _MOST_LETTERS_SHOWN:
        return repr(text)
    return f"{text[:_MOST_LETTERS_SHOWN]!r}… ({len(text)} characters)"


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
