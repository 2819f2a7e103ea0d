"""What a recording sounds like: tones and steady sounds."""

from collections.abc import Callable

import numpy as np
import pytest

from hearback.reading.scoring.acoustics import is_tone

RATE = 16_000


@pytest.fixture(autouse=True, scope="module")
def toys_are_speech() -> None:
    """Here, toys are what they are."""


def vowels(time: np.ndarray) -> np.ndarray:
    """Return harmonics whose number changes every 0.2 s, as those of vowels."""
    n_harmonics = 2 + np.round(10 * (time // 0.2 % 3))
    harmonics = [np.sin(2 * np.pi * 200 * k * time) * (k <= n_harmonics) for k in range(1, 24)]
    return np.sum(harmonics, axis=0)


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        (lambda t: np.sin(2 * np.pi * 3000 * t), True),
        (lambda t: np.sin(2 * np.pi * 440 * t) * (t % 1 < 0.3), True),
        (lambda t: np.sin(2 * np.pi * (100 * t + 200 * t * t)), True),
        (lambda t: np.sign(np.sin(2 * np.pi * 440 * t)), True),
        (lambda t: np.random.default_rng(0).normal(size=len(t)), True),
        (lambda t: np.sin(2 * np.pi * 440 * t[:1600]), True),
        (lambda t: np.random.default_rng(0).normal(size=1600), False),  # too short to be steady
        (vowels, False),
    ],
)
def test_tones_are_told_from_speech(
    sound: Callable[[np.ndarray], np.ndarray], expected: bool
) -> None:
    time = np.arange(4 * RATE) / RATE
    assert is_tone((0.1 * sound(time)).astype(np.float32)) == expected
