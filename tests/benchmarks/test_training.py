"""benchmarks/training.py: both models train the same folds, and each fold is timed."""

import argparse
from pathlib import Path

import pytest

from benchmarks import training
from hearback.reading.options import TrainingOptions


def test_both_models_train_every_fold(
    options: TrainingOptions, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )
    arguments = argparse.Namespace(
        **{"data": options.data, "store": options.store, "backbone": backbone, "rows": 24},
        **{"folds": 2, "clock": "cpu", "precision": "float32"},
    )
    whole, once = training.time_folds(arguments, tmp_path / "work")
    assert [side.recipe.name for side in (whole, once)] == ["modeltok", "modeltoklow"]
    for side in (whole, once):
        assert len(side.seconds) == 2 and min(side.seconds) > 0
        assert len(list((side.folder / "assets").glob(f"{side.recipe.name}_?.json"))) == 2
    assert (once.folder / "store" / "encoded").is_dir()
    assert not (whole.folder / "store" / "encoded").exists()
    lines = training.describe([whole, once])
    assert lines[0].startswith("modeltok") and " 1.00 times as long; folds " in lines[0]
