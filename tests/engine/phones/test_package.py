"""Reading weight packages, whole and damaged."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.engine.phones.package import read_package
from tests.engine.phones.packages import Arrays, pack

ARRAYS: Arrays = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([0.5, -2.0, 7.0], dtype=np.float16),
    "scalar": np.array(3.0, dtype=np.float32),
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_tensors_are_read_as_they_are_stored(tmp_path: Path) -> None:
    tensors = read_package(write(tmp_path / "it.hama", pack(ARRAYS)))
    assert tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert torch.equal(tensors[name], torch.from_numpy(array))
        assert tensors[name].dtype == torch.from_numpy(array).dtype


def test_every_shorter_package_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    content = pack(ARRAYS)
    for length in range(len(content)):
        path = write(tmp_path / "it.hama", content[:length])
        with pytest.raises(HearbackError, match=r"it\.hama is no weight package.*Download it"):
            read_package(path)


def test_no_changed_byte_of_the_table_is_a_traceback(tmp_path: Path) -> None:
    content = pack(ARRAYS)
    for place in range(len(content) - sum(array.nbytes for array in ARRAYS.values())):
        for value in (0, 1, 127, 255):
            changed = content[:place] + bytes([value]) + content[place + 1 :]
            path = write(tmp_path / "it.hama", changed)
            try:
                read_package(path)
            except HearbackError as error:
                assert "it.hama" in str(error)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\3\4" + bytes(50), "it does not start with HAMAPK"),
        (pack(ARRAYS, version=2), "its version is 2, not 1"),
        (pack(ARRAYS, n_tensors=2**32 - 1), "which do not fit its shape"),
        (pack(ARRAYS)[:12] + b"\1\0\xff" + bytes(50), "can't decode byte 0xff"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(HearbackError, match=reason):
        read_package(write(tmp_path / "it.hama", content))


def entry(name: str, shape: tuple[int, ...], offset: int, n_bytes: int, kind: int = 0) -> bytes:
    row = struct.pack("<H", len(name)) + name.encode() + struct.pack("<BB", kind, len(shape))
    return row + struct.pack(f"<{len(shape)}I", *shape) + struct.pack("<QQ", offset, n_bytes)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([entry("w", (2**32 - 1,) * 8, 0, 16)], "w has 16 bytes, which do not fit its shape"),
        ([entry("w", (4,), 2**63, 16)], "w reaches beyond its end"),
        ([entry("w", (2**40 // 2**10, 2**8), 0, 2**40)], "w reaches beyond its end"),
        ([entry("w", (4,), 0, 16, kind=2)], "w has the unknown type 2"),
        ([entry("w", (4,), 0, 16)] * 2, "two of its tensors have the same name"),
    ],
)
def test_sizes_of_a_table_are_not_trusted(tmp_path: Path, rows: list[bytes], reason: str) -> None:
    content = b"HAMAPK" + struct.pack("<BBI", 1, 2, len(rows)) + b"".join(rows) + bytes(64)
    with pytest.raises(HearbackError, match=reason):
        read_package(write(tmp_path / "it.hama", content))


def test_a_missing_file_and_a_pipe_are_errors(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"none\.hama: cannot be read \(No such file"):
        read_package(tmp_path / "none.hama")
    os.mkfifo(tmp_path / "pipe.hama")
    with pytest.raises(HearbackError, match=r"pipe\.hama: cannot be read \(not a file"):
        read_package(tmp_path / "pipe.hama")
