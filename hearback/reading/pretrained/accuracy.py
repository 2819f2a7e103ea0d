"""How well a scorer does: cross-fitted scores by grade and cause, with intervals, for its card."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hearback.engine.ensemble.stacking import StackingData, fit_ensemble
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.bootstrap import (
    bootstrap_auc_interval,
    bootstrap_interval,
    show_interval,
)
from hearback.engine.evaluation.metrics import area_under_curve, row_log_loss
from hearback.reading.ensemble_fitting import stacking_data
from hearback.reading.evaluation import group_unit
from hearback.reading.tables import AGE_GROUPS, GRADES, YOUNGEST

# How a scorer is used: `Calibration.apply` adjusts by age group where the grade is known.
WITH_GRADE, WITHOUT_GRADE = "grade given", "no grade"
THRESHOLD = 0.5


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return e.g. "0.312 [0.298, 0.327]", or "0.312 [–]"."""
        if math.isnan(self.value):
            return "–"
        return f"{self.value:.3f} {show_interval(self.low, self.high, '.3f')}"


def cross_fit(
    joined: pd.DataFrame, members: Sequence[str], combine: str, calibration: str
) -> dict[str, np.ndarray]:
    """Return the ensemble's probabilities, (rows,), with and without the readers' grades.

    Weights and calibration for a row are fitted without its speaker; `members` are columns of
    `joined` (`ensemble_fitting.Members`). Raises HearbackError if there is only one speaker.
    """
    data = stacking_data(joined, members)
    if not data.groups.cross_fits:
        raise HearbackError("all rows are of one speaker: a scorer needs several to be measured")
    unknown = np.full(len(joined), "")
    found = {name: np.empty(len(joined)) for name in (WITH_GRADE, WITHOUT_GRADE)}
    for fitted, groups, held_out in data.groups.cross_fits:
        part = StackingData(
            np.take(data.predictions, fitted, axis=1),
            data.labels[fitted],
            groups,
            data.calibration_groups[fitted],
        )
        ensemble = fit_ensemble(part, combine, calibration)
        predictions = np.take(data.predictions, held_out, axis=1)
        for name, grades in ((WITH_GRADE, data.calibration_groups), (WITHOUT_GRADE, unknown)):
            found[name][held_out] = ensemble.predict(predictions, grades[held_out])
    return found


def by_grade(joined: pd.DataFrame, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return rows, speakers, log loss (nats) and AUC, with intervals, by grade, as text.

    `predictions` is from `cross_fit`.
    """
    grades = joined["grade"].to_numpy(dtype=str)
    parts = {"all": np.full(len(joined), True)}
    parts |= {grade: grades == grade for grade in GRADES}
    parts[YOUNGEST] = np.isin(grades, AGE_GROUPS[YOUNGEST])
    if unknown := set(grades.tolist()) - set(GRADES):
        parts["unknown"] = np.isin(grades, list(unknown))
    lines = {
        name: {**_sizes(joined, rows), **_losses(joined, predictions, rows, rows)}
        for name, rows in parts.items()
        if rows.any()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("grade")


def by_cause(
    joined: pd.DataFrame, predictions: Mapping[str, np.ndarray], causes: np.ndarray
) -> pd.DataFrame:
    """Return rows, speakers, log loss and AUC by cause, as text.

    `causes` are (rows,) str, "" if unknown. The log loss is of the rows of the cause, the AUC
    that of all rows of score 1 against them.
    """
    right = joined["score"].to_numpy() > 0.5
    lines = {}
    for cause in sorted(set(causes.tolist()) - {""}, key=lambda each: (each != "correct", each)):
        rows = causes == cause
        line = _losses(joined, predictions, rows, right | rows)
        lines[cause] = {**_sizes(joined, rows), **line}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("cause")


def errors_at_threshold(
    joined: pd.DataFrame, predictions: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Return the shares of wrong decisions at `THRESHOLD`, with intervals, as text.

    False alarms are well-read clips below it, misses are the others above.
    """
    right = joined["score"].to_numpy() > 0.5
    groups = _groups(joined)
    lines = {}
    for name, values in predictions.items():
        said = values >= THRESHOLD
        lines[name] = {
            "false alarms": str(_mean_with_interval((~said)[right], groups[right])),
            "misses": str(_mean_with_interval(said[~right], groups[~right])),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("calibration")


def _sizes(joined: pd.DataFrame, rows: np.ndarray) -> dict[str, str]:
    """Return the number of `rows`, (rows,) bool, and of their speakers if these are known."""
    sizes = {"rows": str(rows.sum())}
    if "speaker" in joined:
        sizes["speakers"] = str(joined["speaker"][rows].nunique())
    return sizes


def _losses(
    joined: pd.DataFrame,
    predictions: Mapping[str, np.ndarray],
    rows: np.ndarray,
    compared: np.ndarray,
) -> dict[str, str]:
    """Return the log loss of `rows` and the AUC of the rows `compared`, (rows,) bool each."""
    labels, groups = joined["score"].to_numpy(), _groups(joined)
    line = {}
    for name, values in predictions.items():
        losses = row_log_loss(joined["score"], pd.Series(values, index=joined.index)).to_numpy()
        line[f"log loss, {name}"] = str(_mean_with_interval(losses[rows], groups[rows]))
        line[f"AUC, {name}"] = str(_auc(labels[compared], values[compared], groups[compared]))
    return line


def _mean_with_interval(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Return the mean of `values` and its interval by groups."""
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    values = values.astype(float)
    return Interval(
        float(values.mean()), *bootstrap_interval(values, groups, np.random.default_rng(0))
    )


def _auc(labels: np.ndarray, values: np.ndarray, groups: np.ndarray) -> Interval:
    """Return the AUC and its interval by groups; NaN if there is one class only."""
    auc = area_under_curve(labels, values)
    if math.isnan(auc):
        return Interval(auc, auc, auc)
    return Interval(auc, *bootstrap_auc_interval(labels, values, groups, np.random.default_rng(0)))


def _groups(joined: pd.DataFrame) -> np.ndarray:
    return joined[group_unit(joined)].to_numpy(dtype=str)
