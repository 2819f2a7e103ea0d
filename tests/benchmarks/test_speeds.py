"""benchmarks/speeds.py: trained models on recordings played at other speeds."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import speeds
from hearback.engine.errors import HearbackError
from hearback.reading import training
from hearback.reading.dataset import TrainingData
from hearback.reading.evaluation import ReadingOutOfFold, read_out_of_fold
from hearback.reading.options import TrainingOptions
from train_modeltok import RECIPE

UNTRAINED = replace(RECIPE, epochs=0)


@pytest.fixture(autouse=True)
def two_folds(options: TrainingOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train two of three folds."""
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )
    data = options.load_data()
    for fold in (0, 2):
        training.train_fold(UNTRAINED, fold, options, data)


def predict(
    options: TrainingOptions, *requested: float
) -> tuple[ReadingOutOfFold, dict[float, pd.Series], TrainingData]:
    (table,) = read_out_of_fold(options.assets)
    data = options.load_data()
    device, dtype = torch.device("cpu"), torch.float32
    return (
        table,
        speeds.predict_at_speeds(
            table, options.assets, data, requested, device=device, dtype=dtype
        ),
        data,
    )


def test_at_the_recipe_s_speed_predictions_are_reproduced(options: TrainingOptions) -> None:
    table, at_speed, _ = predict(options, 1.0, 0.5)
    saved = table.rows.set_index("filename")["pred"]
    own, slow = at_speed[1.0][saved.index], at_speed[0.5][saved.index]
    # Weights are saved in half precision.
    np.testing.assert_allclose(own, saved, atol=3e-3)
    assert (slow - own).abs().max() > 3e-3


def test_the_command_prints_every_speed(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("data", "tts_data", "store", "assets")
    flags = [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
    flags += ["--device", "cpu", "--precision", "float32", "--speeds", "1", "0.8"]
    monkeypatch.setattr(sys, "argv", ["speeds", *flags])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(speeds.__file__)), run_name="__main__")
    shown = capsys.readouterr().out
    assert not ended.value.code
    for title in ("modeltok: log loss\n", "calibrated by age", "modeltok: AUC", "at 1", "at 0.8"):
        assert title in shown


def test_the_tables(options: TrainingOptions) -> None:
    table, at_speed, data = predict(options, 1.0)
    labels = dict(zip(data.filenames, data.labels, strict=True))
    perfect = pd.Series({name: 0.9 if labels[name] else 0.1 for name in at_speed[1.0].index})
    shown = speeds.by_speed(table, {1.0: at_speed[1.0], 0.5: perfect}, data)
    assert list(shown["log loss"].columns) == ["rows", "base rate", "at 1", "at 0.5"]
    assert shown["log loss"]["rows"].drop("KG and 1").sum() == len(table.rows)
    np.testing.assert_allclose(shown["log loss"]["at 0.5"], -np.log(0.9))
    assert (shown["log loss, calibrated by age"]["at 0.5"] < 0.1).all()
    assert list(shown["AUC"].columns) == ["at 1", "at 0.5"]


def test_data_that_differ_from_the_training_data_are_refused(options: TrainingOptions) -> None:
    (table,) = read_out_of_fold(options.assets)
    labels = options.data / "train_labels.csv"
    changed = pd.read_csv(labels)
    changed.assign(score=1 - changed["score"]).to_csv(labels, index=False)
    with pytest.raises(HearbackError, match="differ from those that the folds were trained on"):
        speeds.load_data([table], options.data, options.tts_data, options.store)


def test_token_scorers_need_no_reference_speech(options: TrainingOptions, tmp_path: Path) -> None:
    (table,) = read_out_of_fold(options.assets)
    data = speeds.load_data([table], options.data, tmp_path / "none", options.store)
    assert not data.source.has_references
