"""A submission of base rates, written when the models cannot score: no run ends without one."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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
