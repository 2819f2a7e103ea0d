"""Systems other than Linux: what runs is simulated, and what cannot is refused with a sentence."""

import ctypes
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from hearback.engine import devices, machine
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.engine.launch import command
from hearback.engine.launch.monitor import Monitor
from hearback.engine.phones.edits import edit_ratios
from hearback.engine.training.checkpoint import random_state, restore_random_state
from hearback.reading.inference import memory
from tests.engine.as_windows import Kernel32
from tests.helpers import environment_of_scripts
from tests.toy import spoken

MPS = torch.device("mps")
# Imports everything, then runs a step.
ON_WINDOWS = """
import sys
from tests.engine import as_windows
as_windows.pretend()
from tests import check_imports
assert check_imports.import_all()[2] == {}
from hearback.engine import cli
from hearback.reading.steps import score, train
cli.run({"score": score, "train": train}[sys.argv.pop(1)].main)
"""


def run_on_windows(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ON_WINDOWS, *map(str, arguments)],
        cwd=folder,
        env=environment_of_scripts(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_recordings_are_scored_without_what_windows_lacks(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", spoken("boy"), SAMPLE_RATE)
    (tmp_path / "a.txt").write_text("boy", encoding="utf-8")
    done = run_on_windows("score", tmp_path, "--no_page", folder=tmp_path)
    assert "wrote scores.csv" in done.stdout, done.stderr
    assert list(pd.read_csv(tmp_path / "scores.csv")["filename"]) == ["a.wav"]


def test_trainings_in_processes_of_their_own_are_refused_on_windows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for launcher in ("local", "ray"):
        arguments = Namespace(launcher=launcher, slots=[None], address="local")
        with pytest.raises(HearbackError, match=r"does not run on Windows.*: use Linux in WSL 2$"):
            command.open_launcher(arguments, tmp_path, [], Monitor(1, shown=False))


@pytest.mark.parametrize("works", [True, False])
def test_the_free_memory_of_windows(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    def fails(status: object) -> bool:
        return False

    kernel = Kernel32 if works else SimpleNamespace(GlobalMemoryStatusEx=fails)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert machine.free_memory() == (8e9 if works else None)
    monkeypatch.delattr("os.sysconf")  # Windows has none
    if works:
        assert memory.memory_for_models(torch.device("cpu"), None) == 4e9
    else:
        with pytest.raises(HearbackError, match="unknown on this system: set --memory_gb"):
            memory.memory_for_models(torch.device("cpu"), None)


def test_a_macs_total_memory_is_taken_as_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "no meminfo")
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1_000_000}.get)
    assert memory.memory_for_models(MPS, None) == 4096 * 1_000_000 / 2


def on_a_mac(monkeypatch: pytest.MonkeyPatch, autocast: Callable[..., object]) -> None:
    monkeypatch.setattr(torch, "empty", lambda *sizes, device: None)
    monkeypatch.setattr(torch, "autocast", autocast)


def test_a_macs_gpu_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_mac(monkeypatch, lambda kind, enabled: None)
    assert devices.choose_device("mps") == MPS


def test_an_old_torch_cannot_use_a_macs_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(kind: str, enabled: bool) -> None:
        raise RuntimeError("unsupported scalarType")  # torch 2.4.1's message

    on_a_mac(monkeypatch, unsupported)
    message = f"--device mps: torch {torch.__version__} has no autocast for mps: install torch 2.6"
    with pytest.raises(HearbackError, match=re.escape(message)):
        devices.choose_device("mps")


def test_a_macs_gpu_computes_in_float32() -> None:
    assert devices.compute_dtype(MPS) == torch.float32
    assert devices.compute_dtype(MPS, "float32") == torch.float32
    for precision in ("float16", "bfloat16"):
        message = f"--precision {precision} was never tried on a Mac's GPU: use float32 there"
        with pytest.raises(HearbackError, match=f"^{message}$"):
            devices.compute_dtype(MPS, precision)


def test_phone_scorers_need_a_device_with_float64() -> None:
    on_mps = SimpleNamespace(device=MPS)
    with pytest.raises(HearbackError, match="mps: a phone or segment scorer computes in float64"):
        edit_ratios(on_mps, on_mps, on_mps, on_mps, blank=0, alternatives=on_mps)  # type: ignore[arg-type]


def test_a_macs_random_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    restored = list[torch.Tensor]()
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.tensor([7]))
    monkeypatch.setattr(torch.mps, "set_rng_state", restored.append)
    restore_random_state(random_state(MPS), MPS)
    assert [state.item() for state in restored] == [7]
