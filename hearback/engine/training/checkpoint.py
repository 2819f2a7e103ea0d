"""A fold's weights and their metadata, to disk and back.

A fold that is done is three files: `<model>_<fold>.safetensors` (weights, fp16), `.oof.csv`
(filename, score, pred) and `.json` (the metadata), written in this order; of a model that scores words
four, with `.words.csv` (`hearback.reading.words`) before the metadata. The metadata holds the digests of the
others, so a fold is done when its metadata is there and they fit it. A fold under way has one file,
`.partial`, replaced after every epoch and in between. Models that read texts share one more, their
backbone's `tokenizer_<digest>.json`. None of them can run code when it is read.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, open_file

# What batch normalisation has counted: a variance may be beyond fp16.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def in_half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's tensors on the CPU as they are kept: weights in fp16."""
    return {
        name: tensor.to("cpu", None if name.endswith(_STATISTICS) else torch.float16, copy=True)
        for name, tensor in weights.items()
    }


def save_partial(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write the state of a training under way: tensors, and JSON notes in the same file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _save_tensors(path, contiguous, {"notes": json.dumps(notes)})


def _save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            # The system's own error, such as a full disk, comes in words alone.
            if code := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
            raise


def load_partial(
    path: Path, run_key: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read what `save_partial` wrote, or None where there is none of this very training.

    Raises HearbackError where the file is not whole.
    """
    if not path.exists():
        return None
    notes = read_notes(path)
    if notes["run_key"] != dict(run_key):
        return None
    with _open_partial(path) as file:
        # safe_open's handle has keys() but is no mapping.
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118


def read_notes(path: Path) -> dict[str, Any]:
    """Read the notes that `save_partial` wrote, without the tensors.

    Raises HearbackError where the file is not whole.
    """
    with _open_partial(path) as file:
        notes = json.loads((file.metadata() or {})["notes"])
        if not isinstance(notes, dict) or "run_key" not in notes:
            raise KeyError("run_key")
        return notes


@contextmanager
def _open_partial(path: Path) -> Iterator[safe_open]:
    try:
        open_file(path).close()  # a pipe, which never ends, is an error here
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise HearbackError(
            f"{path}: not the state of a training ({error!r}); delete it to train from the start"
        ) from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's moments: `<parameter index>.<moment>` to a tensor."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the moments that `optimizer_tensors` flattened.

    They are laid in memory as their parameters are, which files do not keep: a fused optimizer on a
    CPU takes both for granted and would add numbers of different places.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        is_moment = tensor.shape == parameter.shape  # and no count of steps
        laid = (
            torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if is_moment else tensor
        )
        state.setdefault(int(index), {})[name] = laid
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
