"""benchmarks/scale_cluster.py: a simulated cluster, with infer.py's own code for the rest."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import scale_cluster
from benchmarks.scale import Cost
from benchmarks.scale_cluster import READ, SCORE, SimulatedPool, report, write_data
from hearback.reading.inference.cluster import run


def test_the_tables_have_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "WorkerPool", SimulatedPool)  # put back at the end
    write_data(tmp_path, 150)
    scale_cluster.simulate(SCORE, tmp_path)
    table = pd.read_csv(tmp_path / "data" / "test_metadata.csv", dtype=str)
    submission = pd.read_csv(tmp_path / "submission.csv")
    assert submission["filename"].tolist() == table["filename"].tolist()
    assert submission["score"].between(0, 1).all() and submission["score"].nunique() > 100
    words = pd.read_csv(tmp_path / "word_scores.csv", keep_default_na=False)
    assert len(words) == table["expected_text"].str.split().str.len().sum()
    problems = pd.read_csv(tmp_path / "submission_problems.csv")
    assert len(problems) == 150 // 50
    assert "150 rows, 0 of them at the base rate" in capsys.readouterr().out
    assert not list(tmp_path.glob(".sums-*"))


def test_the_report_shows_what_a_row_more_costs() -> None:
    costs = [
        Cost(step, rows, 1.0, rows / 1000, 50 + rows * n_bytes / 1e6, 20.0)
        for step, n_bytes in ((READ, 900), (SCORE, 1200))
        for rows in (1000, 2000)
    ]
    lines = report(costs).splitlines()
    assert f"| {SCORE} | 2000 | 1.0 | 2.0 | 52 | 20 | 1200 | 1.00 |" in lines
    assert f"| {READ} | 2000 | 1.0 | 2.0 | 52 | 20 | 900 | 1.00 |" in lines
