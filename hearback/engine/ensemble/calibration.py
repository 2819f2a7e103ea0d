"""Calibration of probabilities: from a model's probability to an observed frequency.

A calibration is fitted on out-of-fold predictions. None of those here changes the order in which
the rows of one group are ranked (`isotonic` may make some of them equal).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import fit_logistic, logit

KINDS = ("none", "temperature", "platt", "isotonic", "platt_by_group")
EVERYONE = "everyone"

# Standard deviations of the normal priors, in nats: of the line's distance from "no change", wide
# (it bounds what a separable or tiny table says, and a few hundred rows overrule it), and of a
# group's distance from the common line.
_LINE_DEVIATION = 1.0
_GROUP_DEVIATION = 0.3


@dataclass(frozen=True)
class Line:
    """What becomes of a log-odds z: slope * z + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """One of `KINDS`, fitted.

    - `none` leaves probabilities as they are;
    - `temperature` has a slope on the log-odds (Guo et al. 2017; one over their temperature);
    - `platt` has a slope and an intercept (Platt 1999);
    - `platt_by_group` has those for each group of rows (reading: age groups), drawn towards the
      common ones, which serve the rows of no group;
    - `isotonic` is a non-decreasing function (Zadrozny & Elkan 2002), linear between its points.

    `lines` are by group and under `EVERYONE`; `points` are the (prediction, calibrated) pairs
    of `isotonic`. No slope is negative.
    """

    kind: str = "none"
    lines: Mapping[str, Line] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()

    def apply(self, predictions: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, (rows,), of (rows,) probabilities.

        `groups`, (rows,) str, names each row's calibration group; "" is none.
        """
        if self.kind == "none":
            return predictions
        if self.kind == "isotonic":
            before, after = np.array(self.points).T
            return np.interp(predictions, before, after)
        logits = logit(predictions)
        calibrated = self._on(EVERYONE, logits)
        for name in self.lines.keys() - {EVERYONE}:
            calibrated = np.where(groups == name, self._on(name, logits), calibrated)
        return calibrated

    def _on(self, group: str, logits: np.ndarray) -> np.ndarray:
        line = self.lines[group]
        return expit(line.slope * logits + line.intercept)

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Return the calibration of `as_dict`; raise HearbackError where it is none."""
        try:
            calibration = cls(
                values["kind"],
                {
                    name: Line(float(line["slope"]), float(line["intercept"]))
                    for name, line in values["lines"].items()
                },
                tuple((float(before), float(after)) for before, after in values["points"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HearbackError(f"not a calibration ({error!r})") from None
        calibration._check()
        return calibration

    def _check(self) -> None:
        if self.kind not in KINDS:
            raise HearbackError(f"unknown calibration {self.kind!r}: use {', '.join(KINDS)}")
        if self.kind in ("temperature", "platt", "platt_by_group") and EVERYONE not in self.lines:
            raise HearbackError(f"the calibration {self.kind!r} lacks the line of {EVERYONE!r}")
        numbers = [number for line in self.lines.values() for number in asdict(line).values()]
        if not all(map(math.isfinite, numbers)) or any(x.slope < 0 for x in self.lines.values()):
            raise HearbackError("a calibration's slopes are numbers that are not negative")
        if self.kind == "isotonic":
            before, after = np.array(self.points or ((math.nan, math.nan),)).T
            # Said the positive way round, for NaN compares as false.
            if not (
                (np.diff(before) > 0).all()
                and (np.diff(after) >= 0).all()
                and (after >= 0).all()
                and (after <= 1).all()
            ):
                raise HearbackError("an isotonic calibration's points do not rise from 0 to 1")


def fit_calibration(
    kind: str, predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Calibration:
    """Fit a calibration of one of `KINDS` to (rows,) probabilities, labels (0 or 1) and groups.

    Raises HearbackError for a kind that there is not.
    """
    if kind == "none":
        return Calibration()
    if kind == "isotonic":
        return _fit_isotonic(predictions, labels)
    logits = logit(predictions)
    if kind == "temperature":
        (slope,) = fit_logistic(
            logits[:, None], labels, np.ones(1), np.eye(1) / _LINE_DEVIATION**2, at_least=0
        )
        return Calibration(kind, {EVERYONE: Line(float(slope))})
    if kind == "platt":
        return Calibration(kind, _fit_lines(logits, labels, {}))
    if kind == "platt_by_group":
        members = {name: groups == name for name in np.unique(groups).tolist() if name}
        return Calibration(kind, _fit_lines(logits, labels, members))
    raise HearbackError(f"unknown calibration {kind!r}: use one of {', '.join(KINDS)}")


def _fit_lines(
    logits: np.ndarray, labels: np.ndarray, members: Mapping[str, np.ndarray]
) -> dict[str, Line]:
    """Fit a common line, and for each group, (rows,) bool, its own: the common one and a rest.

    The rests are drawn towards zero, so that a group of few rows stays near the common line (the
    usual hierarchical regression; Gelman & Hill 2007, chapter 12).
    """
    line = np.stack([logits, np.ones_like(logits)], axis=1)
    features = np.concatenate([line, *(line * rows[:, None] for rows in members.values())], axis=1)
    deviation = np.repeat([_LINE_DEVIATION] + [_GROUP_DEVIATION] * len(members), 2)
    centre = np.zeros(len(deviation))
    centre[0] = 1
    found = fit_logistic(features, labels, centre, np.diag(deviation**-2.0))
    common, *rests = found.reshape(-1, 2)
    lines = {EVERYONE: _rising(common, logits)}
    for (name, rows), rest in zip(members.items(), rests, strict=True):
        lines[name] = _rising(common + rest, logits[rows])
    return lines


def _rising(line: np.ndarray, logits: np.ndarray) -> Line:
    """Return the line, or a level one at its mean height where it would fall.

    A falling line would score a recording lower the better it is; that is noise.
    """
    slope, intercept = line.tolist()
    if slope >= 0:
        return Line(slope, intercept)
    return Line(0.0, intercept + slope * float(logits.mean()))


def _fit_isotonic(predictions: np.ndarray, labels: np.ndarray) -> Calibration:
    # One row of the other label at either end: else the ends are certainties, and one mistake
    # there costs all that the rest gained.
    ends = [np.min(predictions), np.max(predictions)]
    regression = IsotonicRegression(out_of_bounds="clip")
    regression.fit(np.concatenate([predictions, ends]), np.concatenate([labels, [1, 0]]))
    points = zip(regression.X_thresholds_.tolist(), regression.y_thresholds_.tolist(), strict=True)
    return Calibration("isotonic", points=tuple(points))
