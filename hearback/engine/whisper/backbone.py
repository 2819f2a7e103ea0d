"""Base class of models with a pretrained backbone, and parameter groups for their optimizer."""

from typing import Any, ClassVar, Literal, get_args

from torch import nn

Part = Literal["encoder", "decoder", "recogniser"]  # of Whisper; of phones
PARTS: tuple[Part, ...] = get_args(Part)


class BackboneModel(nn.Module):
    """A module with a pretrained backbone.

    `parts` lists the attribute names of the backbone's submodules.
    """

    parts: ClassVar[tuple[Part, ...]] = ()

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the backbone's parameters that are not frozen."""
        prefixes = tuple(f"{part}." for part in self.parts)
        return [
            parameter
            for name, parameter in self.named_parameters()
            if name.startswith(prefixes) and parameter.requires_grad
        ]


def learning_rate_groups(
    model: BackboneModel, learning_rate: float, head_learning_rate: float | None
) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups: the backbone's, then the head's.

    Frozen parameters are left out. Each group has its peak learning rate as `lr` and `peak_lr`:
    `learning_rate` for the backbone, `head_learning_rate` for all other parameters (None: the same
    as the backbone).
    """
    backbone = model.backbone_parameters()
    known = set(map(id, backbone))
    head = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = []
    for parameters, rate in ((backbone, None), (head, head_learning_rate)):
        peak = learning_rate if rate is None else rate
        groups.append({"params": parameters, "lr": peak, "peak_lr": peak})
    return groups
