"""Training examples: mixed and augmented snippets, and batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from librosa.util import fix_length
from torch import Tensor

from hearback.engine.audio.effects import change_speed
from hearback.engine.data.batching import SizedDataset, Tensors
from hearback.songs.augment import Mixer, mix, mix_up, shuffle
from hearback.songs.features import FEATURES
from hearback.songs.recipe import SongRecipe
from hearback.songs.store import FeatureStore
from hearback.songs.tables import N_CLASSES

SPEEDS = (0.9, 1.1)  # range of the speed factor; pitch and formants change with it
PIECES = (6, 15)  # range of the number of pieces of a shuffled snippet of 3 s


@dataclass(frozen=True)
class SongBatch(Tensors):
    """A training batch.

    Attributes:
        features: (batch, *feature shape) float32.
        targets: class probabilities, (batch, classes) float32.
        rows: rows of the snippets in the table, (batch,) int64.
    """

    features: Tensor
    targets: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Return the number of snippets."""
        return len(self.rows)


class SnippetDataset(SizedDataset[tuple[int, np.ndarray]]):
    """An epoch's mixed and augmented snippets: pairs of (row of the table, features).

    Random numbers depend on `seeds` and the index only, not on the number of workers.
    """

    def __init__(
        self,
        store: FeatureStore,
        filenames: Sequence[str],
        rows: np.ndarray,
        recipe: SongRecipe,
        *,
        mixer: Mixer,
        seeds: tuple[int, ...],
    ) -> None:
        self.store, self.filenames, self.rows = store, filenames, rows
        self.augment, self.mixtures = recipe.augment, recipe.mixtures
        self.speed, self.shuffled = recipe.speed, recipe.shuffled
        self.sample_rate = FEATURES[recipe.features].sample_rate
        self.mixer, self.seeds = mixer, seeds

    def __len__(self) -> int:
        """Return the number of snippets."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        """Return the row and the features of the snippet at `index`."""
        row, rng = int(self.rows[index]), np.random.default_rng((*self.seeds, index))
        if rng.random() < self.mixtures and (drawn := self.mixer.draw(row, rng)):
            first, second, gain_db = drawn
            features = mix(self._load(first, rng), self._load(second, rng), gain_db)
        else:
            features = self._load(row, rng)
        # Draw no random number if `shuffled` is 0, so that older recipes stay reproducible.
        if self.shuffled and rng.random() < self.shuffled:
            n_pieces = int(rng.integers(*PIECES, endpoint=True))
            features = shuffle(features, n_pieces, self.sample_rate, rng)
        return row, self.augment.apply(features, rng)

    def _load(self, row: int, rng: np.random.Generator) -> np.ndarray:
        """Load a row's features; with probability `speed`, change their speed."""
        features = self.store.get(self.filenames[row])
        if not (self.speed and rng.random() < self.speed):
            return features
        changed = change_speed(features, float(rng.uniform(*SPEEDS)))
        return fix_length(changed, size=len(features))


def batch_snippets(
    snippets: Iterator[tuple[int, np.ndarray]],
    labels: np.ndarray,
    recipe: SongRecipe,
    rng: np.random.Generator,
) -> Iterator[SongBatch]:
    """Collate snippets in batches, with the recipe's mix-up; `labels` are those of all rows."""
    while batch := list(islice(snippets, recipe.batch_size)):
        rows = [row for row, _ in batch]
        features = torch.from_numpy(np.stack([values for _, values in batch]))
        targets = F.one_hot(torch.from_numpy(labels[rows]), N_CLASSES).float()
        mixed = mix_up(features, targets, recipe.mix_up, rng)
        yield SongBatch(*mixed, torch.tensor(rows))
