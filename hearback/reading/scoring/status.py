"""The status of a row: whether its score can be trusted, or why it has none."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from hearback.engine.audio.notes import UnreadableProblem
from hearback.engine.data.problems import Problem, Report

OK = "ok"
UNSURE = "unsure"  # has a score that a person should check
TOO_LONG = "too_long"  # the recording, or its text
TOO_SHORT = "too_short"
SILENT = "silent"
CLIPPED = "clipped"
UNREADABLE = "unreadable"  # the recording, its text, or its row of the table
NO_ENGLISH = "another_language_or_noise"

STATUSES = (OK, UNSURE, TOO_LONG, TOO_SHORT, SILENT, CLIPPED, UNREADABLE, NO_ENGLISH)
SCORED = (OK, UNSURE)

# A clip is unsure if its probability is in this range. Of the rules that `abstention` compares, it
# sends the fewest clips to a person for the errors that it catches.
UNSURE_ABOVE, UNSURE_BELOW = 0.3, 0.7
DOUBTFUL = 0.5  # a word below was probably not said


class Fault(NamedTuple):
    """Why a row has no score: its status, what is wrong, and what to do.

    `seconds` is the length of its recording; None if it is unknown, or told elsewhere.
    """

    status: str
    what: str
    cure: str
    seconds: float | None = None

    @property
    def note(self) -> str:
        """The fault in one line, for the row's note."""
        return f"{self.what}; {self.cure}"

    @classmethod
    def of_problem(cls, problem: Problem) -> "Fault":
        """Return the fault of a row with an error."""
        seconds = problem.seconds if isinstance(problem, UnreadableProblem) else None
        return cls(problem.status or UNREADABLE, problem.what, problem.cure, seconds)


def of_probability(probability: float, *, is_passage: bool = False) -> str:
    """Return the status of a clip with a score.

    A low score of a passage, whose words are in several windows, is never sure: a word that is
    looked for in the wrong one is enough.
    """
    is_low = probability <= UNSURE_ABOVE and not is_passage
    return OK if is_low or probability >= UNSURE_BELOW else UNSURE


def with_row_status(report: Report, rows: Mapping[tuple[int | None, str], str]) -> Report:
    """Return a report in which each problem of a row tells its status, in the order of the rows.

    `rows` are the statuses of rows by line (None in a folder) and filename ("" for that of a line
    alone). Each file's problems stay together; those of a whole table or folder come first, and
    have no status.
    """

    def with_status(problem: Problem) -> Problem:
        key = (problem.row, problem.filename or "")
        return replace(problem, status=problem.status or rows.get(key, ""))

    order = {key: number for number, key in enumerate(rows)}
    files = list(dict.fromkeys(problem.file for problem in report.problems))

    def place(problem: Problem) -> tuple[int, int, int]:
        key = (problem.row, problem.filename or "")
        return files.index(problem.file), problem.row or 0, order.get(key, -1)

    return Report(map(with_status, sorted(report.problems, key=place)))


def faults_by_row(problems: Iterable[Problem]) -> Mapping[tuple[int | None, str], Fault]:
    """Return the fault of each row with errors, by its line (None in a folder) and filename.

    It says all of them; its status is that of the first.
    """
    found: dict[tuple[int | None, str], Fault] = {}
    for problem in problems:
        if problem.severity != "error":
            continue
        key, fault = (problem.row, problem.filename or ""), Fault.of_problem(problem)
        if key in found:
            what = f"{found[key].note}; {fault.what}"
            fault = Fault(found[key].status, what, fault.cure, found[key].seconds or fault.seconds)
        found[key] = fault
    return found
