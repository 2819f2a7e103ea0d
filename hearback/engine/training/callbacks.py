"""Callbacks of the training loop: stall detection, progress bar, TensorBoard, checkpoints."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hearback.engine.devices import peak_memory_gb
from hearback.engine.training.fold_files import sibling_metadata
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.stall_detector import (
    Curve,
    StallDetector,
    StallError,
    Step,
    recorded_steps,
)

if TYPE_CHECKING:
    from hearback.engine.training.trainer import Trainer


class Callback:
    """Hooks that a `Trainer` calls; by default they do nothing."""

    def on_start(self, trainer: "Trainer") -> None:
        """Called when the model has been initialized, or resumed from a checkpoint."""

    def on_epoch_start(self, trainer: "Trainer", n_examples: int) -> None:
        """Called when an epoch of `n_examples` begins, or is resumed."""

    def on_step(self, trainer: "Trainer", step: Step) -> None:
        """Called after a step, which `trainer.state` already includes."""

    def on_epoch_end(self, trainer: "Trainer", record: Mapping[str, Any]) -> None:
        """Called after an epoch's validation; `record` is the last of the history."""

    def close(self) -> None:
        """Called when training has ended, normally or by an exception."""


class StallDetection(Callback):
    """Raises StallError as soon as the training has stalled."""

    def on_start(self, trainer: "Trainer") -> None:
        """Read the curves of the model's other folds, and replay the steps before a resume."""
        run, state = trainer.run, trainer.state
        siblings = sibling_metadata(run.files, run.run_key).values()
        curves = [Curve.of(fold_metadata["epochs"]) for fold_metadata in siblings]
        self.detector = StallDetector([curve for curve in curves if curve is not None])
        self.detector.replay(state.history)
        progress = state.progress
        for step in recorded_steps(state.epoch + 1, progress.losses, progress.gradient_norms):
            self.detector.update(step)

    def on_step(self, trainer: "Trainer", step: Step) -> None:
        """Raise StallError if this step shows a stall."""
        if reason := self.detector.update(step):
            raise StallError(reason)


class ProgressBar(Callback):
    """A bar of the epoch's examples, and a line of results after each epoch."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.n_examples = 0

    def on_epoch_start(self, trainer: "Trainer", n_examples: int) -> None:
        """Show a bar."""
        self.n_examples = n_examples
        epochs = f"epoch {trainer.state.epoch + 1}/{trainer.run.recipe.epochs}"
        self.bar = tqdm(
            total=n_examples,
            initial=trainer.state.progress.n_examples,
            desc=f"{trainer.run.title} {epochs}",
            unit="example",
        )

    def on_step(self, trainer: "Trainer", step: Step) -> None:
        """Advance the bar."""
        assert self.bar is not None
        progress = trainer.state.progress
        self.bar.update(progress.n_examples - self.bar.n)
        self.bar.set_postfix(loss=f"{progress.mean_loss:.4f}", refresh=False)

    def on_epoch_end(self, trainer: "Trainer", record: Mapping[str, Any]) -> None:
        """Print the losses, the other metrics, the speed and the memory."""
        self.close()
        speed = self.n_examples / max(record["train_seconds"], 0.01)
        tqdm.write(
            f"{trainer.run.title} epoch {record['epoch']}/{trainer.run.recipe.epochs}: "
            f"train loss {record['train_log_loss']:.4f}, {describe_validation(record)}, "
            f"{speed:.1f} examples/s, peak memory {peak_memory_gb(trainer.run.device):.1f} GB"
        )

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def describe_validation(record: Mapping[str, Any]) -> str:
    """Return an epoch's validation metrics as text, the log loss first."""
    prefix, loss = "validation_", "validation_log_loss"
    others = [
        f", {name.removeprefix(prefix).replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if name.startswith(prefix) and name not in (loss, "validation_seconds")
    ]
    return f"validation log loss {record[loss]:.4f}{''.join(others)}"


class TensorBoard(Callback):
    """Each epoch's numbers, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None

    def on_epoch_end(self, trainer: "Trainer", record: Mapping[str, Any]) -> None:
        """Write the record's floating-point numbers."""
        if self.writer is None:
            self.writer = SummaryWriter(self.folder)
        for key, value in record.items():
            if isinstance(value, float):
                self.writer.add_scalar(key, value, record["epoch"])

    def close(self) -> None:
        """Close the log."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Checkpoints(Callback):
    """A checkpoint after every epoch, and within epochs every `minutes`."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.saved_at = time.monotonic()

    def on_step(self, trainer: "Trainer", step: Step) -> None:
        """Save if the last checkpoint is too old."""
        if time.monotonic() - self.saved_at > self.seconds:
            self._save(trainer)

    def on_epoch_end(self, trainer: "Trainer", record: Mapping[str, Any]) -> None:
        """Save."""
        self._save(trainer)

    def _save(self, trainer: "Trainer") -> None:
        trainer.save_checkpoint()
        self.saved_at = time.monotonic()


def default_callbacks(options: FoldOptions, name: str) -> list[Callback]:
    """Return the callbacks of a training script; `name` is that of its TensorBoard folder."""
    return [
        StallDetection(),  # first: a stalled step must reach no checkpoint
        ProgressBar(),
        TensorBoard(options.runs / name),
        Checkpoints(options.checkpoint_minutes),
    ]
