"""Choose the device, its precision and its memory."""

import os
import platform
import sys
from pathlib import Path

import torch
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.malloc import keep_freed_memory


def choose_device(name: str | None) -> torch.device:
    """Return the named device; by default a GPU if there is one, otherwise the CPU.

    On a CPU this also calls `keep_freed_memory`. Raises HearbackError for a device that this
    machine does not have.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    # torch's own message can be a page of its internals.
    except (RuntimeError, AssertionError, ImportError, NotImplementedError):
        raise HearbackError(f"--device {name}: {_device_cure(name)}") from None
    if device.type == "meta":
        raise HearbackError(f"--device {name}: it computes nothing; {_device_cure('')}")
    if device.type == "mps":
        _check_mps(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _check_mps(name: str) -> None:
    """Raise HearbackError if this torch cannot run our models on a Mac's GPU."""
    try:
        torch.autocast("mps", enabled=False)
    except RuntimeError:  # before 2.5
        raise HearbackError(
            f"--device {name}: torch {torch.__version__} has no autocast for mps: install torch "
            "2.6 or later, or use cpu"
        ) from None


def check_float64(device: torch.device, what: str) -> None:
    """Raise HearbackError on a device without float64, which `what` computes in."""
    if device.type == "mps":
        raise HearbackError(
            f"--device {device}: {what} computes in float64, which a Mac's GPU lacks: use "
            "--device cpu"
        )


def _device_cure(name: str) -> str:
    """Return why a device cannot be used, and which one can."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    use = "use cuda or cpu" if n_gpus else "use cpu"
    kind, _, index = name.lower().partition(":")
    if kind == "cuda" and n_gpus and index.isdecimal():
        if int(index) >= n_gpus:
            there = "cuda:0" if n_gpus == 1 else f"cuda:0 to cuda:{n_gpus - 1}"
            return f"this machine has {n_gpus} GPU(s), {there}: use one of them, or cpu"
        return "this GPU does not answer (another process may own it): use another, or cpu"
    if kind in ("gpu", "nvidia") and n_gpus:
        return "a GPU's name is cuda, or cuda:1 for the second: use cuda"
    if kind in ("cuda", "gpu", "nvidia"):
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" (CUDA_VISIBLE_DEVICES is {hidden!r})" if hidden is not None else ""
        return f"this machine has no GPU that torch can use{why}: use cpu"
    if kind in ("mps", "xpu", "hip", "xla", "npu", "tpu", "hpu", "vulkan"):
        return f"this machine has no {kind}: {use}"
    return f"there is no such device: {use}"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on the device; the program does not wait for the copy."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Return tensors of one device on the CPU; the program waits once, for all of them.

    The waits of a training's and an inference's inner loops are all here: elsewhere they contain
    no copy to the CPU, no reading of a number, and no result whose shape only the device knows.
    """
    # A device's copies are done in order: after the last, which waits, all are complete. Not on a
    # Mac's GPU: there each copy waits.
    *first, last = tensors
    in_order = last.device.type != "mps"
    return [*(tensor.to("cpu", non_blocking=in_order) for tensor in first), last.to("cpu")]


def default_workers(device: torch.device) -> int:
    """Return the number of data loading processes: 0 on a CPU, as the model needs its cores."""
    return min(8, torch.get_num_threads()) if device.type == "cuda" else 0


def device_name(device: torch.device) -> str:
    """Return the device's name, for messages."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    n_threads = torch.get_num_threads()
    return f"CPU, {n_threads} {'thread' if n_threads == 1 else 'threads'}"


def peak_memory_gb(device: torch.device) -> float:
    """Return this process's peak memory on the device so far, in GB (10⁹ bytes).

    On a CPU this is the peak resident set size; NaN on Windows, where it is unknown.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return float("nan")
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


_CPU_INFO = Path("/proc/cpuinfo")
# x86 flags of bf16 arithmetic: AVX-512 BF16, or the matrix tiles of AMX.
_NATIVE_BF16 = {"avx512_bf16", "amx_bf16"}


def compute_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the dtype of computations; `torch.int8` applies to the matrix products only.

    "auto" is bf16 if the device has native bf16 arithmetic; otherwise fp16 on a GPU and float32 on
    a CPU. A Mac's GPU (mps) computes in float32 only: half precision was never tried there. Raises
    HearbackError for int8 on a device other than a CPU, and for anything but float32 on mps.
    """
    if precision == "int8" and device.type != "cpu":
        raise HearbackError(f"--precision int8 is for CPUs, and the device is {device.type}")
    if device.type == "mps" and precision not in ("auto", "float32"):
        raise HearbackError(
            f"--precision {precision} was never tried on a Mac's GPU: use float32 there"
        )
    if precision != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "int8": torch.int8,
        }[precision]
    if device.type == "cuda":
        return torch.bfloat16 if _computes_in_bf16(device) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_native_bf16() else torch.float32


def _computes_in_bf16(device: torch.device) -> bool:
    """Return whether a GPU has bf16 arithmetic; `is_bf16_supported` counts emulation, too."""
    if torch.version.hip is not None:
        return True
    major, _ = torch.cuda.get_device_capability(device)
    return major >= 8  # Ampere


def has_native_bf16() -> bool:
    """Return whether this machine's CPU is known to have bf16 arithmetic.

    Read from /proc/cpuinfo, so always False except on Linux. torch 2.4 has no public function for
    this, and its `torch.ops.mkldnn._is_mkldnn_bf16_supported` also accepts AVX-512 that emulates
    bf16, slower than float32.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not _CPU_INFO.exists():
        return False
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _NATIVE_BF16.isdisjoint(flags.split())


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the autocast context that computes in `dtype`.

    It has no effect for float32, nor for int8, which `convert_weights` implements.
    """
    enabled = dtype not in (torch.float32, torch.int8)
    return torch.autocast(device.type, dtype=dtype if enabled else None, enabled=enabled)
