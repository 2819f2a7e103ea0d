"""What a fold of a reading model computes, for `--plan`: batches of true sizes, not of true sounds.

The sizes of an epoch's batches follow from the lengths of the recordings, which the store knows
without reading them. A few batches, drawn from these, are loaded and computed.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from hearback.engine.audio.effects import n_samples_at_speed
from hearback.engine.plan.workload import BatchSize, Pass, Workload
from hearback.reading.augment import Augmentation
from hearback.reading.inference.batch_plan import PlannedBatch, batch_seconds, plan_batches
from hearback.reading.inference.model_group import ModelGroup, ScoreFn
from hearback.reading.inference.predict import score_with_words
from hearback.reading.models.base import Scorer
from hearback.reading.pairings import WITHOUT_REFERENCE
from hearback.reading.pairs import Example, PairDataset, PairSource
from hearback.reading.planned_encodings import (
    ReadingRun,
    SilentEncodings,
    Stored,
    encoded_width,
    encoding_pass,
    longest_window,
    recorded_samples,
    window_of,
    windows_of_rows,
)
from hearback.reading.recipe import Recipe
from hearback.reading.sampler import EpochSampler
from hearback.reading.training import N_INIT_ROWS, ReadingTask
from hearback.reading.window_batches import (
    Batch,
    Pair,
    batch_by_window,
    collate,
)
from hearback.reading.words import count_positions


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
        self.encodings: SilentEncodings | None = None
        if run.recipe.n_augmented:
            self.encodings = SilentEncodings(self.source, run.recipe)
            self.source = self.source.with_encoded(self.encodings)
        self._stored: Stored | None = None

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
        """Return training, validation, and what of the rest the store lacks."""
        missing = self._look_up(model).missing
        initializes = self.recipe.has_pretrained_init
        rows = self.run.validation_rows
        score_fn = score_with_words(count_positions(self.source.texts[row] for row in rows))
        planned = plan_batches(self.source, rows, self.recipe, batch_seconds(self.run.device))
        n_times = self.recipe.epochs + initializes
        validation = self._forward(model, rows, planned, score_fn)
        validation = replace(validation, name="validation", n_times=n_times)
        passes = [self._training(model), validation]
        if rows_to_compute := self._init_rows(model, self.folds):
            passes.append(self._initialization(model, rows_to_compute))
        if missing:
            passes.append(encoding_pass(model, self.run, len(missing)))
        return passes

    def shared_bytes(self, model: Scorer) -> int:
        """Return the bytes of the encoder outputs that the store lacks, not of joined clips."""
        n_missing = len(self._look_up(model).missing)
        if self.encodings is None:
            return 0
        n_samples = sum(windows_of_rows(self.source, self.recipe))
        return round(n_missing * self.encodings.n_bytes(n_samples))

    def mapped_bytes(self, model: Scorer) -> float:
        """Return the bytes that the fold reads of recordings and of encoder outputs."""
        source, n_bytes = self.source, 0.0
        if self.encodings is None or self._look_up(model).missing:
            n_bytes = float(source.store.n_bytes(source.filenames))
        if self.encodings is not None:
            rows = {*self.run.validation_rows.tolist(), *self._init_rows(model, [self.run.fold])}
            n_bytes += self.encodings.bytes_read(self._examples, rows)
        return n_bytes

    @cached_property
    def _examples(self) -> Sequence[Example]:
        """The examples of an epoch."""
        return self.sampler.sample_epoch(np.random.default_rng(self.run.seeds(0)))

    def _look_up(self, model: Scorer) -> Stored:
        """Return what the store has; the first call looks, before training changes the model."""
        if self._stored is None:
            run = self.run
            self._stored = Stored.look_up(
                *(model, self.recipe, self.data, self.source, run.options),
                device=run.device,
                dtype=run.dtype,
            )
            if self.encodings is not None:
                self.encodings.width = encoded_width(model, run.device)
        return self._stored

    def _training(self, model: Scorer) -> Pass:
        recipe, seeds = self.recipe, self.run.seeds(0)
        rng, examples = np.random.default_rng((*seeds, 1)), self._examples
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
            longest = max(pair.n_samples for pair in pairs)
            window = window_of(longest, recipe, is_joined=recipe.joined_clips > 0)
            return collate(pairs, window), self._size(model, len(pairs), window)

        sizes = [self._size(model, len(indices), window) for indices, window in batches]
        return Pass("training", recipe.epochs, sizes, load)

    def _size(self, model: Scorer, n_pairs: int, window: int) -> BatchSize:
        """Return the size of a training batch with a window of some samples."""
        is_encoded = self.source.encoded is not None
        n_windows = n_pairs * (1 if self.recipe.pair in (*WITHOUT_REFERENCE, "joined") else 2)
        of_window = float(window) if is_encoded else model.encoder_sizes.multiply_adds(window)
        return BatchSize(n_pairs, n_windows * of_window, n_windows * window)

    def _initialization(self, model: Scorer, rows_to_compute: Iterable[int]) -> Pass:
        rows = np.array(sorted(rows_to_compute))
        planned = plan_batches(self.source, rows, self.recipe, seconds=0.0)
        each = self._forward(model, rows, planned, _features)
        return replace(each, name="initialization", shared=True)

    def _init_rows(self, model: Scorer, folds: Sequence[int]) -> set[int]:
        """Return the rows whose features initialize the heads of folds and are not stored."""
        rows = set[int]()
        if not self.recipe.has_pretrained_init:
            return rows
        for fold in folds:
            rng = np.random.default_rng((self.recipe.data_seed, self.run.attempt))
            rows |= {*rng.permutation(self.data.training_rows(fold))[:N_INIT_ROWS].tolist()}
        return rows - self._look_up(model).initialized

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


def _expected_samples(
    source: PairSource, example: Example, recipe: Recipe, rng: np.random.Generator
) -> int:
    """Return the number of samples of an example, augmented with other random numbers."""
    learner = _slowed(recorded_samples(source, example.clip), recipe.augment_learner, rng)
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
    longest = longest_window(recipe)
    silence, context = np.zeros(longest, dtype=np.float32), np.zeros(2, dtype=np.float32)
    pairs = (Pair(silence[:n], context, row) for row, n in enumerate(lengths))
    batches = batch_by_window(
        *(pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds),
        longest=longest,
        fill=True,
    )
    return [(batch.rows.tolist(), batch.waveforms.shape[1]) for batch in batches]


def _planned_size(batch: PlannedBatch, cost: float) -> BatchSize:
    return BatchSize(len(batch.indices), cost, batch.n_windows * batch.n_samples)


def _features(model: Scorer, batch: Batch) -> Tensor:
    features = model.pretrained_features(batch)
    assert features is not None
    return features
