"""Low-rank updates of frozen linear layers (LoRA: Hu et al., arXiv 2106.09685, 2021).

A layer's weights W (out, in) stay as pretrained; training learns U (out, rank) and D (rank, in) of
W + U D. An update has a few thousand numbers where a layer has hundreds of thousands, and models
with the same W can be computed together (`joint_decoding`).
"""

import math
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLinear(nn.Linear):
    """A frozen linear layer with a low-rank update, which is zero at initialisation.

    The names of the frozen parameters are those of `nn.Linear`, so a pretrained state dict fits;
    the update's are `down`, (rank, in), and `up`, (out, rank).
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.normal_(self.down, std=1 / math.sqrt(linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out)."""
        return super().forward(x) + F.linear(F.linear(x, self.down), self.up)


def add_low_rank(module: nn.Module, names: Collection[str], rank: int) -> None:
    """Freeze a module, and replace its linear layers by `LowRankLinear` where their name matches.

    Args:
        module: changed in place.
        names: the layers' names or their ends, such as "self_attn.q_proj" or "fc1".
        rank: of the updates.

    Raises:
        ValueError: a name fits no linear layer.
    """
    module.requires_grad_(False)
    linear = [name for name, each in module.named_modules() if isinstance(each, nn.Linear)]
    for end in names:
        if not any(f".{name}".endswith(f".{end}") for name in linear):
            raise ValueError(f"no linear layer is called {end}")
    for name in linear:
        if any(f".{name}".endswith(f".{end}") for end in names):
            parent, _, child = name.rpartition(".")
            layer = LowRankLinear(module.get_submodule(name), rank)  # type: ignore[arg-type]
            setattr(module.get_submodule(parent), child, layer)


def load_frozen(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict into a module; its low-rank updates may be missing and stay as they are.

    Raises RuntimeError for other missing, unknown or misshapen tensors, as `load_state_dict`.
    """
    updates = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if name.endswith((".down", ".up"))
    }
    module.load_state_dict({**updates, **tensors})
