"""Calibration of probabilities, fitted on out-of-fold predictions.

No calibration here reverses the ranking of rows within a group (`isotonic` may create ties).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import scipy  # imports its parts as they are used

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import fit_logistic, logit

KINDS = ("none", "temperature", "platt", "isotonic", "platt_by_group")
ALL_ROWS = "all"  # key of the common line; no group may have this name

# Standard deviations of the normal priors, in nats. The common line's distance from the identity:
# wide, so that a few hundred rows outweigh it; it bounds the fit of separable or tiny tables.
_LINE_DEVIATION = 1.0
_GROUP_DEVIATION = 0.3  # a group's distance from the common line


@dataclass(frozen=True)
class Line:
    """A linear map of log-odds z: slope * z + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration of one of `KINDS`.

    - `none` returns probabilities unchanged;
    - `temperature` scales the log-odds (Guo et al. 2017; the slope is 1 / temperature);
    - `platt` has a slope and an intercept (Platt 1999);
    - `platt_by_group` has both per group of rows (such as age groups), shrunk towards the common
      line, which applies to rows without a known group;
    - `isotonic` is a non-decreasing function (Zadrozny & Elkan 2002), linear between its points.

    `lines` has the common line under `ALL_ROWS` and the groups' lines by name; no slope is
    negative. `points` are the (prediction, calibrated) pairs of `isotonic`.
    """

    kind: str = "none"
    lines: Mapping[str, Line] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()

    def apply(self, predictions: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, (rows,), of `predictions`, (rows,).

        `groups`, (rows,) str, is the calibration group of each row, "" for none.
        """
        if self.kind == "none":
            return predictions
        if self.kind == "isotonic":
            before, after = np.array(self.points).T
            return np.interp(predictions, before, after)
        logits = logit(predictions)
        calibrated = self._apply_line(ALL_ROWS, logits)
        for name in self.lines.keys() - {ALL_ROWS}:
            calibrated = np.where(groups == name, self._apply_line(name, logits), calibrated)
        return calibrated

    def _apply_line(self, group: str, logits: np.ndarray) -> np.ndarray:
        line = self.lines[group]
        return scipy.special.expit(line.slope * logits + line.intercept)

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Return the calibration of `as_dict`; raise HearbackError for invalid values."""
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
        if self.kind in ("temperature", "platt", "platt_by_group") and ALL_ROWS not in self.lines:
            raise HearbackError(f"the calibration {self.kind!r} lacks the line {ALL_ROWS!r}")
        numbers = [number for line in self.lines.values() for number in asdict(line).values()]
        if not all(map(math.isfinite, numbers)) or any(x.slope < 0 for x in self.lines.values()):
            raise HearbackError(
                "a calibration's slopes and intercepts must be finite, and no slope negative"
            )
        if self.kind == "isotonic":
            before, after = np.array(self.points or ((math.nan, math.nan),)).T
            # Written so that NaN fails every comparison.
            if not (
                (np.diff(before) > 0).all()
                and (np.diff(after) >= 0).all()
                and (after >= 0).all()
                and (after <= 1).all()
            ):
                raise HearbackError("an isotonic calibration's points must rise within 0 to 1")


def fit_calibration(
    kind: str, predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> Calibration:
    """Fit a calibration of one of `KINDS`.

    `predictions` are probabilities, `labels` 0 or 1, `groups` as in `Calibration.apply`, all
    (rows,). Raises HearbackError for an unknown kind.
    """
    if kind == "none":
        return Calibration()
    if kind == "isotonic":
        return _fit_isotonic(predictions, labels)
    logits = logit(predictions)
    if kind == "temperature":
        (slope,) = fit_logistic(
            logits[:, None], labels, np.ones(1), np.eye(1) / _LINE_DEVIATION**2, lower_bound=0
        )
        return Calibration(kind, {ALL_ROWS: Line(float(slope))})
    if kind == "platt":
        return Calibration(kind, _fit_lines(logits, labels, {}))
    if kind == "platt_by_group":
        members = {name: groups == name for name in np.unique(groups).tolist() if name}
        return Calibration(kind, _fit_lines(logits, labels, members))
    raise HearbackError(f"unknown calibration {kind!r}: use one of {', '.join(KINDS)}")


def _fit_lines(
    logits: np.ndarray, labels: np.ndarray, members: Mapping[str, np.ndarray]
) -> dict[str, Line]:
    """Fit a common line, and per group, (rows,) bool, the common line plus an offset.

    The offsets are shrunk towards zero, so that a group with few rows stays near the common line
    (hierarchical regression; Gelman & Hill 2007, chapter 12).
    """
    line = np.stack([logits, np.ones_like(logits)], axis=1)
    features = np.concatenate([line, *(line * rows[:, None] for rows in members.values())], axis=1)
    deviation = np.repeat([_LINE_DEVIATION] + [_GROUP_DEVIATION] * len(members), 2)
    prior_mean = np.zeros(len(deviation))
    prior_mean[0] = 1
    coefficients = fit_logistic(features, labels, prior_mean, np.diag(deviation**-2.0))
    common, *offsets = coefficients.reshape(-1, 2)
    lines = {ALL_ROWS: _non_decreasing(common, logits)}
    for (name, rows), offset in zip(members.items(), offsets, strict=True):
        lines[name] = _non_decreasing(common + offset, logits[rows])
    return lines


def _non_decreasing(line: np.ndarray, logits: np.ndarray) -> Line:
    """Return the line; replace a falling one by a constant at its mean over `logits`.

    A falling line would reverse the model's ranking, which is noise.
    """
    slope, intercept = line.tolist()
    if slope >= 0:
        return Line(slope, intercept)
    return Line(0.0, intercept + slope * float(logits.mean()))


def _fit_isotonic(predictions: np.ndarray, labels: np.ndarray) -> Calibration:
    # Add a row of the opposite label at both ends. Otherwise the ends become 0 and 1, and a single
    # mistake there costs more than the calibration gains.
    ends = [np.min(predictions), np.max(predictions)]
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  (--help needs none)

    regression = IsotonicRegression(out_of_bounds="clip")
    regression.fit(np.concatenate([predictions, ends]), np.concatenate([labels, [1, 0]]))
    points = zip(regression.X_thresholds_.tolist(), regression.y_thresholds_.tolist(), strict=True)
    return Calibration("isotonic", points=tuple(points))
