"""Schedule training jobs that depend on one another, and collect their outcomes."""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal, Protocol

import pandas as pd

from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles, lock_fold, read_fold_metadata


@dataclass(frozen=True)
class Job:
    """The training of one fold of one model, after the same fold of the model `after`.

    `arguments` are the arguments of python. The output goes into `log`, or to the terminal if None.
    """

    model: str
    fold: int
    arguments: tuple[str, ...]
    log: Path | None = None
    after: str | None = None

    def __str__(self) -> str:
        """Return the model and the fold."""
        return f"{self.model} fold {self.fold}"


@dataclass(frozen=True)
class Ended:
    """The end of a job's process: its exit status, or the reason why there is none."""

    job: Job
    status: int | str
    seconds: float


class Launcher(Protocol):
    """Runs jobs in parallel."""

    @property
    def has_room(self) -> bool:
        """Whether another job may be started."""

    def start(self, job: Job) -> None:
        """Start a job without waiting for it."""

    def wait(self) -> Ended:
        """Wait until a job has ended."""

    def close(self) -> None:
        """Stop the running jobs."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job, and the reason if its fold was not trained."""

    job: Job
    outcome: Literal["trained", "failed", "locked", "not run"]
    reason: str = ""
    seconds: float = float("nan")


def run_all(
    jobs: Sequence[Job], launcher: Launcher, assets: Path, is_done: Callable[[Job], bool]
) -> Iterator[Outcome]:
    """Run the jobs, each after the job it depends on; yield their outcomes.

    A job is skipped if the job it depends on was not trained, if another process is training its
    fold, or if another process has trained it in the meantime (`is_done`).
    """
    by_fold = {(job.model, job.fold): job for job in jobs}
    dependencies = {job: by_fold.get((job.after or "", job.fold)) for job in jobs}
    graph = {job: [first] if first else [] for job, first in dependencies.items()}
    order = TopologicalSorter(graph)
    order.prepare()
    ready: deque[Job] = deque()
    outcomes: dict[Job | None, Outcome] = {}
    while order.is_active():
        ready.extend(order.get_ready())
        if ready and launcher.has_room:
            job = ready.popleft()
            outcome = _skipped(job, outcomes.get(dependencies[job]), assets, is_done)
            if outcome is None:
                launcher.start(job)
                continue
        else:
            outcome = _outcome_of(launcher.wait(), assets)
        outcomes[outcome.job] = outcome
        order.done(outcome.job)
        yield outcome


def _skipped(
    job: Job, dependency: Outcome | None, assets: Path, is_done: Callable[[Job], bool]
) -> Outcome | None:
    """Return the outcome of a job that need not or cannot run; None if it should run."""
    if dependency is not None and dependency.outcome != "trained":
        why = f"it is initialized from {dependency.job}: {dependency.outcome}"
        return Outcome(job, "not run", why)
    if is_locked(job, assets):
        return Outcome(job, "locked", "another process is training it")
    if is_done(job):
        return Outcome(job, "trained", "by another process")
    return None


def _outcome_of(ended: Ended, assets: Path) -> Outcome:
    job, status = ended.job, ended.status
    if status == 0:
        return Outcome(job, "trained", seconds=ended.seconds)
    if is_locked(job, assets):  # the job's own process has ended
        return Outcome(job, "locked", "another process is training it", ended.seconds)
    if isinstance(status, int):
        status = f"exit status {status}" if status > 0 else f"killed: {signal.strsignal(-status)}"
    return Outcome(job, "failed", status, ended.seconds)


def is_locked(job: Job, assets: Path) -> bool:
    """Return whether a process is training the job's fold."""
    try:
        with lock_fold(FoldFiles(assets, job.model, job.fold)):
            return False
    except HearbackError:
        return True


def wait_until_free(job: Job, assets: Path, timeout_seconds: float = 60.0) -> None:
    """Wait until no process trains the job's fold: a killed process takes a moment to end."""
    until = time.monotonic() + timeout_seconds
    while is_locked(job, assets) and time.monotonic() < until:
        time.sleep(0.5)


def describe(outcome: Outcome) -> str:
    """Return an outcome and its reason, for messages."""
    return f"{outcome.outcome} ({outcome.reason})" if outcome.reason else outcome.outcome


def as_table(outcomes: Sequence[Outcome], assets: Path) -> pd.DataFrame:
    """Return a table with each job's outcome, and the log loss of trained folds."""
    rows = []
    for outcome in outcomes:
        job = outcome.job
        fold_metadata = (
            read_fold_metadata(FoldFiles(assets, job.model, job.fold))
            if outcome.outcome == "trained"
            else {}
        )
        rows.append(
            {
                "model": job.model,
                "fold": job.fold,
                "outcome": describe(outcome),
                "log loss": fold_metadata.get("log_loss", float("nan")),
                "seconds": "–" if math.isnan(outcome.seconds) else f"{outcome.seconds:.0f}",
                "attempts": str(len(fold_metadata["attempts"]))
                if "attempts" in fold_metadata
                else "–",
                "log": "–" if job.log is None else str(job.log),
            }
        )
    return pd.DataFrame(rows)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank: the error of a failed training."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    # A progress bar's updates are separated by carriage returns.
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), "")
