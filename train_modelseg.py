"""Segment scorer: a frozen Whisper's middle layer, pooled over the segment of each phone."""

from hearback.reading.augment import LIGHT
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modelseg",
    backbone="openai/whisper-base",
    pair="segments",
    encoder_layers=4,
    frozen_share=1.0,
    n_augmented=3,
    dropout=0.3,
    learning_rate=2e-3,
    epochs=5,
    schedule_epochs=5,
    cycles=0.5,
    weight_decay=2e-2,
    seed=7,
    data_seed=7,
    augment_learner=LIGHT,
    hard_negatives=1.0,
    word_loss=1.0,
    phone_loss=0.3,
    uses_word_labels=True,
    read_texts=1.0,
    uses_context=False,
    warmup_share=0.05,
    average_decay=0.99,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
