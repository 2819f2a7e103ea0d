"""The ensemble: fitted on out-of-fold predictions, scored on rows that it was not fitted on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from hearback.calibration import (
    KINDS,
    NEAREST_TO_CERTAIN,
    Calibration,
    fit_calibration,
    fit_logistic,
    logit,
)
from hearback.errors import HearbackError
from hearback.files import read_json, write_json
from hearback.words import WordCalibration

COMBINATIONS = ("probabilities", "logits")
TOLERANCE = 1e-7  # nats: how far from the best weights' log loss a search may stop
MAX_ITERATIONS = 100_000
SMALLEST_WEIGHT = 1e-3
N_CROSS_FITS = 10
# How far weights on logits may lie from equal ones (standard deviations of a normal prior); the
# rows choose one. Their sum is drawn to one so weakly that a few hundred rows overrule it.
WEIGHT_DEVIATIONS = (0.03, 0.1, 0.3, 1.0)
SUM_DEVIATION = 1.0
N_INNER_FITS = 5


@dataclass(frozen=True)
class Evidence:
    """What an ensemble is fitted to: out-of-fold `predictions`, (models, rows), of probabilities.

    The rest are (rows,): `labels`, 0 or 1; `groups`, equal for rows that go together (a speaker's);
    `grades`, strings.
    """

    predictions: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    grades: np.ndarray

    def of_rows(self, rows: np.ndarray) -> "Evidence":
        """Return the evidence of some rows."""
        return Evidence(
            self.predictions[:, rows], self.labels[rows], self.groups[rows], self.grades[rows]
        )

    def without(self, models: Sequence[int]) -> "Evidence":
        """Return the evidence of the other models."""
        return replace(self, predictions=np.delete(self.predictions, list(models), axis=0))


@dataclass(frozen=True)
class Mixture:
    """Models' probabilities made one: `combine` is one of `COMBINATIONS`, `weights` (models,).

    - "probabilities": their weighted mean; the weights are shares of one;
    - "logits": the weighted sum of their log-odds; the weights are not negative, and as they need
      not sum to one, the sum may be more certain than its parts, or less.
    """

    combine: str
    weights: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)

    def predict(self, predictions: np.ndarray, grades: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows,), of the models' (models, rows) and grades (rows,)."""
        return self.calibration.apply(_mix(self.combine, self.weights, predictions), grades)


@dataclass(frozen=True)
class EnsembleScores:
    """An ensemble and log losses.

    `alone` is each model's, (models,); `fitted` is on the rows that weights and calibration were
    fitted on, `honest` is not.
    """

    mixture: Mixture
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
    weights = _without_crumbs(weights)
    return weights / weights.sum()


def search_logit_weights(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Return the non-negative weights, (models,), of the log-odds' sum with the lowest log loss.

    `predictions` is (models, rows) of probabilities, `groups` (rows,) the rows that go together.
    Stacking (Wolpert 1992) by a logistic regression with non-negative coefficients, as Breiman
    (1996, "Stacked Regressions") found best; a ridge draws them towards equal ones. How strongly is
    chosen by cross-fitting over groups, among `WEIGHT_DEVIATIONS`.
    """
    features = logit(predictions).T
    n_splits = min(N_INNER_FITS, len(np.unique(groups)))
    deviation = WEIGHT_DEVIATIONS[0]
    if n_splits > 1 and len(predictions) > 1:  # one model has no differences
        losses = np.zeros(len(WEIGHT_DEVIATIONS))
        for rest, held_out in GroupKFold(n_splits).split(features, groups=groups):
            for place, candidate in enumerate(WEIGHT_DEVIATIONS):
                weights = _fit_logit_weights(features[rest], labels[rest], candidate)
                held = expit(features[held_out] @ weights)
                losses[place] += mean_log_loss(labels[held_out], held) * len(held_out)
        deviation = WEIGHT_DEVIATIONS[int(np.argmin(losses))]
    return _without_crumbs(_fit_logit_weights(features, labels, deviation))


def _fit_logit_weights(features: np.ndarray, labels: np.ndarray, deviation: float) -> np.ndarray:
    n_models = features.shape[1]
    of_sum = np.ones((n_models, n_models))
    of_differences = np.eye(n_models) - of_sum / n_models
    precision = of_differences / deviation**2 + of_sum / SUM_DEVIATION**2
    return fit_logistic(features, labels, np.full(n_models, 1 / n_models), precision, at_least=0)


def _without_crumbs(weights: np.ndarray) -> np.ndarray:
    # A search nears zero and seldom arrives; a model of no weight need not run at inference.
    return np.where(weights < SMALLEST_WEIGHT, 0, weights)


def _search(evidence: Evidence, combine: str) -> np.ndarray:
    if combine == "probabilities":
        return search_weights(evidence.predictions, evidence.labels)
    return search_logit_weights(evidence.predictions, evidence.labels, evidence.groups)


def _mix(combine: str, weights: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    if combine == "probabilities":
        return weights @ predictions
    return expit(weights @ logit(predictions))


def fit_mixture(evidence: Evidence, combine: str, calibration: str) -> Mixture:
    """Fit weights, then a calibration to what they give."""
    weights = _search(evidence, combine)
    mixed = _mix(combine, weights, evidence.predictions)
    fitted = fit_calibration(calibration, mixed, evidence.labels, evidence.grades)
    return Mixture(combine, weights, fitted)


def cross_fit(
    evidence: Evidence, combine: str, calibrations: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return honest probabilities, (rows,), by calibration.

    Each row's come of weights and a calibration that were both fitted on other groups' rows. Raises
    HearbackError where there are no other groups.
    """
    labels, groups, grades = evidence.labels, evidence.groups, evidence.grades
    honest = {kind: np.empty(len(labels)) for kind in calibrations}
    n_splits = min(N_CROSS_FITS, len(np.unique(groups)))
    if n_splits < 2:
        raise HearbackError("all rows are of one group: no others to fit an ensemble on")
    for rest, held_out in GroupKFold(n_splits).split(labels, groups=groups):
        weights = _search(evidence.of_rows(rest), combine)
        mixed = _mix(combine, weights, evidence.predictions)
        for kind, predictions in honest.items():
            fitted = fit_calibration(kind, mixed[rest], labels[rest], grades[rest])
            predictions[held_out] = fitted.apply(mixed[held_out], grades[held_out])
    return honest


def score_ensemble(evidence: Evidence, combine: str, calibration: str) -> EnsembleScores:
    """Fit an ensemble and score it, its models and their plain mean.

    `combine` is one of `COMBINATIONS`, `calibration` one of `calibration.KINDS`; the honest score
    is `cross_fit`'s. Raises HearbackError where all rows are of one group.
    """
    predictions, labels = evidence.predictions, evidence.labels
    honest = cross_fit(evidence, combine, [calibration])[calibration]
    mixture = fit_mixture(evidence, combine, calibration)
    return EnsembleScores(
        mixture=mixture,
        alone=np.array([mean_log_loss(labels, alone) for alone in predictions]),
        plain_mean=mean_log_loss(labels, predictions.mean(axis=0)),
        fitted=mean_log_loss(labels, mixture.predict(predictions, evidence.grades)),
        honest=mean_log_loss(labels, honest),
        honest_predictions=honest,
    )


def compare_combinations(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Return the honest log loss by combination and kind of calibration."""
    return {
        combine: {
            kind: mean_log_loss(evidence.labels, honest)
            for kind, honest in cross_fit(evidence, combine, KINDS).items()
        }
        for combine in COMBINATIONS
    }


def honest_log_loss_without(
    models: Sequence[int], evidence: Evidence, combine: str, calibration: str
) -> float:
    """Return the honest log loss of the ensemble without some models; NaN where none is left."""
    rest = evidence.without(models)
    if not len(rest.predictions):
        return float("nan")
    honest = cross_fit(rest, combine, [calibration])[calibration]
    return mean_log_loss(evidence.labels, honest)


def _likelihoods(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability that each model, (models, rows), gave to what was the case."""
    clipped = np.clip(predictions, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
    return np.where(labels > 0.5, clipped, 1 - clipped)


@dataclass(frozen=True)
class ModelConfig:
    """A model of the ensemble: which folds are averaged, and its weight."""

    name: str
    folds: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class EnsembleConfig:
    """What `infer.py` runs: `model_configs.json`.

    `base_rates` are the mean training label by task, and under "all" over all rows, for recordings
    that cannot be scored. `log_losses` tell how good the ensemble is: "honest", "fitted" (on the
    rows that the weights were searched on), "plain_mean", and "words" (honest, of the product over
    the words). `combine` is one of `COMBINATIONS`. `words` is None where no model scores words.
    """

    models: tuple[ModelConfig, ...]
    voice: dict[str, Any]
    base_rates: dict[str, float]
    log_losses: dict[str, float]
    n_rows: int
    combine: str = "probabilities"
    calibration: Calibration = field(default_factory=Calibration)
    words: WordCalibration | None = None

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models that have a weight."""
        return tuple(model for model in self.models if model.weight > 0)

    def predict(self, predictions: np.ndarray, grades: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows,), of those of the `models_to_run`, (models, rows).

        `grades`, (rows,), are those of the metadata.
        """
        weights = np.array([model.weight for model in self.models_to_run])
        return Mixture(self.combine, weights, self.calibration).predict(predictions, grades)

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
            calibration = Calibration.from_dict(values["calibration"])
            combine = values["combine"]  # not its default, where the file lacks it
            words = values["words"] and WordCalibration.from_dict(values["words"])
            fitted = {
                **{"models": models, "combine": combine},
                **{"calibration": calibration, "words": words},
            }
            config = cls(**{**values, **fitted})
        except FileNotFoundError:
            raise HearbackError(f"{path}: not there; write it with python get_config.py") from None
        except (ValueError, KeyError, TypeError, HearbackError) as error:
            raise HearbackError(
                f"{path}: not an ensemble's configuration ({error!r}); "
                "write it again with python get_config.py"
            ) from None
        if fault := _fault(config):
            raise HearbackError(f"{path}: {fault}; write it again with python get_config.py")
        return config

    def base_rate(self, task: str | None) -> float:
        """Return a task's base rate, or that of all rows for a task that training did not have."""
        return self.base_rates.get(task or "all", self.base_rates["all"])


def _fault(config: EnsembleConfig) -> str | None:
    """Return what is wrong with how a configuration combines its models, or None."""
    weights = np.array([model.weight for model in config.models])
    if config.combine not in COMBINATIONS:
        return f"unknown combination {config.combine!r}, not one of {', '.join(COMBINATIONS)}"
    # Said the positive way round, for NaN compares as false.
    if config.combine == "probabilities":
        if not ((weights >= 0).all() and abs(weights.sum() - 1) <= 1e-6):
            return "the models' weights are not shares of one"
    elif not (len(weights) and ((weights >= 0) & (weights < np.inf)).all()):
        return "the models' weights are not numbers from zero up"
    return None
