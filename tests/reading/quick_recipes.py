"""Recipes of the reading competition that train on the tiny corpus in seconds."""

from dataclasses import replace
from typing import Any

from hearback.reading.augment import Augmentation
from train_model3mapd import RECIPE
from train_modelgop import RECIPE as GOP
from train_modelseg import RECIPE as SEG
from train_modeltok import RECIPE as TOKENS
from train_modeltoklow import RECIPE as LOW
from train_modeltokown import RECIPE as OWN

# What recipes that learn from labels of words have beyond the others.
UNLABELLED: dict[str, Any] = {
    "uses_word_labels": False,
    "labelled_word_loss": None,
    "read_texts": 0.0,
}

QUICK = replace(
    RECIPE,
    batch_size=4,
    learning_rate=1e-2,
    dropout=0.0,
    epochs=2,
    schedule_epochs=2,
    augment_learner=Augmentation(gain=0.5, noise=0.5),
    augment_reference=Augmentation(gain=0.5),
)
QUICK_TOKENS, QUICK_OWN, QUICK_GOP = (
    replace(
        recipe,
        batch_size=4,
        learning_rate=1e-3,
        head_learning_rate=1e-2,
        dropout=0.0,
        epochs=2,
        schedule_epochs=2,
        frozen_share=0.0,
        augment_learner=Augmentation(gain=0.5, noise=0.5),
        average_decay=0.5,
    )
    for recipe in (replace(TOKENS, **UNLABELLED), OWN, GOP)
)
QUICK_SEG = replace(
    SEG,
    batch_size=4,
    learning_rate=1e-3,
    dropout=0.0,
    epochs=2,
    schedule_epochs=2,
    encoder_layers=1,
    augment_learner=Augmentation(gain=0.5, noise=0.5),
)
QUICK_LOW = replace(
    LOW,
    **UNLABELLED,
    batch_size=4,
    learning_rate=1e-2,
    head_learning_rate=1e-2,
    dropout=0.0,
    adapter_rank=2,
    n_augmented=2,
    augment_learner=Augmentation(gain=0.5, noise=0.5),
    average_decay=0.5,
)
