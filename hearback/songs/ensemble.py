"""The ensemble of the songs competition: configuration and fitting."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.ensemble import config as ensemble_config
from hearback.engine.ensemble import fitting
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import (
    EnsembleScores,
    Groups,
    StackingData,
    combine_predictions,
)
from hearback.engine.io import write_json
from hearback.songs.evaluation import accuracy, are_shares

COMMAND = "python -m hearback.songs get_config"
# Logit weights need not sum to one, so they already act as a temperature.
NO_CALIBRATION = "none"


@dataclass(frozen=True)
class SongEnsemble:
    """The ensemble that the step infer runs; the contents of `model_configs.json`.

    The folds of each model are averaged, then the models are combined.

    Attributes:
        models: the models and their weights.
        combine: how models are combined, one of `COMBINATIONS`.
        class_shares: shares of the classes in the labelled rows; the prediction for snippets that
            cannot be read.
        log_losses: in nats: "cross_fitted", "fitted" (in-sample), "plain_mean".
        accuracies: 0 to 1, with the same keys.
        n_rows: number of rows that the ensemble was fitted on.
    """

    models: tuple[ModelConfig, ...]
    combine: str
    class_shares: tuple[float, ...]
    log_losses: dict[str, float]
    accuracies: dict[str, float]
    n_rows: int

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models with a positive weight."""
        return tuple(model for model in self.models if model.weight > 0)

    def predict(self, predictions: np.ndarray) -> np.ndarray:
        """Combine predictions of `models_to_run`, (models, rows, classes), to (rows, classes).

        A model's predictions are the mean over its folds.
        """
        weights = np.array([model.weight for model in self.models_to_run])
        return combine_predictions(self.combine, weights, predictions)

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "SongEnsemble":
        """Read a configuration; raise HearbackError with the cause if it is invalid."""
        return ensemble_config.load_config(path, cls._from_values, _find_error, COMMAND)

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> "SongEnsemble":
        models = tuple(map(ModelConfig.from_dict, values["models"]))
        shares = tuple(values["class_shares"])
        return cls(**{**values, "models": models, "class_shares": shares})


def salvage_class_shares(path: Path) -> tuple[float, ...] | None:
    """Return the class shares of a configuration that may be damaged otherwise, or None."""
    shares = ensemble_config.salvage(path, "class_shares")
    return tuple(shares) if isinstance(shares, list) and are_shares(shares) else None


def _find_error(config: SongEnsemble) -> str | None:
    """Return the first error of a configuration, or None."""
    if not are_shares(config.class_shares):
        return "class_shares must be one number per class with a sum of one"
    weights = [model.weight for model in config.models]
    return (
        ensemble_config.find_model_error(config.models)
        or ensemble_config.find_combination_error(config.combine)
        or ensemble_config.find_weight_error(config.combine, weights)
    )


def stacking_data(predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> StackingData:
    """Return what the ensemble is fitted to; the arguments are those of `fit`."""
    return StackingData.of_classes(predictions, labels, Groups.from_names(groups))


def fit(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: list[str], combine: str
) -> EnsembleScores:
    """Fit the ensemble of the models `names`, and print its tables.

    `predictions` is (models, rows, classes), `labels` (rows,) classes, `groups` (rows,) names of
    cross-fitting groups.
    """
    data = stacking_data(predictions, labels, groups)
    scores = fitting.fit(data, names, combine, NO_CALIBRATION, {"accuracy": accuracy})
    fitting.print_combinations(data, [NO_CALIBRATION])
    return scores


def accuracies(
    scores: EnsembleScores, predictions: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the values of `SongEnsemble.accuracies`."""
    fitted = combine_predictions(scores.ensemble.combine, scores.ensemble.weights, predictions)
    return {
        "cross_fitted": accuracy(labels, scores.cross_fitted_predictions),
        "fitted": accuracy(labels, fitted),
        "plain_mean": accuracy(labels, predictions.mean(axis=0)),
    }
