"""The memory budget for loaded models."""

import os

import torch

from hearback.engine.errors import HearbackError
from hearback.engine.machine import free_memory

GB = 1e9
SHARE_FOR_MODELS = 0.5  # of the free memory; activations need the rest


def memory_for_models(device: torch.device, memory_gb: float | None) -> float:
    """Return the memory budget for loaded models, in bytes; by default half of the free memory.

    Raises HearbackError if the free memory is unknown or `memory_gb` is not positive.
    """
    if memory_gb is not None:
        if not memory_gb > 0:
            raise HearbackError(f"--memory_gb {memory_gb:g}: must be above zero")
        return memory_gb * GB
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return SHARE_FOR_MODELS * free
    return SHARE_FOR_MODELS * _free_or_total_memory()


def _free_or_total_memory() -> float:
    """Return the free main memory in bytes, or the total if only that is known."""
    if (free := free_memory()) is not None:
        return free
    if not hasattr(os, "sysconf"):  # Windows
        raise HearbackError("the size of the memory is unknown on this system: set --memory_gb")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
