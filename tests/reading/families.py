"""A small recipe of each family of models, and a trainer for it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from hearback.engine.phones import layout
from hearback.engine.training.callbacks import Callback
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairings import WITH_TEXT_EMBEDDING
from hearback.reading.recipe import Recipe
from hearback.reading.training import ReadingTask
from tests.reading.embedders import write_embedder
from tests.reading.quick_recipes import (
    QUICK,
    QUICK_GOP,
    QUICK_LOW,
    QUICK_OWN,
    QUICK_SEG,
    QUICK_TOKENS,
)
from train_model2ds import RECIPE as VECTORS
from train_modelali import RECIPE as ALIGNED

_SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "dropout": 0.0,
    "warm_start": None,
    "hard_negatives": 0.0,
}
FAMILIES: dict[str, Recipe] = {
    "joined": QUICK,
    "speech classifier": replace(VECTORS, pair="speech classifier", **_SETTINGS),
    "speech cosine": replace(VECTORS, pair="speech cosine", **_SETTINGS),
    "aligned": replace(ALIGNED, **_SETTINGS),
    "tokens": QUICK_TOKENS,
    "own tokens": QUICK_OWN,
    "updates of tokens": QUICK_LOW,  # with encoder outputs that are computed once
    "phones": QUICK_GOP,
    "segments": QUICK_SEG,  # with encoder outputs that are computed once
}
EMBEDDER = "tiny-bert"  # `make_trainer` writes it
WITH_EMBEDDER: dict[str, Recipe] = {
    pair: replace(VECTORS, pair=pair, text_embedder=EMBEDDER, **_SETTINGS)
    for pair in WITH_TEXT_EMBEDDING
}
ALL_FAMILIES = FAMILIES | WITH_EMBEDDER


def make_trainer(
    recipe: Recipe, options: TrainingOptions, phones: Path, *callbacks: Callback
) -> Trainer:
    """Return a trainer of fold 0; `phones` is the recogniser's directory."""
    shutil.copytree(phones, options.assets / layout.NAME, dirs_exist_ok=True)
    if recipe.pair in WITH_TEXT_EMBEDDING and not (options.assets / EMBEDDER).exists():
        write_embedder(options.assets / EMBEDDER)
    run = FoldRun(options.adapt(recipe), 0, options, options.load_data())
    return Trainer(ReadingTask(run), run, callbacks)
