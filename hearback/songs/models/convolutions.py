"""3×3 convolutions of small images as matrix products, faster on CPUs.

Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document
Processing", 2006 (section 3.1): each position's receptive field is unrolled into a row (im2col),
and all rows are multiplied with the kernels at once. For 10 × 2 positions, as in the last stage of
a ResNet-34 here, this is about three times as fast as oneDNN's convolution in bfloat16, forward and
backward; for large images it is slower (docs/results/songs_speed.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAX_POSITIONS = 60  # larger images are not unrolled
KERNEL = (3, 3)


class UnrolledConv2d(nn.Conv2d):
    """A 3×3 convolution with stride 1 and padding 1 that unrolls small images on a CPU.

    Has the same parameters and names as the convolution that it replaces, and the same result up to
    rounding. Images with more than `max_positions` positions are not unrolled.
    """

    max_positions: int

    @classmethod
    def replacing(
        cls, convolution: nn.Conv2d, max_positions: int = MAX_POSITIONS
    ) -> "UnrolledConv2d":
        """Build a layer that shares a convolution's weight; ValueError if it is unsupported."""
        if not can_unroll(convolution):
            raise ValueError(f"{convolution}: not a 3×3 convolution with stride 1 and padding 1")
        n_in, n_out = convolution.in_channels, convolution.out_channels
        with torch.device("meta"):  # uses no random numbers
            unrolled = cls(n_in, n_out, KERNEL, padding=1, bias=False)
        unrolled.weight = convolution.weight
        unrolled.max_positions = max_positions
        return unrolled

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Conv2d's name)
        """Map (batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        height, width = input.shape[2:]
        if input.device.type != "cpu" or height * width > self.max_positions:
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, weight = input.to(dtype), weight.to(dtype)  # noqa: A001
        return _UnrolledProduct.apply(input, weight)


def can_unroll(convolution: nn.Conv2d) -> bool:
    """Return whether `UnrolledConv2d` supports a convolution."""
    return (
        convolution.kernel_size == KERNEL
        and convolution.stride == convolution.padding == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.bias is None
        and convolution.padding_mode == "zeros"
    )


def unroll_small(network: nn.Module, max_positions: int = MAX_POSITIONS) -> None:
    """Replace every supported convolution of a network by an `UnrolledConv2d`."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and can_unroll(child):
                setattr(parent, name, UnrolledConv2d.replacing(child, max_positions))


class _UnrolledProduct(torch.autograd.Function):
    """The convolution as a matrix product, and its gradients as products of the same kind."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401
        rows = _unroll(images)
        ctx.save_for_backward(rows, weight)
        ctx.size = images.shape[2:]
        return _roll(rows @ _as_columns(weight), ctx.size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        rows, weight = ctx.saved_tensors
        input_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            # The input gradient is a convolution of `gradient` with flipped, transposed kernels.
            flipped = weight.flip(2, 3).transpose(0, 1)
            input_gradient = _roll(_unroll(gradient) @ _as_columns(flipped), ctx.size)
        if ctx.needs_input_grad[1]:
            flat = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
            weight_gradient = (flat.T @ rows).view(len(weight), *KERNEL, -1).permute(0, 3, 1, 2)
        return input_gradient, weight_gradient


def _unroll(images: Tensor) -> Tensor:
    """Unroll receptive fields (im2col): (batch, c, h, w) to (batch · h · w, 9 · c)."""
    _, n_channels, height, width = images.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    fields = padded.unfold(1, height, 1).unfold(2, width, 1)  # batch, 3, 3, c, h, w
    return fields.permute(0, 4, 5, 1, 2, 3).reshape(-1, 9 * n_channels)


def _as_columns(weight: Tensor) -> Tensor:
    """Return the kernels (out, in, 3, 3) in `_unroll`'s order, (9 · in, out)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1).T


def _roll(rows: Tensor, size: torch.Size) -> Tensor:
    """Reshape (batch · h · w, c) to images, (batch, c, h, w), channels last in memory."""
    return rows.view(-1, *size, rows.shape[1]).permute(0, 3, 1, 2)
