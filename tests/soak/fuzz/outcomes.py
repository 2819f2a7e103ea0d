"""The possible results of a fuzz input, and the checks on every report and message."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError

READ, WARNED, REFUSED = "read", "read with a warning", "refused"
LONGEST_MESSAGE = 100_000  # characters
LONGEST_LINE_NUMBER = 20  # characters of a report per problem: it lists every row


@dataclass(frozen=True)
class Outcome:
    """The kind of input, and one of `READ`, `WARNED` and `REFUSED`."""

    kind: str
    result: str


Rng = np.random.Generator
Family = Callable[[Rng, Path], Outcome]


def check_report(report: Report) -> None:
    """Assert that every problem is printed with its file and cure, in a bounded length."""
    message = str(report)
    longest = LONGEST_MESSAGE + LONGEST_LINE_NUMBER * len(report.problems)
    assert len(message) < longest, f"a report of {len(message)} characters"
    for problem in report.problems:
        assert problem.what and problem.cure and problem.file
        assert problem.cure in message


def check_message(error: HearbackError, path: Path) -> None:
    """Assert that an error names the file, or its folder, and has a bounded length."""
    message = str(error)
    assert str(path) in message or str(path.parent) in message, f"names no file: {message[:300]}"
    assert len(message) < LONGEST_MESSAGE


def result_of(report: Report) -> str:
    """Return what became of an input whose problems are in `report`."""
    return REFUSED if report.errors else WARNED if report.warnings else READ
