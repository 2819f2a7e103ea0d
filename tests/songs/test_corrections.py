"""Corrections of the songs' training table."""

from pathlib import Path

import pytest

from hearback.engine.data.problems import Report
from hearback.songs.tables import correct, read_corrections, read_snippets
from tests.songs.fabricated_folds import make_snippets, write_data


@pytest.mark.parametrize(
    ("written", "label"), [("2", 2), ("2.0", 2), ("2,0", 2), ("female", 2), ("No voice", 0)]
)
@pytest.mark.parametrize("name", ["train_0001.ogg", "train/train_0001.ogg"])
def test_classes_are_numbers_or_names(tmp_path: Path, name: str, written: str, label: int) -> None:
    write_data(tmp_path)
    path, report = tmp_path / "corrections.csv", Report()
    path.write_text(f'filename,verdict,score\n{name},wrong_label,"{written}"\n')
    before = read_snippets(tmp_path, Report())
    found = read_corrections(path, tmp_path, before, report)
    assert not report.problems
    after = correct(before, found)
    assert after["label"].dtype == before["label"].dtype
    assert after["label"].tolist() == [0, label, *make_snippets()["label"][2:]]
    assert after.drop(columns="label").equals(before.drop(columns="label"))


def test_an_unknown_class_is_an_error(tmp_path: Path) -> None:
    write_data(tmp_path)
    path, report = tmp_path / "corrections.csv", Report()
    path.write_text("filename,verdict,score\ntrain_0001.ogg,wrong_label,choir\n")
    read_corrections(path, tmp_path, read_snippets(tmp_path, Report()), report)
    assert "the right label is 'choir'" in str(report)
    assert "0 (no voice), 1 (male), 2 (female), 3 (several)" in str(report)
