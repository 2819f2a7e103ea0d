"""Audio effects and augmentation settings."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import scipy.signal

from hearback.engine.audio import effects as effects_module
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.errors import HearbackError
from hearback.reading.augment import (
    COMPETITION_A,
    COMPETITION_B,
    COMPETITION_B_REFERENCE,
    Augmentation,
)

F0 = 160.0  # Hz
EFFECTS = ("cuts", "speed", "pitch", "stretch", "envelope", "colour", "noise", "gain")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def vowel() -> np.ndarray:
    """Two seconds of a vowel: pulses at F0 through three formants, RMS 0.1."""
    return sung(np.full(2 * SAMPLE_RATE, F0))


@pytest.fixture(scope="module")
def glide() -> np.ndarray:
    """One second of the vowel, its F0 rising by an octave."""
    return sung(110 * 2 ** np.linspace(0, 1, SAMPLE_RATE))


def sung(f0: np.ndarray) -> np.ndarray:
    """Make a vowel with this F0 at each sample."""
    pulses = np.diff(np.floor(np.cumsum(f0) / SAMPLE_RATE), prepend=0.0)
    for formant, bandwidth in ((700, 90), (1200, 110), (2600, 160)):
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        angle = 2 * np.pi * formant / SAMPLE_RATE
        pulses = scipy.signal.lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], pulses)
    return (0.1 * pulses / pulses.std()).astype(np.float32)


def pitch_of(waveform: np.ndarray) -> float:
    """Measure F0 in Hz, from 110 to 230, by the autocorrelation of the middle second."""
    middle = waveform[len(waveform) // 2 - 8000 :][:16_000].astype(np.float64)
    correlation = scipy.signal.correlate(middle, middle)[len(middle) - 1 :]
    lag = 70 + int(np.argmax(correlation[70:146]))
    before, at, after = correlation[lag - 1 : lag + 2]
    return SAMPLE_RATE / (lag + (before - after) / (before - 2 * at + after) / 2)


def certain(*effects: str) -> Augmentation:
    """Return an augmentation that always applies these effects."""
    settings: dict[str, Any] = dict.fromkeys(effects, 1.0)
    return Augmentation(**settings)


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def band_levels(waveform: np.ndarray, n_bands: int = 12) -> np.ndarray:
    """Measure the level in dB in bands of equal width below 4 kHz, (n_frames, n_bands)."""
    _, _, power = scipy.signal.spectrogram(
        waveform.astype(np.float64), SAMPLE_RATE, nperseg=1600, noverlap=0
    )
    below = power[1 : power.shape[0] // 2]
    bands = below[: len(below) // n_bands * n_bands].reshape(n_bands, -1, power.shape[1])
    return 10 * np.log10(bands.mean(axis=1).T + 1e-12)


@pytest.mark.parametrize("semitones", [-5.0, -1.5, 3.0, 5.0])
def test_pitch_shifts_f0_and_keeps_the_duration(vowel: np.ndarray, semitones: float) -> None:
    shifted = effects_module.shift_pitch(vowel, semitones)
    assert len(shifted) == len(vowel)
    assert 12 * np.log2(pitch_of(shifted) / F0) == pytest.approx(semitones, abs=0.1)
    assert rms(shifted) == pytest.approx(rms(vowel), rel=0.02)


@pytest.mark.parametrize("rate", [0.7, 0.95, 1.3])
def test_stretch_changes_the_duration_and_keeps_f0(vowel: np.ndarray, rate: float) -> None:
    stretched = effects_module.stretch(vowel, rate)
    assert len(stretched) == pytest.approx(len(vowel) / rate, abs=1)
    assert pitch_of(stretched) == pytest.approx(F0, rel=0.01)
    assert rms(stretched) == pytest.approx(rms(vowel), rel=0.02)
    assert rms(stretched[-SAMPLE_RATE // 4 :]) > 0.05  # speech up to the end, not padding


@pytest.mark.parametrize(("semitones", "rate"), [(0, 0.7), (0, 1.3), (-5, 1), (5, 1), (5, 0.7)])
def test_a_click_keeps_its_relative_time_and_stays_short(semitones: float, rate: float) -> None:
    click = np.zeros(SAMPLE_RATE, dtype=np.float32)
    click[8000] = 1
    energy = np.square(effects_module.revoice(click, semitones, rate), dtype=np.float64)
    moments = np.arange(len(energy)) / SAMPLE_RATE
    time = np.average(moments, weights=energy)
    assert time == pytest.approx(0.5 / rate, abs=0.003)
    assert np.average(np.square(moments - time), weights=energy) < 0.008**2


@pytest.mark.parametrize(("semitones", "rate"), [(0, 0.7), (0, 1.3), (-5, 1), (5, 1)])
def test_little_energy_precedes_a_plosive(semitones: float, rate: float) -> None:
    burst = np.zeros(SAMPLE_RATE, dtype=np.float32)
    burst[8000:8800] = whisper(800) * np.exp(-np.arange(800) / 200)
    energy = np.square(effects_module.revoice(burst, semitones, rate), dtype=np.float64)
    early = energy[: round(8000 / rate) - SAMPLE_RATE // 100].sum()  # by 10 ms or more
    assert 10 * np.log10(early / energy.sum()) < -30  # librosa's time_stretch: -1 to -40


def periodicity(waveform: np.ndarray) -> float:
    """Mean correlation of adjacent periods of a voice, at most 1."""
    correlations = []
    for start in range(3200, len(waveform) - 4000, 800):
        frame = waveform[start : start + 640]
        lagged = [waveform[start + lag : start + lag + 640] for lag in range(40, 180)]
        correlations.append(max(frame @ x / np.sqrt((frame @ frame) * (x @ x)) for x in lagged))
    return float(np.mean(correlations))


@pytest.mark.parametrize(("semitones", "rate"), [(0, 0.7), (0, 1.3), (-5, 1), (5, 1)])
def test_a_gliding_voice_stays_periodic(glide: np.ndarray, semitones: float, rate: float) -> None:
    assert (
        periodicity(effects_module.revoice(glide, semitones, rate)) > 0.9
    )  # librosa: 0.70 to 0.83


def test_pitch_stretch_and_envelope_combine(vowel: np.ndarray, rng: np.random.Generator) -> None:
    semitones, rate = 4.0, 0.8
    change = effects_module.EnvelopeChange.sample(len(vowel) / SAMPLE_RATE / rate, 0.8, -0.3, rng)
    both = effects_module.revoice(vowel, semitones, rate)
    all_three = effects_module.revoice(vowel, semitones, rate, change)
    assert len(both) == len(all_three) == round(len(vowel) / rate)
    for changed in (both, all_three):
        assert 12 * np.log2(pitch_of(changed) / F0) == pytest.approx(semitones, abs=0.1)
    after = effects_module.revoice(both, envelope=change)  # the same change at the same times
    assert rms(all_three - after) < 0.1 * rms(after)


def test_no_change_returns_the_clip(vowel: np.ndarray, rng: np.random.Generator) -> None:
    for unchanged in (effects_module.revoice(vowel), effects_module.colour(vowel, 0.0, rng)):
        np.testing.assert_allclose(unchanged, vowel, atol=1e-5)


@pytest.mark.parametrize("rate", [0.9, 1.1])
def test_speed_changes_duration_and_f0(vowel: np.ndarray, rate: float) -> None:
    changed = effects_module.change_speed(vowel, rate)
    assert len(changed) == pytest.approx(len(vowel) / rate, abs=1)
    assert pitch_of(changed) == pytest.approx(F0 * rate, rel=0.01)


def test_noise_is_added_with_its_std_everywhere(
    vowel: np.ndarray, rng: np.random.Generator
) -> None:
    noise = effects_module.add_noise(vowel, 0.03, rng) - vowel
    for part in np.array_split(noise, 8):
        assert part.std() == pytest.approx(0.03, rel=0.1)
        assert part.mean() == pytest.approx(0, abs=0.003)


def test_gain_scales(vowel: np.ndarray) -> None:
    np.testing.assert_allclose(effects_module.scale_gain(vowel, 0.7), 0.7 * vowel, rtol=1e-6)


def test_envelope_changes_the_envelope_and_keeps_f0_level_and_duration(
    vowel: np.ndarray, rng: np.random.Generator
) -> None:
    plain = effects_module.warp_envelope(vowel, 0, 0, rng)
    warped = effects_module.warp_envelope(vowel, 0.8, -0.3, rng)
    assert len(warped) == len(vowel)
    assert pitch_of(warped) == pytest.approx(F0, rel=0.01)
    assert 20 * np.log10(rms(warped) / rms(vowel)) == pytest.approx(0, abs=3)
    # 0.8 nats of power are 3.5 dB; the average over a band and 0.1 s varies somewhat less.
    change = band_levels(warped) - band_levels(plain)
    assert 1.5 < change.std() < 5
    assert change.std(axis=0).mean() > 1  # over time
    assert change.std(axis=1).mean() > 1  # over frequency


def test_the_envelope_change_is_the_sampled_one(rng: np.random.Generator) -> None:
    white = 0.1 * rng.standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    change = effects_module.EnvelopeChange.sample(2.0, 0.8, -0.3, rng)
    warped = effects_module.revoice(white, envelope=change)
    achieved = band_levels(warped) - band_levels(white)  # 0.1 s by a third of a kHz
    times = np.linspace(0.005, 1.995, 200)
    hertz = np.linspace(0, 4000, 1201)[1:]
    expected = change.at(times, hertz).reshape(20, 10, 12, 100).mean(axis=(1, 3)) * 10 / np.log(10)
    assert np.corrcoef(achieved.ravel(), expected.ravel())[0, 1] > 0.9
    assert np.mean(achieved - expected) == pytest.approx(0, abs=0.5)


def test_envelope_changes_a_slowed_clip_to_its_end() -> None:
    white = whisper(SAMPLE_RATE)
    slowed = replace(certain("stretch"), stretch_low=0.5, stretch_high=0.5)
    plain, warped = (
        augmentation.apply(white, np.random.default_rng(3))
        for augmentation in (slowed, replace(slowed, envelope=1.0))
    )
    last_half = (band_levels(warped) - band_levels(plain))[10:]
    assert last_half.std(axis=0).mean() > 1  # over time


def test_envelopes_mean_is_in_nats_of_power(vowel: np.ndarray, rng: np.random.Generator) -> None:
    plain = effects_module.warp_envelope(vowel, 0, 0, rng)
    lower = effects_module.warp_envelope(vowel, 0, -0.3, rng)
    assert (rms(lower) / rms(plain)) ** 2 == pytest.approx(np.exp(-0.3), rel=0.01)


def test_the_default_envelope_change_keeps_the_expected_power(vowel: np.ndarray) -> None:
    powers = [
        rms(effects_module.warp_envelope(vowel[:8000], 0.8, -0.3, np.random.default_rng(seed))) ** 2
        for seed in range(12)
    ]
    plain = rms(effects_module.warp_envelope(vowel[:8000], 0, 0, np.random.default_rng(0))) ** 2
    assert np.mean(powers) / plain == pytest.approx(1, abs=0.35)


def test_colour_is_constant_over_time_and_keeps_the_level(rng: np.random.Generator) -> None:
    white = 0.1 * rng.standard_normal(4 * SAMPLE_RATE).astype(np.float32)
    coloured = effects_module.colour(white, 4.0, rng)
    assert len(coloured) == len(white)
    assert rms(coloured) == pytest.approx(rms(white), rel=1e-3)
    change = band_levels(coloured) - band_levels(white)
    assert change.mean(axis=0).std() > 1  # over frequency
    assert change.std(axis=0).mean() < 0.5  # over time


def test_colour_has_the_given_spread_in_db(rng: np.random.Generator) -> None:
    white = rng.standard_normal(SAMPLE_RATE).astype(np.float32)
    before = band_levels(white).mean(axis=0)
    changes = [
        band_levels(effects_module.colour(white, 4.0, rng)).mean(axis=0) - before for _ in range(99)
    ]
    spread = np.std(np.stack(changes) - np.mean(changes, axis=1, keepdims=True))
    assert spread == pytest.approx(4.0, rel=0.35)


def zero_runs(waveform: np.ndarray) -> list[tuple[int, int]]:
    """List the (start, length) of the runs of zeros."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], waveform == 0, [0]])))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_a_cut_changes_only_its_segment(vowel: np.ndarray, rng: np.random.Generator) -> None:
    sounding = np.where(vowel == 0, np.float32(1e-6), vowel)
    result = effects_module.cut(sounding, np.array([0.05]), rng)
    ((start, length),) = zero_runs(result)
    assert length == round(0.05 * len(sounding))
    kept = np.ones(len(sounding), dtype=bool)
    kept[start : start + length] = False
    np.testing.assert_array_equal(result[kept], sounding[kept])


def test_a_cut_can_cover_the_whole_signal(rng: np.random.Generator) -> None:
    signal = np.ones((30, 4), np.float32)
    assert np.array_equal(
        effects_module.cut(signal, np.array([1.0]), rng, 0.5), np.full((30, 4), 0.5)
    )
    assert signal.all()  # the input is unchanged


def test_cuts_are_uniform_over_the_clip(rng: np.random.Generator) -> None:
    clip = np.ones(2000, dtype=np.float32)
    starts = [zero_runs(effects_module.cut(clip, np.array([0.05]), rng))[0][0] for _ in range(600)]
    counts, _ = np.histogram(starts, bins=10, range=(0, 1900))
    assert counts.min() > 30  # 60 expected in each tenth
    assert counts.max() < 100


def test_the_competitions_cuts_have_their_number_and_length(rng: np.random.Generator) -> None:
    only_cuts = certain("cuts")
    clip = np.ones(4000, dtype=np.float32)
    numbers, shares = set(), []
    for _ in range(300):
        runs = zero_runs(only_cuts.apply(clip, rng))
        numbers.add(len(runs))
        shares.append(sum(length for _, length in runs) / len(clip))
    assert max(numbers) == 6
    assert min(numbers) == 1
    assert min(shares) >= 0.025 - 1e-3
    assert max(shares) <= 6 * 0.075
    one = replace(only_cuts, cuts_most=1)
    lengths = [zero_runs(one.apply(clip, rng))[0][1] / len(clip) for _ in range(200)]
    assert 0.025 - 1e-3 <= min(lengths) < 0.03
    assert 0.07 < max(lengths) <= 0.075 + 1e-3


def test_nothing_happens_at_probability_zero(vowel: np.ndarray, rng: np.random.Generator) -> None:
    np.testing.assert_array_equal(Augmentation().apply(vowel, rng), vowel)


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_effect_happens_at_probability_one(
    vowel: np.ndarray, rng: np.random.Generator, effect: str
) -> None:
    before = vowel.copy()
    changed = certain(effect).apply(vowel, rng)
    assert len(changed) != len(vowel) or rms(changed - vowel) > 1e-3
    np.testing.assert_array_equal(vowel, before)


def test_effects_occur_with_their_probability(rng: np.random.Generator) -> None:
    clip = np.ones(10, dtype=np.float32)
    sometimes = Augmentation(gain=0.4)
    happened = [sometimes.apply(clip, rng)[0] != 1 for _ in range(2000)]
    assert np.mean(happened) == pytest.approx(0.4, abs=0.05)


def test_ranges_are_sampled_to_their_ends(rng: np.random.Generator) -> None:
    clip = np.ones(10, dtype=np.float32)
    gains = [Augmentation(gain=1.0).apply(clip, rng)[0] for _ in range(500)]
    assert min(gains) == pytest.approx(0.7, abs=0.02)
    assert max(gains) == pytest.approx(1.3, abs=0.02)


def test_the_same_seed_gives_the_same_waveform(vowel: np.ndarray) -> None:
    everything = certain(*EFFECTS)
    first, second, other = (
        everything.apply(vowel, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def silence(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.float32)


def whisper(n: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(n).astype(np.float32)


@pytest.mark.parametrize("effect", [*EFFECTS, "all"])
@pytest.mark.parametrize("make", [silence, whisper])
@pytest.mark.parametrize("n_samples", [1, 50, 1600, 4000])
def test_results_are_finite_and_not_empty(
    n_samples: int, make: Callable[[int], np.ndarray], effect: str
) -> None:
    augmentation = certain(*EFFECTS) if effect == "all" else certain(effect)
    for seed in range(2):
        result = augmentation.apply(make(n_samples), np.random.default_rng(seed))
        assert result.dtype == np.float32
        assert result.ndim == 1
        assert len(result) > 0
        assert np.isfinite(result).all()
        assert np.abs(result).max() < 3


def test_the_competitions_augmentations() -> None:
    assert {name: getattr(COMPETITION_A, name) for name in EFFECTS} == {
        "cuts": 0, "speed": 0, "pitch": 0.4, "stretch": 0.4, "envelope": 0.4, "colour": 0,
        "noise": 0.4, "gain": 0.4,
    }  # fmt: skip
    assert replace(COMPETITION_A, envelope=0.3, cuts=0.4) == COMPETITION_B
    assert replace(COMPETITION_B, envelope=0.0, pitch=0.0) == COMPETITION_B_REFERENCE


def test_an_augmentation_is_unchanged_by_json() -> None:
    assert Augmentation(**json.loads(json.dumps(asdict(COMPETITION_B)))) == COMPETITION_B


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pitch": 1.5}, "pitch is 1.5: it must be a number from 0 to 1"),
        ({"noise": -0.1}, "noise is -0.1: it must be a number from 0 to 1"),
        ({"noise": "loud"}, "noise is 'loud': it must be a number from 0 to 1"),
        ({"noise_std": -0.1}, "noise_std is -0.1: it must be a number of at least 0"),
        ({"gain_low": 2.0}, "gain_low is 2.0: it must be at most gain_high, 1.3"),
        ({"stretch_low": 0.0}, "stretch_low is 0.0: it must be a number of at least 0.1"),
        ({"cuts_most": 0}, "cuts_fewest is 1: it must be at most cuts_most, 0"),
    ],
)
def test_invalid_augmentations_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(HearbackError, match=f"^augmentation: {re.escape(message)}$"):
        Augmentation(**wrong)
