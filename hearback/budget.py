"""Which models and folds to run where inference has a time limit.

What out-of-fold predictions tell, and what not. A row's prediction comes from the one fold of a
model that did not train on it, so every log loss here is that of one fold of each model. It tells
which models are worth their time. It cannot tell what a second fold of a model is worth: the mean
of several is usually better than one (Breiman 1996, "Bagging Predictors"), by an amount that no
out-of-fold figure shows, and half of the folds of every model look just as good as all of them.

So models are chosen by what they gain, one fold of each, and the time left goes to further folds by
an assumption: that folds of one model differ as much as folds of another. The mean of k folds then
has 1/k of that variance, and the ensemble sees it times the square of the model's weight. Seconds
are those of the validations during training; those of another machine take other seconds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hearback.ensemble import Evidence, fit_mixture, mean_log_loss
from hearback.errors import HearbackError
from hearback.evaluation import OutOfFold

LEAST_GAIN = 1e-4  # nats: a model that lowers the log loss by less is not run
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str) -> float:
    """Return the seconds of "2h", "1h30m", "90m", "45s" or "5400"; ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"not a duration such as 2h, 1h30m or 5400s: {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def show_duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds, such as "1:59:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def seconds_per_clip(table: OutOfFold) -> float:
    """Return how long a fold of a model takes for a clip: the median over folds and epochs.

    Raises HearbackError where the folds' stories do not say.
    """
    measured = [
        epoch["validation_seconds"] / story["n_validation"]
        for story in table.stories.values()
        for epoch in story["epochs"]
        if "validation_seconds" in epoch
    ]
    if not measured:
        raise HearbackError(
            f"{table.model}: its folds do not say how long a validation took, so --time_limit "
            "cannot plan with it; train it again, or leave it out with --models"
        )
    return float(np.median(measured))


@dataclass(frozen=True)
class Costs:
    """What running models takes: `seconds`, (models,), for one fold over all clips to be scored.

    `n_folds`, (models,), are those that are trained.
    """

    seconds: np.ndarray
    n_folds: np.ndarray

    def total(self, n_folds: np.ndarray) -> float:
        """Return the seconds of so many folds of each model, (models,)."""
        return float(self.seconds @ n_folds)

    @property
    def half_of_the_folds(self) -> np.ndarray:
        """Half of the folds of every model, (models,), odd numbers rounded up."""
        return (self.n_folds + 1) // 2


def plan_folds(
    evidence: Evidence, costs: Costs, limit: float, combine: str, calibration: str
) -> np.ndarray:
    """Return how many folds of each model to run, (models,), within `limit` seconds.

    Zero leaves a model out. Raises HearbackError where the limit is too short for any model.
    """
    if limit < costs.seconds.min():
        raise HearbackError(
            f"--time_limit {show_duration(limit)}: the fastest fold alone takes "
            f"{show_duration(costs.seconds.min())}"
        )
    chosen = choose_models(evidence, costs.seconds, limit, combine, calibration)
    if not chosen:
        raise HearbackError(
            f"--time_limit {show_duration(limit)}: no model that fits into it is better than the "
            "base rate"
        )
    weights = np.zeros(len(costs.seconds))
    weights[chosen] = fit_mixture(_only(evidence, chosen), combine, calibration).weights
    return share_out(weights, costs, limit)


def choose_models(
    evidence: Evidence, seconds: np.ndarray, limit: float, combine: str, calibration: str
) -> list[int]:
    """Return the places of the models that are worth their time, one fold of each.

    Models are taken one by one, the one that lowers the log loss most, per second or altogether,
    while there is time and it gains `LEAST_GAIN`; of both orders the better end is returned. Either
    alone may fail: a cheap model can take the time that a good one needs, or a dear one that of
    several (Leskovec et al. 2007, "Cost-effective Outbreak Detection in Networks"). The log losses
    are of ensembles fitted on all rows.
    """
    base_rate = np.full(len(evidence.labels), evidence.labels.mean())
    nothing = mean_log_loss(evidence.labels, base_rate)

    @cache
    def fit(places: frozenset[int]) -> tuple[float, frozenset[int]]:
        """Return the log loss of an ensemble, and which of its models have a weight."""
        some = _only(evidence, sorted(places))
        mixture = fit_mixture(some, combine, calibration)
        loss = mean_log_loss(some.labels, mixture.predict(some.predictions, some.grades))
        used = zip(sorted(places), mixture.weights, strict=True)
        return loss, frozenset(place for place, weight in used if weight > 0)

    def take(per_second: bool) -> tuple[float, float, frozenset[int]]:
        chosen, loss = frozenset[int](), nothing
        while True:
            left = limit - seconds[list(chosen)].sum()
            others = [m for m in range(len(seconds)) if m not in chosen and seconds[m] <= left]
            gains = {m: loss - fit(chosen | {m})[0] for m in others}
            worthwhile = [m for m in others if gains[m] >= LEAST_GAIN]
            if not worthwhile:
                return loss, float(seconds[list(chosen)].sum()), chosen
            best = max(worthwhile, key=lambda m: gains[m] / (seconds[m] if per_second else 1))
            # A model that the new one makes superfluous gives its time back.
            loss, chosen = fit(chosen | {best})

    return sorted(min(take(per_second=True), take(per_second=False))[-1])


def share_out(weights: np.ndarray, costs: Costs, limit: float) -> np.ndarray:
    """Return the folds of each model, (models,): one where it has a weight, then what fits.

    The next fold is each time the one that lowers the variance of the weighted sum most per second,
    if folds of all models vary alike: of a model with k folds by weight² (1/k - 1/(k + 1)).
    """
    n_folds = (weights > 0).astype(int)
    while True:
        left = limit - costs.total(n_folds)
        possible = (n_folds > 0) & (n_folds < costs.n_folds) & (costs.seconds <= left)
        if not possible.any():
            return n_folds
        k = np.maximum(n_folds, 1)
        gains = weights**2 / (k * (k + 1)) / costs.seconds
        n_folds[int(np.argmax(np.where(possible, gains, -1)))] += 1


def _only(evidence: Evidence, places: Sequence[int]) -> Evidence:
    return evidence.without(sorted(set(range(len(evidence.predictions))) - set(places)))
