"""What a competition writes to train its models: a `Task`, handed to a `Trainer`.

A whole task, of digits from their pictures:

    class DigitsTask(Task):
        def __init__(self, run: FoldRun) -> None:
            self.run = run

        def build_model(self):
            return nn.Linear(64, 10)

        def build_optimizer(self, model):
            rate = self.run.recipe.learning_rate
            return torch.optim.SGD([{"params": model.parameters(), "peak_lr": rate}], lr=rate)

        def epoch_batches(self, model, epochs):
            for epoch in epochs:
                rng = np.random.default_rng(self.run.seeds(epoch))
                rows = rng.permutation(self.run.train_rows)
                yield len(rows), map(self.make_batch, batched(rows, self.run.recipe.batch_size))

        def compute_logits(self, model, batch):
            return model(batch.images), torch.zeros(())

        def compute_loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels, reduction="sum")

        def evaluate(self, model):
            batch = self.make_batch(self.run.validation_rows).to(self.run.device)
            log_probs = model(batch.images).log_softmax(1)
            loss = F.nll_loss(log_probs, batch.labels).item()
            return Evaluation({"validation_log_loss": loss}, {"log_probs": log_probs.cpu()})

        def out_of_fold(self, predictions):
            return {"oof": make_table(self.run, predictions["log_probs"])}

        def describe(self, model):
            return {"shape": {"d_model": 64}, "base_rate": 0.1, "base_rate_log_loss": 2.303}

`command.main(DigitsTask, DigitsOptions, RECIPE, program=...)` is then its training script.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hearback.engine.devices import choose_device, compute_dtype, default_workers
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe


class FoldData(Protocol):
    """A training set, split into folds."""

    @property
    def filenames(self) -> Sequence[str]:
        """The recording of each row."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the content."""

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold is trained on."""

    def validation_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold holds out; each row belongs to exactly one fold."""


class Batch(Protocol):
    """Examples of one training step. `engine.data.batching.Tensors` implements the last two."""

    @property
    def rows(self) -> Tensor:
        """The examples' rows in the table, (batch,)."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def to(self, device: torch.device) -> Self:
        """Move the tensors, asynchronously from pinned memory."""

    def pin_memory(self) -> Self:
        """Copy the tensors to pinned memory."""


RecipeT = TypeVar("RecipeT", bound=FoldRecipe)
OptionsT = TypeVar("OptionsT", bound=FoldOptions)
DataT = TypeVar("DataT", bound=FoldData)


@dataclass(frozen=True)
class FoldRun(Generic[RecipeT, OptionsT, DataT]):
    """One attempt at training one fold: recipe, options and data, and what follows from them.

    `recipe` is the one that `options.adapt` returned; `earlier` holds the records of earlier
    attempts. Raises HearbackError for a fold or an attempt out of range.
    """

    recipe: RecipeT
    fold: int
    options: OptionsT
    data: DataT
    attempt: int = 1
    earlier: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a fold or an attempt out of range."""
        if not 0 <= self.fold < self.options.n_folds:
            raise HearbackError(
                f"--fold {self.fold}: with --n_folds {self.options.n_folds} folds are 0 to "
                f"{self.options.n_folds - 1}"
            )
        if self.attempt < 1:
            raise HearbackError(f"--attempt {self.attempt}: it must be at least 1")

    @property
    def title(self) -> str:
        """The model and the fold, for messages."""
        return f"{self.recipe.name} fold {self.fold}"

    @property
    def files(self) -> FoldFiles:
        """The fold's files."""
        return FoldFiles(self.options.assets, self.recipe.name, self.fold)

    @cached_property
    def run_key(self) -> dict[str, Any]:
        """What must be equal for two trainings of the fold to be the same."""
        return self.options.run_key(self.recipe, self.data)

    @property
    def checkpoint_key(self) -> dict[str, Any]:
        """The `run_key` of this attempt's checkpoints."""
        return {**self.run_key, "attempt": self.attempt}

    @cached_property
    def device(self) -> torch.device:
        """The device to train on."""
        return choose_device(self.options.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the matrix products."""
        return compute_dtype(self.device, self.options.precision)

    @property
    def n_workers(self) -> int:
        """The number of processes that load and augment examples."""
        workers = self.options.workers
        return default_workers(self.device) if workers is None else workers

    @cached_property
    def train_rows(self) -> np.ndarray:
        """The rows to train on."""
        return self.data.training_rows(self.fold)

    @cached_property
    def validation_rows(self) -> np.ndarray:
        """The rows held out."""
        return self.data.validation_rows(self.fold)

    def seeds(self, epoch: int) -> tuple[int, int, int]:
        """Return seeds of the sampling and augmentation of an epoch, counted from 0."""
        return (self.recipe.data_seed, self.attempt, epoch)


@dataclass(frozen=True)
class Evaluation:
    """A model's results on the validation rows.

    `metrics` are added to the epoch's record; `validation_log_loss` must be among them.
    `predictions` are tensors by name. Checkpoints keep those of the best epoch.
    """

    metrics: dict[str, float]
    predictions: dict[str, Tensor]


Model: TypeAlias = Any  # the task's own nn.Module
OwnBatch: TypeAlias = Any  # the task's own Batch


class Task(Protocol):
    """A competition's models, batches, loss and metrics for one `FoldRun`.

    Each method must return the same for the same arguments: a killed training calls it again.
    `initialize` and `learning_rate_factor` have defaults for classes that derive from this one.
    """

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return the untrained model. Torch's random numbers are seeded before."""

    @abstractmethod
    def build_optimizer(self, model: Model) -> torch.optim.Optimizer:
        """Return the model's optimizer; each parameter group has its peak rate as `peak_lr`."""

    def initialize(self, model: Model) -> bool:
        """Fit the untrained model to the training rows; return whether anything was fitted.

        If so, the model is evaluated before the first step, as epoch 0.
        """
        return False

    def learning_rate_factor(
        self, epochs_done: float, history: Sequence[Mapping[str, Any]]
    ) -> float:
        """Return the share of the peak learning rates, from 0 to 1, for the next step.

        `history` holds the records of the finished epochs.
        """
        return 1.0

    @abstractmethod
    def epoch_batches(self, model: Model, epochs: range) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Yield the number of examples and the batches of each epoch, counted from 0.

        Must not draw from torch's global random numbers: `FoldRun.seeds` gives an epoch's own.
        """

    @abstractmethod
    def compute_logits(self, model: Model, batch: OwnBatch) -> tuple[Tensor, Tensor]:
        """Return the logits, (batch, …) float32, and a scalar auxiliary loss summed over the batch.

        Runs in mixed precision.
        """

    @abstractmethod
    def compute_loss(self, logits: Tensor, batch: OwnBatch) -> Tensor:
        """Return the loss summed over the batch, (), in nats. Runs outside mixed precision."""

    @abstractmethod
    def evaluate(self, model: Model) -> Evaluation:
        """Predict the validation rows and compute the metrics.

        Runs with the model in evaluation mode and without gradients.
        """

    @abstractmethod
    def out_of_fold(self, predictions: Mapping[str, Tensor]) -> dict[str, pd.DataFrame]:
        """Return the tables of an evaluation's predictions: `oof`, and further ones by name."""

    @abstractmethod
    def describe(self, model: Model) -> dict[str, Any]:
        """Return the competition's part of the fold metadata.

        `shape` (sizes to build the model from), `base_rate` (what the training rows alone predict)
        and `base_rate_log_loss` (its log loss on the validation rows) must be among it.
        """
