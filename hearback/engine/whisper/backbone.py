"""What is pretrained of a model, and how fast it learns beside the rest."""

from typing import Any, ClassVar, Literal

from torch import nn

Part = Literal["encoder", "decoder"]


class BackboneModel(nn.Module):
    """A module whose `parts`, attributes of these names, are a pretrained backbone's."""

    parts: ClassVar[tuple[Part, ...]] = ()

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return what is pretrained and not frozen; all else learns at the head's rate."""
        prefixes = tuple(f"{part}." for part in self.parts)
        return [
            parameter
            for name, parameter in self.named_parameters()
            if name.startswith(prefixes) and parameter.requires_grad
        ]


def learning_rate_groups(
    model: BackboneModel, learning_rate: float, head_learning_rate: float | None
) -> list[dict[str, Any]]:
    """Return an optimizer's groups of what is not frozen, each with its peak rate as `peak_lr`.

    All that is not the backbone's learns at `head_learning_rate`, where there is one.
    """
    backbone = model.backbone_parameters()
    known = set(map(id, backbone))
    head = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = []
    for parameters, rate in ((backbone, None), (head, head_learning_rate)):
        peak = learning_rate if rate is None else rate
        groups.append({"params": parameters, "lr": peak, "peak_lr": peak})
    return groups
