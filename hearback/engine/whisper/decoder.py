"""Whisper's text decoder, run with teacher forcing on expected texts.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2. The
parameters are named as in `transformers`' `WhisperDecoder`, so a pretrained state dict loads
unchanged. It is reimplemented here, like the encoder, so that several texts can attend to one
recording that is encoded once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.errors import HearbackError
from hearback.engine.whisper.encoder import Attention


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a Whisper decoder, under the names of Transformers' `config.json`."""

    d_model: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    vocab_size: int
    max_target_positions: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DecoderConfig":
        """Read the sizes from a Transformers `config.json` or the result of `as_dict`.

        Raises HearbackError for a missing size.
        """
        if missing := [name for name in cls.__dataclass_fields__ if name not in config]:
            raise HearbackError(
                f"the backbone's config.json has no {missing[0]}: this model needs a whole "
                "Whisper, with its decoder"
            )
        return cls(**{name: int(config[name]) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, int]:
        """Return the sizes under the names of a Transformers `config.json`."""
        return asdict(self)


class DecoderLayer(nn.Module):
    """A pre-norm transformer layer: causal self-attention, cross-attention, feed-forward."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn = Attention(config.d_model, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config.d_model, config.decoder_attention_heads)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, config.d_model)

    def forward(self, x: Tensor, frames: Tensor, clips: Tensor) -> Tensor:
        """Map (texts, tokens, d_model) to the same shape; arguments as in `WhisperDecoder`."""
        x = self.attend_to_text(x)
        # Project each recording once, then select it for each of its texts.
        keys, values = self.encoder_attn.keys_and_values(frames)
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), keys[clips], values[clips])
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))

    def attend_to_text(self, x: Tensor) -> Tensor:
        """Apply the first third of the layer, causal self-attention; shapes as in `forward`."""
        normed = self.self_attn_layer_norm(x)
        own = self.self_attn.keys_and_values(normed)
        return x + self.self_attn(normed, *own, causal=True)

    def cross_attention(
        self, x: Tensor, frames: Tensor, clips: Tensor, heads: Sequence[int], mask: Tensor
    ) -> Tensor:
        """Return weights of some heads, (texts, heads, tokens, frames), for the layer's input `x`.

        `mask`, (recordings, frames) bool, tells which frames to attend to.
        """
        keys, _ = self.encoder_attn.keys_and_values(frames)
        normed = self.encoder_attn_layer_norm(self.attend_to_text(x))
        return self.encoder_attn.weights(normed, keys[clips], heads, mask[clips])


class WhisperDecoder(nn.Module):
    """Maps token ids and encoded recordings to the last hidden states.

    The output layer (tied to `embed_tokens`) is not applied. Token and position embeddings are
    frozen.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_target_positions, config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)
        # The embeddings are more than half of a small Whisper's weights, and a small data set would
        # train only the rows of the tokens that occur in it.
        self.embed_tokens.requires_grad_(False)
        self.embed_positions.requires_grad_(False)

    def forward(self, tokens: Tensor, frames: Tensor, clips: Tensor) -> Tensor:
        """Compute hidden states of texts given recordings.

        Attention is causal, so padding after a text does not change its states.

        Args:
            tokens: (texts, tokens) int64 ids.
            frames: (recordings, frames, d_model), from the encoder.
            clips: (texts,) int64, index of each text's recording.

        Returns:
            (texts, tokens, d_model).
        """
        x = self._embed(tokens)
        for layer in self.layers:
            x = layer(x, frames, clips)
        return self.layer_norm(x)

    def cross_attention(
        self,
        tokens: Tensor,
        frames: Tensor,
        clips: Tensor,
        heads: Sequence[tuple[int, int]],
        mask: Tensor,
    ) -> Tensor:
        """Return the attention weights of some heads, (texts, heads, tokens, frames) float32.

        This is a pass of its own, up to the last layer of `heads`.

        Args:
            tokens: (texts, tokens) int64 ids.
            frames: (recordings, frames, d_model), from the encoder.
            clips: (texts,) int64, index of each text's recording.
            heads: layer and head of each, ordered by layer.
            mask: (recordings, frames) bool, frames to attend to: not those of the padding.
        """
        x = self._embed(tokens)
        weights = []
        for number, layer in enumerate(self.layers[: heads[-1][0] + 1]):
            assert isinstance(layer, DecoderLayer)
            if chosen := [head for at, head in heads if at == number]:
                weights.append(layer.cross_attention(x, frames, clips, chosen, mask))
            x = layer(x, frames, clips)
        return torch.cat(weights, dim=1)

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
