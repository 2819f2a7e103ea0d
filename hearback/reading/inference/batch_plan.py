"""Which clips form a batch at inference: clips of one window length, longest windows first.

Without torch: the process that shares out the batches on a cluster imports it (`cluster.run`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.pairings import WITHOUT_REFERENCE, Pairing
from hearback.reading.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from hearback.reading.pairs import PairSource

# Seconds of windows in a batch, by device type. A CPU is fastest while a batch's frames stay in its
# cache; a GPU needs larger batches to be fully used.
BATCH_SECONDS = {"cpu": 32.0, "cuda": 512.0}


class EncoderSizes(Protocol):
    """The sizes of an encoder."""

    def multiply_adds(self, n_samples: int) -> float:
        """Return the multiply-adds of encoding a window of `n_samples`."""


@dataclass(frozen=True)
class PlannedBatch:
    """Clips that are encoded together in windows of `n_samples`.

    `indices` are their positions among the rows to score. `n_windows` counts the encoded windows:
    one for each clip, and one for each distinct reference where references have their own windows.
    """

    indices: list[int]
    n_samples: int
    n_windows: int

    def cost(self, config: EncoderSizes) -> float:
        """Return the multiply-adds that an encoder of these sizes needs for the batch."""
        return self.n_windows * config.multiply_adds(self.n_samples)


def batch_seconds(device: "torch.device") -> float:
    """Return the seconds of windows that a batch holds on a device."""
    return BATCH_SECONDS.get(device.type, BATCH_SECONDS["cpu"])


def plan_batches(
    source: "PairSource", rows: Sequence[int] | np.ndarray, recipe: Recipe, seconds: float
) -> list[PlannedBatch]:
    """Return batches of at most `seconds` of learners' windows, longest first.

    Each has at least one clip; the windows of references come on top.
    """
    texts = [source.texts[row] for row in rows]
    windows = find_windows(source, rows, recipe)
    return list(
        group_by_window(
            windows, texts, seconds, has_reference_windows=has_reference_windows(recipe.pair)
        )
    )


def find_windows(
    source: "PairSource", rows: Sequence[int] | np.ndarray, recipe: Recipe
) -> np.ndarray:
    """Return the window length of each row's pair, in samples, (rows,) int64."""
    from hearback.reading.window_batches import window_samples  # noqa: PLC0415  (imports torch)

    source = source.with_speeds(recipe.speed_by_grade)
    windows = [
        window_samples(
            source.n_samples(int(row), recipe.pair),
            recipe.window,
            recipe.window_step_seconds,
            source.longest_window(int(row)),
        )
        for row in rows
    ]
    return np.array(windows, dtype=np.int64)


def has_reference_windows(pair: Pairing) -> bool:
    """Return whether references have windows of their own."""
    return pair not in (*WITHOUT_REFERENCE, "joined")


def group_by_window(
    windows: np.ndarray, texts: Sequence[str], seconds: float, *, has_reference_windows: bool
) -> Iterator[PlannedBatch]:
    """Yield batches of at most `seconds` of learners' windows, longest first.

    Each has at least one clip; the windows of references come on top. With the longest first, a
    batch that does not fit in memory fails at once, and the last batches are short. Clips of one
    text are adjacent, because a batch encodes each reference once.

    Args:
        windows: window length of each clip, in samples, (clips,).
        texts: their texts, (clips,).
        seconds: of learners' windows in a batch.
        has_reference_windows: references have windows of their own.
    """
    for window in np.unique(windows)[::-1].tolist():
        # Texts of equal length are adjacent too: tokenized texts then need less padding.
        ordered = sorted(
            np.flatnonzero(windows == window).tolist(),
            key=lambda index: (len(texts[index]), texts[index], index),
        )
        max_clips = max(1, int(seconds * SAMPLE_RATE) // window)
        n_batches = -(-len(ordered) // max_clips)
        for chunk in np.array_split(ordered, n_batches):
            indices = chunk.tolist()
            n_references = len({texts[i] for i in indices}) if has_reference_windows else 0
            yield PlannedBatch(indices, window, len(indices) + n_references)
