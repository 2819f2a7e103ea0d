"""A recogniser of phones: waveforms to log-probabilities of phones every 20 ms, trained with CTC.

Graves et al., "Connectionist Temporal Classification", 2006; a small Conformer (Gulati et al.,
"Conformer: Convolution-augmented Transformer for Speech Recognition", 2020) of 2 million parameters
without positions. It computes what the ASR model of the PyPI wheel `hama` computes, but in batches,
on any device, and can be trained: `pretrained` loads that model's weights.

    recogniser = load_ctc(Path("assets/hama-phones"))
    log_probs, n_frames = recogniser(waveforms, n_samples)

A clip's results do not depend on the other clips of its batch, nor on what lies behind its end.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.devices import to_device

N_FFT = 400  # samples: a 25 ms Hann window, at 16 kHz
HOP = 160  # samples: 10 ms a mel frame
SAMPLES_PER_FRAME = 2 * HOP  # a frame is 20 ms: the stem has stride 2
_MARGIN = N_FFT // 2  # samples reflected at both ends of a clip
_FLOOR = 1e-10  # of the mel energies
# The weights were exported with √2 rounded to float16 in the stem's GELU; log-probabilities of the
# exact GELU differ by some 5e-4.
_GELU_SCALE = math.sqrt(2) / 1.4140625


@dataclass(frozen=True)
class PhoneCTCConfig:
    """Sizes of a `PhoneCTC`.

    Attributes:
        n_tokens: phones and special tokens, blank included.
        n_mels: mel bins.
        width: of the hidden states.
        n_blocks: conformer blocks.
        n_heads: of the attention; a divisor of `width`.
        ffn_width: of the hidden layer of the feed-forward parts.
        kernel: frames that the convolution of a block sees; odd.
        dropout: rate of dropout while training.
    """

    n_tokens: int = 191
    n_mels: int = 80
    width: int = 144
    n_blocks: int = 4
    n_heads: int = 4
    ffn_width: int = 576
    kernel: int = 31
    dropout: float = 0.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "PhoneCTCConfig":
        """Read the sizes from a JSON object. Raises ValueError for unknown or invalid ones."""
        if unknown := config.keys() - cls.__dataclass_fields__:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        for name, value in config.items():
            kinds = (int, float) if name == "dropout" else int
            if isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
                raise ValueError(f"{name} is {str(value)[:40]!r}")
        sizes = cls(**config)
        if min(sizes.n_heads, sizes.width) < 1 or sizes.width % sizes.n_heads:
            raise ValueError(f"width {sizes.width} is no multiple of n_heads {sizes.n_heads}")
        if sizes.kernel % 2 == 0:
            raise ValueError(f"kernel is {sizes.kernel}, not odd")
        return sizes

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes as a JSON object."""
        return asdict(self)

    def multiply_adds(self, n_samples: int) -> float:
        """Return the multiply-adds of recognising a clip of `n_samples`."""
        frames, width = n_samples / SAMPLES_PER_FRAME, self.width
        spectrum = 2 * frames * (N_FFT // 2) * (2 * N_FFT + self.n_mels)  # 2 mel frames a frame
        stem = 3 * frames * width * self.n_mels
        convolution = 3 * width + self.kernel
        block = frames * width * (4 * self.ffn_width + 4 * width + 2 * frames + convolution)
        return spectrum + stem + self.n_blocks * block + frames * width * self.n_tokens


def count_frames(n_samples: Tensor) -> Tensor:
    """Return the numbers of frames of clips with these numbers of samples; at least 1."""
    return (count_mel_frames(n_samples) + 1) // 2


def count_mel_frames(n_samples: Tensor) -> Tensor:
    """Return the numbers of mel frames of clips with these numbers of samples; at least 1."""
    return n_samples // HOP + 1


class PhoneCTC(nn.Module):
    """The recogniser of phones.

    `forward` is `project` after `encode`, and `encode` is `encode_mel` after `log_mel`.
    """

    mel_filters: Tensor

    def __init__(self, config: PhoneCTCConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PhoneCTCConfig()
        # Not trained, but part of the weights: this filter bank is no library's.
        self.register_buffer("mel_filters", torch.zeros(N_FFT // 2 + 1, config.n_mels))
        self.stem = nn.Conv1d(config.n_mels, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.n_blocks))
        self.proj = nn.Linear(config.width, config.n_tokens)

    def forward(self, waveforms: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the log-probabilities of phones.

        Args:
            waveforms: (batch, samples) at 16 kHz, float, of -1 to 1.
            n_samples: (batch,) int, the samples of each clip, up to `samples`.

        Returns:
            Natural log-probabilities, (batch, frames, n_tokens) float32, and the number of frames
            of each clip, (batch,) int64, as `count_frames`. Ignore a clip's other frames.
        """
        hidden, n_frames = self.encode(waveforms, n_samples)
        return self.project(hidden), n_frames

    def encode(self, waveforms: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states, (batch, frames, width), and numbers of frames, (batch,)."""
        mel, n_mel_frames = self.log_mel(waveforms, n_samples)
        return self.encode_mel(mel, n_mel_frames)

    def project(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities of hidden states, (batch, frames, n_tokens) float32."""
        return self.proj(hidden).float().log_softmax(-1)

    @torch.no_grad()
    def log_mel(self, waveforms: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-mel spectrograms; no gradients flow to the waveforms.

        Returns:
            Natural logarithms of mel energies, (batch, mel frames, n_mels) float32, zeros behind a
            clip's end; and the number of mel frames of each clip, (batch,) int64.
        """
        n_samples = n_samples.to(waveforms.device, torch.int64)
        # No autocast: a power spectrum in half precision over- and underflows.
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = _reflect_ends(waveforms.float(), n_samples).unfold(-1, N_FFT, HOP)
            # A matrix product: a GPU may compute convolutions with 10 bits of precision (TF32).
            real, imaginary = (frames @ _dft(waveforms.device)).chunk(2, dim=-1)
            power = real.square() + imaginary.square()
            mel = (power @ self.mel_filters.float()).clamp(min=_FLOOR).log()
            # The weights were exported so: the network gets float16.
            mel = mel.half().float()
        n_mel_frames = count_mel_frames(n_samples)
        return mel * _mask(n_mel_frames, mel.shape[1])[..., None], n_mel_frames

    def encode_mel(self, mel: Tensor, n_mel_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states and numbers of frames, of the results of `log_mel`."""
        x = self.stem(mel.transpose(1, 2)).transpose(1, 2)
        x = F.gelu(x * _GELU_SCALE) / _GELU_SCALE
        n_frames = (n_mel_frames + 1) // 2
        mask = _mask(n_frames, x.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        return x, n_frames


class ConformerBlock(nn.Module):
    """Half a feed-forward part, attention, convolution, the other half; normalised at the end."""

    def __init__(self, config: PhoneCTCConfig) -> None:
        super().__init__()
        self.ffn1 = FeedForward(config)
        self.attention = SelfAttention(config)
        self.conv = Convolution(config)
        self.ffn2 = FeedForward(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape; `mask` is True within the clips."""
        x = x + 0.5 * self.ffn1(x)
        x = x + self.attention(x, mask)
        x = x + self.conv(x, mask)
        x = x + 0.5 * self.ffn2(x)
        return self.norm(x)


class FeedForward(nn.Module):
    """Two layers with a SiLU between them."""

    def __init__(self, config: PhoneCTCConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.ffn_width)
        self.fc2 = nn.Linear(config.ffn_width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape."""
        return self.dropout(self.fc2(self.dropout(F.silu(self.fc1(self.norm(x))))))


class SelfAttention(nn.Module):
    """Multi-head attention within a clip, without positions."""

    def __init__(self, config: PhoneCTCConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape; `mask` is True within the clips."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.n_heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask[:, None, None]
        )
        return self.dropout(self.out(attended.transpose(1, 2).flatten(-2)))


class Convolution(nn.Module):
    """A gated convolution over time, each channel by itself.

    A batch normalisation after the depthwise convolution is part of its weights.
    """

    def __init__(self, config: PhoneCTCConfig) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.norm = nn.LayerNorm(width)
        self.pointwise1 = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.pointwise2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (batch, frames, width) to the same shape; `mask` is True within the clips."""
        x = F.glu(self.pointwise1(self.norm(x)))
        # Zeros behind a clip, as the convolution pads its end.
        x = x.masked_fill(~mask[..., None], 0.0)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.pointwise2(F.silu(x)))


def _mask(lengths: Tensor, longest: int) -> Tensor:
    """Return a mask, (batch, longest) bool, True for the first `lengths` items of each row."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def _reflect_ends(waveforms: Tensor, n_samples: Tensor) -> Tensor:
    """Return clips with `_MARGIN` reflected samples before the start and after each one's end.

    A clip that is too short to be reflected gets zeros at its end first.

    Args:
        waveforms: (batch, samples) float32.
        n_samples: (batch,) int64, the samples of each clip.

    Returns:
        (batch, max(samples, _MARGIN + 1) + 2 * _MARGIN); unspecified behind a clip's margin.
    """
    shortest = _MARGIN + 1
    waveforms = waveforms.masked_fill(~_mask(n_samples, waveforms.shape[1]), 0.0)
    waveforms = F.pad(waveforms, (0, max(0, shortest - waveforms.shape[1])))
    last = n_samples.clamp(min=shortest)[:, None] - 1
    places = torch.arange(-_MARGIN, waveforms.shape[1] + _MARGIN, device=waveforms.device).abs()
    places = torch.where(places > last, 2 * last - places, places).clamp(min=0)
    return waveforms.gather(1, places)


@lru_cache
def _dft(device: torch.device) -> Tensor:
    """Return a windowed Fourier transform, (N_FFT, 2 * (N_FFT // 2 + 1)) float32: real, imaginary.

    Computed step by step in float32, as the weights saw it in training: an exact transform differs
    by up to 1e-4 of a frame's amplitude, which is much in its quiet bins.
    """
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float32)
    angles = 2 * math.pi * bins * torch.arange(N_FFT, dtype=torch.float32)[:, None] / N_FFT
    hann = torch.hann_window(N_FFT)[:, None]
    transform = torch.cat([angles.cos() * hann, -angles.sin() * hann], dim=1)
    return to_device(transform, device)
