"""Whisper small, mean pooling, a hidden layer of width 128, envelope augmentation less often."""

from dataclasses import replace

from hearback.reading.augment import COMPETITION_A
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="model2s",
    backbone="openai/whisper-small",
    pooling="mean",
    hidden=128,
    dropout=0.2,
    learning_rate=2e-5,
    epochs=5,
    schedule_epochs=5,
    cycles=0.25,
    weight_decay=1e-6,
    seed=333,
    data_seed=333,
    augment_learner=replace(COMPETITION_A, envelope=0.2),
)

if __name__ == "__main__":
    main(RECIPE)
