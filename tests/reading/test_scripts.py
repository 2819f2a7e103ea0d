"""The scripts, each in its own process, in order."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from hearback.engine.evaluation.outliers import find_outliers
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.steps import get_config, infer, train
from hearback.reading.trained import read_trained
from tests.helpers import reading_flags, run_script
from tests.toy import TEXTS

MODELS = ("model2ds", "modelali", "modeltok")  # one of each family


@pytest.mark.slow
def test_the_five_steps_in_order(make_corpus: Callable[..., Path], backbone: Path) -> None:
    folder = make_corpus()
    flags = reading_flags(backbone)
    # Use another rendered text as the hard negative.
    near = {
        text: (HardNegative(other, "neighbour", (0,)),)
        for text, other in zip(TEXTS, [*TEXTS[1:], TEXTS[0]], strict=True)
    }
    write_hard_negatives(near, folder / "tts_data")

    printed = run_script("train.py", "--models", *MODELS, "--jobs", 2, *flags, folder=folder)
    for model in MODELS:
        for fold in range(3):
            assert f"{model} fold {fold}: not trained" in printed
            for suffix in (".safetensors", ".json", ".oof.csv"):
                assert (folder / "assets" / f"{model}_{fold}{suffix}").exists()
    assert "Log loss per fold" in printed

    again = run_script("train.py", "--models", *MODELS, *flags, folder=folder)
    assert again.count(": done") == 9
    changed = run_script(
        *("train.py", "--models", MODELS[0], "--folds", 0, *flags, "--set", "dropout=0.3"),
        folder=folder,
        status=2,  # the table refuses folds of different recipes
    )
    assert "its recipe changed since (dropout)" in changed
    assert "differ in recipe fingerprint" in changed
    run_script("train.py", "--models", MODELS[0], *flags, folder=folder)

    # With 12 clips a fold, another torch's rounding may leave a fold that stands out.
    outliers = find_outliers(read_trained(folder / "data", folder / "assets").tables)
    printed = run_script("check_models.py", folder=folder, status=1 if outliers else 0)
    reasons = [f"{each.model} fold {each.fold} stands out: {each.reason}" for each in outliers]
    for expected in (
        *(reasons or ["No fold stands out."]),
        "Log loss per task",
        "Log loss per grade",
        "nonword_repetition",
        "KG",
        *MODELS,
    ):
        assert expected in printed

    printed = run_script("get_config.py", folder=folder)
    assert "weighted ensemble" in printed and "plain mean" in printed
    config = json.loads((folder / "model_configs.json").read_text())
    assert [model["name"] for model in config["models"]] == list(MODELS)
    weights = [model["weight"] for model in config["models"]]
    assert min(weights) >= 0 and max(weights) > 0

    run_script("infer.py", "--words", "--divergences", folder=folder)
    submission = pd.read_csv(folder / "submission.csv")
    expected = pd.read_csv(folder / "data" / "submission_format.csv")
    assert list(submission["filename"]) == list(expected["filename"])
    assert submission["score"].between(0, 1).all()
    words = pd.read_csv(folder / "word_scores.csv")
    assert set(words["filename"]) == set(expected["filename"])
    assert words["score"].between(0, 1).all()
    divergences = pd.read_csv(folder / "divergences.csv")
    assert list(divergences["word"]) == list(words["word"])

    # The same commands give the same bytes.
    outputs = [folder / name for name in ("assets/modeltok_0.oof.csv", "submission.csv")]
    first = [path.read_bytes() for path in outputs]
    for path in outputs:
        path.unlink()
    run_script("train_modeltok.py", "--fold", 0, *flags, folder=folder)
    run_script("infer.py", "--words", folder=folder)
    assert [path.read_bytes() for path in outputs] == first


@pytest.mark.slow
def test_a_failed_training_is_reported_and_the_rest_continues(
    make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    flags = reading_flags(backbone)
    (folder / "runs").mkdir()
    # A file in the place of fold 1's folder of curves.
    (folder / "runs" / "model3mapd_1").write_text("a file")
    printed = run_script(
        *("train.py", "--models", "model3mapd", "--jobs", 2, *flags), folder=folder, status=1
    )
    assert "FAILED: model3mapd fold 1, see runs/model3mapd_1.log" in printed
    assert (folder / "assets" / "model3mapd_0.json").exists()
    assert (folder / "assets" / "model3mapd_2.json").exists()


STEPS = ("preprocess.py", "train.py", "check_models.py", "get_config.py", "infer.py")


@pytest.mark.slow
@pytest.mark.parametrize("script", [*STEPS, "train_model3mapd.py"])
def test_scripts_have_help_and_refuse_unknown_flags(script: str, tmp_path: Path) -> None:
    assert "usage:" in run_script(script, "--help", folder=tmp_path)
    needed = ["--fold", 0] if script.startswith("train_model") else []
    printed = run_script(script, *needed, "--no_such_flag", 1, folder=tmp_path, status=2)
    assert "unrecognized arguments: --no_such_flag" in printed


@pytest.mark.slow
def test_flags_may_have_dashes(make_corpus: Callable[..., Path], backbone: Path) -> None:
    folder = make_corpus()
    flags = [str(flag).replace("_", "-") for flag in reading_flags(backbone)[:2]]
    assert flags[0] == "--n-folds"
    run_script(
        "train_model2ds.py", "--fold", 0, *flags, *reading_flags(backbone)[2:], folder=folder
    )
    assert (folder / "assets" / "model2ds_0.json").exists()


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (get_config, ["--time_limit", "5x"], "not a duration such as 2h, 1h30m or 5400s: '5x'"),
        (infer, ["--time_limit", "5x"], "not a duration such as 2h, 1h30m or 5400s: '5x'"),
        (infer, ["--workers=-1"], "--workers: not a whole number of at least 0: '-1'"),
        (train, ["--workers=-1"], "--workers: not a whole number of at least 0: '-1'"),
        (train, ["--limit", "0"], "--limit: not a whole number of at least 1: '0'"),
    ],
)
def test_invalid_flags_are_explained(
    module: ModuleType,
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["step", *flags])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
