"""The time limit of inference: the seconds that are left for scoring.

A limit counts from the start of the process, so that imports, decoding and rendering count too.
"""

import os
import time
from collections.abc import Callable
from math import inf, isinf
from pathlib import Path

from hearback.engine.errors import HearbackError
from hearback.reading import step_command
from hearback.reading.ensemble import EnsembleConfig

# Reserved for the time after scoring: writing tables and ending the process.
MARGIN_SECONDS = 2.0
MARGIN_SHARE = 0.02  # of the limit
MARGIN_OF_START = 0.1  # of the time before scoring: a slow start suggests a slow end
_STAT = Path("/proc/self/stat")
_START_TICKS_FIELD = 19  # of those after the process's name (man 5 proc)
_imported = time.monotonic()


def seconds_since_start() -> float:
    """Return the age of this process in seconds; if unknown, the time since this import."""
    since_import = time.monotonic() - _imported
    if not (_STAT.exists() and hasattr(time, "CLOCK_BOOTTIME")):
        return since_import
    ticks = int(_STAT.read_text(encoding="utf-8").rpartition(")")[2].split()[_START_TICKS_FIELD])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(age, since_import)


class Deadline:
    """A limit in seconds from the start of the process, less a margin for writing the results."""

    def __init__(
        self, limit: float = inf, clock: Callable[[], float] = seconds_since_start
    ) -> None:
        """Start scoring; `clock` returns the seconds since the process started."""
        self.clock = clock
        margin = MARGIN_SECONDS + MARGIN_SHARE * limit + MARGIN_OF_START * clock()
        self._end = inf if isinf(limit) else limit - margin

    @property
    def is_infinite(self) -> bool:
        """Whether there is no limit."""
        return isinf(self._end)

    def left(self) -> float:
        """Return the seconds left for scoring."""
        return self._end - self.clock()


def check_can_schedule(config: EnsembleConfig) -> None:
    """Raise HearbackError if the configuration is incomplete for scheduling within a limit.

    Required are the seconds per clip of each model and, with several models, fallbacks.
    """
    models = config.models_to_run
    is_timed = all(model.seconds_per_clip for model in models)
    if not is_timed or (len(models) > 1 and not config.fallbacks):
        raise HearbackError(
            "the ensemble's configuration lacks the models' seconds per clip or the fallbacks for "
            "subsets of its models, so --time_limit cannot choose; write it again with "
            f"{step_command('get_config')} (if they are still missing, train the models again)"
        )
