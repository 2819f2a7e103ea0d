"""The free memory of a machine, which --plan, infer.py and the benchmarks ask for."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks import check_sizes
from hearback.engine import machine
from hearback.engine.plan import memory
from hearback.reading.inference.memory import memory_for_models

CPU = torch.device("cpu")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of a machine with 4 GB of free memory; it has no limit yet."""
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n")
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "free"),
    [(None, 4.096e9), ("max\n", 4.096e9), ("1000000000\n", 1e9), ("9000000000\n", 4.096e9)],
)
def test_a_containers_limit_holds_for_all_that_ask(
    container: Path, limit: str | None, free: float
) -> None:
    if limit is not None:
        (container / "memory.max").write_text(limit)
    assert machine.free_memory() == free
    assert memory.free_bytes(CPU) == free
    assert memory_for_models(CPU, None) == free / 2
    assert check_sizes.available_gb() == free / 1e9


@pytest.mark.parametrize(
    ("used", "cached", "free"),
    [(600, None, 400), (600, 250, 650), (100, 250, 1000), (1100, 0, 0)],
)
def test_what_a_container_uses_is_not_free_but_cached_files_are(
    container: Path, used: int, cached: int | None, free: int
) -> None:
    (container / "memory.max").write_text("1000\n")
    (container / "memory.current").write_text(f"{used}\n")
    if cached is not None:
        stat = f"anon 5\nfile 7\ninactive_file {cached - 50}\nactive_file 50\n"
        (container / "memory.stat").write_text(stat)
    assert machine.free_memory() == free


def test_where_the_free_memory_is_unknown_nothing_is_assumed(container: Path) -> None:
    (container / "meminfo").unlink()
    assert machine.free_memory() is None
    assert memory.free_bytes(CPU) is None
    assert check_sizes.available_gb() == math.inf


def test_the_free_memory_of_an_unknown_device_is_unknown() -> None:
    assert memory.free_bytes(torch.device("mps")) is None
