"""Examples on their way to a device, in any competition."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Tensors:
    """Tensors that move together."""

    def to(self, device: torch.device) -> Self:
        """Move the tensors, without waiting where their memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Pin the tensors' memory, so that `to` need not wait."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, Tensors):
                changed[field.name] = value._each(change)
        return replace(self, **changed)


class SizedDataset(Dataset[T_co]):
    """Examples by their places, of which it is known how many there are."""

    def __len__(self) -> int:
        """Return the number of examples."""
        raise NotImplementedError


def load_in_turn(
    datasets: Sequence[SizedDataset[T]], n_workers: int
) -> Iterator[tuple[int, Iterator[T]]]:
    """Load datasets one after another, and give the length and the examples of each.

    The same processes load them all, and ahead over a dataset's end. All examples of one must be
    taken before the next. Torch's global random numbers are left alone.
    """
    loader: DataLoader[T] = DataLoader(
        ConcatDataset(datasets),
        batch_size=None,
        num_workers=n_workers,
        generator=torch.Generator(),
    )
    examples = iter(loader)
    for dataset in datasets:
        yield len(dataset), islice(examples, len(dataset))
