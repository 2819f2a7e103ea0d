"""What a fold of a reading model computes, for `--plan`: batches of true sizes, not of true sounds.

The sizes of an epoch's batches follow from the lengths of the recordings, which the store knows
without reading them. A few batches, drawn from these, are loaded and computed.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearback.engine.audio.effects import n_samples_at_speed
from hearback.engine.devices import mixed_precision
from hearback.engine.plan.workload import BatchSize, Pass, Workload
from hearback.engine.training.task import FoldRun
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME
from hearback.reading.augment import Augmentation
from hearback.reading.dataset import TrainingData
from hearback.reading.encoded import BATCH_SECONDS as ENCODED_SECONDS
from hearback.reading.inference.batch_plan import PlannedBatch, batch_seconds, plan_batches
from hearback.reading.inference.model_group import ModelGroup, ScoreFn
from hearback.reading.inference.predict import score_with_words
from hearback.reading.joined_clips import JoinedClips
from hearback.reading.models.base import Scorer, WhisperScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairings import WITHOUT_REFERENCE
from hearback.reading.pairs import Example, PairDataset, PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.sampler import EpochSampler
from hearback.reading.training import N_INIT_ROWS, ReadingTask
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    WINDOW_SAMPLES,
    Batch,
    Encoding,
    Pair,
    batch_by_window,
    collate,
    window_samples,
)
from hearback.reading.words import count_positions

ReadingRun = FoldRun[Recipe, TrainingOptions, TrainingData]


class ReadingWorkload(Workload):
    """The passes of a fold of a reading model."""

    task: ReadingTask

    def __init__(self, run: ReadingRun, folds: Sequence[int]) -> None:
        self.recipe, self.data = run.recipe, run.data
        # Building such a model would encode all recordings, or need another one's fold.
        plain = replace(run.recipe, n_augmented=0, warm_start=None)
        super().__init__(ReadingTask, replace(run, recipe=plain), folds)
        self.sampler = EpochSampler(run.recipe, run.data, run.train_rows)
        self.source = run.data.source
        if run.recipe.n_augmented:
            self.source = self.source.with_encoded(_NoSounds(self.source, run.recipe))

    @property
    def kind(self) -> Hashable:
        """What the speed depends on."""
        recipe = self.recipe
        return (
            *(recipe.pair, recipe.backbone, recipe.token_score, recipe.window),
            *(recipe.frozen_share, recipe.adapter_rank, recipe.n_augmented > 0),
            *(recipe.encoder_layers, recipe.batch_size, recipe.average_decay > 0),
        )

    def passes(self, model: Scorer) -> list[Pass]:
        """Return what is encoded once, the initialization, training and validation."""
        if isinstance(self.source.encoded, _NoSounds):
            self.source.encoded.width = self._encoded_width(model)
        initializes = self.recipe.has_pretrained_init
        rows = self.run.validation_rows
        score_fn = score_with_words(count_positions(self.source.texts[row] for row in rows))
        planned = plan_batches(self.source, rows, self.recipe, batch_seconds(self.run.device))
        n_times = self.recipe.epochs + initializes
        validation = self._forward(model, rows, planned, score_fn)
        validation = replace(validation, name="validation", n_times=n_times)
        passes = [self._training(model), validation]
        if initializes:
            passes.append(self._initialization(model))
        if self.recipe.n_augmented:
            passes.append(self._encoding(model))
        return passes

    def shared_bytes(self, model: Scorer) -> int:
        """Return the bytes of the encoder outputs."""
        if not self.recipe.n_augmented:
            return 0
        n_frames = sum(self._windows(range(len(self.source)))) // SAMPLES_PER_FRAME
        return (1 + self.recipe.n_augmented) * 2 * n_frames * self._encoded_width(model)

    @torch.inference_mode()
    def _encoded_width(self, model: Scorer) -> int:
        """Return the numbers of a frame that is encoded once."""
        assert isinstance(model, WhisperScorer)
        n_samples = torch.tensor([4 * SAMPLES_PER_FRAME], device=self.run.device)
        silence = torch.zeros(1, 4 * SAMPLES_PER_FRAME, device=self.run.device)
        return model.eval().encode_recordings(silence, n_samples).shape[2]

    def _training(self, model: Scorer) -> Pass:
        recipe, seeds = self.recipe, self.run.seeds(0)
        rng = np.random.default_rng(seeds)
        examples = self.sampler.sample_epoch(rng)
        lengths = [_expected_samples(self.source, each, recipe, rng) for each in examples]
        batches = _batch(lengths, recipe)
        dataset = PairDataset(
            self.source,
            examples,
            recipe.pair,
            text_tokenizer=model.text_tokenizer,
            embedder=model.embedder,
            augmentations=(recipe.augment_reference, recipe.augment_learner),
            word_labels=self.task.word_labels,
            seeds=seeds,
        )

        def load(index: int, n_examples: int) -> tuple[Batch, BatchSize]:
            indices, _ = batches[index]
            pairs = [dataset[each] for each in indices[:n_examples]]
            window = _window(max(pair.n_samples for pair in pairs), recipe)
            return collate(pairs, window), self._size(model, len(pairs), window)

        sizes = [self._size(model, len(indices), window) for indices, window in batches]
        return Pass("training", recipe.epochs, sizes, load)

    def _size(self, model: Scorer, n_pairs: int, window: int) -> BatchSize:
        """Return the size of a training batch with a window of some samples."""
        is_encoded = self.source.encoded is not None
        n_windows = n_pairs * (1 if self.recipe.pair in (*WITHOUT_REFERENCE, "joined") else 2)
        of_window = float(window) if is_encoded else model.encoder_sizes.multiply_adds(window)
        return BatchSize(n_pairs, n_windows * of_window, n_windows * window)

    def _initialization(self, model: Scorer) -> Pass:
        rows = set[int]()
        for fold in self.folds:
            rng = np.random.default_rng((self.recipe.data_seed, self.run.attempt))
            rows |= {*rng.permutation(self.data.training_rows(fold))[:N_INIT_ROWS].tolist()}
        chosen = np.array(sorted(rows))
        planned = plan_batches(self.source, chosen, self.recipe, seconds=0.0)
        each = self._forward(model, chosen, planned, _features)
        return replace(each, name="initialization", shared=True)

    def _forward(
        self,
        model: Scorer,
        rows: np.ndarray,
        planned: Sequence[PlannedBatch],
        score_fn: ScoreFn,
    ) -> Pass:
        """Return a pass that scores rows in the planned batches."""
        sizes = model.encoder_sizes
        group = ModelGroup(self.run.device, self.run.dtype)
        group.add(model)

        def load(index: int, n_examples: int) -> tuple[PlannedBatch, BatchSize]:
            batch = planned[index]
            n_windows = -(-batch.n_windows * n_examples // len(batch.indices))
            part = replace(batch, indices=batch.indices[:n_examples], n_windows=n_windows)
            return part, _planned_size(part, self._cost(part, sizes))

        def compute(batch: PlannedBatch) -> None:
            model.eval()
            for _ in group.run(self.source, rows, [batch], score_fn):
                pass

        batches = [_planned_size(each, self._cost(each, sizes)) for each in planned]
        return Pass("", 1, batches, load, compute, is_loaded=False)

    def _cost(self, batch: PlannedBatch, sizes: Any) -> float:  # noqa: ANN401  (of any encoder)
        if self.source.encoded is not None:
            return float(batch.n_windows * batch.n_samples)
        return batch.cost(sizes)

    def _encoding(self, model: Scorer) -> Pass:
        """Return the pass that computes the encoder outputs of all recordings in all versions."""
        assert isinstance(model, WhisperScorer)
        device, source, sizes = self.run.device, self.data.source, model.encoder_sizes
        windows = self._windows(range(len(source)))
        order = np.argsort(windows, kind="stable")
        n_batches = max(1, round(sum(windows) / (ENCODED_SECONDS * 16_000)))
        batches = [part for part in np.array_split(order, n_batches) if len(part)]

        def load(index: int, n_examples: int) -> tuple[np.ndarray, BatchSize]:
            rows = batches[index][:n_examples]
            return rows, size(rows)

        def size(rows: np.ndarray) -> BatchSize:
            window = max(windows[row] for row in rows)
            cost = len(rows) * sizes.multiply_adds(window)
            return BatchSize(len(rows), cost, len(rows) * window)

        @torch.inference_mode()
        def compute(rows: np.ndarray) -> None:
            rng = np.random.default_rng(self.run.seeds(0))
            augment = self.recipe.augment_learner.apply
            waveforms = [augment(source.learner(row), rng)[:WINDOW_SAMPLES] for row in rows]
            window = max(windows[row] for row in rows)
            batch = torch.zeros(len(rows), window)
            for row, waveform in zip(batch, waveforms, strict=True):
                row[: min(len(waveform), window)] = torch.from_numpy(waveform)[:window]
            n_samples = torch.tensor([min(len(each), window) for each in waveforms])
            with mixed_precision(device, self.run.dtype):
                encoded = model.eval().encode_recordings(batch.to(device), n_samples.to(device))
            encoded.half().cpu()

        versions = 1 + self.recipe.n_augmented
        return Pass(
            "encoder outputs",
            versions,
            [size(rows) for rows in batches],
            load,
            compute,
            is_loaded=False,
            shared=True,
        )

    def _windows(self, rows: Sequence[int]) -> list[int]:
        """Return the samples of the windows of whole recordings."""
        return [_window(self.source.n_samples(row, self.recipe.pair), self.recipe) for row in rows]


class _NoSounds:
    """Encoder outputs of the true lengths, all zero: `pairs.EncodedRows`."""

    def __init__(self, source: PairSource, recipe: Recipe) -> None:
        self.source, self.recipe = source, recipe
        self.n_augmented = recipe.n_augmented
        self.width = 0  # set once a model is known

    def get(self, clip: int | JoinedClips, version: int) -> Encoding:
        """Return the frames of a recording, or of joined clips."""
        n_samples = _recorded_samples(self.source, clip)
        window = _window(n_samples, self.recipe)
        frames = np.zeros((window // SAMPLES_PER_FRAME, self.width), dtype=np.float16)
        return Encoding(frames, min(len(frames), -(-n_samples // SAMPLES_PER_FRAME)))


def _recorded_samples(source: PairSource, clip: int | JoinedClips) -> int:
    """Return the number of samples of a recording, or of joined clips."""
    if isinstance(clip, JoinedClips):
        return sum(source.store.n_samples(source.filenames[r]) for r in clip.rows) + sum(
            clip.pauses
        )
    return source.store.n_samples(source.filenames[clip])


def _expected_samples(
    source: PairSource, example: Example, recipe: Recipe, rng: np.random.Generator
) -> int:
    """Return the number of samples of an example, augmented with other random numbers."""
    learner = _slowed(_recorded_samples(source, example.clip), recipe.augment_learner, rng)
    if recipe.pair in WITHOUT_REFERENCE:
        return learner
    n_reference = source.references.n_samples(example.text)
    reference = _slowed(n_reference, recipe.augment_reference, rng)
    return reference + learner if recipe.pair == "joined" else max(reference, learner)


def _slowed(n_samples: int, augmentation: Augmentation, rng: np.random.Generator) -> int:
    """Return the number of samples after random changes of speed and rate."""
    if rng.random() < augmentation.speed:
        speed = rng.uniform(augmentation.speed_low, augmentation.speed_high)
        n_samples = n_samples_at_speed(n_samples, float(speed))
    if rng.random() < augmentation.stretch:
        rate = rng.uniform(augmentation.stretch_low, augmentation.stretch_high)
        n_samples = round(n_samples / rate)
    return n_samples


def _batch(lengths: Sequence[int], recipe: Recipe) -> list[tuple[list[int], int]]:
    """Return the examples' indices and the window, in samples, of each batch of an epoch."""
    longest = _longest(recipe)
    silence, context = np.zeros(longest, dtype=np.float32), np.zeros(2, dtype=np.float32)
    pairs = (Pair(silence[:n], context, row) for row, n in enumerate(lengths))
    batches = batch_by_window(
        *(pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds),
        longest=longest,
        fill=True,
    )
    return [(batch.rows.tolist(), batch.waveforms.shape[1]) for batch in batches]


def _window(n_samples: int, recipe: Recipe) -> int:
    return window_samples(n_samples, recipe.window, recipe.window_step_seconds, _longest(recipe))


def _longest(recipe: Recipe) -> int:
    return LONGEST_WINDOW_SAMPLES if recipe.joined_clips else WINDOW_SAMPLES


def _planned_size(batch: PlannedBatch, cost: float) -> BatchSize:
    return BatchSize(len(batch.indices), cost, batch.n_windows * batch.n_samples)


def _features(model: Scorer, batch: Batch) -> Tensor:
    features = model.pretrained_features(batch)
    assert features is not None
    return features
