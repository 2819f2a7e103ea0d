"""Time two implementations of the same work in alternation, on one machine.

The sides take turns (A B, B A, A B, …), so that temporary slowdowns of the machine affect both. The
ratio is that of the median rates; its spread is the lowest and highest ratio of a round (too few
rounds for a bootstrap).
"""

import contextlib
import gc
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks import flops
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, write_json
from hearback.engine.machine import count_processors

Clock = Callable[[], float]  # seconds since an arbitrary start


def cpu_seconds() -> float:
    """Return the processor time of this process and its ended children, in seconds."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": cpu_seconds}


@dataclass(frozen=True)
class Side:
    """One implementation. `run` takes one turn and returns the amount of work, e.g. in clips.

    Turns are repeated until `least_seconds` have passed. `flops_per_unit` are the floating point
    operations per unit of work, if known; otherwise those of Whisper's encoders are counted.
    """

    name: str
    run: Callable[[], float]
    least_seconds: float = 0.0
    flops_per_unit: float | None = None


@dataclass(frozen=True)
class Turn:
    """The units of work, floating point operations and seconds of one turn."""

    amount: float
    flops: float
    seconds: float

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return self.amount / self.seconds

    @property
    def flop_rate(self) -> float:
        """Floating point operations a second."""
        return self.flops / self.seconds


@dataclass(frozen=True)
class Result:
    """Our speed relative to the baseline's, with its spread, and both median rates in `unit`."""

    ratio: float
    low: float
    high: float
    ours: float
    baseline: float
    unit: str


def take_turn(side: Side, clock: Clock) -> Turn:
    """Run a side until its minimum time has passed, without output, and time it."""
    gc.collect()
    amount, done = 0.0, False
    with silence(), flops.counted() as counter:
        _wait_for_device()
        started = clock()
        while not done:
            amount += side.run()
            _wait_for_device()
            seconds = clock() - started
            done = seconds >= side.least_seconds and seconds > 0
    known = side.flops_per_unit
    return Turn(amount, counter.flops if known is None else known * amount, seconds)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress all output in this block."""
    with (
        io.StringIO() as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def take_turns(sides: Sequence[Side], n_rounds: int, clock: Clock) -> list[list[Turn]]:
    """Return the turns of each side, (sides, rounds); the order alternates from round to round.

    Warm up first: imports, compilation and first allocations must not be timed.
    """
    turns: list[list[Turn]] = [[] for _ in sides]
    for number in range(n_rounds):
        order = range(len(sides))
        for side in order if number % 2 == 0 else reversed(order):
            turns[side].append(take_turn(sides[side], clock))
    return turns


def warm_up(sides: Iterable[Side]) -> None:
    """Run one untimed turn of each side."""
    for side in sides:
        take_turn(side, time.perf_counter)


def fastest(sides: Mapping[str, Side], clock: Clock) -> str:
    """Return the name of the side with the highest rate, after one turn each."""
    rates = {name: take_turn(side, clock).rate for name, side in sides.items()}
    return max(rates, key=rates.__getitem__)


def compare(ours: Sequence[Turn], baseline: Sequence[Turn], unit: str) -> Result:
    """Compare the rates of two sides, round by round."""
    ratios = [one.rate / other.rate for one, other in zip(ours, baseline, strict=True)]
    rate, other_rate = median_rate(ours), median_rate(baseline)
    return Result(rate / other_rate, min(ratios), max(ratios), rate, other_rate, unit)


def median_rate(turns: Iterable[Turn]) -> float:
    """Return the median of the turns' rates, in units a second."""
    return statistics.median(turn.rate for turn in turns)


def median_flop_rate(turns: Iterable[Turn]) -> float:
    """Return the median of the turns' floating point operations a second."""
    return statistics.median(turn.flop_rate for turn in turns)


def machine() -> str:
    """Describe the machine: processor, cores, GPU, versions, date."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux only; elsewhere platform's answer is good
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    parts = [f"{processor}, {count_processors()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts += [f"torch {torch.__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*parts, date.today().isoformat()])


def save_results(results: Mapping[str, Result], path: Path) -> None:
    """Write results as JSON, by benchmark; results of other benchmarks in the file are kept.

    Raises HearbackError if the file exists with other content.
    """
    try:
        kept = read_json(path) if path.exists() else {}
    except ValueError as error:
        raise HearbackError(f"{path}: not JSON ({error}); delete it") from None
    if not isinstance(kept, dict):
        raise HearbackError(f"{path}: not a file of results; delete it")
    new = {name: asdict(result) for name, result in results.items()}
    write_json(path, dict(sorted({**kept, **new}.items())))


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
