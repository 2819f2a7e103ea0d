"""From model_configs.json to scores, needing only what a competition runtime has."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.deadline import Deadline, Outcome, TimedRun
from hearback.reading.inference.passes import (
    Measure,
    Member,
    ModelGroup,
    PlannedBatch,
    Take,
    batch_seconds,
    describe_group,
    group_members,
    load_model_groups,
    memory_for_models,
    plan_batches,
)
from hearback.reading.inference.progress import Progress
from hearback.reading.models.load import read_runnable_metadata
from hearback.reading.models.scorers import Scorer
from hearback.reading.pairs import PairSource
from hearback.reading.window_batches import Batch


def collect(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    measure: Measure,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Return what `measure` gives for each row's clip with its own text, (rows, …), float64.

    `measure` maps a batch to (batch, …). Every clip is heard in a window of its own length, so what
    is measured depends neither on its batch-mates nor on its place in the table. The model stays as
    it is, moved to the device and in evaluation mode.
    """
    model_group = ModelGroup(device, dtype)
    model_group.add(model)
    planned = plan_batches(source, rows, model.recipe, batch_seconds(device))
    measured: dict[int, np.ndarray] = {}

    def take(places: list[int], values: dict[int, np.ndarray]) -> None:
        measured.update(zip(places, values[0], strict=True))

    cost = sum(batch.cost(model.encoder.shape) for batch in planned)
    with Progress(len(rows), cost, progress) as shown:
        model_group.run(source, rows, planned, measure, take, n_workers=n_workers, progress=shown)
    return np.array([measured[place] for place in range(len(rows))])


@dataclass(frozen=True)
class Predictions:
    """Of each row's clip the probability that the learner said the text, `clips` (rows,), float64.

    `words` are the log-odds of the texts' words, (rows, places, 2), laid out as in
    `hearback.reading.words`; None where the model has none.
    """

    clips: np.ndarray
    words: np.ndarray | None

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the predictions as tensors by name, for a checkpoint."""
        words = {} if self.words is None else {"predictions.words": torch.from_numpy(self.words)}
        return {"predictions.clips": torch.from_numpy(self.clips), **words}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Predictions":
        """Return the predictions of `as_tensors`, among which there may be other tensors."""
        words = tensors.get("predictions.words")
        clips = tensors["predictions.clips"].numpy()
        return cls(clips, None if words is None else words.numpy())


def predict(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> Predictions:
    """Return the scores of some rows' clips, and of their words if the model has those."""
    if not len(rows):
        return Predictions(np.empty(0), None)
    n_places = most_places(source, rows)
    measured = collect(
        model,
        source,
        rows,
        score_with_words(n_places),
        device=device,
        dtype=dtype,
        n_workers=n_workers,
        progress=progress,
    )
    clips, words = measured[:, 0], measured[:, 1:]
    return Predictions(clips, words.reshape(len(rows), n_places, 2) if words.size else None)


def most_places(source: PairSource, rows: Sequence[int] | np.ndarray) -> int:
    """Return how many places the longest text of some rows has: its words, and its end."""
    return 1 + max((len(source.texts[row].split()) for row in rows), default=0)


def score_with_words(n_places: int) -> Callable[[Scorer, Batch], Tensor]:
    """Return what maps a batch to probabilities and, laid out flat, the log-odds of words.

    (batch, 1 + 2 n_places), or (batch, 1) where the model scores no words.
    """

    def measure(model: Scorer, batch: Batch) -> Tensor:
        logits, words = model.forward_with_words(batch)
        clips = logits.sigmoid()[:, None]
        if words is None:
            return clips
        words = F.pad(words, (0, 0, 0, n_places - words.shape[1]), value=float("nan"))
        return torch.cat([clips, words.flatten(1)], dim=1)

    return measure


def predict_ensemble(
    config: EnsembleConfig,
    source: PairSource,
    grades: np.ndarray,
    assets: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    memory_gb: float | None = None,
) -> Predictions:
    """Return the ensemble's predictions: of each model the mean of its folds'.

    Words have the mean of the log-odds of the models that score them, by their weights. `grades`,
    (rows,), are those of the metadata. Models that take in the same are run in one pass over the
    data, as many as fit in half of the device's free memory, or in `memory_gb`; with `torch.int8`
    as `dtype` their matrix products are quantised.
    """
    models, rows = config.models_to_run, np.arange(len(source))
    most_bytes = memory_for_models(device, memory_gb)
    groups, plans = _groups(config, source, assets, device)
    cost = sum(
        batch.cost(member.shape)
        for group, plan in zip(groups, plans, strict=True)
        for member in group
        for batch in plan
    )
    n_places = most_places(source, rows)
    measure = score_with_words(n_places)
    predictions = np.zeros((len(models), len(rows)))
    words = _WordMean(len(rows), n_places)

    def take_from(members: Sequence[Member]) -> Take:
        def take(places: list[int], values: dict[int, np.ndarray]) -> None:
            for number, member in enumerate(members):
                of_fold, model = values[number], models[member.model]
                predictions[member.model, places] += of_fold[:, 0] / len(model.folds)
                if config.words is not None and model.name in config.words.models:
                    words.add(places, of_fold[:, 1:], model.weight / len(model.folds))

        return take

    with Progress(len(rows) * sum(map(len, groups)), cost, "ensemble") as progress:
        for group, plan in zip(groups, plans, strict=True):
            for model_group, members in load_model_groups(group, device, dtype, most_bytes):
                progress.say(describe_group(model_group, members, most_bytes))
                model_group.run(
                    source,
                    rows,
                    plan,
                    measure,
                    take_from(members),
                    n_workers=n_workers,
                    progress=progress,
                )
    return Predictions(clips=config.predict(predictions, grades), words=words.mean())


def predict_within(
    deadline: Deadline,
    config: EnsembleConfig,
    source: PairSource,
    grades: np.ndarray,
    assets: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    memory_gb: float | None = None,
) -> tuple[Predictions, Outcome]:
    """Return what `predict_ensemble` does, of the folds that there is time for, and which they are.

    With time for all of them the predictions are the same but for rounding. With time for not even
    one, the outcome says which clips were heard.
    """
    rows = np.arange(len(source))
    most_bytes = memory_for_models(device, memory_gb)
    groups, plans = _groups(config, source, assets, device)
    n_places = most_places(source, rows)
    measure = score_with_words(n_places)
    timed = TimedRun(config, groups, len(rows), deadline)
    with Progress(len(rows) * sum(map(len, groups)), 0.0, "ensemble") as progress:

        def load(members: Iterable[Member]) -> Iterator[tuple[ModelGroup, list[Member]]]:
            for model_group, loaded in load_model_groups(members, device, dtype, most_bytes):
                progress.say(describe_group(model_group, loaded, most_bytes))
                yield model_group, loaded

        def hear(
            model_group: ModelGroup,
            group: int,
            take: Take,
            give_up: Callable[[float], Collection[int]],
        ) -> None:
            model_group.run(
                source,
                rows,
                plans[group],
                measure,
                take,
                n_workers=n_workers,
                progress=progress,
                give_up=give_up,
            )

        outcome = timed.run(load, hear, grades)
    words = None if outcome.words is None else outcome.words.reshape(len(rows), n_places, 2)
    return Predictions(outcome.clips, words), outcome


class _WordMean:
    """A weighted mean of (rows, places, 2) log-odds, added up batch by batch."""

    def __init__(self, n_rows: int, n_places: int) -> None:
        self._shape = (n_rows, n_places, 2)
        self._sums: np.ndarray | None = None
        self._weights = np.zeros(n_rows)

    def add(self, places: list[int], log_odds: np.ndarray, weight: float) -> None:
        """Add some rows' log-odds, (rows, 2 × places), of none for a model that has none."""
        if not log_odds.size:
            return
        if self._sums is None:
            self._sums = np.zeros(self._shape)
        self._sums[places] += weight * log_odds.reshape(-1, *self._shape[1:])
        self._weights[places] += weight

    def mean(self) -> np.ndarray | None:
        """Return the mean, None where nothing was added."""
        return None if self._sums is None else self._sums / self._weights[:, None, None]


def _groups(
    config: EnsembleConfig, source: PairSource, assets: Path, device: torch.device
) -> tuple[list[list[Member]], list[list[PlannedBatch]]]:
    """Return the ensemble's folds by what they take in, and the batches of each such group."""
    groups = group_members(_members(config, assets))
    rows, seconds = np.arange(len(source)), batch_seconds(device)
    return groups, [plan_batches(source, rows, group[0].recipe, seconds) for group in groups]


def _members(config: EnsembleConfig, assets: Path) -> list[Member]:
    """Return all folds that the ensemble runs; HearbackError for what cannot be run."""
    members = []
    for number, model in enumerate(config.models_to_run):
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            fold_metadata = read_runnable_metadata(files, config.voice)
            members.append(Member(number, files, fold_metadata))
    return members
