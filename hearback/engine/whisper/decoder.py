"""Whisper's text decoder: it reads a text while it listens to a recording.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2. The
parameters are named as in `transformers`' `WhisperDecoder`, so a pretrained state dict loads as it
is. Written out here, like the encoder, because several texts are read against one recording that
was encoded once.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.whisper.encoder import Attention


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a Whisper decoder, as its `config.json` names them."""

    d_model: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    vocab_size: int
    max_target_positions: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DecoderShape":
        """Read the sizes from a Transformers `config.json` (or from what `as_config` gave)."""
        return cls(**{name: int(config[name]) for name in cls.__dataclass_fields__})

    def as_config(self) -> dict[str, int]:
        """Return the sizes under the names of a Transformers `config.json`."""
        return asdict(self)


class DecoderLayer(nn.Module):
    """A pre-norm transformer layer that looks at the tokens so far and at the recording."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(shape.d_model)
        self.self_attn = Attention(shape.d_model, shape.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(shape.d_model)
        self.encoder_attn = Attention(shape.d_model, shape.decoder_attention_heads)
        self.final_layer_norm = nn.LayerNorm(shape.d_model)
        self.fc1 = nn.Linear(shape.d_model, shape.decoder_ffn_dim)
        self.fc2 = nn.Linear(shape.decoder_ffn_dim, shape.d_model)

    def forward(self, x: Tensor, frames: Tensor, clips: Tensor) -> Tensor:
        """Map (texts, tokens, d_model) to the same shape; the rest as in `WhisperDecoder`."""
        normed = self.self_attn_layer_norm(x)
        own = self.self_attn.keys_and_values(normed)
        x = x + self.self_attn(normed, *own, causal=True)
        # Projected once per recording, then handed to each of its texts.
        keys, values = self.encoder_attn.keys_and_values(frames)
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), keys[clips], values[clips])
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperDecoder(nn.Module):
    """Tokens and a recording's frames to what the decoder makes of each token.

    Its output layer shares the embedding's weights; tokens' and positions' embeddings are frozen.
    """

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.d_model)
        self.embed_positions = nn.Embedding(shape.max_target_positions, shape.d_model)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder_layers))
        self.layer_norm = nn.LayerNorm(shape.d_model)
        # More than half of a small Whisper's weights, and a few thousand clips would move only the
        # rows of the words that they say.
        self.embed_tokens.requires_grad_(False)
        self.embed_positions.requires_grad_(False)

    def forward(self, tokens: Tensor, frames: Tensor, clips: Tensor) -> Tensor:
        """Read texts against recordings.

        `tokens` is (texts, tokens) of ids, `frames` (recordings, frames, d_model) from the encoder,
        `clips` (texts,) says which recording a text is read against; the result is (texts, tokens,
        d_model). A token sees none that follow it, so padding after a text changes nothing.
        """
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, frames, clips)
        return self.layer_norm(x)
