"""Token scorer on whisper-base, trained for one epoch: it overfits in the second."""

from hearback.reading.augment import LIGHT
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modeltokb",
    backbone="openai/whisper-base",
    pair="tokens",
    token_score="likelihood",
    dropout=0.2,
    learning_rate=3e-5,
    head_learning_rate=1e-3,
    epochs=1,
    schedule_epochs=1,
    cycles=0.5,
    weight_decay=1e-2,
    seed=11,
    data_seed=11,
    augment_learner=LIGHT,
    hard_negatives=1.0,
    word_loss=0.02,
    frozen_share=0.5,
    warmup_share=0.1,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
