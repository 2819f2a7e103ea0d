"""What a launch shows: a bar of the folds, and how far the running ones are."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from hearback.engine.launch.jobs import Job, Outcome, describe, last_line

TERMINAL_SECONDS = 0.5  # between two updates of the bar
LINE_SECONDS = 5.0  # between two lines where there is no terminal; ever longer, up to a minute
_BAR = re.compile(r"(?P<title>.+?):\s+(?P<percent>\d+)%\|")  # of tqdm, in a job's log


class Monitor:
    """Shows finished folds, and what the bars in the logs of running jobs show.

    On a terminal that is part of the bar; elsewhere it is a line every few seconds.
    """

    def __init__(
        self,
        n_jobs: int,
        *,
        shown: bool,
        is_terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_jobs, self._shown, self._clock = n_jobs, shown, clock
        self._is_terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
        self._bar: tqdm | None = None  # from the first job on
        self._started = self._last = clock()
        self._text = ""

    def show_running(self, jobs: Sequence[Job]) -> None:
        """Show how far jobs are; most calls do nothing, so it may be called often."""
        now = self._clock()
        pause = TERMINAL_SECONDS
        if not self._is_terminal:
            pause = min(60.0, max(LINE_SECONDS, (now - self._started) / 10))
        if self._bar is None or not self._shown or now - self._last < pause:
            return
        self._last = now
        text = "; ".join(map(progress_of, jobs))
        if text == self._text:
            return
        self._text = text
        if self._is_terminal:
            self._bar.set_postfix_str(text)
        else:
            self._bar.write(text)

    def follow(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """Pass on the outcomes; print each one, and advance the bar."""
        not_shown = not self._shown
        with tqdm(total=self._n_jobs, desc="training", unit="fold", disable=not_shown) as self._bar:
            for outcome in outcomes:
                tqdm.write(f"{outcome.job}: {describe(outcome)}")
                self._bar.update()
                yield outcome


def progress_of(job: Job) -> str:
    """Return how far a running job is: the last bar in its log, or that it is running."""
    line = last_line(job.log) if job.log is not None and job.log.exists() else ""
    bar = _BAR.match(line)
    return f"{bar['title']} {bar['percent']} %" if bar else f"{job} is running"
