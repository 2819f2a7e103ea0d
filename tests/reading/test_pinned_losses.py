"""Losses of tiny trainings, pinned to detect unintended changes.

Tones instead of speech, a Whisper with random weights, two epochs, float32. A change that is meant
to alter them (augmentation, sampling, initialization) updates the values here, and its commit says
so.
"""

from dataclasses import replace

import pytest

from hearback.reading.augment import Augmentation
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe
from hearback.reading.training import train_fold
from train_model3mapd import RECIPE as JOINED
from train_modelali import RECIPE as ALI
from train_modeltok import RECIPE as TOKENS
from train_modeltokown import RECIPE as OWN

ALIGNED = replace(ALI, hard_negatives=0.0)  # they would need rendering

# model: (train, validation) log loss of each epoch; epoch 0 is the initialization
PINNED: dict[str, list[tuple[float | None, float]]] = {
    "model3mapd": [(0.68124, 0.68141), (0.68905, 0.68111)],
    "modelali": [(None, 0.12911), (0.12960, 0.12804), (0.25733, 0.12592)],
    "modeltok": [(None, 0.42786), (0.42831, 0.42811), (0.50796, 0.43085)],
    "modeltokown": [(0.70265, 0.69662), (0.69737, 0.69620)],
}


@pytest.mark.parametrize("recipe", [JOINED, ALIGNED, TOKENS, OWN], ids=lambda recipe: recipe.name)
def test_losses_are_unchanged(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )
    recipe = replace(
        recipe.with_epochs(2),
        warm_start=None,
        batch_size=4,
        learning_rate=1e-3,
        augment_learner=Augmentation(speed=0.5, pitch=0.3, colour=0.3, gain=0.5, noise=0.5),
    )
    fold_metadata = train_fold(recipe, 1, options, options.load_data())
    found = [(e.get("train_log_loss"), e["validation_log_loss"]) for e in fold_metadata["epochs"]]
    for epoch, (losses, pinned) in enumerate(zip(found, PINNED[recipe.name], strict=True)):
        assert losses == pytest.approx(pinned, abs=1e-4), f"epoch {epoch}: {found}"
