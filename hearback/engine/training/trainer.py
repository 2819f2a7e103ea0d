"""One fold of one model in any competition: the loop, its guard, and what is kept of it.

A competition derives a `FoldTraining` that knows its models, its batches and its losses
(`hearback.reading.training`).
"""

import math
import platform
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.devices import (
    choose_device,
    compute_dtype,
    default_workers,
    device_name,
    mixed_precision,
    peak_memory_gb,
)
from hearback.engine.errors import HearbackError
from hearback.engine.training import checkpoint, fold_files
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.training.stall_detector import (
    Curve,
    StallDetector,
    Step,
    recorded,
    significant,
)

MOST_ATTEMPTS = 3  # at a fold, before a person has to look
LOWEST_SHARE_THAT_MOVES = 0.01  # of the peak learning rate; below, a step may round to nothing
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "librosa", "safetensors")


class FoldData(Protocol):
    """A training set: (rows,) `filenames`, and a fingerprint that changes with what is in it."""

    @property
    def filenames(self) -> Sequence[str]:
        """The recordings, row by row."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits."""

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold is trained on."""

    def validation_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a fold holds out; each row is held out by one fold."""


class FoldBatch(Protocol):
    """Examples that are learned from together; `rows`, (batch,), are their places in the table."""

    @property
    def rows(self) -> Tensor:
        """Their places in the table, (batch,)."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def to(self, device: torch.device) -> Self:
        """Move the tensors, without waiting where their memory is pinned."""

    def pin_memory(self) -> Self:
        """Pin the tensors' memory, so that `to` need not wait."""


class FoldPredictions(Protocol):
    """What a model predicts of a fold's validation rows, in their order."""

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the predictions as tensors by name, for a checkpoint."""


R = TypeVar("R", bound=FoldRecipe)
D = TypeVar("D", bound=FoldData)
M = TypeVar("M", bound=nn.Module)
B = TypeVar("B", bound=FoldBatch)
P = TypeVar("P", bound=FoldPredictions)


def main(training: "type[FoldTraining[R, Any, Any, Any, Any]]", recipe: R) -> None:
    """Run a script that trains a model: the fold that the command line asks for."""

    def train() -> None:
        parser = cli.parser(sys.modules["__main__"].__doc__)
        parser.add_argument("--fold", type=int, required=True, help="the fold to hold out")
        parser.add_argument(
            "--attempt", type=int, default=1, help="2, 3, …: train again with other random numbers"
        )
        training.OPTIONS.declare(parser)
        arguments = parser.parse_args()
        options = training.OPTIONS.gather(arguments)
        data = options.load_data()
        fold_metadata = train_fold(
            training, recipe, arguments.fold, options, data, attempt=arguments.attempt
        )
        print(
            f"{fold_metadata['model']} fold {arguments.fold}: log loss {fold_metadata['log_loss']:.4f} "
            f"(base rate {fold_metadata['base_rate_log_loss']:.4f}), epoch {fold_metadata['best_epoch']} of "
            f"{fold_metadata['epochs'][-1]['epoch']}, {fold_metadata['seconds']:.0f} s"
        )

    cli.run(train)


def train_fold(
    kind: "type[FoldTraining[R, D, Any, Any, Any]]",
    recipe: R,
    fold: int,
    options: FoldOptions,
    data: D,
    *,
    attempt: int = 1,
    program: Sequence[str] | None = None,
) -> FoldMetadata:
    """Train one fold of `recipe` as `options` adapt it, write its files and return its metadata.

    `kind` is the competition's training. Another `attempt` at a fold has other random numbers.
    Where one stalls (`hearback.engine.training.stall_detector`) it is given up and the next begins, `MOST_ATTEMPTS` in all;
    the metadata tells of each. `program` is what python has to run where that is not the model's own
    script. A training that was killed goes on from what it kept last, after an epoch or in the
    midst of one (`options.checkpoint_minutes`), in the attempt that it was at. Raises HearbackError
    where the fold, the backbone or the device is not there, another process trains this fold, or
    all of the attempts stalled.
    """
    program = program or kind.program_of(recipe)
    if options.seed == recipe.seed:  # the same model: its command shall say so
        options = replace(options, seed=None)
    recipe = options.adapt(recipe)
    if not 0 <= fold < options.n_folds:
        raise HearbackError(
            f"--fold {fold}: with --n_folds {options.n_folds} folds are 0 to {options.n_folds - 1}"
        )
    files = FoldFiles(options.assets, recipe.name, fold)
    numbers = range(attempt, attempt + MOST_ATTEMPTS)
    with fold_files.only_trainer(files):
        run_key = options.run_key(recipe, data)
        under_way = fold_files.attempts_under_way(files, run_key)
        attempts = under_way or fold_files.finished_attempts(files, run_key)
        stalled = [past["attempt"] for past in under_way if past["outcome"] == "stalled"]
        for number in numbers:
            if number in stalled:
                continue  # before this training was killed; it would again
            earlier = [past for past in attempts if past["attempt"] != number]
            training = kind(recipe, fold, options, data, number, program=program, earlier=earlier)
            fold_metadata = training.run()
            if fold_metadata is not None:
                return fold_metadata
            attempts = training.attempts
            del training  # a GPU may not hold two models
    raise HearbackError(_why_given_up(files, attempts, numbers))


def _why_given_up(
    files: FoldFiles, attempts: Sequence[Mapping[str, Any]], numbers: Sequence[int]
) -> str:
    """Say why each of these attempts stalled, and what to try."""
    reasons = [
        f"  attempt {past['attempt']}: {past['reason']}"
        for past in attempts
        if past["attempt"] in numbers
    ]
    return "\n".join(
        [
            f"{files.model} fold {files.fold}: {len(reasons)} attempts stalled, none is left",
            *reasons,
            f"Other random numbers: --attempt {numbers[-1] + 1}. Where the reasons are alike, look "
            "for a cause first: a lower learning rate (--set learning_rate=…), --precision "
            "float32, the recordings that are named.",
            f"{files.partial} remembers these attempts; delete it to make them again.",
        ]
    )


def _finite_rows(logits: Tensor) -> Tensor:
    """Return whose logits are all finite, (batch,) bool."""
    return logits.isfinite().flatten(1).all(1) if logits.ndim > 1 else logits.isfinite()


class StallError(Exception):
    """An attempt has stopped learning; the message says when, and how it shows."""


@dataclass
class EpochProgress:
    """How far an epoch under way has come: of each step its mean loss and its gradient's norm."""

    n_heard: int = 0
    loss_sum: float = 0.0  # of the clips heard
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, n_clips: int, loss: float, norm: float) -> None:
        """Count one step."""
        self.n_heard += n_clips
        self.loss_sum += loss * n_clips
        self.losses.append(loss)
        self.norms.append(norm)

    @property
    def mean_loss(self) -> float:
        """The mean loss of the clips heard."""
        return self.loss_sum / self.n_heard

    def steps(self) -> dict[str, list[float | None]]:
        """Return losses and norms as a metadata has them: four digits, None for what is not finite.

        The norm of a step that fp16's scaler skipped is not.
        """
        return {"gradient_norms": _for_json(self.norms), "losses": _for_json(self.losses)}


def _for_json(numbers: Sequence[float]) -> list[float | None]:
    return [significant(number) if math.isfinite(number) else None for number in numbers]


class FoldTraining(ABC, Generic[R, D, M, B, P]):
    """The state of one fold's training, which is kept on disk now and then.

    What a competition says of its own are the abstract methods, and those of which it says so. All
    of them must give the same whenever they are asked for the same: a training that was killed asks
    again.
    """

    OPTIONS: ClassVar[type[FoldOptions]]

    def __init__(
        self,
        recipe: R,
        fold: int,
        options: FoldOptions,
        data: D,
        attempt: int,
        *,
        program: Sequence[str] | None = None,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.recipe, self.fold, self.options, self.data = recipe, fold, options, data
        self.attempt, self.attempts = attempt, list(earlier)
        self.program = program or self.program_of(recipe)
        self.files = FoldFiles(options.assets, recipe.name, fold)
        self.run_key = options.run_key(recipe, data)
        self.partial_run_key = {**self.run_key, "attempt": attempt}
        self.device = choose_device(options.device)
        self.workers = default_workers(self.device) if options.workers is None else options.workers
        self.train_rows, self.validation_rows = data.training_rows(fold), data.validation_rows(fold)

        self._seed(0)  # the model's first weights, where they are not pretrained
        self.model = self.build_model().to(self.device)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay))
            if recipe.average_decay
            else None
        )
        self.optimizer = self.make_optimizer()
        # bf16 has float32's range and needs no loss scaling.
        self.dtype = compute_dtype(self.device, options.precision)
        needs_scaling = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=needs_scaling)

        self.epoch = 0
        self.progress = EpochProgress()
        self.random_state: dict[str, Tensor] = {}  # in mid-epoch, of a training that goes on
        self.kept_at = time.monotonic()
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, Tensor] = {}
        self.best_predictions: P | None = None
        if not self._resume():
            self.start()
        self.coming = self.load_epochs(range(self.epoch, recipe.epochs))
        self.guard = self._make_guard()
        # One number of every parameter: it is cheap to ask whether any has changed.
        self.watched = [
            parameter.detach()[tuple(size // 2 for size in parameter.shape)].view(1)
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]

    @classmethod
    @abstractmethod
    def program_of(cls, recipe: R) -> tuple[str, ...]:
        """Return what python has to run to train a model."""

    @abstractmethod
    def build_model(self) -> M:
        """Build the model; torch's random numbers are seeded for its first weights."""

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the model's optimizer; each group has its peak learning rate as `peak_lr`."""

    @abstractmethod
    def learning_rate_factor(self, epochs_done: float) -> float:
        """Return the share of the peak learning rates after `epochs_done` epochs."""

    def start(self) -> None:
        """Do what comes before the first epoch. A competition may have something."""

    @abstractmethod
    def load_epochs(self, epochs: range) -> Iterator[tuple[int, Iterator[B]]]:
        """Give the number of examples and the batches of each of these epochs, counted from 0."""

    @abstractmethod
    def compute_logits(self, batch: B) -> tuple[Tensor, Tensor]:
        """Return the model's float32 logits, (batch, …), and () what else there is to lose."""

    @abstractmethod
    def losses(self, logits: Tensor, batch: B) -> Tensor:
        """Return the sum over the batch of what the logits lose, in nats."""

    @abstractmethod
    def predict(self, model: M) -> P:
        """Predict the validation rows."""

    @abstractmethod
    def restore_predictions(self, tensors: Mapping[str, Tensor]) -> P | None:
        """Return the predictions among a checkpoint's tensors, None where there are none."""

    @abstractmethod
    def measure(self, predictions: P) -> dict[str, float]:
        """Return how good they are: `validation_log_loss`, and what else a competition counts."""

    @abstractmethod
    def base_rate(self) -> Any:  # noqa: ANN401  (a number, or one for each class)
        """Return what the training rows alone would predict."""

    @abstractmethod
    def base_rate_log_loss(self) -> float:
        """Return the log loss of that on the validation rows."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what a metadata says of the model and its inputs, `shape` among it."""

    def show(self, record: Mapping[str, Any]) -> str:
        """Return how good an epoch was, in a few words. A competition may have others."""
        return f"{record['validation_log_loss']:.4f}"

    @abstractmethod
    def out_of_fold(self, predictions: P) -> pd.DataFrame:
        """Return the table of the validation rows' predictions."""

    def words(self, predictions: P) -> pd.DataFrame | None:
        """Return the table of their words. A competition may have one."""
        return None

    def _make_guard(self) -> StallDetector:
        """Return a guard that has seen the other folds, and the steps that were made before."""
        metadata_by_fold = fold_files.sibling_metadata(self.files, self.run_key).values()
        curves = [Curve.of(fold_metadata["epochs"]) for fold_metadata in metadata_by_fold]
        guard = StallDetector([curve for curve in curves if curve is not None])
        guard.replay(self.history)
        for step in recorded(self.epoch + 1, self.progress.losses, self.progress.norms):
            guard.see(step)
        return guard

    def _seed(self, sandbox: int) -> None:
        sequence = np.random.SeedSequence((self.recipe.seed, self.attempt, sandbox))
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    @property
    def eval_model(self) -> M:
        """The model that is validated and kept: the weights' running average, if there is one."""
        return self.model if self.average is None else cast(M, self.average.module)

    @property
    def best(self) -> dict[str, Any]:
        """The epoch with the lowest validation log loss."""
        return min(self.history, key=lambda epoch: epoch["validation_log_loss"])

    def run(self) -> FoldMetadata | None:
        """Train to the end and return the metadata, or None where the attempt stalled."""
        path = self.options.runs / f"{self.recipe.name}_{self.fold}"
        try:
            with closing(SummaryWriter(path)) as scalars:
                while self.epoch < self.recipe.epochs:
                    self.run_epoch(scalars)
                    self.keep()
        except StallError as stall:
            self.give_up(str(stall))
            return None
        return self.finish()

    def run_epoch(self, scalars: SummaryWriter) -> None:
        """Train for one epoch, or what is left of it, and validate it.

        Raises StallError as soon as the guard says so.
        """
        recipe, progress = self.recipe, self.progress
        # Each epoch has randomness of its own, so one that is resumed is one that never stopped.
        self._seed(self.epoch + 1)
        n_examples, batches = next(self.coming)
        self.model.train()
        name = f"{recipe.name} fold {self.fold} epoch {self.epoch + 1}/{recipe.epochs}"
        with tqdm(total=n_examples, initial=progress.n_heard, desc=name, unit="clip") as bar:
            # What was heard before is loaded again: it decides how the batches are filled.
            batches = islice(batches, len(progress.losses), None)
            started, seconds_before = time.monotonic(), progress.seconds
            self._restore_random_state()
            for batch in batches:
                epochs_done = self.epoch + progress.n_heard / n_examples
                step = self._step(batch, self.learning_rate_factor(epochs_done))
                progress.add(len(batch), step.loss, step.gradient_norm)
                progress.seconds = seconds_before + time.monotonic() - started
                bar.update(len(batch))
                bar.set_postfix(loss=f"{progress.mean_loss:.4f}", refresh=False)
                if reason := self.guard.see(step):
                    raise StallError(reason)
                if time.monotonic() - self.kept_at > 60 * self.options.checkpoint_minutes:
                    self.keep()
        self.epoch += 1
        self.progress = EpochProgress()
        applied = [norm for norm in progress.norms if math.isfinite(norm)]
        record = self._validate(
            {
                "epoch": self.epoch,
                "train_log_loss": progress.mean_loss,
                "mean_gradient_norm": float(np.mean(applied)) if applied else None,
                "largest_gradient_norm": max(applied, default=None),
                **progress.steps(),
                "train_seconds": round(progress.seconds, 2),
            }
        )
        for key, value in record.items():
            if isinstance(value, float):
                scalars.add_scalar(key, value, self.epoch)
        tqdm.write(
            f"{name}: train {record['train_log_loss']:.4f}, "
            f"validation {self.show(record)}, "
            f"{n_examples / progress.seconds:.1f} clips/s, "
            f"{peak_memory_gb(self.device):.1f} GB at most"
        )

    def _validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Predict the validation rows, and keep the weights if they are the best so far.

        Completes and returns the epoch's `record`, which becomes part of the history.
        """
        started = time.monotonic()
        predictions = self.predict(self.eval_model)
        record = {
            **record,
            **self.measure(predictions),
            "validation_seconds": round(time.monotonic() - started, 2),
        }
        self.history.append(record)
        if self.best is record:
            self.best_predictions = predictions
            self.best_weights = checkpoint.in_half(self.eval_model.state_dict())
        return record

    def _step(self, batch: B, factor: float) -> Step:
        """Take one step at `factor` times the peak learning rates; return what it showed."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self.device)
        with mixed_precision(self.device, self.dtype):
            logits, others = self.compute_logits(batch)
        scale, before = self.scaler.get_scale(), torch.cat(self.watched)
        losses = self.losses(logits, batch)
        self.optimizer.zero_grad(set_to_none=True)
        # An epoch's last batch may be smaller: each clip counts the same in all of them.
        self.scaler.scale((losses + others) / self.recipe.batch_size).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        loss, total = losses.item() / len(batch), (losses + others).item()
        broken = [] if math.isfinite(total) else batch.rows[~_finite_rows(logits)].tolist()
        can_move = factor >= LOWEST_SHARE_THAT_MOVES
        return Step(
            epoch=self.epoch + 1,
            loss=loss if math.isfinite(total) else total,
            gradient_norm=norm.item(),
            applied=self.scaler.get_scale() >= scale,  # it is lowered where a step is skipped
            moved=not torch.equal(before, torch.cat(self.watched)) if can_move else None,
            broken=tuple(self.data.filenames[row] for row in broken),
        )

    def keep(self) -> None:
        """Write all that the training needs to go on from here to one file."""
        checkpoint.save_partial(
            self.files.partial,
            {
                **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
                **{
                    f"optimizer.{name}": tensor
                    for name, tensor in checkpoint.optimizer_tensors(self.optimizer).items()
                },
                **{f"average.{name}": tensor for name, tensor in self._average_state().items()},
                **{f"best.{name}": tensor for name, tensor in self.best_weights.items()},
                **({} if self.best_predictions is None else self.best_predictions.as_tensors()),
                **{f"random.{name}": state for name, state in self._random_state().items()},
            },
            {
                "run_key": self.partial_run_key,
                "attempts": self.attempts,
                "epoch": self.epoch,
                "progress": asdict(self.progress),
                "history": self.history,
                "scaler": self.scaler.state_dict(),
            },
        )
        self.kept_at = time.monotonic()

    def _random_state(self) -> dict[str, Tensor]:
        """Return the state of the random numbers that dropout and the like draw from."""
        if self.device.type == "cuda":
            return {"cuda": torch.cuda.get_rng_state(self.device)}
        return {"cpu": torch.get_rng_state()}

    def _restore_random_state(self) -> None:
        """Go on with the random numbers of an epoch that was broken off, if one was."""
        if "cpu" in self.random_state:
            torch.set_rng_state(self.random_state["cpu"])
        if "cuda" in self.random_state:
            torch.cuda.set_rng_state(self.random_state["cuda"], self.device)
        self.random_state = {}

    def _average_state(self) -> dict[str, Tensor]:
        return {} if self.average is None else self.average.state_dict()

    def _resume(self) -> bool:
        kept = checkpoint.load_partial(self.files.partial, self.partial_run_key)
        if kept is None:
            return False
        tensors, notes = kept
        if "epoch" not in notes:  # the last attempt was given up, this one has not begun
            return False

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        checkpoint.load_optimizer_tensors(self.optimizer, part("optimizer."))
        if self.average is not None:
            self.average.load_state_dict(part("average."))
        self.scaler.load_state_dict(notes["scaler"])
        self.best_weights = part("best.")
        self.best_predictions = self.restore_predictions(tensors)
        self.history = notes["history"]
        self.epoch = notes["epoch"]
        self.progress = EpochProgress(**notes["progress"])
        if self.progress.losses:
            self.random_state = part("random.")
        print(
            f"{self.recipe.name} fold {self.fold}: goes on after epoch {self.epoch}"
            + (f" and {len(self.progress.losses)} steps" if self.progress.losses else "")
        )
        return True

    def give_up(self, reason: str) -> None:
        """Note that this attempt stalled, so that the next one begins."""
        steps = self.progress.steps()
        for epoch in reversed(self.history):
            for name in steps:
                steps[name] = [*epoch.get(name, ()), *steps[name]]
        self.attempts.append({**self._describe_attempt("stalled", reason), **steps})
        notes = {
            "run_key": {**self.run_key, "attempt": self.attempt + 1},
            "attempts": self.attempts,
        }
        checkpoint.save_partial(self.files.partial, {}, notes)
        tqdm.write(f"{self.recipe.name} fold {self.fold}: attempt {self.attempt} stalled: {reason}")

    def _describe_attempt(self, outcome: str, reason: str | None) -> dict[str, Any]:
        """Return the attempt as a metadata has it: how it ended, where and why."""
        under_way = bool(self.progress.losses)
        last = {} if under_way or not self.history else self.history[-1]
        return {
            "attempt": self.attempt,
            "outcome": outcome,
            "reason": reason,
            "epoch": self.epoch + under_way,
            "step": len(last.get("losses", self.progress.losses)),
            "seconds": round(self._seconds_of_history() + self.progress.seconds, 2),
        }

    def _seconds_of_history(self) -> float:
        return sum(epoch["train_seconds"] + epoch["validation_seconds"] for epoch in self.history)

    def finish(self) -> FoldMetadata:
        """Write the best epoch's weights and predictions, and the metadata; return the metadata."""
        assert self.best_predictions is not None
        fold_metadata: FoldMetadata = {
            **self.run_key,
            "model": self.recipe.name,
            "fold": self.fold,
            "attempt": self.attempt,
            "base_rate": self.base_rate(),
            "attempts": [*self.attempts, self._describe_attempt("finished", None)],
            "retrain_command": shlex.join(
                [
                    *("python", *self.program, "--fold", str(self.fold)),
                    *self.options.as_flags(),
                    *("--attempt", str(self.attempt + 1)),
                ]
            ),
            "epochs": self.history,
            "best_epoch": self.best["epoch"],
            "log_loss": self.best["validation_log_loss"],
            "base_rate_log_loss": self.base_rate_log_loss(),
            "n_train": len(self.train_rows),
            "n_validation": len(self.validation_rows),
            "seconds": round(self._seconds_of_history(), 2),
            **self.describe(),
            "device": device_name(self.device),
            "peak_memory_gb": round(peak_memory_gb(self.device), 2),
            "precision": str(self.dtype).removeprefix("torch."),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in PACKAGES},
            },
        }
        oof, words = self.out_of_fold(self.best_predictions), self.words(self.best_predictions)
        fold_files.save_fold(self.files, self.best_weights, oof, fold_metadata, words)
        return fold_metadata
