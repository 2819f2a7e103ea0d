"""Folds of models with random weights, for tests of inference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.reading.models import load
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import build
from hearback.reading.recipe import Recipe
from tests.conftest import CONFIG

BASE_RATES = {"all": 0.4, "deletion": 0.1, "nonword_repetition": 0.25}


def make_model(
    recipe: Recipe, tokenizer: Path, seed: int = 0, config: Mapping[str, Any] = CONFIG
) -> Scorer:
    """Return a model with random weights, also in its head; `config` has its backbone's sizes."""
    torch.manual_seed(100 * seed + recipe.seed)
    model = build(recipe, config, tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head."):
                parameter.add_(0.03 * torch.randn_like(parameter))
            if name == "decoder.embed_tokens.weight":
                parameter.mul_(0.1)  # otherwise the tokens' logits would be huge
    return model


def write_fold(
    assets: Path, recipe: Recipe, fold: int, voice: dict[str, Any] | None, tokenizer: Path
) -> None:
    """Write a fold of `make_model`, with an empty table of out-of-fold predictions."""
    model = make_model(recipe, tokenizer, fold)
    oof = pd.DataFrame({"filename": [], "score": [], "pred": []})
    fold_metadata = {
        "recipe": recipe.as_dict(),
        "shape": model.backbone_config(),
        "tokenizer": load.save_tokenizer(tokenizer, assets) if model.text_tokenizer else None,
        "voice": voice,
    }
    save_fold(FoldFiles(assets, recipe.name, fold), model.state_dict(), oof, fold_metadata)
