"""Predictions of folds, published without their weights."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import publish
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import read_tables, trained_folds
from hearback.engine.training.fold_archive import NAME, read_archive
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.reading.evaluation import read_out_of_fold
from hearback.reading.words import read_fold, to_table
from hearback.songs.evaluation import ClassOutOfFold
from tests.reading.fabricated_folds import N_FOLDS, make_metadata, make_predictions, write_folds
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


def test_published_folds_read_like_trained_ones(
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
    assert [path.name for path in to.iterdir()] == [NAME]
    assert {name.partition(".")[2] for name in read_archive(to)} == {"json", "oof.csv"}


def test_a_published_command_names_no_folder(assets: Path, tmp_path: Path) -> None:
    publish.publish(assets, tmp_path / "public", ["model1m"])
    command = read_fold_metadata(FoldFiles(tmp_path / "public", "model1m", 0))["retrain_command"]
    assert command == (
        "python train_model1m.py --fold 0 --n_folds 3 --set window=fixed --attempt 2"
    )
    assert trained_folds(tmp_path / "public") == {"model1m": [0, 1, 2]}


@pytest.mark.parametrize("with_words", [True, False])
def test_scores_of_words_are_published_on_request(tmp_path: Path, with_words: bool) -> None:
    filenames, texts = make_metadata()[["filename", "expected_text"]].to_numpy().T.tolist()
    places = 1 + max(len(text.split()) for text in texts)
    scores = np.random.default_rng(0).normal(0, 5, (len(texts), places, 2))
    words = to_table(filenames, texts, scores)
    own, to = tmp_path / "assets", tmp_path / "public"
    write_folds(own, "modeltok", make_predictions(2), words=words, retrain_command=COMMAND)
    publish.publish(own, to, with_words=with_words)
    for fold in range(N_FOLDS):
        files = FoldFiles(to, "modeltok", fold)
        metadata = read_fold_metadata(files)
        assert ("words" in metadata["sha256"]) == with_words
        if with_words:
            kept = read_fold(files, metadata)  # its digest fits
            trained = FoldFiles(own, "modeltok", fold)
            expected = read_fold(trained, read_fold_metadata(trained))
            pd.testing.assert_frame_equal(kept, expected, check_exact=False, atol=5.1e-6, rtol=0)
        else:
            assert files.table("words").name not in read_archive(to)


def test_numbers_of_single_steps_are_left_out(assets: Path, tmp_path: Path) -> None:
    epochs = [{"epoch": 1, "validation_log_loss": 0.5, "losses": [1.0], "gradient_norms": [2.0]}]
    write_folds(tmp_path / "own", "model1m", make_predictions(1), epochs=epochs)
    publish.publish(tmp_path / "own", tmp_path / "public")
    metadata = read_fold_metadata(FoldFiles(tmp_path / "public", "model1m", 1))
    assert metadata["epochs"] == [{"epoch": 1, "validation_log_loss": 0.5}]


@given(probability=st.floats(0, 1))
def test_rounding_keeps_the_log_loss_of_either_label(probability: float) -> None:
    (rounded,) = publish.rounded(np.array([probability]))
    assert 0 <= rounded <= 1
    for before, after in ((probability, rounded), (1 - probability, 1 - rounded)):
        assert after == pytest.approx(before, rel=6e-7, abs=1e-15)


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


def test_publishing_again_replaces_the_archive(assets: Path, tmp_path: Path) -> None:
    to = tmp_path / "public"
    publish.publish(assets, to)
    write_folds(assets, "model1m", make_predictions(3, seed=5), retrain_command=COMMAND)
    publish.publish(assets, to)
    for trained, published in zip(read_out_of_fold(assets), read_out_of_fold(to), strict=True):
        pd.testing.assert_frame_equal(trained.rows, published.rows)


def test_damaged_predictions_are_not_published(assets: Path, tmp_path: Path) -> None:
    FoldFiles(assets, "model1m", 1).oof.write_text("filename,score,pred\n")
    with pytest.raises(HearbackError, match=r"model1m_1\.oof\.csv: differs from the digest"):
        publish.publish(assets, tmp_path / "public")
    assert not (tmp_path / "public").exists()
