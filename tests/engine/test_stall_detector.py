"""Stall detection on simulated loss and gradient norm curves."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from hearback.engine.training import stall_detector
from hearback.engine.training.stall_detector import Curve, StallDetector, Step

N_STEPS = 240
LOG_2 = math.log(2)
PEAK_NORM, STALLED_NORM = 5.0, 0.004


def learning(seed: int, n_steps: int = N_STEPS) -> list[tuple[float, float]]:
    """Return (loss, norm) of a healthy training: a plateau, then a falling loss, with noise."""
    rng = np.random.default_rng(seed)
    done = np.linspace(0, 1, n_steps)
    level = 0.25 + (LOG_2 - 0.25) / (1 + np.exp(20 * (done - 0.4)))
    losses = level * rng.lognormal(0, 0.3, n_steps)
    norms = PEAK_NORM * (1.2 - done) * rng.lognormal(0, 0.5, n_steps)
    rare = rng.random(n_steps) < 0.1  # batches of a rare window length
    return list(zip(losses, np.where(rare, norms * 1e-3, norms), strict=True))


def stalled(seed: int, n_steps: int = N_STEPS, norm: float = STALLED_NORM) -> Any:
    """Return (loss, norm) of a stalled training: a loss of log 2 and tiny norms."""
    rng = np.random.default_rng(seed)
    losses = LOG_2 * rng.lognormal(0, 0.05, n_steps)
    return list(zip(losses, norm * rng.lognormal(0, 0.5, n_steps), strict=True))


def history(steps: Sequence[tuple[float, float]], n_epochs: int = 2) -> list[dict[str, Any]]:
    parts = np.array_split(np.array(steps), n_epochs)
    return [
        {"epoch": epoch, "losses": part[:, 0].tolist(), "gradient_norms": part[:, 1].tolist()}
        for epoch, part in enumerate(parts, start=1)
    ]


def curves(seeds: Iterable[int]) -> list[Curve]:
    # Folds differ by a few steps.
    found = [Curve.of(history(learning(seed, N_STEPS + seed % 5))) for seed in seeds]
    return [curve for curve in found if curve is not None]


def find_stall(
    detector: StallDetector, steps: Iterable[tuple[float, float]]
) -> tuple[int, str] | None:
    """Return the number of the step at which a training is stopped, and why."""
    for number, (loss, norm) in enumerate(steps, start=1):
        if reason := detector.update(Step(1, loss, norm)):
            return number, reason
    return None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n_siblings", [0, 1, 5])
def test_healthy_training_is_not_stopped(seed: int, n_siblings: int) -> None:
    detector = StallDetector(curves(range(100, 100 + n_siblings)))
    assert detector.replay(history(learning(seed))) is None
    assert detector.margin > 2


@pytest.mark.parametrize("n_siblings", [1, 5])
def test_stall_is_detected_by_comparison_with_other_folds(n_siblings: int) -> None:
    reason = StallDetector(curves(range(n_siblings))).replay(history(stalled(0)))
    assert reason is not None
    assert "gradient norm 0.00" in reason and "other fold" in reason and "loss 0.6" in reason


def test_stall_is_detected_by_comparison_with_its_start() -> None:
    steps = learning(0)[:60] + stalled(1, 180)
    found = find_stall(StallDetector(), steps)
    assert found is not None
    number, reason = found
    assert (
        60 + stall_detector.PATIENCE
        < number
        < 60 + 2 * (stall_detector.PATIENCE + stall_detector.WINDOW)
    )
    assert reason.startswith(f"epoch 1, step {number}: gradient norm 0.00")
    assert "its first 20 steps had" in reason


def test_small_gradients_alone_are_no_stall() -> None:
    """Gradients are as small as in a stall where the loss is low."""
    learned = [(0.1 * loss, norm) for loss, norm in stalled(0)]
    assert StallDetector(curves(range(3))).replay(history(learned)) is None
    assert find_stall(StallDetector(), learning(0)[:60] + learned) is None


def test_loss_slightly_above_the_others_is_no_stall() -> None:
    siblings = [Curve.of(history([(0.01, 1.0)] * N_STEPS)) for _ in range(2)]
    known = [curve for curve in siblings if curve is not None]
    assert StallDetector(known).replay(history([(0.05, 0.001)] * N_STEPS)) is None
    assert StallDetector(known).replay(history([(0.10, 0.001)] * N_STEPS)) is not None


def test_high_loss_alone_is_no_stall() -> None:
    """A training may stay at the base rate for long before its loss falls."""
    plateau = stalled(0, norm=0.3 * PEAK_NORM)
    assert StallDetector(curves(range(3))).replay(history(plateau)) is None
    assert find_stall(StallDetector(), learning(0)[:60] + plateau) is None


def test_brief_stall_is_tolerated() -> None:
    n_stalled = stall_detector.PATIENCE - 5
    brief = learning(0)[:100] + stalled(1, n_stalled) + learning(0)[100 + n_stalled :]
    assert find_stall(StallDetector(), brief) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_non_finite_loss_stops_at_once_with_the_recordings(loss: float) -> None:
    reason = StallDetector().update(Step(3, loss, 1.0, broken=("a.wav", "b.wav")))
    assert reason == f"epoch 3, step 1: the loss is {loss}, from the logits of a.wav, b.wav"


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_non_finite_gradient_stops_at_once(norm: float) -> None:
    reason = StallDetector().update(Step(1, 0.5, norm))
    assert reason == f"epoch 1, step 1: the gradient norm is {norm} (loss 0.5)"


def in_a_row(step: Step) -> int | None:
    """Return how many of these steps in a row stop a training; None if 60 do not."""
    detector = StallDetector()
    reasons = [detector.update(step) for _ in range(60)]
    return next((number for number, reason in enumerate(reasons, start=1) if reason), None)


@pytest.mark.parametrize(
    ("step", "n_steps"),
    [
        (Step(1, LOG_2, 0.0), stall_detector.FEW),
        (Step(1, LOG_2, 1e-7), stall_detector.FEW),
        (Step(1, 1e-3, 0.0), None),  # low loss
        (Step(1, LOG_2, 1.0, moved=False), stall_detector.FEW),
        (Step(1, LOG_2, 1.0, moved=None), None),
        (Step(1, LOG_2, math.inf, applied=False, moved=False), stall_detector.MAX_SKIPPED),
    ],
)
def test_steps_in_a_row_without_effect_stop_a_training(step: Step, n_steps: int | None) -> None:
    assert in_a_row(step) == n_steps


@pytest.mark.parametrize(
    "step", [Step(1, LOG_2, 0.0), Step(1, LOG_2, 1.0, moved=False), Step(1, 0.5, 1.0, False)]
)
def test_one_good_step_resets_the_count(step: Step) -> None:
    detector = StallDetector()
    few = (stall_detector.FEW if step.applied else stall_detector.MAX_SKIPPED) - 1
    for _ in range(3):
        assert not any(detector.update(step) for _ in range(few))
        assert detector.update(Step(1, LOG_2, 1.0, moved=True)) is None


def test_occasional_skipped_steps_do_not_hide_a_stall() -> None:
    detector = StallDetector()
    for loss, norm in learning(0)[:60]:
        assert detector.update(Step(1, loss, norm)) is None
    steps = [
        Step(1, loss, math.inf if number % 3 == 0 else norm, applied=number % 3 != 0)
        for number, (loss, norm) in enumerate(stalled(0))
    ]
    assert any(detector.update(step) for step in steps)


def test_replayed_steps_count_like_live_ones() -> None:
    steps = learning(0)[:60] + stalled(1, 180)
    found = find_stall(StallDetector(), steps)
    assert found is not None
    number, reason = found
    again = StallDetector()
    assert again.replay(history(steps[: number - 1], n_epochs=1)) is None
    loss, norm = steps[number - 1]
    assert again.update(Step(1, loss, norm)) == reason


def test_recorded_skipped_steps_count_as_skipped() -> None:
    epoch = {"epoch": 1, "losses": [0.7] * 19, "gradient_norms": [None] * 19}
    detector = StallDetector()
    assert detector.replay([epoch]) is None
    assert detector.update(Step(1, 0.7, math.inf, applied=False)) is not None


def test_metadata_without_losses_per_step_gives_no_curve() -> None:
    old = [{"epoch": 1, "gradient_norms": [1.0, 2.0]}]
    assert Curve.of(old) is None
    assert Curve.of([{"epoch": 0, "validation_log_loss": 0.5}]) is None
    assert StallDetector().replay(old) is None


def test_curve_is_read_at_the_same_step_of_the_same_epoch() -> None:
    epochs = [
        {"epoch": 1, "losses": [3.0] * 30, "gradient_norms": [1.0] * 30},
        {"epoch": 2, "losses": [1.0] * 25, "gradient_norms": [9.0] * 25},
    ]
    curve = Curve.of([{"epoch": 0}, *epochs])
    assert curve is not None
    assert curve.at(1, 30) == curve.at(1, 33) == (3.0, 1.0)
    assert curve.at(2, 5) == (3.0, 1.0)  # most of its window is of the first epoch
    assert curve.at(2, 20) == (1.0, 9.0)
