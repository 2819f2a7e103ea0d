"""Devices: freed memory is kept."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from hearback.engine import devices, malloc
from hearback.engine.errors import HearbackError
from hearback.engine.launch.processes import ROOT

PLAIN = {name: value for name, value in os.environ.items() if not malloc.configures_malloc(name)}
# Allocates blocks of 64 MB one after another, and prints the number of page faults of the last ten.
# The first blocks are not counted, because alignment makes the allocator need a few more.
COUNT_PAGES = """
import resource, sys, torch
from hearback.engine.devices import choose_device, keep_freed_memory
print(choose_device("cpu").type if sys.argv[1] == "chosen" else keep_freed_memory.__name__)
for _ in range(20):
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc_only = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="malloc is configured for glibc only"
)


def count_pages(argument: str, **environment: str) -> int:
    command = [sys.executable, "-c", COUNT_PAGES, argument]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**PLAIN, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@glibc_only
def test_freed_memory_is_reused_on_a_cpu() -> None:
    pages = 640_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert count_pages("chosen") < pages / 100
    assert count_pages("not chosen") > pages / 2  # otherwise there would be no gain


@pytest.mark.slow
@glibc_only
def test_malloc_settings_of_the_environment_are_kept() -> None:
    pages = 640_000_000 // os.sysconf("SC_PAGE_SIZE")
    assert count_pages("chosen", MALLOC_TRIM_THRESHOLD_="131072") > pages / 2


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(PLAIN):
        monkeypatch.delenv(name)


class Library:
    """A C library whose mallopt takes thresholds up to `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.calls = most, list[tuple[int, int]]()

    def mallopt(self, what: int, n_bytes: int) -> int:
        self.calls.append((what, n_bytes))
        return int(what != -3 or n_bytes <= self.most)


@pytest.mark.usefixtures("plain_environment")
@pytest.mark.parametrize(("most", "n_calls"), [(2**31 - 1, 2), (2**25, 3)])
def test_older_glibc_has_a_lower_threshold(
    monkeypatch: pytest.MonkeyPatch, most: int, n_calls: int
) -> None:
    library = Library(most)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    assert malloc.keep_freed_memory()
    assert len(library.calls) == n_calls and library.calls[-1] == (-3, most)


@pytest.mark.usefixtures("plain_environment")
@pytest.mark.parametrize(
    ("system", "environment"),
    [
        ("linux", {}),  # musl: it has no mallopt
        ("darwin", {}),
        ("linux", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
        ("linux", {"MALLOC_ARENA_MAX": "1"}),
    ],
)
def test_other_systems_are_unchanged(
    monkeypatch: pytest.MonkeyPatch, system: str, environment: dict[str, str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    library: object = Library(2**31 - 1) if system == "darwin" or environment else object()
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not malloc.keep_freed_memory()
    assert not getattr(library, "calls", [])
    assert devices.choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", "this machine has no mps: use cpu"),
        ("gpu", "this machine has no GPU that torch can use: use cpu"),
        ("cuda", "this machine has no GPU that torch can use: use cpu"),
        ("cuda:7", "this machine has no GPU that torch can use: use cpu"),
        ("meta", "it computes nothing; there is no such device: use cpu"),
        ("foo", "there is no such device: use cpu"),
    ],
)
def test_a_device_that_is_not_there_is_an_error_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    def missing(*_: object, device: torch.device) -> torch.Tensor:
        raise RuntimeError("a page\nof internals")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if name != "meta":
        monkeypatch.setattr(torch, "empty", missing)
    with pytest.raises(HearbackError) as refusal:
        devices.choose_device(name)
    assert str(refusal.value) == f"--device {name}: {message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "a GPU's name is cuda, or cuda:1 for the second: use cuda"),
        ("cuda:7", r"this machine has 2 GPU\(s\), cuda:0 to cuda:1: use one of them, or cpu"),
        ("mps", "this machine has no mps: use cuda or cpu"),
    ],
)
def test_a_machine_with_gpus_names_them(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    def missing(*_: object, device: torch.device) -> torch.Tensor:
        raise RuntimeError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", missing)
    with pytest.raises(HearbackError, match=message):
        devices.choose_device(name)
