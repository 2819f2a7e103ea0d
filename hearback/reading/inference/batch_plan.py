"""Which clips form a batch at inference: clips of one window length, longest windows first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.pairings import WITHOUT_REFERENCE
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import window_samples

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


def batch_seconds(device: torch.device) -> float:
    """Return the seconds of windows that a batch holds on a device."""
    return BATCH_SECONDS.get(device.type, BATCH_SECONDS["cpu"])


def plan_batches(
    source: PairSource, rows: Sequence[int] | np.ndarray, recipe: Recipe, seconds: float
) -> list[PlannedBatch]:
    """Return batches of at most `seconds` of windows, each of at least one clip, longest first.

    With the longest first, a batch that does not fit in memory fails at once, and the last batches
    are short. Clips of one text are adjacent, because a batch encodes each reference once.
    """
    source = source.with_speeds(recipe.speed_by_grade)
    by_window: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        window = window_samples(
            source.n_samples(int(row), recipe.pair),
            recipe.window,
            recipe.window_step_seconds,
            source.longest_window(int(row)),
        )
        by_window.setdefault(window, []).append(index)
    has_reference_windows = recipe.pair not in (*WITHOUT_REFERENCE, "joined")
    planned = []
    for window in sorted(by_window, reverse=True):
        # Texts of equal length are adjacent too: tokenized texts then need less padding.
        texts = {index: source.texts[rows[index]] for index in by_window[window]}
        ordered = sorted(texts, key=lambda index: (len(texts[index]), texts[index], index))
        max_clips = max(1, int(seconds * SAMPLE_RATE) // window)
        n_batches = -(-len(ordered) // max_clips)
        for chunk in np.array_split(ordered, n_batches):
            indices = chunk.tolist()
            n_references = len({texts[i] for i in indices}) if has_reference_windows else 0
            planned.append(PlannedBatch(indices, window, len(indices) + n_references))
    return planned
