"""Decode with several models at once, whose decoders differ in low-rank updates only.

The frozen weights are applied to all decoders' states in one product. The keys and values of the
recordings, which have no update, are computed once. The states equal those of each decoder alone,
up to the rounding of sums.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.whisper.decoder import DecoderLayer, WhisperDecoder
from hearback.engine.whisper.encoder import Attention, attend
from hearback.engine.whisper.low_rank import LowRankLinear


def can_decode_jointly(decoder: WhisperDecoder) -> bool:
    """Return whether a decoder has updates, and none on the keys and values of recordings."""
    has_updates = any(isinstance(module, LowRankLinear) for module in decoder.modules())
    return has_updates and not any(
        isinstance(module, LowRankLinear)
        and name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
        for name, module in decoder.named_modules()
    )


def decode_jointly(
    decoders: Sequence[WhisperDecoder], tokens: Tensor, frames: Tensor, clips: Tensor
) -> Tensor:
    """Compute the hidden states of texts given recordings, with every decoder.

    Args:
        decoders: of equal frozen weights; see `can_decode_jointly`.
        tokens: (texts, tokens) int64 ids.
        frames: (recordings, frames, d_model), from the encoder that they share.
        clips: (texts,) int64, index of each text's recording.

    Returns:
        (decoders, texts, tokens, d_model).
    """
    first = decoders[0]
    embedded = first.embed_tokens(tokens) + first.embed_positions.weight[: tokens.shape[1]]
    n_equal = _count_equal_layers(decoders)
    for layer in first.layers[:n_equal]:
        embedded = layer(embedded, frames, clips)
    x = embedded[None]  # until the first update, all decoders have the same states
    for layers in zip(*(decoder.layers[n_equal:] for decoder in decoders), strict=True):
        x = _apply_layers(layers, x, frames, clips)
    return first.layer_norm(x)


def _count_equal_layers(decoders: Sequence[WhisperDecoder]) -> int:
    """Return the number of lower layers in which no decoder has updates."""
    layers = list(zip(*(decoder.layers for decoder in decoders), strict=True))
    adapted = (
        number
        for number, of_each in enumerate(layers)
        if any(isinstance(module, LowRankLinear) for each in of_each for module in each.modules())
    )
    return next(adapted, len(layers))


def _apply_layers(
    layers: Sequence[DecoderLayer], x: Tensor, frames: Tensor, clips: Tensor
) -> Tensor:
    """Apply a layer of each decoder to (decoders, texts, tokens, d_model).

    Also to (1, texts, tokens, d_model), the same for all decoders.
    """
    first = layers[0]
    x = x + _attend_to_text([layer.self_attn for layer in layers], first.self_attn_layer_norm(x))
    keys, values = first.encoder_attn.keys_and_values(frames)
    x = x + _attend_to_recordings(
        [layer.encoder_attn for layer in layers],
        first.encoder_attn_layer_norm(x),
        keys[clips],
        values[clips],
    )
    hidden = F.gelu(_project([layer.fc1 for layer in layers], first.final_layer_norm(x)))
    return x + _project([layer.fc2 for layer in layers], hidden)


def _attend_to_text(attentions: Sequence[Attention], x: Tensor) -> Tensor:
    """Apply causal self-attention; the texts of all decoders are one batch."""
    queries, keys, values = (
        _heads(_project([a.get_submodule(name) for a in attentions], x).flatten(0, 1), attentions)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    attended = attend(queries, keys, values, causal=True).transpose(1, 2).flatten(-2)
    attended = attended.unflatten(0, (len(attentions), -1))
    return _project([a.out_proj for a in attentions], attended)


def _attend_to_recordings(
    attentions: Sequence[Attention], x: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Apply cross-attention; the tokens of all decoders are the queries of one text."""
    n_decoders, _, n_tokens, _ = x.shape
    queries = _project([a.q_proj for a in attentions], x)
    queries = _heads(queries.transpose(0, 1).flatten(1, 2), attentions)
    attended = attend(queries, keys, values).transpose(1, 2).flatten(-2)
    attended = attended.unflatten(1, (n_decoders, n_tokens)).transpose(0, 1)
    return _project([a.out_proj for a in attentions], attended)


def _heads(x: Tensor, attentions: Sequence[Attention]) -> Tensor:
    return x.unflatten(-1, (attentions[0].n_heads, -1)).transpose(1, 2)


def _project(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Apply a linear layer of each decoder; shapes as in `_apply_layers`."""
    first = layers[0]
    # As contiguous rows: of a transposed `x`, torch would multiply each text with a copy of the
    # weights.
    rows = x.flatten(1, 2)
    if isinstance(first, LowRankLinear):
        down = torch.stack([layer.get_parameter("down") for layer in layers])
        up = torch.stack([layer.get_parameter("up") for layer in layers])
        frozen = F.linear(rows, first.weight, first.bias)
        projected = torch.baddbmm(frozen, rows @ down.transpose(1, 2), up.transpose(1, 2))
    else:
        projected = first(rows).expand(len(layers), -1, -1)
    return projected.unflatten(1, x.shape[1:3])
