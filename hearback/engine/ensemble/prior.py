"""A submission of base rates where the models cannot score: no run ends without one."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hearback.engine.data.problems import Problem
from hearback.engine.errors import HearbackError


@contextlib.contextmanager
def prior_on_failure(submission: Path, write_prior: Callable[[], str]) -> Iterator[None]:
    """Call `write_prior` if scoring fails before it has written the submission.

    It returns what all rows have, such as "their base rate". The error is raised again, and
    standard error says what the submission contains. A submission that is there already, such as
    one of an earlier run, is left as it was.
    """
    before = _state(submission)
    try:
        yield
    except Exception:
        after = _state(submission)
        if after is None:
            with contextlib.suppress(HearbackError, OSError):  # no table: nothing can be written
                have = write_prior()
                _say(f"SCORING FAILED: all rows of {submission} have {have}")
        elif after == before:
            _say(f"SCORING FAILED: {submission} is left as it was")
        else:
            _say(f"FAILED after all scores were written to {submission}")
        raise


def _state(path: Path) -> tuple[int, ...] | None:
    """Return what changes if a file is replaced, or None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # nothing reads it any more
        print(message, file=sys.stderr)


def report_no_models(config: Path, rows: str, prior: str, command: str) -> Problem:
    """Print that no model of an ensemble has a weight; return the problem.

    Args:
        config: path of the ensemble's configuration.
        rows: what the rows have, such as "every row has its base rate".
        prior: what a model has to beat, such as "the base rate".
        command: writes the configuration.
    """
    print(f"NO MODEL of {config} has a weight: {rows}")
    what = f"no model has a weight, so nothing was scored: {rows}"
    return Problem(str(config), None, what, f"train models that beat {prior}, then {command}")
