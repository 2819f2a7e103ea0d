"""One pass over the data for many models: batches, who is on the device, how long it takes.

Models that take in the same (`Intake`) are run side by side, so that a clip is fetched, laid in a
batch and made a spectrogram of once for all of them.
"""

import time
from collections.abc import Callable

from tqdm import tqdm

ESTIMATE_AFTER_SECONDS = 60.0


class Progress:
    """A bar that counts the scores of all models, and an estimate of the time left.

    The estimate goes by `cost`, which the caller adds up in a unit of its own: long windows come
    first, so counting clips would promise too long a wait. It is printed once, after a minute.
    """

    def __init__(
        self,
        n_scores: int,
        cost: float,
        description: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock; without a `description` nothing is shown."""
        self._is_shown = description is not None
        self._bar = tqdm(total=n_scores, desc=description, unit="score", disable=not self._is_shown)
        self._cost, self._done = cost, 0.0
        self._clock, self._started = clock, clock()
        self._is_estimated = False

    def __enter__(self) -> "Progress":
        """Return the progress itself."""
        return self

    def __exit__(self, *of_error: object) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def advance(self, n_scores: int, cost: float) -> None:
        """Count what was done since."""
        self._bar.update(n_scores)
        self._done += cost
        seconds = self._clock() - self._started
        if seconds >= ESTIMATE_AFTER_SECONDS and self._done < self._cost and not self._is_estimated:
            self._is_estimated = True
            self.say(estimate(seconds, self._done / self._cost))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._is_shown:
            self._bar.write(line)


def estimate(seconds: float, share: float) -> str:
    """Say how long the rest will take, when a `share` of the whole took so many seconds."""
    left = seconds * (1 - share) / share
    if left < 90:
        about = f"{left:.0f} s"
    else:
        about = f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
    minutes, rest = divmod(round(seconds), 60)
    return f"after {minutes} min {rest} s: {100 * share:.0f} % done, about {about} to go"
