"""The bytes of a training: parameters, gradients, optimizer, activations, and files."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hearback.engine.machine import free_memory
from hearback.engine.training.backbone_files import MIN_UNCHANGED, part_file
from hearback.engine.training.trainer import Trainer

HALF = 2  # bytes of a number in fp16


@dataclass
class Saved:
    """The memory of tensors that a forward pass keeps for the backward pass, in bytes."""

    n_bytes: int = 0
    storages: set[int] = field(default_factory=set)

    def add(self, tensor: Tensor) -> Tensor:
        """Count a tensor's memory, unless it is counted already; return the tensor."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.n_bytes += storage.nbytes()
        return tensor


@contextmanager
def saved_tensors(model: nn.Module) -> Iterator[Saved]:
    """Count what is kept for the backward pass in this block, without the model's own tensors.

    The block computes one batch, not parts of it in turn: the parts use the same memory again.
    """
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    saved = Saved(storages=own)
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
        yield saved


@dataclass(frozen=True)
class FoldBytes:
    """What a fold takes besides its activations, in bytes.

    Attributes:
        n_parameters: number of parameters.
        n_trained: of those, the number that training changes.
        state: weights, gradients, optimizer and averaged weights, in the device's memory.
        best: the best epoch's weights, in the main memory.
        weights: the fold's weights file.
        parts: the files of the backbone's parts, by name; models of one backbone share them.
        checkpoint: the file of an unfinished training, and the main memory that writing it takes.
    """

    n_parameters: int
    n_trained: int
    state: int
    best: int
    weights: int
    parts: Mapping[str, int]
    checkpoint: int


def fold_bytes(trainer: Trainer) -> FoldBytes:
    """Return what a fold takes; the trainer has taken at least one step."""
    model, optimization = trainer.model, trainer.optimization
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    n_all = count(model.state_dict().values())
    average = optimization.average
    of_average = [] if average is None else [*average.parameters(), *average.buffers()]
    optimizer = [
        value
        for moments in trainer.optimizer.state.values()
        for value in moments.values()
        if isinstance(value, Tensor)
    ]
    weights, parts = _files(trainer)
    return FoldBytes(
        n_parameters=count(model.parameters()),
        n_trained=count(trained),
        state=sum(map(n_bytes, ([*model.parameters(), *model.buffers()], trained)))
        + n_bytes(optimizer)
        + n_bytes(of_average),
        best=HALF * n_all,
        weights=weights,
        parts=parts,
        checkpoint=n_bytes(optimization.tensors().values()) + HALF * n_all,
    )


def count(tensors: Iterable[Tensor]) -> int:
    """Return the number of elements."""
    return sum(tensor.numel() for tensor in tensors)


def n_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def free_bytes(device: torch.device) -> float | None:
    """Return the free memory of a device, without what this process keeps; None if unknown."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info(device)[0])
    return free_memory() if device.type == "cpu" else None


def _files(trainer: Trainer) -> tuple[int, dict[str, int]]:
    """Return the bytes of a fold's weights file, and of the files of its backbone's parts by name.

    As `backbone_files.share_unchanged`, if training changes all that it may.
    """
    model = trainer.model
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    own, shared = sum(sizes.values()), dict[str, int]()
    for part, tensors in trainer.task.backbone_tensors().items():
        of_part = {name: size for name, size in sizes.items() if name.startswith(f"{part}.")}
        unchanged = sum(size for name, size in of_part.items() if name not in trained)
        if unchanged and unchanged >= MIN_UNCHANGED * sum(of_part.values()):
            own -= unchanged
            name, content = part_file(part, tensors)
            shared[name] = len(content)
    return HALF * own, shared
