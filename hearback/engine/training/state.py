"""The progress of a training: finished epochs, the current epoch, and the best results so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from hearback.engine.training.checkpoint import with_prefix, without_prefix
from hearback.engine.training.stall_detector import significant


@dataclass
class EpochProgress:
    """The steps of the current epoch: mean loss and gradient norm of each."""

    n_examples: int = 0
    loss_sum: float = 0.0  # over these examples
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, n_examples: int, loss: float, gradient_norm: float) -> None:
        """Count one step."""
        self.n_examples += n_examples
        self.loss_sum += loss * n_examples
        self.losses.append(loss)
        self.gradient_norms.append(gradient_norm)

    @property
    def mean_loss(self) -> float:
        """The mean loss of the examples so far."""
        return self.loss_sum / self.n_examples

    def steps(self) -> dict[str, list[float | None]]:
        """Return losses and gradient norms for the metadata: four digits, None where not finite.

        The norm of a step that fp16's scaler skipped is not finite.
        """
        return {
            "gradient_norms": _for_json(self.gradient_norms),
            "losses": _for_json(self.losses),
        }

    def record(self, epoch: int) -> dict[str, Any]:
        """Return the record of a finished epoch, without validation metrics."""
        applied = [norm for norm in self.gradient_norms if math.isfinite(norm)]
        return {
            "epoch": epoch,
            "train_log_loss": self.mean_loss,
            "mean_gradient_norm": float(np.mean(applied)) if applied else None,
            "largest_gradient_norm": max(applied, default=None),
            **self.steps(),
            "train_seconds": round(self.seconds, 2),
        }


def _for_json(numbers: Sequence[float]) -> list[float | None]:
    return [significant(number) if math.isfinite(number) else None for number in numbers]


@dataclass
class TrainingState:
    """Finished epochs, the progress of the current one, and the best epoch's results.

    `random` is the state of torch's generator, if a checkpoint within an epoch was loaded.
    """

    epoch: int = 0
    progress: EpochProgress = field(default_factory=EpochProgress)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_predictions: dict[str, Tensor] = field(default_factory=dict)
    random: dict[str, Tensor] = field(default_factory=dict)

    def best(self, keep: str) -> dict[str, Any]:
        """Return the record of the epoch to keep: the "last", or the "best" by log loss."""
        if keep == "last":
            return self.history[-1]
        return min(self.history, key=lambda epoch: epoch["validation_log_loss"])

    def end_epoch(self) -> dict[str, Any]:
        """Count the current epoch as finished; return its record, without validation metrics."""
        self.epoch += 1
        record = self.progress.record(self.epoch)
        self.progress = EpochProgress()
        return record

    @property
    def seconds(self) -> float:
        """Time spent on training and validation so far, in seconds."""
        finished = sum(each["train_seconds"] + each["validation_seconds"] for each in self.history)
        return finished + self.progress.seconds

    def describe_attempt(self, attempt: int, outcome: str, reason: str | None) -> dict[str, Any]:
        """Return the metadata's record of an attempt: how it ended, where and why."""
        within_epoch = bool(self.progress.losses)
        last = {} if within_epoch or not self.history else self.history[-1]
        return {
            "attempt": attempt,
            "outcome": outcome,
            "reason": reason,
            "epoch": self.epoch + within_epoch,
            "step": len(last.get("losses", self.progress.losses)),
            "seconds": round(self.seconds, 2),
        }

    def all_steps(self) -> dict[str, list[float | None]]:
        """Return losses and gradient norms of all epochs, one list each."""
        steps = self.progress.steps()
        for epoch in reversed(self.history):
            for name in steps:
                steps[name] = [*epoch.get(name, ()), *steps[name]]
        return steps

    def tensors(self) -> dict[str, Tensor]:
        """Return the best epoch's weights and predictions, for a checkpoint."""
        return {
            **with_prefix("best", self.best_weights),
            **with_prefix("predictions", self.best_predictions),
        }

    def notes(self) -> dict[str, Any]:
        """Return the rest of the state as JSON values, for a checkpoint."""
        return {"epoch": self.epoch, "progress": asdict(self.progress), "history": self.history}

    @classmethod
    def from_checkpoint(
        cls, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]
    ) -> "TrainingState":
        """Restore the state from a checkpoint's tensors and notes."""
        progress = EpochProgress(**notes["progress"])
        return cls(
            epoch=notes["epoch"],
            progress=progress,
            history=notes["history"],
            best_weights=without_prefix("best", tensors),
            best_predictions=without_prefix("predictions", tensors),
            # Epochs are seeded at their start: only a checkpoint within one needs the state.
            random=without_prefix("random", tensors) if progress.losses else {},
        )
