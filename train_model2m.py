"""Whisper medium, mean pooling, a linear head: model1m with another order of the data."""

from hearback.reading.augment import COMPETITION_A
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="model2m",
    backbone="openai/whisper-medium",
    pooling="mean",
    dropout=0.4,
    learning_rate=1e-5,
    epochs=4,
    schedule_epochs=5,
    cycles=0.25,
    weight_decay=1e-3,
    seed=42,
    data_seed=55,
    augment_learner=COMPETITION_A,
)

if __name__ == "__main__":
    main(RECIPE)
