"""Untrained token scorer: whisper-base's pretrained decoder with a fitted classifier."""

from hearback.reading.augment import Augmentation
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modeltokzero",
    backbone="openai/whisper-base",
    pair="tokens",
    token_score="likelihood",
    dropout=0.0,
    learning_rate=0.0,
    epochs=0,
    schedule_epochs=0,
    cycles=0.5,
    weight_decay=0.0,
    seed=10,
    data_seed=10,
    augment_learner=Augmentation(),
    frozen_share=1.0,
)

if __name__ == "__main__":
    main(RECIPE)
