"""Train on a batch in parts, so that it needs less memory, with the same result.

The loss of a batch is a sum over its examples, so the gradients of its parts add up to its own. Two
things would still differ, and are taken care of here: dropout, whose masks are drawn for the whole
batch and cut to the part, and layers that look at the whole batch, which are refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hearback.engine.data.batching import BatchPart, Items
from hearback.engine.errors import HearbackError
from hearback.engine.training import checkpoint

if TYPE_CHECKING:
    from hearback.engine.training.task import Batch


@dataclass(frozen=True)
class SplitBatch:
    """A batch on the CPU, its parts on the device, and its rows, (batch,), in the parts' order."""

    whole: "Batch"
    rows: Tensor
    parts: tuple["BatchPart[Batch]", ...]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.rows)


class MicroBatches:
    """Splits batches, and lets a model compute each part as it computes it in the whole batch.

    The model's `nn.Dropout` modules are replaced. Raises HearbackError if it has layers that
    normalise over the batch; `name` is the model's.
    """

    def __init__(self, model: nn.Module, name: str, size: int, device: torch.device) -> None:
        refuse_batch_norm(model, name, "--micro_batch")
        self.size, self.device = size, device
        self.items: tuple[Items, ...] = ()  # of the part that is computed
        for parent in list(model.modules()):
            for child_name, child in parent.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(parent, child_name, _WholeBatchDropout(child.p, self))

    def split(self, batch: "Batch") -> SplitBatch:
        """Split a batch on the CPU, and move its parts to the device."""
        # Those that show what a dropout's items are come first: see `_WholeBatchDropout`.
        parts = sorted(batch.split(self.size), key=_is_ambiguous)
        rows = torch.cat([part.batch.rows for part in parts])
        return SplitBatch(batch, rows, tuple(map(self._to_device, parts)))

    def _to_device(self, part: "BatchPart[Batch]") -> "BatchPart[Batch]":
        def move(tensors: Any) -> Any:  # noqa: ANN401  (a batch, or items)
            pinned = tensors.pin_memory() if self.device.type == "cuda" else tensors
            return pinned.to(self.device)

        return BatchPart(move(part.batch), tuple(map(move, part.items)))

    def each(self, batch: SplitBatch) -> Iterator["Batch"]:
        """Yield the parts in turn. Each one's gradients must be computed before the next."""
        # Every part draws the random numbers of the whole batch.
        state = checkpoint.random_state(self.device)
        try:
            for part in batch.parts:
                checkpoint.restore_random_state(state, self.device)
                self.items = part.items
                yield part.batch
        finally:
            self.items = ()


class _WholeBatchDropout(nn.Dropout):
    """Dropout of a part of a batch, with the mask that the whole batch would have.

    Which items its input has, such as pairs or texts, is known from their number, and where the
    part has as many of two kinds, from an earlier part.
    """

    def __init__(self, p: float, micro_batches: MicroBatches) -> None:
        super().__init__(p)
        self.micro_batches = micro_batches
        self.kind: int | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Dropout's name)
        """Map (items, …) to the same shape."""
        if not (self.training and self.p and self.micro_batches.items):
            return super().forward(input)
        items = self._find_items(len(input))
        ones = input.new_ones((items.n_whole, *input.shape[1:]))
        return input * F.dropout(ones, self.p)[items.indices]

    def _find_items(self, n_items: int) -> Items:
        kinds = self.micro_batches.items
        fitting = [number for number, each in enumerate(kinds) if len(each.indices) == n_items]
        if not fitting:
            raise ValueError(f"dropout of {n_items} items: `split` of the batch does not name them")
        if self.kind not in fitting:
            self.kind = fitting[0]
        return kinds[self.kind]


def _is_ambiguous(part: "BatchPart[Any]") -> bool:
    """Return whether the part has as many items of two kinds, but the whole batch has not."""
    n_of_part = {len(items.indices) for items in part.items}
    return len(n_of_part) < len({items.n_whole for items in part.items})


def refuse_batch_norm(model: nn.Module, name: str, flag: str) -> None:
    """Raise HearbackError if layers of the model normalise over the batch; they exclude `flag`."""
    if has_batch_norm(model):
        raise HearbackError(
            f"{name}: its batch normalisation looks at the whole batch, so {flag} would change "
            "what it learns; leave it out (--set batch_size=N changes that, too)"
        )


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether layers of the model normalise over the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())
