"""Trainings that wait for one another, and what became of each."""

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
from tqdm import tqdm

from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles, only_trainer, read_fold_metadata


@dataclass(frozen=True)
class Job:
    """One fold of one model that is to be trained, after the same fold of `after`.

    `arguments` are what python is run with. The output goes into `log`, or to the terminal.
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
    """How a job's process ended: its exit status, or in words why there is none."""

    job: Job
    status: int | str
    seconds: float


class Launcher(Protocol):
    """Something that runs jobs."""

    @property
    def has_room(self) -> bool:
        """Whether another job may be started."""

    def start(self, job: Job) -> None:
        """Start a job, without waiting for it."""

    def wait(self) -> Ended:
        """Wait until one of the jobs has ended."""

    def close(self) -> None:
        """End the jobs that are still running."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job, and why where it is not trained."""

    job: Job
    outcome: Literal["trained", "failed", "locked", "not run"]
    why: str = ""
    seconds: float = float("nan")


def run_all(
    jobs: Sequence[Job], launcher: Launcher, assets: Path, is_done: Callable[[Job], bool]
) -> Iterator[Outcome]:
    """Run the jobs, each after the one that it waits for; yield what became of each.

    A job is not run where the one that it waits for was not trained, where another process trains
    its fold, or where one has trained it meanwhile, as `is_done` says when its turn has come.
    """
    by_fold = {(job.model, job.fold): job for job in jobs}
    awaited = {job: by_fold.get((job.after or "", job.fold)) for job in jobs}
    order = TopologicalSorter({job: [before] if before else [] for job, before in awaited.items()})
    order.prepare()
    ready: deque[Job] = deque()
    outcomes: dict[Job | None, Outcome] = {}
    n_running = 0
    while order.is_active():
        ready.extend(order.get_ready())
        if ready and launcher.has_room:
            job = ready.popleft()
            outcome = _without_running(job, outcomes.get(awaited[job]), assets, is_done)
            if outcome is None:
                launcher.start(job)
                n_running += 1
                continue
        else:
            outcome = _of_ended(launcher.wait(), assets)
            n_running -= 1
        outcomes[outcome.job] = outcome
        order.done(outcome.job)
        yield outcome


def _without_running(
    job: Job, before: Outcome | None, assets: Path, is_done: Callable[[Job], bool]
) -> Outcome | None:
    """Return what is to be said of a job that need not or cannot be run, or None."""
    if before is not None and before.outcome != "trained":
        return Outcome(job, "not run", f"it starts from {before.job}: {before.outcome}")
    if is_locked(job, assets):
        return Outcome(job, "locked", "another process trains it")
    if is_done(job):
        return Outcome(job, "trained", "by another process meanwhile")
    return None


def _of_ended(ended: Ended, assets: Path) -> Outcome:
    job, status = ended.job, ended.status
    if status == 0:
        return Outcome(job, "trained", seconds=ended.seconds)
    if is_locked(job, assets):  # its own process has ended, so this is another
        return Outcome(job, "locked", "another process trains it", ended.seconds)
    if isinstance(status, int):
        status = f"exit status {status}" if status > 0 else f"killed: {signal.strsignal(-status)}"
    return Outcome(job, "failed", status, ended.seconds)


def is_locked(job: Job, assets: Path) -> bool:
    """Return whether some process trains the job's fold at this moment."""
    try:
        with only_trainer(FoldFiles(assets, job.model, job.fold)):
            return False
    except HearbackError:
        return True


def wait_until_free(job: Job, assets: Path, most_seconds: float = 60.0) -> None:
    """Wait until no process trains the job's fold: one that is killed takes a moment to go."""
    until = time.monotonic() + most_seconds
    while is_locked(job, assets) and time.monotonic() < until:
        time.sleep(0.5)


def with_progress(outcomes: Iterator[Outcome], n_jobs: int, *, bar: bool) -> Iterator[Outcome]:
    """Pass on the outcomes, a line for each as it comes, and a bar."""
    with tqdm(total=n_jobs, desc="training", unit="fold", disable=not bar) as progress:
        for outcome in outcomes:
            tqdm.write(f"{outcome.job}: {said(outcome)}")
            progress.update()
            yield outcome


def said(outcome: Outcome) -> str:
    """Return what became of a job in words."""
    return f"{outcome.outcome} ({outcome.why})" if outcome.why else outcome.outcome


def as_table(outcomes: Sequence[Outcome], assets: Path) -> pd.DataFrame:
    """Return a row for each job: what became of it, and how good the fold is if it is trained."""
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
                "outcome": said(outcome),
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
    """Return the last line of a log that says something: where a training failed, its error."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    # A progress bar's states are parted by carriage returns.
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), "")
