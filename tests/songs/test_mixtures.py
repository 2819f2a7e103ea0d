"""True mixtures of two snippets: their class, levels and singers."""

import numpy as np
import pytest

from hearback.songs.augment import Mixer, mix
from hearback.songs.tables import FEMALE, MALE, NO_VOICE, SEVERAL

LABELS = np.array([NO_VOICE] * 3 + [MALE] * 4 + [FEMALE] * 4 + [SEVERAL] * 3)
SINGERS = np.array(
    ["", "", "", "a", "a", "a", "b", "x", "x", "x", "y", "a;x", "b;y", "a;b"], dtype=str
)
ROWS = np.arange(len(LABELS))
UNKNOWN = np.full(len(LABELS), "", dtype=SINGERS.dtype)


def draws(mixer: Mixer, row: int, n: int = 200) -> list[tuple[int, int, float]]:
    """Return `n` draws for a row."""
    rng = np.random.default_rng(row)
    drawn = [mixer.draw(row, rng) for _ in range(n)]
    assert all(drawn)
    return [each for each in drawn if each is not None]


@pytest.mark.parametrize("row", [0, 2, 3, 6, 7, 10])
def test_music_is_added_to_one_or_no_voice(row: int) -> None:
    drawn = draws(Mixer(ROWS, LABELS, SINGERS), row)
    firsts, seconds, gains_db = map(np.array, zip(*drawn, strict=True))
    assert set(firsts) == {row}
    assert set(seconds) == {0, 1, 2} - {row}  # never a snippet with itself
    assert gains_db.min() >= -12 and gains_db.max() <= 0 and np.ptp(gains_db) > 6


@pytest.mark.parametrize("row", [11, 13])
def test_several_are_two_different_singers(row: int) -> None:
    drawn = draws(Mixer(ROWS, LABELS, SINGERS), row, 500)
    pairs = {(SINGERS[first], SINGERS[second]) for first, second, _ in drawn}
    people = ("a", "b", "x", "y")
    assert pairs == {(one, other) for one in people for other in people if one != other}
    gains_db = [gain_db for *_, gain_db in drawn]
    assert -6 <= min(gains_db) < -3 and 3 < max(gains_db) <= 6


def test_without_known_singers_several_are_a_man_and_a_woman() -> None:
    drawn = draws(Mixer(ROWS, LABELS, UNKNOWN), 11)
    assert {tuple(sorted(LABELS[[first, second]])) for first, second, _ in drawn} == {
        (MALE, FEMALE)
    }


def test_an_unknown_singer_is_mixed_with_the_other_sex_only() -> None:
    singers = SINGERS.copy()
    singers[3] = ""  # a man
    drawn = draws(Mixer(ROWS, LABELS, singers), 11, 1000)
    with_him = [{first, second} - {3} for first, second, _ in drawn if 3 in (first, second)]
    assert with_him and all(LABELS[list(other)] == FEMALE for other in with_him)


def test_partners_are_training_rows() -> None:
    rows = ROWS[::2]
    mixer = Mixer(rows, LABELS, SINGERS)
    for row in rows:
        used = {each for first, second, _ in draws(mixer, int(row)) for each in (first, second)}
        assert used <= set(rows)


def test_draws_depend_on_the_generator_only() -> None:
    mixer = Mixer(ROWS, LABELS, SINGERS)
    assert draws(mixer, 11) == draws(mixer, 11)


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ([0, 3, 7, 11], 0),  # no other music
        ([3, 7, 11], 3),  # no music
        ([0, 11, 12], 11),  # nobody sings alone
        ([0, 3, 4, 11], 11),  # one singer alone
    ],
)
def test_without_a_partner_there_is_no_mixture(rows: list[int], row: int) -> None:
    mixer = Mixer(np.array(rows), LABELS, SINGERS)
    rng = np.random.default_rng(0)
    assert all(mixer.draw(row, rng) is None for _ in range(20))


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))


@pytest.mark.parametrize("gain_db", [-12.0, 0.0, 6.0])
def test_levels_of_a_mixture(gain_db: float) -> None:
    time = np.arange(48_000) / 16_000
    first = (0.2 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    second = (0.01 * np.sin(2 * np.pi * 500 * time)).astype(np.float32)
    both = mix(first, second, gain_db)
    assert both.dtype == np.float32 and both.shape == first.shape
    assert rms(both) == pytest.approx(rms(first), rel=1e-4)
    shares = [abs(np.mean(both * tone)) / rms(tone) ** 2 * rms(tone) for tone in (first, second)]
    assert 20 * np.log10(shares[1] / shares[0]) == pytest.approx(gain_db, abs=0.01)


def test_silence_mixes_without_a_warning() -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    nothing = np.zeros_like(loud)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(mix(loud, nothing, 0.0), loud, rtol=1e-5)
        assert not mix(nothing, loud, 0.0).any()
        assert np.isfinite(mix(loud, -loud, 0.0)).all()
