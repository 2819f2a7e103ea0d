"""The training loop of one fold, for any competition.

A `Task` provides model, batches and loss. Callbacks detect stalls, show progress and save
checkpoints. `command` repeats stalled attempts and writes the results.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hearback.engine import failures
from hearback.engine.devices import mixed_precision, to_host
from hearback.engine.errors import HearbackError
from hearback.engine.training import checkpoint, memory
from hearback.engine.training.callbacks import Callback, default_callbacks, describe_validation
from hearback.engine.training.micro_batches import MicroBatches, SplitBatch
from hearback.engine.training.optimization import Optimization, Update
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.state import TrainingState
from hearback.engine.training.task import Batch, FoldRun, Task


@dataclass(frozen=True)
class PendingStep:
    """A training step that the device may still be computing.

    `losses` and `total` are the sums over the batch without and with the auxiliary loss, ().
    """

    epoch: int
    batch: Batch | SplitBatch
    logits: Tensor
    losses: Tensor
    total: Tensor
    update: Update

    def read(self, filenames: Sequence[str]) -> Step:
        """Wait for the step, and return its results; `filenames` are those of all rows."""
        update = self.update
        unknown = update.moved is None
        moved = update.applied if update.moved is None else update.moved
        numbers = (self.losses, self.total, update.gradient_norm, update.applied, moved)
        # One tensor: every copy to the CPU is a wait.
        (read,) = to_host(torch.stack([each.detach().to(self.total.dtype) for each in numbers]))
        loss, total, norm, applied, has_moved = read.tolist()
        broken: list[int] = []
        if not math.isfinite(total):
            (finite,) = to_host(finite_rows(self.logits))
            broken = self.batch.rows[~finite].tolist()
        return Step(
            epoch=self.epoch,
            loss=loss / len(self.batch) if math.isfinite(total) else total,
            gradient_norm=norm,
            applied=bool(applied),
            moved=None if unknown else bool(has_moved),
            broken=tuple(filenames[row] for row in broken),
        )


class Trainer:
    """Trains a fold once. The constructor builds the model; `fit` trains it.

    `model` and `optimizer` are the task's, `state` is the progress. A killed training resumes from
    its last checkpoint, and its results equal those of an uninterrupted one bit by bit.
    """

    def __init__(
        self, task: Task, run: FoldRun, callbacks: Sequence[Callback] | None = None
    ) -> None:
        if callbacks is None:
            callbacks = default_callbacks(run.options, f"{run.recipe.name}_{run.fold}")
        self.task, self.run, self.callbacks = task, run, callbacks
        self.state = TrainingState()
        seed_stage(run, 0)  # weights that are not pretrained
        self.model: Any = task.build_model().to(run.device)
        self.optimizer = task.build_optimizer(self.model)
        self.optimization = Optimization(
            self.model, self.optimizer, run.recipe, run.device, run.dtype
        )
        options, name = run.options, run.recipe.name
        if options.gradient_checkpointing:
            memory.recompute_layers(self.model, name)
        self.micro_batches: MicroBatches | None = None
        if options.micro_batch is not None:
            self.micro_batches = MicroBatches(self.model, name, options.micro_batch, run.device)

    @property
    def eval_model(self) -> nn.Module:
        """The model to evaluate and save: the averaged weights, if the recipe averages them."""
        return self.optimization.eval_model

    def fit(self) -> None:
        """Train to the last epoch; `state` then holds the best weights and predictions.

        Raises StallError if the training stalls.
        """
        try:
            self.start()
            epochs = range(self.state.epoch, self.run.recipe.epochs)
            batches_of_epochs = self.task.epoch_batches(self.model, epochs)
            for _ in epochs:
                n_examples, batches = next(batches_of_epochs)
                self.train_epoch(n_examples, batches)
                self.evaluate_epoch()
        finally:
            self.close()

    def start(self) -> None:
        """Resume from the last checkpoint; if there is none, initialize the model."""
        if not self.resume():
            self.initialize()
        for callback in self.callbacks:
            callback.on_start(self)

    def train_epoch(self, n_examples: int, batches: Iterator[Batch]) -> None:
        """Train on an epoch's batches; after a resume, on the remaining ones."""
        progress = self.state.progress
        # Seeded epoch by epoch: a resumed epoch repeats the random numbers of an uninterrupted one.
        seed_stage(self.run, self.state.epoch + 1)
        self.model.train()
        for callback in self.callbacks:
            callback.on_epoch_start(self, n_examples)
        started = time.monotonic() - progress.seconds
        checkpoint.restore_random_state(self.state.random, self.run.device)
        self.state.random = {}
        # After a resume, earlier batches are loaded again: later ones depend on them.
        remaining = islice(batches, len(progress.losses), None)
        following = self._load(remaining)
        while (batch := following) is not None:
            epochs_done = self.state.epoch + progress.n_examples / n_examples
            factor = self.task.learning_rate_factor(epochs_done, self.state.history)
            pending = self._try_step(batch, factor)
            following = self._load(remaining)  # while the device computes
            step = pending.read(self.run.data.filenames)
            progress.add(len(batch), step.loss, step.gradient_norm)
            progress.seconds = time.monotonic() - started
            for callback in self.callbacks:
                callback.on_step(self, step)

    def _load(self, batches: Iterator[Batch]) -> Batch | SplitBatch | None:
        """Return the next batch on its way to the device; None after the last."""
        batch = next(batches, None)
        if batch is None:
            return None
        if self.micro_batches is not None:
            return self.micro_batches.split(batch)
        return (batch.pin_memory() if self.run.device.type == "cuda" else batch).to(self.run.device)

    def _try_step(self, batch: Batch | SplitBatch, factor: float) -> PendingStep:
        """Call `training_step`; raise HearbackError with what fits if the memory is too small."""
        try:
            return self.training_step(batch, factor)
        except Exception as error:
            if not failures.is_out_of_memory(error):
                raise
        # Not in the handler: the error's traceback holds the step's tensors.
        raise HearbackError(memory.describe_shortage(self, batch))

    def training_step(self, batch: Batch | SplitBatch, factor: float) -> PendingStep:
        """Take one gradient step at `factor` times the peak learning rates; do not wait for it."""
        run, parts = self.run, list[tuple[Tensor, Tensor, Tensor]]()

        def losses() -> Iterator[Tensor]:
            for part in self._computed_at_once(batch):
                logits, loss, total = self.compute_losses(part)
                parts.append((logits.detach(), loss.detach(), total.detach()))
                # By the full batch size: an example has the same weight in a smaller last batch.
                yield total / run.recipe.batch_size

        update = self.optimization.step(losses(), factor)
        logits, *sums = zip(*parts, strict=True)
        loss, total = (reduce(torch.add, each) for each in sums)
        whole = logits[0] if len(logits) == 1 else torch.cat(logits)
        return PendingStep(self.state.epoch + 1, batch, whole, loss, total, update)

    def _computed_at_once(self, batch: Batch | SplitBatch) -> Iterator[Batch]:
        """Return the whole batch, or its parts. Each one's gradients come before the next."""
        if not isinstance(batch, SplitBatch):
            return iter([batch])
        assert self.micro_batches is not None
        return self.micro_batches.each(batch)

    def compute_losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, and the loss summed over the batch without and with the auxiliary one."""
        with mixed_precision(self.run.device, self.run.dtype):
            logits, auxiliary = self.task.compute_logits(self.model, batch)
        losses = self.task.compute_loss(logits, batch)
        return logits, losses, losses + auxiliary

    def evaluate_epoch(self) -> None:
        """End the current epoch: evaluate the model, and keep its weights if they are the best."""
        record = self._evaluate(self.state.end_epoch())
        for callback in self.callbacks:
            callback.on_epoch_end(self, record)

    def _evaluate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Evaluate the model, and add the epoch's completed record to the history."""
        started = time.monotonic()
        with torch.no_grad():
            evaluation = self.task.evaluate(self.eval_model.eval())
        seconds = round(time.monotonic() - started, 2)
        record = {**record, **evaluation.metrics, "validation_seconds": seconds}
        self.state.history.append(record)
        if self.state.best(self.run.recipe.keep) is record:
            self.state.best_predictions = {
                name: tensor.cpu() for name, tensor in evaluation.predictions.items()
            }
            self.state.best_weights = checkpoint.to_fp16(self.eval_model.state_dict())
        return record

    def initialize(self) -> None:
        """Call `Task.initialize`; if it fits the model, evaluate that as epoch 0."""
        started = time.monotonic()
        if self.task.initialize(self.model):
            self.optimization.reset_average()
            seconds = round(time.monotonic() - started, 2)
            record = self._evaluate({"epoch": 0, "train_seconds": seconds})
            tqdm.write(f"{self.run.title} initialized: {describe_validation(record)}")

    def resume(self) -> bool:
        """Load this attempt's checkpoint; return whether there is one."""
        run = self.run
        loaded = checkpoint.load_checkpoint(run.files.checkpoint, run.checkpoint_key)
        if loaded is None or "epoch" not in loaded[1]:  # `mark_stalled` writes notes without epochs
            return False
        tensors, notes = loaded
        self.optimization.load(tensors, notes["scaler"])
        self.state = TrainingState.from_checkpoint(tensors, notes)
        n_steps = len(self.state.progress.losses)
        within = f" and {n_steps} steps" if n_steps else ""
        print(f"{run.title}: resumes after epoch {self.state.epoch}{within}")
        return True

    def save_checkpoint(self) -> None:
        """Replace the last checkpoint by the current state."""
        random = checkpoint.random_state(self.run.device)
        checkpoint.save_checkpoint(
            self.run.files.checkpoint,
            {
                **self.optimization.tensors(),
                **self.state.tensors(),
                **checkpoint.with_prefix("random", random),
            },
            {
                "run_key": self.run.checkpoint_key,
                "attempts": list(self.run.earlier),
                "scaler": self.optimization.scaler.state_dict(),
                **self.state.notes(),
            },
        )

    def close(self) -> None:
        """Close progress bars and logs."""
        for callback in self.callbacks:
            callback.close()


def seed_stage(run: FoldRun, stage: int) -> None:
    """Seed torch's global generator: stage 0 builds the model, stage n is epoch n."""
    sequence = np.random.SeedSequence((run.recipe.seed, run.attempt, stage))
    torch.manual_seed(int(sequence.generate_state(1)[0]))


def finite_rows(logits: Tensor) -> Tensor:
    """Mask of rows with finite logits, (batch,) bool."""
    return logits.isfinite().flatten(1).all(1) if logits.ndim > 1 else logits.isfinite()
