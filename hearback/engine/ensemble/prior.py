"""A submission of base rates where the models cannot score: no run ends without one."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hearback.engine.data.problems import Problem
from hearback.engine.errors import HearbackError


@contextlib.contextmanager
def prior_on_failure(submission: Path, write_prior: Callable[[], object]) -> Iterator[None]:
    """Call `write_prior` if scoring fails before it has written the submission.

    The error is raised again, and standard error says what the submission contains. A submission
    that is there already, such as one of an earlier run, is left as it is.
    """
    try:
        yield
    except Exception:
        if submission.exists():
            print(f"SCORING FAILED: {submission} is left as it was", file=sys.stderr)
        else:
            with contextlib.suppress(HearbackError, OSError):  # no table: nothing can be written
                write_prior()
                print(
                    f"SCORING FAILED: all rows of {submission} have their base rate",
                    file=sys.stderr,
                )
        raise


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
