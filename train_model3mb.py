"""Whisper medium, mean pooling, a linear head; cuts, augmented references, batches of 8."""

from hearback.reading.augment import COMPETITION_B, COMPETITION_B_REFERENCE
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="model3mb",
    backbone="openai/whisper-medium",
    pooling="mean",
    dropout=0.4,
    learning_rate=1e-5,
    epochs=4,
    schedule_epochs=4,
    cycles=0.5,
    batch_size=8,
    weight_decay=1e-3,
    seed=321,
    data_seed=321,
    augment_learner=COMPETITION_B,
    augment_reference=COMPETITION_B_REFERENCE,
)

if __name__ == "__main__":
    main(RECIPE)
