"""benchmarks/other_songs.py: song models on snippets without words and over other music."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import other_songs
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.songs.dataset import SongData
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import PROBABILITIES
from hearback.songs.inference import EnsembleFold
from hearback.songs.recipe import find_recipes
from hearback.songs.training import train_fold
from tests.songs.songs_data import read_options, training_flags, write_songs

FOLDS = (0, 1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folds of a model on snippets, some without music."""
    folder = tmp_path_factory.mktemp("other_songs")
    data = write_songs(folder / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["music"] = [f"tune{number if number < 8 else number % 4}" for number in table.index]
    table.loc[8:19, "music"] = ""
    table.to_csv(data / "manifest.csv", index=False)
    recipe = replace(find_recipes()["cnn4"].with_epochs(1), batch_size=8)
    for fold in FOLDS:
        options = read_options(*training_flags(folder, folder))
        train_fold(recipe, fold, options, options.load_data())
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> SongData:
    """The data of the folds."""
    return read_options(*training_flags(folder, folder)).load_data()


def make_versions(data: SongData, fold: int) -> dict[str, other_songs.Version]:
    sounds, music = other_songs.read_sounds(data), other_songs.read_music(data)
    return other_songs.make_versions(data, fold, sounds, music, np.random.default_rng(0))


def test_the_unchanged_version_reproduces_the_predictions(folder: Path, data: SongData) -> None:
    files = FoldFiles(folder / "assets", "cnn4", 1)
    member = EnsembleFold(0, files, pd.read_json(files.metadata, typ="series").to_dict())
    versions = make_versions(data, 1)
    probabilities = other_songs.predict_version(
        member, versions["unchanged"], device=torch.device("cpu"), dtype=torch.float32
    )
    predicted = pd.read_csv(files.oof)
    np.testing.assert_array_equal(versions["unchanged"].labels, predicted["label"])
    np.testing.assert_allclose(
        probabilities, predicted[PROBABILITIES], atol=3e-3
    )  # weights are fp16


def test_the_backwards_version_is_reversed(data: SongData) -> None:
    versions = make_versions(data, 0)
    forwards, backwards = versions["unchanged"], versions["backwards"]
    np.testing.assert_array_equal(backwards.sounds, forwards.sounds[:, ::-1])
    np.testing.assert_array_equal(backwards.labels, forwards.labels)


@pytest.mark.parametrize("fold", FOLDS)
def test_the_other_music_is_in_no_training_row(data: SongData, fold: int) -> None:
    sounds, music = other_songs.read_sounds(data), other_songs.read_music(data)
    held_out, training = data.validation_rows(fold), data.training_rows(fold)
    others = [
        row
        for row in held_out
        if data.labels[row] == 0 and music[row] not in set(music[training].tolist())
    ]
    alone = [row for row in held_out if data.labels[row] > 0 and not music[row]]
    assert others and alone
    version = make_versions(data, fold)["over other music"]
    n_mixes = min(other_songs.N_MIXES, len(others)) * len(alone)
    np.testing.assert_array_equal(
        version.sounds[n_mixes:], [sounds.get(data.filenames[row]) for row in others]
    )
    np.testing.assert_array_equal(version.labels[n_mixes:], 0)
    # A mixture is a linear combination of its voice and one piece of music.
    of_others = np.stack([sounds.get(data.filenames[row]) for row in others])
    for index, mixture in enumerate(version.sounds[:n_mixes]):
        row = alone[index // (n_mixes // len(alone))]
        assert version.labels[index] == data.labels[row]
        assert version.groups[index] == data.snippets["group"][row]
        residuals = [
            np.linalg.lstsq(
                np.stack([sounds.get(data.filenames[row]), other], axis=1), mixture, rcond=None
            )[1].item()
            for other in of_others
        ]
        assert min(residuals) < 1e-6 * np.square(mixture).sum()


def test_a_fold_without_unaccompanied_voices_is_an_error(data: SongData) -> None:
    sounds, music = other_songs.read_sounds(data), other_songs.read_music(data)
    with pytest.raises(HearbackError, match="fold 0 holds out 0 snippets of voices without music"):
        other_songs.make_versions(
            data, 0, sounds, np.where(music == "", "tune0", music), np.random.default_rng(0)
        )


def run_command(folder: Path, data: Path, *more: str) -> object:
    flags = ["--data", str(data), "--store", str(folder / "store")]
    flags += ["--assets", str(folder / "assets"), "--device", "cpu", *more]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["other_songs", *flags])
        runpy.run_path(other_songs.__file__, run_name="__main__")
    return ended.value.code


def test_the_command_prints_every_version(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run_command(folder, folder / "data")
    shown = capsys.readouterr()
    assert status is None, shown.err
    for version in ("unchanged", "backwards", "in pieces", "over other music"):
        assert version in shown.out


def test_an_ensemble_is_scored_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder / "model_configs.json"

    def write(*names: str) -> None:
        models = tuple(ModelConfig(name, FOLDS, 1 / len(names)) for name in names)
        SongEnsemble(models, "probabilities", (0.25,) * 4, {}, {}, 40).save(config)

    write("cnn4")
    status = run_command(folder, folder / "data", "--config", str(config))
    shown = capsys.readouterr()
    assert status is None, shown.err
    rows = [line.split() for line in shown.out.splitlines() if "unchanged" in line]
    (cnn4, ensemble) = rows
    assert ensemble[-7:] == cnn4[-7:]  # an ensemble of one model equals the model
    write("cnn4", "whisper")
    assert run_command(folder, folder / "data", "--config", str(config)) == 2
    assert "the ensemble also contains whisper" in capsys.readouterr().err


def test_data_that_differ_from_the_training_data_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = write_songs(tmp_path / "data")
    status = run_command(folder, changed)
    assert status == 2
    assert "differ from those that the folds were" in capsys.readouterr().err
