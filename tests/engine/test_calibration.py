"""Calibrations correct the scale of predictions, and are read back from JSON."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from hearback.engine.ensemble.calibration import KINDS, Calibration, Line, fit_calibration
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import fit_logistic, logit

FITTED = [kind for kind in KINDS if kind != "none"]
N_ROWS = 6000
SCALE, SHIFT = 2.5, 0.8  # distortions of the log-odds: overconfident, and too low


def make_rows(seed: int = 0, n_rows: int = N_ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true probabilities, labels drawn from them, and groups, all (rows,)."""
    rng = np.random.default_rng(seed)
    truth = expit(rng.normal(0, 1.5, n_rows))
    labels = (rng.random(n_rows) < truth).astype(float)
    return truth, labels, rng.choice(["KG and 1", "2 and 3"], n_rows)


@pytest.mark.parametrize("kind", FITTED)
def test_overconfident_predictions_are_corrected_on_new_rows(kind: str) -> None:
    truth, labels, groups = make_rows()
    calibration = fit_calibration(kind, expit(SCALE * logit(truth)), labels, groups)
    truth, labels, groups = make_rows(seed=1)
    distorted = expit(SCALE * logit(truth))
    calibrated = calibration.apply(distorted, groups)
    assert log_loss(labels, distorted) > log_loss(labels, truth) + 0.1
    assert log_loss(labels, calibrated) == pytest.approx(log_loss(labels, truth), abs=0.006)
    np.testing.assert_allclose(calibrated, truth, atol=0.09)


@pytest.mark.parametrize("kind", FITTED)
def test_only_an_intercept_corrects_a_shift(kind: str) -> None:
    truth, labels, groups = make_rows()
    shifted = expit(logit(truth) - SHIFT)
    calibrated = fit_calibration(kind, shifted, labels, groups).apply(shifted, groups)
    far = log_loss(labels, calibrated) - log_loss(labels, truth)
    assert (far > 0.03) == (kind == "temperature")


def test_the_platt_line_inverts_a_distortion() -> None:
    truth, labels, groups = make_rows()
    distorted = expit((logit(truth) - SHIFT) * SCALE)
    line = fit_calibration("platt", distorted, labels, groups).lines["all"]
    assert line.slope == pytest.approx(1 / SCALE, abs=0.03)
    assert line.intercept == pytest.approx(SHIFT, abs=0.1)


def shift_one_group(truth: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return expit(logit(truth) - SHIFT * (groups == "KG and 1"))


def test_a_group_has_its_own_line() -> None:
    truth, labels, groups = make_rows()
    distorted = shift_one_group(truth, groups)
    calibration = fit_calibration("platt_by_group", distorted, labels, groups)
    assert calibration.lines["KG and 1"].intercept == pytest.approx(SHIFT, abs=0.1)
    assert calibration.lines["2 and 3"].intercept == pytest.approx(0, abs=0.1)
    np.testing.assert_allclose(calibration.apply(distorted, groups), truth, atol=0.04)
    # Rows of no group, or of an unknown one, get the common line.
    names = np.array(["KG and 1", "2 and 3", "", "unknown"])
    youngest, older, none, unknown = calibration.apply(np.full(4, 0.3), names)
    assert youngest > none == unknown > older


def test_a_group_of_few_rows_stays_near_the_common_line() -> None:
    truth, labels, groups = make_rows()
    few = np.flatnonzero(groups == "KG and 1")[:12]
    rows = np.concatenate([few, np.flatnonzero(groups == "2 and 3")])
    labels = np.where(groups == "KG and 1", 1.0, labels)[rows]  # all of them correct
    lines = fit_calibration("platt_by_group", truth[rows], labels, groups[rows]).lines
    assert 0 < lines["KG and 1"].intercept - lines["2 and 3"].intercept < 0.8


def test_a_group_without_rows_has_no_line() -> None:
    truth, labels, _ = make_rows(n_rows=300)
    lines = fit_calibration("platt_by_group", truth, labels, np.full(300, "2 and 3")).lines
    assert lines.keys() == {"all", "2 and 3"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_never_reverses_the_ranking_of_a_group(kind: str) -> None:
    truth, labels, groups = make_rows(n_rows=300)
    calibration = fit_calibration(kind, truth, labels, groups)
    predictions = np.linspace(0, 1, 1001)
    for group in ("KG and 1", "2 and 3"):
        assert (np.diff(calibration.apply(predictions, np.full(1001, group))) >= 0).all()
    reversed_labels = fit_calibration(kind, truth, 1 - labels, groups)
    calibrated = reversed_labels.apply(predictions, np.full(1001, "2 and 3"))
    assert (np.diff(calibrated) >= 0).all()
    if kind not in ("none", "temperature"):  # only the base rate is left
        np.testing.assert_allclose(calibrated[200:800], 1 - labels.mean(), atol=0.1)


@pytest.mark.parametrize("kind", FITTED)
def test_separable_labels_do_not_become_certainties(kind: str) -> None:
    labels, groups = np.repeat([0.0, 1.0], 20), np.full(40, "2 and 3")
    predictions = np.where(labels > 0.5, 0.8, 0.2)
    calibrated = fit_calibration(kind, predictions, labels, groups).apply(
        np.array([0.0, 0.2, 0.8, 1.0]), np.full(4, "2 and 3")
    )
    assert 0.005 < calibrated[1] < 0.2 and 0.8 < calibrated[2] < 0.995
    if kind == "isotonic":  # the lines extrapolate
        assert calibrated[0] > 0.005 and calibrated[3] < 0.995


@pytest.mark.parametrize("kind", FITTED)
def test_equal_predictions_can_be_calibrated(kind: str) -> None:
    labels, groups = (np.arange(1000) % 4 == 0).astype(float), np.full(1000, "2 and 3")
    predictions = np.full(1000, 0.6)
    calibrated = fit_calibration(kind, predictions, labels, groups).apply(predictions, groups)
    wanted = 0.5 if kind == "temperature" else 0.25
    np.testing.assert_allclose(calibrated, wanted, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_is_read_back_from_json(kind: str) -> None:
    truth, labels, groups = make_rows(n_rows=200)
    before = fit_calibration(kind, truth, labels, groups)
    after = Calibration.from_dict(json.loads(json.dumps(before.as_dict())))
    assert after == before
    np.testing.assert_array_equal(after.apply(truth, groups), before.apply(truth, groups))


LINE = {"slope": 1.0, "intercept": 0.0}


def values(kind: str = "platt", **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "lines": {"all": LINE}, "points": [], **changes}


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({}, "not a calibration.*kind"),
        ([], "not a calibration"),
        (values("sorcery"), "unknown calibration 'sorcery': use none, temperature"),
        (values(lines={}), "lacks the line 'all'"),
        (values(lines={"all": {"slope": 1}}), "not a calibration.*intercept"),
        (values(lines={"all": {**LINE, "slope": -1}}), "no slope negative"),
        (values(lines={"all": {**LINE, "intercept": float("nan")}}), "must be finite"),
        (values("isotonic"), "must rise"),
        (values("isotonic", points=[[0.1, 0.5], [0.2, 0.4]]), "must rise"),
        (values("isotonic", points=[[0.2, 0.4], [0.1, 0.5]]), "must rise"),
        (values("isotonic", points=[[0.1, 0.5], [0.2, 1.4]]), "must rise"),
        (values("isotonic", points=[0.1, 0.5]), "not a calibration"),
    ],
)
def test_an_invalid_calibration_is_an_error_with_the_cause(invalid: Any, message: str) -> None:
    with pytest.raises(HearbackError, match=message):
        Calibration.from_dict(invalid)


def test_an_unknown_kind_cannot_be_fitted() -> None:
    with pytest.raises(HearbackError, match="'sorcery': use one of none"):
        fit_calibration("sorcery", *make_rows(n_rows=10))


def test_certainties_have_finite_log_odds() -> None:
    ends = logit(np.array([0.0, 0.5, 1.0]))
    assert ends[1] == 0 and np.isfinite(ends).all() and ends[0] == pytest.approx(-ends[2])
    line = Calibration("platt", {"all": Line(0.5, 0.0)})
    assert (np.diff(line.apply(np.array([0.0, 0.5, 1.0]), np.full(3, "KG and 1"))) > 0).all()


@pytest.mark.parametrize("deviation", [0.1, 1.0, 10.0])
def test_the_regression_equals_scikit_learn(deviation: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0, 2, (200, 3))
    labels = (rng.random(200) < expit(features @ [1.0, -0.5, 0.2])).astype(float)
    other = LogisticRegression(C=deviation**2, fit_intercept=False, tol=1e-10, max_iter=1000)
    other.fit(features, labels)
    precision = np.eye(3) / deviation**2
    found = fit_logistic(features, labels, np.zeros(3), precision)
    np.testing.assert_allclose(found, other.coef_[0], atol=1e-4)
    assert roc_auc_score(labels, features @ found) > 0.8
    bounded = fit_logistic(features, labels, np.zeros(3), precision, lower_bound=0)
    assert bounded[1] == 0 and bounded[0] > 0.1
