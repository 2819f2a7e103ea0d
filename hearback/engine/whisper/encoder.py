"""Whisper's audio encoder, cut to the window that Hearback listens to.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2. The
parameters are named as in `transformers`' `WhisperEncoder`, so a pretrained state dict loads as it
is. Written out here rather than imported because a window may be shorter than the table of
positions, which `transformers` refuses, and because its interface moves between the versions that
we support.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.log_mel import HOP

WINDOW_SECONDS = 16
SAMPLES_PER_FRAME = 2 * HOP  # the second convolution halves the mel frames: 20 ms an encoder frame
LONGEST_PLAIN_ATTENTION = 400  # frames: above, little is gained and memory grows with the square
FRAMES_PER_SECOND = SAMPLE_RATE / SAMPLES_PER_FRAME
N_POSITIONS = WINDOW_SECONDS * SAMPLE_RATE // SAMPLES_PER_FRAME  # 800 of Whisper's 1500


@dataclass(frozen=True)
class EncoderShape:
    """The sizes of a Whisper encoder, as its `config.json` names them."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EncoderShape":
        """Read the sizes from a Transformers `config.json` (or from what `as_config` gave)."""
        return cls(**{name: int(config[name]) for name in cls.__dataclass_fields__})

    def as_config(self) -> dict[str, int]:
        """Return the sizes under the names of a Transformers `config.json`."""
        return asdict(self)


class Attention(nn.Module):
    """Multi-head attention; keys have no bias."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
        """Map (batch, places, d_model) to the same shape.

        `keys` and `values` are those of `keys_and_values`; `causal` hides what comes later.
        """
        attended = attend(self._heads(self.q_proj(x)), keys, values, causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(-2))

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is attended to, (batch, heads, places, d_model / heads) each."""
        return self._heads(self.k_proj(source)), self._heads(self.v_proj(source))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Tensor:
    """Return softmax(q kᵀ / √width) v of (batch, heads, places, width) each.

    No mask: it would send attention down its slow path. A batch holds one window length.
    """
    on_bf16_cpu = queries.device.type == "cpu" and queries.dtype == torch.bfloat16
    plain = on_bf16_cpu and queries.requires_grad and keys.shape[-2] <= LONGEST_PLAIN_ATTENTION
    if causal or not plain:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=causal)
    # The way back through the fused kernel is slow in bf16 on a CPU: plain products, which the
    # processor has instructions for, take a half to a third, forward and back. Where nothing goes
    # back (inference, frozen layers) the fused kernel is 1.6 to 3 times as fast as they are.
    with torch.autocast("cpu", enabled=False):  # it would hold the softmax in float32
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        return scores.softmax(-1) @ values


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(shape.d_model)
        self.self_attn = Attention(shape.d_model, shape.encoder_attention_heads)
        self.final_layer_norm = nn.LayerNorm(shape.d_model)
        self.fc1 = nn.Linear(shape.d_model, shape.encoder_ffn_dim)
        self.fc2 = nn.Linear(shape.encoder_ffn_dim, shape.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, frames, d_model) to the same shape."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn(normed, *self.self_attn.keys_and_values(normed))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperEncoder(nn.Module):
    """Log-mel spectrogram to frames, for any window of up to `N_POSITIONS` frames."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.conv1 = nn.Conv1d(shape.num_mel_bins, shape.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(shape.d_model, shape.d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(N_POSITIONS, shape.d_model)
        # Sinusoids in Whisper, not learned there either: training them would only let them drift.
        self.embed_positions.requires_grad_(False)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))
        self.layer_norm = nn.LayerNorm(shape.d_model)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Encode (batch, mel bins, 2 × frames) to (batch, frames, d_model)."""
        x = self.stem(log_mel)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)

    def stem(self, log_mel: Tensor) -> Tensor:
        """Return what the first layer takes in: the convolutions' frames with their positions."""
        x = F.gelu(self.conv1(log_mel))
        # Laid anew: all layers would go on with frames that lie across memory, norm by norm.
        x = F.gelu(self.conv2(x)).transpose(1, 2).contiguous()
        n_frames = x.shape[1]
        if n_frames > N_POSITIONS:
            raise ValueError(
                f"a window of {n_frames} frames; the encoder has {N_POSITIONS} positions"
            )
        return x + self.embed_positions.weight[:n_frames]

    def freeze_below(self, n_layers: int) -> None:
        """Freeze the first `n_layers` layers and the convolutions before them; 0: nothing."""
        if n_layers == 0:
            return
        for module in (self.conv1, self.conv2, *self.layers[:n_layers]):
            module.requires_grad_(False)

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a Whisper encoder's state dict, keeping the first `N_POSITIONS` positions.

        Raises RuntimeError where a name or a shape does not fit, as `load_state_dict` does.
        """
        cut = dict(tensors)
        cut["embed_positions.weight"] = cut["embed_positions.weight"][:N_POSITIONS]
        self.load_state_dict(cut)
