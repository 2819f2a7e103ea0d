"""--micro_batch and --gradient_checkpointing: every family learns what it learns without them."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hearback.engine.phones import layout
from hearback.engine.training.callbacks import Callback
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.reading.options import TrainingOptions
from hearback.reading.training import ReadingTask
from tests.reading.embedders import write_embedder
from tests.reading.families import ALL_FAMILIES, EMBEDDER
from train_model2s import RECIPE as MEAN_OF_FRAMES

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
N_STEPS = 2


class Steps(Callback):
    """Records the steps, their gradients and the random numbers that follow."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.random_states: list[Tensor] = []

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """Record."""
        self.steps.append(step)
        named = trainer.model.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        self.random_states.append(torch.get_rng_state())


def train(run: FoldRun[Any, Any, Any], **flags: Any) -> Steps:
    """Take `N_STEPS` steps with flags."""
    run, recorder = replace(run, options=replace(run.options, **flags)), Steps()
    trainer = Trainer(ReadingTask(run), run, [recorder])
    n_examples, batches = next(trainer.task.epoch_batches(trainer.model, range(1)))
    trainer.train_epoch(n_examples, islice(batches, N_STEPS))
    return recorder


def check_equal(steps: Steps, expected: Steps) -> None:
    """Losses and gradients are equal to 1e-5, and the random numbers that follow are the same."""
    assert len(steps.steps) == len(expected.steps) == N_STEPS
    for number, (step, of_whole) in enumerate(zip(steps.steps, expected.steps, strict=True)):
        assert step.loss == pytest.approx(of_whole.loss, rel=1e-5)
        assert step.gradient_norm == pytest.approx(of_whole.gradient_norm, rel=1e-5)
        torch.testing.assert_close(
            steps.gradients[number],
            expected.gradients[number],
            rtol=1e-5,
            atol=1e-6 * of_whole.gradient_norm,
        )
        assert torch.equal(steps.random_states[number], expected.random_states[number])


WITH_DROPOUT = {name: replace(recipe, dropout=0.3) for name, recipe in ALL_FAMILIES.items()}
WITH_DROPOUT["dropout of frames"] = replace(MEAN_OF_FRAMES, dropout=0.3, batch_size=4)


@pytest.mark.parametrize("family", WITH_DROPOUT)
def test_parts_of_a_batch_teach_what_the_whole_batch_teaches(
    options: TrainingOptions, phones: Path, family: str
) -> None:
    # With unclipped gradients.
    recipe = replace(WITH_DROPOUT[family], max_gradient_norm=1e9)
    shutil.copytree(phones, options.assets / layout.NAME)
    if recipe.text_embedder:
        write_embedder(options.assets / EMBEDDER)
    run = FoldRun(options.adapt(recipe), 0, options, options.load_data())
    expected = train(run)
    check_equal(train(run, micro_batch=3), expected)  # of 4
    check_equal(train(run, micro_batch=1, gradient_checkpointing=True), expected)
