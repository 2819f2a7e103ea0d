"""Aligned comparison: reference and learner encoded separately and aligned frame by frame."""

from hearback.reading.augment import LIGHT, LIGHT_REFERENCE
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modelali",
    backbone="openai/whisper-small",
    pair="aligned",
    dropout=0.1,
    learning_rate=1e-4,
    head_learning_rate=1e-3,
    epochs=1,
    schedule_epochs=1,
    cycles=0.5,
    weight_decay=1e-2,
    seed=9,
    data_seed=9,
    augment_learner=LIGHT,
    augment_reference=LIGHT_REFERENCE,
    negatives=0.25,
    hard_negatives=0.5,
    frozen_share=0.5,
    warmup_share=0.1,
    average_decay=0.97,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
