"""How fast this machine computes a pass: some of its batches are computed, and timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Literal

import numpy as np
import torch

from hearback.engine import failures
from hearback.engine.errors import HearbackError
from hearback.engine.plan.flops import counted
from hearback.engine.plan.memory import saved_tensors
from hearback.engine.plan.workload import BatchSize, Pass
from hearback.engine.training.trainer import Trainer

Counted = Literal["saved", "flops"]  # bytes kept for the backward pass, or operations
_SEED = 1603
_WARM_UP = 0.25  # share of the time; the first calls are slower
MIN_TIMED = 2  # batches
# On a CPU, the C library keeps freed memory (`engine.malloc`), in blocks that a batch of another
# size does not fit into. From the peaks of trainings (docs/guide/training.md).
CPU_OVERHEAD = 1.6


@dataclass(frozen=True)
class Speed:
    """The measured speed of a pass.

    Attributes:
        seconds: per unit of cost.
        flops: floating point operations per unit of cost.
        step_seconds: of a training step, whatever its size: what the optimizer takes.
        activations: bytes kept for the backward pass, per unit of size.
        step_bytes: the same of a step, whatever its size.
        overhead: how many times as much a step takes at its peak.
    """

    seconds: float
    flops: float
    step_seconds: float = 0.0
    activations: float = 0.0
    step_bytes: float = 0.0
    overhead: float = 1.0

    @property
    def flops_per_second(self) -> float:
        """The rate, without what the optimizer takes."""
        return self.flops / self.seconds


def measure(trainer: Trainer, each: Pass, seconds: float) -> Speed:
    """Compute some batches of a pass, drawn at random, for about `seconds`.

    Where even one batch takes longer, only its first examples are computed. Raises HearbackError if
    a single example does not fit in memory.
    """
    run = each.compute or partial(train_step, trainer)
    order = _drawn(each)
    timer = _Timer(trainer, each, run)
    # The largest batch needs the most memory, which grows with its examples, not with its window.
    largest = max(range(len(each.batches)), key=lambda index: each.batches[index].size)
    with _whole_batches(trainer):
        first, second = (timer.call_fitting(largest, n, count="saved")[1] for n in (1, 2))
    per_cost = min(call.seconds / call.size.cost for call in (first, second))
    per_example = per_cost * each.cost / each.n_examples
    n_examples = max(1, int(_WARM_UP * seconds / per_example))
    n_examples, counting = timer.call_fitting(next(order), n_examples, count="flops")
    per_step = 0.0
    if each.compute is None:
        per_step = step_seconds(trainer)
    if trainer.run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.run.device)
    spent, calls = 0.0, list[_Call]()
    while spent < seconds or len(calls) < MIN_TIMED:
        calls.append(timer.call(next(order), n_examples))
        spent += calls[-1].seconds
        if spent > 2 * seconds:
            break
    computing = sum(max(call.seconds - per_step, 0.1 * call.seconds) for call in calls)
    slope, at_zero = _line(first, second)
    micro_batch = trainer.run.options.micro_batch
    at_once = max(call.size.size_at_once(micro_batch) for call in calls)
    return Speed(
        seconds=computing / sum(call.size.cost for call in calls),
        flops=counting.flops / counting.size.cost,
        step_seconds=per_step,
        activations=slope,
        step_bytes=at_zero,
        overhead=_overhead(trainer, slope * at_once + at_zero),
    )


def measure_loading(each: Pass, seconds: float) -> float:
    """Return the seconds that loading an example takes; 0 for a pass whose speed includes it."""
    if not each.is_loaded:
        return 0.0
    started, n_examples = time.monotonic(), 0
    for index in _drawn(each):
        _, size = each.load(index, each.batches[index].n_examples)
        n_examples += size.n_examples
        spent = time.monotonic() - started
        if spent > seconds:
            break
    return spent / n_examples


def train_step(trainer: Trainer, batch: Any) -> None:  # noqa: ANN401  (a task's own batch)
    """Take a training step, and wait for it."""
    trainer.model.train()
    splits = trainer.micro_batches
    loaded = batch.to(trainer.run.device) if splits is None else splits.split(batch)
    trainer.training_step(loaded, 0.5).read(trainer.run.data.filenames)


@contextmanager
def _whole_batches(trainer: Trainer) -> Iterator[None]:
    """Compute batches at once in this block, even with --micro_batch: see `saved_tensors`."""
    splits, trainer.micro_batches = trainer.micro_batches, None
    try:
        yield
    finally:
        trainer.micro_batches = splits


def _drawn(each: Pass) -> Iterator[int]:
    """Yield the indices of the batches in random order, again and again."""
    return cycle(np.random.default_rng(_SEED).permutation(len(each.batches)).tolist())


@dataclass(frozen=True)
class _Call:
    """A computed batch; `saved`, the bytes kept for the backward pass, and `flops` if counted."""

    seconds: float
    size: BatchSize
    saved: int = 0
    flops: float = 0.0


class _Timer:
    def __init__(self, trainer: Trainer, each: Pass, run: Callable[[Any], None]) -> None:
        self.trainer, self.each, self.run = trainer, each, run
        self.trains = each.compute is None

    def call(self, index: int, n_examples: int, *, count: Counted | None = None) -> _Call:
        """Compute the first examples of a batch; counting slows it down."""
        limit = self.each.batches[index].n_examples
        batch, size = self.each.load(index, min(limit, n_examples))
        with ExitStack() as stack:
            counter = stack.enter_context(counted()) if count == "flops" else None
            saved = None
            if count == "saved" and self.trains:
                saved = stack.enter_context(saved_tensors(self.trainer.model))
            started = time.perf_counter()
            self.run(batch)
            seconds = time.perf_counter() - started
        flops = float(counter.get_total_flops()) if counter is not None else 0.0
        return _Call(seconds, size, saved.n_bytes if saved else 0, flops)

    def call_fitting(
        self, index: int, n_examples: int, *, count: Counted | None = None
    ) -> tuple[int, _Call]:
        """Call with fewer examples if these do not fit in memory; return their number, too."""
        while n_examples:
            try:
                return n_examples, self.call(index, n_examples, count=count)
            except Exception as error:
                if not failures.is_out_of_memory(error):
                    raise
            self.trainer.optimizer.zero_grad(set_to_none=True)
            n_examples //= 2
        name, device = self.trainer.run.recipe.name, self.trainer.run.device
        raise HearbackError(
            f"{name}: not even one example fits in the memory of {device}; use a smaller "
            "--backbone or another --device"
        )


def _line(small: _Call, large: _Call) -> tuple[float, float]:
    """Return the bytes that a pass keeps per unit of size, and those of a batch without examples.

    Reduced precision copies the weights, whatever the number of examples.
    """
    if large.size.size > small.size.size and large.saved > small.saved:
        slope = (large.saved - small.saved) / (large.size.size - small.size.size)
        return slope, max(0.0, small.saved - slope * small.size.size)
    return large.saved / large.size.size, 0.0


def _overhead(trainer: Trainer, kept: float) -> float:
    """Return the peak memory of the steps so far, relative to what the largest of them kept."""
    device = trainer.run.device
    if device.type != "cuda" or not kept:
        return CPU_OVERHEAD
    at_peak = torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device)
    return max(1.0, at_peak / kept)


def step_seconds(trainer: Trainer) -> float:
    """Return the seconds that clipping, optimizer and average take, whatever the batch."""
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    started = time.perf_counter()
    nothing = sum(each.flatten()[0] * 0.0 for each in trained)
    trainer.optimization.step([nothing], 0.0).gradient_norm.item()
    return time.perf_counter() - started
