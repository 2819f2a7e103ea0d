"""Shared parts of the baselines: options, inputs, estimators and context features."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from sklearn.base import TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from hearback.engine.data.folds import SEED
from hearback.reading.dataset import TrainingData
from hearback.reading.tables import GRADES, TASKS

INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
N_INNER_FOLDS = 5  # of the training rows


@dataclass(frozen=True)
class BaselineOptions:
    """The command line's options."""

    data: Path
    tts_data: Path
    store: Path
    assets: Path
    backbone: str
    baselines: tuple[str, ...]
    n_folds: int
    group_by: str | None
    limit: int | None
    device: str | None
    precision: str
    corrections: Path | None = None


class Estimator(Protocol):
    """A scikit-learn classifier that keeps groups together in its inner splits."""

    def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Self:
        """Fit rows of features to their labels, (rows,)."""

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Return the probabilities of 0 and 1, (rows, 2)."""


@dataclass(frozen=True)
class Inputs:
    """A baseline's features, a row per clip, and the seconds that computing them took.

    `settings` are other values that the predictions depend on, such as a backbone.
    """

    features: pd.DataFrame
    seconds: float = 0.0
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Baseline:
    """A baseline: functions that compute its inputs and create its estimator."""

    inputs: Callable[[TrainingData, BaselineOptions], Inputs]
    estimator: Callable[[], Estimator]


class BaseRate(DummyClassifier):
    """The mean label, as an estimator that accepts groups."""

    def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Self:
        """Fit the mean of `labels`."""
        return super().fit(features, labels)


def no_inputs(data: TrainingData, options: BaselineOptions) -> Inputs:
    """Return one constant column."""
    return Inputs(pd.DataFrame({"constant": np.zeros(len(data.labels))}))


def inner_folds() -> StratifiedGroupKFold:
    """Return the splitter of the training rows for model selection, by group."""
    return StratifiedGroupKFold(N_INNER_FOLDS, shuffle=True, random_state=SEED)


def logistic_regression(features: TransformerMixin) -> GridSearchCV:
    """Return a logistic regression on the output of `features`; inner folds select its penalty."""
    pipeline = make_pipeline(features, LogisticRegression(max_iter=5000))
    penalties = {"logisticregression__C": INVERSE_PENALTIES}
    return GridSearchCV(pipeline, penalties, scoring="neg_log_loss", cv=inner_folds())


def context_columns() -> list[str]:
    """Return the names of `context_features`' columns."""
    return [*(f"task {task}" for task in TASKS), *(f"grade {grade}" for grade in GRADES)]


def context_features(metadata: pd.DataFrame) -> pd.DataFrame:
    """Return task and grade as one-hot columns."""
    columns = {f"task {task}": metadata["task"] == task for task in TASKS}
    columns |= {f"grade {grade}": metadata["grade"] == grade for grade in GRADES}
    return pd.DataFrame(columns).astype(float).reset_index(drop=True)
