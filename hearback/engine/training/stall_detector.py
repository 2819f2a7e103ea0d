"""Tell a training that has stopped learning from one that is at it.

About 2 % of the competition's trainings stalled: tiny gradients against the same step of other
folds and a loss that stayed put, whatever the seed; its author watched for them by eye. Here every
step is judged. What no training survives is seen at once, or after a few steps in a row: numbers
that are not finite, steps that fp16 skips, gradients of zero, parameters that do not move. What is
merely small is compared with the same recipe's finished folds at the same step, or, where there are
none yet, with the training's own first steps; it counts as a stall only where gradient and loss
both say so, smoothed, and for some time.

The thresholds of this second kind come from 90 healthy trainings of comparisons, aligned
comparisons and token scorers on speechocean762 and on the embedded sample. A window's median
gradient norm was never below 0.38 of the smallest of the other folds' (0.29 of a single one's). Of
its own start's it fell to 0.012 in three trainings, late, when there was little left to learn; in
all others it stayed above 0.17. Single steps fall to a thousandth: batches of a rare window length
are small, or all their clips easy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

WINDOW = 20  # trailing steps of which the median counts
PATIENCE = 20  # steps in a row for which small gradients and a high loss are borne
SHARE_OF_OTHERS = 0.1  # of the other folds' smallest gradient norm: an order of magnitude
SHARE_OF_START = 0.01  # of the start's; it falls for good reasons too, so two orders
LOSS_ABOVE_OTHERS = 0.05  # nats over the other folds' highest; less is chance, or little to learn
SHARE_OF_STARTING_LOSS = 0.9  # a loss below that of the start's has not stayed put
FEW = 5  # steps in a row that are no chance
ZERO_NORM = 1e-6  # Adam's epsilon in the competition: what is smaller hardly moves a weight
NOTHING_TO_LEARN = 0.01  # nats; where the loss is lower, gradients may be zero
# GradScaler begins at 2^16 and halves its scale at each overflow: after 20 in a row, gradients that
# were scaled down by eight overflowed still.
MOST_SKIPPED = 20


@dataclass(frozen=True)
class Step:
    """What one step of a training showed.

    `loss` is the mean of the batch's clips in nats, `gradient_norm` that before clipping and after
    unscaling. `applied`: whether the optimizer took the step, or fp16's scaler skipped it for an
    overflow. `moved`: whether any parameter changed; None where the learning rate is so low that
    this cannot be asked for. `broken`: the recordings whose score is no number.
    """

    epoch: int
    loss: float
    gradient_norm: float
    applied: bool = True
    moved: bool | None = None
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Curve:
    """What a finished fold showed, smoothed as the guard does: per epoch, (steps,) each."""

    losses: tuple[np.ndarray, ...]
    norms: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]]) -> "Curve | None":
        """Make a curve of a metadata's epochs; None where they do not say it step by step."""
        epochs = [epoch for epoch in history if "gradient_norms" in epoch]
        if not epochs or any("losses" not in epoch for epoch in epochs):
            return None  # older than the guard, or never trained
        return cls(_smooth(epochs, "losses"), _smooth(epochs, "gradient_norms"))

    def at(self, epoch: int, number: int) -> tuple[float, float]:
        """Return loss and norm at an epoch's step, both counted from 1, or at its last before it.

        The epochs of two folds differ by a few steps.
        """
        losses, norms = self.losses[epoch - 1], self.norms[epoch - 1]
        place = min(number, len(losses)) - 1
        return float(losses[place]), float(norms[place])


def _smooth(epochs: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, ...]:
    """Return the trailing medians over `WINDOW` steps, which reach back over an epoch's start."""
    values = pd.Series([value for epoch in epochs for value in epoch[key]], dtype=float)
    smooth = values.rolling(WINDOW, min_periods=1).median().to_numpy()
    ends = np.cumsum([len(epoch[key]) for epoch in epochs])
    return tuple(np.split(smooth, ends[:-1]))


@dataclass(frozen=True)
class Usual:
    """The range of smoothed norms and losses that a training is compared with, and its bounds.

    A training whose norm is below `norm_bound` and whose loss is above `loss_bound` is stalled.
    """

    whose: str
    norms: tuple[float, float]
    losses: tuple[float, float]
    norm_bound: float
    loss_bound: float


class StallDetector:
    """Watches one attempt at a fold; `others` are the recipe's finished folds.

    It draws no random numbers and touches no parameter: a training that never stalls is the same
    with it and without it.
    """

    def __init__(self, others: Sequence[Curve] = ()) -> None:
        self.others = others
        self.losses: list[float] = []
        self.norms: list[float] = []  # NaN where a step was skipped
        self.margin = math.inf  # the least so far; below 1 a stall comes near (`_distance`)
        self._epoch = 0
        self._number = 0  # of the step in its epoch, from 1
        self._in_a_row = {"skipped": 0, "zero": 0, "unmoved": 0, "low": 0}

    def replay(self, history: Sequence[Mapping[str, Any]]) -> str | None:
        """See the steps that a metadata's epochs tell of; return what the first stall was, if any."""
        reasons = [
            self.see(step)
            for epoch in history
            if "gradient_norms" in epoch and "losses" in epoch
            for step in recorded(epoch["epoch"], epoch["losses"], epoch["gradient_norms"])
        ]
        return next((reason for reason in reasons if reason is not None), None)

    def see(self, step: Step) -> str | None:
        """Take note of a step; return in words why the training has stalled, or None."""
        self._number = self._number + 1 if step.epoch == self._epoch else 1
        self._epoch = step.epoch
        self.losses.append(significant(step.loss))
        self.norms.append(significant(step.gradient_norm) if step.applied else math.nan)
        what = self._broken(step) or self._low()
        return what and f"epoch {step.epoch}, step {self._number}: {what}"

    def _broken(self, step: Step) -> str | None:
        """Say what no training survives."""
        norm, loss = self.norms[-1], self.losses[-1]
        if not math.isfinite(loss):
            said = f", from the scores of {', '.join(step.broken)}" if step.broken else ""
            return f"the loss is {loss}{said}"
        if step.applied and not math.isfinite(norm):
            return f"the gradient's norm is {norm} (loss {loss})"
        if self._row("skipped", not step.applied) >= MOST_SKIPPED:
            return f"{MOST_SKIPPED} steps in a row were skipped, their fp16 gradients overflow"
        if self._row("zero", norm <= ZERO_NORM and loss > NOTHING_TO_LEARN) >= FEW:
            return f"gradient norm {norm:.2g} for {FEW} steps, loss {loss:.3f}"
        if self._row("unmoved", step.applied and step.moved is False) >= FEW:
            return f"no parameter has moved for {FEW} steps, loss {loss:.3f}"
        return None

    def _low(self) -> str | None:
        """Say that gradients are small and the loss is high, where they have been for long."""
        usual = self._usual()
        if usual is None:
            return None
        norm, loss = _median(self.norms[-WINDOW:]), _median(self.losses[-WINDOW:])
        distance = _distance(norm, loss, usual)
        self.margin = min(self.margin, distance)
        if self._row("low", distance < 1) < PATIENCE:
            return None
        return (
            f"gradient norm {norm:.2g} and loss {loss:.3f}, {usual.whose} had "
            f"{_range(usual.norms, '.2g')} and {_range(usual.losses, '.3f')} "
            f"(medians of {WINDOW} steps, for {PATIENCE} steps)"
        )

    def _usual(self) -> Usual | None:
        """Return what norm and loss are compared with at this step; None while that is too soon."""
        if len(self.norms) <= 2 * WINDOW:
            return None
        if self.others:
            losses, norms = zip(
                *(x.at(self._epoch, self._number) for x in self.others), strict=True
            )
            return Usual(
                "other folds there" if len(self.others) > 1 else "the other fold there",
                norms=(min(norms), max(norms)),
                losses=(min(losses), max(losses)),
                norm_bound=SHARE_OF_OTHERS * min(norms),
                loss_bound=max(losses) + LOSS_ABOVE_OTHERS,
            )
        norm, loss = _median(self.norms[:WINDOW]), _median(self.losses[:WINDOW])
        return Usual(
            f"its first {WINDOW} steps",
            norms=(norm, norm),
            losses=(loss, loss),
            norm_bound=SHARE_OF_START * norm,
            loss_bound=SHARE_OF_STARTING_LOSS * loss,
        )

    def _row(self, name: str, happened: bool) -> int:
        """Count how often in a row something has happened, this step included."""
        self._in_a_row[name] = self._in_a_row[name] + 1 if happened else 0
        return self._in_a_row[name]


def recorded(epoch: int, losses: Sequence[float], norms: Sequence[float | None]) -> list[Step]:
    """Return an epoch's steps as they were written down: a skipped one has no finite norm."""
    known = [math.nan if norm is None else norm for norm in norms]
    return [
        Step(epoch, loss, norm, applied=math.isfinite(norm))
        for loss, norm in zip(losses, known, strict=True)
    ]


def significant(number: float) -> float:
    """Return a number to four digits: what a metadata holds is judged as what was seen."""
    return float(f"{number:.4g}")


def _median(values: Sequence[float]) -> float:
    """Return the median of the numbers; NaN where none is one."""
    numbers = [value for value in values if not math.isnan(value)]
    return median(numbers) if numbers else math.nan


def _distance(norm: float, loss: float, usual: Usual) -> float:
    """Return how far from a stall: the better of the two ratios to their bounds, 1 at the edge."""
    ratios = (_ratio(norm, usual.norm_bound), _ratio(usual.loss_bound, loss))
    return max((ratio for ratio in ratios if not math.isnan(ratio)), default=math.inf)


def _ratio(value: float, other: float) -> float:
    return value / other if other > 0 else math.inf


def _range(bounds: tuple[float, float], form: str) -> str:
    low, high = (format(bound, form) for bound in bounds)
    return low if low == high else f"{low} to {high}"
