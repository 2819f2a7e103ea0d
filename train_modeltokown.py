"""Token scorer of the competition's first place: each token's own logit at its own position."""

from hearback.reading.augment import LIGHT
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modeltokown",
    backbone="openai/whisper-small",
    pair="tokens",
    token_score="own",
    dropout=0.0,
    learning_rate=3e-5,
    epochs=2,
    schedule_epochs=2,
    cycles=0.5,
    weight_decay=1e-2,
    seed=8,
    data_seed=8,
    augment_learner=LIGHT,
    frozen_share=0.5,
    warmup_share=0.1,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
