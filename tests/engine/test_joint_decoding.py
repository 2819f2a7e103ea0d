import pytest
import torch
from torch import nn

from hearback.engine.whisper.decoder import WhisperDecoder
from hearback.engine.whisper.joint_decoding import can_decode_jointly, decode_jointly
from hearback.engine.whisper.low_rank import LowRankLinear, add_low_rank, load_frozen
from tests.toy import DECODER as TINY_DECODER

LAYERS = ("self_attn.q_proj", "self_attn.v_proj", "encoder_attn.q_proj", "fc1", "fc2")


def make_decoders(n: int, first_layer: int = 0) -> list[WhisperDecoder]:
    """Return decoders of one backbone, with random updates from `first_layer` on."""
    torch.manual_seed(0)
    pretrained = WhisperDecoder(TINY_DECODER).state_dict()
    decoders = []
    for _ in range(n):
        decoder = WhisperDecoder(TINY_DECODER)
        decoder.requires_grad_(False)
        for layer in decoder.layers[first_layer:]:
            add_low_rank(layer, LAYERS, rank=3)
        load_frozen(decoder, pretrained)
        for name, parameter in decoder.named_parameters():
            if name.endswith(".up"):
                nn.init.normal_(parameter, std=0.2)
        decoders.append(decoder.eval())
    return decoders


def test_an_update_of_zeros_changes_nothing() -> None:
    linear = nn.Linear(6, 5)
    x = torch.randn(2, 3, 6)
    assert torch.equal(LowRankLinear(linear, 2)(x), linear(x))


def test_only_the_updates_are_trained() -> None:
    (decoder,) = make_decoders(1)
    trained = {name for name, each in decoder.named_parameters() if each.requires_grad}
    assert trained
    assert all(name.endswith((".up", ".down")) for name in trained)


def test_an_update_is_the_product_of_its_factors() -> None:
    layer = LowRankLinear(nn.Linear(6, 5), 2)
    nn.init.normal_(layer.up)
    x = torch.randn(4, 6)
    merged = layer.weight + layer.up @ layer.down
    torch.testing.assert_close(layer(x), x @ merged.T + layer.bias)


def test_an_unknown_layer_is_an_error() -> None:
    with pytest.raises(ValueError, match="fc3"):
        add_low_rank(WhisperDecoder(TINY_DECODER), ["fc3"], 2)


@pytest.mark.parametrize("first_layer", [0, 1])
def test_decoders_together_equal_each_alone(first_layer: int) -> None:
    decoders = make_decoders(3, first_layer)
    tokens = torch.randint(TINY_DECODER.vocab_size, (4, 7))
    frames = torch.randn(2, 11, TINY_DECODER.d_model)
    clips = torch.tensor([0, 1, 1, 0])
    with torch.inference_mode():
        together = decode_jointly(decoders, tokens, frames, clips)
        alone = torch.stack([decoder(tokens, frames, clips) for decoder in decoders])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_layers_without_updates_are_computed_once() -> None:
    decoders = make_decoders(3, first_layer=1)
    calls: list[int] = []
    for decoder in decoders:
        decoder.layers[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        decode_jointly(
            decoders,
            torch.randint(TINY_DECODER.vocab_size, (2, 5)),
            torch.randn(2, 11, TINY_DECODER.d_model),
            torch.tensor([0, 1]),
        )
    assert len(calls) == 1


def test_decoders_with_updates_of_the_recordings_are_not_decoded_together() -> None:
    decoder = WhisperDecoder(TINY_DECODER)
    assert not can_decode_jointly(decoder)
    add_low_rank(decoder, ["encoder_attn.k_proj", "fc1"], 2)
    assert not can_decode_jointly(decoder)
    assert can_decode_jointly(make_decoders(1)[0])
