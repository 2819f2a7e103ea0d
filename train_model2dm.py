"""Distil-Whisper medium.en, mean pooling, a hidden layer of width 128."""

from hearback.reading.augment import COMPETITION_A
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="model2dm",
    backbone="distil-whisper/distil-medium.en",
    pooling="mean",
    hidden=128,
    dropout=0.4,
    learning_rate=1e-5,
    epochs=4,
    schedule_epochs=5,
    cycles=0.25,
    weight_decay=1e-3,
    seed=4221,
    data_seed=4221,
    augment_learner=COMPETITION_A,
)

if __name__ == "__main__":
    main(RECIPE)
