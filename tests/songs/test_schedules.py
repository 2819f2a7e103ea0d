"""The songs' learning rate schedules equal torch's schedulers, step by step."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    MultiStepLR,
    ReduceLROnPlateau,
)

from hearback.songs.recipe import DEFAULT_PATIENCE_EPOCHS
from hearback.songs.training import learning_rate_factor

STEPS_PER_EPOCH = 7
RATE = 0.02


def make_recipe(schedule: str, epochs: int = 20, **fields: Any) -> Any:
    return SimpleNamespace(schedule=schedule, epochs=epochs, **fields)


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], RATE)


def rate_of(optimizer: torch.optim.Optimizer) -> float:
    return optimizer.param_groups[0]["lr"]


def per_step(recipe: Any) -> list[float]:
    steps = range(recipe.epochs * STEPS_PER_EPOCH)
    return [RATE * learning_rate_factor(recipe, step / STEPS_PER_EPOCH, []) for step in steps]


def test_cosine_equals_torch_per_step() -> None:
    recipe = make_recipe("cosine", epochs=6)
    optimizer = make_optimizer()
    scheduler = CosineAnnealingLR(optimizer, T_max=6 * STEPS_PER_EPOCH)
    expected = []
    for _ in range(6 * STEPS_PER_EPOCH):
        expected.append(rate_of(optimizer))
        optimizer.step()  # a scheduler warns if its own step comes first
        scheduler.step()
    assert per_step(recipe) == pytest.approx(expected, abs=1e-12)
    assert learning_rate_factor(recipe, 6, []) == pytest.approx(0)


@pytest.mark.parametrize(("epochs", "periods"), [(20, 2), (9, 3), (5, 1)])
def test_restarts_equal_torch_per_step(epochs: int, periods: int) -> None:
    recipe = make_recipe("cosine restarts", epochs=epochs, periods=periods)
    optimizer = make_optimizer()
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=epochs // periods)
    expected = []
    for step in range(epochs * STEPS_PER_EPOCH):
        scheduler.step(step / STEPS_PER_EPOCH)  # type: ignore[arg-type]
        expected.append(rate_of(optimizer))
    actual = per_step(recipe)
    assert actual == pytest.approx(expected, abs=1e-12)
    assert sum(rate == pytest.approx(RATE) for rate in actual) == periods


def test_multistep_equals_torch_per_epoch() -> None:
    recipe = make_recipe("multistep", epochs=30, milestones=(15, 25))
    optimizer = make_optimizer()
    scheduler = MultiStepLR(optimizer, [15, 25])
    for epoch in range(30):
        for within in (0.0, 0.5, 0.99):
            rate = RATE * learning_rate_factor(recipe, epoch + within, [])
            assert rate == pytest.approx(rate_of(optimizer))
        optimizer.step()
        scheduler.step()


FALLING = np.exp(-np.arange(60) / 10)
WITH_PLATEAUS = np.where(np.arange(60) < 30, 0.5, 0.4)
ALMOST_CONSTANT = 1 - 5e-5 * np.arange(60)  # improves by less than the minimum
NOISY = 1 + np.random.default_rng(0).normal(0, 0.1, 60)
WITH_NAN = np.where(np.arange(60) % 5 == 2, np.nan, 1.0)


@pytest.mark.parametrize("patience", [0, 2, DEFAULT_PATIENCE_EPOCHS])
@pytest.mark.parametrize("losses", [FALLING, WITH_PLATEAUS, ALMOST_CONSTANT, NOISY, WITH_NAN])
def test_plateau_equals_torch_per_epoch(losses: np.ndarray, patience: int) -> None:
    recipe = make_recipe("plateau", epochs=60, patience_epochs=patience)
    optimizer = make_optimizer()
    # eps: the smallest decrease of the rate
    scheduler = ReduceLROnPlateau(optimizer, patience=patience, eps=0.0)
    for epoch in range(60):
        rate = RATE * learning_rate_factor(recipe, epoch + 0.5, losses[:epoch].tolist())
        assert rate == pytest.approx(rate_of(optimizer), rel=1e-9)
        scheduler.step(losses[epoch])


def test_default_patience_equals_torch() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer())
    assert scheduler.patience == DEFAULT_PATIENCE_EPOCHS


def test_plateaus_lower_the_rate() -> None:
    recipe = make_recipe("plateau", epochs=24, patience_epochs=10)
    assert learning_rate_factor(recipe, 11, [0.5] * 11) == 1
    assert learning_rate_factor(recipe, 12, [0.5] * 12) == pytest.approx(0.1)
    assert learning_rate_factor(recipe, 24, FALLING[:24].tolist()) == 1
