"""Operations are counted, and a pass's time is extrapolated from the batches that were timed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hearback.engine.devices import device_name
from hearback.engine.errors import HearbackError
from hearback.engine.plan import estimate, measure
from hearback.engine.plan.estimate import Request, plan_models
from hearback.engine.plan.flops import counted
from hearback.engine.plan.gpus import ASSUMED_SHARE, PEAKS, computed_seconds
from hearback.engine.plan.measure import Speed
from hearback.engine.plan.memory import fold_bytes, saved_tensors
from hearback.engine.plan.show import _beside_each_other, duration, show, size
from hearback.engine.plan.workload import BatchSize, Pass, Workload
from hearback.engine.training.command import train_fold
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from tests.engine.toy_competition import RECIPES, ToyOptions, ToyRecipe, ToyTask
from tests.engine.toy_data import write_toy_data
from tests.helpers import written

RECIPE = replace(RECIPES["small"], epochs=3, average_decay=0.9)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "SECONDS", 0.05)
    monkeypatch.setattr(estimate, "SECONDS_OF_SEVERAL", 0.05)


@pytest.fixture
def options(tmp_path: Path) -> ToyOptions:
    return write_toy_data(tmp_path, n_folds=2)


def make_workload(run: FoldRun, folds: Any) -> Workload:
    return Workload(ToyTask, run, folds)


def make_trainer(options: ToyOptions, recipe: ToyRecipe = RECIPE) -> Trainer:
    run: FoldRun = FoldRun(recipe, 0, options, options.load_data())
    return Trainer(ToyTask(run), run, callbacks=[])


def test_operations_are_counted_forward_and_backward() -> None:
    layer, x = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    with counted() as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 3 * 5 * 7  # the output, and two gradients


@pytest.mark.parametrize("trains", [False, True])
def test_the_attention_of_cpus_is_counted(trains: bool) -> None:
    query, key, value = (torch.randn(1, 2, 6, 8, requires_grad=trains) for _ in range(3))
    with counted() as counter:
        attended = F.scaled_dot_product_attention(query, key, value)
        if trains:
            attended.sum().backward()
    forward = 2 * 2 * 2 * 6 * 6 * 8
    # The backward pass computes the products of queries and keys again.
    assert counter.get_total_flops() == forward + trains * 2.5 * forward


def test_what_is_kept_for_the_backward_pass_is_counted_once() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.randn(10, 4)
    with saved_tensors(model) as saved:
        model(x)
    assert saved.n_bytes == 4 * (40 + 40)  # the input and the rectified; no weights


def test_the_files_of_a_fold_have_the_planned_sizes(options: ToyOptions) -> None:
    trainer = make_trainer(options)
    measure.train_step(trainer, next(next(trainer.task.epoch_batches(None, range(1)))[1]))
    planned = fold_bytes(trainer)
    n = planned.n_parameters
    assert n == planned.n_trained == sum(p.numel() for p in trainer.model.parameters())
    trainer.save_checkpoint()
    written = trainer.run.files.checkpoint.stat().st_size
    assert planned.checkpoint <= written + planned.best  # no epoch has ended: no best weights
    data = options.load_data()
    train_fold(ToyTask, RECIPE, 0, options, data, program=("x",))
    weights = FoldFiles(options.assets, RECIPE.name, 0).weights.stat().st_size
    assert planned.weights == 2 * n < weights < planned.weights + 1000  # names and shapes


def test_a_plan_of_a_model_writes_nothing(options: ToyOptions) -> None:
    before = written(options.data.parent)
    request = Request(RECIPE, options, [0, 1], options.load_data(), data_seconds=2.0)
    (plan,) = plan_models([request], make_workload)
    assert written(options.data.parent) == before
    n_train = len(request.data.training_rows(0))
    flops = {each.name: each.flops for each in plan.passes}
    per_example = 3 * 2 * (2 * 8 + 8) - 2 * 2 * 8  # the first layer's input needs no gradient
    assert flops["training"] == pytest.approx(RECIPE.epochs * n_train * per_example)
    assert plan.n_folds == 2 and plan.seconds == pytest.approx(2 * plan.fold_seconds)
    assert plan.fold_seconds > 2.0
    text = show([plan], n_jobs=2)
    assert "nothing was trained" in text and "small" in text and "with --jobs 2" in text


def test_models_of_one_kind_are_measured_once(
    options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workload, "kind", property(lambda _: "all"))
    data = options.load_data()
    longer = replace(RECIPE, name="longer", epochs=6)
    requests = [Request(each, options, [0], data, 0.0) for each in (RECIPE, longer)]
    short, long = plan_models(requests, make_workload)
    assert short.measured_as == "longer" and long.measured_as is None
    assert 2 * short.passes[0].flops == pytest.approx(long.passes[0].flops)
    assert "as longer" in show([short, long], n_jobs=1)


def test_models_of_one_kind_have_their_own_sizes(
    options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = options.load_data()
    wide = replace(RECIPE, name="wide", hidden=64, epochs=6)
    requests = [Request(each, options, [0], data, 0.0) for each in (RECIPE, wide)]
    alone = [plan.files for plan in plan_models(requests, make_workload)]
    monkeypatch.setattr(Workload, "kind", property(lambda _: "all"))
    small, large = plan_models(requests, make_workload)
    assert small.measured_as == "wide"
    assert [small.files, large.files] == alone
    assert small.files.n_trained == 4 * 8 + 1 and large.files.n_trained == 4 * 64 + 1
    assert small.files.weights < large.files.weights
    assert small.files.checkpoint < large.files.checkpoint
    assert large.device_bytes - small.device_bytes > large.files.state - small.files.state > 0


def test_what_fits_side_by_side(options: ToyOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(RECIPE, options, [0], options.load_data(), data_seconds=0.0)
    (plan,) = plan_models([request], make_workload)
    assert plan.free is None or plan.free > 0
    monkeypatch.setattr("hearback.engine.plan.show.count_processors", lambda: 4)

    def line(free: float, device: str = "cpu") -> str:
        fitting = replace(plan, free=free, device=torch.device(device))
        lines = _beside_each_other([fitting], fitting.device)
        return next(iter(lines))

    assert line(3.5 * plan.device_bytes).endswith("3 side by side, and 4 processors: --jobs 3")
    assert line(9.5 * plan.device_bytes).endswith("9 side by side, and 4 processors: --jobs 4")
    assert line(0.5 * plan.device_bytes).endswith(
        "it does not fit. Use --micro_batch or --gradient_checkpointing"
    )
    assert "side by side" not in line(0.5 * plan.device_bytes)
    assert "it does not fit" in line(0.0, "cuda")


def test_the_free_memory_is_read_before_the_first_model(
    options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def free_bytes(device: torch.device) -> float:
        order.append(device.type)
        return 5e9

    class Noted(ToyTask):
        def build_model(self) -> nn.Module:
            order.append("model")
            return super().build_model()

    monkeypatch.setattr(estimate, "free_bytes", free_bytes)
    request = Request(RECIPE, options, [0], options.load_data(), data_seconds=0.0)
    (plan,) = plan_models([request], partial(Workload, Noted))
    assert order[:2] == ["cpu", "model"] and plan.free == 5e9


def test_other_gpus_are_never_promised_seconds(options: ToyOptions) -> None:
    request = Request(RECIPE, options, [0], options.load_data(), data_seconds=0.0)
    text = show(list(plan_models([request], make_workload)), n_jobs=1)
    assert "RTX 4090 under 1 min, A100 under 1 min" in text and "many small operations" in text
    assert "FLOPs a fold" in text
    assert "floating point operations of the fold\n" in text


def test_one_thread_is_not_several(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for n in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)
        names.append(device_name(torch.device("cpu")))
    assert names == ["CPU, 1 thread", "CPU, 2 threads"]


def test_a_pass_that_only_another_model_of_the_kind_has_is_measured(
    options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = replace(RECIPE, name="longer", epochs=6)

    class Sharing(Workload):
        kind = "all"

        def passes(self, model: Any) -> list[Pass]:
            training, validation = super().passes(model)
            shared = replace(validation, name="initialization", n_times=1, shared=True)
            is_done = self.run.recipe.name == "longer"
            return [training, validation, *([] if is_done else [shared])]

        def mapped_bytes(self, model: Any) -> float:
            return 3e9 * self.run.recipe.epochs

    data = options.load_data()
    requests = [Request(each, options, [0], data, 0.0) for each in (RECIPE, longer)]
    plans = list(plan_models(requests, partial(Sharing, ToyTask)))
    names = [[each.name for each in plan.passes] for plan in plans]
    assert names == [["training", "validation", "initialization"], ["training", "validation"]]
    plans = [replace(plan, free=32e9) for plan in plans]
    text = show(plans, n_jobs=1)
    assert "operations of all folds, with the initialization\n" in text
    assert "of small, 0 s are its initialization, which the store lacks: once for all" in text
    assert "9 GB" in text and "Mapped files: 18 GB, read by a fold of longer" in text
    assert "takes it back where memory is short" in text
    assert all(plan.device_bytes < 9e9 for plan in plans)  # no part of it
    plans = [replace(plan, free=16e9) for plan in plans]
    assert "it does not fit, so the system reads parts" in show(plans, n_jobs=1)


def test_a_measured_batch_that_does_not_fit_is_made_smaller(options: ToyOptions) -> None:
    computed = []

    def compute(n_examples: int) -> None:
        if n_examples > 4:
            raise torch.cuda.OutOfMemoryError("out of memory")
        computed.append(n_examples)

    sizes = [BatchSize(16, 16.0, 16.0)] * 3
    each = Pass("validation", 1, sizes, lambda _, n: (n, BatchSize(n, n, n)), compute)
    measure.measure(make_trainer(options), each, seconds=0.01)
    assert computed[:2] == [1, 2] and set(computed[2:]) <= {1, 2, 3, 4}

    def never(n_examples: int) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory")

    timer = measure._Timer(make_trainer(options), replace(each, compute=never), never)
    with pytest.raises(HearbackError, match="not even one example fits"):
        timer.call_fitting(0, 16)


def test_time_is_proportional_to_cost_but_for_the_optimizer(options: ToyOptions) -> None:
    trainer = make_trainer(options)
    sizes = [BatchSize(16, 10.0, 1.0), BatchSize(16, 30.0, 3.0)]
    each = Pass("training", 2, sizes, lambda _, n: (None, BatchSize(n, n, n)), is_loaded=False)
    speed = Speed(
        seconds=0.1, flops=5.0, step_seconds=1.0, activations=7.0, step_bytes=2.0, overhead=2.0
    )
    estimated = estimate._estimate(each, speed, trainer, seconds=1.0)
    assert estimated.seconds == pytest.approx(2 * (40 * 0.1 + 2 * 1.0))
    assert estimated.flops == 2 * 40 * 5
    assert estimate._activations(each, speed, trainer) == 2 * (3 * 7 + 2)
    micro = replace(trainer.run.options, micro_batch=4)
    trainer.run = replace(trainer.run, options=micro)
    assert estimate._activations(each, speed, trainer) == 2 * (3 * 7 / 4 + 2)


def test_parts_of_a_batch_do_not_change_what_an_example_keeps(
    options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def overhead(_trainer: Trainer, kept_at_once: float) -> float:
        kept.append(kept_at_once)
        return 1.0

    monkeypatch.setattr(measure, "_overhead", overhead)
    wide = replace(RECIPE, hidden=1 << 16)
    speeds, at_once = [], []
    for micro_batch in (1, 2, None):
        in_parts = replace(options, micro_batch=micro_batch, precision="bfloat16")
        trainer = make_trainer(in_parts, wide)
        training = make_workload(trainer.run, [0]).passes(trainer.model)[0]
        splits = trainer.micro_batches
        speeds.append(measure.measure(trainer, training, seconds=0.05))
        assert trainer.micro_batches is splits
        at_once.append(estimate._activations(training, speeds[-1], trainer))
    each_keeps = 2 * wide.hidden  # the hidden units in bf16, and next to them little else
    assert [each.activations for each in speeds] == pytest.approx([each_keeps] * 3, rel=0.05)
    # The peak of the timed steps is compared with what they computed at once.
    assert kept[0] == pytest.approx(at_once[0])
    assert at_once[0] < at_once[1] < at_once[2]


def test_nothing_is_counted_in_timed_batches(
    options: ToyOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting takes time: two small batches are enough for the memory, one for the operations."""
    computed: list[int] = []
    in_counting: dict[str, list[int]] = {"counted": [], "saved_tensors": []}

    def noted(name: str, counting: Callable[..., Any], *arguments: Any) -> Any:
        in_counting[name].append(len(computed))
        return counting(*arguments)

    for name in in_counting:
        monkeypatch.setattr(measure, name, partial(noted, name, getattr(measure, name)))
    train_step = measure.train_step

    def step(trainer: Trainer, batch: Any) -> None:
        computed.append(len(batch))
        train_step(trainer, batch)

    monkeypatch.setattr(measure, "train_step", step)
    trainer = make_trainer(options)
    training = make_workload(trainer.run, [0]).passes(trainer.model)[0]
    assert measure.measure(trainer, training, seconds=0.05).activations > 0
    assert computed[:2] == [1, 2] and len(computed) >= 3 + measure.MIN_TIMED
    assert in_counting == {"counted": [2], "saved_tensors": [0, 1]}


def test_the_size_that_is_computed_at_once() -> None:
    batch = BatchSize(16, cost=1.0, size=32.0)
    sizes = [batch.size_at_once(micro_batch) for micro_batch in (1, 4, 16, 64, None)]
    assert sizes == [2.0, 8.0, 32.0, 32.0, 32.0]


def test_durations_and_sizes_have_units() -> None:
    assert [duration(each) for each in (5, 150, 600, 7200)] == ["5 s", "2.5 min", "10 min", "2.0 h"]
    assert [size(each) for each in (2.5e6, 1.234e9)] == ["2.5 MB", "1.23 GB"]
    assert computed_seconds(PEAKS["A100"])["A100"] == pytest.approx(1 / ASSUMED_SHARE)
