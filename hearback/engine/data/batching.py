"""Load examples and move their tensors to a device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Tensors:
    """A dataclass of tensors that are moved together, but for the `ON_HOST` ones."""

    # Rows of the table: nothing is computed from them, and reading them would wait for the device.
    ON_HOST: ClassVar[tuple[str, ...]] = ("rows",)

    def to(self, device: torch.device) -> Self:
        """Move the tensors to `device`; asynchronous if their memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Pin the tensors' memory, so that `to` is asynchronous."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in self.ON_HOST:
                continue
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, Tensors):
                changed[field.name] = value._each(change)
        return replace(self, **changed)


class SizedDataset(Dataset[T_co]):
    """A map-style dataset with a length."""

    def __len__(self) -> int:
        """Return the number of examples."""
        raise NotImplementedError


def load_consecutively(
    datasets: Sequence[SizedDataset[T]], n_workers: int
) -> Iterator[tuple[int, Iterator[T]]]:
    """Load datasets one after another; yield each one's length and an iterator of its examples.

    The same processes load all of them, prefetching across the boundaries. All examples of a
    dataset must be consumed before the next one's. Torch's global random state is not used.
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
