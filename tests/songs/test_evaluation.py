"""Out-of-fold predictions of songs, and the tables that evaluate them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from hearback.engine.data.corrections import Corrections
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import oof, outliers
from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.songs import evaluation
from hearback.songs.dataset import SongData
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold, ModelName
from hearback.songs.tables import CLASSES, read_snippets
from tests.songs.fabricated_folds import (
    N_FOLDS,
    N_ROWS,
    make_probabilities,
    make_snippets,
    write_data,
    write_folds,
)


def read(assets: Path, *models: str) -> list[ClassOutOfFold]:
    return oof.read_tables(ClassOutOfFold, assets, models or None)


@pytest.fixture
def snippets(tmp_path: Path) -> pd.DataFrame:
    write_data(tmp_path / "data")
    report = Report()
    table = read_snippets(tmp_path / "data", report)
    report.raise_if_errors()
    return table


def test_folds_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    probabilities = make_probabilities(1)
    write_folds(tmp_path, "resnet34_repet_s2", probabilities)
    write_folds(tmp_path, "resnet34", probabilities, folds=[2, 0])
    (tmp_path / ".resnet34_1.oof.csv").touch()  # being written
    assert oof.trained_folds(tmp_path) == {"resnet34": [0, 2], "resnet34_repet_s2": [0, 1, 2]}
    part, whole = read(tmp_path)
    assert (part.model, part.missing_folds) == ("resnet34", [1])
    assert (whole.model, whole.missing_folds) == ("resnet34_repet_s2", [])
    rows = whole.rows.sort_values("filename")
    np.testing.assert_allclose(rows[PROBABILITIES], probabilities)
    assert rows["label"].tolist() == make_snippets()["label"].tolist()
    assert rows["fold"].tolist() == make_snippets()["fold"].tolist()


def test_losses_equal_scikit_learn_and_gains_are_over_the_shares(tmp_path: Path) -> None:
    probabilities, labels = make_probabilities(1), make_snippets()["label"]
    shares = [0.4, 0.3, 0.2, 0.1]
    write_folds(tmp_path, "cnn4", probabilities, base_rate=shares)
    (table,) = read(tmp_path)
    folds = make_snippets()["fold"]
    for fold, loss in table.fold_log_losses().items():
        expected = log_loss(labels[folds == fold], probabilities[folds == fold], labels=range(4))
        assert loss == pytest.approx(expected)
    for fold, accuracy in table.fold_accuracies().items():
        right = accuracy_score(labels[folds == fold], probabilities[folds == fold].argmax(axis=1))
        assert accuracy == pytest.approx(right)
    base = -np.log(np.array(shares)[labels]).mean()
    assert table.row_gains().mean() == pytest.approx(base - log_loss(labels, probabilities))


@pytest.mark.parametrize(
    "shares",
    [None, 0.25, [0.5, 0.5], [0.5, 0.5, 0.5, -0.5], [1, 1, 0, 0], [float("nan")] * 4, ["a"] * 4],
)
def test_metadata_without_the_shares_of_the_classes_are_refused(
    tmp_path: Path, shares: Any
) -> None:
    write_folds(tmp_path, "cnn4", make_probabilities(1), base_rate=shares)
    with pytest.raises(HearbackError, match=r"cnn4_0\.json: base_rate missing or invalid"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 4}, "a label is not from 0 to 3"),
        ({"label": -1}, "a label is not from 0 to 3"),
        ({"p0": 0.9, "p1": 0.9}, "do not sum to one"),
        ({"p2": np.nan}, "do not sum to one"),
        ({"p3": "much"}, "much"),
    ],
)
def test_invalid_predictions_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_folds(tmp_path, "cnn4", make_probabilities(1), folds=[0])
    files = FoldFiles(tmp_path, "cnn4", 0)
    rows = pd.read_csv(files.oof).assign(**change)
    fold_metadata = {**read(tmp_path)[0].metadata_by_fold[0]}
    save_fold(files, {"weight": torch.zeros(1)}, rows, fold_metadata)
    with pytest.raises(HearbackError, match=rf"cnn4_0\.oof\.csv: cannot be read.*{message}"):
        read(tmp_path)


def test_folds_of_different_trainings_are_an_error_with_the_command(tmp_path: Path) -> None:
    write_folds(tmp_path, "cnn4", make_probabilities(1), folds=[0, 1])
    write_folds(tmp_path, "cnn4", make_probabilities(1), folds=[2], recipe_fingerprint="another")
    with pytest.raises(
        HearbackError, match=r"recipe fingerprint.*python -m hearback\.songs train retrains"
    ):
        read(tmp_path)


def test_a_fold_with_the_loss_of_the_base_rate_stands_out(tmp_path: Path) -> None:
    good = np.full((N_ROWS, 4), 0.1)
    good[np.arange(N_ROWS), make_snippets()["label"]] = 0.7
    stalled = np.where((make_snippets()["fold"] == 1).to_numpy()[:, None], 0.25, good)
    write_folds(tmp_path, "cnn4", good)
    write_folds(tmp_path, "resnet34", stalled)
    fine, bad = read(tmp_path)
    assert outliers.outlier_reasons(fine) == {}
    assert list(outliers.outlier_reasons(bad)) == [1]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet34", ("resnet34", "none", 1)),
        ("resnet34_s2", ("resnet34", "none", 2)),
        ("resnet34_small_stem_repet", ("resnet34_small_stem", "repet", 1)),
        ("cnn4_demucs_s12", ("cnn4", "demucs", 12)),
    ],
)
def test_a_model_name_has_recipe_separation_and_seed(
    model: str, name: tuple[str, str, int]
) -> None:
    assert ModelName.parse(model) == name
    assert str(ModelName(*name)) == model


@pytest.mark.parametrize("model", ["", "_repet", "../cnn4", "CNN 4", "model.1"])
def test_an_invalid_model_name_is_an_error(model: str) -> None:
    with pytest.raises(HearbackError, match="invalid model name"):
        ModelName.parse(model)


def test_scores_equal_scikit_learn_and_lie_within_their_intervals() -> None:
    labels, probabilities = make_snippets()["label"].to_numpy(), make_probabilities(1)
    predicted = probabilities.argmax(axis=1)
    found = evaluation.scores(labels, probabilities, np.arange(N_ROWS) // 4)
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "macro F1": f1_score(labels, predicted, average="macro"),
        "log loss": log_loss(labels, probabilities),
    }
    assert {name: score.value for name, score in found.items()} == pytest.approx(expected)
    for score in found.values():
        assert score.low < score.value < score.high
    matrix = evaluation.confusion(labels, probabilities)
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predicted))


def test_macro_f1_ignores_classes_that_neither_occur_nor_are_predicted() -> None:
    matrix = np.array([[3, 1, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0]])
    assert evaluation.macro_f1(matrix[:2, :2]) == pytest.approx(0.75)
    assert evaluation.macro_f1(matrix * (np.arange(4) < 2)) == pytest.approx(0.75)
    assert evaluation.macro_f1(matrix) == pytest.approx(1.5 / 4)


def test_copies_of_rows_do_not_change_the_intervals() -> None:
    labels, probabilities = make_snippets()["label"].to_numpy(), make_probabilities(1)
    names = np.arange(N_ROWS)
    alone = evaluation.scores(labels, probabilities, names)
    copied = [np.tile(x, (3, 1)[: x.ndim]) for x in (labels, probabilities, names)]
    together = evaluation.scores(*copied)
    for name, score in alone.items():
        assert together[name] == pytest.approx(score)


def test_differences_are_paired() -> None:
    labels = make_snippets()["label"].to_numpy()
    probabilities = make_probabilities(1)
    better = 0.9 * probabilities + 0.1 * np.eye(4)[labels]
    differences = evaluation.paired_differences(labels, better, probabilities, np.arange(N_ROWS))
    found, before = (
        evaluation.scores(labels, x, np.arange(N_ROWS)) for x in (better, probabilities)
    )
    for name in ("accuracy", "log loss"):
        difference = found[name].value - before[name].value
        assert differences[name].value == pytest.approx(difference)
        width, unpaired = (score.high - score.low for score in (differences[name], found[name]))
        assert width < unpaired
    assert differences["log loss"].high < 0
    same = evaluation.paired_differences(labels, better, better, np.arange(N_ROWS))
    assert set(same["accuracy"]) == {0.0}


def test_the_majority_class_has_the_entropy_of_the_shares(snippets: pd.DataFrame) -> None:
    table = evaluation.majority(snippets[snippets["label"] != 3].iloc[:30])
    summary = evaluation.summary([table], snippets)
    assert summary["accuracy"].iloc[0].startswith(f"{10 / 30:.4f} [")
    assert summary["log loss"].iloc[0].startswith(f"{np.log(3):.4f} [")
    assert table.row_gains().abs().max() == pytest.approx(0)


def test_the_published_ensembles_are_plain_means_of_the_trained_models(
    tmp_path: Path, snippets: pd.DataFrame
) -> None:
    models = [
        *("cnn4", "resnet34", "resnet34_s2", "resnet34_s3", "resnet34_small_stem"),
        *("cnn4_repet", "resnet34_repet", "resnet34_small_stem_repet", "cnn4_s2"),
    ]
    made = {model: make_probabilities(0.5, seed) for seed, model in enumerate(models)}
    for model, probabilities in made.items():
        write_folds(tmp_path, model, probabilities)
    found = {
        ensemble.table.model: ensemble.table
        for ensemble in evaluation.published_ensembles(read(tmp_path), snippets)
    }
    members = {
        "seeds of cnn4: cnn4 × 2": ("cnn4", "cnn4_s2"),
        "system 1: resnet34 × 3": ("resnet34", "resnet34_s2", "resnet34_s3"),
        "system 2: cnn4 + resnet34_small_stem": ("cnn4", "resnet34_small_stem"),
        "system 2, repet: cnn4 + resnet34_small_stem": ("cnn4_repet", "resnet34_small_stem_repet"),
    }
    assert set(found) == set(members)
    for name, models_of_it in members.items():
        expected = np.mean([made[model] for model in models_of_it], axis=0)
        np.testing.assert_allclose(found[name].probabilities, expected)
        assert found[name].rows["label"].tolist() == make_snippets()["label"].tolist()


def test_an_ensemble_whose_members_have_no_fold_in_common_is_left_out(
    tmp_path: Path, snippets: pd.DataFrame
) -> None:
    write_folds(tmp_path, "resnet34", make_probabilities(1), folds=[0, 1])
    write_folds(tmp_path, "resnet34_s2", make_probabilities(1), folds=[2])
    assert evaluation.published_ensembles(read(tmp_path), snippets) == []
    write_folds(tmp_path, "resnet34_s2", make_probabilities(1), folds=[1])
    (ensemble,) = evaluation.published_ensembles(read(tmp_path), snippets)
    assert set(ensemble.table.rows["fold"]) == {1}


def test_differences_of_separation_and_ensembles(tmp_path: Path, snippets: pd.DataFrame) -> None:
    for seed, model in enumerate(("resnet34", "resnet34_s2", "resnet34_repet")):
        write_folds(tmp_path, model, make_probabilities(1, seed))
    tables = read(tmp_path)
    frame = evaluation.differences(
        tables, evaluation.published_ensembles(tables, snippets), snippets
    )
    assert frame.index.tolist() == [
        "resnet34_repet - resnet34",
        "system 1: resnet34 × 2 - resnet34",
    ]
    accuracies = {table.model: table.fold_accuracies().mean() for table in tables}
    expected = accuracies["resnet34_repet"] - accuracies["resnet34"]
    assert float(frame["accuracy"].iloc[0].split()[0]) == pytest.approx(expected, abs=1e-4)


def test_the_confusion_of_the_folds_sums_to_that_of_all_rows(tmp_path: Path) -> None:
    write_folds(tmp_path, "cnn4", make_probabilities(1))
    (table,) = read(tmp_path)
    frame = evaluation.confusion_table(table)
    assert list(frame.index.unique("rows")) == ["all", "fold 0", "fold 1", "fold 2"]
    assert tuple(frame.columns) == CLASSES and list(frame.loc["all"].index) == list(CLASSES)
    parts = sum(frame.loc[f"fold {fold}"].to_numpy() for fold in range(3))
    np.testing.assert_array_equal(frame.loc["all"].to_numpy(), parts)
    by_class = evaluation.recall_table([table]).loc["cnn4"]
    np.testing.assert_allclose(by_class, np.diag(parts) / 48)


@pytest.mark.parametrize("group_by", [None, "none"])
def test_recall_of_several_singers_by_whether_training_has_one(
    tmp_path: Path, snippets: pd.DataFrame, group_by: str | None
) -> None:
    # Only snippets with a second singer of another fold are predicted correctly.
    numbers = np.arange(N_ROWS)
    finds = numbers // 48 % 2 == 1
    predicted = np.where((numbers % 4 == 3) & ~finds, 1, numbers % 4)
    write_folds(tmp_path, "cnn4", 0.1 + 0.6 * np.eye(4)[predicted], group_by=group_by)
    frame = evaluation.by_known_singers(read(tmp_path), snippets)
    if group_by == "none":  # every singer is also the second one of some row of another fold
        assert frame.loc["cnn4", ["rows, none known", "rows, one known"]].tolist() == [0, 48]
    else:
        assert frame.loc["cnn4"].tolist() == [24, 0.0, 24, 1.0]


def test_known_singers_are_those_of_the_training_rows(
    tmp_path: Path, snippets: pd.DataFrame
) -> None:
    folds = make_snippets()["fold"].to_numpy()
    data = SongData(
        snippets=snippets,
        stored=snippets,
        folds=folds,
        corrections=Corrections(),
        separation={},
        separations={},
        fingerprint="",
        data=tmp_path,
        store=tmp_path,
        is_grouped=True,
    )
    predicted = np.zeros(N_ROWS, int)
    for fold in range(N_FOLDS):
        trained_on = ";".join(snippets["singers"].iloc[data.training_rows(fold)]).split(";")
        for row in data.validation_rows(fold):
            knows = not set(trained_on).isdisjoint(snippets["singers"].iloc[row].split(";"))
            predicted[row] = 3 if knows and snippets["label"].iloc[row] == 3 else 0
    assert (predicted == 3).any()
    write_folds(tmp_path, "cnn4", 0.1 + 0.6 * np.eye(4)[predicted])
    line = evaluation.by_known_singers(read(tmp_path), snippets).loc["cnn4"]
    assert (line["none known"], line["one known"]) == (0.0, 1.0)
