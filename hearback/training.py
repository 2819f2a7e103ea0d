"""One fold of one model, from pretrained weights to out-of-fold predictions."""

import math
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hearback import backbones, checkpoint, cli
from hearback.checkpoint import FoldFiles, Story
from hearback.dataset import TrainingData
from hearback.draws import Drawer
from hearback.embeddings import TextEmbedder
from hearback.errors import HearbackError
from hearback.guard import Curve, StallGuard, Step, recorded, significant
from hearback.inference import Predictions, choose_device, collect, predict
from hearback.models import Scorer, build
from hearback.options import TrainingOptions, add_options, options_from
from hearback.pairs import WITH_TEXT_EMBEDDING, Batch, PairDataset, batched, load_in_turn
from hearback.precision import compute_dtype, mixed_precision
from hearback.recipe import Recipe
from hearback.words import to_table

N_START = 1000  # clips that a start is fitted on, if there are as many
MOST_ATTEMPTS = 3  # at a fold, before a person has to look
LOWEST_SHARE_THAT_MOVES = 0.01  # of the peak learning rate; below, a step may round to nothing
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "librosa", "safetensors")


def main(recipe: Recipe) -> None:
    """Run a `train_model*.py`: train the fold that the command line asks for."""

    def train() -> None:
        parser = cli.parser(sys.modules["__main__"].__doc__)
        parser.add_argument("--fold", type=int, required=True, help="the fold to hold out")
        parser.add_argument(
            "--attempt", type=int, default=1, help="2, 3, …: train again with other random numbers"
        )
        add_options(parser)
        arguments = parser.parse_args()
        options = options_from(arguments)
        story = train_fold(recipe, arguments.fold, options, options.load_data(), arguments.attempt)
        print(
            f"{recipe.name} fold {arguments.fold}: log loss {story['log_loss']:.4f} "
            f"(base rate {story['base_rate_log_loss']:.4f}), epoch {story['best_epoch']} of "
            f"{story['epochs'][-1]['epoch']}, {story['seconds']:.0f} s"
        )

    cli.run(train)


def train_fold(
    recipe: Recipe,
    fold: int,
    options: TrainingOptions,
    data: TrainingData,
    attempt: int = 1,
    *,
    program: Sequence[str] | None = None,
) -> Story:
    """Train one fold of `recipe` as `options` adapt it, write its files and return its story.

    Another `attempt` at a fold has other random numbers. Where one stalls (`hearback.guard`) it is
    given up and the next begins, `MOST_ATTEMPTS` in all; the story tells of each. `program` is what
    python has to run where that is not `train_<model>.py`. A training that was killed goes on from
    what it kept last, after an epoch or in the midst of one (`options.checkpoint_minutes`), in the
    attempt that it was at. Raises HearbackError where the fold, the backbone or the device is not
    there, another process trains this fold, or all of the attempts stalled.
    """
    recipe = options.adapt(recipe)
    if not 0 <= fold < options.n_folds:
        raise HearbackError(
            f"--fold {fold}: with --n_folds {options.n_folds} folds are 0 to {options.n_folds - 1}"
        )
    files = FoldFiles(options.assets, recipe.name, fold)
    numbers = range(attempt, attempt + MOST_ATTEMPTS)
    with checkpoint.only_trainer(files):
        identity = options.identity(recipe, data)
        under_way = checkpoint.attempts_under_way(files, identity)
        attempts = under_way or checkpoint.attempts_of_story(files, identity)
        stalled = [past["attempt"] for past in under_way if past["outcome"] == "stalled"]
        for number in numbers:
            if number in stalled:
                continue  # before this training was killed; it would again
            earlier = [past for past in attempts if past["attempt"] != number]
            training = FoldTraining(
                recipe, fold, options, data, number, program=program, earlier=earlier
            )
            story = training.run()
            if story is not None:
                return story
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
        """Return losses and norms as a story has them: four digits, None for what is not finite.

        The norm of a step that fp16's scaler skipped is not.
        """
        return {"gradient_norms": _for_json(self.norms), "losses": _for_json(self.losses)}


def _for_json(numbers: Sequence[float]) -> list[float | None]:
    return [significant(number) if math.isfinite(number) else None for number in numbers]


class FoldTraining:
    """The state of one fold's training, which is kept on disk now and then."""

    def __init__(
        self,
        recipe: Recipe,
        fold: int,
        options: TrainingOptions,
        data: TrainingData,
        attempt: int,
        *,
        program: Sequence[str] | None = None,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.recipe, self.fold, self.options, self.data = recipe, fold, options, data
        self.attempt, self.attempts = attempt, list(earlier)
        self.program = program or (f"train_{recipe.name}.py",)
        self.files = FoldFiles(options.assets, recipe.name, fold)
        self.identity = options.identity(recipe, data)
        self.partial_identity = {**self.identity, "attempt": attempt}
        self.device = choose_device(options.device)
        self.workers = default_workers(self.device) if options.workers is None else options.workers
        self.train_rows = np.flatnonzero(data.folds != fold)
        self.validation_rows = np.flatnonzero(data.folds == fold)

        backbone = backbones.resolve(recipe.backbone, options.assets)
        self.tokenizer = backbone / "tokenizer.json"
        self._seed(0)  # the head's first weights
        embedder = None
        if recipe.pair in WITH_TEXT_EMBEDDING and recipe.text_embedder is not None:
            embedder = TextEmbedder(backbones.resolve(recipe.text_embedder, options.assets))
        self.text_embedder = embedder and checkpoint.name_embedder(embedder, options.assets)
        self.model = build(recipe, backbones.read_config(backbone), self.tokenizer, embedder)
        self.model.load_pretrained(
            {part: backbones.read_tensors(backbone, part) for part in self.model.parts}
        )
        if recipe.warm_start is not None:
            self._load_encoder(FoldFiles(options.assets, recipe.warm_start, fold))
        self.model.to(self.device)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay))
            if recipe.average_decay
            else None
        )
        self.drawer = Drawer(recipe, data, self.train_rows)
        self.optimizer = make_optimizer(self.model, recipe)
        # bf16 has float32's range and needs no loss scaling.
        self.dtype = compute_dtype(self.device, options.precision)
        needs_scaling = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=needs_scaling)

        self.epoch = 0
        self.progress = EpochProgress()
        self.random_state: dict[str, torch.Tensor] = {}  # in mid-epoch, of a training that goes on
        self.kept_at = time.monotonic()
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self.best_predictions = Predictions(np.empty(0), None)
        if not self._resume():
            self._start()
        epochs = [self._dataset(epoch) for epoch in range(self.epoch, recipe.epochs)]
        self.coming = load_in_turn(epochs, self.workers)
        self.guard = self._make_guard()
        # One number of every parameter: it is cheap to ask whether any has changed.
        self.watched = [
            parameter.detach().view(-1)[parameter.numel() // 2 :][:1]
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]

    def _make_guard(self) -> StallGuard:
        """Return a guard that has seen the other folds, and the steps that were made before."""
        stories = checkpoint.stories_of_others(self.files, self.identity).values()
        curves = [Curve.of(story["epochs"]) for story in stories]
        guard = StallGuard([curve for curve in curves if curve is not None])
        guard.replay(self.history)
        for step in recorded(self.epoch + 1, self.progress.losses, self.progress.norms):
            guard.see(step)
        return guard

    def _load_encoder(self, files: FoldFiles) -> None:
        """Take over the encoder that another model trained on this very fold's training rows."""
        story = checkpoint.read_story(files)
        keys = ("n_folds", "group_by", "limit", "data_fingerprint")
        differing = [key for key in keys if story[key] != self.identity[key]]
        if story["recipe"]["backbone"] != self.recipe.backbone:
            differing.append("backbone")
        if differing:  # a validation row of this fold could have been in its training
            raise HearbackError(
                f"{files.story}: {self.recipe.name} cannot start from it, it was trained with "
                f"another {', '.join(differing)}; train {files.model} again first"
            )
        encoder = checkpoint.load_scorer(files, story).encoder
        self.model.encoder.load_state_dict(encoder.state_dict())

    def _start(self) -> None:
        """Begin with what the untrained backbone knows, where the model can: that is epoch 0."""
        if not self.recipe.starts:
            return
        started = time.monotonic()
        rng = np.random.default_rng((self.recipe.data_seed, self.attempt))
        rows = rng.permutation(self.train_rows)[:N_START]

        def measure(model: Scorer, batch: Batch) -> torch.Tensor:
            features = model.starting_features(batch)
            assert features is not None  # the recipe says that there is a start
            return features

        features = collect(
            self.model,
            self.data.source,
            rows,
            measure,
            device=self.device,
            dtype=self.dtype,
            n_workers=self.workers,
            progress=f"{self.recipe.name} fold {self.fold} start",
        )
        self.model.start_from(features, self.data.labels[rows])
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())
        record = self._validate({"epoch": 0, "train_seconds": round(time.monotonic() - started, 2)})
        tqdm.write(
            f"{self.recipe.name} fold {self.fold} start: "
            f"validation {record['validation_log_loss']:.4f}"
        )

    def _seed(self, stage: int) -> None:
        sequence = np.random.SeedSequence((self.recipe.seed, self.attempt, stage))
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    @property
    def judged(self) -> Scorer:
        """The model that is validated and kept: the weights' running average, if there is one."""
        return self.model if self.average is None else cast(Scorer, self.average.module)

    @property
    def best(self) -> dict[str, Any]:
        """The epoch with the lowest validation log loss."""
        return min(self.history, key=lambda epoch: epoch["validation_log_loss"])

    def run(self) -> Story | None:
        """Train to the end and return the story, or None where the attempt stalled."""
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
        n_draws, pairs = next(self.coming)
        self.model.train()
        name = f"{recipe.name} fold {self.fold} epoch {self.epoch + 1}/{recipe.epochs}"
        with tqdm(total=n_draws, initial=progress.n_heard, desc=name, unit="clip") as bar:
            batches = batched(
                pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds, fill=True
            )
            # What was heard before is loaded again: it decides how the batches are filled.
            batches = islice(batches, len(progress.losses), None)
            started, seconds_before = time.monotonic(), progress.seconds
            self._restore_random_state()
            for batch in batches:
                epochs_done = self.epoch + progress.n_heard / n_draws
                step = self._step(batch, learning_rate_factor(recipe, epochs_done))
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
            f"validation {record['validation_log_loss']:.4f}, "
            f"{n_draws / progress.seconds:.1f} clips/s, "
            f"{peak_memory_gb(self.device):.1f} GB at most"
        )

    def _validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Predict the validation rows, and keep the weights if they are the best so far.

        Completes and returns the epoch's `record`, which becomes part of the history.
        """
        started = time.monotonic()
        predictions = predict(
            self.judged,
            self.data.source,
            self.validation_rows,
            device=self.device,
            dtype=self.dtype,
            n_workers=self.workers,
        )
        labels = self.data.labels[self.validation_rows]
        record = {
            **record,
            "validation_log_loss": float(log_loss(labels, predictions.clips, labels=[0, 1])),
            "validation_seconds": round(time.monotonic() - started, 2),
        }
        self.history.append(record)
        if self.best is record:
            self.best_predictions = predictions
            self.best_weights = {
                name: tensor.to("cpu", torch.float16)
                for name, tensor in self.judged.state_dict().items()
            }
        return record

    def _dataset(self, epoch: int) -> PairDataset:
        """Return an epoch's pairs, the same whenever it is asked for."""
        recipe = self.recipe
        seeds = (recipe.data_seed, self.attempt, epoch)
        return PairDataset(
            self.data.source,
            self.drawer.draw(np.random.default_rng(seeds)),
            recipe.pair,
            reader=self.model.reader,
            embedder=self.model.embedder,
            augmentations=(recipe.augment_reference, recipe.augment_learner),
            seeds=seeds,
        )

    def _step(self, batch: Batch, factor: float) -> Step:
        """Take one step at `factor` times the peak learning rates; return what it showed."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self.device)
        with mixed_precision(self.device, self.dtype):
            logits, others = self.model.learn(batch)
        scale, before = self.scaler.get_scale(), torch.cat(self.watched)
        losses = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")
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
        broken = [] if math.isfinite(total) else batch.rows[~logits.isfinite()].tolist()
        can_move = factor >= LOWEST_SHARE_THAT_MOVES
        return Step(
            epoch=self.epoch + 1,
            loss=loss if math.isfinite(total) else total,
            gradient_norm=norm.item(),
            applied=self.scaler.get_scale() >= scale,  # it is lowered where a step is skipped
            moved=not torch.equal(before, torch.cat(self.watched)) if can_move else None,
            broken=tuple(self.data.source.filenames[row] for row in broken),
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
                **self.best_predictions.as_tensors(),
                **{f"random.{name}": state for name, state in self._random_state().items()},
            },
            {
                "identity": self.partial_identity,
                "attempts": self.attempts,
                "epoch": self.epoch,
                "progress": asdict(self.progress),
                "history": self.history,
                "scaler": self.scaler.state_dict(),
            },
        )
        self.kept_at = time.monotonic()

    def _random_state(self) -> dict[str, torch.Tensor]:
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

    def _average_state(self) -> dict[str, torch.Tensor]:
        return {} if self.average is None else self.average.state_dict()

    def _resume(self) -> bool:
        kept = checkpoint.load_partial(self.files.partial, self.partial_identity)
        if kept is None:
            return False
        tensors, notes = kept
        if "epoch" not in notes:  # the last attempt was given up, this one has not begun
            return False

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        checkpoint.load_optimizer_tensors(self.optimizer, part("optimizer."))
        if self.average is not None:
            self.average.load_state_dict(part("average."))
        self.scaler.load_state_dict(notes["scaler"])
        self.best_weights = part("best.")
        self.best_predictions = Predictions.from_tensors(tensors)
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
            "identity": {**self.identity, "attempt": self.attempt + 1},
            "attempts": self.attempts,
        }
        checkpoint.save_partial(self.files.partial, {}, notes)
        tqdm.write(f"{self.recipe.name} fold {self.fold}: attempt {self.attempt} stalled: {reason}")

    def _describe_attempt(self, outcome: str, reason: str | None) -> dict[str, Any]:
        """Return the attempt as a story has it: how it ended, where and why."""
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

    def finish(self) -> Story:
        """Write the best epoch's weights and predictions, and the story; return the story."""
        rows, data = self.validation_rows, self.data
        base_rate = float(data.labels[self.train_rows].mean())
        story: Story = {
            **self.identity,
            "model": self.recipe.name,
            "fold": self.fold,
            "attempt": self.attempt,
            "base_rate": base_rate,
            "attempts": [*self.attempts, self._describe_attempt("finished", None)],
            "command_again": shlex.join(
                [
                    *("python", *self.program, "--fold", str(self.fold)),
                    *self.options.as_flags(),
                    *("--attempt", str(self.attempt + 1)),
                ]
            ),
            "epochs": self.history,
            "best_epoch": self.best["epoch"],
            "log_loss": self.best["validation_log_loss"],
            "base_rate_log_loss": float(
                log_loss(data.labels[rows], np.full(len(rows), base_rate), labels=[0, 1])
            ),
            "n_train": len(self.train_rows),
            "n_validation": len(rows),
            "seconds": round(self._seconds_of_history(), 2),
            "voice": data.source.references.voice,
            "shape": self.model.shape(),
            "tokenizer": (
                checkpoint.keep_tokenizer(self.tokenizer, self.files.assets)
                if self.model.reader
                else None
            ),
            "text_embedder": self.text_embedder,
            "device": device_name(self.device),
            "peak_memory_gb": round(peak_memory_gb(self.device), 2),
            "precision": str(self.dtype).removeprefix("torch."),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in PACKAGES},
            },
        }
        predictions = self.best_predictions
        filenames = [data.source.filenames[row] for row in rows]
        oof = pd.DataFrame(
            {"filename": filenames, "score": data.labels[rows], "pred": predictions.clips}
        )
        words = None
        if predictions.words is not None:
            texts = [data.source.texts[row] for row in rows]
            words = to_table(filenames, texts, predictions.words)
        checkpoint.save_fold(self.files, self.best_weights, oof, story, words)
        return story


def learning_rate_factor(recipe: Recipe, epochs_done: float) -> float:
    """Return the share of the peak learning rate after `epochs_done` epochs.

    A linear warm-up, then a cosine of `cycles` periods over `schedule_epochs`: 0.5 ends at zero,
    0.25 at a half (`transformers.get_cosine_schedule_with_warmup`'s `num_cycles`).
    """
    progress = epochs_done / recipe.schedule_epochs
    if progress < recipe.warmup_share:
        # Never zero: the first step would be lost.
        return max(progress / recipe.warmup_share, 0.01)
    after = (progress - recipe.warmup_share) / (1 - recipe.warmup_share)
    return 0.5 * (1 + math.cos(2 * math.pi * recipe.cycles * after))


def make_optimizer(model: Scorer, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over what is not frozen; the head may have a learning rate of its own."""
    backbone = model.backbone_parameters()
    known = set(map(id, backbone))
    head = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    head_rate = recipe.head_learning_rate
    groups = []
    for parameters, rate in ((backbone, None), (head, head_rate)):
        peak = recipe.learning_rate if rate is None else rate
        groups.append({"params": parameters, "lr": peak, "peak_lr": peak})
    return torch.optim.AdamW(
        groups,
        betas=recipe.adam_betas,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def default_workers(device: torch.device) -> int:
    """Return how many processes load and augment: none on a CPU, whose cores the model wants."""
    return min(8, torch.get_num_threads()) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held so far, on the device, in GB (10⁹ bytes).

    On a CPU that is the process's resident set; NaN on Windows, which does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return float("nan")
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
