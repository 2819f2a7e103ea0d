"""Stalls for real: what is done to a training so that it stops learning.

Each is done before a step, to the training or to its batch, and lasts.
"""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from hearback.engine.training.stall_detector import Step
from hearback.reading.training import ReadingTraining
from hearback.reading.window_batches import Batch

Deed = Callable[[ReadingTraining, Batch], Batch]


@dataclass(frozen=True)
class Stall:
    """What is done, in which precision, and what the guard should say."""

    deed: Deed
    said: str  # a regular expression
    precision: str = "float32"


@contextmanager
def provoked(deed: Deed, attempts: Collection[int], after: int = 0) -> Iterator[list[int]]:
    """Let a stall happen in these attempts, after so many steps of each that this process makes.

    Gives a list that grows by the number of an attempt with each of its steps.
    """
    step, made = ReadingTraining._step, list[int]()

    def provoked_step(self: ReadingTraining, batch: Batch, factor: float) -> Step:
        if self.attempt in attempts and made.count(self.attempt) >= after:
            batch = deed(self, batch)
        made.append(self.attempt)
        return step(self, batch, factor)

    with patch.object(ReadingTraining, "_step", provoked_step):
        yield made


def freeze(training: ReadingTraining, batch: Batch) -> Batch:
    """Let every gradient be zero."""
    return _scale_gradients(training, batch, 0.0)


def starve(training: ReadingTraining, batch: Batch) -> Batch:
    """Let gradients be so small that Adam's epsilon outweighs them."""
    return _scale_gradients(training, batch, 1e-9)


def _scale_gradients(training: ReadingTraining, batch: Batch, scale: float) -> Batch:
    for parameter in training.model.parameters():
        if parameter.requires_grad and not parameter._backward_hooks:
            parameter.register_hook(lambda gradient: scale * gradient)
    return batch


def stop_the_optimizer(training: ReadingTraining, batch: Batch) -> Batch:
    """Let the learning rate be zero, whatever the recipe says."""
    for group in training.optimizer.param_groups:
        group["peak_lr"] = 0.0
    return batch


def poison(training: ReadingTraining, batch: Batch) -> Batch:
    """Let one recording be no number."""
    return _with_sample(batch, math.nan)


def shout(training: ReadingTraining, batch: Batch) -> Batch:
    """Let one recording be finite, and its power infinite."""
    return _with_sample(batch, 1e30)


def _with_sample(batch: Batch, value: float) -> Batch:
    waveforms = batch.waveforms.clone()
    waveforms[0, 1000] = value
    return replace(batch, waveforms=waveforms)


def overflow(training: ReadingTraining, batch: Batch) -> Batch:
    """Let gradients be beyond fp16's range on their way back from the logits."""

    def steepen(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> None:  # noqa: ANN401
        if logits.requires_grad:
            logits.register_hook(lambda gradient: 1e12 * gradient)

    if not training.model._forward_hooks:
        training.model.register_forward_hook(steepen)
    return batch


def dull(training: ReadingTraining, batch: Batch) -> Batch:
    """Let the logits hardly depend on anything: small gradients, and a loss that stays put."""
    if not training.model._forward_hooks:
        training.model.register_forward_hook(lambda module, inputs, logits: 1e-4 * logits)
    return batch


# What one step, or a few in a row, betray.
PLAIN = {
    "frozen gradients": Stall(freeze, "gradient norm 0 for 5 steps"),
    "gradients below Adam's epsilon": Stall(starve, "gradient norm .*e-.* for 5 steps"),
    "learning rate zero": Stall(stop_the_optimizer, "no parameter has moved for 5 steps"),
    "a recording of NaN": Stall(poison, "the loss is nan, from the scores of train"),
    "a recording of NaN, bf16": Stall(poison, "the loss is nan, from the sc", "bfloat16"),
    "a recording of 1e30": Stall(shout, "the loss is nan, from the scores of train"),
    "fp16 overflow": Stall(overflow, "20 steps in a row were skipped", "float16"),
}
