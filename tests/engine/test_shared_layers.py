from collections.abc import Sequence

import pytest
import torch

from hearback.engine.whisper.encoder import EncoderLayer, WhisperEncoder
from hearback.engine.whisper.shared_layers import SharedLayers, digest_stages, modules_once
from tests.conftest import TINY

LOG_MEL = torch.randn(2, TINY.num_mel_bins, 64, generator=torch.Generator().manual_seed(0))


def make_encoder(
    trained_layers: Sequence[int] = (), *, trained_stem: bool = False
) -> WhisperEncoder:
    """The backbone's encoder, some of its layers changed; every time in tensors of its own."""
    torch.manual_seed(0)
    encoder = WhisperEncoder(TINY)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in trained_layers:
            # The last of its weights: all before it are alike.
            encoder.layers[layer].get_parameter("fc2.bias").add_(torch.randn(TINY.d_model))
        if trained_stem:
            encoder.conv2.weight.mul_(1.1)
    return encoder.eval()


def plant(*encoders: WhisperEncoder) -> SharedLayers:
    shared_layers = SharedLayers()
    for encoder in encoders:
        digests = digest_stages(encoder)
        shared_layers.adopt(encoder, digests)
        shared_layers.add(encoder, digests)
    return shared_layers


@pytest.fixture
def layers_run(monkeypatch: pytest.MonkeyPatch) -> list[EncoderLayer]:
    """Every layer that is computed."""
    run: list[EncoderLayer] = []
    forward = EncoderLayer.forward

    def counted(self: EncoderLayer, x: torch.Tensor) -> torch.Tensor:
        run.append(self)
        return forward(self, x)

    monkeypatch.setattr(EncoderLayer, "forward", counted)
    return run


@torch.inference_mode()
def test_frames_are_those_of_each_encoder_alone() -> None:
    kinds = [[], [1], [0, 1], [1], [0]]
    encoders = [make_encoder(kind) for kind in kinds] + [make_encoder(trained_stem=True)]
    alone = [encoder(LOG_MEL) for encoder in encoders]
    frames = dict(plant(*encoders).encode(LOG_MEL))
    assert sorted(frames) == list(range(6))
    for number, expected in enumerate(alone):
        torch.testing.assert_close(frames[number], expected, atol=0, rtol=0)
    assert not torch.equal(frames[0], frames[1])


def test_what_is_alike_is_computed_once_and_held_once(layers_run: list[EncoderLayer]) -> None:
    first, second = make_encoder([1]), make_encoder()
    shared_layers = plant(first, second)
    assert first.layers[0] is second.layers[0] and first.conv1 is second.conv1
    assert first.layers[1] is not second.layers[1]
    assert shared_layers.shares() == (
        6,
        8,
    )  # stem, layer and norm and another layer and norm, of 2 × 4
    n_parameters = sum(
        p.numel() for m in modules_once([first, second]) for p in m.parameters(False)
    )
    own = [*second.layers[1].parameters(), *second.layer_norm.parameters()]
    assert n_parameters == sum(p.numel() for p in (*first.parameters(), *own))
    list(shared_layers.encode(LOG_MEL))
    assert len(layers_run) == 3


def test_an_encoder_that_is_another_s_copy_costs_nothing(layers_run: list[EncoderLayer]) -> None:
    frames = dict(plant(make_encoder(), make_encoder()).encode(LOG_MEL))
    assert len(layers_run) == 2
    torch.testing.assert_close(frames[0], frames[1], atol=0, rtol=0)


def test_layers_alike_after_others_that_are_not_are_not_shared(
    layers_run: list[EncoderLayer],
) -> None:
    list(plant(make_encoder([0]), make_encoder()).encode(LOG_MEL))
    assert len(layers_run) == 4


def test_the_same_weights_in_other_heads_are_another_stage() -> None:
    from dataclasses import replace

    other = WhisperEncoder(replace(TINY, encoder_attention_heads=4))
    encoder = WhisperEncoder(TINY)
    other.load_state_dict(encoder.state_dict())
    assert not set(digest_stages(encoder)) & set(digest_stages(other))


def test_without_digests_nothing_is_shared() -> None:
    shared_layers = SharedLayers()
    for _ in range(2):
        shared_layers.add(make_encoder())
    assert shared_layers.shares() == (8, 8)


@torch.inference_mode()
def test_the_stages_that_have_a_digest_are_shared_and_the_others_are_not(
    layers_run: list[EncoderLayer],
) -> None:
    first, second = make_encoder(), make_encoder()
    shared_layers = SharedLayers()
    for encoder in (first, second):
        digests = digest_stages(encoder, 2)
        assert digests == digest_stages(encoder)[:2]
        shared_layers.adopt(encoder, digests)
        shared_layers.add(encoder, digests)
    assert first.layers[0] is second.layers[0]
    assert first.layers[1] is not second.layers[1]
    assert shared_layers.shares() == (6, 8)
    frames = dict(shared_layers.encode(LOG_MEL))
    assert len(layers_run) == 3
    torch.testing.assert_close(frames[0], frames[1], atol=0, rtol=0)


@torch.inference_mode()
def test_encoders_that_are_dropped_are_not_computed(layers_run: list[EncoderLayer]) -> None:
    shared_layers = plant(make_encoder([1]), make_encoder(), make_encoder([0]), make_encoder())
    before = dict(shared_layers.encode(LOG_MEL))
    layers_run.clear()
    shared_layers.drop([1, 2])
    after = dict(shared_layers.encode(LOG_MEL))
    assert sorted(after) == [0, 3]
    assert len(layers_run) == 3  # the first in common, and either's second
    for number, frames in after.items():
        torch.testing.assert_close(frames, before[number], atol=0, rtol=0)
    shared_layers.drop([0, 3])
    assert not dict(shared_layers.encode(LOG_MEL))
