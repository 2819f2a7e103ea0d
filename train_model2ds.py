"""Distil-Whisper small.en, mean pooling, a linear head, envelope augmentation less often."""

from dataclasses import replace

from hearback.reading.augment import COMPETITION_A
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="model2ds",
    backbone="distil-whisper/distil-small.en",
    pooling="mean",
    dropout=0.2,
    learning_rate=2e-5,
    epochs=5,
    schedule_epochs=5,
    cycles=0.25,
    weight_decay=1e-6,
    seed=666,
    data_seed=666,
    augment_learner=replace(COMPETITION_A, envelope=0.2),
)

if __name__ == "__main__":
    main(RECIPE)
