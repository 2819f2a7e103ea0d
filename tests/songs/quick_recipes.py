"""Recipes of the songs competition that train on the test's snippets in seconds."""

from dataclasses import replace

from hearback.songs.augment import Augmentation
from hearback.songs.recipes.cnn4 import RECIPE as CNN4

NARROW_WIDTHS = (4, 4, 8, 8)  # of the CNN's layers, in place of CNN4_WIDTHS

QUICK = replace(
    CNN4.with_epochs(2),
    features="log_mel_40",
    batch_size=8,
    mix_up=0.0,
    class_weights=False,
    balanced_sampling=False,
    augment=Augmentation(),
)
PLATEAU = replace(
    QUICK,
    optimizer="sgd",
    schedule="plateau",
    milestones=(),
    learning_rate=1e-2,
    keep="best",
    average_decay=0.5,
    augment=CNN4.augment,
)
MIXED = replace(
    QUICK, mix_up=0.4, class_weights=True, balanced_sampling=True, augment=CNN4.augment, dropout=0.3
)
RESTARTS = replace(
    MIXED, optimizer="adamw", weight_decay=0.1, schedule="cosine restarts", periods=2, milestones=()
)
RECIPES = {"sgd": PLATEAU, "adam": MIXED, "adamw": RESTARTS}
