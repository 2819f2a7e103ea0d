"""The ensemble's scores of all clips, with or without a time limit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from hearback.engine.ensemble.budget import show_duration
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.batch_plan import PlannedBatch, batch_seconds, plan_batches
from hearback.reading.inference.folds import EnsembleFold, name_folds
from hearback.reading.inference.memory import memory_for_models
from hearback.reading.inference.model_group import describe_group, load_model_groups
from hearback.reading.inference.predict import Predictions, score_with_words
from hearback.reading.inference.progress import Progress
from hearback.reading.inference.schedule import FoldSchedule
from hearback.reading.inference.score_sums import ScoreSums
from hearback.reading.inference.time_limit import Deadline
from hearback.reading.pairs import PairSource
from hearback.reading.scoring.decoder_evidence import DecoderEvidence, EvidenceCollector
from hearback.reading.words import count_positions

Plans = dict[tuple[Any, ...], list[PlannedBatch]]  # by the folds' input format


@dataclass(frozen=True)
class EnsembleRun:
    """The result of `predict_ensemble`.

    `config` is the ensemble of the finished folds; None if no fold was finished in time.
    `is_scored`, (rows,) bool, is the mask of clips with scores: all clips, or those that the
    unfinished first fold scored. `left_out` has lines about folds that were not run or not used,
    with the reason. `evidence` is that of a token scorer's decoder, by row, without times;
    rows that none scored are missing.
    """

    config: EnsembleConfig | None
    predictions: Predictions
    is_scored: np.ndarray
    left_out: tuple[str, ...] = ()
    evidence: Mapping[int, DecoderEvidence] = field(default_factory=dict)


def predict_ensemble(
    config: EnsembleConfig,
    source: PairSource,
    grades: np.ndarray,
    folds: Sequence[EnsembleFold],
    *,
    deadline: Deadline | None = None,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    memory_gb: float | None = None,
) -> EnsembleRun:
    """Score all clips with the ensemble's folds, or with those that fit before the deadline.

    A model's scores are the mean of its folds' scores. Word log-odds are the weighted mean over the
    models that score words. `grades` are those of the metadata, (rows,); `folds` are those of
    `read_folds(config, assets)`. Folds of one input format share a pass over the data, as many as
    fit in `memory_gb` (default: half of the device's free memory). With `torch.int8` as `dtype`,
    matrix products are quantized.
    """
    deadline = deadline or Deadline()
    rows = np.arange(len(source))
    max_bytes = memory_for_models(device, memory_gb)
    plans = plan_formats(folds, source, device)
    n_positions = count_positions(source.texts)
    collector = EvidenceCollector(score_with_words(n_positions), with_times=False)
    schedule = FoldSchedule(config, folds, len(rows), deadline)
    sums = ScoreSums(config, source.texts, n_positions)
    # Within a limit it is unknown how much will run, so the remaining time is not estimated.
    cost = total_cost(folds, plans) if deadline.is_infinite else 0.0
    with Progress(len(rows) * len(folds), cost, "ensemble") as progress:
        while next_folds := schedule.next_folds():
            plan = plans[next_folds[0].input_format]
            to_load = schedule.still_planned(next_folds)
            for group, loaded in load_model_groups(to_load, device, dtype, max_bytes):
                progress.write(describe_group(group, loaded, max_bytes))
                schedule.start(loaded)
                for batch in group.run(source, rows, plan, collector, n_workers=n_workers):
                    for number, values in batch.values.items():
                        sums.add(loaded[number], batch.indices, values)
                    progress.advance(len(batch.indices) * len(batch.values), batch.cost)
                    stopping = schedule.update(batch.share_done)
                    sums.drop(stopping)
                    group.drop([loaded.index(fold) for fold in stopping])
                sums.finish(schedule.finish(loaded))
    return replace(_combine(config, sums, schedule, folds, grades), evidence=collector.evidence)


def plan_formats(folds: Sequence[EnsembleFold], source: PairSource, device: torch.device) -> Plans:
    """Return the batches of all clips of `source` for each input format of the folds."""
    first_folds = {fold.input_format: fold for fold in reversed(folds)}
    rows, seconds = np.arange(len(source)), batch_seconds(device)
    return {
        input_format: plan_batches(source, rows, fold.recipe, seconds)
        for input_format, fold in first_folds.items()
    }


def total_cost(folds: Sequence[EnsembleFold], plans: Plans) -> float:
    """Return the encoders' work for all folds, in multiply-adds."""
    return sum(
        batch.cost(fold.encoder_config) for fold in folds for batch in plans[fold.input_format]
    )


def _combine(
    config: EnsembleConfig,
    sums: ScoreSums,
    schedule: FoldSchedule,
    folds: Sequence[EnsembleFold],
    grades: np.ndarray,
) -> EnsembleRun:
    """Return the scores of the finished folds; without any, those of the unfinished first fold."""
    if combined := sums.combine(grades):
        finished, predictions = combined
        is_scored = np.ones(len(grades), bool)
    else:
        finished, predictions = None, Predictions(sums.combine_unfinished(grades), None)
        is_scored = ~np.isnan(predictions.clips)
    left_out = tuple(_describe_left_out(config, finished, schedule, folds))
    return EnsembleRun(finished, predictions, is_scored, left_out)


def _describe_left_out(
    config: EnsembleConfig,
    finished: EnsembleConfig | None,
    schedule: FoldSchedule,
    folds: Sequence[EnsembleFold],
) -> Iterator[str]:
    """Yield a line for each model's folds that were not run, stopped early or not used."""
    used = {model.name for model in finished.models} if finished else set()
    for number, model in enumerate(config.models_to_run):
        of_model = [fold for fold in folds if fold.model == number]
        done = [fold for fold in of_model if fold in schedule.done]
        if done and finished and model.name not in used:
            yield (
                f"{name_folds(done)}: run but not used: no fallback combines it with the other "
                "models that were run"
            )
        shares = {f: schedule.stopped.get(f, 0.0) for f in of_model if f not in done}
        for share in sorted(set(shares.values()), key=lambda share: (share == 0, share)):
            stopped = [fold for fold in shares if shares[fold] == share]
            reason = f"stopped at {share:.0%} of the clips" if share else "not run"
            duration = f"a fold takes about {show_duration(schedule.seconds_per_fold[number])} here"
            yield f"{name_folds(stopped)}: {reason}, for lack of time; {duration}"
