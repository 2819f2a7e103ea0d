"""What train.py shows of running trainings."""

from contextlib import closing
from pathlib import Path

import pytest

from hearback.engine.launch.jobs import Job, Outcome, run_all
from hearback.engine.launch.local import LocalLauncher
from hearback.engine.launch.monitor import LINE_SECONDS, Monitor, progress_of

BAR = "modeltok fold 0 epoch 1/3:  45%|████▌     | 108/240 [00:10<00:12, 10.58example/s, loss=0.6]"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("modeltok", 0, ("-c", "pass"), tmp_path / "modeltok_0.log")


def test_progress_is_that_of_the_last_bar_in_the_log(job: Job) -> None:
    assert job.log is not None
    assert progress_of(job) == "modeltok fold 0 is running"
    job.log.write_text("modeltok fold 0 initialized\n" + BAR.replace("45%", "44%") + "\r" + BAR)
    assert progress_of(job) == "modeltok fold 0 epoch 1/3 45 %"
    job.log.write_text(f"{BAR}\nmodeltok fold 0 epoch 1/3: train loss 0.7, 45% of it\n")
    assert progress_of(job) == "modeltok fold 0 is running"
    assert progress_of(Job("modeltok", 0, ())) == "modeltok fold 0 is running"


def test_without_a_terminal_there_is_a_line_every_few_seconds(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.log is not None
    now = 0.0
    monitor = Monitor(2, shown=True, is_terminal=False, clock=lambda: now)
    following = monitor.follow(iter([Outcome(job, "trained")] * 2))
    next(following)
    for seconds, percent in ((1, 1), (6, 2), (7, 3), (12, 2), (20, 4), (1000, 5), (1010, 6)):
        now = float(seconds)
        job.log.write_text(f"modeltok fold 0 epoch 1/3: {percent}%|")
        monitor.show_running([job, job])
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert lines == ["; ".join([f"modeltok fold 0 epoch 1/3 {n} %"] * 2) for n in (2, 4, 5)]
    assert LINE_SECONDS < 6


def test_on_a_terminal_the_bar_shows_the_running_jobs(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monitor = Monitor(1, shown=True, is_terminal=True, clock=lambda: now)
    following = monitor.follow(iter([Outcome(job, "trained")]))
    monitor.show_running([job])  # no bar yet
    next(following)
    now = 1.0
    monitor.show_running([job])
    printed = capsys.readouterr()
    assert "modeltok fold 0 is running" in printed.err
    assert "is running" not in printed.out


def test_nothing_is_shown_beside_a_training_s_own_bar(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monitor = Monitor(1, shown=False, is_terminal=False, clock=lambda: now)
    for _ in monitor.follow(iter([Outcome(job, "trained")])):
        now = 100.0
        monitor.show_running([job])
    printed = capsys.readouterr()
    assert printed.out == "modeltok fold 0: trained\n"
    assert printed.err == ""


def test_a_launcher_tells_which_jobs_run_while_it_waits(job: Job, tmp_path: Path) -> None:
    seen: list[list[Job]] = []
    sleeping = Job("modeltok", 0, ("-c", "import time; time.sleep(0.5)"), job.log)
    with closing(LocalLauncher([None], lambda jobs: seen.append(list(jobs)))) as launcher:
        (outcome,) = run_all([sleeping], launcher, tmp_path, lambda _: False)
    assert outcome.outcome == "trained"
    assert seen and all(jobs == [sleeping] for jobs in seen)
