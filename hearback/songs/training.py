"""The learning rate over a training, as the published systems had it.

A function of what is known already, so that a training that goes on needs no scheduler's state.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from librosa.util import fix_length
from torch import Tensor

from hearback.engine.audio.effects import change_speed
from hearback.engine.data.batching import SizedDataset, Tensors, load_in_turn
from hearback.engine.training import trainer
from hearback.engine.training.trainer import FoldTraining
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.backbone import learning_rate_groups
from hearback.songs.augment import Mixer, mix, mix_up, shuffle
from hearback.songs.dataset import SongData
from hearback.songs.evaluation import class_log_loss
from hearback.songs.features import FEATURES
from hearback.songs.inference import predict
from hearback.songs.models.classifiers import SongModel, build
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe
from hearback.songs.sampler import class_weights, draw_epoch
from hearback.songs.store import FeatureStore
from hearback.songs.tables import N_CLASSES

# torch's defaults, of MultiStepLR and ReduceLROnPlateau: the systems' own are not published.
DROP = 0.1
LEAST_GAIN = 1e-4  # relative: a loss that is lower by less is no improvement


def learning_rate_factor(
    recipe: SongRecipe, epochs_done: float, validation_losses: Sequence[float]
) -> float:
    """Return the share of the recipe's learning rate after `epochs_done` epochs.

    `validation_losses` are those of the finished epochs; only "plateau" looks at them. The cosines
    move with every step, the others after whole epochs.

    - "cosine": half a period over all epochs, to zero (torch's CosineAnnealingLR).
    - "cosine restarts": such a half `periods` times, equally long. Loshchilov and Hutter, "SGDR",
      2017, eq. 5, with T_mult 1 (torch's CosineAnnealingWarmRestarts).
    - "multistep": a tenth from each milestone epoch on (torch's MultiStepLR).
    - "plateau": a tenth after more than `patience_epochs` without a lower loss (torch's
      ReduceLROnPlateau). It listens to the fold that is then reported, as published: keep that in
      mind when reading its scores.
    """
    if recipe.schedule == "cosine":
        return _cosine(epochs_done / recipe.epochs)
    if recipe.schedule == "cosine restarts":
        return _cosine(epochs_done * recipe.periods / recipe.epochs % 1)
    if recipe.schedule == "multistep":
        return DROP ** sum(milestone <= epochs_done for milestone in recipe.milestones)
    return DROP ** _plateaus(validation_losses, recipe.patience_epochs)


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _plateaus(losses: Sequence[float], patience_epochs: int) -> int:
    """Count how often there was no improvement for more than `patience_epochs` in a row."""
    best, n_bad, n_plateaus = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - LEAST_GAIN):
            best, n_bad = loss, 0
        else:
            n_bad += 1
        if n_bad > patience_epochs:
            n_bad, n_plateaus = 0, n_plateaus + 1
    return n_plateaus


MOMENTUM = 0.9  # of SGD
SPEEDS = (0.9, 1.1)  # times as fast, pitch and formants with it: as if others sang
PIECES = (6, 15)  # of a snippet of 3 s that is shuffled: half a second to a fifth each


@dataclass(frozen=True)
class SongBatch(Tensors):
    """Snippets that are learned from together.

    `features` (batch, *their shape) float32, `targets` (batch, classes) the classes' shares, `rows`
    (batch,) the snippets' places in the table.
    """

    features: Tensor
    targets: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Return the number of snippets."""
        return len(self.rows)


@dataclass(frozen=True)
class SongPredictions:
    """Of each validation row the classes' probabilities, (rows, classes) float64."""

    probabilities: np.ndarray

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the predictions as tensors by name, for a checkpoint."""
        return {"predictions.classes": torch.from_numpy(self.probabilities)}


class SnippetDataset(SizedDataset[tuple[int, np.ndarray]]):
    """An epoch's snippets, mixed and augmented: a row of the table and its features.

    Their randomness comes from `seeds` and the place: it does not depend on the number of workers.
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
        """Return the `index`-th snippet."""
        row, rng = int(self.rows[index]), np.random.default_rng((*self.seeds, index))
        if rng.random() < self.mixtures and (drawn := self.mixer.draw(row, rng)):
            first, second, gain_db = drawn
            features = mix(self._sound(first, rng), self._sound(second, rng), gain_db)
        else:
            features = self._sound(row, rng)
        # A recipe that shuffles nothing draws what it did before there was shuffling.
        if self.shuffled and rng.random() < self.shuffled:
            n_pieces = int(rng.integers(*PIECES, endpoint=True))
            features = shuffle(features, n_pieces, self.sample_rate, rng)
        return row, self.augment.apply(features, rng)

    def _sound(self, row: int, rng: np.random.Generator) -> np.ndarray:
        """Return a row's features, a waveform's at another speed where the recipe says so."""
        features = self.store.get(self.filenames[row])
        if not (self.speed and rng.random() < self.speed):
            return features
        changed = change_speed(features, float(rng.uniform(*SPEEDS)))
        return fix_length(changed, size=len(features))


class SongTraining(FoldTraining[SongRecipe, SongData, SongModel, SongBatch, SongPredictions]):
    """Training of a model that says whose voice sings."""

    OPTIONS = SongOptions
    options: SongOptions

    @classmethod
    def program_of(cls, recipe: SongRecipe) -> tuple[str, ...]:
        """Return the script of the recipe as it is in this folder, of seed 1 and not separated."""
        return ("-m", f"hearback.songs.recipes.{recipe.name}")

    def build_model(self) -> SongModel:
        """Build the recipe's model, a Whisper from its backbone."""
        recipe = self.recipe
        self.store = self.data.features(recipe.features)
        weights = np.ones(N_CLASSES, np.float32)
        if recipe.class_weights:
            weights = class_weights(self.data.labels[self.train_rows], N_CLASSES)
        self.class_weights = torch.from_numpy(weights)
        if recipe.backbone is None:
            return build(recipe)
        backbone = pretrained.resolve(recipe.backbone, self.options.backbones)
        model = build(recipe, pretrained.read_config(backbone))
        model.load_pretrained(
            {part: pretrained.read_tensors(backbone, part) for part in model.parts}
        )
        return model

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the recipe's optimizer over what is not frozen."""
        recipe = self.recipe
        groups = learning_rate_groups(self.model, recipe.learning_rate, recipe.head_learning_rate)
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=recipe.weight_decay)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        return kind(groups, weight_decay=recipe.weight_decay, fused=True)

    def learning_rate_factor(self, epochs_done: float) -> float:
        """Return the share of the peak learning rates after `epochs_done` epochs."""
        losses = [epoch["validation_log_loss"] for epoch in self.history]
        return learning_rate_factor(self.recipe, epochs_done, losses)

    def load_epochs(self, epochs: range) -> Iterator[tuple[int, Iterator[SongBatch]]]:
        """Give the number of snippets and the batches of each of these epochs, counted from 0."""
        labels = self.data.labels[self.train_rows]
        singers = self.data.snippets["singers"].to_numpy(dtype=str)
        mixer = Mixer(self.train_rows, self.data.labels, singers)
        datasets, generators = [], []
        for epoch in epochs:
            seeds = (self.recipe.data_seed, self.attempt, epoch)
            rng = np.random.default_rng(seeds)
            rows = draw_epoch(self.train_rows, labels, self.recipe.balanced_draws, rng)
            datasets.append(
                SnippetDataset(
                    self.store, self.data.filenames, rows, self.recipe, mixer=mixer, seeds=seeds
                )
            )
            generators.append(rng)
        for (n_snippets, snippets), rng in zip(
            load_in_turn(datasets, self.workers), generators, strict=True
        ):
            yield n_snippets, self._batches(snippets, rng)

    def _batches(
        self, snippets: Iterator[tuple[int, np.ndarray]], rng: np.random.Generator
    ) -> Iterator[SongBatch]:
        """Lay snippets in batches, and mix them where the recipe says so."""
        while batch := list(islice(snippets, self.recipe.batch_size)):
            rows = [row for row, _ in batch]
            features = torch.from_numpy(np.stack([of_row for _, of_row in batch]))
            targets = F.one_hot(torch.from_numpy(self.data.labels[rows]), N_CLASSES).float()
            mixed = mix_up(features, targets, self.recipe.mix_up, rng)
            yield SongBatch(*mixed, torch.tensor(rows))

    def compute_logits(self, batch: SongBatch) -> tuple[Tensor, Tensor]:
        """Return (batch, classes) logits, and nothing else to lose."""
        logits = self.model(batch.features)
        return logits, torch.zeros((), device=logits.device)

    def losses(self, logits: Tensor, batch: SongBatch) -> Tensor:
        """Return the sum over the batch of the cross-entropies, weighed by class."""
        weights = self.class_weights.to(logits.device)
        return F.cross_entropy(logits, batch.targets, weights, reduction="sum")

    def predict(self, model: SongModel) -> SongPredictions:
        """Predict the validation rows."""
        filenames = [self.data.filenames[row] for row in self.validation_rows]
        return SongPredictions(
            predict(model, self.store, filenames, device=self.device, dtype=self.dtype)
        )

    def restore_predictions(self, tensors: Mapping[str, Tensor]) -> SongPredictions | None:
        """Return the predictions among a checkpoint's tensors, None where there are none."""
        kept = tensors.get("predictions.classes")
        return None if kept is None else SongPredictions(kept.numpy())

    def measure(self, predictions: SongPredictions) -> dict[str, float]:
        """Return log loss and accuracy."""
        probabilities = predictions.probabilities
        right = probabilities.argmax(axis=1) == self._labels
        return {
            "validation_log_loss": self._log_loss(probabilities),
            "validation_accuracy": float(right.mean()),
        }

    def show(self, record: Mapping[str, Any]) -> str:
        """Return how good an epoch was, in a few words."""
        return f"{super().show(record)} (accuracy {record['validation_accuracy']:.4f})"

    @property
    def best(self) -> dict[str, Any]:
        """The epoch whose weights and predictions are kept."""
        return self.history[-1] if self.recipe.keep == "last" else super().best

    def base_rate(self) -> list[float]:
        """Return the classes' shares of the training rows."""
        counts = np.bincount(self.data.labels[self.train_rows], minlength=N_CLASSES)
        return (counts / counts.sum()).tolist()

    def base_rate_log_loss(self) -> float:
        """Return the log loss of that on the validation rows."""
        return self._log_loss(np.tile(self.base_rate(), (len(self.validation_rows), 1)))

    @property
    def _labels(self) -> np.ndarray:
        return self.data.labels[self.validation_rows]

    def _log_loss(self, probabilities: np.ndarray) -> float:
        return float(class_log_loss(self._labels, probabilities).mean())

    def describe(self) -> dict[str, Any]:
        """Return what a metadata says of the model and its inputs."""
        return {"shape": self.model.shape(), "tokenizer": None}

    def out_of_fold(self, predictions: SongPredictions) -> pd.DataFrame:
        """Return the validation rows with their class and the probabilities of all."""
        filenames = [self.data.filenames[row] for row in self.validation_rows]
        table = pd.DataFrame({"filename": filenames, "label": self._labels})
        columns = [f"p{number}" for number in range(N_CLASSES)]
        return table.join(pd.DataFrame(predictions.probabilities, columns=columns))


def main(recipe: SongRecipe) -> None:
    """Run a script that trains a model: the fold that the command line asks for."""
    trainer.main(SongTraining, recipe)
