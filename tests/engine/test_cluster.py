"""Jobs on a Ray cluster of two nodes, both on this machine."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.launch import cluster
from hearback.engine.launch.cluster import RayLauncher, import_ray
from hearback.engine.launch.jobs import Job
from hearback.engine.project import ROOT
from tests.helpers import is_running, reading_flags, start_training, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start a cluster of two nodes with one processor each, and yield its address.

    One of them claims to have a GPU.
    """
    pytest.importorskip("ray")
    ray = import_ray()
    from ray.cluster_utils import Cluster

    settings: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    machines = Cluster(
        initialize_head=True, head_node_args={**settings, "include_dashboard": False}
    )
    machines.add_node(**settings, num_gpus=1)
    yield machines.address
    ray.shutdown()  # a failed test may still be connected
    machines.shutdown()


def processes_with(*words: str) -> dict[int, int]:
    """Return the parent of each process with all the words in its command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            status = (folder / "status").read_text()
        except OSError:  # it has ended in the meantime
            continue
        if set(words) <= set(command):
            _, _, rest = status.partition("\nPPid:\t")
            found[int(folder.name)] = int(rest.split()[0])
    return found


def test_a_training_resumes_after_its_worker_was_killed(
    address: str, make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    flags = ["--models", "model2ds", "--folds", 0, 1, *reading_flags(backbone, epochs=15)]
    running = start_training(*flags, "--launcher", "ray", "--address", address, folder=folder)
    wait_for((folder / "assets" / "model2ds_1.checkpoint").exists, seconds=100)
    script = str(ROOT / "train_model2ds.py")
    ((training, worker),) = processes_with(script, "--fold", "1", str(backbone)).items()
    assert "ray::" in Path(f"/proc/{worker}/cmdline").read_text()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not is_running(training))  # its fold's lock is free then
    printed, _ = running.communicate(timeout=100)
    assert running.returncode == 0, printed
    assert len(re.findall("model2ds fold 1: lost its worker", printed)) == 1
    assert "fold 0: lost" not in printed
    logs = [(folder / "runs" / f"model2ds_{fold}.log").read_text() for fold in (0, 1)]
    assert ["resumes after epoch" in log for log in logs] == [False, True]
    assert all((folder / "assets" / f"model2ds_{fold}.json").exists() for fold in (0, 1))
    assert not list((folder / "assets").glob(".shared-*"))


@pytest.fixture
def open_launcher(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., RayLauncher]]:
    """Open launchers in the test's folder, and close them."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as opened:

        def make(**settings: Any) -> RayLauncher:
            launcher = RayLauncher(address, assets=tmp_path / "assets", **settings)
            return opened.enter_context(closing(launcher))

        yield make


def ended(launcher: RayLauncher, *codes: str) -> list[int | str]:
    """Run lines of Python and return their statuses."""
    jobs = [
        Job("model1m", number, ("-S", "-c", code), Path("runs") / f"{number}.log")
        for number, code in enumerate(codes)
    ]
    for job in jobs:
        launcher.start(job)
    statuses = {each.job: each.status for each in (launcher.wait() for _ in jobs)}
    return [statuses[job] for job in jobs]


def test_jobs_run_in_this_folder_with_their_number_of_processors(
    open_launcher: Callable[..., RayLauncher], tmp_path: Path
) -> None:
    code = "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'])"
    assert ended(open_launcher(), code, "raise SystemExit(3)") == [0, 3]
    assert (tmp_path / "runs" / "0.log").read_text() == f"{tmp_path} 1\n"


def test_jobs_can_share_a_gpu(open_launcher: Callable[..., RayLauncher], tmp_path: Path) -> None:
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    assert ended(open_launcher(n_cpus=0.5, gpu_share=0.5), code, code) == [0, 0]
    logs = [(tmp_path / "runs" / f"{job}.log").read_text() for job in (0, 1)]
    assert logs == ["0\n", "0\n"]


def test_a_machine_without_a_needed_folder_is_an_error(
    open_launcher: Callable[..., RayLauncher], tmp_path: Path
) -> None:
    launcher = open_launcher(needed=[Path("data")])
    (status,) = ended(launcher, "open('ran', 'w')")
    assert f"does not see {tmp_path / 'data'}: share the folder" in str(status)
    assert not (tmp_path / "ran").exists()


def test_a_job_fails_after_too_many_lost_workers(
    open_launcher: Callable[..., RayLauncher], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "MAX_ATTEMPTS", 2)
    code = "import os, signal; print('ran'); os.kill(os.getppid(), signal.SIGKILL)"
    (status,) = ended(open_launcher(), code)
    assert str(status).startswith("lost 2 workers: ")


def test_closing_the_launcher_ends_its_jobs(
    open_launcher: Callable[..., RayLauncher], tmp_path: Path
) -> None:
    launcher = open_launcher()
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    log = tmp_path / "runs" / "model1m_0.log"
    launcher.start(Job("model1m", 0, ("-S", "-c", code), log))
    wait_for(log.read_text)
    launcher.close()
    wait_for(lambda: not is_running(int(log.read_text())))


def test_a_warning_if_no_machine_has_the_resources(
    open_launcher: Callable[..., RayLauncher], capsys: pytest.CaptureFixture[str]
) -> None:
    open_launcher(n_cpus=64)
    assert "no machine of the cluster has 64 CPUs and 0 GPUs now" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1", "a:b"])
def test_the_error_without_a_cluster_says_how_to_start_one(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(HearbackError, match=f"--address {address}: no Ray .* ray start --head"):
        RayLauncher(address, assets=tmp_path)
