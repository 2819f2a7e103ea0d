"""Faults that make a training stall, injected before a step."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from hearback.engine.training.trainer import PendingStep, Trainer
from hearback.reading.window_batches import Batch

# Changes the trainer or the batch of a step; returns the batch.
Fault = Callable[[Trainer, Batch], Batch]


@dataclass(frozen=True)
class Stall:
    """A fault, the regular expression of the reason to be reported, and the precision."""

    fault: Fault
    reason: str
    precision: str = "float32"


@contextmanager
def injected(fault: Fault, attempts: Collection[int], after: int = 0) -> Iterator[list[int]]:
    """Inject a fault in these attempts, from step `after` of each on (counted in this process).

    Yields a list of the attempt of each step, which grows with every step.
    """
    training_step, attempt_of_steps = Trainer.training_step, list[int]()

    def step_with_fault(self: Trainer, batch: Any, factor: float) -> PendingStep:
        attempt = self.run.attempt
        if attempt in attempts and attempt_of_steps.count(attempt) >= after:
            batch = fault(self, batch)
        attempt_of_steps.append(attempt)
        return training_step(self, batch, factor)

    with patch.object(Trainer, "training_step", step_with_fault):
        yield attempt_of_steps


def zero_gradients(trainer: Trainer, batch: Batch) -> Batch:
    """Make every gradient zero."""
    return _scale_gradients(trainer, batch, 0.0)


def tiny_gradients(trainer: Trainer, batch: Batch) -> Batch:
    """Make gradients small compared to Adam's epsilon."""
    return _scale_gradients(trainer, batch, 1e-9)


def _scale_gradients(trainer: Trainer, batch: Batch, scale: float) -> Batch:
    for parameter in trainer.model.parameters():
        if parameter.requires_grad and not parameter._backward_hooks:
            parameter.register_hook(lambda gradient: scale * gradient)
    return batch


def zero_learning_rate(trainer: Trainer, batch: Batch) -> Batch:
    """Set the learning rate to zero, whatever the recipe."""
    for group in trainer.optimizer.param_groups:
        group["peak_lr"] = 0.0
    return batch


def nan_sample(trainer: Trainer, batch: Batch) -> Batch:
    """Put a NaN into one recording."""
    return _with_sample(batch, math.nan)


def huge_sample(trainer: Trainer, batch: Batch) -> Batch:
    """Make one recording's power overflow."""
    return _with_sample(batch, 1e30)


def _with_sample(batch: Batch, value: float) -> Batch:
    waveforms = batch.waveforms.clone()
    waveforms[0, 1000] = value
    return replace(batch, waveforms=waveforms)


def overflowing_gradients(trainer: Trainer, batch: Batch) -> Batch:
    """Scale the logits' gradients beyond fp16's range."""

    def scale_gradient(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> None:
        if logits.requires_grad:
            logits.register_hook(lambda gradient: 1e12 * gradient)

    if not trainer.model._forward_hooks:
        trainer.model.register_forward_hook(scale_gradient)
    return batch


def constant_logits(trainer: Trainer, batch: Batch) -> Batch:
    """Scale the logits to almost zero: small gradients and a constant loss."""
    if not trainer.model._forward_hooks:
        trainer.model.register_forward_hook(lambda module, inputs, logits: 1e-4 * logits)
    return batch


# Detected within a few steps.
IMMEDIATE = {
    "zero gradients": Stall(zero_gradients, "gradient norm 0 for 5 steps"),
    "gradients below Adam's epsilon": Stall(tiny_gradients, "gradient norm .*e-.* for 5 steps"),
    "learning rate zero": Stall(zero_learning_rate, "no parameter has moved for 5 steps"),
    "a recording of NaN": Stall(nan_sample, "the loss is nan, from the logits of train"),
    "a recording of NaN, bf16": Stall(nan_sample, "the loss is nan, from the lo", "bfloat16"),
    "a recording of 1e30": Stall(huge_sample, "the loss is nan, from the logits of train"),
    "fp16 overflow": Stall(overflowing_gradients, "20 steps in a row were skipped", "float16"),
}
