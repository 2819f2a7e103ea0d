"""The Trainer on the toy competition: construction, the loop, callbacks and resuming."""

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.synchronize import Event as EventOfProcesses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hearback.engine.errors import HearbackError
from hearback.engine.training.callbacks import Callback, Checkpoints, StallDetection
from hearback.engine.training.command import train_fold
from hearback.engine.training.fold_files import FoldFiles, lock_fold, read_fold_metadata
from hearback.engine.training.stall_detector import StallError, Step
from hearback.engine.training.task import Evaluation, FoldRun, Task
from hearback.engine.training.trainer import Trainer
from tests.engine.toy_competition import RECIPES, ToyOptions, ToyTask
from tests.engine.toy_data import write_toy_data

RECIPE = replace(RECIPES["small"], epochs=3)


@pytest.fixture
def options(tmp_path: Path) -> ToyOptions:
    return write_toy_data(tmp_path, n_folds=2)


def make_run(options: ToyOptions, recipe: Any = RECIPE, **fields: Any) -> FoldRun:
    return FoldRun(recipe, fields.pop("fold", 0), options, options.load_data(), **fields)


class Recorder(Callback):
    """Records the names of the calls; interrupts at step `kill_at`."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.calls: list[str] = []
        self.kill_at = kill_at

    def on_start(self, trainer: Trainer) -> None:
        self.calls.append("start")

    def on_epoch_start(self, trainer: Trainer, n_examples: int) -> None:
        self.calls.append(f"epoch of {n_examples}")

    def on_step(self, trainer: Trainer, step: Step) -> None:
        self.calls.append("step")
        if self.calls.count("step") == self.kill_at:
            raise KeyboardInterrupt

    def on_epoch_end(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self.calls.append(f"end of {record['epoch']}")

    def close(self) -> None:
        self.calls.append("close")


def test_constructing_a_trainer_trains_nothing(options: ToyOptions) -> None:
    run, recorder = make_run(options), Recorder()
    first = Trainer(ToyTask(run), run, [recorder])
    torch.manual_seed(5)
    second = Trainer(ToyTask(run), run)
    assert first.state.history == [] and recorder.calls == []
    assert not options.assets.exists() and not options.runs.exists()
    for name, weight in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], weight, atol=0, rtol=0)


def test_callbacks_follow_the_loop(options: ToyOptions) -> None:
    run, recorder = make_run(options), Recorder()
    Trainer(ToyTask(run), run, [recorder]).fit()
    n_steps = -(-len(run.train_rows) // RECIPE.batch_size)
    expected = ["start"]
    for epoch in (1, 2, 3):
        expected += [f"epoch of {len(run.train_rows)}", *["step"] * n_steps, f"end of {epoch}"]
    assert recorder.calls == [*expected, "close"]
    assert not run.files.checkpoint.exists()  # without the callback that saves it


@pytest.mark.parametrize("changes", [{}, {"average_decay": 0.5}])
@pytest.mark.parametrize("kill_at", [1, 3, 5])  # of 2 steps per epoch
def test_resumed_training_is_bit_exact(
    options: ToyOptions, changes: dict[str, Any], kill_at: int
) -> None:
    run = make_run(options, replace(RECIPE, **changes))
    expected = Trainer(ToyTask(run), run, [])
    expected.fit()
    callbacks = [Checkpoints(minutes=0), Recorder(kill_at)]
    with pytest.raises(KeyboardInterrupt):
        Trainer(ToyTask(run), run, callbacks).fit()
    torch.manual_seed(kill_at)  # another process starts with other random numbers
    recorder = Recorder()
    resumed = Trainer(ToyTask(run), run, [recorder])
    resumed.fit()
    assert recorder.calls.count("step") == 3 * 2 - kill_at
    for name, weight in expected.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight)
    for name, weight in expected.state.best_weights.items():
        assert torch.equal(resumed.state.best_weights[name], weight)
    losses = [
        [epoch["validation_log_loss"] for epoch in trainer.state.history]
        for trainer in (expected, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_checkpoint_of_another_attempt_is_ignored(options: ToyOptions) -> None:
    run = make_run(options)
    with pytest.raises(KeyboardInterrupt):
        Trainer(ToyTask(run), run, [Checkpoints(minutes=0), Recorder(kill_at=3)]).fit()
    other = replace(run, attempt=2)
    recorder = Recorder()
    Trainer(ToyTask(other), other, [recorder]).fit()
    assert recorder.calls.count("step") == 6


def test_stalled_step_reaches_no_checkpoint(options: ToyOptions) -> None:
    class NanTask(ToyTask):
        def compute_loss(self, logits: torch.Tensor, batch: Any) -> torch.Tensor:
            return super().compute_loss(logits, batch) * torch.nan

    run = make_run(options)
    callbacks = [StallDetection(), Checkpoints(minutes=0)]
    with pytest.raises(StallError, match="epoch 1, step 1: the loss is nan"):
        Trainer(NanTask(run), run, callbacks).fit()
    assert not run.files.checkpoint.exists()


def test_evaluation_is_in_eval_mode_without_gradients(options: ToyOptions) -> None:
    class PlainTask(ToyTask):
        def evaluate(self, model: nn.Module) -> Evaluation:
            assert not model.training and not torch.is_grad_enabled()
            return super().evaluate(model)

    class ModeChecker(Callback):
        def on_step(self, trainer: Trainer, step: Step) -> None:
            assert trainer.model.training

    run = make_run(options)
    Trainer(PlainTask(run), run, [ModeChecker()]).fit()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_best_or_last_epoch_is_saved(options: ToyOptions, keep: str) -> None:
    losses = iter([1.0, 0.5, 0.75])

    class FixedLossTask(ToyTask):
        def evaluate(self, model: nn.Module) -> Evaluation:
            metrics = {"validation_log_loss": next(losses)}
            return replace(super().evaluate(model), metrics=metrics)

    recipe = replace(RECIPE)
    object.__setattr__(recipe, "keep", keep)
    run = make_run(options, recipe)
    trainer = Trainer(FixedLossTask(run), run, [])
    trainer.fit()
    assert trainer.state.best(keep)["epoch"] == {"best": 2, "last": 3}[keep]
    weights = trainer.state.best_weights["0.weight"]
    final = trainer.model.state_dict()["0.weight"].half()
    assert torch.equal(weights, final) == (keep == "last")


def test_fold_is_trained_and_saved(options: ToyOptions) -> None:
    metadata = train_fold(ToyTask, RECIPE, 1, options, options.load_data(), program=("x.py",))
    run = make_run(options, fold=1)
    saved = read_fold_metadata(run.files)
    assert {**saved, "sha256": None} == {**metadata, "sha256": None}
    assert metadata["retrain_command"].startswith("python x.py --fold 1 ")
    assert set(saved["sha256"]) == {"weights", "oof"}


def test_fold_is_locked_during_training(options: ToyOptions) -> None:
    files, processes = make_run(options).files, multiprocessing.get_context("spawn")
    started = processes.Event()
    holder = processes.Process(target=hold, args=(files, started))
    holder.start()

    def train() -> Any:
        return train_fold(ToyTask, RECIPE, 0, options, options.load_data(), program=("x.py",))

    try:
        assert started.wait(60)
        with pytest.raises(HearbackError, match=f"another process trains {RECIPE.name} fold 0"):
            train()
        assert not files.metadata.exists()
    finally:
        holder.kill()  # the system frees its lock
        holder.join()
    assert train()["fold"] == 0


def hold(files: FoldFiles, started: EventOfProcesses) -> None:
    with lock_fold(files):
        started.set()
        time.sleep(600)


def test_parameter_groups_need_a_peak_rate(options: ToyOptions) -> None:
    class NoPeakTask(ToyTask):
        def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=0.1)

    run = make_run(options)
    with pytest.raises(HearbackError, match="has no peak_lr"):
        Trainer(NoPeakTask(run), run)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fold": 2}, "folds are 0 to 1"),
        ({"fold": -1}, "--fold -1"),
        ({"attempt": 0}, "at least 1"),
    ],
)
def test_runs_out_of_range_are_errors(
    options: ToyOptions, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        make_run(options, **fields)


def test_incomplete_task_is_an_error() -> None:
    class IncompleteTask(Task):
        def build_model(self) -> nn.Module:
            return nn.Linear(1, 1)

    with pytest.raises(TypeError, match="epoch_batches"):
        IncompleteTask()  # type: ignore[abstract]
