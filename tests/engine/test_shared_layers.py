"""Sharing identical encoder layers: same results, less computation and memory."""

from collections.abc import Sequence

import pytest
import torch

from hearback.engine.whisper.encoder import EncoderLayer, WhisperEncoder
from hearback.engine.whisper.shared_layers import SharedLayers, digest_stages, unique_modules
from tests.conftest import TINY

LOG_MEL = torch.randn(2, TINY.num_mel_bins, 64, generator=torch.Generator().manual_seed(0))


def make_encoder(
    trained_layers: Sequence[int] = (), *, trained_stem: bool = False
) -> WhisperEncoder:
    """An encoder with the backbone's weights, some layers changed; no shared tensors."""
    torch.manual_seed(0)
    encoder = WhisperEncoder(TINY)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in trained_layers:
            # Its last weight: all weights before it are equal.
            encoder.layers[layer].get_parameter("fc2.bias").add_(torch.randn(TINY.d_model))
        if trained_stem:
            encoder.conv2.weight.mul_(1.1)
    return encoder.eval()


def share(*encoders: WhisperEncoder) -> SharedLayers:
    shared_layers = SharedLayers()
    for encoder in encoders:
        digests = digest_stages(encoder)
        shared_layers.share_modules(encoder, digests)
        shared_layers.add(encoder, digests)
    return shared_layers


@pytest.fixture
def layers_run(monkeypatch: pytest.MonkeyPatch) -> list[EncoderLayer]:
    """A list of every layer that is computed."""
    run: list[EncoderLayer] = []
    forward = EncoderLayer.forward

    def counted(self: EncoderLayer, x: torch.Tensor) -> torch.Tensor:
        run.append(self)
        return forward(self, x)

    monkeypatch.setattr(EncoderLayer, "forward", counted)
    return run


@torch.inference_mode()
def test_frames_equal_those_of_each_encoder_alone() -> None:
    kinds = [[], [1], [0, 1], [1], [0]]
    encoders = [make_encoder(kind) for kind in kinds] + [make_encoder(trained_stem=True)]
    alone = [encoder(LOG_MEL) for encoder in encoders]
    frames = dict(share(*encoders).encode(LOG_MEL))
    assert sorted(frames) == list(range(6))
    for number, expected in enumerate(alone):
        torch.testing.assert_close(frames[number], expected, atol=0, rtol=0)
    assert not torch.equal(frames[0], frames[1])


def test_equal_stages_are_computed_and_stored_once(layers_run: list[EncoderLayer]) -> None:
    first, second = make_encoder([1]), make_encoder()
    shared_layers = share(first, second)
    assert first.layers[0] is second.layers[0] and first.conv1 is second.conv1
    assert first.layers[1] is not second.layers[1]
    # Stem, layer 0, and two branches of layer 1 and norm; 2 × 4 without sharing.
    assert shared_layers.count_stages() == (6, 8)
    n_parameters = sum(
        p.numel() for m in unique_modules([first, second]) for p in m.parameters(False)
    )
    own = [*second.layers[1].parameters(), *second.layer_norm.parameters()]
    assert n_parameters == sum(p.numel() for p in (*first.parameters(), *own))
    list(shared_layers.encode(LOG_MEL))
    assert len(layers_run) == 3


def test_a_copy_of_an_encoder_is_not_computed_again(layers_run: list[EncoderLayer]) -> None:
    frames = dict(share(make_encoder(), make_encoder()).encode(LOG_MEL))
    assert len(layers_run) == 2
    torch.testing.assert_close(frames[0], frames[1], atol=0, rtol=0)


def test_equal_layers_after_different_ones_are_not_shared(
    layers_run: list[EncoderLayer],
) -> None:
    list(share(make_encoder([0]), make_encoder()).encode(LOG_MEL))
    assert len(layers_run) == 4


def test_equal_weights_with_another_number_of_heads_have_another_digest() -> None:
    from dataclasses import replace

    other = WhisperEncoder(replace(TINY, encoder_attention_heads=4))
    encoder = WhisperEncoder(TINY)
    other.load_state_dict(encoder.state_dict())
    assert not set(digest_stages(encoder)) & set(digest_stages(other))


def test_without_digests_nothing_is_shared() -> None:
    shared_layers = SharedLayers()
    for _ in range(2):
        shared_layers.add(make_encoder())
    assert shared_layers.count_stages() == (8, 8)


@torch.inference_mode()
def test_only_stages_with_a_digest_are_shared(
    layers_run: list[EncoderLayer],
) -> None:
    first, second = make_encoder(), make_encoder()
    shared_layers = SharedLayers()
    for encoder in (first, second):
        digests = digest_stages(encoder, 2)
        assert digests == digest_stages(encoder)[:2]
        shared_layers.share_modules(encoder, digests)
        shared_layers.add(encoder, digests)
    assert first.layers[0] is second.layers[0]
    assert first.layers[1] is not second.layers[1]
    assert shared_layers.count_stages() == (6, 8)
    frames = dict(shared_layers.encode(LOG_MEL))
    assert len(layers_run) == 3
    torch.testing.assert_close(frames[0], frames[1], atol=0, rtol=0)


@torch.inference_mode()
def test_removed_encoders_are_not_computed(layers_run: list[EncoderLayer]) -> None:
    shared_layers = share(make_encoder([1]), make_encoder(), make_encoder([0]), make_encoder())
    before = dict(shared_layers.encode(LOG_MEL))
    layers_run.clear()
    shared_layers.remove([1, 2])
    after = dict(shared_layers.encode(LOG_MEL))
    assert sorted(after) == [0, 3]
    assert len(layers_run) == 3  # the shared first layer and both second layers
    for number, frames in after.items():
        torch.testing.assert_close(frames, before[number], atol=0, rtol=0)
    shared_layers.remove([0, 3])
    assert not dict(shared_layers.encode(LOG_MEL))
