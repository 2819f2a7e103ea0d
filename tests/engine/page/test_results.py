"""Results of models on labelled recordings, with numbers that can be counted by hand."""

import numpy as np
import pytest

from hearback.engine.evaluation.bootstrap import bootstrap_interval
from hearback.engine.page.content import NO_ESTIMATE, GroupResult, ModelResult
from hearback.engine.page.results import Labelled, Predicted, binary_results, class_results

# Six speakers, two of them with two recordings. The last one has no prediction, and no grade.
LABELS = np.array([1, 1, 0, 0, 1, 0, 1, 1])
PROBABILITIES = np.array([0.95, 1.0, 0.05, 0.6, 0.3, 0.19, 0.2, np.nan])
SPEAKERS = np.array(list("aabcdeff"))
GRADES = np.array(["1", "KG", "1", "KG", "1", "KG", "1", ""])


def losses_of(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(np.where(labels == 1, probabilities, 1 - probabilities), 1e-7, 1))


@pytest.fixture(scope="module")
def result() -> ModelResult:
    rows = Labelled(LABELS, SPEAKERS, {"grade": GRADES}, "grade", {"grade": ("KG", "1")})
    predicted = Predicted(losses_of(LABELS, PROBABILITIES), PROBABILITIES, 0.25)
    (found,) = binary_results(rows, {"modeltok": predicted})
    return found


def group(result: ModelResult, value: str) -> GroupResult:
    (found,) = (each for each in result.groups if each.value == value)
    return found


def test_the_log_loss_is_that_of_the_predicted_rows(result: ModelResult) -> None:
    losses = losses_of(LABELS, PROBABILITIES)[:7]
    interval = bootstrap_interval(losses, SPEAKERS[:7], np.random.default_rng(0))
    assert result.n == 7
    assert result.log_loss == pytest.approx((losses.mean(), *interval))
    assert (result.name, result.is_ensemble, result.weight) == ("modeltok", False, 0.25)


def test_false_alarms_and_misses_are_shares_of_their_labels(result: ModelResult) -> None:
    # Label 1: 0.95 and 1.0 are right, 0.3 and 0.2 are not. Label 0: 0.6 is wrong, two are right.
    assert result.metrics["false alarms"].value == pytest.approx(2 / 4)
    assert result.metrics["misses"].value == pytest.approx(1 / 3)
    # Of the 12 pairs of labels, 0.3 and 0.2 are below 0.6.
    assert result.metrics["AUC"].value == pytest.approx(10 / 12)


def test_groups_are_in_their_order_and_unknown_values_are_left_out(result: ModelResult) -> None:
    assert [(each.by, each.value, each.n) for each in result.groups] == [
        ("grade", "KG", 3),
        ("grade", "1", 4),
    ]
    assert group(result, "KG").false_alarms.value == 0
    assert group(result, "KG").misses.value == pytest.approx(1 / 2)
    assert group(result, "1").false_alarms.value == pytest.approx(2 / 3)
    assert group(result, "1").misses.value == 0
    assert group(result, "1").errors == NO_ESTIMATE


def test_every_prediction_is_in_one_bin_also_at_the_edges(result: ModelResult) -> None:
    bins = result.reliability["all"]
    assert [(each.low, each.high) for each in bins[:2]] == [(0.0, 0.1), (0.1, 0.2)]
    # 0.2, 0.3 and 0.6 are in the bins that begin there, 1.0 is in the last one.
    assert [each.n for each in bins] == [1, 1, 1, 1, 0, 0, 1, 0, 0, 2]
    assert bins[9].mean_prediction == pytest.approx(0.975)
    assert bins[9].share.value == 1
    assert bins[6].share.value == 0
    assert (bins[4].mean_prediction, bins[4].share) == (None, NO_ESTIMATE)
    assert list(result.reliability) == ["all", "KG", "1"]
    by_grade = np.array([[each.n for each in result.reliability[grade]] for grade in ("KG", "1")])
    assert by_grade.sum(axis=0).tolist() == [each.n for each in bins]


def test_recordings_of_one_label_have_no_area() -> None:
    rows = Labelled(np.ones(4, int), np.arange(4), {})
    (found,) = binary_results(rows, {"m": Predicted(np.ones(4), np.full(4, 0.4))})
    assert found.metrics["AUC"] == NO_ESTIMATE
    assert found.metrics["misses"] == NO_ESTIMATE
    assert found.metrics["false alarms"].value == 1


def test_results_of_classes_are_counted() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2])
    says = np.array([0, 1, 1, 0, 2, 2])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), says] = 0.8
    probabilities[5] = np.nan
    losses = -np.log(probabilities[np.arange(6), labels])
    names = np.array(["no", "man", "woman"])
    rows = Labelled(labels, np.array(list("aabbcc")), {"class": names[labels]})
    (found,) = class_results(rows, {"ensemble": Predicted(losses, probabilities)})
    assert found.is_ensemble and found.n == 5
    assert found.confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert found.metrics["accuracy"].value == pytest.approx(3 / 5)
    assert found.log_loss.value == pytest.approx(losses[:5].mean())
    errors = {each.value: each.errors.value for each in found.groups}
    assert errors == pytest.approx({"no": 1 / 2, "man": 0, "woman": 1 / 2})
    assert not found.reliability


def test_a_cause_has_the_area_of_all_correct_rows_against_its_own() -> None:
    causes = np.array(["correct", "correct", "omit", "omit", "correct", "insert", "", "insert"])
    rows = Labelled(LABELS, SPEAKERS, {"cause": causes, "grade": GRADES}, causes_by="cause")
    predicted = Predicted(losses_of(LABELS, PROBABILITIES), PROBABILITIES)
    (found,) = binary_results(rows, {"m": predicted})
    # Correct are 0.95, 1.0, 0.3, and 0.2, whose cause is unknown. 0.05 is below all four, 0.6 below
    # two; 0.19 is below all, and the other one has no prediction.
    assert group(found, "omit").auc.value == pytest.approx(6 / 8)
    assert group(found, "insert").auc.value == pytest.approx(4 / 4)
    assert group(found, "correct").auc == NO_ESTIMATE
    assert group(found, "KG").auc == NO_ESTIMATE
