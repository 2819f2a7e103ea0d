"""The sections of the check, their time, and how they are run: each in a process of its own.

A process of its own, because an error on a GPU can leave it unusable for the process, and because
it can be ended when its time is up.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_check.record import Check, Outcome, Record
from benchmarks.gpu_check.setting import PHONES
from hearback.engine.launch.processes import ROOT, with_project_path

LIMIT_SECONDS = 480.0  # of all sections together
MARGIN_SECONDS = 8.0  # of the limit, for the tables


@dataclass(frozen=True)
class Section:
    """A part of the check.

    Attributes:
        name: as on the command line.
        title: in the table.
        seconds: its time; the last section gets what is left.
        function: module and name of the function that runs it.
        weights: the pretrained weights without which it fails.
    """

    name: str
    title: str
    seconds: float
    function: str
    weights: tuple[str, ...] = ()

    def load(self) -> Callable[..., None]:
        """Return the function: it takes a `Setting` and a `Record`."""
        module, _, name = self.function.partition(":")
        function: Callable[..., None] = getattr(
            importlib.import_module(f"benchmarks.gpu_check.{module}"), name
        )
        return function


INPUTS = Section("inputs", "Inputs: sample, noise, backbone", 60, "inputs:prepare", (PHONES,))
SECTIONS = (
    INPUTS,
    Section("scores", "Scores and steps as on the CPU", 80, "scores:compare", (PHONES,)),
    Section("fold", "A fold of modeltok", 45, "folds:train_fold"),
    Section("resume", "A kill and a resume", 55, "folds:kill_and_resume"),
    Section("two", "Two folds at once", 50, "folds:train_two_folds"),
    Section("speed", "Speed and memory", 190, "speed:measure", (PHONES,)),
)


@dataclass(frozen=True)
class Result:
    """How a section ended: its outcome, seconds, their limit, and what it found."""

    section: Section
    outcome: Outcome
    seconds: float
    limit: float
    record: Record


def run_all(
    sections: Sequence[Section], flags: Sequence[str], work: Path, limit: float = LIMIT_SECONDS
) -> Iterator[Result]:
    """Run the sections one after the other, and yield their results.

    `flags` are those of the command line that the sections' processes get. A section's time is its
    own, in proportion to `limit`, and at most what is left; the last one has all that is left.
    """
    ends = time.monotonic() + limit - MARGIN_SECONDS
    for section in sections:
        left = ends - time.monotonic()
        own = section.seconds * limit / LIMIT_SECONDS
        yield run_section(section, flags, work, left if section is sections[-1] else min(own, left))


def run_section(section: Section, flags: Sequence[str], work: Path, seconds: float) -> Result:
    """Run a section's process for at most `seconds`."""
    path, log = work / f"{section.name}.json", work / f"{section.name}.log"
    path.unlink(missing_ok=True)
    if seconds <= 0:
        return Result(section, "out of time", 0.0, 0.0, Record(path))
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_of(section, flags, seconds),
            cwd=ROOT,
            env=with_project_path(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status: int | None = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        end_group(process)
    record = Record.load(path)
    outcome = outcome_of(status, record, log)
    return Result(section, outcome, time.monotonic() - started, seconds, record)


def command_of(section: Section, flags: Sequence[str], seconds: float) -> list[str]:
    """Return the command line of a section's process."""
    own = ("--only", section.name, "--run_here", "--seconds", f"{seconds:.1f}")
    return [sys.executable, "-m", "benchmarks.gpu_check", *flags, *own]


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def outcome_of(status: int | None, record: Record, log: Path) -> Outcome:
    """Return how a section ended; one that broke off gets a failed check with the reason."""
    if status is None:
        return "out of time"
    if not record.done:
        lines = log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1][:200] if lines else "no output"
        record.checks.append(Check(f"status {status}", False, reason, "the section's end"))
    return "passed" if record.passed else "failed"
