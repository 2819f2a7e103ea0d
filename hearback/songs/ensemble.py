"""The songs competition's ensemble: its configuration, and how get_config fits it."""

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
    """The ensemble that the step infer runs, as in `model_configs.json`.

    Each model's folds are averaged, then the models are combined by `combine`, one of
    `COMBINATIONS`. `class_shares` are those of the labelled rows; they score snippets that cannot
    be read. `log_losses` (nats) and `accuracies` (0 to 1) are "cross_fitted", "fitted" (in-sample)
    and "plain_mean".
    """

    models: tuple[ModelConfig, ...]
    combine: str
    class_shares: tuple[float, ...]
    log_losses: dict[str, float]
    accuracies: dict[str, float]
    n_rows: int

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models with a weight."""
        return tuple(model for model in self.models if model.weight > 0)

    def predict(self, predictions: np.ndarray) -> np.ndarray:
        """Return the ensemble's probabilities, (rows, classes), from those of `models_to_run`.

        `predictions` is (models, rows, classes), the mean over each model's folds.
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


def _find_error(config: SongEnsemble) -> str | None:
    """Return what is wrong with a configuration, or None."""
    if not are_shares(config.class_shares):
        return "its class shares are not one per class with a sum of one"
    weights = [model.weight for model in config.models]
    return (
        ensemble_config.find_model_error(config.models)
        or ensemble_config.find_combination_error(config.combine)
        or ensemble_config.find_weight_error(config.combine, weights)
    )


def fit(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: list[str], combine: str
) -> EnsembleScores:
    """Fit the ensemble of the models `names` and print their tables.

    `predictions` is (models, rows, classes), `labels` (rows,) class numbers, `groups` (rows,)
    names of groups that are kept whole.
    """
    data = StackingData.of_classes(predictions, labels, Groups.from_names(groups))
    scores = fitting.fit(data, names, combine, NO_CALIBRATION, {"accuracy": accuracy})
    fitting.print_combinations(data, [NO_CALIBRATION])
    return scores


def accuracies(
    scores: EnsembleScores, predictions: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the ensemble's accuracies by name, as in `SongEnsemble.accuracies`."""
    fitted = combine_predictions(scores.ensemble.combine, scores.ensemble.weights, predictions)
    return {
        "cross_fitted": accuracy(labels, scores.cross_fitted_predictions),
        "fitted": accuracy(labels, fitted),
        "plain_mean": accuracy(labels, predictions.mean(axis=0)),
    }
