"""3×3 convolutions of small pictures as products of matrices, which CPUs compute faster.

Chellapilla, Puri and Simard, "High Performance Convolutional Neural Networks for Document
Processing", 2006 (section 3.1): what each position sees is unrolled into a row, and all rows are
multiplied with the kernels at once. oneDNN's own convolution of 10 × 2 positions, where a ResNet-34
spends its last stage here, takes about twice as long in bfloat16, forward and back; of larger
pictures than these it is the faster one (`benchmarks.convolutions`, docs/songs.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_POSITIONS = 60  # of a picture that is unrolled
KERNEL = (3, 3)


class UnrolledConv2d(nn.Conv2d):
    """A 3×3 convolution with stride 1 and padding 1; on a CPU it unrolls what is small.

    The same parameters under the same names as the convolution's that it takes the place of, and
    the same result but for rounding. `most_positions` are those of a picture that is unrolled.
    """

    most_positions: int

    @classmethod
    def in_place_of(
        cls, convolution: nn.Conv2d, most_positions: int = MOST_POSITIONS
    ) -> "UnrolledConv2d":
        """Take over a convolution's weight; ValueError where it is another kind of convolution."""
        if not can_unroll(convolution):
            raise ValueError(f"{convolution}: not a 3×3 convolution with stride 1 and padding 1")
        n_in, n_out = convolution.in_channels, convolution.out_channels
        with torch.device("meta"):  # draws no random numbers
            unrolled = cls(n_in, n_out, KERNEL, padding=1, bias=False)
        unrolled.weight = convolution.weight
        unrolled.most_positions = most_positions
        return unrolled

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Conv2d's name)
        """Map (batch, channels, height, width) to (batch, channels of its own, height, width)."""
        height, width = input.shape[2:]
        if input.device.type != "cpu" or height * width > self.most_positions:
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, weight = input.to(dtype), weight.to(dtype)  # noqa: A001
        return _UnrolledProduct.apply(input, weight)


def can_unroll(convolution: nn.Conv2d) -> bool:
    """Return whether `UnrolledConv2d` computes the same."""
    return (
        convolution.kernel_size == KERNEL
        and convolution.stride == convolution.padding == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.bias is None
        and convolution.padding_mode == "zeros"
    )


def unroll_small(network: nn.Module, most_positions: int = MOST_POSITIONS) -> None:
    """Put an `UnrolledConv2d` in the place of every convolution that it can take."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and can_unroll(child):
                setattr(parent, name, UnrolledConv2d.in_place_of(child, most_positions))


class _UnrolledProduct(torch.autograd.Function):
    """The product, and its gradients as products of the same kind."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401
        rows = _unroll(pictures)
        ctx.save_for_backward(rows, weight)
        ctx.size = pictures.shape[2:]
        return _roll(rows @ _as_columns(weight), ctx.size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        rows, weight = ctx.saved_tensors
        of_pictures = of_weight = None
        if ctx.needs_input_grad[0]:
            # A convolution, too: of the gradient with the kernels mirrored and transposed.
            mirrored = weight.flip(2, 3).transpose(0, 1)
            of_pictures = _roll(_unroll(gradient) @ _as_columns(mirrored), ctx.size)
        if ctx.needs_input_grad[1]:
            flat = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
            of_weight = (flat.T @ rows).view(len(weight), *KERNEL, -1).permute(0, 3, 1, 2)
        return of_pictures, of_weight


def _unroll(pictures: Tensor) -> Tensor:
    """Return what each position sees: (batch, c, h, w) to (batch · h · w, 9 · c)."""
    _, n_channels, height, width = pictures.shape
    padded = F.pad(pictures.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    seen = padded.unfold(1, height, 1).unfold(2, width, 1)  # batch, 3, 3, c, h, w
    return seen.permute(0, 4, 5, 1, 2, 3).reshape(-1, 9 * n_channels)


def _as_columns(weight: Tensor) -> Tensor:
    """Return the kernels (out, in, 3, 3) in `_unroll`'s order, (9 · in, out)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1).T


def _roll(rows: Tensor, size: torch.Size) -> Tensor:
    """Return (batch · h · w, c) as pictures, (batch, c, h, w), channels last in memory."""
    return rows.view(-1, *size, rows.shape[1]).permute(0, 3, 1, 2)
