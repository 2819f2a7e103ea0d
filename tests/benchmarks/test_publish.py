"""Folds' predictions, kept without their weights."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import publish
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import read_tables
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.reading.evaluation import read_out_of_fold
from hearback.reading.words import read_fold, to_table
from hearback.songs.evaluation import ClassOutOfFold
from tests.reading.test_evaluation import N_FOLDS, make_metadata, make_predictions, write_folds
from tests.songs import test_evaluation

COMMAND = (
    "python train_model1m.py --fold 0 --data '/home/some body/data' --store /s --assets /a --runs "
    "/r --n_folds 3 --set window=fixed --tts_data /t --attempt 2"
)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    write_folds(tmp_path / "assets", "model1m", make_predictions(2), retrain_command=COMMAND)
    write_folds(tmp_path / "assets", "model2s", make_predictions(1, seed=1), [0, 2])
    return tmp_path / "assets"


def test_what_is_published_reads_as_what_was_trained(
    assets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = tmp_path / "public"
    monkeypatch.setattr(sys, "argv", ["publish", "--assets", str(assets), "--to", str(to)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(publish.__file__)), run_name="__main__")
    assert not ended.value.code and "5 folds in" in capsys.readouterr().out
    for trained, published in zip(read_out_of_fold(assets), read_out_of_fold(to), strict=True):
        pd.testing.assert_frame_equal(trained.rows, published.rows)
        assert trained.missing_folds == published.missing_folds
    assert {path.suffix for path in to.iterdir()} == {".json", ".csv"}  # no weights


def test_a_published_command_names_no_folder(assets: Path, tmp_path: Path) -> None:
    publish.publish(assets, tmp_path / "public", ["model1m"])
    command = read_fold_metadata(FoldFiles(tmp_path / "public", "model1m", 0))["retrain_command"]
    assert command == (
        "python train_model1m.py --fold 0 --n_folds 3 --set window=fixed --attempt 2"
    )
    assert not FoldFiles(tmp_path / "public", "model2s", 0).metadata.exists()


def test_scores_of_words_are_published_too(tmp_path: Path) -> None:
    filenames, texts = make_metadata()[["filename", "expected_text"]].to_numpy().T.tolist()
    scores = np.ones((len(texts), 1 + max(len(text.split()) for text in texts), 2))
    words = to_table(filenames, texts, scores)
    own, to = tmp_path / "assets", tmp_path / "public"
    write_folds(own, "modeltok", make_predictions(2), words=words, retrain_command=COMMAND)
    publish.publish(own, to)
    for fold in range(N_FOLDS):
        files = FoldFiles(to, "modeltok", fold)
        read_fold(files, read_fold_metadata(files))  # its digest fits
        assert files.words.read_bytes() == FoldFiles(own, "modeltok", fold).words.read_bytes()


def test_songs_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assets, to = tmp_path / "assets" / "songs", tmp_path / "public"
    command = "python -m hearback.songs.recipes.cnn4 --fold 0 --backbones /b --seed 2 --attempt 2"
    test_evaluation.write_folds(
        assets, "cnn4_s2", test_evaluation.make_probabilities(1), retrain_command=command
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["publish", "--songs", "--to", str(to)])
    publish.main()
    assert "3 folds in" in capsys.readouterr().out
    (own,), (copy,) = (read_tables(ClassOutOfFold, folder) for folder in (assets, to))
    pd.testing.assert_frame_equal(own.rows, copy.rows)
    told = read_fold_metadata(FoldFiles(to, "cnn4_s2", 1))["retrain_command"]
    assert told == "python -m hearback.songs.recipes.cnn4 --fold 0 --seed 2 --attempt 2"


def test_publishing_again_replaces_what_was_there(assets: Path, tmp_path: Path) -> None:
    to = tmp_path / "public"
    publish.publish(assets, to)
    write_folds(assets, "model1m", make_predictions(3, seed=5), retrain_command=COMMAND)
    publish.publish(assets, to)
    for trained, published in zip(read_out_of_fold(assets), read_out_of_fold(to), strict=True):
        pd.testing.assert_frame_equal(trained.rows, published.rows)


def test_damaged_predictions_are_not_published(assets: Path, tmp_path: Path) -> None:
    FoldFiles(assets, "model1m", 1).oof.write_text("filename,score,pred\n")
    with pytest.raises(HearbackError, match=r"model1m_1\.oof\.csv: not the file that"):
        publish.publish(assets, tmp_path / "public")
    assert not (tmp_path / "public").exists()
