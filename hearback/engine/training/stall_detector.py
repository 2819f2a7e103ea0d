"""Detect trainings that have stopped learning.

In one published solution about 2 % of the trainings of Whisper encoders stalled, with any seed:
their gradients were far below those of other folds at the same step, and the loss was constant.

Every step is checked. Fatal signs count at once, or after a few steps in a row: numbers that are
not finite, steps that fp16 skips, zero gradients, parameters that do not move. Small gradients
count only together with a high loss, both smoothed, and for `PATIENCE` steps in a row. Both are
compared with the same recipe's finished folds at the same step, or, if there are none, with the
training's own first steps.

The thresholds for small gradients come from 90 healthy trainings of three model families on
speechocean762 and on synthetic speech. The median gradient norm of a window was never below 0.38 of
the other folds' minimum (0.29 with a single other fold). Relative to the training's own start it
fell to 0.012 in three trainings, late, when the loss was already low, and stayed above 0.17
otherwise. Single steps can fall to a thousandth, in batches that are small or have only easy
examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

WINDOW = 20  # steps of the trailing median
PATIENCE = 20  # steps in a row of small gradients and high loss before it counts as a stall
SHARE_OF_SIBLINGS = 0.1  # of the other folds' smallest gradient norm: an order of magnitude
SHARE_OF_START = 0.01  # of the initial norm, which also falls in healthy trainings: two orders
LOSS_ABOVE_SIBLINGS = 0.05  # nats above the other folds' highest; less may be chance
SHARE_OF_STARTING_LOSS = 0.9  # a loss below this share of the initial one has improved
FEW = 5  # steps in a row with a fatal sign; not by chance
ZERO_NORM = 1e-6  # like Adam's usual epsilon: smaller gradients hardly move a weight
LEARNED_LOSS = 0.01  # nats; below, zero gradients are normal
# GradScaler starts at 2^16 and halves its scale at each overflow: after 20 in a row, gradients
# overflow even at a scale of 1/8.
MAX_SKIPPED = 20


class StallError(Exception):
    """A training has stopped learning; the message gives the step and the reason."""


@dataclass(frozen=True)
class Step:
    """The results of one training step.

    `loss` is the batch's mean loss in nats, `gradient_norm` the norm before clipping and after
    unscaling. `applied` is False where fp16's scaler skipped the step for an overflow. `moved`:
    whether any parameter changed; None where the learning rate is too low to expect it. `broken`:
    the recordings with logits that are not finite.
    """

    epoch: int
    loss: float
    gradient_norm: float
    applied: bool = True
    moved: bool | None = None
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """Smoothed losses and gradient norms of a finished fold: per epoch, (steps,) each."""

    losses: tuple[np.ndarray, ...]
    norms: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]]) -> "Curve | None":
        """Build a curve from the epochs of fold metadata; None if they lack values per step."""
        epochs = [epoch for epoch in history if "gradient_norms" in epoch]
        if not epochs or any("losses" not in epoch for epoch in epochs):
            return None  # older than the stall detector, or never trained
        return cls(_smooth(epochs, "losses"), _smooth(epochs, "gradient_norms"))

    def at(self, epoch: int, number: int) -> tuple[float, float]:
        """Return loss and norm at a step of an epoch, both counted from 1.

        Beyond the epoch's last step, which differs between folds, its last values.
        """
        losses, norms = self.losses[epoch - 1], self.norms[epoch - 1]
        index = min(number, len(losses)) - 1
        return float(losses[index]), float(norms[index])


def _smooth(epochs: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, ...]:
    """Return trailing medians over `WINDOW` steps, across epoch boundaries."""
    values = pd.Series([value for epoch in epochs for value in epoch[key]], dtype=float)
    smooth = values.rolling(WINDOW, min_periods=1).median().to_numpy()
    ends = np.cumsum([len(epoch[key]) for epoch in epochs])
    return tuple(np.split(smooth, ends[:-1]))


@dataclass(frozen=True)
class Baseline:
    """The ranges of smoothed norms and losses that a training is compared with, and the bounds.

    A smoothed norm below `norm_bound` together with a loss above `loss_bound` indicates a stall.
    `source` is where the ranges come from, in words.
    """

    source: str
    norms: tuple[float, float]
    losses: tuple[float, float]
    norm_bound: float
    loss_bound: float


class StallDetector:
    """Checks the steps of one attempt at a fold; `siblings` are the recipe's finished folds.

    It draws no random numbers and changes no parameter: healthy trainings are the same with and
    without it. `margin` is the smallest `_distance` from the bounds so far; a stall is reported
    when the distance is below 1 for `PATIENCE` steps in a row.
    """

    def __init__(self, siblings: Sequence[Curve] = ()) -> None:
        self.siblings = siblings
        self.losses: list[float] = []
        self.norms: list[float] = []  # NaN where a step was skipped
        self.margin = math.inf
        self._epoch = 0
        self._number = 0  # of the step within its epoch, from 1
        self._in_a_row = {"skipped": 0, "zero": 0, "unmoved": 0, "low": 0}

    def replay(self, history: Sequence[Mapping[str, Any]]) -> str | None:
        """Update with the recorded steps of epochs; return the first stall's reason, or None."""
        reasons = [
            self.update(step)
            for epoch in history
            if "gradient_norms" in epoch and "losses" in epoch
            for step in recorded_steps(epoch["epoch"], epoch["losses"], epoch["gradient_norms"])
        ]
        return next((reason for reason in reasons if reason is not None), None)

    def update(self, step: Step) -> str | None:
        """Check a step; return why the training has stalled, or None."""
        self._number = self._number + 1 if step.epoch == self._epoch else 1
        self._epoch = step.epoch
        self.losses.append(significant(step.loss))
        self.norms.append(significant(step.gradient_norm) if step.applied else math.nan)
        reason = self._find_fatal(step) or self._find_low_gradients()
        return reason and f"epoch {step.epoch}, step {self._number}: {reason}"

    def _find_fatal(self, step: Step) -> str | None:
        """Return the step's fatal sign, or None."""
        norm, loss = self.norms[-1], self.losses[-1]
        if not math.isfinite(loss):
            source = f", from the logits of {', '.join(step.broken)}" if step.broken else ""
            return f"the loss is {loss}{source}"
        if step.applied and not math.isfinite(norm):
            return f"the gradient norm is {norm} (loss {loss})"
        if self._count("skipped", not step.applied) >= MAX_SKIPPED:
            return f"{MAX_SKIPPED} steps in a row were skipped, their fp16 gradients overflow"
        if self._count("zero", norm <= ZERO_NORM and loss > LEARNED_LOSS) >= FEW:
            return f"gradient norm {norm:.2g} for {FEW} steps, loss {loss:.3f}"
        if self._count("unmoved", step.applied and step.moved is False) >= FEW:
            return f"no parameter has moved for {FEW} steps, loss {loss:.3f}"
        return None

    def _find_low_gradients(self) -> str | None:
        """Return the reason if gradients are small and the loss high for `PATIENCE` steps."""
        baseline = self._baseline()
        if baseline is None:
            return None
        norm, loss = _median(self.norms[-WINDOW:]), _median(self.losses[-WINDOW:])
        distance = _distance(norm, loss, baseline)
        self.margin = min(self.margin, distance)
        if self._count("low", distance < 1) < PATIENCE:
            return None
        return (
            f"gradient norm {norm:.2g} and loss {loss:.3f}, {baseline.source} had "
            f"{_range(baseline.norms, '.2g')} and {_range(baseline.losses, '.3f')} "
            f"(medians of {WINDOW} steps, for {PATIENCE} steps)"
        )

    def _baseline(self) -> Baseline | None:
        """Return the ranges to compare this step with; None in the first steps."""
        if len(self.norms) <= 2 * WINDOW:
            return None
        if self.siblings:
            losses, norms = zip(
                *(curve.at(self._epoch, self._number) for curve in self.siblings), strict=True
            )
            return Baseline(
                f"the other fold{'s' if len(self.siblings) > 1 else ''} at this step",
                norms=(min(norms), max(norms)),
                losses=(min(losses), max(losses)),
                norm_bound=SHARE_OF_SIBLINGS * min(norms),
                loss_bound=max(losses) + LOSS_ABOVE_SIBLINGS,
            )
        norm, loss = _median(self.norms[:WINDOW]), _median(self.losses[:WINDOW])
        return Baseline(
            f"its first {WINDOW} steps",
            norms=(norm, norm),
            losses=(loss, loss),
            norm_bound=SHARE_OF_START * norm,
            loss_bound=SHARE_OF_STARTING_LOSS * loss,
        )

    def _count(self, name: str, happened: bool) -> int:
        """Return the number of consecutive steps, up to this one, in which `name` happened."""
        self._in_a_row[name] = self._in_a_row[name] + 1 if happened else 0
        return self._in_a_row[name]


def recorded_steps(
    epoch: int, losses: Sequence[float], norms: Sequence[float | None]
) -> list[Step]:
    """Return the steps of an epoch's record; a skipped one has no finite norm."""
    known = [math.nan if norm is None else norm for norm in norms]
    return [
        Step(epoch, loss, norm, applied=math.isfinite(norm))
        for loss, norm in zip(losses, known, strict=True)
    ]


def significant(number: float) -> float:
    """Round a number to four digits, so that recorded and live steps give the same results."""
    return float(f"{number:.4g}")


def _median(values: Sequence[float]) -> float:
    """Return the median without NaNs; NaN if nothing is left."""
    numbers = [value for value in values if not math.isnan(value)]
    return median(numbers) if numbers else math.nan


def _distance(norm: float, loss: float, baseline: Baseline) -> float:
    """Return the larger of the two ratios to the bounds; below 1, both are violated."""
    ratios = (_ratio(norm, baseline.norm_bound), _ratio(baseline.loss_bound, loss))
    return max((ratio for ratio in ratios if not math.isnan(ratio)), default=math.inf)


def _ratio(value: float, bound: float) -> float:
    return value / bound if bound > 0 else math.inf


def _range(bounds: tuple[float, float], spec: str) -> str:
    low, high = (format(bound, spec) for bound in bounds)
    return low if low == high else f"{low} to {high}"
