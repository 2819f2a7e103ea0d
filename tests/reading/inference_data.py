"""Ensembles of models with random weights: options to run and to pack them."""

from pathlib import Path
from typing import Any

import torch

from hearback.engine.ensemble.calibration import Calibration
from hearback.engine.ensemble.config import ModelConfig
from hearback.reading.ensemble import EnsembleConfig, Fallback
from hearback.reading.inference.submission import InferenceOptions
from hearback.reading.references import References
from hearback.reading.submission.pack import PackingOptions
from tests.conftest import inference_options
from tests.reading.random_models import BASE_RATES, write_fold
from train_model2ds import RECIPE as MEAN
from train_model3mapd import RECIPE as ATTENTION
from train_modeltok import RECIPE as TOKENS

CPU: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}


def write_ensemble(folder: Path, tokenizer: Path) -> InferenceOptions:
    """Write three models of two folds each; return options to run them on the corpus in `folder`.

    The token scorer has its recipe's speed per grade.
    """
    voice = References(folder / "tts_data").voice
    weights = {MEAN: 0.25, ATTENTION: 0.25, TOKENS: 0.5}
    for recipe in weights:
        for fold in (0, 1):
            write_fold(folder / "assets", recipe, fold, voice, tokenizer)
    models = tuple(ModelConfig(recipe.name, (0, 1), weight) for recipe, weight in weights.items())
    config = EnsembleConfig(models, voice, BASE_RATES, {"cross_fitted": 0.5}, n_rows=36)
    config.save(folder / "model_configs.json")
    return inference_options(folder)


def write_submission_data(folder: Path, tokenizer: Path) -> PackingOptions:
    """Write two folds of a comparison model and of a token scorer; return options to pack them.

    Packed are fold 1 of the comparison, both folds of the token scorer, and the references in
    `folder`.
    """
    voice = References(folder / "tts_data").voice
    for recipe in (MEAN, TOKENS):
        for fold in (0, 1):
            write_fold(folder / "assets", recipe, fold, voice, tokenizer)
    models = (
        ModelConfig(MEAN.name, (1,), 0.5, seconds_per_clip=0.1),
        ModelConfig(TOKENS.name, (0, 1), 0.5, seconds_per_clip=0.1),
        ModelConfig("model1m", (0, 1, 2), 0.0),  # not run, so it need not be there
    )
    alone = (Fallback({MEAN.name: 1.0}, Calibration(), 0.6),)
    config = EnsembleConfig(models, voice, BASE_RATES, {"cross_fitted": 0.5}, 36, fallbacks=alone)
    config.save(folder / "model_configs.json")
    return PackingOptions(
        assets=folder / "assets",
        config=folder / "model_configs.json",
        tts_data=folder / "tts_data",
        wheels=folder / "wheels",
        submission=folder / "submission.zip",
    )
