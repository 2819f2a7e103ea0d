"""Training in fp16 with loss scaling, on a CPU: every family, with overflows, against float32."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hearback.engine.training.callbacks import Callback
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.trainer import Trainer
from hearback.reading.options import TrainingOptions
from tests.reading.families import FAMILIES, make_trainer

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
SCALE = 2.0**22  # gradients overflow, and no longer after some halvings
N_STEPS = 12


class StepsError(Exception):
    """The steps of the test are done."""


class Recorder(Callback):
    """Records steps, and the weights after each; ends the training after `N_STEPS`."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.weights: list[torch.Tensor] = []

    def on_epoch_start(self, trainer: Trainer, n_examples: int) -> None:
        """Record the weights before the first step."""
        if not self.weights:
            self.weights.append(weights_of(trainer))

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """Record."""
        self.steps.append(step)
        self.weights.append(weights_of(trainer))
        if len(self.steps) == N_STEPS:
            raise StepsError


def weights_of(trainer: Trainer) -> torch.Tensor:
    """Return a copy of all weights, in one vector."""
    parameters = [p.detach() for p in trainer.model.parameters() if p.requires_grad]
    return torch.cat([parameter.flatten() for parameter in parameters])


def losses_of(steps: list[Step]) -> np.ndarray:
    """Return the losses of recorded steps, (steps,)."""
    return np.array([step.loss for step in steps])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fp16_recovers_from_overflows_and_learns_as_float32(
    options: TrainingOptions, phones: Path, family: str
) -> None:
    recipe = replace(FAMILIES[family], epochs=3, schedule_epochs=3, warmup_share=0.0)
    recipe = replace(recipe, learning_rate=1e-5, head_learning_rate=1e-5)
    recorders = {}
    for precision in ("float32", "float16"):
        recorder = recorders[precision] = Recorder()
        of_precision = replace(options, precision=precision)
        trainer = make_trainer(recipe, of_precision, phones, recorder)
        if precision == "float16":
            assert trainer.optimization.scaler.is_enabled()
            state = trainer.optimization.scaler.state_dict()
            trainer.optimization.scaler.load_state_dict({**state, "scale": SCALE})
        with pytest.raises(StepsError):
            trainer.fit()
    exact, half = (recorders[name].steps for name in ("float32", "float16"))
    if family == "phones":  # computed in float32 throughout, whatever the precision
        assert half == exact
        return
    if family == "segments":  # what is trained is computed in float32
        assert all(step.applied for step in half)
        np.testing.assert_allclose(losses_of(half), losses_of(exact), rtol=0.02)
        return
    applied = np.array([step.applied for step in half])
    assert not applied[0] and applied.sum() >= 3
    weights = recorders["float16"].weights
    for number, step in enumerate(half):
        assert step.moved == step.applied
        assert torch.equal(weights[number], weights[number + 1]) != step.applied
        assert np.isfinite(step.gradient_norm) == step.applied
    # The cosine of vectors that are nearly alike, of random weights, shows every rounding.
    is_cosine = family == "speech cosine"
    np.testing.assert_allclose(
        losses_of(half), losses_of(exact), rtol=0.15 if is_cosine else 0.02, atol=0.01
    )
    norms, half_norms = (
        np.array([step.gradient_norm for step in steps])[applied] for steps in (exact, half)
    )
    np.testing.assert_allclose(half_norms, norms, rtol=0.5 if is_cosine else 0.15)
