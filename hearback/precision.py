"""In which numbers a device computes, and how the weights are held for that."""

import platform
import warnings
from pathlib import Path

import torch
from torch import nn

from hearback.decoder import WhisperDecoder
from hearback.errors import HearbackError
from hearback.models import Scorer

TRAINING_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")
_CPU_INFO = Path("/proc/cpuinfo")
# x86's names for bf16 arithmetic: AVX-512 BF16, or the matrix tiles of AMX.
_NATIVE_BF16 = {"avx512_bf16", "amx_bf16"}


def compute_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the type to compute in; `torch.int8` is that of the matrix products alone.

    "auto" is bf16 where the device has arithmetic for it; else fp16 on a GPU, float32 elsewhere.
    Raises HearbackError for int8 on anything but a CPU.
    """
    if precision == "int8" and device.type != "cpu":
        raise HearbackError(f"--precision int8 is for CPUs, and the device is {device.type}")
    if precision != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "int8": torch.int8,
        }[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_native_bf16() else torch.float32


def has_native_bf16() -> bool:
    """Return whether this machine's CPU is known to have bf16 arithmetic.

    Asked of the kernel, which only Linux answers: torch 2.4 has no public way to ask, and its
    `torch.ops.mkldnn._is_mkldnn_bf16_supported` is content with AVX-512 that emulates bf16, slower
    than float32.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not _CPU_INFO.exists():
        return False
    lines = _CPU_INFO.read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _NATIVE_BF16.isdisjoint(flags.split())


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the autocast context that computes in `dtype`.

    It does nothing for float32, nor for int8, for which `hold_weights` does what there is to do.
    """
    enabled = dtype not in (torch.float32, torch.int8)
    return torch.autocast(device.type, dtype=dtype if enabled else None, enabled=enabled)


def hold_weights(model: Scorer, dtype: torch.dtype) -> None:
    """Hold the backbone's weights in the type of their matrix products; for inference only.

    In half precision, autocast would round the same weights, but keep both or round them for each
    batch. For int8, weights are quantised here by rows, and activations when they come, by batch
    ("dynamic quantisation"). Heads, norms and positions stay in float32.
    """
    for part in model.parts:
        backbone = model.get_submodule(part)
        if dtype == torch.int8:
            with warnings.catch_warnings():  # it is to leave torch for torchao one day
                warnings.simplefilter("ignore")
                torch.ao.quantization.quantize_dynamic(
                    backbone,
                    {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig},
                    inplace=True,
                )
        elif dtype != torch.float32:
            for module in backbone.modules():
                if isinstance(module, nn.Linear | nn.Conv1d):
                    module.to(dtype)
            if isinstance(backbone, WhisperDecoder):  # its output layer
                backbone.embed_tokens.to(dtype)
