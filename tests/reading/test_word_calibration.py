"""Tests of the calibration of word scores, with labels of words and of clips."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.stacking import mean_log_loss
from hearback.engine.errors import HearbackError
from hearback.reading.word_calibration import (
    MANY_WORDS,
    MOST_WORDS,
    USUAL_LETTERS,
    WordCalibration,
    WordExamples,
    cross_fit,
    fit,
    fit_to_clips,
    noisy_and,
)
from hearback.reading.words import COMPLETE, SAID
from tests.reading.test_words import LINES, SPOKEN, make_log_odds


def test_a_clip_is_correct_if_all_words_were_said_and_none_is_missing() -> None:
    nan = np.nan
    log_odds = np.array([[[0, 1], [2, 0], [nan, 3]], [[4, 0], [nan, 2], [nan, nan]]])
    probabilities = LINES.apply(log_odds)
    said, complete = expit(0.5 * log_odds[..., 0] - 1), expit(2 * log_odds[..., 1] + 1)
    np.testing.assert_allclose(probabilities, np.stack([said, complete], axis=-1))
    expected = [
        said[0, 0] * said[0, 1] * complete[0, 0] * complete[0, 1] * complete[0, 2],
        said[1, 0] * complete[1, 0] * complete[1, 1],
    ]
    np.testing.assert_allclose(noisy_and(probabilities), expected)


def usual_letters(log_odds: np.ndarray) -> np.ndarray:
    """Return words of the usual length for (rows, positions, 2) log-odds."""
    return np.where(np.isnan(log_odds[:, :, SAID]), np.nan, USUAL_LETTERS)


def simulate(n_clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds and labels of clips with word probabilities calibrated by `LINES`."""
    rng = np.random.default_rng(seed)
    texts = ["word " * n_words for n_words in rng.integers(1, 6, n_clips)]
    log_odds = make_log_odds(texts, seed)
    log_odds[..., SAID] += 5
    log_odds[..., COMPLETE] += 1
    right = rng.random(log_odds.shape) < LINES.apply(log_odds)
    labels = (right | np.isnan(log_odds)).all(axis=(1, 2)).astype(float)
    return log_odds, labels


def test_lines_of_words_are_recovered_from_labels_of_clips() -> None:
    log_odds, labels = simulate(20_000, seed=1)
    assert 0.2 < labels.mean() < 0.8
    fitted = fit_to_clips(log_odds, labels)
    for found, true in ((fitted.said, LINES.said), (fitted.complete, LINES.complete)):
        assert found.slope == pytest.approx(true.slope, rel=0.1)
        assert found.intercept == pytest.approx(true.intercept, abs=0.2)


def test_fitted_lines_have_the_lowest_loss() -> None:
    log_odds, labels = simulate(2000, seed=2)
    best = WordCalibration((), *fit_to_clips(log_odds, labels))

    def loss(calibration: WordCalibration) -> float:
        return mean_log_loss(labels, noisy_and(calibration.apply(log_odds)))

    def moved(line: Line, slope: float, intercept: float) -> Line:
        return Line(line.slope * slope, line.intercept + intercept)

    for change in ((0.9, 0.0), (1.1, 0.0), (1.0, -0.2), (1.0, 0.2)):
        assert loss(replace(best, said=moved(best.said, *change))) > loss(best)
        assert loss(replace(best, complete=moved(best.complete, *change))) > loss(best)


def test_slopes_stay_positive_for_reversed_log_odds() -> None:
    log_odds, labels = simulate(500, seed=3)
    fitted = fit_to_clips(-log_odds, labels)
    assert fitted.said.slope > 0 and fitted.complete.slope > 0


def test_certain_words_and_labels_of_one_class_have_finite_lines() -> None:
    log_odds = np.where(np.isnan(make_log_odds(SPOKEN)), np.nan, 15.0)
    for labels in (np.ones(3), np.zeros(3)):
        fitted = fit_to_clips(log_odds, labels)
        assert np.isfinite([*asdict(fitted.said).values(), *asdict(fitted.complete).values()]).all()


def test_cross_fitted_words_are_calibrated_on_other_groups() -> None:
    log_odds, labels = simulate(120, seed=4)
    groups = np.array([f"s{row % 4}" for row in range(120)])
    own = groups == "s2"

    def product(labels: np.ndarray, groups: np.ndarray = groups) -> np.ndarray:
        letters = usual_letters(log_odds)
        examples = WordExamples({"modeltok": log_odds}, letters, {"modeltok": 1.0}, labels)
        return cross_fit(examples, groups).all_said

    before, after = product(labels), product(np.where(own, 1 - labels, labels))
    np.testing.assert_array_equal(before[own], after[own])
    assert (before[~own] != after[~own]).all()
    with pytest.raises(HearbackError, match="one group"):
        product(labels, np.full(120, "s1"))


def test_a_calibration_is_read_back_from_json() -> None:
    values = {**asdict(LINES), "models": list(LINES.models)}
    assert WordCalibration.from_dict(values) == LINES


@pytest.mark.parametrize(
    "changes",
    [
        {"models": []},
        {"said": {"slope": 0.0, "intercept": 0.0}},
        {"complete": {"slope": -1.0, "intercept": 0.0}},
        {"complete": {"slope": float("nan"), "intercept": 0.0}},
        {"said": {"slope": 1.0}},
        {"said": None},
        {"complete_power": 0.0},
        {"letters": float("inf")},
    ],
)
def test_an_invalid_calibration_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(HearbackError):
        WordCalibration.from_dict({**asdict(LINES), **changes})


def words_of(*probabilities: float) -> np.ndarray:
    """Return a text's probabilities, (1, words + 1, 2), nothing being missing."""
    return np.array([[*((each, 1.0) for each in probabilities), (np.nan, 1.0)]])


def test_a_long_text_is_not_wrong_because_it_is_long() -> None:
    short = noisy_and(words_of(*[0.999] * MOST_WORDS))
    long = noisy_and(words_of(*[0.999] * 3 * MOST_WORDS))
    assert short == pytest.approx(0.999**MOST_WORDS, rel=1e-12)
    assert long == pytest.approx(short, abs=1e-3)


def test_a_wrong_word_of_a_long_text_counts_more_than_doubtful_ones() -> None:
    n_words = 2 * MOST_WORDS
    wrong = noisy_and(words_of(0.01, *[0.999] * (n_words - 1)))
    doubtful = noisy_and(words_of(*[0.6] * 6, *[0.999] * (n_words - 6)))
    assert wrong == pytest.approx(1 / (1 + 99 / 2), abs=1e-3)
    assert doubtful > 10 * wrong
    assert noisy_and(words_of(0.0, *[1.0] * n_words)) < 1e-6
    assert noisy_and(words_of(*[1.0] * n_words)) == pytest.approx(1)


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_another_word_never_makes_a_long_text_much_likelier(power: float) -> None:
    texts = [words_of(*[0.95] * n) for n in range(MOST_WORDS - 2, MANY_WORDS + 3)]
    for text in texts:
        text[:, :, COMPLETE] = 0.97
    log_odds = logit([noisy_and(text, power)[0] for text in texts])
    before, after = log_odds[2], log_odds[MANY_WORDS - MOST_WORDS + 2]
    step = (after - before) / (MANY_WORDS - MOST_WORDS)
    np.testing.assert_allclose(np.diff(log_odds[2:-2]), step, atol=0.1)
    np.testing.assert_allclose(log_odds[-2:], after, atol=0.05)


def test_the_length_of_other_texts_changes_nothing() -> None:
    probabilities = np.full((2, 3 * MOST_WORDS + 1, 2), 0.99)
    probabilities[:, -1, SAID] = np.nan  # the end of the text
    probabilities[0, MOST_WORDS:, SAID] = np.nan
    probabilities[0, MOST_WORDS + 1 :, COMPLETE] = np.nan
    assert noisy_and(probabilities)[0] == pytest.approx(np.nanprod(probabilities[0]), rel=1e-12)


# With labels of words


def simulate_words(n_clips: int, seed: int, offset: float = 1.0) -> WordExamples:
    """Return two models that hear other words, and the labels of words and clips.

    The log-odds that most experts accept a word are 1.5 `good` + 0.5 `fair` + `offset`, that none
    is missing one more; `noise` is none.
    """
    rng = np.random.default_rng(seed)
    names = ("good", "fair", "noise")
    log_odds = {name: rng.normal(0, 2, (n_clips, 6, 2)) for name in names}
    ends = np.arange(6) == 5
    for values in log_odds.values():
        values[:, ends, SAID] = np.nan
    margin = 1.5 * log_odds["good"] + 0.5 * log_odds["fair"]
    margin = margin + np.array([offset, offset + 1])
    targets = (rng.random(margin.shape) < expit(margin)).astype(float)
    targets[np.isnan(margin)] = np.nan
    labels = np.nanmin(targets, axis=(1, 2))
    weights = dict.fromkeys(names, 1.0)
    return WordExamples(log_odds, usual_letters(margin), weights, labels, targets)


def test_labels_of_words_give_models_weights_and_lines() -> None:
    examples = simulate_words(4000, seed=1)
    fitted = fit(examples)
    assert fitted is not None
    assert {"good", "fair"} <= set(fitted.models)
    assert fitted.weight_of["good"] == pytest.approx(0.75, abs=0.03)
    assert fitted.weight_of.get("noise", 0.0) < 0.03
    assert fitted.said.slope == pytest.approx(2.0, rel=0.1)
    assert fitted.said.intercept == pytest.approx(1.0, abs=0.1)
    assert fitted.complete.intercept == pytest.approx(2.0, abs=0.2)


def test_a_share_of_experts_counts_as_what_most_of_them_say() -> None:
    examples = simulate_words(400, seed=2)
    assert examples.targets is not None
    shares = np.where(examples.targets >= 0.5, 0.6, 0.4)
    shares[np.isnan(examples.targets)] = np.nan
    assert fit(examples) == fit(examples._replace(targets=shares))


def test_few_labels_of_words_teach_nothing() -> None:
    examples = simulate_words(200, seed=3)
    assert examples.targets is not None
    few = np.full_like(examples.targets, np.nan)
    few[:5] = examples.targets[:5]
    fitted = fit(examples._replace(targets=few))
    assert fitted == fit(examples._replace(targets=None))
    assert fitted is not None and fitted.weights == (1.0, 1.0, 1.0)


def test_a_model_that_contradicts_the_labels_has_no_weight() -> None:
    examples = simulate_words(800, seed=4)
    reversed_ = {"good": -examples.log_odds["good"], "fair": examples.log_odds["fair"]}
    fitted = fit(examples._replace(log_odds=reversed_))
    assert fitted is not None
    assert fitted.models == ("fair",)
    only = fit(examples._replace(log_odds={"good": reversed_["good"]}))
    assert only is not None and only.said.slope > 0


def test_cross_fitted_labels_of_words_are_of_other_groups() -> None:
    examples = simulate_words(200, seed=5)
    assert examples.targets is not None
    groups = np.array([f"s{row % 5}" for row in range(200)])
    own = groups == "s3"
    before = cross_fit(examples, groups).words
    changed = np.where(own[:, None, None], 1 - examples.targets, examples.targets)
    after = cross_fit(examples._replace(targets=changed), groups).words
    np.testing.assert_array_equal(before[own], after[own])
    known = ~np.isnan(before[~own])
    assert (before[~own][known] != after[~own][known]).all()


def test_a_mean_is_of_the_models_that_are_there() -> None:
    words = replace(LINES, models=("a", "b", "c"), weights=(3.0, 1.0, 0.0))
    a, b = (make_log_odds(SPOKEN, seed) for seed in (1, 2))
    np.testing.assert_allclose(words.mean({"a": a, "b": b}, usual_letters(a)), 0.75 * a + 0.25 * b)
    np.testing.assert_allclose(words.mean({"b": b}, usual_letters(b)), b)
    assert words.weight_of == {"a": 0.75, "b": 0.25}


def test_missing_words_have_weights_of_their_own() -> None:
    examples = simulate_words(2000, seed=6)
    swapped = {name: values.copy() for name, values in examples.log_odds.items()}
    for ours, theirs in (("good", "fair"), ("fair", "good")):
        swapped[ours][:, :, COMPLETE] = examples.log_odds[theirs][:, :, COMPLETE]
    fitted = fit(examples._replace(log_odds=swapped))
    assert fitted is not None
    said, complete = (
        dict(zip(fitted.models, weights, strict=True))
        for weights in (fitted.weights, fitted.complete_weights)
    )
    assert said["good"] == pytest.approx(0.75, abs=0.05)
    assert complete["fair"] == pytest.approx(0.75, abs=0.05)
    mean = fitted.mean(swapped, examples.n_letters)
    for kind, weights in ((SAID, said), (COMPLETE, complete)):
        expected = sum(weights[name] * swapped[name][:, :, kind] for name in fitted.models)
        np.testing.assert_allclose(mean[:, :, kind], expected)


def test_labels_of_words_teach_what_letters_add() -> None:
    examples = simulate_words(4000, seed=7)
    rng = np.random.default_rng(8)
    n_letters = examples.n_letters * rng.choice([0.5, 1.0, 2.0], examples.n_letters.shape)
    margin = 1.5 * examples.log_odds["good"] + 0.5 * examples.log_odds["fair"]
    margin[:, :, SAID] += 1.0 + 2.0 * np.log(n_letters / USUAL_LETTERS)
    targets = (rng.random(margin.shape) < expit(margin)).astype(float)
    targets[np.isnan(margin)] = np.nan
    examples = examples._replace(n_letters=n_letters, targets=targets)
    fitted = fit(examples)
    assert fitted is not None
    assert fitted.letters * fitted.said.slope == pytest.approx(2.0, rel=0.1)
    plain = replace(fitted, letters=0.0)
    with_letters, without = (each.mean(examples.log_odds, n_letters) for each in (fitted, plain))
    np.testing.assert_array_equal(with_letters[:, :, COMPLETE], without[:, :, COMPLETE])
    usual = n_letters == USUAL_LETTERS
    np.testing.assert_array_equal(with_letters[usual], without[usual])
    long = n_letters > USUAL_LETTERS
    assert (with_letters[long][:, SAID] > without[long][:, SAID]).all()


def test_labels_of_clips_teach_what_missing_words_are_worth() -> None:
    examples = simulate_words(4000, seed=10, offset=5.0)
    fitted = fit(examples)
    assert fitted is not None
    assert fitted.complete_power == pytest.approx(1.0, abs=0.15)
    # What sounds like a missing word is an error more often than labels of words say.
    probabilities = fitted.apply(fitted.mean(examples.log_odds, examples.n_letters))
    rng = np.random.default_rng(11)
    correct = rng.random(4000) < noisy_and(probabilities, 3.0)
    fitted = fit(examples._replace(labels=correct.astype(float)))
    assert fitted is not None and fitted.complete_power == pytest.approx(3.0, rel=0.15)
    expected = np.nanprod(probabilities[:, :, SAID], 1)
    expected = expected * np.nanprod(probabilities[:, :, COMPLETE], 1) ** fitted.complete_power
    np.testing.assert_allclose(fitted.all_said(probabilities), expected)


def test_labels_of_clips_teach_nothing_about_letters() -> None:
    examples = simulate_words(200, seed=9)._replace(targets=None)
    fitted = fit(examples)
    assert fitted is not None and fitted.letters == 0
    longer = fit(examples._replace(n_letters=3 * examples.n_letters))
    assert longer == fitted


def test_a_model_that_hears_missing_words_alone_still_scores_words() -> None:
    words = replace(LINES, models=("a", "b"), weights=(1.0, 0.0), complete_weights=(0.0, 1.0))
    assert words.weight_of == {"a": 0.5, "b": 0.5}
    b = make_log_odds(SPOKEN, 2)
    np.testing.assert_allclose(words.mean({"b": b}, usual_letters(b)), b)


def test_older_files_weigh_words_as_the_ensemble_does() -> None:
    values = {**asdict(LINES), "models": ["a", "b"]}
    for name in ("weights", "complete_weights", "letters", "complete_power"):
        del values[name]
    read = WordCalibration.from_dict(values, {"a": 0.5, "b": 1.5, "c": 1.0})
    assert read.weights == (0.5, 1.5) and (read.letters, read.complete_power) == (0, 1)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_invalid_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(HearbackError):
        WordCalibration.from_dict({**asdict(LINES), "models": ["a", "b"], "weights": weights})
    with pytest.raises(HearbackError, match="calibration of words"):
        values = {**asdict(LINES), "models": ["a", "b"], "complete_weights": weights}
        WordCalibration.from_dict(values)


def test_without_a_model_nothing_is_fitted() -> None:
    examples = simulate_words(100, seed=6)
    assert fit(examples._replace(log_odds={})) is None
