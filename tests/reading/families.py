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
from hearback.reading.recipe import Recipe
from hearback.reading.training import ReadingTask
from tests.reading.quick_recipes import (
    QUICK,
    QUICK_GOP,
    QUICK_LOW,
    QUICK_OWN,
    QUICK_SEG,
    QUICK_TOKENS,
)
from train_model2ds import RECIPE as SPEECH_CLASSIFIER
from train_model3mcp import RECIPE as SPEECH_COSINE
from train_modelali import RECIPE as ALIGNED

_SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "dropout": 0.0,
    "warm_start": None,
    "hard_negatives": 0.0,
}
FAMILIES: dict[str, Recipe] = {
    "joined": QUICK,
    "speech classifier": replace(SPEECH_CLASSIFIER, **_SETTINGS),
    "speech cosine": replace(SPEECH_COSINE, **_SETTINGS),
    "aligned": replace(ALIGNED, **_SETTINGS),
    "tokens": QUICK_TOKENS,
    "own tokens": QUICK_OWN,
    "updates of tokens": QUICK_LOW,  # with encoder outputs that are computed once
    "phones": QUICK_GOP,
    "segments": QUICK_SEG,  # with encoder outputs that are computed once
}


def make_trainer(
    recipe: Recipe, options: TrainingOptions, phones: Path, *callbacks: Callback
) -> Trainer:
    """Return a trainer of fold 0; `phones` is the recogniser's directory."""
    shutil.copytree(phones, options.assets / layout.NAME, dirs_exist_ok=True)
    run = FoldRun(options.adapt(recipe), 0, options, options.load_data())
    return Trainer(ReadingTask(run), run, callbacks)
