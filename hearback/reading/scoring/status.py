"""The status of a row: whether its score can be trusted, or why it has none."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

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


def of_probability(probability: float) -> str:
    """Return the status of a clip with a score."""
    return UNSURE if UNSURE_ABOVE < probability < UNSURE_BELOW else OK


def of_problem(problem: Problem) -> str:
    """Return the status of a row with an error."""
    return problem.status or UNREADABLE


def fill(report: Report, rows: Mapping[tuple[int | None, str], str]) -> Report:
    """Return a report in which each problem of a row tells its status.

    `rows` are the statuses of rows by line (None in a folder) and filename ("" for that of a line
    alone). Problems of a whole table or folder have no status.
    """

    def told(problem: Problem) -> Problem:
        key = (problem.row, problem.filename or "")
        return replace(problem, status=problem.status or rows.get(key, ""))

    return Report(map(told, report.problems))


def errors_by_row(problems: Iterable[Problem]) -> Mapping[tuple[int | None, str], Problem]:
    """Return the first error of each row, by its line (None in a folder) and filename."""
    found: dict[tuple[int | None, str], Problem] = {}
    for problem in problems:
        if problem.severity == "error":
            found.setdefault((problem.row, problem.filename or ""), problem)
    return found
