"""Augmentation of the songs: each effect, mix-up and shuffling."""

import json
from dataclasses import asdict
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.songs.augment import FADE_SECONDS, Augmentation, mix_up, reverse, shuffle

HOP = 512
N_CLASSES = 4


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def spectrogram(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(-40, 10, (130, 128)).astype(np.float32)


@pytest.fixture
def waveform(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 0.1, 48_000).astype(np.float32)


def mel_db(waveform: np.ndarray) -> np.ndarray:
    mel = librosa.feature.melspectrogram(y=waveform, sr=22_050, n_fft=2048, hop_length=HOP)
    return librosa.power_to_db(mel, ref=np.max).T


def swept(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Make a sound that is another one backwards: a rising tone that fades, in some noise."""
    seconds = np.arange(n_samples) / 22_050
    tone = np.sin(2 * np.pi * (200 + 800 * seconds) * seconds) * np.exp(-seconds)
    return (tone + 0.003 * rng.standard_normal(n_samples)).astype(np.float32)


def test_nothing_happens_by_default(spectrogram: np.ndarray, rng: np.random.Generator) -> None:
    assert np.array_equal(Augmentation().apply(spectrogram, rng), spectrogram)


def test_augmentation_is_reproducible_and_leaves_the_input(spectrogram: np.ndarray) -> None:
    before = spectrogram.copy()
    augmentation = Augmentation(reverse=0.5, time_masks=0.5, frequency_masks=0.5)
    for seed in range(8):
        one, same = (augmentation.apply(spectrogram, np.random.default_rng(seed)) for _ in "ab")
        assert np.array_equal(one, same)
        assert one.dtype == np.float32
        assert one.shape == spectrogram.shape
        assert np.array_equal(spectrogram, before)
        torch.from_numpy(one)  # which refuses the negative strides of a mere view


def test_augmentations_round_trip_as_json() -> None:
    augmentation = Augmentation(reverse=0.5, time_masks=1.0, max_time_masks=3)
    assert Augmentation(**json.loads(json.dumps(asdict(augmentation)))) == augmentation


def test_the_reversed_waveform_has_the_reversed_spectrogram(rng: np.random.Generator) -> None:
    waveform = swept(128 * HOP + 1, rng)  # the frames are then symmetric
    backwards = mel_db(reverse(waveform))
    np.testing.assert_allclose(reverse(mel_db(waveform)), backwards, atol=0.05)
    assert np.abs(mel_db(waveform) - backwards).mean() > 5


def test_reversal_holds_for_a_snippet_up_to_the_alignment_of_frames(
    rng: np.random.Generator,
) -> None:
    waveform = swept(3 * 22_050, rng)
    backwards, reversed_features = mel_db(waveform[::-1]), reverse(mel_db(waveform))
    assert backwards.shape == reversed_features.shape
    assert np.corrcoef(backwards.ravel(), reversed_features.ravel())[0, 1] > 0.98
    assert np.corrcoef(backwards.ravel(), mel_db(waveform).ravel())[0, 1] < 0.5


@pytest.mark.parametrize(("effect", "axis"), [("time_masks", 0), ("frequency_masks", 1)])
def test_a_mask_sets_an_interval_of_one_axis_to_the_mean(
    spectrogram: np.ndarray, rng: np.random.Generator, effect: str, axis: int
) -> None:
    singular: Any = {
        effect: 1.0,
        f"max_{effect}": 1,
        f"{effect.removesuffix('s')}_share_low": 0.1,
        f"{effect.removesuffix('s')}_share_high": 0.2,
    }
    augmentation = Augmentation(**singular)
    length = spectrogram.shape[axis]
    starts = set()
    for _ in range(40):
        masked = augmentation.apply(spectrogram, rng)
        changed = masked != spectrogram
        lines = np.flatnonzero(changed.any(axis=1 - axis))
        assert changed.take(lines, axis).all()  # of another axis, all of it
        assert np.ptp(lines) + 1 == len(lines)  # one stretch
        assert 0.1 * length - 1 <= len(lines) <= 0.2 * length + 1
        np.testing.assert_allclose(masked[changed], spectrogram.mean(), rtol=1e-6)
        starts.add(int(lines[0]))
    assert min(starts) < 0.3 * length
    assert max(starts) > 0.6 * length


def test_the_number_of_masks_is_in_its_range(
    spectrogram: np.ndarray, rng: np.random.Generator
) -> None:
    augmentation = Augmentation(
        time_masks=1.0, max_time_masks=3, time_mask_share_low=0.02, time_mask_share_high=0.02
    )
    seen = set()
    for _ in range(60):
        changed = (augmentation.apply(spectrogram, rng) != spectrogram).any(axis=1)
        seen.add(int(np.sum(np.diff(changed.astype(int), prepend=0) == 1)))
    assert seen == {1, 2, 3}


def test_a_waveform_is_masked_with_silence_and_reversed(
    waveform: np.ndarray, rng: np.random.Generator
) -> None:
    augmentation = Augmentation(
        reverse=1.0, time_masks=1.0, time_mask_share_low=0.1, time_mask_share_high=0.1
    )
    changed = augmentation.apply(waveform, rng)
    silent = changed == 0
    assert 4_800 <= silent.sum() <= 2 * 4_800
    assert np.array_equal(changed[~silent], waveform[::-1][~silent])


def test_the_gain_of_a_waveform_is_in_its_range(
    waveform: np.ndarray, rng: np.random.Generator
) -> None:
    augmentation = Augmentation(gain=1.0, gain_low=0.5, gain_high=2.0)
    factors = [augmentation.apply(waveform, rng)[0] / waveform[0] for _ in range(60)]
    assert 0.5 <= min(factors) < 0.8
    assert 1.7 < max(factors) <= 2.0


def test_effects_have_their_probability(waveform: np.ndarray, rng: np.random.Generator) -> None:
    augmentation = Augmentation(reverse=0.25)
    short = waveform[:10]
    n_reversed = sum(augmentation.apply(short, rng)[0] != short[0] for _ in range(1000))
    assert 200 < n_reversed < 300


def test_effects_for_other_features_are_refused(
    spectrogram: np.ndarray, waveform: np.ndarray, rng: np.random.Generator
) -> None:
    with pytest.raises(HearbackError, match="frequency masks"):
        Augmentation(frequency_masks=0.5).apply(waveform, rng)
    with pytest.raises(HearbackError, match="gain"):
        Augmentation(gain=0.5).apply(spectrogram, rng)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reverse": 1.5},
        {"time_masks": -0.1},
        {"gain": float("nan")},
        {"time_mask_share_high": 1.1},
        {"frequency_mask_share_low": 0.5, "frequency_mask_share_high": 0.4},
        {"min_frequency_masks": 3, "max_frequency_masks": 2},
        {"min_time_masks": -1},
        {"gain_low": -0.5},
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(HearbackError, match=r"^augmentation: [a-z_]+ is [^:]+: it must be "):
        Augmentation(**wrong)


def test_shuffling_permutes_all_pieces(rng: np.random.Generator) -> None:
    sample_rate, n_pieces = 16_000, 7
    waveform = np.repeat(np.arange(1, n_pieces + 1, dtype=np.float32), 4_000)[:-3]  # 7 unevenly
    before = waveform.copy()
    shuffled = shuffle(waveform, n_pieces, sample_rate, rng)
    np.testing.assert_array_equal(waveform, before)
    assert shuffled.shape == waveform.shape and shuffled.dtype == np.float32
    middles = shuffled[2_000::4_000].tolist()
    assert sorted(middles) == list(range(1, n_pieces + 1)) != middles
    # All but what fades is played as it is, and no joint is more than a step of the ramp.
    n_fade = round(FADE_SECONDS * sample_rate)
    is_whole = np.isin(shuffled, np.arange(1, n_pieces + 1))
    assert is_whole.sum() >= len(waveform) - 2 * n_pieces * n_fade
    assert np.abs(np.diff(shuffled)).max() <= 2 * n_pieces / n_fade


def test_shuffling_depends_on_the_generator(waveform: np.ndarray) -> None:
    one, same, other = (
        shuffle(waveform, 12, 16_000, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_pieces_too_short_to_fade_are_refused(waveform: np.ndarray) -> None:
    with pytest.raises(HearbackError, match="400 pieces are too short"):
        shuffle(waveform, 400, 16_000, np.random.default_rng(0))


def test_mix_up_mixes_features_and_targets_equally(rng: np.random.Generator) -> None:
    n = 64
    labels = torch.arange(n) % N_CLASSES
    targets = torch.nn.functional.one_hot(labels, N_CLASSES).float()
    inputs = targets[:, None].repeat(1, 5, 1)  # so that what was mixed can be read off
    mixed, soft = mix_up(inputs, targets, 0.4, rng)
    assert mixed.dtype == soft.dtype == torch.float32
    torch.testing.assert_close(mixed, soft[:, None].expand_as(mixed))
    torch.testing.assert_close(soft.sum(1), torch.ones(n))
    torch.testing.assert_close(soft.sum(0), targets.sum(0))  # a permutation: each is used twice
    own = soft[torch.arange(n), labels]
    share = own[own < 1].min()  # one proportion for the whole batch
    assert 0 < share < 1
    mixes = soft[(soft > 0).sum(1) == 2]
    torch.testing.assert_close(
        mixes.max(1).values, torch.full((len(mixes),), max(share.item(), 1 - share.item()))
    )


def test_the_share_of_mix_up_is_beta_distributed(rng: np.random.Generator) -> None:
    inputs = torch.tensor([[0.0], [1.0]])
    shares = []
    for _ in range(4000):
        mixed = mix_up(inputs, torch.eye(2), 0.4, rng)[0]
        shares.append(mixed[1].item())
    # Whether the two change places or not: of the share, or of one less it, both Beta(0.4, 0.4),
    # but for the half of the permutations that leave all as it was.
    moved = np.array([share for share in shares if share != 1.0])
    assert len(moved) == pytest.approx(2000, abs=200)
    assert moved.mean() == pytest.approx(0.5, abs=0.03)
    assert moved.var() == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.01)


def test_mix_up_with_alpha_0() -> None:
    inputs, targets = torch.randn(4, 3), torch.eye(4)
    mixed, soft = mix_up(inputs, targets, 0.0, np.random.default_rng(0))
    assert torch.equal(mixed, inputs)
    assert torch.equal(soft, targets)
    with pytest.raises(ValueError, match="alpha"):
        mix_up(inputs, targets, -1.0, np.random.default_rng(0))
