"""The device that a model is on, and what it holds."""

import sys

import torch

from hearback.errors import HearbackError


def choose_device(name: str | None) -> torch.device:
    """Return the device asked for, or a GPU where there is one and the CPU where not.

    Raises HearbackError for a device that this machine does not have.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HearbackError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def default_workers(device: torch.device) -> int:
    """Return how many processes load and augment: none on a CPU, whose cores the model wants."""
    return min(8, torch.get_num_threads()) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has held so far, on the device, in GB (10⁹ bytes).

    On a CPU that is the process's resident set; NaN on Windows, which does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return float("nan")
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
