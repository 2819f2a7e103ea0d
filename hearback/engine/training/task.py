"""The interface between a competition and the training loop: a `Task`, handed to a `Trainer`.

A task that classifies 8 × 8 images of digits:

    @dataclass(frozen=True)
    class DigitsBatch(Tensors):
        images: Tensor  # (batch, 64)
        labels: Tensor  # (batch,), 0 to 9
        rows: Tensor

        def __len__(self) -> int:
            return len(self.rows)

    class DigitsTask(Task):
        def __init__(self, run: FoldRun) -> None:
            self.run = run

        def make_batch(self, rows):
            data, rows = self.run.data, torch.as_tensor(rows)
            return DigitsBatch(data.images[rows], data.labels[rows], rows)

        def build_model(self):
            return nn.Linear(64, 10)

        def build_optimizer(self, model):
            rate = self.run.recipe.learning_rate
            return torch.optim.SGD([{"params": model.parameters(), "peak_lr": rate}], lr=rate)

        def epoch_batches(self, model, epochs):
            for epoch in epochs:
                rng = np.random.default_rng(self.run.seeds(epoch))
                rows = torch.as_tensor(rng.permutation(self.run.train_rows))
                yield len(rows), map(self.make_batch, rows.split(self.run.recipe.batch_size))

        def compute_logits(self, model, batch):
            return model(batch.images).float(), torch.zeros((), device=self.run.device)

        def compute_loss(self, logits, batch):
            return F.cross_entropy(logits, batch.labels, reduction="sum")

        def evaluate(self, model):
            batch = self.make_batch(self.run.validation_rows).to(self.run.device)
            log_probs = model(batch.images).log_softmax(1)
            loss = F.nll_loss(log_probs, batch.labels).item()
            return Evaluation({"validation_log_loss": loss}, {"log_probs": log_probs})

        def out_of_fold(self, predictions):
            filenames = [self.run.data.filenames[row] for row in self.run.validation_rows]
            columns = [f"p{digit}" for digit in range(10)]
            table = pd.DataFrame(predictions["log_probs"].exp().numpy(), columns=columns)
            return {"oof": table.assign(filename=filenames)}

        def describe(self, model):
            return {"shape": {}, "base_rate": 0.1, "base_rate_log_loss": math.log(10)}

`script.main(lambda: DigitsTask, DigitsOptions, RECIPE, program)` runs its training script, with a
subclass of `FoldOptions` that loads the data and an instance of a subclass of `FoldRecipe`.
`tests/engine/toy_competition.py` is a complete competition.
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

from hearback.engine.data.batching import BatchPart
from hearback.engine.devices import choose_device, compute_dtype, default_workers
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.whisper.backbone import Part


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
    """Examples of one training step. `engine.data.batching.Tensors` implements the last three."""

    @property
    def rows(self) -> Tensor:
        """The examples' rows in the table, (batch,), on the CPU."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def to(self, device: torch.device) -> Self:
        """Move the tensors, asynchronously from pinned memory."""

    def pin_memory(self) -> Self:
        """Copy the tensors to pinned memory."""

    def split(self, n_examples: int) -> list[BatchPart[Self]]:
        """Split the batch into parts of at most `n_examples`, in order, for `--micro_batch`."""


RecipeT = TypeVar("RecipeT", bound=FoldRecipe)
OptionsT = TypeVar("OptionsT", bound=FoldOptions)
DataT = TypeVar("DataT", bound=FoldData)


@dataclass(frozen=True)
class FoldRun(Generic[RecipeT, OptionsT, DataT]):
    """One attempt at training one fold: recipe, options, data, and values derived from them.

    `recipe` is the result of `options.adapt`; `earlier` holds the records of earlier attempts.
    Raises HearbackError for a fold or an attempt out of range.
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
        """The values that identify a training of the fold (`FoldOptions.run_key`)."""
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
        """The data type of matrix products."""
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
        """Return the seeds of an epoch's sampling and augmentation; `epoch` counts from 0."""
        return (self.recipe.data_seed, self.attempt, epoch)


@dataclass(frozen=True)
class Evaluation:
    """A model's results on the validation rows.

    `metrics` are added to the epoch's record; the key `validation_log_loss` is required.
    `predictions` are tensors by name. Those of the best epoch are kept in checkpoints.
    """

    metrics: dict[str, float]
    predictions: dict[str, Tensor]


Model: TypeAlias = Any  # the task's own nn.Module
TaskBatch: TypeAlias = Any  # the task's own Batch


class Task(Protocol):
    """A competition's models, batches, loss and metrics for one `FoldRun`.

    Methods must be deterministic: a resumed training calls them again with the same arguments.
    Subclasses inherit defaults of `initialize` and `learning_rate_factor`.
    """

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return the untrained model. Torch's global generator is seeded before the call."""

    def backbone_tensors(self) -> Mapping[Part, Mapping[str, Tensor]]:
        """Return the pretrained tensors of each part of the model, if it has a backbone.

        Those that training did not change are kept once for all folds.
        """
        return {}

    @abstractmethod
    def build_optimizer(self, model: Model) -> torch.optim.Optimizer:
        """Return the optimizer. Each parameter group has its peak learning rate as `peak_lr`."""

    def initialize(self, model: Model) -> bool:
        """Fit the untrained model to the training rows; return whether anything was fitted.

        If so, the model is evaluated before the first step, as epoch 0.
        """
        return False

    def learning_rate_factor(
        self, epochs_done: float, history: Sequence[Mapping[str, Any]]
    ) -> float:
        """Return the factor on the peak learning rates for the next step, from 0 to 1.

        `epochs_done` includes the finished part of the current epoch; `history` holds the records
        of the finished epochs.
        """
        return 1.0

    @abstractmethod
    def epoch_batches(self, model: Model, epochs: range) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Yield the number of examples and the batches of each epoch; epochs count from 0.

        Must not use torch's global generator: seed a new one with `FoldRun.seeds`.
        """

    @abstractmethod
    def compute_logits(self, model: Model, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Return the logits, (batch, …) float32, and a scalar auxiliary loss summed over the batch.

        Runs in mixed precision.
        """

    @abstractmethod
    def compute_loss(self, logits: Tensor, batch: TaskBatch) -> Tensor:
        """Return the loss summed over the batch, (), in nats. Runs outside mixed precision."""

    @abstractmethod
    def evaluate(self, model: Model) -> Evaluation:
        """Predict the validation rows and compute the metrics.

        Runs with the model in evaluation mode and without gradients.
        """

    @abstractmethod
    def out_of_fold(self, predictions: Mapping[str, Tensor]) -> dict[str, pd.DataFrame]:
        """Return tables of an evaluation's predictions by name; the key `oof` is required."""

    @abstractmethod
    def describe(self, model: Model) -> dict[str, Any]:
        """Return the competition's part of the fold metadata.

        Required keys: `shape` (sizes to build the model from), `base_rate` (the constant prediction
        of the training rows' labels) and `base_rate_log_loss` (its log loss on the validation
        rows). An object with `file` or `directory` (a name in the assets) and `sha256` describes a
        file that folds share.
        """
