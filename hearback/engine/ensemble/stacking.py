"""The ensemble: fitted on out-of-fold predictions, scored on rows that it was not fitted on.

Predictions are (models, rows) of the probability of a 1, or (models, rows, classes) of each class's
and then the labels are the classes' numbers. Where both serve, they are (models, rows, …).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax
from sklearn.model_selection import GroupKFold

from hearback.engine.ensemble.calibration import KINDS, Calibration, fit_calibration
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN, fit_logistic, logit
from hearback.engine.evaluation.newton import Hessian, minimise, scaled_gram

COMBINATIONS = ("probabilities", "logits")
TOLERANCE = 1e-7  # nats: how far from the best weights' log loss a search may end
SMALLEST_WEIGHT = 1e-3  # on log-odds: less changes no score, and its model need not run
N_CROSS_FITS = 10
# How far weights on logits may lie from equal ones (standard deviations of a normal prior); the
# rows choose one. Their sum is drawn to one so weakly that a few hundred rows overrule it.
WEIGHT_DEVIATIONS = (0.03, 0.1, 0.3, 1.0)
SUM_DEVIATION = 1.0
N_INNER_FITS = 5


class Split(NamedTuple):
    """Places of the rows to fit on, (rest,), the latter's groups, and places of those held out."""

    rest: np.ndarray
    groups: "Groups"
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class Groups:
    """Which rows go together (a speaker's): equal `codes`, (rows,) of int.

    To split tens of thousands of groups takes as long as to fit an ensemble, so that is done once.
    """

    codes: np.ndarray

    @classmethod
    def of(cls, names: np.ndarray) -> "Groups":
        """Return the groups of rows by their names, (rows,)."""
        return cls(np.unique(names, return_inverse=True)[1])

    @cached_property
    def cross_fits(self) -> tuple[Split, ...]:
        """The splits for cross-fitted scores; none where there is but one group."""
        return self._split(N_CROSS_FITS)

    @cached_property
    def inner_fits(self) -> tuple[Split, ...]:
        """The splits that choose how strongly weights are drawn together; none likewise."""
        return self._split(N_INNER_FITS)

    def _split(self, n_splits: int) -> tuple[Split, ...]:
        n_splits = min(n_splits, len(np.unique(self.codes)))
        if n_splits < 2:
            return ()
        splits = GroupKFold(n_splits).split(self.codes, groups=self.codes)
        return tuple(Split(rest, Groups(self.codes[rest]), held_out) for rest, held_out in splits)


@dataclass(frozen=True)
class Evidence:
    """What an ensemble is fitted to: out-of-fold `predictions`, (models, rows, …).

    The rest are (rows,): `labels`, 0 or 1 or classes' numbers; the `groups` of the rows; and
    `calibration_groups`, str, the names that `Calibration.apply` takes ("": none).
    """

    predictions: np.ndarray
    labels: np.ndarray
    groups: Groups
    calibration_groups: np.ndarray

    @classmethod
    def of_classes(cls, predictions: np.ndarray, labels: np.ndarray, groups: Groups) -> "Evidence":
        """Return the evidence of probabilities, (models, rows, classes); its rows have no calibration group."""
        return cls(predictions, labels, groups, np.full(len(labels), ""))

    def without(self, models: Sequence[int]) -> "Evidence":
        """Return the evidence of the other models."""
        return replace(self, predictions=np.delete(self.predictions, list(models), axis=0))

    def only(self, models: Sequence[int]) -> "Evidence":
        """Return the evidence of some models, in their order."""
        return replace(self, predictions=self.predictions[list(models)])


@dataclass(frozen=True)
class Mixture:
    """Models' probabilities made one: `combine` is one of `COMBINATIONS`, `weights` (models,).

    - "probabilities": their weighted mean; the weights are shares of one;
    - "logits": the weighted sum of their log-odds; the weights are not negative, and as they need
      not sum to one, the sum may be more certain than its parts, or less.

    Of classes, the sum of "logits" is of log-probabilities, and its exponential, normalised, is a
    weighted geometric mean.
    """

    combine: str
    weights: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)

    def predict(self, predictions: np.ndarray, calibration_groups: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows, …), of the models' (models, rows, …).

        `calibration_groups`, (rows,) str, are those of `Evidence`.
        """
        return self.calibration.apply(
            mix(self.combine, self.weights, predictions), calibration_groups
        )


@dataclass(frozen=True)
class EnsembleScores:
    """An ensemble and log losses.

    `alone` is each model's, (models,); `fitted` is on the rows that weights and calibration were
    fitted on, `cross_fitted` is not.
    """

    mixture: Mixture
    alone: np.ndarray
    plain_mean: float
    fitted: float
    cross_fitted: float
    cross_fitted_predictions: np.ndarray  # (rows, …)


def mean_log_loss(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean log loss, in nats, of (rows,) labels and (rows, …) probabilities."""
    return float(-np.log(_likelihoods(predictions[None], labels)).mean())


def search_weights(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weights, (models,), non-negative and of sum one, with the lowest log loss.

    `predictions` is (models, rows, …) of probabilities; all that counts of them is what each model
    gave to what was the case. The log loss of a weighted mean of probabilities is that of a
    mixture's likelihood, convex in the weights. Adding their sum frees them of having to sum to
    one, which the least value's weights do nevertheless (Kim et al. 2020, arXiv 1806.01412). The
    largest mean ratio of a model's likelihood to the mixture's, less one, bounds what any weights
    could still gain (Lindsay 1983, "The Geometry of Mixture Likelihoods"): it is below
    `TOLERANCE`, or an ArithmeticError is raised.
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

    weights = minimise(objective, np.full(n_models, 1 / n_models), at_least=0)
    weights /= weights.sum()
    still_to_gain = (likelihoods @ (1 / (weights @ likelihoods))).max() / n_rows - 1
    if not still_to_gain < TOLERANCE:
        raise ArithmeticError(f"weights {weights} may be {still_to_gain} nats from the best")
    return weights


def search_logit_weights(predictions: np.ndarray, labels: np.ndarray, groups: Groups) -> np.ndarray:
    """Return the non-negative weights, (models,), of the log-odds' sum with the lowest log loss.

    `predictions` is (models, rows, …) of probabilities. Stacking (Wolpert 1992) by a logistic
    regression with non-negative coefficients, as Breiman (1996, "Stacked Regressions") found best;
    a ridge draws them towards equal ones. How strongly is chosen by cross-fitting over groups,
    among `WEIGHT_DEVIATIONS`.
    """
    return _search_logit_weights(_parts("logits", predictions), labels, groups)


def _search_logit_weights(logits: np.ndarray, labels: np.ndarray, groups: Groups) -> np.ndarray:
    n_models = len(logits)
    # One model has no differences to draw together.
    splits = groups.inner_fits if n_models > 1 else ()
    deviations = WEIGHT_DEVIATIONS if splits else WEIGHT_DEVIATIONS[:1]
    fits = [np.full(n_models, 1 / n_models)]
    for deviation in deviations:  # each begins where the last one ended
        fits.append(_fit_logit_weights(logits, labels, deviation, fits[-1]))
    candidates = fits[1:]
    losses = np.zeros(len(candidates))
    for rest, _, held_out in splits:
        of_rest, of_held_out = _rows(logits, rest), _rows(logits, held_out)
        for place, deviation in enumerate(deviations):
            weights = _fit_logit_weights(of_rest, labels[rest], deviation, candidates[place])
            held = _mix("logits", weights, of_held_out)
            losses[place] += mean_log_loss(labels[held_out], held) * len(held_out)
    weights = candidates[int(np.argmin(losses))]
    return np.where(weights < SMALLEST_WEIGHT, 0, weights)


def _fit_logit_weights(
    logits: np.ndarray, labels: np.ndarray, deviation: float, start: np.ndarray
) -> np.ndarray:
    n_models = len(logits)
    of_sum = np.ones((n_models, n_models))
    of_differences = np.eye(n_models) - of_sum / n_models
    precision = of_differences / deviation**2 + of_sum / SUM_DEVIATION**2
    centre = np.full(n_models, 1 / n_models)
    if logits.ndim == 2:
        return fit_logistic(logits.T, labels, centre, precision, at_least=0, start=start)
    return _fit_class_weights(logits, labels, centre, precision, start)


def _fit_class_weights(
    logits: np.ndarray,
    labels: np.ndarray,
    centre: np.ndarray,
    precision: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """Do what `fit_logistic` does for the weights, not negative, of (models, rows, classes).

    This is McFadden's conditional logit (1974, "Conditional Logit Analysis of Qualitative Choice
    Behavior"), of coefficients that the classes share, which is convex as well.
    """
    n_models, n_rows, _ = logits.shape
    # How far each class is above the true one, for the true one is what the loss compares with.
    above = logits - logits[:, np.arange(n_rows), labels][:, :, None]
    flat = above.reshape(n_models, -1)
    precision = precision / n_rows

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        mixed = _weighted_sum(weights, above)
        losses = logsumexp(mixed, axis=1)
        shares = np.exp(mixed - losses[:, None])
        off = weights - centre
        pull = precision @ off

        def hessian() -> np.ndarray:
            means = (above * shares).sum(axis=2, keepdims=True)
            centred = (above - means).reshape(n_models, -1)
            return scaled_gram(centred, np.sqrt(shares.ravel())) / n_rows + precision

        gradient = flat @ shares.ravel() / n_rows + pull
        return float(losses.mean() + 0.5 * off @ pull), gradient, hessian

    return minimise(objective, start, at_least=0)


def _rows(parts: np.ndarray, places: np.ndarray) -> np.ndarray:
    # parts[:, places] would lay a row's models side by side, and every pass over it take longer.
    return np.take(parts, places, axis=1)


def _parts(combine: str, predictions: np.ndarray) -> np.ndarray:
    """Return what is weighted and summed, (models, rows, …)."""
    if combine == "probabilities":
        return predictions
    if predictions.ndim == 2:
        return logit(predictions)
    return np.log(np.clip(predictions, PROBABILITY_MARGIN, 1))


def _search(combine: str, parts: np.ndarray, labels: np.ndarray, groups: Groups) -> np.ndarray:
    if combine == "probabilities":
        return search_weights(parts, labels)
    return _search_logit_weights(parts, labels, groups)


def mix(combine: str, weights: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the probabilities, (rows, …), that models' (models, rows, …) make as a `Mixture`."""
    return _mix(combine, weights, _parts(combine, predictions))


def _mix(combine: str, weights: np.ndarray, parts: np.ndarray) -> np.ndarray:
    mixed = _weighted_sum(weights, parts)
    if combine == "probabilities":
        return mixed
    return expit(mixed) if mixed.ndim == 1 else softmax(mixed, axis=1)


def _weighted_sum(weights: np.ndarray, parts: np.ndarray) -> np.ndarray:
    n_models, *shape = parts.shape
    return (weights @ parts.reshape(n_models, -1)).reshape(shape)


def fit_mixture(evidence: Evidence, combine: str, calibration: str) -> Mixture:
    """Fit weights, then a calibration to what they give."""
    parts = _parts(combine, evidence.predictions)
    weights = _search(combine, parts, evidence.labels, evidence.groups)
    mixed = _mix(combine, weights, parts)
    fitted = fit_calibration(calibration, mixed, evidence.labels, evidence.calibration_groups)
    return Mixture(combine, weights, fitted)


def cross_fit(
    evidence: Evidence, combine: str, calibrations: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return cross-fitted probabilities, (rows, …), by calibration.

    Each row's come of weights and a calibration that were both fitted on other groups' rows. Raises
    HearbackError where there are no other groups.
    """
    labels, calibration_groups = evidence.labels, evidence.calibration_groups
    if not evidence.groups.cross_fits:
        raise HearbackError("all rows are of one group: no others to fit an ensemble on")
    parts = _parts(combine, evidence.predictions)
    cross_fitted = {kind: np.empty(evidence.predictions.shape[1:]) for kind in calibrations}
    for rest, groups, held_out in evidence.groups.cross_fits:
        weights = _search(combine, _rows(parts, rest), labels[rest], groups)
        mixed = _mix(combine, weights, parts)
        for kind, predictions in cross_fitted.items():
            fitted = fit_calibration(kind, mixed[rest], labels[rest], calibration_groups[rest])
            predictions[held_out] = fitted.apply(mixed[held_out], calibration_groups[held_out])
    return cross_fitted


def score_ensemble(evidence: Evidence, combine: str, calibration: str) -> EnsembleScores:
    """Fit an ensemble and score it, its models and their plain mean.

    `combine` is one of `COMBINATIONS`, `calibration` one of `calibration.KINDS`; the cross-fitted score
    is `cross_fit`'s. Raises HearbackError where all rows are of one group.
    """
    predictions, labels = evidence.predictions, evidence.labels
    cross_fitted = cross_fit(evidence, combine, [calibration])[calibration]
    mixture = fit_mixture(evidence, combine, calibration)
    return EnsembleScores(
        mixture=mixture,
        alone=np.array([mean_log_loss(labels, alone) for alone in predictions]),
        plain_mean=mean_log_loss(labels, predictions.mean(axis=0)),
        fitted=mean_log_loss(labels, mixture.predict(predictions, evidence.calibration_groups)),
        cross_fitted=mean_log_loss(labels, cross_fitted),
        cross_fitted_predictions=cross_fitted,
    )


def compare_combinations(
    evidence: Evidence, kinds: Sequence[str] = KINDS
) -> dict[str, dict[str, float]]:
    """Return the cross-fitted log loss by combination and kind of calibration."""
    return {
        combine: {
            kind: mean_log_loss(evidence.labels, cross_fitted)
            for kind, cross_fitted in cross_fit(evidence, combine, kinds).items()
        }
        for combine in COMBINATIONS
    }


def cross_fitted_log_loss_without(
    models: Sequence[int], evidence: Evidence, combine: str, calibration: str
) -> float:
    """Return the cross-fitted log loss of the ensemble without some models; NaN where none is left."""
    rest = evidence.without(models)
    if not len(rest.predictions):
        return float("nan")
    cross_fitted = cross_fit(rest, combine, [calibration])[calibration]
    return mean_log_loss(evidence.labels, cross_fitted)


def _likelihoods(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability, (models, rows), that each model gave to what was the case."""
    if predictions.ndim == 3:
        likelihoods = predictions[:, np.arange(len(labels)), labels]
    else:
        likelihoods = np.abs(predictions - (labels <= 0.5))
    return np.clip(likelihoods, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN, out=likelihoods)
