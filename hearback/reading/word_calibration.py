"""Calibration of the word scores of several models, fitted with labels of words or of clips.

Word scores are log-odds, (rows, positions, 2), laid out as in `hearback.reading.words`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy  # imports its parts as they are used

from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.stacking import mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import SMALLEST_PROBABILITY, fit_logistic, logit
from hearback.reading.words import COMPLETE, SAID

N_CROSS_FITS = 10
# Of `noisy_and`: a long text is not read worse because it is long.
MOST_WORDS, MANY_WORDS = 20, 30
USUAL_LETTERS = 4
# Fewer labelled words of either kind, said and not said, teach nothing; labels of clips do then.
FEWEST_LABELLED = 30
# Of the normal priors on the intercepts and on the logarithms of the slopes and of the power.
_DEVIATION = 1.0
_MAX_LOG_PROBABILITY = -1e-12
_LARGEST_POWER = 8.0


@dataclass(frozen=True)
class WordCalibration:
    """Calibration of the weighted mean of the log-odds of `models`.

    `said` and `complete` are lines on the log-odds, with positive slopes. `weights` are those of
    the models, non-negative; none: all are equal. `complete_weights` are those for `complete`, for
    a model that hears how words are said may not hear which are missing; none: the same.

    `letters` is added to the mean log-odds that a word was said for each unit of
    log(its letters / `USUAL_LETTERS`): segment scorers take a word's sounds for independent, and so
    score long words too low; token scorers score them too high.

    `complete_power` is that of the `noisy_and`: what sounds like a missing word is also a sign of
    errors that no label of words has.
    """

    models: tuple[str, ...]
    said: Line
    complete: Line
    weights: tuple[float, ...] = ()
    complete_weights: tuple[float, ...] = ()
    letters: float = 0.0
    complete_power: float = 1.0

    @property
    def weight_of(self) -> dict[str, float]:
        """The mean of both weights of the models that have one, by name; they sum to one."""
        both = self._weights
        return {
            name: weight
            for name, weight in zip(self.models, both.mean(axis=1).tolist(), strict=True)
            if weight > 0
        }

    @property
    def _weights(self) -> np.ndarray:
        """The weights, (models, 2) as in `words`; both columns sum to one."""
        said = self.weights or (1.0,) * len(self.models)
        weights = np.array([said, self.complete_weights or said]).T
        return weights / weights.sum(axis=0)

    def mean(self, log_odds: Mapping[str, np.ndarray], n_letters: np.ndarray) -> np.ndarray:
        """Return the weighted mean of those of the models' log-odds that are there.

        They, and it, are (rows, positions, 2). At least one with a weight must be there.
        `n_letters`, (rows, positions), are `words.count_letters`.
        """
        there = [index for index, name in enumerate(self.models) if name in log_odds]
        weights = self._weights[there]
        of_none = weights.sum(axis=0) == 0  # only models with the other weight are there
        weights = np.where(of_none, weights.sum(axis=1, keepdims=True), weights)
        weights = weights / weights.sum(axis=0)
        found = np.stack([log_odds[self.models[index]] for index in there])
        mean = np.einsum("mrpk,mk->rpk", found, weights)
        mean[:, :, SAID] += self.letters * _log_letters(n_letters)
        return mean

    def apply(self, mean: np.ndarray) -> np.ndarray:
        """Return the probabilities, (rows, positions, 2), of the mean log-odds."""
        slopes = np.array([self.said.slope, self.complete.slope])
        intercepts = np.array([self.said.intercept, self.complete.intercept])
        return scipy.special.expit(mean * slopes + intercepts)

    def all_said(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probability that all words were said, (rows,), of those of `apply`."""
        return noisy_and(probabilities, self.complete_power)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], weights: Mapping[str, float] | None = None
    ) -> "WordCalibration":
        """Build a calibration from its `dataclasses.asdict`; HearbackError for invalid values.

        `weights` are those of the ensemble: files of older versions have no others for words.
        """
        try:
            said, complete = (
                Line(float(values[name]["slope"]), float(values[name]["intercept"]))
                for name in ("said", "complete")
            )
            models = tuple(values["models"])
            if "weights" not in values and weights is not None:
                values = {**values, "weights": [weights[name] for name in models]}
            of_said, of_complete = (
                tuple(map(float, values.get(name, ()))) for name in ("weights", "complete_weights")
            )
            letters, power = (
                float(values.get(name, default))
                for name, default in (("letters", 0.0), ("complete_power", 1.0))
            )
            calibration = cls(models, said, complete, of_said, of_complete, letters, power)
        except (KeyError, TypeError, ValueError) as error:
            raise HearbackError(f"not a calibration of words ({error!r})") from None
        numbers = [number for line in (said, complete) for number in asdict(line).values()]
        numbers += [*calibration.weights, *calibration.complete_weights, letters, power]
        if not models or not all(map(math.isfinite, numbers)):
            raise HearbackError("a calibration of words lacks its models or its numbers")
        if min(said.slope, complete.slope, power) <= 0:
            raise HearbackError("the slopes and power of a calibration of words must be positive")
        for found in (calibration.weights, calibration.complete_weights):
            if found and (len(found) != len(models) or min(found) < 0 or sum(found) <= 0):
                raise HearbackError("the weights of a calibration of words are not its models'")
        return calibration


class Lines(NamedTuple):
    """Lines on the log-odds that words were said, and that none is missing before them."""

    said: Line
    complete: Line


class CrossFitted(NamedTuple):
    """Probabilities of words, (rows, positions, 2), and that all were said, (rows,)."""

    words: np.ndarray
    all_said: np.ndarray


class WordExamples(NamedTuple):
    """What word scores are fitted to.

    Attributes:
        log_odds: (rows, positions, 2) by model.
        n_letters: (rows, positions), of `words.count_letters`.
        weights: of the models in the ensemble of clips.
        labels: (rows,), 0 or 1, of the clips.
        targets: (rows, positions, 2), the share of experts who accept each word, and whether
            nothing is missing before it; NaN where unknown. None without labels of words.
    """

    log_odds: Mapping[str, np.ndarray]
    n_letters: np.ndarray
    weights: Mapping[str, float]
    labels: np.ndarray
    targets: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "WordExamples":
        """Return the examples of some rows."""
        log_odds = {name: values[rows] for name, values in self.log_odds.items()}
        targets = None if self.targets is None else self.targets[rows]
        return WordExamples(
            log_odds, self.n_letters[rows], self.weights, self.labels[rows], targets
        )


def fit(examples: WordExamples) -> WordCalibration | None:
    """Fit a calibration; None if no model that scores words has a weight.

    Where words have labels, the models have weights for words too, and a probability is that most
    experts accept the word. Otherwise the models have the ensemble's weights, and the labels of
    clips teach (`fit_to_clips`).
    """
    if not examples.log_odds:
        return None
    if _has_labels(examples.targets):
        return _fit_to_words(examples)
    names = [name for name in examples.log_odds if examples.weights.get(name)]
    if not names:
        return None
    weights = tuple(examples.weights[name] for name in names)
    unfitted = WordCalibration(tuple(names), Line(), Line(), weights)
    fitted = fit_to_clips(unfitted.mean(examples.log_odds, examples.n_letters), examples.labels)
    return replace(unfitted, said=fitted.said, complete=fitted.complete)


def cross_fit(examples: WordExamples, groups: np.ndarray) -> CrossFitted:
    """Return the probabilities of words, and that all were said, calibrated on the other groups.

    `groups` is (rows,). The weights in the ensemble, which say what models take part, are those of
    all rows. Raises HearbackError if there is only one group, or nothing to fit.
    """
    n_splits = min(N_CROSS_FITS, len(np.unique(groups)))
    if n_splits < 2:
        raise HearbackError("words cannot be cross-fitted: all rows are of one group")
    from sklearn.model_selection import GroupKFold  # noqa: PLC0415  (--help needs none)

    shape = next(iter(examples.log_odds.values())).shape
    cross_fitted = CrossFitted(np.empty(shape), np.empty(len(examples.labels)))
    for fitted, held_out in GroupKFold(n_splits).split(examples.labels, groups=groups):
        calibration = fit(examples.take(fitted))
        if calibration is None:
            raise HearbackError("words cannot be calibrated: no model that scores them has weight")
        others = examples.take(held_out)
        mean = calibration.mean(others.log_odds, others.n_letters)
        cross_fitted.words[held_out] = calibration.apply(mean)
        cross_fitted.all_said[held_out] = calibration.all_said(cross_fitted.words[held_out])
    return cross_fitted


def noisy_and(probabilities: np.ndarray, complete_power: float = 1.0) -> np.ndarray:
    """Return the probability that all words were said and nothing is missing, (rows,).

    `probabilities`, (rows, positions, 2), are treated as independent, those that nothing is missing
    taken to a power: their product. A text of more than `MOST_WORDS` words counts as that many: the
    product's root, and from `MANY_WORDS` words on the odds of one wrong place at most, all being
    equally likely, which are the harmonic mean of the words' odds. So some doubtful words, which
    any long text has, do not make it as unlikely as a wrong one does. In between, log-odds are
    interpolated.
    """
    n_words = (~np.isnan(probabilities[:, :, SAID])).sum(axis=1)
    said, complete = probabilities[:, :, SAID], probabilities[:, :, COMPLETE] ** complete_power
    result = np.nanprod(said, axis=1) * np.nanprod(complete, axis=1)
    long = n_words > MOST_WORDS
    if not long.any():
        return result
    root = result[long] ** (MOST_WORDS / n_words[long])
    likely = np.maximum(np.stack([said[long], complete[long]]), SMALLEST_PROBABILITY)
    against = np.nansum((1 - likely) / likely, axis=(0, 2)) * MOST_WORDS / n_words[long]
    share = np.minimum((n_words[long] - MOST_WORDS) / (MANY_WORDS - MOST_WORDS), 1)
    log_odds = (1 - share) * logit(root) + share * logit(1 / (1 + against))
    result[long] = scipy.special.expit(log_odds)
    return result


def _has_labels(targets: np.ndarray | None) -> bool:
    """Return whether enough words are known to be said, and enough not to be."""
    if targets is None:
        return False
    said = targets[:, :, SAID]
    return min((said >= 0.5).sum(), (said < 0.5).sum()) >= FEWEST_LABELLED


def _fit_to_words(examples: WordExamples) -> WordCalibration:
    """Fit weights and lines to labels of words: logistic regressions of what most experts say.

    `said` and `complete` have weights of their own, non-negative. Where nothing is known to be
    missing, `complete` has the weights of `said`, the identity for a line, and the power 1. Else
    labels of clips teach the power.
    """
    assert examples.targets is not None
    names = list(examples.log_odds)
    stacked = np.stack([examples.log_odds[name] for name in names])
    said, complete = examples.targets[:, :, SAID], examples.targets[:, :, COMPLETE]
    known = ~np.isnan(said)
    weights, line, letters = _fit_logistic(
        stacked[:, known, SAID], said[known] >= 0.5, _log_letters(examples.n_letters[known])
    )
    known = ~np.isnan(complete)
    is_complete = complete[known] >= 0.5
    hears_missing = min(is_complete.sum(), (~is_complete).sum()) >= FEWEST_LABELLED
    if hears_missing:
        of_complete, line_of_complete, _ = _fit_logistic(stacked[:, known, COMPLETE], is_complete)
    else:
        of_complete, line_of_complete = weights, Line()
    used = [index for index in range(len(names)) if weights[index] or of_complete[index]]
    fitted = WordCalibration(
        tuple(names[index] for index in used),
        line,
        line_of_complete,
        tuple(weights[used].tolist()),
        tuple(of_complete[used].tolist()),
        letters,
    )
    if not hears_missing:
        return fitted
    probabilities = fitted.apply(fitted.mean(examples.log_odds, examples.n_letters))
    return replace(fitted, complete_power=_fit_power(probabilities, examples.labels))


def _fit_power(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the power of `noisy_and` with the lowest log loss of the clips' (rows,) labels.

    It is at least 1. A normal prior keeps that of a small table near 1.
    """

    def objective(log_power: float) -> float:
        loss = mean_log_loss(labels, noisy_and(probabilities, math.exp(log_power)))
        return loss + 0.5 * (log_power / _DEVIATION) ** 2 / len(labels)

    bounds = (0.0, math.log(_LARGEST_POWER))
    found = scipy.optimize.minimize_scalar(objective, bounds=bounds, method="bounded")
    return math.exp(found.x)


def _log_letters(n_letters: np.ndarray) -> np.ndarray:
    """Return what `WordCalibration.letters` multiplies, of numbers of letters of any shape."""
    return np.log(n_letters / USUAL_LETTERS)


def _fit_logistic(
    log_odds: np.ndarray, is_true: np.ndarray, log_letters: np.ndarray | None = None
) -> tuple[np.ndarray, Line, float]:
    """Fit non-negative weights to (models, words) log-odds and a coefficient to (words,) letters.

    A normal prior keeps the weights' coefficients near equal ones that sum to one, and the others
    near 0. Returns the weights, which sum to one; the line of the mean; and what the mean has added
    for each unit of `log_letters` (0 without).
    """
    n_models = len(log_odds)
    free = [np.ones(log_odds.shape[1])]
    if log_letters is not None:
        free.append(log_letters)
    # Of either sign: the difference of two coefficients, since none may be negative.
    features = np.vstack([log_odds, *free, *(-each for each in free)]).T
    prior_mean = np.append(np.full(n_models, 1 / n_models), np.zeros(2 * len(free)))
    found = fit_logistic(features, is_true, prior_mean, np.eye(len(prior_mean)), lower_bound=0)
    coefficients = found[:n_models]
    intercept, *letters = found[n_models : n_models + len(free)] - found[n_models + len(free) :]
    if not coefficients.any():  # none tells words apart
        coefficients, letters = 1e-3 * prior_mean[:n_models], []
    slope = float(coefficients.sum())
    return coefficients / slope, Line(slope, float(intercept)), float(sum(letters)) / slope


def fit_to_clips(log_odds: np.ndarray, labels: np.ndarray) -> Lines:
    """Fit lines to (rows, positions, 2) log-odds and (rows,) labels, 0 or 1, of clips.

    Only clips are labelled, not their words. A clip is correct if all of its words were said and
    nothing is missing, so the lines minimise the log loss of the `noisy_and` of a clip's words
    (that of short texts, for all).
    This is multiple-instance learning with clips as bags, the noisy-and being the complement of a
    noisy-or (Keeler, Rumelhart & Leow 1991; Maron & Lozano-Pérez 1998). A normal prior keeps the
    lines of a small table near the identity.
    """
    known = ~np.isnan(log_odds)
    # Most positions are padding: work on a flat array of the words that exist.
    clips, _, kinds = np.nonzero(known)
    values = log_odds[known]
    correct = labels > 0.5
    n_rows = len(labels)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slopes, intercepts = np.exp(parameters[:2]), parameters[2:]
        margins = slopes[kinds] * values + intercepts[kinds]
        small = np.exp(-np.abs(margins))
        losses = np.log1p(small) - np.minimum(margins, 0)
        log_correct = -np.bincount(clips, weights=losses, minlength=n_rows)
        log_correct = np.minimum(log_correct, _MAX_LOG_PROBABILITY)
        log_wrong = np.log(-np.expm1(log_correct))
        prior = parameters / (_DEVIATION**2 * n_rows)
        value = -np.where(correct, log_correct, log_wrong).mean() + 0.5 * parameters @ prior
        # Gradient of the loss by the clips' log-probabilities, then by the words' margins.
        outer = np.where(correct, -1.0, 1 / np.expm1(np.minimum(-log_correct, 700))) / n_rows
        by_margin = outer[clips] * np.where(margins > 0, small, 1.0) / (1 + small)
        by_slope = np.bincount(kinds, weights=by_margin * values, minlength=2) * slopes
        by_intercept = np.bincount(kinds, weights=by_margin, minlength=2)
        return float(value), np.concatenate([by_slope, by_intercept]) + prior

    found = scipy.optimize.minimize(objective, np.zeros(4), jac=True, method="L-BFGS-B").x
    slopes, intercepts = np.exp(found[:2]).tolist(), found[2:].tolist()
    return Lines(*map(Line, slopes, intercepts))
