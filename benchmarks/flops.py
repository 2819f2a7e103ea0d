"""Floating point operations of Whisper's encoder, and the machine's peak rate.

Counted as for the model FLOPs utilisation of Chowdhery et al. 2022 ("PaLM", appendix B): matrix
products and convolutions of the actual shapes, two per multiply-add; recomputation (checkpointing)
is excluded, as are norms, activations, softmax and the head, which are below one per cent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.whisper.modeling_whisper import WhisperEncoder as PublicEncoder

from hearback.engine.whisper.encoder import EncoderConfig, WhisperEncoder

KERNEL_SIZE = 3  # of both convolutions
# Rows of the square matrices that measure the machine's peak rate.
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}


def encoder_flops(config: EncoderConfig, n_frames: int, *, training: bool = False) -> float:
    """Return the operations per clip in a window of `n_frames` encoder frames (20 ms each).

    Forward, with width d, feed-forward width f, T frames (Hoffmann et al. 2022, "Training
    Compute-Optimal Large Language Models", appendix F, an encoder's layers being the same):

    - first convolution, mel bins to d on 2 T mel frames: 2 · 2 T · 3 mel · d
    - second, d to d on T frames: 2 · T · 3 d · d
    - a layer: queries, keys, values, output 4 · 2 T d²; attention 2 · 2 T² d;
      feed-forward 2 · 2 T d f

    In training, the backward pass takes twice that, for the inputs and for the weights; only the
    first convolution's input needs no gradient.
    """
    width, feed_forward = config.d_model, config.encoder_ffn_dim
    first = 2 * 2 * n_frames * KERNEL_SIZE * config.num_mel_bins * width
    second = 2 * n_frames * KERNEL_SIZE * width**2
    projections = 4 * 2 * n_frames * width**2
    attention = 2 * 2 * n_frames**2 * width
    layer = projections + attention + 2 * 2 * n_frames * width * feed_forward
    forward = first + second + config.encoder_layers * layer
    return 3 * forward - first if training else forward


@dataclass
class Counter:
    """Operations and encoded clips counted so far."""

    flops: float = 0.0
    n_clips: int = 0


@contextmanager
def counted() -> Iterator[Counter]:
    """Count the operations of Whisper encoders, ours and Transformers', in this block.

    If gradients are enabled, a backward pass without frozen layers is assumed. Calls of an
    encoder's parts, as in our inference, are not counted.
    """
    counter = Counter()

    def count(module: nn.Module, inputs: Any) -> None:  # noqa: ANN401  (torch's own type)
        if isinstance(module, WhisperEncoder | PublicEncoder):
            n_clips, _, n_mel_frames = inputs[0].shape
            per_clip = encoder_flops(
                _config_of(module), n_mel_frames // 2, training=torch.is_grad_enabled()
            )
            counter.flops += n_clips * per_clip
            counter.n_clips += n_clips

    handle = register_module_forward_pre_hook(count)
    try:
        yield counter
    finally:
        handle.remove()


def _config_of(module: WhisperEncoder | PublicEncoder) -> EncoderConfig:
    if isinstance(module, WhisperEncoder):
        return module.config
    return EncoderConfig.from_config(module.config.to_dict())


@dataclass(frozen=True)
class Product:
    """A square matrix product at the machine's peak rate, for `harness.Side`."""

    run: Callable[[], float]  # one product per call; returns 1
    flops: float


def matrix_product(device: torch.device, dtype: torch.dtype) -> Product:
    """Return a product of two square matrices on a device."""
    n = PRODUCT_SIZE[device.type]
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return Product(partial(_multiply, left, right, torch.empty_like(left)), 2.0 * n**3)


@torch.inference_mode()
def _multiply(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    torch.matmul(left, right, out=out)
    return 1.0
