"""Read the weight packages (.hama) of the PyPI wheel `hama`; nothing in them can run code.

The layout, all numbers little-endian: the magic bytes, a byte each for version and kind, the number
of tensors (uint32); for each tensor its name (uint16 length, UTF-8), the type and the number of
dimensions (a byte each), the dimensions (uint32), the offset in the data and the bytes (uint64);
zeros up to a multiple of 16; the data.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.io import open_file

MAGIC = b"HAMAPK"
VERSION = 1
ALIGNMENT = 16
_DTYPES: dict[int, np.dtype] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}


@dataclass(frozen=True)
class _Entry:
    """A row of the table: a tensor's name, type, shape and place in the data."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class _Reader:
    """Reads numbers and bytes one after the other; ValueError at the end of the content."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def take(self, n_bytes: int) -> bytes:
        """Return the next bytes."""
        end = self.position + n_bytes
        if end > len(self._content):
            raise ValueError("it ends within its table")
        taken = self._content[self.position : end]
        self.position = end
        return taken

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Return the next numbers, of a layout as in `struct`, without padding."""
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def read_package(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a package.

    Returns:
        The tensors by name, float32 or float16 as stored.

    Raises:
        HearbackError: the file cannot be read, or is no package, or is damaged. Sizes in the table
            are checked against the file before anything is allocated for them.
    """
    try:
        with open_file(path) as file:
            content = file.read()
        return dict(_tensors(content))
    except OSError as error:
        raise HearbackError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise HearbackError(
            f"{path} is no weight package of hama, or damaged: {error}. Download it again."
        ) from None


def _tensors(content: bytes) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a package; ValueError if it is damaged."""
    reader = _Reader(content)
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError(f"it does not start with {MAGIC.decode()}")
    reader.take(len(MAGIC))
    version, _, n_tensors = reader.numbers("BBI")
    if version != VERSION:
        raise ValueError(f"its version is {version}, not {VERSION}")
    # A generator: a wrong number of tensors ends at the end of the content, not of the memory.
    entries = [_read_entry(reader) for _ in range(n_tensors)]
    start = math.ceil(reader.position / ALIGNMENT) * ALIGNMENT
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("two of its tensors have the same name")
    for entry in entries:
        first = start + entry.offset
        if first + entry.n_bytes > len(content):
            raise ValueError(f"{entry.name} reaches beyond its end")
        data = content[first : first + entry.n_bytes]
        # A copy, because torch warns of arrays that cannot be written to.
        values = np.frombuffer(data, entry.dtype).reshape(entry.shape)
        yield entry.name, torch.from_numpy(values.astype(entry.dtype.newbyteorder("=")))


def _read_entry(reader: _Reader) -> _Entry:
    """Read a row of the table; ValueError if it contradicts itself."""
    (n_letters,) = reader.numbers("H")
    name = reader.take(n_letters).decode()  # UnicodeDecodeError is a ValueError
    kind, n_dimensions = reader.numbers("BB")
    shape = reader.numbers(f"{n_dimensions}I")
    offset, n_bytes = reader.numbers("QQ")
    if kind not in _DTYPES:
        raise ValueError(f"{name} has the unknown type {kind}")
    dtype = _DTYPES[kind]
    if math.prod(shape) * dtype.itemsize != n_bytes:
        raise ValueError(f"{name} has {n_bytes} bytes, which do not fit its shape {shape}")
    return _Entry(name, dtype, shape, offset, n_bytes)
