"""Read the variables of a CTranslate2 `model.bin`.

The binary format is the one that CTranslate2's `python/ctranslate2/specs/model_spec.py` writes
(binary version 6, little-endian): a header; the variables, each with name, shape, type and bytes;
then aliases of variables with equal values.
"""

import mmap
import struct
from pathlib import Path

import numpy as np

from hearback.engine.errors import HearbackError

BINARY_VERSION = 6
SPEC = ("WhisperSpec", 3)
# CTranslate2's DataType enum. NumPy has no bfloat16: its 16 bits are the upper half of a float32.
BFLOAT16 = 5
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", BFLOAT16: "<u2"}

Tensors = dict[str, np.ndarray]


class _Cursor:
    """Reads little-endian fields from a buffer; raises HearbackError at its end."""

    def __init__(self, buffer: mmap.mmap, path: Path) -> None:
        self.buffer, self.path, self.position = buffer, path, 0

    def skip(self, n_bytes: int) -> int:
        """Advance by `n_bytes` and return the previous position."""
        start, self.position = self.position, self.position + n_bytes
        if self.position > len(self.buffer):
            raise HearbackError(
                f"{self.path} is truncated: {len(self.buffer):,} bytes, at least "
                f"{self.position:,} expected. Copy or download it again."
            )
        return start

    def number(self, code: str) -> int:
        """Read an integer of the given `struct` format."""
        start = self.skip(struct.calcsize(code))
        return struct.unpack_from(f"<{code}", self.buffer, start)[0]

    def text(self) -> str:
        """Read a string: its length including the final zero byte, then its bytes."""
        length = self.number("H")
        start = self.skip(length)
        try:
            return self.buffer[start : start + length - 1].decode()
        except UnicodeDecodeError as error:
            raise HearbackError(f"{self.path} is damaged: a name in it is not UTF-8") from error


def read_variables(path: Path) -> Tensors:
    """Read all variables of a CTranslate2 `model.bin`, with aliases resolved.

    float16, float32 and integers are returned as stored (weights may be quantized), bfloat16 as
    float32. Header sizes are checked against the file's length before anything is allocated.

    Raises:
        HearbackError: the file is missing, truncated, of another version or not a Whisper.
    """
    cursor = _open(path)
    variables: Tensors = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        variables[name] = _read_values(cursor, name)
    for _ in range(cursor.number("I")):
        alias, name = cursor.text(), cursor.text()
        if name not in variables:
            raise HearbackError(f"{path} is damaged: {alias} is an alias of missing {name}")
        variables[alias] = variables[name]
        if f"{name}_scale" in variables:  # CTranslate2 makes aliases before it quantizes
            variables[f"{alias}_scale"] = variables[f"{name}_scale"]
    return variables


def _open(path: Path) -> _Cursor:
    """Map the file and check its header; the cursor is at the number of variables."""
    if not path.is_file():
        raise HearbackError(f"{path} is missing: a faster-whisper directory has a model.bin")
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise HearbackError(f"{path} is empty. Copy or download it again.")
        cursor = _Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    version = cursor.number("I")
    if version != BINARY_VERSION:
        raise HearbackError(
            f"{path} has CTranslate2 binary version {version}; only {BINARY_VERSION} is supported. "
            "Convert the model again with CTranslate2 3 or newer."
        )
    spec = cursor.text(), cursor.number("I")
    if spec != SPEC:
        raise HearbackError(
            f"{path} holds {spec[0]} revision {spec[1]}; only {SPEC[0]} revision {SPEC[1]} is "
            "supported."
        )
    return cursor


def _read_values(cursor: _Cursor, name: str) -> np.ndarray:
    """Read shape, type and values of the variable `name`."""
    path = cursor.path
    shape = tuple(cursor.number("I") for _ in range(cursor.number("B")))
    kind, n_bytes = cursor.number("B"), cursor.number("I")
    if kind not in TYPES:
        raise HearbackError(f"{path}: {name} has unknown type {kind}")
    n_values, itemsize = int(np.prod(shape, dtype=np.int64)), np.dtype(TYPES[kind]).itemsize
    if n_bytes != n_values * itemsize:
        raise HearbackError(f"{path} is damaged: {name} of shape {shape} has {n_bytes:,} bytes")
    start = cursor.skip(n_bytes)
    values = np.frombuffer(cursor.buffer, TYPES[kind], n_values, start).reshape(shape)
    if kind == BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values


def dequantise(variables: Tensors) -> Tensors:
    """Return the variables without `*_scale`, with quantized weights as float32.

    CTranslate2 stores round(scale · weight): int8 with a scale per row (for a convolution, per
    output channel), int16 with one scale per weight.

    Raises:
        HearbackError: scales are missing or invalid, or the scheme is not supported (AWQ: packed
            4-bit weights with `*_zero` points).
    """
    plain: Tensors = {}
    for name, values in variables.items():
        if name.endswith("_scale"):
            continue
        if name.endswith("_zero"):
            raise HearbackError(f"{name}: AWQ-quantized models are not supported; use float16")
        scale = variables.get(f"{name}_scale")
        if scale is None:
            if values.ndim and np.issubdtype(values.dtype, np.integer):
                raise HearbackError(f"{name} is {values.dtype} without a scale")
            plain[name] = values
            continue
        per_row = values.shape[:1]
        if scale.shape not in ((), (1,), per_row) or np.any(scale == 0):
            raise HearbackError(
                f"{name} of shape {values.shape} has scales of shape {scale.shape}; expected one "
                "nonzero scale per row or per weight"
            )
        rows = scale.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
        plain[name] = values.astype(np.float32) / rows
    return plain
