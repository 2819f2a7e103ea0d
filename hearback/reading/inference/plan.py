"""What infer.py takes on this machine: `infer.py --plan`. Nothing is scored or written.

A sample of the test recordings is decoded and scored, with one and with two folds of each model;
the rest follows from the lengths of the windows. Within a time limit, the schedule of the
inference runs on the estimated times.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hearback.engine import locks
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.problems import Report
from hearback.engine.devices import choose_device, compute_dtype, device_name
from hearback.engine.ensemble.budget import show_duration
from hearback.engine.errors import HearbackError
from hearback.engine.locks import ReadOnlyFolderError
from hearback.reading import step_command
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.batch_plan import batch_seconds, plan_batches
from hearback.reading.inference.folds import (
    EnsembleFold,
    longest_window,
    name_folds,
    read_folds,
)
from hearback.reading.inference.memory import GB, memory_for_models
from hearback.reading.inference.model_group import load_model_groups
from hearback.reading.inference.outputs import InferenceOptions, read_rows
from hearback.reading.inference.predict import score_with_words
from hearback.reading.inference.schedule import FoldSchedule
from hearback.reading.inference.time_limit import Deadline, seconds_since_start
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.tables import metadata_path
from hearback.reading.words import count_positions

SECONDS = 30.0  # of scoring, all models together
N_SAMPLED = {"cpu": 256, "cuda": 4096}  # recordings, by device type
_SEED = 2029


@dataclass(frozen=True)
class Sample:
    """Some of the recordings to score.

    Attributes:
        source: the recordings.
        n_rows: number of all rows to score.
        decode_seconds: of all of them; 0 if the store has them.
    """

    source: PairSource
    n_rows: int
    decode_seconds: float

    @property
    def factor(self) -> float:
        """How many times as many recordings there are."""
        return self.n_rows / len(self.source)


@dataclass(frozen=True)
class ModelTimes:
    """What a model takes for all rows, in seconds and bytes.

    Attributes:
        load: loading a fold.
        first: scoring with its first fold.
        further: with each further fold beside it, which shares what it can.
        n_bytes: weights of the first fold.
        further_bytes: of each further one.
    """

    load: float
    first: float
    further: float
    n_bytes: float
    further_bytes: float

    def seconds(self, n_folds: int) -> float:
        """Return the seconds of some folds side by side."""
        return n_folds * self.load + self.first + (n_folds - 1) * self.further

    def all_bytes(self, n_folds: int) -> float:
        """Return the bytes of some folds side by side."""
        return self.n_bytes + (n_folds - 1) * self.further_bytes


def show_plan(options: InferenceOptions) -> None:
    """Measure the ensemble's models, and print the plan; raises HearbackError as the inference."""
    start_seconds = seconds_since_start()
    device = choose_device(options.device)
    dtype = compute_dtype(device, options.precision)
    config = EnsembleConfig.load(options.config)
    if not config.models_to_run:
        print(f"{options.config}: no model has a weight, so every row gets its base rate at once")
        return
    folds = read_folds(config, options.assets)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        sample = _sample(options, folds, device, Path(temporary))
        times = [
            _time_model(first, sample, device, dtype, SECONDS / len(config.models_to_run))
            for first in _first_folds(folds)
        ]
    print(_show(options, config, folds, times, device))
    spent = start_seconds + sample.decode_seconds
    total = spent + sum(map(ModelTimes.seconds, times, _numbers(folds)))
    print(
        f"\n{sample.n_rows} rows: {show_duration(total)} (h:mm:ss) in all, of that "
        f"{show_duration(start_seconds)} before the data is read and "
        f"{show_duration(sample.decode_seconds)} to decode recordings"
    )
    if options.time_limit is not None:
        measured = _with_times(config, times, sample)
        started_with = (sample.n_rows, spent)
        print(_within(options.time_limit, measured, folds, times, started_with))
    print(f"measured in {time.monotonic() - started:.0f} s; nothing was scored or written")


def _numbers(folds: Sequence[EnsembleFold]) -> list[int]:
    """Return the number of folds of each model."""
    return np.bincount([fold.model for fold in folds]).tolist()


def _first_folds(folds: Sequence[EnsembleFold]) -> list[list[EnsembleFold]]:
    """Return the first two folds of each model, or its only one."""
    n_models = 1 + max(fold.model for fold in folds)
    return [[fold for fold in folds if fold.model == n][:2] for n in range(n_models)]


def _sample(
    options: InferenceOptions,
    folds: Sequence[EnsembleFold],
    device: torch.device,
    temporary: Path,
) -> Sample:
    """Return recordings of the store if it has all of them, else decode some into `temporary`.

    Raises HearbackError if none of them can be scored.
    """
    metadata, _ = read_rows(options.data, Report())
    n_sampled = N_SAMPLED.get(device.type, N_SAMPLED["cpu"])
    rows = np.random.default_rng(_SEED).permutation(len(metadata))[:n_sampled]
    chosen = metadata.iloc[np.sort(rows)]
    references = None
    if any(fold.recipe.hears_reference for fold in folds):
        references = References(options.tts_data)
        chosen = chosen[chosen["expected_text"].isin(references.texts)]
    started, seconds = time.monotonic(), 0.0
    path = metadata_path(options.data, "test")
    try:
        with locks.refused("--plan writes nothing"):
            store = build_store(
                metadata, options.data, path, options.store, "test", report=Report(), progress=False
            )
    except ReadOnlyFolderError:
        started = time.monotonic()
        store = build_store(
            chosen, options.data, path, temporary, "test", report=Report(), progress=False
        )
        seconds = (time.monotonic() - started) * len(metadata) / max(1, len(chosen))
    usable = chosen[[name in store for name in chosen["filename"]]].reset_index(drop=True)
    if usable.empty:
        raise HearbackError(
            f"{path}: none of {len(rows)} rows can be scored (no recording, or no reference); "
            f"run {step_command('preprocess')} first, or {step_command('infer')} without --plan, "
            "which lists each problem"
        )
    source = PairSource(usable, references, store).with_longest(longest_window(folds))
    return Sample(source, len(metadata), seconds)


def _time_model(
    folds: Sequence[EnsembleFold],
    sample: Sample,
    device: torch.device,
    dtype: torch.dtype,
    seconds: float,
) -> ModelTimes:
    """Score batches of the sample with the first fold of a model, and with its first two."""
    first = _run(folds[:1], sample, device, dtype, seconds / len(folds))
    if len(folds) == 1:
        return ModelTimes(first.load, first.seconds, first.seconds, first.n_bytes, first.n_bytes)
    both = _run(folds, sample, device, dtype, seconds / len(folds))
    return ModelTimes(
        load=both.load / 2,
        first=first.seconds,
        further=max(both.seconds - first.seconds, 0.0),
        n_bytes=first.n_bytes,
        further_bytes=both.n_bytes - first.n_bytes,
    )


@dataclass(frozen=True)
class _Run:
    """The seconds of loading some folds and of scoring all rows with them, and their bytes."""

    load: float
    seconds: float
    n_bytes: float


def _run(
    folds: Sequence[EnsembleFold],
    sample: Sample,
    device: torch.device,
    dtype: torch.dtype,
    seconds: float,
) -> _Run:
    source, recipe = sample.source, folds[0].recipe
    rows = np.arange(len(source))
    planned = plan_batches(source, rows, recipe, batch_seconds(device))
    score = score_with_words(count_positions(source.texts[row] for row in rows))
    started = time.monotonic()
    # Without a limit of memory there is one group.
    [(group, _)] = load_model_groups(folds, device, dtype, np.inf)
    load = time.monotonic() - started
    config = folds[0].encoder_config
    order = np.random.default_rng(_SEED).permutation(len(planned)).tolist()
    for _ in group.run(source, rows, [planned[order[0]]], score):
        pass  # the first batch is slower
    cost, spent = 0.0, 0.0
    for index in order:
        started = time.monotonic()
        for _ in group.run(source, rows, [planned[index]], score):
            pass
        spent += time.monotonic() - started
        cost += planned[index].cost(config)
        if spent > seconds:
            break
    total = sum(batch.cost(config) for batch in planned)
    return _Run(load, spent * sample.factor * total / cost, group.n_bytes())


def _show(
    options: InferenceOptions,
    config: EnsembleConfig,
    folds: Sequence[EnsembleFold],
    times: Sequence[ModelTimes],
    device: torch.device,
) -> str:
    """Return a table of the models, and whether their weights fit in memory."""
    numbers = _numbers(folds)
    rows = [
        {
            "model": model.name,
            "folds": n_folds,
            "weights": f"{each.all_bytes(n_folds) / GB:.2g} GB",
            "load": show_duration(n_folds * each.load),
            "a fold": show_duration(each.first),
            "a further one": show_duration(each.further) if n_folds > 1 else "–",
            "all": show_duration(each.seconds(n_folds)),
        }
        for model, n_folds, each in zip(config.models_to_run, numbers, times, strict=True)
    ]
    needed = sum(each.all_bytes(n) for each, n in zip(times, numbers, strict=True)) / GB
    budget = memory_for_models(device, options.memory_gb) / GB
    fits = "all at once" if needed <= budget else "in several groups, which takes longer"
    return "\n".join(
        [
            f"Plan, measured on {device_name(device)}",
            "",
            pd.DataFrame(rows).set_index("model").to_string(),
            "",
            f"Weights: {needed:.2g} GB of the {budget:.2g} GB for models (--memory_gb): {fits}",
        ]
    )


def _with_times(
    config: EnsembleConfig, times: Sequence[ModelTimes], sample: Sample
) -> EnsembleConfig:
    """Return the configuration with the measured seconds per clip."""
    per_clip = iter([(each.load + each.first) / sample.n_rows for each in times])
    to_run = config.models_to_run
    models = tuple(
        replace(model, seconds_per_clip=next(per_clip)) if model in to_run else model
        for model in config.models
    )
    return replace(config, models=models)


def _within(
    limit: float,
    config: EnsembleConfig,
    folds: Sequence[EnsembleFold],
    times: Sequence[ModelTimes],
    started: tuple[int, float],
) -> str:
    """Return which folds run within a limit, and when they are done, if the times are right.

    `started` are the number of rows, and the seconds that pass before they are scored.
    """
    n_rows, spent = started
    clock = [spent]
    deadline = Deadline(limit, clock=lambda: clock[0])
    schedule = FoldSchedule(config, folds, n_rows, deadline)
    while next_folds := schedule.next_folds():
        loaded = list(schedule.still_planned(next_folds))
        if not loaded:
            break
        schedule.start(loaded)
        for number in {fold.model for fold in loaded}:
            clock[0] += times[number].seconds(sum(fold.model == number for fold in loaded))
        schedule.update(1.0)
        schedule.finish(loaded)
    done = [fold for fold in folds if fold in schedule.done]
    is_late = deadline.left() < 0
    if not done or (is_late and len(done) == 1):
        return f"--time_limit {show_duration(limit)}: not enough for a single fold"
    left_out = [fold for fold in folds if fold not in schedule.done]
    late = ", which is over the limit" if is_late else ""
    others = f"; left out: {name_folds(left_out)}" if left_out else "; nothing is left out"
    return (
        f"--time_limit {show_duration(limit)}: {name_folds(done)}, done after about "
        f"{show_duration(clock[0])}{late}{others}"
    )
