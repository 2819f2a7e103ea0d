"""From a model's probability to how often the learner did say the text.

A calibration is fitted on out-of-fold predictions. None of those here changes the order in which
the recordings of one age group are ranked (`isotonic` may make some of them equal).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from hearback.errors import HearbackError
from hearback.newton import Hessian, minimise, scaled_gram

KINDS = ("none", "temperature", "platt", "isotonic", "platt_by_age")
AGE_GROUPS = {"KG and 1": ("KG", "1"), "2 and 3": ("2", "3")}
YOUNGEST = "KG and 1"
EVERYONE = "everyone"
NEAREST_TO_CERTAIN = 1e-7  # probabilities are kept this far from 0 and 1

# Standard deviations of the normal priors, in nats: of the line's distance from "no change", wide
# (it bounds what a separable or tiny table says, and a few hundred rows overrule it), and of an age
# group's distance from the common line.
_LINE_DEVIATION = 1.0
_AGE_DEVIATION = 0.3


def logit(predictions: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities, kept `NEAREST_TO_CERTAIN` away from 0 and 1."""
    clipped = np.clip(np.asarray(predictions, float), NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
    return np.log(clipped) - np.log1p(-clipped)


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
    - `platt_by_age` has those for each of `AGE_GROUPS`, drawn towards the common ones, which serve
      grades of neither group;
    - `isotonic` is a non-decreasing function (Zadrozny & Elkan 2002), linear between its points.

    `lines` are by age group and under `EVERYONE`; `points` are the (prediction, calibrated) pairs
    of `isotonic`. No slope is negative.
    """

    kind: str = "none"
    lines: Mapping[str, Line] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()

    def apply(self, predictions: np.ndarray, grades: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities of (rows,) probabilities; `grades`, (rows,), strs."""
        if self.kind == "none":
            return predictions
        if self.kind == "isotonic":
            before, after = np.array(self.points).T
            return np.interp(predictions, before, after)
        logits = logit(predictions)
        calibrated = self._on(EVERYONE, logits)
        for name, members in AGE_GROUPS.items():
            if name in self.lines:
                calibrated = np.where(np.isin(grades, members), self._on(name, logits), calibrated)
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
        if self.kind in ("temperature", "platt", "platt_by_age") and EVERYONE not in self.lines:
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
    kind: str, predictions: np.ndarray, labels: np.ndarray, grades: np.ndarray
) -> Calibration:
    """Fit a calibration of one of `KINDS` to (rows,) probabilities, labels (0 or 1) and grades.

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
    if kind == "platt_by_age":
        members = {name: np.isin(grades, of_it) for name, of_it in AGE_GROUPS.items()}
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
    deviation = np.repeat([_LINE_DEVIATION] + [_AGE_DEVIATION] * len(members), 2)
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


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    centre: np.ndarray,
    precision: np.ndarray,
    *,
    at_least: float | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return a logistic regression's coefficients, (features,), of (rows, features).

    They have a normal prior of that `centre`, (features,), and `precision`, (features, features),
    the inverse of its covariance; zeros are no prior. `at_least` bounds all of them from below.
    There is no intercept but a column of ones. The problem is convex; the search begins at `start`,
    or at `centre`, and a start nearby saves steps.
    """
    n_rows = len(labels)
    # (features, rows), and the rows' own signs in them: what is left is how far each row is right.
    signed = features.T * np.where(labels > 0.5, 1.0, -1.0)
    precision = precision / n_rows

    def objective(coefficients: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        margins = coefficients @ signed
        off = coefficients - centre
        pull = precision @ off
        # exp(-|margin|) cannot overflow: the loss, its slope and its curvature all come of it.
        small = np.exp(-np.abs(margins))
        losses = np.log1p(small) - np.minimum(margins, 0)
        slopes = np.where(margins > 0, small, 1.0) / (1 + small)

        def hessian() -> np.ndarray:
            return scaled_gram(signed, np.sqrt(small) / (1 + small)) / n_rows + precision

        return float(losses.mean() + 0.5 * off @ pull), pull - signed @ slopes / n_rows, hessian

    return minimise(objective, centre if start is None else start, at_least)
