from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hearback.engine.whisper.decoder import WhisperDecoder
from hearback.engine.whisper.joint_decoding import can_decode_jointly, decode_jointly
from hearback.engine.whisper.low_rank import LowRankLinear, add_low_rank, load_frozen
from tests.toy import DECODER as TINY_DECODER

LAYERS = ("self_attn.q_proj", "self_attn.v_proj", "encoder_attn.q_proj", "fc1", "fc2")
# Those of the recipe modeltoklow: all that a recording's keys and values do not pass through.
MORE_LAYERS = (*LAYERS, "self_attn.k_proj", "self_attn.out_proj", "encoder_attn.out_proj")


def make_decoders(
    n: int, first_layer: int = 0, names: Sequence[str] = LAYERS
) -> list[WhisperDecoder]:
    """Return decoders of one backbone, with random updates from `first_layer` on."""
    torch.manual_seed(0)
    pretrained = WhisperDecoder(TINY_DECODER).state_dict()
    decoders = []
    for _ in range(n):
        decoder = WhisperDecoder(TINY_DECODER)
        decoder.requires_grad_(False)
        for layer in decoder.layers[first_layer:]:
            add_low_rank(layer, names, rank=3)
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


def decode_both(decoders: Sequence[WhisperDecoder]) -> tuple[Tensor, Tensor]:
    """Return the states of some texts from the decoders together, and from each alone."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(TINY_DECODER.vocab_size, (4, 7), generator=random)
    frames = torch.randn(2, 11, TINY_DECODER.d_model, generator=random)
    clips = torch.tensor([0, 1, 1, 0])
    with torch.inference_mode():
        together = decode_jointly(decoders, tokens, frames, clips)
        alone = torch.stack([decoder(tokens, frames, clips) for decoder in decoders])
    return together, alone


@pytest.mark.parametrize("names", [LAYERS, MORE_LAYERS])
@pytest.mark.parametrize("first_layer", [0, 1])
def test_decoders_together_equal_each_alone(first_layer: int, names: Sequence[str]) -> None:
    together, alone = decode_both(make_decoders(3, first_layer, names))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_decoders_together_are_as_precise_in_bf16_as_each_alone() -> None:
    decoders = make_decoders(3, names=MORE_LAYERS)
    _, exact = decode_both(decoders)
    with torch.autocast("cpu", torch.bfloat16):
        together, alone = decode_both(decoders)
    error, error_alone = ((each - exact).square().mean().sqrt() for each in (together, alone))
    assert 0 < error < 1.2 * error_alone


def test_weights_are_not_copied_for_each_text() -> None:
    class Products(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.bmm.default:
                shapes.add(tuple(args[1].shape[1:]))
            return func(*args, **(kwargs or {}))

    shapes = set[tuple[int, ...]]()
    decoders = make_decoders(3, names=MORE_LAYERS)
    tokens, frames = torch.zeros(4, 7, dtype=torch.int64), torch.zeros(2, 11, TINY_DECODER.d_model)
    with torch.no_grad(), Products():  # inference mode would show the mode no bmm
        decode_jointly(decoders, tokens, frames, torch.tensor([0, 1, 1, 0]))
    assert (TINY_DECODER.d_model, 3) in shapes  # the updates
    assert (TINY_DECODER.d_model, TINY_DECODER.d_model) not in shapes


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
