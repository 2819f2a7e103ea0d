"""A progress bar over the scores of all models, with an estimate of the time left."""

import time
from collections.abc import Callable

from tqdm import tqdm

ESTIMATE_AFTER_SECONDS = 60.0
# The share that is done: a number of scores, clips times models, would say nothing to a user.
SHARE = "{l_bar}{bar}| {elapsed}<{remaining}"


class Progress:
    """A bar that counts scores, and an estimate of the time left, printed once after a minute.

    The estimate is based on `cost`, in any unit: long windows come first, so an estimate by the
    number of clips would be too long.
    """

    def __init__(
        self,
        n_scores: int,
        cost: float,
        description: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock. Nothing is shown without a `description`, no estimate without a cost."""
        self._is_shown = description is not None
        self._bar = tqdm(
            total=n_scores, desc=description, bar_format=SHARE, disable=not self._is_shown
        )
        self._cost, self._done = cost, 0.0
        self._clock, self._started = clock, clock()
        self._is_estimated = False

    def __enter__(self) -> "Progress":
        """Return the progress itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the bar."""
        self._bar.close()

    def advance(self, n_scores: int, cost: float) -> None:
        """Count finished scores and their cost."""
        self._bar.update(n_scores)
        self._done += cost
        seconds = self._clock() - self._started
        if seconds >= ESTIMATE_AFTER_SECONDS and self._done < self._cost and not self._is_estimated:
            self._is_estimated = True
            self.write(estimate(seconds, self._done / self._cost))

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        if self._is_shown:
            self._bar.write(line)


def estimate(seconds: float, share: float) -> str:
    """Return a line with the time left, after `seconds` for a `share` of the work."""
    left = seconds * (1 - share) / share
    if left < 90:
        about = f"{left:.0f} s"
    else:
        about = f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    minutes, rest = divmod(round(seconds), 60)
    return f"after {minutes} min {rest} s: {100 * share:.0f} % done, about {about} to go"
