"""The encoder equals that of Transformers, for shorter windows too."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as TheirEncoder

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.project import ROOT
from hearback.engine.whisper.encoder import (
    MAX_PLAIN_ATTENTION_FRAMES,
    N_POSITIONS,
    EncoderConfig,
    WhisperEncoder,
    attend,
)
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.window_batches import Pair, collate, window_samples
from tests.conftest import TINY

TINY_EN = ROOT / "assets" / "whisper-tiny.en"


def their_encoder(config: EncoderConfig) -> TheirEncoder:
    sizes: dict[str, Any] = {**config.as_dict(), "max_source_positions": N_POSITIONS}
    return TheirEncoder(WhisperConfig(**sizes)).eval()


def test_equals_the_encoder_of_transformers_with_800_positions() -> None:
    torch.manual_seed(0)
    theirs = their_encoder(TINY)
    ours = WhisperEncoder(TINY)
    ours.load_pretrained(theirs.state_dict())
    features = torch.randn(2, 80, 1600)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(features), theirs(features).last_hidden_state, atol=1e-4, rtol=0
        )


def test_a_cut_encoder_is_the_lower_layers_and_a_plain_norm() -> None:
    torch.manual_seed(0)
    theirs = their_encoder(TINY)
    with torch.no_grad():
        theirs.layer_norm.weight.uniform_(0.5, 2)  # of the last layer: not for the first
    cut = WhisperEncoder(replace(TINY, encoder_layers=1))
    cut.load_pretrained(theirs.state_dict())
    features = torch.randn(2, 80, 1600)
    with torch.no_grad():
        hidden = theirs(features, output_hidden_states=True).hidden_states[1]
        expected = F.layer_norm(hidden, (TINY.d_model,))
        torch.testing.assert_close(cut(features), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_fixed_window_equals_transformers_on_real_weights() -> None:
    config = EncoderConfig.from_config(read_config(TINY_EN))
    tensors = read_tensors(TINY_EN, "encoder")
    ours, theirs = WhisperEncoder(config), their_encoder(config)
    ours.load_pretrained(tensors)
    cut = tensors["embed_positions.weight"][:N_POSITIONS]
    theirs.load_state_dict(tensors | {"embed_positions.weight": cut})
    rng = np.random.default_rng(0)
    pairs = [
        Pair(rng.normal(0, 0.1, n).astype(np.float32), np.zeros(2, np.float32), row=n)
        for n in (30_000, 200_000)
    ]
    batch = collate(pairs, window_samples(30_000, "fixed", 0.64))
    features = log_mel(batch.waveforms, config.num_mel_bins)
    assert features.shape == (2, 80, 1600)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(features), theirs(features).last_hidden_state, atol=1e-4, rtol=0
        )


def test_a_shorter_window_uses_the_first_positions() -> None:
    torch.manual_seed(0)
    encoder = WhisperEncoder(TINY)
    assert encoder(torch.randn(1, 80, 64)).shape == (1, 32, TINY.d_model)


def test_positions_are_the_first_rows_of_the_pretrained_table_and_stay_frozen() -> None:
    tensors = WhisperEncoder(TINY).state_dict()
    table = torch.randn(1500, TINY.d_model)
    encoder = WhisperEncoder(TINY)
    encoder.load_pretrained(tensors | {"embed_positions.weight": table})
    torch.testing.assert_close(encoder.embed_positions.weight, table[:800], atol=0, rtol=0)
    encoder(torch.randn(1, 80, 64)).sum().backward()
    assert encoder.embed_positions.weight.grad is None


@pytest.mark.parametrize(("n_layers", "trained"), [(0, {"conv1", "0", "1"}), (1, {"1"})])
def test_frozen_layers_have_no_gradient(n_layers: int, trained: set[str]) -> None:
    encoder = WhisperEncoder(TINY)
    encoder.freeze_below(n_layers)
    encoder(torch.randn(1, 80, 64)).sum().backward()
    parts = {"conv1": encoder.conv1, **dict(encoder.layers.named_children())}
    with_gradient = {
        name
        for name, part in parts.items()
        if all(parameter.grad is not None for parameter in part.parameters())
    }
    assert with_gradient == trained


def test_a_tensor_of_another_shape_is_rejected() -> None:
    tensors = WhisperEncoder(TINY).state_dict()
    with pytest.raises(RuntimeError, match=r"conv1\.weight"):
        WhisperEncoder(TINY).load_pretrained(tensors | {"conv1.weight": torch.zeros(1, 1, 3)})


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "n_positions", [9, MAX_PLAIN_ATTENTION_FRAMES, MAX_PLAIN_ATTENTION_FRAMES + 1]
)
def test_all_attention_kernels_give_the_same_result(
    n_positions: int, dtype: torch.dtype, causal: bool, training: bool
) -> None:
    rng = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 2, n_positions, 8, generator=rng).unbind()
    scores = queries @ keys.transpose(-1, -2) / 8**0.5
    if causal:
        later = torch.ones(n_positions, n_positions, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    expected = scores.softmax(-1) @ values
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        queries.requires_grad_(training)
        attended = attend(*(x.to(dtype) for x in (queries, keys, values)), causal=causal)
    assert attended.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(attended.float(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("n_frames", [801, 1500])
def test_equals_the_encoder_of_transformers_for_windows_of_up_to_30_s(n_frames: int) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**TINY.as_dict(), "max_source_positions": n_frames}
    theirs = TheirEncoder(WhisperConfig(**sizes)).eval()
    ours = WhisperEncoder(TINY).eval()
    ours.load_pretrained(theirs.state_dict())
    features = torch.randn(1, 80, 2 * n_frames)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(features), theirs(features).last_hidden_state, atol=1e-4, rtol=0
        )


def test_a_window_of_more_than_30_s_has_no_positions() -> None:
    encoder = WhisperEncoder(TINY)
    with pytest.raises(ValueError, match="1501 frames, but the encoder has 1500 positions"):
        encoder.stem(torch.zeros(1, 80, 3002))
