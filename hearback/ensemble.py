"""Weights of an ensemble: searched on out-of-fold predictions, scored on rows they did not see."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from hearback.errors import HearbackError
from hearback.files import read_json, write_json

TOLERANCE = 1e-7  # nats: how far from the best weights' log loss a search may stop
MAX_ITERATIONS = 100_000
SMALLEST_WEIGHT = 1e-3
N_CROSS_FITS = 10


@dataclass(frozen=True)
class EnsembleScores:
    """An ensemble's weights, (models,), and log losses.

    `alone` is each model's, (models,); `fitted` is on the rows that the weights were searched on,
    `honest` is not.
    """

    weights: np.ndarray
    alone: np.ndarray
    plain_mean: float
    fitted: float
    honest: float
    honest_predictions: np.ndarray  # (rows,)


def mean_log_loss(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean log loss, in nats, of (rows,) labels and probabilities."""
    return float(-np.log(_likelihoods(predictions[None], labels)).mean())


def search_weights(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights, (models,), non-negative and of sum one, with the lowest log loss.

    `predictions` is (models, rows) of probabilities. The log loss of a weighted mean of
    probabilities is a mixture's likelihood, convex in the weights, and EM climbs it without a step
    size (Dempster, Laird & Rubin 1977). The largest mean ratio of a model's likelihood to the
    mixture's, less one, bounds what is still to be gained (Lindsay 1983, "The Geometry of Mixture
    Likelihoods"); the search ends when that is below `TOLERANCE`.
    """
    likelihoods = _likelihoods(predictions, labels)
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(MAX_ITERATIONS):
        ratios = (likelihoods / (weights @ likelihoods)).mean(axis=1)
        if ratios.max() - 1 < TOLERANCE:
            break
        weights = weights * ratios
    # EM nears zero and never arrives; a model of no weight need not run at inference.
    weights = np.where(weights < SMALLEST_WEIGHT, 0, weights)
    return weights / weights.sum()


def score_ensemble(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> EnsembleScores:
    """Score models, (models, rows), alone, as a plain mean, and as a weighted ensemble.

    The honest score weighs each row with weights searched on the other groups' rows. Raises
    HearbackError where there are no other groups.
    """
    honest = np.empty(len(labels))
    n_splits = min(N_CROSS_FITS, len(np.unique(groups)))
    if n_splits < 2:
        raise HearbackError("all rows are of one group: no others to search its weights on")
    for rest, held_out in GroupKFold(n_splits).split(labels, groups=groups):
        weights = search_weights(predictions[:, rest], labels[rest])
        honest[held_out] = weights @ predictions[:, held_out]
    weights = search_weights(predictions, labels)
    return EnsembleScores(
        weights=weights,
        alone=np.array([mean_log_loss(labels, alone) for alone in predictions]),
        plain_mean=mean_log_loss(labels, predictions.mean(axis=0)),
        fitted=mean_log_loss(labels, weights @ predictions),
        honest=mean_log_loss(labels, honest),
        honest_predictions=honest,
    )


def _likelihoods(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability that each model, (models, rows), gave to what was the case."""
    clipped = np.clip(predictions, 1e-7, 1 - 1e-7)
    return np.where(labels > 0.5, clipped, 1 - clipped)


@dataclass(frozen=True)
class ModelConfig:
    """A model of the ensemble: which folds are averaged, and its share."""

    name: str
    folds: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class EnsembleConfig:
    """What `infer.py` runs: `model_configs.json`.

    `base_rates` are the mean training label by task, and under "all" over all rows, for recordings
    that cannot be scored. `log_losses` tell how good the ensemble is: "honest", "fitted" (on the
    rows that the weights were searched on) and "plain_mean".
    """

    models: tuple[ModelConfig, ...]
    voice: dict[str, Any]
    base_rates: dict[str, float]
    log_losses: dict[str, float]
    n_rows: int

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "EnsembleConfig":
        """Read a configuration, or raise HearbackError saying what is wrong with it."""
        try:
            values = read_json(path)
            models = tuple(
                ModelConfig(model["name"], tuple(model["folds"]), float(model["weight"]))
                for model in values["models"]
            )
            config = cls(**{**values, "models": models})
        except FileNotFoundError:
            raise HearbackError(f"{path}: not there; write it with python get_config.py") from None
        except (ValueError, KeyError, TypeError) as error:
            raise HearbackError(
                f"{path}: not an ensemble's configuration ({error!r}); "
                "write it again with python get_config.py"
            ) from None
        weights = np.array([model.weight for model in models])
        # Said the positive way round, for NaN compares as false.
        if not ((weights >= 0).all() and abs(weights.sum() - 1) <= 1e-6):
            raise HearbackError(f"{path}: the models' weights are not shares of one")
        return config

    def base_rate(self, task: str | None) -> float:
        """Return a task's base rate, or that of all rows for a task that training did not have."""
        return self.base_rates.get(task or "all", self.base_rates["all"])
