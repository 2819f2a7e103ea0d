"""Stacking: model weights fitted on out-of-fold predictions, with a cross-fitted score.

Predictions are binary, (models, rows) probabilities of label 1, or of classes, (models, rows,
classes) with class numbers as labels. "(models, rows, …)" stands for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy  # imports its parts as they are used

from hearback.engine.ensemble.calibration import KINDS, Calibration, fit_calibration
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN, fit_logistic, logit
from hearback.engine.evaluation.newton import Hessian, minimise, scaled_gram

COMBINATIONS = ("probabilities", "logits")
TOLERANCE = 1e-7  # nats: maximal distance of a search's log loss from the optimum
MIN_LOGIT_WEIGHT = 1e-3  # smaller weights change no score; zeroed, so that the model is not run
N_CROSS_FITS = 10
# Standard deviations of the normal prior on the differences of logit weights; one is chosen by
# inner cross-validation. The prior on their sum is so wide that a few hundred rows outweigh it.
WEIGHT_DEVIATIONS = (0.03, 0.1, 0.3, 1.0)
SUM_DEVIATION = 1.0
N_INNER_SPLITS = 5


class Split(NamedTuple):
    """Row indices to fit on, (fitted,), the groups of those rows, and held-out row indices."""

    fitted: np.ndarray
    groups: "Groups"
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of rows that are not independent, as `codes`, (rows,) int.

    Splits are cached: splitting tens of thousands of groups takes as long as fitting an ensemble.
    """

    codes: np.ndarray

    @classmethod
    def from_names(cls, names: np.ndarray) -> "Groups":
        """Return the groups of rows with equal names, (rows,)."""
        return cls(np.unique(names, return_inverse=True)[1])

    @cached_property
    def cross_fits(self) -> tuple[Split, ...]:
        """Cross-validation splits for cross-fitted scores; empty if there is only one group."""
        return self._split(N_CROSS_FITS)

    @cached_property
    def inner_splits(self) -> tuple[Split, ...]:
        """Cross-validation splits that choose the prior on weights; empty for a single group."""
        return self._split(N_INNER_SPLITS)

    def _split(self, n_splits: int) -> tuple[Split, ...]:
        n_splits = min(n_splits, len(np.unique(self.codes)))
        if n_splits < 2:
            return ()
        from sklearn.model_selection import GroupKFold  # noqa: PLC0415  (--help needs none)

        splits = GroupKFold(n_splits).split(self.codes, groups=self.codes)
        return tuple(Split(fitted, Groups(self.codes[fitted]), out) for fitted, out in splits)


@dataclass(frozen=True)
class StackingData:
    """Out-of-fold `predictions`, (models, rows, …), with labels and groups.

    `labels`, (rows,), are 0 or 1, or class numbers; `groups` are kept whole in every split;
    `calibration_groups`, (rows,) str, are those of `Calibration.apply` ("" for none).
    """

    predictions: np.ndarray
    labels: np.ndarray
    groups: Groups
    calibration_groups: np.ndarray

    @classmethod
    def of_classes(
        cls, predictions: np.ndarray, labels: np.ndarray, groups: Groups
    ) -> "StackingData":
        """Return data of (models, rows, classes) probabilities, without calibration groups."""
        return cls(predictions, labels, groups, np.full(len(labels), ""))

    def without(self, models: Sequence[int]) -> "StackingData":
        """Return the data without some models, given by index."""
        return replace(self, predictions=np.delete(self.predictions, list(models), axis=0))

    def only(self, models: Sequence[int]) -> "StackingData":
        """Return the data of some models, given by index, in that order."""
        return replace(self, predictions=self.predictions[list(models)])


@dataclass(frozen=True)
class WeightedEnsemble:
    """A fitted weighted ensemble: `combine` is one of `COMBINATIONS`, `weights` (models,).

    - "probabilities": the weighted mean of probabilities; the weights sum to one;
    - "logits": the weighted sum of log-odds; the weights are non-negative and need not sum to one,
      so the sum may be more or less confident than the models.

    For classes, "logits" is the weighted sum of log-probabilities, normalised by a softmax: a
    weighted geometric mean.
    """

    combine: str
    weights: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)

    def predict(self, predictions: np.ndarray, calibration_groups: np.ndarray) -> np.ndarray:
        """Return the ensemble's probabilities, (rows, …), from the models', (models, rows, …).

        `calibration_groups`, (rows,) str, are those of `StackingData`.
        """
        combined = combine_predictions(self.combine, self.weights, predictions)
        return self.calibration.apply(combined, calibration_groups)


@dataclass(frozen=True)
class EnsembleScores:
    """A fitted ensemble and log losses, in nats.

    `alone` is each model's, (models,). `fitted` is measured on the rows of the fit, `cross_fitted`
    on rows held out of it, with the predictions `cross_fitted_predictions`, (rows, …).
    """

    ensemble: WeightedEnsemble
    alone: np.ndarray
    plain_mean: float
    fitted: float
    cross_fitted: float
    cross_fitted_predictions: np.ndarray

    @property
    def log_losses(self) -> dict[str, float]:
        """The ensemble's log losses by name, as a configuration has them."""
        return {
            "cross_fitted": self.cross_fitted,
            "fitted": self.fitted,
            "plain_mean": self.plain_mean,
        }


def mean_log_loss(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean log loss, in nats, of (rows, …) probabilities and (rows,) labels."""
    return float(-np.log(_likelihoods(predictions[None], labels)).mean())


def fit_probability_weights(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights, (models,), of the mean of probabilities with the lowest log loss.

    `predictions` is (models, rows, …). The weights are non-negative and sum to one. The log loss of
    a weighted mean is that of a mixture's likelihood, convex in the weights. Adding their sum to
    the objective removes the constraint: the minimiser sums to one anyway (Kim et al. 2020, arXiv
    1806.01412). The largest mean ratio of a model's likelihood to the mixture's, minus one, bounds
    the possible improvement (Lindsay 1983, "The Geometry of Mixture Likelihoods"). Raises
    ArithmeticError if that bound is not below `TOLERANCE`.
    """
    likelihoods = _likelihoods(predictions, labels)
    n_models, n_rows = likelihoods.shape

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        mixture = weights @ likelihoods
        inverse = 1 / mixture

        def hessian() -> np.ndarray:
            return scaled_gram(likelihoods, inverse) / n_rows

        value = float(weights.sum() - np.log(mixture).mean())
        return value, 1 - likelihoods @ inverse / n_rows, hessian

    weights = minimise(objective, np.full(n_models, 1 / n_models), lower_bound=0)
    weights /= weights.sum()
    bound = (likelihoods @ (1 / (weights @ likelihoods))).max() / n_rows - 1
    if not bound < TOLERANCE:
        raise ArithmeticError(f"weights {weights} may be {bound} nats from the optimum")
    return weights


def fit_logit_weights(predictions: np.ndarray, labels: np.ndarray, groups: Groups) -> np.ndarray:
    """Return the non-negative weights, (models,), of the sum of log-odds with the lowest log loss.

    `predictions` is (models, rows, …). Stacking (Wolpert 1992) by logistic regression with
    non-negative coefficients, which Breiman (1996, "Stacked Regressions") found best. A ridge
    shrinks the weights towards equal ones; its strength is chosen among `WEIGHT_DEVIATIONS` by
    cross-validation over groups.
    """
    return _fit_logit_weights(_to_summands("logits", predictions), labels, groups)


def _fit_logit_weights(logits: np.ndarray, labels: np.ndarray, groups: Groups) -> np.ndarray:
    n_models = len(logits)
    # With one model there are no differences to shrink.
    splits = groups.inner_splits if n_models > 1 else ()
    deviations = WEIGHT_DEVIATIONS if splits else WEIGHT_DEVIATIONS[:1]
    fits = [np.full(n_models, 1 / n_models)]
    for deviation in deviations:  # each fit starts at the previous one
        fits.append(_fit_shrunk_weights(logits, labels, deviation, fits[-1]))
    candidates = fits[1:]
    losses = np.zeros(len(candidates))
    for fitted, _, held_out in splits:
        to_fit, to_score = _take_rows(logits, fitted), _take_rows(logits, held_out)
        for i, deviation in enumerate(deviations):
            weights = _fit_shrunk_weights(to_fit, labels[fitted], deviation, candidates[i])
            predicted = _combine("logits", weights, to_score)
            losses[i] += mean_log_loss(labels[held_out], predicted) * len(held_out)
    weights = candidates[int(np.argmin(losses))]
    return np.where(weights < MIN_LOGIT_WEIGHT, 0, weights)


def _fit_shrunk_weights(
    logits: np.ndarray, labels: np.ndarray, deviation: float, start: np.ndarray
) -> np.ndarray:
    """Return logit weights, (models,), whose differences have a prior of this `deviation`."""
    n_models = len(logits)
    of_sum = np.ones((n_models, n_models))
    of_differences = np.eye(n_models) - of_sum / n_models
    precision = of_differences / deviation**2 + of_sum / SUM_DEVIATION**2
    equal = np.full(n_models, 1 / n_models)
    if logits.ndim == 2:
        return fit_logistic(logits.T, labels, equal, precision, lower_bound=0, start=start)
    return _fit_class_weights(logits, labels, equal, precision, start)


def _fit_class_weights(
    logits: np.ndarray,
    labels: np.ndarray,
    prior_mean: np.ndarray,
    precision: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """Fit non-negative weights, (models,), to (models, rows, classes) log-probabilities.

    The counterpart of `fit_logistic` for classes: McFadden's conditional logit (1974, "Conditional
    Logit Analysis of Qualitative Choice Behavior"), in which classes share the coefficients. The
    problem is convex.
    """
    n_models, n_rows, _ = logits.shape
    # Relative to the true class, to which the loss compares every class.
    relative = logits - logits[:, np.arange(n_rows), labels][:, :, None]
    flat = relative.reshape(n_models, -1)
    precision = precision / n_rows

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        combined = _weighted_sum(weights, relative)
        losses = scipy.special.logsumexp(combined, axis=1)
        shares = np.exp(combined - losses[:, None])
        distance = weights - prior_mean
        pull = precision @ distance

        def hessian() -> np.ndarray:
            means = (relative * shares).sum(axis=2, keepdims=True)
            centred = (relative - means).reshape(n_models, -1)
            return scaled_gram(centred, np.sqrt(shares.ravel())) / n_rows + precision

        gradient = flat @ shares.ravel() / n_rows + pull
        return float(losses.mean() + 0.5 * distance @ pull), gradient, hessian

    return minimise(objective, start, lower_bound=0)


def _take_rows(summands: np.ndarray, indices: np.ndarray) -> np.ndarray:
    # summands[:, indices] has a layout with models adjacent, which makes every pass slower.
    return np.take(summands, indices, axis=1)


def _to_summands(combine: str, predictions: np.ndarray) -> np.ndarray:
    """Return the quantities that are weighted and summed, (models, rows, …)."""
    if combine == "probabilities":
        return predictions
    if predictions.ndim == 2:
        logits = np.empty(predictions.shape)
        for of_model, own in zip(predictions, logits, strict=True):  # small temporary arrays
            own[:] = logit(of_model)
        return logits
    return np.log(np.clip(predictions, PROBABILITY_MARGIN, 1))


def _fit_weights(
    combine: str, summands: np.ndarray, labels: np.ndarray, groups: Groups
) -> np.ndarray:
    if combine == "probabilities":
        return fit_probability_weights(summands, labels)
    return _fit_logit_weights(summands, labels, groups)


def combine_predictions(combine: str, weights: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the combined probabilities, (rows, …), of (models, rows, …), uncalibrated."""
    return _combine(combine, weights, _to_summands(combine, predictions))


def _combine(combine: str, weights: np.ndarray, summands: np.ndarray) -> np.ndarray:
    combined = _weighted_sum(weights, summands)
    if combine == "probabilities":
        return combined
    return (
        scipy.special.expit(combined)
        if combined.ndim == 1
        else scipy.special.softmax(combined, axis=1)
    )


def _weighted_sum(weights: np.ndarray, summands: np.ndarray) -> np.ndarray:
    n_models, *shape = summands.shape
    return (weights @ summands.reshape(n_models, -1)).reshape(shape)


def fit_ensemble(data: StackingData, combine: str, calibration: str) -> WeightedEnsemble:
    """Fit the weights, then a calibration to the combined predictions."""
    summands = _to_summands(combine, data.predictions)
    weights = _fit_weights(combine, summands, data.labels, data.groups)
    combined = _combine(combine, weights, summands)
    fitted = fit_calibration(calibration, combined, data.labels, data.calibration_groups)
    return WeightedEnsemble(combine, weights, fitted)


def cross_fit(
    data: StackingData, combine: str, calibrations: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return cross-fitted probabilities, (rows, …), by kind of calibration.

    The weights and the calibration for a row are fitted without its group. Raises HearbackError if
    there is only one group.
    """
    labels, calibration_groups = data.labels, data.calibration_groups
    if not data.groups.cross_fits:
        raise HearbackError("an ensemble cannot be cross-fitted: all rows are of one group")
    summands = _to_summands(combine, data.predictions)
    cross_fitted = {kind: np.empty(data.predictions.shape[1:]) for kind in calibrations}
    for fitted, groups, held_out in data.groups.cross_fits:
        weights = _fit_weights(combine, _take_rows(summands, fitted), labels[fitted], groups)
        combined = _combine(combine, weights, summands)
        for kind, predictions in cross_fitted.items():
            calibration = fit_calibration(
                kind, combined[fitted], labels[fitted], calibration_groups[fitted]
            )
            predictions[held_out] = calibration.apply(
                combined[held_out], calibration_groups[held_out]
            )
    return cross_fitted


def score_ensemble(data: StackingData, combine: str, calibration: str) -> EnsembleScores:
    """Fit an ensemble; return its log losses and those of its models and their plain mean.

    `combine` is one of `COMBINATIONS`, `calibration` one of `calibration.KINDS`. Raises
    HearbackError if there is only one group.
    """
    predictions, labels = data.predictions, data.labels
    cross_fitted = cross_fit(data, combine, [calibration])[calibration]
    ensemble = fit_ensemble(data, combine, calibration)
    return EnsembleScores(
        ensemble=ensemble,
        alone=np.array([mean_log_loss(labels, alone) for alone in predictions]),
        plain_mean=mean_log_loss(labels, predictions.mean(axis=0)),
        fitted=mean_log_loss(labels, ensemble.predict(predictions, data.calibration_groups)),
        cross_fitted=mean_log_loss(labels, cross_fitted),
        cross_fitted_predictions=cross_fitted,
    )


def compare_combinations(
    data: StackingData, kinds: Sequence[str] = KINDS
) -> dict[str, dict[str, float]]:
    """Return the cross-fitted log loss, in nats, by combination and kind of calibration."""
    return {
        combine: {
            kind: mean_log_loss(data.labels, cross_fitted)
            for kind, cross_fitted in cross_fit(data, combine, kinds).items()
        }
        for combine in COMBINATIONS
    }


def log_loss_without(
    models: Sequence[int], data: StackingData, combine: str, calibration: str
) -> float:
    """Return the ensemble's cross-fitted log loss without some models; NaN if none is left."""
    rest = data.without(models)
    if not len(rest.predictions):
        return float("nan")
    cross_fitted = cross_fit(rest, combine, [calibration])[calibration]
    return mean_log_loss(data.labels, cross_fitted)


def _likelihoods(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability of each true label, (models, rows), clipped."""
    if predictions.ndim == 3:
        likelihoods = predictions[:, np.arange(len(labels)), labels]
    else:
        likelihoods = np.abs(predictions - (labels <= 0.5))
    return np.clip(likelihoods, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN, out=likelihoods)
