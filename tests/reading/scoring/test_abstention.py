"""The curve of the share that is sent to a person against the errors that remain."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hearback.engine.errors import HearbackError
from hearback.reading import ensemble_fitting
from hearback.reading.scoring import abstention
from hearback.reading.words import to_table
from tests.reading.fabricated_folds import (
    N_ROWS,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    metadata = make_metadata()
    texts = metadata["expected_text"].tolist()
    for seed, model in enumerate(("modeltok", "modeltokb")):
        predictions = make_predictions(1.0, seed)
        log_odds = np.full((N_ROWS, 3, 2), 1.0)
        log_odds[:, 0, 0] = 4 * predictions
        table = to_table(metadata["filename"].tolist(), texts, log_odds)
        write_folds(tmp_path / "assets", model, predictions, words=table, recipe={"pair": "tokens"})
    write_folds(tmp_path / "assets", "model2ds", make_predictions(0.5, 9))
    return tmp_path


def test_the_command_prints_the_curves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(folder / "data"), "--assets", str(folder / "assets")]
    monkeypatch.setattr("sys.argv", ["abstention", *flags])
    abstention.main()
    printed = capsys.readouterr().out
    assert printed.startswith("96 clips of modeltok, modeltokb, words, calibration platt: ")
    for rule in ("distance of the score from 0.5", "disagreement of models", "learned"):
        assert printed.count(rule) == 2
    assert "unsure (0.3 to 0.7)" in printed


def test_a_perfect_order_catches_the_errors_first() -> None:
    errors = np.arange(100) < 10
    perfect = abstention.curve(errors.astype(float), errors)
    assert perfect.loc[0.1].tolist() == [0.0, 1.0]
    assert perfect.loc[0.05, "caught"] == 0.5
    assert perfect.loc[0.0].tolist() == pytest.approx([0.1, 0.0])
    worst = abstention.curve(-errors.astype(float), errors)
    assert worst.loc[0.3, "caught"] == 0


def test_uncertainties_are_largest_in_the_middle(folder: Path) -> None:
    scores = abstention.read_scores(folder / "data", folder / "assets", None)
    members = ensemble_fitting.gather(scores, abstention.COMBINE, "platt")
    predictions = np.linspace(0, 1, len(scores.rows))
    rules = abstention.uncertainties(scores, members, predictions)
    assert all(values.shape == predictions.shape for values in rules.values())
    distance = rules["distance of the score from 0.5"]
    assert abs(int(np.argmax(distance)) - len(predictions) // 2) <= 1
    assert scores.names == ["modeltok", "modeltokb"] and members.names[-1] == "words"


def test_few_speakers_and_few_errors_have_curves(folder: Path) -> None:
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(40, 3)), np.repeat(["a", "b", "c", "d"], 10)
    none = np.zeros(40, bool)
    assert len(set(abstention._cross_fit_errors(features, none, groups))) == 1
    by_one = groups == "a"  # without this speaker there is none
    found = abstention._cross_fit_errors(features, by_one, groups)
    assert found[by_one].max() < np.log(1 / 30) and np.isfinite(found).all()


def test_without_errors_none_are_caught(folder: Path) -> None:
    scores = abstention.read_scores(folder / "data", folder / "assets", None)
    labels = scores.rows["score"].to_numpy() > 0.5
    certain = np.where(labels, 0.99, 0.01)
    rows = scores.rows.assign(**dict.fromkeys(scores.names, certain))
    printed = abstention.describe(replace(scores, rows=rows), "platt")
    assert "0.0% on the wrong side" in printed and "with 0% of the errors" in printed


def test_where_all_are_unsure_there_are_no_others(folder: Path) -> None:
    scores = abstention.read_scores(folder / "data", folder / "assets", None)
    rows = scores.rows.assign(**dict.fromkeys(scores.names, 0.5))
    log_odds = {name: 0 * each for name, each in scores.log_odds.items()}
    printed = abstention.describe(replace(scores, rows=rows, log_odds=log_odds), "platt")
    assert "100.0% of the clips" in printed and printed.endswith("error of the others –")


def test_models_without_word_scores_are_refused(folder: Path) -> None:
    scores = abstention.read_scores(folder / "data", folder / "assets", ["model2ds"])
    with pytest.raises(HearbackError, match="no model scores words"):
        abstention.describe(scores, "platt")
