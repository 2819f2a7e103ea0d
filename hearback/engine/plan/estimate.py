"""A model's plan: its measured speed, extrapolated to whole folds."""

import gc
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from hearback.engine.devices import peak_memory_gb
from hearback.engine.plan.measure import Speed, measure, measure_loading, step_seconds
from hearback.engine.plan.memory import FoldBytes, fold_bytes, free_bytes
from hearback.engine.plan.workload import MakeWorkload, Pass, Workload
from hearback.engine.training.options import FoldOptions
from hearback.engine.training.recipe import FoldRecipe
from hearback.engine.training.task import FoldRun, Model
from hearback.engine.training.trainer import Trainer

SECONDS = 20.0  # of timing, for one model; with what precedes it, about half a minute
SECONDS_OF_SEVERAL = 10.0  # for each kind of several models
_SHARE_OF_TRAINING = 0.6
_SHARE_OF_LOADING = 0.1
CONTEXT_BYTES = 0.5e9  # what CUDA takes in each process
LIBRARY_BYTES = 0.3e9  # of the main memory: what torch takes with its first step


@dataclass(frozen=True)
class Request:
    """A model and its folds to train.

    `recipe` is the result of `options.adapt`; reading the data took `data_seconds`.
    """

    recipe: FoldRecipe
    options: FoldOptions
    folds: Sequence[int]
    data: Any
    data_seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a pass takes, all its repetitions together."""

    name: str
    seconds: float
    flops: float
    shared: bool


@dataclass(frozen=True)
class ModelPlan:
    """What the training of a model's folds takes.

    Attributes:
        name: the model.
        n_folds: number of folds to train.
        passes: of a fold, and those that all folds share.
        start_seconds: reading the data and building the model, once a fold.
        files: parameters, state and files of a fold.
        activations: peak bytes of the largest training batch.
        base: bytes of the main memory that the process has without a model.
        free: bytes of the device's memory that were free before the first model was built; None
            where that is unknown.
        shared_bytes: that are written for all folds, besides the backbone's.
        mapped_bytes: that a fold reads from files that it maps into the main memory. Folds share
            one copy, and the kernel takes it back where memory is short; a process's peak memory
            includes it.
        speed: of the training, or of the validation if nothing is trained.
        device: what it was measured on.
        measured_as: the model whose speed and activations this one has, if not its own.
    """

    name: str
    n_folds: int
    passes: Sequence[Estimate]
    start_seconds: float
    files: FoldBytes
    activations: float
    base: float
    free: float | None
    shared_bytes: int
    mapped_bytes: float
    speed: Speed
    device: torch.device
    measured_as: str | None = None

    @property
    def fold_seconds(self) -> float:
        """The seconds of a fold, without what all folds share."""
        return self.start_seconds + sum(each.seconds for each in self.passes if not each.shared)

    @property
    def seconds(self) -> float:
        """The seconds of all folds, one after the other."""
        shared = sum(each.seconds for each in self.passes if each.shared)
        return self.n_folds * self.fold_seconds + shared

    @property
    def fold_flops(self) -> float:
        """The operations of a fold, without what all folds share."""
        return sum(each.flops for each in self.passes if not each.shared)

    @property
    def flops(self) -> float:
        """The operations of all folds."""
        return self.n_folds * self.fold_flops + sum(p.flops for p in self.passes if p.shared)

    @property
    def device_bytes(self) -> float:
        """The peak memory of a fold on its device, without mapped files."""
        files = self.files
        if self.device.type != "cpu":
            return files.state + self.activations + CONTEXT_BYTES
        # A checkpoint is copied to be written, and the copies' memory is kept, too.
        own = self.base + LIBRARY_BYTES + files.best + 2 * files.checkpoint
        return own + files.state + self.activations


def plan_models(requests: Iterable[Request], make_workload: MakeWorkload) -> Iterator[ModelPlan]:
    """Yield the plans of models; all are built, and of those of one kind one is measured."""
    by_kind: dict[Hashable, list[tuple[Request, Workload]]] = {}
    for request in requests:
        workload = _workload(request, make_workload)
        by_kind.setdefault(workload.kind, []).append((request, workload))
    seconds = SECONDS if len(by_kind) == 1 else SECONDS_OF_SEVERAL
    before = _Before.read([each for kind in by_kind.values() for _, each in kind])
    for kind in by_kind.values():
        yield from _plan_kind(kind, seconds, before)


@dataclass(frozen=True)
class _Before:
    """The memory before the first model, as `ModelPlan`'s: the measurements take some of it."""

    base: float
    free: float | None

    @classmethod
    def read(cls, workloads: Sequence[Workload]) -> "_Before":
        free = free_bytes(workloads[0].run.device) if workloads else None
        return cls(1e9 * peak_memory_gb(torch.device("cpu")), free)


def _workload(request: Request, make_workload: MakeWorkload) -> Workload:
    fold = min(request.folds, default=0)
    run: FoldRun[Any, Any, Any] = FoldRun(request.recipe, fold, request.options, request.data)
    return make_workload(run, request.folds)


def _plan_kind(
    members: Sequence[tuple[Request, Workload]], seconds: float, before: _Before
) -> Iterator[ModelPlan]:
    """Yield the plans of models of one kind, of which the one that trains longest is measured."""
    _, first = max(members, key=lambda each: each[0].recipe.epochs)
    # One after the other, so that the memory holds one model.
    sizes = {workload: _count(workload) for _, workload in members if workload is not first}
    trainer, build_seconds = _build(first)
    # Before a step changes the model.
    passes = {workload: _open_passes(workload, trainer.model) for _, workload in members}
    measured = _one_of_each([passes[first], *passes.values()])
    speeds = {
        each.name: measure(trainer, each, share * seconds)
        for each, share in zip(measured, _shares(measured), strict=True)
    }
    sizes[first] = fold_bytes(trainer), build_seconds
    for request, workload in members:
        own, name = passes[workload], workload.run.recipe.name
        files, build_seconds = sizes[workload]
        yield ModelPlan(
            name=name,
            n_folds=len(workload.folds),
            passes=[_estimate(each, speeds[each.name], trainer, seconds) for each in own],
            start_seconds=request.data_seconds + build_seconds,
            files=files,
            activations=max((_activations(p, speeds[p.name], trainer) for p in own), default=0.0),
            base=before.base,
            free=before.free,
            shared_bytes=workload.shared_bytes(trainer.model),
            mapped_bytes=workload.mapped_bytes(trainer.model),
            speed=speeds[own[0].name],
            device=trainer.run.device,
            measured_as=None if workload is first else first.run.recipe.name,
        )


def _build(workload: Workload) -> tuple[Trainer, float]:
    """Return the trainer of a fold, and the seconds that building its model took."""
    started = time.monotonic()
    trainer = Trainer(workload.task, workload.run, callbacks=[])
    return trainer, time.monotonic() - started


def _count(workload: Workload) -> tuple[FoldBytes, float]:
    """Return what a fold takes, and the seconds that building its model took; release the model."""
    trainer, seconds = _build(workload)
    step_seconds(trainer)  # the optimizer has no state before its first step
    files = fold_bytes(trainer)
    del trainer
    gc.collect()  # with --gradient_checkpointing, layers refer to themselves
    return files, seconds


def _open_passes(workload: Workload, model: Model) -> list[Pass]:
    """Return the passes in which something is left to compute."""
    return [each for each in workload.passes(model) if each.n_times and each.batches]


def _one_of_each(of_models: Iterable[Sequence[Pass]]) -> list[Pass]:
    """Return the first pass of each name."""
    by_name: dict[str, Pass] = {}
    for each in chain.from_iterable(of_models):
        by_name.setdefault(each.name, each)
    return list(by_name.values())


def _shares(passes: Sequence[Pass]) -> list[float]:
    """Return the share of the measuring time of each pass."""
    n_others = sum(each.compute is not None for each in passes)
    trains = n_others < len(passes)
    others = 1 - _SHARE_OF_LOADING - _SHARE_OF_TRAINING * trains
    return [_SHARE_OF_TRAINING if each.compute is None else others / n_others for each in passes]


def _estimate(each: Pass, speed: Speed, trainer: Trainer, seconds: float) -> Estimate:
    """Return what a pass takes; a GPU computes while other processes load the next batches."""
    computing = each.cost * speed.seconds + len(each.batches) * speed.step_seconds
    loading = each.n_examples * measure_loading(each, _SHARE_OF_LOADING * seconds)
    workers = trainer.run.n_workers
    both = max(computing, loading / workers) if workers else computing + loading
    flops = each.n_times * each.cost * speed.flops
    return Estimate(each.name, each.n_times * both, flops, each.shared)


def _activations(each: Pass, speed: Speed, trainer: Trainer) -> float:
    """Return the bytes that the largest batch of a pass keeps, or a part with --micro_batch."""
    if each.compute is not None:
        return 0.0
    micro_batch = trainer.run.options.micro_batch
    largest = max(batch.size_at_once(micro_batch) for batch in each.batches)
    return speed.overhead * (largest * speed.activations + speed.step_bytes)
