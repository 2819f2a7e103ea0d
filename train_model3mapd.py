"""Whisper medium, attention pooling with dropout on the pooled vector, a linear head."""

from hearback.reading.augment import COMPETITION_B, COMPETITION_B_REFERENCE
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="model3mapd",
    backbone="openai/whisper-medium",
    pooling="attention",
    dropout=0.4,
    dropout_on="pooled",
    learning_rate=1e-5,
    epochs=4,
    schedule_epochs=4,
    cycles=0.5,
    weight_decay=1e-3,
    seed=88,
    data_seed=88,
    augment_learner=COMPETITION_B,
    augment_reference=COMPETITION_B_REFERENCE,
)

if __name__ == "__main__":
    main(RECIPE)
