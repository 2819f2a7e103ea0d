"""benchmarks/scale.py: its simulation, measurements and report."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale import Cost, memory_of, report, simulate_recordings, simulate_table
from hearback.engine.audio.decode import decode
from hearback.engine.errors import HearbackError
from hearback.reading.tables import GRADES, TASKS


def test_the_simulation_has_the_competition_s_proportions() -> None:
    table = simulate_table(38_095, seed=0)
    assert table["expected_text"].nunique() == 471
    assert set(table["task"]) == set(TASKS)
    assert set(table["grade"]) == set(GRADES)
    assert 2_900 < table["speaker"].nunique() <= 3_000
    assert table["filename"].is_unique
    one_word = ~table["expected_text"].str.contains(" ")
    assert one_word.mean() == pytest.approx(0.9, abs=0.01)
    assert (one_word == (table["task"] != "sentence_repetition")).all()
    assert table["score"].mean() == pytest.approx(0.6, abs=0.01)
    assert table.equals(simulate_table(38_095, seed=0))
    assert not table.equals(simulate_table(38_095, seed=1))


def test_recordings_are_reproducible_and_only_missing_ones_are_written(tmp_path: Path) -> None:
    table = simulate_table(52, seed=0)
    simulate_recordings(tmp_path, table, seed=0)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(written) == {Path(filename).name for filename in table["filename"]}
    gone, kept = tmp_path / "000003.flac", tmp_path / "000004.flac"
    gone.unlink()
    changed = kept.stat().st_mtime_ns
    simulate_recordings(tmp_path, table, seed=0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written
    assert kept.stat().st_mtime_ns == changed
    recordings = [decode(path) for path in sorted(tmp_path.iterdir())]
    seconds = [len(recording.waveform) / scale.SAMPLE_RATE for recording in recordings]
    assert 1 <= min(seconds) <= max(seconds) <= 10
    assert [bool(recording.notes) for recording in recordings] == [
        number % scale.EVERY_8_KHZ == 0 for number in range(52)
    ]


# Starts a process that allocates 150 MB for a second.
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; x = bytearray(150_000_000); time.sleep(1)"])
"""


@pytest.mark.slow
def test_memory_includes_child_processes() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT])
    with memory_of(process.pid) as peak:
        process.wait()
    assert 150e6 < peak["own"] < 250e6
    assert peak["file"] > 1e6


def test_a_failed_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"a step ended with 3: see .*steps\.log"):
        scale.run("a step", 1, ["-c", "print('why'); raise SystemExit(3)"], tmp_path)
    assert "why" in (tmp_path / "steps.log").read_text()


def test_the_report_lists_excessive_costs_and_growth() -> None:
    fine = [Cost("a", rows, 1.0, rows / 100, 500.0, 9000.0) for rows in (1000, 2000)]
    text = report(fine)
    assert "Nothing takes more than 5 minutes or 2 GB" in text
    assert text.splitlines()[3] == "| a | 2000 | 1.0 | 20.0 | 500 | 9000 | 1.00 |"
    faulty = [
        *fine,
        *(Cost("b", rows, 1.0, (rows / 1000) ** 2, 500.0, 0.0) for rows in (1000, 2000)),
        Cost("c", 1000, 301.0, 1.0, 100.0, 0.0),
        Cost("d", 1000, 1.0, 1.0, 2001.0, 0.0),
    ]
    assert report(faulty).splitlines()[-3:] == [
        "b grows as rows^2.00 to 2000 rows",
        "c takes 5.0 min: 1000 rows",
        "d needs 2001 MB: 1000 rows",
    ]


@pytest.mark.slow
def test_all_steps_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        scale, "TASKS", {task: (2, share, 1.0) for task, (_, share, _) in scale.TASKS.items()}
    )
    flags = ["--work", str(tmp_path), "--rows", "120", "--sizes", "1", "--test_share", "0.2"]
    monkeypatch.setattr(sys, "argv", ["scale", *flags])
    scale.main()
    costs = json.loads((tmp_path / "costs.json").read_text())
    assert {cost["step"]: cost["rows"] for cost in costs} == {
        "preprocess.py --jobs 1: references": 8,
        "preprocess.py: references": 8,
        "preprocess.py": 144,
        "preprocess.py again": 144,
        "training's start and end": 120,
        "check_models.py": 120,
        "get_config.py": 120,
        "infer.py": 24,
    }
    assert all(cost["own_megabytes"] > 20 and cost["cpu_seconds"] > 0.1 for cost in costs)
    assert np.isfinite([cost["wall_seconds"] for cost in costs]).all()
    assert "| infer.py | 24 |" in capsys.readouterr().out
