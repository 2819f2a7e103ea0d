"""The training task: classification of snippets by their singers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.data.batching import load_consecutively
from hearback.engine.training import command
from hearback.engine.training.fold_files import FoldMetadata
from hearback.engine.training.task import Evaluation, FoldRun, Task
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.backbone import Part, learning_rate_groups
from hearback.engine.whisper.weights import load_backbone, read_config, read_tensors
from hearback.songs.augment import Mixer
from hearback.songs.dataset import SongData
from hearback.songs.evaluation import PROBABILITIES, class_log_loss
from hearback.songs.inference import predict
from hearback.songs.models.classifiers import SongModel, build
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe, program_of
from hearback.songs.sampler import class_weights, sample_epoch
from hearback.songs.snippets import SnippetDataset, SongBatch, batch_snippets
from hearback.songs.tables import N_CLASSES

MOMENTUM = 0.9  # of SGD
# Defaults of torch's MultiStepLR and ReduceLROnPlateau; those of the published systems are unknown.
DROP = 0.1
MIN_IMPROVEMENT = 1e-4  # relative


def train_fold(
    recipe: SongRecipe,
    fold: int,
    options: SongOptions,
    data: SongData,
    attempt: int = 1,
    *,
    program: Sequence[str] | None = None,
) -> FoldMetadata:
    """Train one fold of `recipe`, as `engine.training.command` does."""
    return command.train_fold(
        SongTask,
        recipe,
        fold,
        options,
        data,
        attempt=attempt,
        program=program or program_of(recipe),
    )


class SongTask(Task):
    """Trains a `SongModel`: a logit per class."""

    def __init__(self, run: FoldRun[SongRecipe, SongOptions, SongData]) -> None:
        self.run = run
        self.recipe, self.data = run.recipe, run.data
        self.store = run.data.features(run.recipe.features)
        weights = np.ones(N_CLASSES, np.float32)
        if run.recipe.class_weights:
            weights = class_weights(run.data.labels[run.train_rows], N_CLASSES)
        self.class_weights = torch.from_numpy(weights).to(run.device)

    def build_model(self) -> SongModel:
        """Build the recipe's model, with its backbone's pretrained weights if it has one."""
        recipe = self.recipe
        if recipe.backbone is None:
            return build(recipe)
        backbone = pretrained.resolve(recipe.backbone, self.run.options.backbones)
        model = build(recipe, read_config(backbone))
        load_backbone(model, backbone)
        return model

    def backbone_tensors(self) -> dict[Part, dict[str, Tensor]]:
        """Return the pretrained tensors of the backbone, if the recipe has one."""
        if self.recipe.backbone is None:
            return {}
        backbone = pretrained.resolve(self.recipe.backbone, self.run.options.backbones)
        return {"encoder": read_tensors(backbone, "encoder")}

    def build_optimizer(self, model: SongModel) -> torch.optim.Optimizer:
        """Return the recipe's optimizer for the parameters that are not frozen."""
        recipe = self.recipe
        groups = learning_rate_groups(model, recipe.learning_rate, recipe.head_learning_rate)
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=recipe.weight_decay)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        return kind(groups, weight_decay=recipe.weight_decay, fused=True)

    def learning_rate_factor(
        self, epochs_done: float, history: Sequence[Mapping[str, Any]]
    ) -> float:
        """Return the learning rate as a share of its peak."""
        losses = [epoch["validation_log_loss"] for epoch in history]
        return learning_rate_factor(self.recipe, epochs_done, losses)

    def epoch_batches(
        self, model: SongModel, epochs: range
    ) -> Iterator[tuple[int, Iterator[SongBatch]]]:
        """Yield the number of snippets and the batches of each epoch."""
        recipe, rows = self.recipe, self.run.train_rows
        filenames, labels = self.data.filenames, self.data.labels
        mixer = Mixer(rows, labels, self.data.snippets["singers"].to_numpy(dtype=str))
        datasets, generators = [], []
        for epoch in epochs:
            seeds = self.run.seeds(epoch)
            rng = np.random.default_rng(seeds)
            sampled = sample_epoch(rows, labels[rows], recipe.balanced_sampling, rng)
            datasets.append(
                SnippetDataset(self.store, filenames, sampled, recipe, mixer=mixer, seeds=seeds)
            )
            generators.append(rng)
        loaded = load_consecutively(datasets, self.run.n_workers)
        for (n_snippets, snippets), rng in zip(loaded, generators, strict=True):
            yield n_snippets, batch_snippets(snippets, labels, recipe, rng)

    def compute_logits(self, model: SongModel, batch: SongBatch) -> tuple[Tensor, Tensor]:
        """Return (batch, classes) logits, and no auxiliary loss."""
        logits = model(batch.features)
        return logits, torch.zeros((), device=logits.device)

    def compute_loss(self, logits: Tensor, batch: SongBatch) -> Tensor:
        """Return the sum of the batch's class-weighted cross-entropies, ()."""
        return F.cross_entropy(logits, batch.targets, self.class_weights, reduction="sum")

    def evaluate(self, model: SongModel) -> Evaluation:
        """Predict the validation rows; the predictions are `probabilities`, (rows, classes)."""
        filenames = [self.data.filenames[row] for row in self.run.validation_rows]
        probabilities = predict(
            model, self.store, filenames, device=self.run.device, dtype=self.run.dtype
        )
        return Evaluation(
            self.compute_metrics(probabilities),
            {"probabilities": torch.from_numpy(probabilities)},
        )

    def compute_metrics(self, probabilities: np.ndarray) -> dict[str, float]:
        """Return log loss and accuracy of (rows, classes) probabilities."""
        correct = probabilities.argmax(axis=1) == self._labels
        return {
            "validation_log_loss": self._log_loss(probabilities),
            "validation_accuracy": float(correct.mean()),
        }

    @property
    def _labels(self) -> np.ndarray:
        return self.data.labels[self.run.validation_rows]

    def _log_loss(self, probabilities: np.ndarray) -> float:
        return float(class_log_loss(self._labels, probabilities).mean())

    def out_of_fold(self, predictions: Mapping[str, Tensor]) -> dict[str, pd.DataFrame]:
        """Return the table `oof`: filename, label, and the probabilities of the classes."""
        filenames = [self.data.filenames[row] for row in self.run.validation_rows]
        table = pd.DataFrame({"filename": filenames, "label": self._labels})
        probabilities = predictions["probabilities"].numpy()
        return {"oof": table.join(pd.DataFrame(probabilities, columns=PROBABILITIES))}

    def describe(self, model: SongModel) -> dict[str, Any]:
        """Return the model's shape, and the class shares of the training rows as base rate."""
        counts = np.bincount(self.data.labels[self.run.train_rows], minlength=N_CLASSES)
        shares = (counts / counts.sum()).tolist()
        constant = np.tile(shares, (len(self.run.validation_rows), 1))
        return {
            "base_rate": shares,
            "base_rate_log_loss": self._log_loss(constant),
            "shape": model.backbone_config(),
        }


def learning_rate_factor(
    recipe: SongRecipe, epochs_done: float, validation_losses: Sequence[float]
) -> float:
    """Return the learning rate after `epochs_done` epochs, as a share of the recipe's.

    Depends only on `epochs_done` and the `validation_losses` of finished epochs, so a resumed
    training needs no scheduler state. Both cosine schedules change with every step, the others
    after whole epochs.

    - "cosine": half a cosine over all epochs, to zero (torch's CosineAnnealingLR).
    - "cosine restarts": `periods` half cosines of equal length. Loshchilov and Hutter, "SGDR",
      2017, eq. 5, with T_mult 1 (torch's CosineAnnealingWarmRestarts).
    - "multistep": divided by 10 at each milestone epoch (torch's MultiStepLR).
    - "plateau": divided by 10 after more than `patience_epochs` epochs without a lower validation
      loss (torch's ReduceLROnPlateau). As published, it uses the validation rows, so scores are
      slightly optimistic.
    """
    if recipe.schedule == "cosine":
        return _cosine(epochs_done / recipe.epochs)
    if recipe.schedule == "cosine restarts":
        return _cosine(epochs_done * recipe.periods / recipe.epochs % 1)
    if recipe.schedule == "multistep":
        return DROP ** sum(milestone <= epochs_done for milestone in recipe.milestones)
    return DROP ** _count_plateaus(validation_losses, recipe.patience_epochs)


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _count_plateaus(losses: Sequence[float], patience_epochs: int) -> int:
    """Count periods of more than `patience_epochs` epochs without an improvement."""
    best, n_bad, n_plateaus = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - MIN_IMPROVEMENT):
            best, n_bad = loss, 0
        else:
            n_bad += 1
        if n_bad > patience_epochs:
            n_bad, n_plateaus = 0, n_plateaus + 1
    return n_plateaus
