"""Songs' trainings in fp16 with loss scaling, on a CPU, with overflows, against float32."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe
from hearback.songs.training import SongTask
from tests.reading.test_fp16 import SCALE, Recorder, StepsError
from tests.songs.quick_recipes import NARROW_WIDTHS, RECIPES


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the CNN narrow: convolutions in fp16 are slow on a CPU."""
    monkeypatch.setattr("hearback.songs.models.classifiers.CNN4_WIDTHS", NARROW_WIDTHS)


def record_steps(options: SongOptions, recipe: SongRecipe, precision: str) -> Recorder:
    """Return the first steps of a training; in fp16 from a scale at which gradients overflow."""
    options = replace(options, precision=precision)
    run, recorder = FoldRun(recipe, 0, options, options.load_data()), Recorder()
    trainer = Trainer(SongTask(run), run, [recorder])
    if precision == "float16":
        scaler = trainer.optimization.scaler
        assert scaler.is_enabled()
        scaler.load_state_dict({**scaler.state_dict(), "scale": SCALE})
    with pytest.raises(StepsError):
        trainer.fit()
    return recorder


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_fp16_recovers_from_overflows_and_learns_as_float32(
    song_options: SongOptions, name: str
) -> None:
    recipe = replace(RECIPES[name].with_epochs(4), learning_rate=1e-5, dropout=0.0)
    exact = record_steps(song_options, recipe, "float32")
    half = record_steps(song_options, recipe, "float16")
    applied = np.array([step.applied for step in half.steps])
    assert not applied[0] and applied.sum() >= 3
    for number, step in enumerate(half.steps):
        before, after = half.weights[number : number + 2]
        assert torch.equal(before, after) != step.applied
        assert np.isfinite(step.gradient_norm) == step.applied
    losses, half_losses = ([step.loss for step in each.steps] for each in (exact, half))
    np.testing.assert_allclose(half_losses, losses, rtol=0.02, atol=0.01)
    norms, half_norms = (
        np.array([step.gradient_norm for step in each.steps])[applied] for each in (exact, half)
    )
    np.testing.assert_allclose(half_norms, norms, rtol=0.15)
