"""Checkpoints of unfinished trainings: one safetensors file with tensors and JSON notes.

Reading one runs no code. Writing one replaces the last atomically, so that a killed process never
leaves a partial file.
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

# Batch normalization's statistics are not converted: a variance may exceed fp16's range.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def to_fp16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy weights to the CPU in fp16, except batch normalization's statistics (unchanged)."""
    return {
        name: tensor.to("cpu", None if name.endswith(_STATISTICS) else torch.float16, copy=True)
        for name, tensor in weights.items()
    }


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write tensors, and JSON notes with a `run_key`, to one file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_tensors(path, contiguous, {"notes": json.dumps(notes)})


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically. Raises OSError, with its errno, on failure."""
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            # safetensors reports the system's error, such as a full disk, only as text.
            if code := re.search(r"(?:os error|Os \{ code:) (\d+)", str(error)):
                raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
            raise


def load_checkpoint(
    path: Path, run_key: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the tensors and notes of a checkpoint; None if there is none with this `run_key`.

    Raises HearbackError for a damaged file.
    """
    if not path.exists():
        return None
    notes = read_notes(path)
    if notes["run_key"] != dict(run_key):
        return None
    with _open_checkpoint(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, notes


def read_notes(path: Path) -> dict[str, Any]:
    """Read a checkpoint's notes without its tensors. Raises HearbackError for a damaged file."""
    with _open_checkpoint(path) as file:
        notes = json.loads((file.metadata() or {})["notes"])
        if not isinstance(notes, dict) or "run_key" not in notes:
            raise KeyError("run_key")
        return notes


@contextmanager
def _open_checkpoint(path: Path) -> Iterator[safe_open]:
    try:
        open_file(path).close()  # refuses a pipe, which would block safe_open forever
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise HearbackError(
            f"{path}: not a training checkpoint ({error!r}); delete it to train from the start"
        ) from None


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix` and a dot before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that `with_prefix` renamed, under their original names."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's state: `<parameter index>.<name>` to a tensor."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` flattened.

    Each moment gets its parameter's memory layout, which files do not store: a fused optimizer on a
    CPU assumes equal layouts and would otherwise combine the wrong elements.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter, value = parameters[int(index)], tensor
        if tensor.shape == parameter.shape:  # a moment, not a step count
            value = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's generator on the device, by the device's type."""
    if device.type == "cuda":
        return {"cuda": torch.cuda.get_rng_state(device)}
    if device.type == "mps":
        return {"mps": torch.mps.get_rng_state()}
    return {"cpu": torch.get_rng_state()}


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned; an empty `state` changes nothing."""
    if "cpu" in state:
        torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])
