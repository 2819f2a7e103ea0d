"""The encoder outputs of models that have them computed once, as `--plan` assumes them.

Their lengths follow from those of the recordings; what the store has already is looked up.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.devices import mixed_precision
from hearback.engine.plan.workload import BatchSize, Pass
from hearback.engine.training.task import FoldRun
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME
from hearback.reading.dataset import TrainingData
from hearback.reading.encoded import BATCH_SECONDS, missing_versions
from hearback.reading.joined_clips import JoinedClips
from hearback.reading.models.base import Scorer, WhisperScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, PairSource
from hearback.reading.pretrained_features import kept_rows
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    WINDOW_SAMPLES,
    Encoding,
    pad_waveforms,
    window_samples,
)

ReadingRun = FoldRun[Recipe, TrainingOptions, TrainingData]
_HALF = 2  # bytes of a number in fp16


class SilentEncodings:
    """Encoder outputs of the true lengths, all zero: `pairs.EncodedRows`."""

    def __init__(self, source: PairSource, recipe: Recipe) -> None:
        self.source, self.recipe = source, recipe
        self.n_augmented = recipe.n_augmented
        self.width = 0  # set once a model is known

    def get(self, clip: int | JoinedClips, version: int) -> Encoding:
        """Return the frames of a recording, or of joined clips."""
        n_samples, window = recorded_samples(self.source, clip), self._window(clip)
        frames = np.zeros((window // SAMPLES_PER_FRAME, self.width), dtype=np.float16)
        return Encoding(frames, min(len(frames), -(-n_samples // SAMPLES_PER_FRAME)))

    def n_bytes(self, n_samples: float) -> float:
        """Return the bytes that the encoder outputs of windows have in files."""
        return n_samples / SAMPLES_PER_FRAME * self.width * _HALF

    def bytes_read(self, examples: Iterable[Example], original: Iterable[int]) -> float:
        """Return the bytes of the encoder outputs that a fold reads, on average.

        Each example of an epoch draws one of the augmented versions; rows that are validated, or
        that initialize the head, are read as they were recorded.

        Args:
            examples: of one epoch.
            original: those rows.
        """
        n_versions, epochs = self.n_augmented, self.recipe.epochs
        draws = Counter(each.clip for each in examples)
        n_samples = sum(
            # All versions but those that no draw has hit.
            n_versions * (1 - (1 - 1 / n_versions) ** (n * epochs)) * self._window(clip)
            for clip, n in draws.items()
        )
        return self.n_bytes(n_samples + sum(map(self._window, {*original})))

    def _window(self, clip: int | JoinedClips) -> int:
        is_joined = isinstance(clip, JoinedClips)
        return window_of(recorded_samples(self.source, clip), self.recipe, is_joined=is_joined)


@dataclass(frozen=True)
class Stored:
    """What the store lacks, or has, of what is computed once for all folds.

    Attributes:
        missing: numbers of the versions of the encoder outputs that it lacks.
        initialized: rows of which it has the features that heads are initialized from.
    """

    missing: Sequence[int]
    initialized: frozenset[int]

    @classmethod
    def look_up(
        cls,
        model: Scorer,
        recipe: Recipe,
        data: TrainingData,
        source: PairSource,
        options: TrainingOptions,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> "Stored":
        """Look into the store's folder.

        Args:
            model: with its backbone's weights; of this recipe, or of one of the same kind.
            recipe: the recipe.
            data: the training set.
            source: its source; with encoder outputs if the recipe has them computed once.
            options: the training's.
            device: where it computes.
            dtype: of its matrix products.
        """
        missing: Sequence[int] = range(1 + recipe.n_augmented) if recipe.n_augmented else ()
        if recipe.warm_start is not None:  # another encoder, which may not even be trained yet
            return cls(missing, frozenset())
        if recipe.n_augmented:
            assert isinstance(model, WhisperScorer)
            missing = missing_versions(model, data.source, recipe, options.store, dtype)
        rows: set[int] = set()
        # Low-rank updates start at random, from the recipe's seed.
        if recipe.has_pretrained_init and not (
            recipe.adapter_rank and model.recipe.name != recipe.name
        ):
            rows = kept_rows(model, recipe, data, source, options.store, device=device, dtype=dtype)
        return cls(missing, frozenset(rows))


def encoding_pass(model: Scorer, run: ReadingRun, n_versions: int) -> Pass:
    """Return the pass that computes the encoder outputs of all recordings in some versions."""
    assert isinstance(model, WhisperScorer)
    device, source, sizes = run.device, run.data.source, model.encoder_sizes
    windows = windows_of_rows(source, run.recipe)
    order = np.argsort(windows, kind="stable")
    n_batches = max(1, round(sum(windows) / (BATCH_SECONDS * SAMPLE_RATE)))
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
        rng = np.random.default_rng(run.seeds(0))
        augment = run.recipe.augment_learner.apply
        waveforms = [augment(source.learner(row), rng)[:WINDOW_SAMPLES] for row in rows]
        window = max(windows[row] for row in rows)
        batch = pad_waveforms([each[:window] for each in waveforms], window)
        n_samples = torch.tensor([min(len(each), window) for each in waveforms])
        with mixed_precision(device, run.dtype):
            encoded = model.eval().encode_recordings(batch.to(device), n_samples.to(device))
        encoded.half().cpu()

    return Pass(
        "encoder outputs",
        n_versions,
        [size(rows) for rows in batches],
        load,
        compute,
        is_loaded=False,
        shared=True,
    )


@torch.inference_mode()
def encoded_width(model: Scorer, device: torch.device) -> int:
    """Return the numbers of a frame that is encoded once."""
    assert isinstance(model, WhisperScorer)
    n_samples = torch.tensor([4 * SAMPLES_PER_FRAME], device=device)
    silence = torch.zeros(1, 4 * SAMPLES_PER_FRAME, device=device)
    return model.eval().encode_recordings(silence, n_samples).shape[2]


def recorded_samples(source: PairSource, clip: int | JoinedClips) -> int:
    """Return the number of samples of a recording, or of joined clips."""
    if isinstance(clip, JoinedClips):
        return sum(source.store.n_samples(source.filenames[r]) for r in clip.rows) + sum(
            clip.pauses
        )
    return source.store.n_samples(source.filenames[clip])


def window_of(n_samples: int, recipe: Recipe, *, is_joined: bool = False) -> int:
    """Return the number of samples of the window of a recording, or of joined clips."""
    longest = LONGEST_WINDOW_SAMPLES if is_joined else WINDOW_SAMPLES
    return window_samples(n_samples, recipe.window, recipe.window_step_seconds, longest)


def windows_of_rows(source: PairSource, recipe: Recipe) -> list[int]:
    """Return the samples of the windows of all recordings, as they are validated."""
    return [window_of(source.n_samples(row, recipe.pair), recipe) for row in range(len(source))]


def longest_window(recipe: Recipe) -> int:
    """Return the number of samples of the longest window in a recipe's training."""
    return LONGEST_WINDOW_SAMPLES if recipe.joined_clips else WINDOW_SAMPLES
