"""Unrolled convolutions give the results of the convolutions that they replace."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hearback.songs.models.convolutions import (
    MAX_POSITIONS,
    UnrolledConv2d,
    can_unroll,
    unroll_small,
)

SMALL = (3, 4, 5, 7)  # batch, channels, height, width


def convolution(n_in: int = 4, n_out: int = 6, **changes: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    fields = {"kernel_size": 3, "padding": 1, "bias": False, **changes}
    return nn.Conv2d(n_in, n_out, **fields)


def run(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return a network's output, and the gradients of the images and of its weights."""
    images = images.clone().requires_grad_()
    output = network(images)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    gradients = torch.autograd.grad((output * weights).sum(), (images, *network.parameters()))
    return [output, *gradients]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_results_and_gradients_equal_the_convolution_s(order: torch.memory_format) -> None:
    usual = convolution().double().to(memory_format=order)  # type: ignore[call-overload]
    images = torch.randn(SMALL, dtype=torch.float64).to(memory_format=order)
    for ours, expected in zip(
        run(UnrolledConv2d.replacing(usual), images), run(usual, images), strict=True
    ):
        assert ours.shape == expected.shape
        torch.testing.assert_close(ours, expected)


def test_gradients_equal_finite_differences() -> None:
    unrolled = UnrolledConv2d.replacing(convolution(2, 3).double())
    images = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unrolled, (images,))


def test_autocast_computes_in_bf16() -> None:
    usual = convolution(64, 32)
    images = torch.randn(2, 64, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = (
            run(network, images) for network in (UnrolledConv2d.replacing(usual), usual)
        )
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in expected]
    for mine, other in zip(ours, expected, strict=True):
        assert (mine - other).float().norm() < 1e-2 * other.float().norm()


def test_large_images_use_the_usual_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    unrolled = UnrolledConv2d.replacing(convolution())
    monkeypatch.setattr(
        "hearback.songs.models.convolutions._UnrolledProduct", None
    )  # any use of it fails
    assert unrolled(torch.randn(1, 4, MAX_POSITIONS + 1, 1)).shape == (1, 6, MAX_POSITIONS + 1, 1)
    with pytest.raises(AttributeError):
        unrolled(torch.randn(1, 4, MAX_POSITIONS, 1))


def test_frozen_weights_get_no_gradient() -> None:
    unrolled = UnrolledConv2d.replacing(convolution())
    unrolled.weight.requires_grad_(False)
    images = torch.randn(SMALL, requires_grad=True)
    unrolled(images).sum().backward()
    assert images.grad is not None and unrolled.weight.grad is None


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"bias": True},
        {"padding_mode": "circular"},
    ],
)
def test_other_convolutions_are_refused(changes: dict[str, Any]) -> None:
    usual = convolution(**changes)
    assert not can_unroll(usual)
    with pytest.raises(ValueError, match="not a 3×3 convolution"):
        UnrolledConv2d.replacing(usual)


def test_a_network_keeps_its_parameters_and_their_names() -> None:
    torch.manual_seed(0)
    usual = nn.Sequential(
        convolution(4, 4), nn.ReLU(), nn.Sequential(convolution(4, 4), convolution(4, 6, stride=2))
    )
    unrolled = copy.deepcopy(usual)
    before = torch.get_rng_state()
    unroll_small(unrolled)
    assert torch.equal(before, torch.get_rng_state())  # models keep the weights of their seeds
    kinds = [type(module) for module in unrolled.modules() if isinstance(module, nn.Conv2d)]
    assert kinds == [UnrolledConv2d, UnrolledConv2d, nn.Conv2d]
    assert unrolled.state_dict().keys() == usual.state_dict().keys()
    images = torch.randn(SMALL)
    torch.testing.assert_close(run(unrolled, images), run(usual, images))
    unroll_small(unrolled, max_positions=0)  # once more, with another limit
    assert {type(module) for module in unrolled.modules() if isinstance(module, nn.Conv2d)} == {
        UnrolledConv2d,
        nn.Conv2d,
    }
