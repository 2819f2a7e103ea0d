"""Token scorer without a step of training: what whisper-base's decoder already knows."""

from hearback.reading.augment import Augmentation
from hearback.reading.recipe import LIKE_GROWN_UPS, Recipe
from hearback.reading.training import main

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
    speed_by_grade=LIKE_GROWN_UPS,
)

if __name__ == "__main__":
    main(RECIPE)
