"""Jobs in parallel on this machine, with stub scripts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from hearback.engine import failures
from hearback.engine.io import write_json
from hearback.engine.launch import local, processes
from hearback.engine.launch.jobs import Job, Outcome, as_table, last_line, run_all
from hearback.engine.launch.local import LocalLauncher, assign_gpus
from hearback.engine.project import ROOT
from hearback.engine.training.fold_files import FoldFiles, lock_fold
from tests.helpers import is_running, wait_for

SLEEP = "import time; print('sleeps', flush=True); time.sleep(60)"
IGNORING = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + SLEEP
linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans end only on Linux")


@pytest.fixture(autouse=True)
def poll_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "POLL_SECONDS", 0.005)


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Make a job of a line of Python; it runs in the test's folder."""

    def make(
        code: str = "pass", fold: int = 0, model: str = "model1m", after: str | None = None
    ) -> Job:
        code = f"import os; os.chdir({str(tmp_path)!r}); {code}"
        log = tmp_path / "runs" / f"{model}_{fold}.log"
        return Job(model, fold, ("-S", "-c", code), log, after)

    return make


def run(
    jobs: Sequence[Job],
    folder: Path,
    slots: Sequence[str | None] = (None, None),
    is_done: Callable[[Job], bool] = lambda job: False,
) -> dict[str, Outcome]:
    with closing(LocalLauncher(slots)) as launcher:
        outcomes = run_all(jobs, launcher, folder / "assets", is_done)
        return {str(outcome.job): outcome for outcome in outcomes}


def sleeps(job: Job) -> bool:
    return job.log is not None and "sleeps" in job.log.read_text()


def test_logs_have_tracebacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failures.SHOW_TRACEBACK, raising=False)
    code = f"import os; print(os.environ[{failures.SHOW_TRACEBACK!r}])"
    assert processes.start(["-c", code], log=tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text() == "1\n"


def test_jobs_run_in_parallel_with_a_log_each(make_job: Callable[..., Job], tmp_path: Path) -> None:
    # Each ends when it has seen the other, or fails.
    meet = (
        "import time; open('here{}', 'w'); print('I am {}')\n"
        "for _ in range(1000):\n"
        "    if os.path.exists('here{}'): break\n"
        "    time.sleep(0.01)\n"
        "else: raise SystemExit(3)"
    )
    jobs = [make_job(meet.format(me, me, 1 - me), fold=me) for me in (0, 1)]
    outcomes = run(jobs, tmp_path)
    assert [outcome.outcome for outcome in outcomes.values()] == ["trained"] * 2
    for job in jobs:
        assert job.log is not None and job.log.read_text() == f"I am {job.fold}\n"


def test_output_is_appended_to_the_log(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job("print('line')")
    run([job], tmp_path)
    run([job], tmp_path)
    assert job.log is not None and job.log.read_text() == "line\nline\n"


def test_a_failed_job_does_not_stop_other_jobs(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    jobs = [
        make_job("raise SystemExit('no space left')", fold=0),
        make_job(fold=1),
        make_job("import signal; os.kill(os.getpid(), signal.SIGKILL)", fold=2),
        make_job(fold=3),
    ]
    outcomes = run(jobs, tmp_path)
    assert {name: (outcome.outcome, outcome.reason) for name, outcome in outcomes.items()} == {
        "model1m fold 0": ("failed", "exit status 1"),
        "model1m fold 1": ("trained", ""),
        "model1m fold 2": ("failed", "killed: Killed"),
        "model1m fold 3": ("trained", ""),
    }
    assert jobs[0].log is not None and last_line(jobs[0].log) == "no space left"


def test_a_job_runs_after_the_one_it_depends_on(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    note = "open('order', 'a').write('{} ')"
    jobs = [  # in reverse order
        make_job(note.format("c"), model="model3mb", after="model2ds"),
        make_job(note.format("b"), model="model2ds", after="model1m"),
        make_job("import time; time.sleep(0.1); " + note.format("a"), model="model1m"),
    ]
    outcomes = run(jobs, tmp_path, slots=[None] * 3)
    assert {outcome.outcome for outcome in outcomes.values()} == {"trained"}
    assert (tmp_path / "order").read_text() == "a b c "


def test_jobs_that_depend_on_a_failed_job_are_skipped(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    jobs = [
        make_job(model="model3mb", after="model2ds"),
        make_job(model="model2ds", after="model1m"),
        make_job("raise SystemExit(1)", model="model1m"),
        make_job(model="model2ds", after="model1m", fold=1),
    ]
    outcomes = run(jobs, tmp_path)
    results = {name: (outcome.outcome, outcome.reason) for name, outcome in outcomes.items()}
    assert results["model2ds fold 0"] == (
        "not run",
        "it is initialized from model1m fold 0: failed",
    )
    assert results["model3mb fold 0"] == (
        "not run",
        "it is initialized from model2ds fold 0: not run",
    )
    assert results["model2ds fold 1"] == ("trained", "")
    assert not (tmp_path / "runs" / "model2ds_0.log").exists()


def test_a_fold_that_another_process_is_training_is_skipped(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    jobs = [make_job("open('ran', 'w')"), make_job(fold=1)]
    with lock_fold(FoldFiles(tmp_path / "assets", "model1m", 0)):
        outcomes = run(jobs, tmp_path)
    assert outcomes["model1m fold 0"].outcome == "locked"
    assert outcomes["model1m fold 1"].outcome == "trained"
    assert not (tmp_path / "ran").exists()


def test_a_fold_that_another_process_locks_first_is_locked(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """The lock is free when the job is started, but not when it runs."""
    files = FoldFiles(tmp_path / "assets", "model1m", 0)
    job = make_job("raise SystemExit('another process is training it')")
    lock = lock_fold(files)

    class Late(LocalLauncher):
        def start(self, job: Job) -> None:
            lock.__enter__()
            super().start(job)

    with closing(Late([None])) as launcher:
        (outcome,) = run_all([job], launcher, files.assets, lambda job: False)
    lock.__exit__(None, None, None)
    assert outcome.outcome == "locked"


def test_a_fold_trained_by_another_process_is_not_trained_again(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = make_job("open('ran', 'w')")
    outcome = run([job], tmp_path, is_done=lambda job: True)["model1m fold 0"]
    assert (outcome.outcome, outcome.reason) == ("trained", "by another process")
    assert not (tmp_path / "ran").exists()


VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS")
PRINT_ENVIRONMENT = (
    f"import json; print(json.dumps({{n: os.environ.get(n) for n in {VARIABLES}}}), flush=True); "
)


def environment_of(job: Job) -> dict[str, str | None]:
    assert job.log is not None
    return json.loads(job.log.read_text().splitlines()[0])


def test_each_job_sees_one_gpu_and_gpus_are_shared_evenly(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(local, "count_processors", lambda: 14)
    jobs = [make_job(PRINT_ENVIRONMENT + SLEEP, fold=fold) for fold in range(4)]
    with closing(LocalLauncher(["0", "0", "1", "1"])) as launcher:
        gpus = []
        for job in jobs:
            assert launcher.has_room
            launcher.start(job)
            wait_for(partial(sleeps, job))
            values = environment_of(job)
            gpus.append(values["CUDA_VISIBLE_DEVICES"])
            assert (values["CUDA_DEVICE_ORDER"], values["OMP_NUM_THREADS"]) == ("PCI_BUS_ID", "3")
        assert not launcher.has_room
    assert gpus == ["0", "1", "0", "1"]  # not in the order of the slots


def test_free_slots_are_reused(make_job: Callable[..., Job], tmp_path: Path) -> None:
    jobs = [make_job(PRINT_ENVIRONMENT, fold=fold) for fold in range(5)]
    outcomes = run(jobs, tmp_path, slots=["0", "1"])
    assert [outcome.outcome for outcome in outcomes.values()] == ["trained"] * 5
    assert {environment_of(job)["CUDA_VISIBLE_DEVICES"] for job in jobs} == {"0", "1"}


def test_a_single_job_has_an_unchanged_environment(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    job = make_job(PRINT_ENVIRONMENT)
    run([job], tmp_path, slots=[None])
    assert environment_of(job) == dict.fromkeys(VARIABLES)


def test_omp_num_threads_of_the_environment_is_kept(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    job = make_job(PRINT_ENVIRONMENT)
    run([job], tmp_path, slots=[None, None])
    assert environment_of(job)["OMP_NUM_THREADS"] == "5"


def test_gpus_are_numbered_among_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-c0ffee")
    assert assign_gpus([1, 0], 3) == ["GPU-c0ffee", "4", "GPU-c0ffee"]


def test_closing_the_launcher_ends_its_jobs_even_if_they_ignore_signals(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    jobs = [make_job(SLEEP), make_job(IGNORING, fold=1)]
    launcher = LocalLauncher([None, None])
    for job in jobs:
        launcher.start(job)
    for job in jobs:
        wait_for(partial(sleeps, job))
    launcher.close()
    ended = [launcher.wait() for _ in jobs]
    statuses = {each.job.fold: each.status for each in ended}
    assert statuses == {0: -signal.SIGINT, 1: -signal.SIGKILL}
    assert jobs[0].log is not None and "KeyboardInterrupt" in jobs[0].log.read_text()


OWNER = """
import signal, sys, time
from pathlib import Path
# Background processes ignore these signals, and their children would inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
sys.path.insert(0, {project!r})
from hearback.engine.launch import processes
try:
    with processes.stopped_by_signals():
        child = processes.start(("-S", "-c", {code!r}), log=Path("log"))
        print(child.pid, flush=True)
        time.sleep(60)
except processes.Stopped as stopped:
    processes.stop([child])
    sys.exit(128 + stopped.number)
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_process_outlives_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(project=str(ROOT), code=SLEEP)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    wait_for(lambda: "sleeps" in (tmp_path / "log").read_text())
    assert is_running(child)
    owner.send_signal(number)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert owner.wait(timeout=20) == expected
    wait_for(lambda: not is_running(child))


@linux
def test_a_process_without_its_parent_does_not_run() -> None:
    bound = [sys.executable, str(processes.BOUND), str(os.getpid() + 1), "-c", "print('ran')"]
    done = subprocess.run(bound, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_table_shows_each_outcome(make_job: Callable[..., Job], tmp_path: Path) -> None:
    fold_metadata = {"log_loss": 0.25, "attempts": [{}, {}]}
    write_json(FoldFiles(tmp_path, "model1m", 0).metadata, fold_metadata)
    outcomes = [
        Outcome(make_job(), "trained", seconds=12.5),
        Outcome(make_job(fold=1), "failed", "exit status 1", 2.0),
    ]
    trained, failed = as_table(outcomes, tmp_path).to_dict("records")
    assert {**trained, "log": ""} == {
        "model": "model1m",
        "fold": 0,
        "outcome": "trained",
        "log loss": 0.25,
        "seconds": "12",
        "attempts": "2",
        "log": "",
    }
    assert (failed["outcome"], failed["attempts"]) == ("failed (exit status 1)", "–")
    assert failed["log"].endswith("runs/model1m_1.log")


def test_the_last_line_of_a_log_may_be_a_progress_bar(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" + b"x" * 5000 + b"\n 10 %\r 20 %\r\n \xff\n\n")
    assert last_line(log) == "\ufffd"
    log.write_bytes(b"first\n 10 %\r 20 %\n")
    assert last_line(log) == "20 %"
    log.write_bytes(b"")
    assert last_line(log) == ""
