"""Phone scorer: a small recogniser of phones, without an alignment (goodness of pronunciation)."""

from hearback.reading.augment import LIGHT
from hearback.reading.recipe import Recipe
from hearback.reading.steps.train_model import main

RECIPE = Recipe(
    name="modelgop",
    backbone="hama-phones",
    pair="phones",
    dropout=0.1,
    learning_rate=1e-4,
    head_learning_rate=1e-3,
    epochs=3,
    schedule_epochs=3,
    cycles=0.5,
    weight_decay=1e-2,
    seed=7,
    data_seed=7,
    augment_learner=LIGHT,
    hard_negatives=1.0,
    word_loss=0.1,
    uses_word_labels=True,
    read_texts=1.0,
    uses_context=False,
    warmup_share=0.1,
    average_decay=0.97,
    adam_epsilon=1e-8,
    adam_betas=(0.9, 0.98),
)

if __name__ == "__main__":
    main(RECIPE)
