"""Load examples and move their tensors to a device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, ClassVar, Generic, Self, TypeVar

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

    def select(self, indices: Tensor) -> Self:
        """Return the items at these indices of every tensor's first axis, also the `ON_HOST` ones.

        Raises TypeError if tensors are nested: their items may be others.
        """
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = value[indices]
            elif isinstance(value, Tensors):
                raise TypeError(f"{type(self).__name__}.{field.name}: `select` must be overridden")
        return replace(self, **changed)

    def split(self, n_examples: int) -> "list[BatchPart[Self]]":
        """Split a batch into parts of at most `n_examples`, in order.

        A subclass whose tensors have further items than its examples overrides it, to name them.
        """
        n_whole = len(self)  # type: ignore[arg-type]  # batches have a length
        return [
            BatchPart(self.select(indices), (Items(indices, n_whole),))
            for indices in torch.arange(n_whole).split(n_examples)
        ]

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


@dataclass(frozen=True)
class Items(Tensors):
    """The items of one kind that a part of a batch has, such as its examples or its texts.

    Attributes:
        indices: (items of the part,) int64, their indices in the whole batch.
        n_whole: number of items of the whole batch.
    """

    indices: Tensor
    n_whole: int


B = TypeVar("B")


@dataclass(frozen=True)
class BatchPart(Generic[B]):
    """A part of a batch: a smaller batch, and its items of every kind in the whole batch."""

    batch: B
    items: tuple[Items, ...]


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
