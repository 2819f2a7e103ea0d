"""Choice of models and folds to run within a time limit.

`plan_folds` chooses in get_config, before inference. `plan_remaining` chooses during inference
among the fallbacks: ensembles of some of the models, fitted by get_config (`choose_fallbacks`).

Out-of-fold predictions show which models are worth their time, but not the gain of a second fold of
a model: each prediction is made by the one fold that did not train on its row, so every log loss
here is that of one fold per model. The mean of several folds is usually better (Breiman 1996,
"Bagging Predictors").

Models are therefore chosen by their gain, with one fold each. The remaining time goes to further
folds, assuming that folds vary equally in all models: the mean of k folds has 1/k of the variance
of one, and the ensemble's variance has that times the square of the model's weight. Seconds are
measured in the validations during training, and differ between machines.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hearback.engine.ensemble.stacking import (
    StackingData,
    WeightedEnsemble,
    fit_ensemble,
    mean_log_loss,
)
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import OutOfFold

MIN_GAIN = 1e-4  # nats: a model that lowers the log loss by less is not run
_MIN_SECONDS = 0.01  # the resolution of the metadata; zero would make a model free
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str) -> float:
    """Return the seconds of "2h", "1h30m", "90m", "45s" or "5400".

    Raises ValueError for anything else, and for zero.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"not a duration such as 2h, 1h30m or 5400s: {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    duration = 3600 * hours + 60 * minutes + seconds
    if not duration:
        raise ValueError(f"{text!r} leaves no time: use a duration such as 2h, 1h30m or 5400s")
    return duration


def show_duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds, such as "1:59:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def seconds_per_clip(table: OutOfFold) -> float | None:
    """Return the inference time of one fold per clip, in seconds; None if unknown.

    It is the median over folds and epochs of the validation time in the metadata.
    """
    measured = [
        max(epoch["validation_seconds"], _MIN_SECONDS) / metadata["n_validation"]
        for metadata in table.metadata_by_fold.values()
        for epoch in metadata["epochs"]
        if "validation_seconds" in epoch
    ]
    return float(np.median(measured)) if measured else None


@dataclass(frozen=True)
class Costs:
    """The cost of running models.

    `seconds`, (models,), is the time of one fold for all clips to score; `n_folds`, (models,), the
    number of trained folds.
    """

    seconds: np.ndarray
    n_folds: np.ndarray

    @classmethod
    def of_models(cls, tables: Sequence[OutOfFold], n_clips: int) -> "Costs":
        """Return the cost of scoring `n_clips`; raise HearbackError if it is unknown."""
        seconds = []
        for table in tables:
            per_clip = seconds_per_clip(table)
            if per_clip is None:
                raise HearbackError(
                    f"{table.model}: its metadata lacks the validation times that --time_limit "
                    "needs; train it again, or leave it out with --models"
                )
            seconds.append(n_clips * per_clip)
        return cls(np.array(seconds), np.array([len(x.metadata_by_fold) for x in tables]))

    def total(self, n_folds: np.ndarray) -> float:
        """Return the seconds of running `n_folds`, (models,), folds of each model."""
        return float(self.seconds @ n_folds)

    @property
    def fold_seconds(self) -> list[list[float]]:
        """The seconds of each fold of each model."""
        return [
            [seconds] * n_folds
            for seconds, n_folds in zip(self.seconds.tolist(), self.n_folds.tolist(), strict=True)
        ]

    @property
    def half_of_the_folds(self) -> np.ndarray:
        """Half of the folds of each model, (models,), rounded up."""
        return (self.n_folds + 1) // 2


@dataclass(frozen=True)
class ModelSubset:
    """Some models, by index, their ensemble fitted on all rows, and its in-sample log loss."""

    models: tuple[int, ...]
    ensemble: WeightedEnsemble
    log_loss: float


class _SubsetFits:
    """Ensembles of subsets of the models; each subset is fitted once."""

    def __init__(self, data: StackingData, combine: str, calibration: str) -> None:
        self._data, self._settings = data, (combine, calibration)
        self._fits: dict[frozenset[int], ModelSubset] = {}

    def fit(self, models: Sequence[int]) -> ModelSubset:
        """Return the ensemble of some models, without those of weight zero."""
        key = frozenset(models)
        if key not in self._fits:
            indices = sorted(key)
            subset = self._data.only(indices)
            ensemble = fit_ensemble(subset, *self._settings)
            predicted = ensemble.predict(subset.predictions, subset.calibration_groups)
            used = ensemble.weights > 0
            self._fits[key] = ModelSubset(
                tuple(np.array(indices)[used].tolist()),
                replace(ensemble, weights=ensemble.weights[used]),
                mean_log_loss(subset.labels, predicted),
            )
        return self._fits[key]

    def grow(self, seconds: np.ndarray, limit: float, *, per_second: bool) -> list[ModelSubset]:
        """Return the ensembles of a greedy forward selection, smallest first.

        Each step adds the model with the largest gain in log loss, per second or in total, among
        those that fit into `limit` seconds and gain at least `MIN_GAIN`.
        """
        labels = self._data.labels
        models: tuple[int, ...] = ()
        loss = mean_log_loss(labels, np.full(len(labels), labels.mean()))
        steps: list[ModelSubset] = []
        while True:
            left = limit - seconds[list(models)].sum()
            others = [m for m in range(len(seconds)) if m not in models and seconds[m] <= left]
            gains = {m: loss - self.fit([*models, m]).log_loss for m in others}
            worthwhile = [m for m in others if gains[m] >= MIN_GAIN]
            if not worthwhile:
                return steps
            best = max(worthwhile, key=lambda m: gains[m] / (seconds[m] if per_second else 1))
            # Models whose weight drops to zero are removed and their time is free again.
            steps.append(self.fit([*models, best]))
            models, loss = steps[-1].models, steps[-1].log_loss


def plan_folds(
    data: StackingData, costs: Costs, limit: float, combine: str, calibration: str
) -> np.ndarray:
    """Return the number of folds of each model to run, (models,), within `limit` seconds.

    Raises HearbackError if the limit is too short for any model.
    """
    if limit < costs.seconds.min():
        raise HearbackError(
            f"--time_limit {show_duration(limit)}: the fastest fold alone takes "
            f"{show_duration(costs.seconds.min())}"
        )
    chosen = choose_models(data, costs.seconds, limit, combine, calibration)
    if not chosen:
        raise HearbackError(
            f"--time_limit {show_duration(limit)}: no model within it is better than the base rate"
        )
    weights = np.zeros(len(costs.seconds))
    weights[chosen] = fit_ensemble(data.only(chosen), combine, calibration).weights
    return allocate_folds(weights, costs.fold_seconds, limit)


def choose_models(
    data: StackingData, seconds: np.ndarray, limit: float, combine: str, calibration: str
) -> list[int]:
    """Return the indices of the models to run, one fold of each taking `seconds`, (models,).

    The better result of two greedy selections, by gain per second and by gain. Either alone can
    fail: a cheap model may take the time of a good one, or an expensive one that of several
    (Leskovec et al. 2007, "Cost-effective Outbreak Detection in Networks"). Log losses are
    in-sample.
    """
    fits = _SubsetFits(data, combine, calibration)
    selections = [fits.grow(seconds, limit, per_second=per_second) for per_second in (True, False)]
    largest = [steps[-1] for steps in selections if steps]
    if not largest:
        return []
    best = min(largest, key=lambda x: (x.log_loss, seconds[list(x.models)].sum()))
    return list(best.models)


def choose_fallbacks(
    data: StackingData, seconds: np.ndarray, combine: str, calibration: str
) -> list[ModelSubset]:
    """Return ensembles of some of the models, for inference that runs out of time, best last.

    They are each model alone, with its own calibration, and the steps of the greedy selections by
    gain per second and by gain. The ensemble of all models is not included.
    """
    fits = _SubsetFits(data, combine, calibration)
    n_models = len(seconds)
    found = [fits.fit([model]) for model in range(n_models)]
    for per_second in (True, False):
        found += fits.grow(seconds, np.inf, per_second=per_second)
    by_models = {subset.models: subset for subset in found if subset.models}
    by_models.pop(tuple(range(n_models)), None)
    return sorted(by_models.values(), key=lambda subset: -subset.log_loss)


def plan_remaining(
    fallbacks: Sequence[tuple[np.ndarray, float]],
    fold_seconds: Sequence[Sequence[float]],
    left: float,
) -> np.ndarray | None:
    """Return the final number of folds of each model, (models,), with `left` seconds left.

    `fold_seconds` are the remaining seconds of each fold of each model, ascending; zero for
    finished folds. `fallbacks` are the weights, (models,), and log loss of ensembles of some of the
    models. All folds are run if they fit. Otherwise it is the best ensemble that fits with one fold
    per model, with further folds by `allocate_folds`. None if there is no such ensemble.
    """
    if sum(map(sum, fold_seconds)) <= left:
        return np.array([len(folds) for folds in fold_seconds])
    fitting = [
        (loss, weights)
        for weights, loss in fallbacks
        if sum(fold_seconds[model][0] for model in np.flatnonzero(weights).tolist()) <= left
    ]
    if not fitting:
        return None
    _, weights = min(fitting, key=lambda fallback: fallback[0])
    return allocate_folds(weights, fold_seconds, left)


def allocate_folds(
    weights: np.ndarray, fold_seconds: Sequence[Sequence[float]], limit: float
) -> np.ndarray:
    """Return the number of folds of each model, (models,), within `limit` seconds.

    Every model with a weight gets one fold. Then folds are added, each time the one that lowers the
    variance of the weighted sum most per second, assuming that folds vary equally in all models:
    for a model with k folds by weight² (1/k - 1/(k + 1)). `fold_seconds` are the seconds of each
    model's folds, in order.
    """
    n_folds = (weights > 0).astype(int)
    left = limit - sum(
        sum(seconds[:n]) for seconds, n in zip(fold_seconds, n_folds.tolist(), strict=True)
    )

    def gain_per_second(model: int) -> float:
        k = n_folds[model]
        seconds = max(fold_seconds[model][k], np.finfo(float).tiny)  # zero for a finished fold
        return weights[model] ** 2 / (k * (k + 1)) / seconds

    while True:
        possible = [
            model
            for model in np.flatnonzero(weights).tolist()
            if n_folds[model] < len(fold_seconds[model])
            and fold_seconds[model][n_folds[model]] <= left
        ]
        if not possible:
            return n_folds
        best = max(possible, key=gain_per_second)
        left -= fold_seconds[best][n_folds[best]]
        n_folds[best] += 1
