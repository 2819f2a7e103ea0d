"""The step get_config on fabricated folds, and the configuration that it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score

from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.stacking import Groups, StackingData, mean_log_loss, score_ensemble
from hearback.engine.errors import HearbackError
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.steps import get_config
from tests.helpers import run_step
from tests.songs.fabricated_folds import make_probabilities, make_snippets, write_data, write_folds

NAMES = ("cnn4", "resnet34", "resnet34_s2")
MODELS = {name: make_probabilities(1, seed) for seed, name in enumerate(NAMES)}
PREDICTIONS = np.stack(list(MODELS.values()))
LABELS = make_snippets()["label"].to_numpy()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where the step has run without flags, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder / "data")
    for model, probabilities in MODELS.items():
        write_folds(folder / "assets", model, probabilities)
    status, output, errors = run_step(get_config, folder)
    assert status is None, errors
    return folder, output


def make_data() -> StackingData:
    snippets = make_snippets()
    music = "music: " + snippets["music"]
    groups = snippets["singers"].str.partition(";")[0].where(LABELS > 0, music)
    return StackingData.of_classes(
        PREDICTIONS, LABELS, Groups.from_names(groups.to_numpy(dtype=str))
    )


def line_of(output: str, title: str, name: str) -> list[str]:
    table = output.partition(f"\n{title}")[2].partition("\n\n")[0]
    (line,) = (line for line in table.splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(name).split()


def test_the_ensemble_is_cross_fitted_over_singers(
    finished: tuple[Path, str],
) -> None:
    folder, output = finished
    assert output.startswith("192 rows that every model predicted out of fold, of 192\n")
    expected = score_ensemble(make_data(), "logits", "none")
    config = SongEnsemble.load(folder / "assets" / "model_configs.json")
    assert [model.name for model in config.models] == list(NAMES)
    weights = [model.weight for model in config.models]
    np.testing.assert_allclose(weights, expected.ensemble.weights, atol=1e-6)
    mean = PREDICTIONS.mean(axis=0)
    assert config.log_losses == pytest.approx(
        {
            "cross_fitted": expected.cross_fitted,
            "fitted": expected.fitted,
            "plain_mean": mean_log_loss(LABELS, mean),
        }
    )
    cross_fitted = expected.cross_fitted_predictions.argmax(axis=1)
    assert config.accuracies["cross_fitted"] == pytest.approx(accuracy_score(LABELS, cross_fitted))
    assert config.accuracies["plain_mean"] == pytest.approx(
        accuracy_score(LABELS, mean.argmax(axis=1))
    )
    accuracy, _, _, f1, _, _, loss, *_ = line_of(output, "Scores", "weighted ensemble")
    assert float(accuracy) == pytest.approx(accuracy_score(LABELS, cross_fitted), abs=1e-4)
    assert float(f1) == pytest.approx(f1_score(LABELS, cross_fitted, average="macro"), abs=1e-4)
    assert float(loss) == pytest.approx(expected.cross_fitted, abs=1e-4)
    assert expected.cross_fitted > expected.fitted + 1e-3  # else they could be swapped


def test_every_model_is_compared(finished: tuple[Path, str]) -> None:
    _, output = finished
    expected = score_ensemble(make_data(), "logits", "none")
    for name, alone in zip(NAMES, expected.alone, strict=True):
        loss, accuracy, weight, _ = line_of(output, "Models", name)
        assert float(loss) == pytest.approx(alone, abs=1e-4)
        right = accuracy_score(LABELS, MODELS[name].argmax(axis=1))
        assert float(accuracy) == pytest.approx(right, abs=1e-4)
        assert float(weight) > 0
        gained = line_of(output, "The weighted ensemble minus each model", name)
        assert float(gained[3]) == pytest.approx(expected.cross_fitted - alone, abs=1e-4)
    for name in ("plain mean", "system 1: resnet34 × 2"):
        assert line_of(output, "The weighted ensemble minus each model", name)
    for combine in ("probabilities", "logits"):
        (loss,) = line_of(output, "Cross-fitted log loss by combination", combine)
        cross_fitted = score_ensemble(make_data(), combine, "none").cross_fitted
        assert float(loss) == pytest.approx(cross_fitted, abs=1e-4)


def test_the_configuration_predicts_the_combination(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    config = SongEnsemble.load(folder / "assets" / "model_configs.json")
    assert config.models_to_run == config.models and config.models[0].folds == (0, 1, 2)
    assert config.class_shares == (0.25,) * 4 and config.n_rows == 192
    weights = np.array([model.weight for model in config.models])
    expected = softmax(np.einsum("m,mrc->rc", weights, np.log(PREDICTIONS)), axis=1)
    np.testing.assert_allclose(config.predict(PREDICTIONS), expected)


def test_the_flags_choose_combination_models_and_file(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = finished
    path = tmp_path / "of_mine.json"
    flags = ["--combine", "probabilities", "--config", str(path), "--models", "cnn4", "resnet34"]
    status, output, errors = run_step(get_config, folder, *flags)
    assert status is None, errors
    assert output.endswith(f"\nwrote {path}\n")
    config = SongEnsemble.load(path)
    assert [model.name for model in config.models] == ["cnn4", "resnet34"]
    assert sum(model.weight for model in config.models) == pytest.approx(1)
    mixed = config.predict(PREDICTIONS[:2])
    weights = [model.weight for model in config.models]
    np.testing.assert_allclose(mixed, np.einsum("m,mrc->rc", weights, PREDICTIONS[:2]))


def test_the_picture_has_the_ensembles(finished: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "confusion.svg"
    flags = ["--config", str(tmp_path / "config.json"), "--picture", str(path)]
    status, output, errors = run_step(get_config, finished[0], *flags)
    assert status is None, errors
    assert f"\nwrote {path}\n" in output
    for name in ("system 1: resnet34 × 2", "plain mean", "weighted ensemble"):
        assert f"<!-- {name} -->" in path.read_text()


def test_labels_changed_since_the_training_are_refused(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_folds(tmp_path / "assets", "cnn4", MODELS["cnn4"])
    labels = tmp_path / "data" / "train_label.txt"
    labels.write_text(labels.read_text().replace("train_0005.ogg,1", "train_0005.ogg,2"))
    status, _, errors = run_step(get_config, tmp_path)
    assert status == 2
    assert "train/train_0005.ogg; python -m hearback.songs train retrains" in errors


CONFIG = SongEnsemble(
    models=(ModelConfig("cnn4", (0, 1), 0.7), ModelConfig("resnet34", (0,), 0.0)),
    combine="logits",
    class_shares=(0.15, 0.35, 0.35, 0.15),
    log_losses={"cross_fitted": 0.5},
    accuracies={"cross_fitted": 0.8},
    n_rows=10,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_shares": [0.5, 0.5]}, "class_shares must be one number per class"),
        ({"class_shares": ["a", 0, 0, 0]}, "class_shares must be one number per class"),
        ({"class_shares": None}, "not an ensemble's configuration"),
    ],
)
def test_an_invalid_configuration_is_an_error_with_the_cause(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "config.json"
    CONFIG.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(HearbackError, match=f"{message}.*python -m hearback.songs get_config"):
        SongEnsemble.load(path)
