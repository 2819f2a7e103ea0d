"""Token scorer: Whisper's decoder scores the tokens of the expected text given the learner."""

from hearback.reading.augment import LIGHT
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modeltok",
    backbone="openai/whisper-small",
    pair="tokens",
    token_score="likelihood",
    dropout=0.2,
    learning_rate=3e-5,
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
    labelled_word_loss=0.1,
    uses_word_labels=True,
    read_texts=1.0,
    frozen_share=0.5,
    warmup_share=0.1,
    average_decay=0.97,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
