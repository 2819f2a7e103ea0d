"""--micro_batch, --gradient_checkpointing and what they do in little memory, on the toy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hearback.engine.data.batching import Items, Tensors
from hearback.engine.errors import HearbackError
from hearback.engine.training.memory import recompute_layers
from hearback.engine.training.micro_batches import MicroBatches
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from tests.engine.toy_competition import RECIPES, PointBatch, ToyOptions, ToyTask
from tests.engine.toy_data import write_toy_data

CPU = torch.device("cpu")


@pytest.fixture
def options(tmp_path: Path) -> ToyOptions:
    return write_toy_data(tmp_path, n_folds=2)


class Layers(nn.Module):
    """A toy model of repeated layers with dropout."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Linear(2, 8)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(dropout)) for _ in range(3)
        )
        self.last = nn.Linear(8, 1)

    def forward(self, xy: Tensor) -> Tensor:
        """Map (batch, 2) to (batch, 1)."""
        x = self.first(xy)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


class LayersTask(ToyTask):
    """The toy competition with `Layers`."""

    def build_model(self) -> nn.Module:
        return Layers()


class NormalisedTask(ToyTask):
    """The toy competition with batch normalisation."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))


def make_trainer(options: ToyOptions, task: type[ToyTask] = LayersTask, **flags: Any) -> Trainer:
    """Return a trainer of small batches, whose gradients are not clipped."""
    options = replace(options, **{"precision": "float32", **flags})
    recipe = replace(RECIPES["small"], batch_size=16, max_gradient_norm=1e9)
    run: FoldRun[Any, Any, Any] = FoldRun(recipe, 0, options, options.load_data())
    return Trainer(task(run), run, [])


def gradients_of_steps(trainer: Trainer, n_steps: int = 2) -> list[dict[str, Tensor]]:
    """Train some steps; return the gradients of each."""
    gradients, step = [], trainer.training_step

    def recorded(batch: Any, factor: float) -> Any:
        pending = step(batch, factor)
        named = trainer.model.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        return pending

    trainer.training_step = recorded  # type: ignore[method-assign]
    n_examples, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
    trainer.train_epoch(n_examples, islice(batches, n_steps))
    return gradients


@pytest.mark.parametrize("flags", [{"micro_batch": 5}, {"gradient_checkpointing": True}])
def test_gradients_losses_and_random_numbers_are_the_same(
    options: ToyOptions, flags: dict[str, Any]
) -> None:
    whole, other = make_trainer(options), make_trainer(options, **flags)
    expected = gradients_of_steps(whole)
    torch.testing.assert_close(gradients_of_steps(other), expected, rtol=1e-5, atol=1e-7)
    state = torch.get_rng_state()
    assert other.state.progress.losses == pytest.approx(whole.state.progress.losses, rel=1e-6)
    gradients_of_steps(make_trainer(options))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_scaler_sees_one_step_a_batch(options: ToyOptions) -> None:
    """In fp16 an overflow in one part skips the whole step, and the scale is lowered once."""
    found = []
    for micro_batch in (None, 3):
        trainer = make_trainer(options, precision="float16", micro_batch=micro_batch)
        scaler = trainer.optimization.scaler
        scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**24})
        gradients = gradients_of_steps(trainer, n_steps=2)
        found.append((scaler.state_dict(), trainer.state.progress.gradient_norms, gradients))
    (whole, norms, gradients), (parts, norms_of_parts, gradients_of_parts) = found
    assert parts == whole and whole["scale"] < 2.0**24
    assert norms_of_parts == pytest.approx(norms, rel=1e-2, nan_ok=True)
    assert [set(each) for each in gradients_of_parts] == [set(each) for each in gradients]


def test_training_in_parts_ends_with_the_same_weights(options: ToyOptions) -> None:
    whole, parts = make_trainer(options), make_trainer(options, micro_batch=4)
    for trainer in (whole, parts):
        trainer.fit()
    torch.testing.assert_close(parts.state.best_weights, whole.state.best_weights)
    assert parts.state.history[-1]["validation_log_loss"] == pytest.approx(
        whole.state.history[-1]["validation_log_loss"], rel=1e-4
    )


@pytest.mark.parametrize("flags", [{"micro_batch": 4}, {"gradient_checkpointing": True}])
def test_batch_normalisation_is_refused(options: ToyOptions, flags: dict[str, Any]) -> None:
    with pytest.raises(HearbackError, match=r"small: its batch normalisation .* leave it out"):
        make_trainer(options, NormalisedTask, **flags)


def test_a_model_without_repeated_layers_has_none_to_recompute(options: ToyOptions) -> None:
    with pytest.raises(HearbackError, match="no repeated layers"):
        make_trainer(options, ToyTask, gradient_checkpointing=True)


def test_recomputed_layers_are_wrapped_once_and_only_with_gradients() -> None:
    model = Layers()
    recompute_layers(model, "toy")
    wrapped = model.layers[0].forward
    recompute_layers(model, "toy")
    assert model.layers[0].forward is wrapped
    model.eval()
    with torch.no_grad():
        assert not model(torch.ones(1, 2)).requires_grad


@dataclass(frozen=True)
class Nested(Tensors):
    """A batch with tensors of other items than its examples."""

    points: PointBatch
    rows: Tensor


def test_nested_tensors_must_say_what_their_items_are() -> None:
    points = PointBatch(torch.zeros(2, 2), torch.zeros(2), torch.arange(2))
    with pytest.raises(TypeError, match=r"Nested\.points: `select` must be overridden"):
        Nested(points, torch.arange(2)).select(torch.arange(1))


def test_dropout_of_unknown_items_is_an_error() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    micro_batches = MicroBatches(model, "toy", 2, CPU)
    micro_batches.items = (Items(torch.arange(2), 4),)
    assert model(torch.ones(2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="dropout of 5 items"):
        model(torch.ones(5, 3))


class Memory:
    """Little memory: computing more than `limit` examples at once fails."""

    def __init__(self, limit: int, with_recomputation: int) -> None:
        self.limit, self.with_recomputation = limit, with_recomputation

    def task(self, base: type[ToyTask]) -> type[ToyTask]:
        """Return a task of this memory."""
        memory = self

        class LittleMemoryTask(base):  # type: ignore[misc, valid-type]
            def compute_logits(self, model: nn.Module, batch: PointBatch) -> tuple[Tensor, Tensor]:
                layers = getattr(model, "layers", None)
                is_less = layers is not None and "forward" in vars(layers[0])
                if len(batch) > (memory.with_recomputation if is_less else memory.limit):
                    raise MemoryError
                return super().compute_logits(model, batch)

        return LittleMemoryTask


CASES = [
    (
        Memory(5, 9),
        LayersTask,
        "at once: --micro_batch 4, or --micro_batch 8 --gradient_checkpointing fits",
    ),
    (
        Memory(5, 99),
        LayersTask,
        "at once: --micro_batch 4, or --gradient_checkpointing fits this batch ",
    ),
    (Memory(0, 1), LayersTask, "at once: --micro_batch 1 --gradient_checkpointing fits"),
    (Memory(5, 5), ToyTask, "at once: --micro_batch 4 fits this batch "),
    (Memory(0, 0), LayersTask, "not even --micro_batch 1 --gradient_checkpointing fits; use a "),
    (Memory(0, 0), NormalisedTask, "batch normalisation excludes --micro_batch and --gradient_c"),
]


@pytest.mark.parametrize(("memory", "base", "expected"), CASES)
def test_running_out_of_memory_names_what_fits(
    options: ToyOptions, memory: Memory, base: type[ToyTask], expected: str
) -> None:
    trainer = make_trainer(options, memory.task(base))
    with pytest.raises(HearbackError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert message.startswith("small fold 0: out of memory in a step of 16 examples, 16 at once")
    assert expected in message and "\n" not in message
    assert caught.value.__context__ is None  # it would hold the step's tensors


def test_what_fits_is_less_than_what_did_not(options: ToyOptions) -> None:
    flags = {"micro_batch": 8, "gradient_checkpointing": True}
    trainer = make_trainer(options, Memory(0, 2).task(LayersTask), **flags)
    with pytest.raises(HearbackError, match=r"16 examples, 8 at once: --micro_batch 2 --grad"):
        trainer.fit()


def test_other_errors_of_a_step_are_not_about_memory(options: ToyOptions) -> None:
    trainer = make_trainer(options)

    def broken(*_: Any) -> Iterator[Tensor]:
        raise RuntimeError("a bug")

    trainer.optimization.step = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        trainer.fit()
