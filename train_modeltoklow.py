"""Token scorer with low-rank updates of the decoder on a frozen encoder: folds of about 1 MB."""

from hearback.reading.augment import LIGHT
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modeltoklow",
    backbone="openai/whisper-base",
    pair="tokens",
    token_score="likelihood",
    dropout=0.2,
    learning_rate=1e-3,
    head_learning_rate=1e-3,
    epochs=2,
    schedule_epochs=2,
    cycles=0.5,
    weight_decay=1e-2,
    seed=7,
    data_seed=7,
    augment_learner=LIGHT,
    hard_negatives=1.0,
    word_loss=0.02,
    frozen_share=1.0,
    adapter_rank=4,
    n_augmented=3,
    uses_context=False,
    warmup_share=0.1,
    average_decay=0.97,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
