"""Which models and folds to run where inference has a time limit.

`plan_folds` chooses ahead of time, for get_config.py; `plan_rest` while infer.py runs, among the
ensembles of some of the models that get_config.py fitted for it (`choose_fallbacks`).

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
from dataclasses import dataclass, replace

import numpy as np

from hearback.engine.ensemble.stacking import Evidence, Mixture, fit_mixture, mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import OutOfFold

LEAST_GAIN = 1e-4  # nats: a model that lowers the log loss by less is not run
_LEAST_SECONDS = 0.01  # that a metadata tells apart from none
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

    Raises HearbackError where the folds' metadata do not say.
    """
    measured = [
        max(epoch["validation_seconds"], _LEAST_SECONDS) / fold_metadata["n_validation"]
        for fold_metadata in table.metadata_by_fold.values()
        for epoch in fold_metadata["epochs"]
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
    def folds(self) -> list[list[float]]:
        """The seconds of each model's folds."""
        return [
            [seconds] * n_folds
            for seconds, n_folds in zip(self.seconds.tolist(), self.n_folds.tolist(), strict=True)
        ]

    @property
    def half_of_the_folds(self) -> np.ndarray:
        """Half of the folds of every model, (models,), odd numbers rounded up."""
        return (self.n_folds + 1) // 2


@dataclass(frozen=True)
class Choice:
    """Some models, by their places, and an ensemble of them, fitted on all rows.

    `log_loss` is on these rows.
    """

    models: tuple[int, ...]
    mixture: Mixture
    log_loss: float


class _Fits:
    """Ensembles of some of the models, each fitted once."""

    def __init__(self, evidence: Evidence, combine: str, calibration: str) -> None:
        self._evidence, self._how = evidence, (combine, calibration)
        self._found: dict[frozenset[int], Choice] = {}

    def of(self, models: Sequence[int]) -> Choice:
        """Fit an ensemble of some models and return it without those that get no weight."""
        key = frozenset(models)
        if key not in self._found:
            places = sorted(key)
            some = self._evidence.only(places)
            mixture = fit_mixture(some, *self._how)
            loss = mean_log_loss(
                some.labels, mixture.predict(some.predictions, some.calibration_groups)
            )
            used = mixture.weights > 0
            self._found[key] = Choice(
                tuple(np.array(places)[used].tolist()),
                replace(mixture, weights=mixture.weights[used]),
                loss,
            )
        return self._found[key]

    def take(self, seconds: np.ndarray, limit: float, *, per_second: bool) -> list[Choice]:
        """Return the ensembles that come of taking models one by one.

        Each time it is the model that lowers the log loss most, per second or altogether, while
        there is time and it gains `LEAST_GAIN`.
        """
        labels = self._evidence.labels
        models: tuple[int, ...] = ()
        loss = mean_log_loss(labels, np.full(len(labels), labels.mean()))
        steps: list[Choice] = []
        while True:
            left = limit - seconds[list(models)].sum()
            others = [m for m in range(len(seconds)) if m not in models and seconds[m] <= left]
            gains = {m: loss - self.of([*models, m]).log_loss for m in others}
            worthwhile = [m for m in others if gains[m] >= LEAST_GAIN]
            if not worthwhile:
                return steps
            best = max(worthwhile, key=lambda m: gains[m] / (seconds[m] if per_second else 1))
            # A model that the new one makes superfluous gives its time back.
            steps.append(self.of([*models, best]))
            models, loss = steps[-1].models, steps[-1].log_loss


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
    weights[chosen] = fit_mixture(evidence.only(chosen), combine, calibration).weights
    return share_out(weights, costs.folds, limit)


def choose_models(
    evidence: Evidence, seconds: np.ndarray, limit: float, combine: str, calibration: str
) -> list[int]:
    """Return the places of the models that are worth their time, one fold of each.

    Models are taken by what they gain per second or altogether; of both orders the better end is
    returned. Either alone may fail: a cheap model can take the time that a good one needs, or a
    dear one that of several (Leskovec et al. 2007, "Cost-effective Outbreak Detection in
    Networks"). The log losses are of ensembles fitted on all rows.
    """
    fits = _Fits(evidence, combine, calibration)
    ways = [fits.take(seconds, limit, per_second=per_second) for per_second in (True, False)]
    ends = [steps[-1] for steps in ways if steps]
    if not ends:
        return []
    best = min(ends, key=lambda end: (end.log_loss, seconds[list(end.models)].sum()))
    return list(best.models)


def choose_fallbacks(
    evidence: Evidence, seconds: np.ndarray, combine: str, calibration: str
) -> list[Choice]:
    """Return the ensembles that may stand in for that of all models, the best one last.

    They are each model alone, so that whichever ran first has a calibration of its own, and what
    comes of taking the models one by one, by what they gain per second and by what they gain.
    """
    fits = _Fits(evidence, combine, calibration)
    n_models = len(seconds)
    found = [fits.of([model]) for model in range(n_models)]
    for per_second in (True, False):
        found += fits.take(seconds, np.inf, per_second=per_second)
    by_models = {choice.models: choice for choice in found if choice.models}
    by_models.pop(tuple(range(n_models)), None)
    return sorted(by_models.values(), key=lambda choice: -choice.log_loss)


def plan_rest(
    fallbacks: Sequence[tuple[np.ndarray, float]], folds: Sequence[Sequence[float]], left: float
) -> np.ndarray | None:
    """Return how many folds of each model to have in the end, (models,), when so much time is left.

    `folds` are the seconds that each fold of each model still takes, the least first: none where it
    has been run. `fallbacks` are ensembles of some of the models: their weights, (models,), and log
    loss. All folds are run where they fit; otherwise those of the best ensemble of which one fold
    each fits, and further ones as `share_out` has it. None where there is no such ensemble.
    """
    if sum(map(sum, folds)) <= left:
        return np.array([len(of_model) for of_model in folds])
    fitting = [
        (loss, weights)
        for weights, loss in fallbacks
        if sum(folds[model][0] for model in np.flatnonzero(weights).tolist()) <= left
    ]
    if not fitting:
        return None
    _, weights = min(fitting, key=lambda of: of[0])
    return share_out(weights, folds, left)


def share_out(weights: np.ndarray, folds: Sequence[Sequence[float]], limit: float) -> np.ndarray:
    """Return the folds of each model, (models,): one where it has a weight, then what fits.

    `folds` are the seconds of each model's folds in their order. The next fold is each time the one
    that lowers the variance of the weighted sum most per second, if folds of all models vary alike:
    of a model with k folds by weight² (1/k - 1/(k + 1)).
    """
    n_folds = (weights > 0).astype(int)
    left = limit - sum(sum(of[:n]) for of, n in zip(folds, n_folds.tolist(), strict=True))

    def worth(model: int) -> float:
        k = n_folds[model]
        seconds = max(folds[model][k], np.finfo(float).tiny)  # none: it has been run
        return weights[model] ** 2 / (k * (k + 1)) / seconds

    while True:
        possible = [
            model
            for model in np.flatnonzero(weights).tolist()
            if n_folds[model] < len(folds[model]) and folds[model][n_folds[model]] <= left
        ]
        if not possible:
            return n_folds
        best = max(possible, key=worth)
        left -= folds[best][n_folds[best]]
        n_folds[best] += 1
