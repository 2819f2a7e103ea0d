"""`python -m hearback.songs train` and the recipes' own modules, run as commands."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.launch import command
from hearback.engine.launch.command import make_plans
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.songs.options import SongOptions
from hearback.songs.recipe import find_recipes
from hearback.songs.steps import train
from tests.helpers import run_python
from tests.songs.songs_data import read_options, training_flags


def parsed(**values: object) -> Namespace:
    """Return the parsed flags of the command."""
    return Namespace(**{"seeds": None, "separations": None, "models": None, **values})


def test_each_separation_is_a_variant(song_options: SongOptions) -> None:
    options = replace(song_options, seed=4, separate="repet")
    assert list(train.variants(parsed(), options)) == [options]
    several = train.variants(parsed(separations=["none", "repet", "none"]), options)
    assert [each.separate for each in several] == ["none", "repet"]
    assert {replace(each, separate="repet") for each in several} == {options}


def test_every_model_has_its_own_plan(song_options: SongOptions) -> None:
    arguments = parsed(seeds=[1, 2], separations=["none", "repet"])
    plans = {
        plan.recipe.name: plan for plan in make_plans(train.competition(), arguments, song_options)
    }
    assert set(plans) == {
        f"{name}{separation}{seed}"
        for name in find_recipes()
        for separation in ("", "_repet")
        for seed in ("", "_s2")
    }
    plan = plans["cnn4_repet_s2"]
    assert plan.program == ("-m", "hearback.songs.recipes.cnn4")
    assert read_options(*plan.options.as_flags()) == plan.options
    assert (plan.options.separate, plan.options.seed) == ("repet", 2)
    assert plan.run_key["separation"]["backend"] == "repet"
    assert plans["cnn4"].run_key["data_fingerprint"] == plan.run_key["data_fingerprint"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--folds 6", r"--folds \[6\]: folds are 0 to 2"),
        ("--seeds 0", "seed is 0"),
        ("--models resnet34 --set periods=30", "periods is 30"),
    ],
)
def test_invalid_values_are_errors_before_training(
    songs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, message: str
) -> None:
    everything = [*training_flags(songs_folder, tmp_path), *flags.split()]
    monkeypatch.setattr(sys, "argv", ["train", *everything])
    with pytest.raises(HearbackError, match=message):
        command.main(train.competition())
    assert not (tmp_path / "assets").exists()


@pytest.mark.slow
def test_seeds_are_trained_once_by_train_or_by_the_recipe_s_module(
    songs_folder: Path, tmp_path: Path
) -> None:
    settings = ["--epochs", "1", "--set", "features=log_mel_40"]
    flags = [*training_flags(songs_folder, tmp_path), *settings]
    wanted = ["--models", "cnn4", "--seeds", 1, 2, "--folds", 0]
    printed = run_python(
        "-m", "hearback.songs", "train", *flags, *wanted, "--jobs", 2, folder=tmp_path
    )
    metadata_by_fold = {}
    for model in ("cnn4", "cnn4_s2"):
        assert f"{model} fold 0: not trained" in printed
        metadata_by_fold[model] = read_fold_metadata(FoldFiles(tmp_path / "assets", model, 0))
    assert [fold_metadata["recipe"]["seed"] for fold_metadata in metadata_by_fold.values()] == [
        1,
        2,
    ]
    assert "Accuracy per fold" in printed  # check_models' tables
    first, second = (
        pd.read_csv(tmp_path / f"assets/{model}_0.oof.csv") for model in metadata_by_fold
    )
    assert first["filename"].tolist() == second["filename"].tolist()
    assert not first["p0"].equals(second["p0"])

    # The recipe's module gives the same model, from any folder.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    FoldFiles(tmp_path / "assets", "cnn4_s2", 0).metadata.unlink()
    printed = run_python(
        "-m", "hearback.songs.recipes.cnn4", "--fold", 0, "--seed", 2, *flags, folder=elsewhere
    )
    assert "cnn4_s2 fold 0: log loss" in printed and "base rate" in printed
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "assets/cnn4_s2_0.oof.csv"), second)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "assets").glob("cnn4*")}
    again = run_python("-m", "hearback.songs", "train", *flags, *wanted, folder=tmp_path)
    assert "cnn4 fold 0: done" in again and "cnn4_s2 fold 0: done" in again
    assert {path: path.stat().st_mtime_ns for path in before} == before
