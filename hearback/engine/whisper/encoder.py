"""Whisper's audio encoder for windows of up to 30 s, usually of up to 16 s.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2. The
parameters are named as in `transformers`' `WhisperEncoder`, so a pretrained state dict loads
unchanged. It is reimplemented here because `transformers` rejects windows shorter than the position
table, and because its interface differs between the versions that we support.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.log_mel import HOP

WINDOW_SECONDS = 16
SAMPLES_PER_FRAME = 2 * HOP  # an encoder frame is 20 ms: conv2 has stride 2
MAX_PLAIN_ATTENTION_FRAMES = 400  # above, it needs much memory (quadratic) for little speed-up
FRAMES_PER_SECOND = SAMPLE_RATE / SAMPLES_PER_FRAME
N_POSITIONS = WINDOW_SECONDS * SAMPLE_RATE // SAMPLES_PER_FRAME  # 800; Whisper has 1500
LONGEST_WINDOW_SECONDS = 30
LONGEST_TIMESCALE = 10_000  # of Whisper's sinusoids, in frames


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of a Whisper encoder, under the names of Transformers' `config.json`."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EncoderConfig":
        """Read the sizes from a Transformers `config.json` or the result of `as_dict`."""
        return cls(**{name: int(config[name]) for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict[str, int]:
        """Return the sizes under the names of a Transformers `config.json`."""
        return asdict(self)

    def multiply_adds(self, n_samples: int) -> float:
        """Return the multiply-adds of encoding a window of `n_samples`."""
        frames, width = n_samples / SAMPLES_PER_FRAME, self.d_model
        stem = 3 * frames * width * (2 * self.num_mel_bins + width)
        layer = frames * width * (4 * width + 2 * self.encoder_ffn_dim + 2 * frames)
        return stem + self.encoder_layers * layer


class Attention(nn.Module):
    """Multi-head attention; the key projection has no bias."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
        """Attend from `x` to precomputed keys and values.

        Args:
            x: (batch, positions, d_model).
            keys: (batch, heads, source positions, d_model / heads), from `keys_and_values`.
            values: same shape as `keys`.
            causal: mask later positions.

        Returns:
            (batch, positions, d_model).
        """
        attended = attend(self._heads(self.q_proj(x)), keys, values, causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(-2))

    def weights(self, x: Tensor, keys: Tensor, heads: Sequence[int], mask: Tensor) -> Tensor:
        """Return the attention weights of some heads, (batch, heads, positions, source positions).

        Args:
            x: (batch, positions, d_model).
            keys: (batch, all heads, source positions, d_model / heads), from `keys_and_values`.
            heads: the heads to return.
            mask: (batch, source positions) bool, the source positions to attend to.
        """
        # Stacked, as a list of numbers would be copied to the device.
        queries, keys = (
            torch.stack([each[:, head] for head in heads], dim=1)
            for each in (self._heads(self.q_proj(x)), keys)
        )
        products = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        return products.float().masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Project (batch, positions, d_model); (batch, heads, positions, d_model / heads) each."""
        return self._heads(self.k_proj(source)), self._heads(self.v_proj(source))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
    """Compute softmax(q kᵀ / √width) v for inputs of shape (batch, heads, positions, width).

    There is no padding mask: it would disable the fast kernels. All clips of a batch have the same
    window length.
    """
    on_bf16_cpu = queries.device.type == "cpu" and queries.dtype == torch.bfloat16
    plain = on_bf16_cpu and queries.requires_grad and keys.shape[-2] <= MAX_PLAIN_ATTENTION_FRAMES
    if causal or not plain:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
    # The fused kernel's backward pass is slow in bf16 on a CPU: plain matrix products, which the
    # processor has instructions for, take 1/3 to 1/2 of the time, forward and backward. Without a
    # backward pass (inference, frozen layers) the fused kernel is faster, 1.6 to 3 times.
    with torch.autocast("cpu", enabled=False):  # autocast would compute the softmax in float32
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        return scores.softmax(-1) @ values


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Return Whisper's fixed positions, (positions, width) float32: sines, then cosines."""
    n_waves = width // 2
    decay = math.log(LONGEST_TIMESCALE) / max(1, n_waves - 1)
    phases = torch.arange(n_positions)[:, None] * torch.exp(-decay * torch.arange(n_waves))
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, frames, d_model) to the same shape."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn(normed, *self.self_attn.keys_and_values(normed))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperEncoder(nn.Module):
    """Encode log-mel spectrograms, for any window of up to 30 s.

    The first `N_POSITIONS` positions are stored; those after are computed, as they are sinusoids.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(N_POSITIONS, config.d_model)
        # Whisper's positions are fixed sinusoids; training would only let them drift.
        self.embed_positions.requires_grad_(False)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Encode (batch, mel bins, 2 × frames) into (batch, frames, d_model)."""
        x = self.stem(log_mel)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)

    def stem(self, log_mel: Tensor) -> Tensor:
        """Apply convolutions and add positions: the input of the first layer.

        Maps (batch, mel bins, 2 × frames) to (batch, frames, d_model).
        """
        x = F.gelu(self.conv1(log_mel))
        # Contiguous once, here: otherwise every layer norm would read strided memory.
        x = F.gelu(self.conv2(x)).transpose(1, 2).contiguous()
        return x + self._positions(x.shape[1])

    def _positions(self, n_frames: int) -> Tensor:
        """Return the positions of a window, (frames, d_model)."""
        stored = self.embed_positions.weight
        if n_frames <= N_POSITIONS:
            return stored[:n_frames]
        most = int(LONGEST_WINDOW_SECONDS * FRAMES_PER_SECOND)
        if n_frames > most:
            raise ValueError(f"window of {n_frames} frames, but the encoder has {most} positions")
        rest = sinusoids(most, self.config.d_model)[N_POSITIONS:n_frames]
        return torch.cat([stored, rest.to(stored)])

    def freeze_below(self, n_layers: int) -> None:
        """Freeze the convolutions and the first `n_layers` layers; nothing for 0.

        With all layers, the final norm is frozen too: the whole encoder.
        """
        if n_layers == 0:
            return
        if n_layers == len(self.layers):
            self.layer_norm.requires_grad_(False)
        for module in (self.conv1, self.conv2, *self.layers[:n_layers]):
            module.requires_grad_(False)

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a Whisper encoder's state dict, keeping the first `N_POSITIONS` positions.

        An encoder with fewer layers takes the first ones. Its final norm then has no scale and no
        offset, for the pretrained ones are of the last layer.

        Raises:
            RuntimeError: a name or a shape does not match, as in `load_state_dict`.
        """
        cut = self._lower_layers(tensors)
        cut["embed_positions.weight"] = cut["embed_positions.weight"][:N_POSITIONS]
        self.load_state_dict(cut)

    def _lower_layers(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the layers that this encoder has."""
        n_layers = self.config.encoder_layers
        above = {name for name in tensors if _layer_number(name) >= n_layers}
        lower = {name: tensor for name, tensor in tensors.items() if name not in above}
        if above:
            plain = nn.LayerNorm(self.config.d_model).state_dict()
            lower |= {f"layer_norm.{name}": tensor for name, tensor in plain.items()}
        return lower


def _layer_number(name: str) -> int:
    """Return the number of the layer of a tensor, such as layers.3.fc1.weight; -1 for others."""
    first, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if first == "layers" else -1
