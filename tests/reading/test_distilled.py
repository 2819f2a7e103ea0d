"""Distilled Whispers, whose decoders are less deep than their encoders, as backbones."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hearback.engine.errors import HearbackError
from hearback.engine.whisper.weights import load_backbone, read_config
from hearback.reading.inference.predict import predict
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import build
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from tests.reading.quick_recipes import QUICK, QUICK_LOW, QUICK_OWN, QUICK_TOKENS

CPU = torch.device("cpu")


@pytest.fixture
def distilled(backbone: Path, tmp_path: Path) -> Path:
    """The tiny backbone without the second of its decoder's two layers."""
    folder = shutil.copytree(backbone, tmp_path / "distilled")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if ".decoder.layers.1." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors")
    write_depth(folder, 1)
    return folder


def write_depth(folder: Path, n_layers: int) -> None:
    """Write the number of decoder layers into a backbone's configuration."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "decoder_layers": n_layers}))


def load(recipe: Recipe, folder: Path) -> Scorer:
    """Return a recipe's model with the backbone in `folder`."""
    model = build(recipe, read_config(folder), folder / "tokenizer.json")
    load_backbone(model, folder)
    return model


@pytest.mark.parametrize(
    "recipe",
    [QUICK_TOKENS, QUICK_OWN, QUICK_LOW, QUICK],
    ids=["tokens", "own tokens", "updates", "encoder"],
)
def test_a_decoder_of_any_depth_is_taken(
    make_source: Callable[[int], PairSource], distilled: Path, recipe: Recipe
) -> None:
    model = load(recipe, distilled)
    assert model.encoder.config.encoder_layers == 2
    rows = np.arange(4)
    scores = predict(model, make_source(4), rows, device=CPU, dtype=torch.float32).clips
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("recipe", [QUICK_TOKENS, replace(QUICK_LOW, adapted_share=0.5)])
def test_weights_and_configuration_of_two_models_are_an_error(
    distilled: Path, recipe: Recipe
) -> None:
    write_depth(distilled, 2)
    message = r"decoder's weights have 1 layers, and its config\.json says 2\. Any depth will do"
    with pytest.raises(HearbackError, match=message):
        load(recipe, distilled)
    load(QUICK, distilled)  # it needs no decoder


def test_an_encoder_alone_is_no_backbone_of_a_token_scorer(distilled: Path) -> None:
    config = json.loads((distilled / "config.json").read_text())
    del config["decoder_layers"]
    (distilled / "config.json").write_text(json.dumps(config))
    with pytest.raises(HearbackError, match=r"no decoder_layers: .* a whole Whisper, with its dec"):
        load(QUICK_TOKENS, distilled)
