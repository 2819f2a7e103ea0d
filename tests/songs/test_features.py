"""Features of the songs."""

import librosa
import numpy as np
import pytest
import soxr

from hearback.songs.features import FEATURES, N_SAMPLES, log_mel_40, mel_db_128


@pytest.fixture(scope="module")
def snippet() -> np.ndarray:
    """Return a rising tone with a steady one above it, 3 s at 24 kHz."""
    time = np.arange(N_SAMPLES) / 24_000
    rising = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)
    return (rising + 0.1 * np.sin(2 * np.pi * 3000 * time)).astype(np.float32)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_features_have_their_shape_also_for_silence(
    name: str, level: float, snippet: np.ndarray
) -> None:
    values = FEATURES[name].compute(level * snippet)
    assert values.shape == FEATURES[name].shape
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert np.isfinite(values).all()


def test_log_mel_40_equals_python_speech_features(snippet: np.ndarray) -> None:
    # By python_speech_features 0.6: logfbank(sound, 16_000, winlen=0.025, winstep=0.01, nfilt=40,
    # nfft=512, preemph=0.97) of the same snippet at 16 kHz; the last frame is partly zeros.
    expected = [
        [-9.0717, -6.5733, -8.2805, -9.0361],
        [-8.5486, -8.0530, -6.7694, -8.3677],
        [-8.1395, -7.7166, -1.2070, -6.6579],
    ]
    values = FEATURES["log_mel_40"].compute(snippet)
    assert values[np.ix_([0, 150, 298], [0, 5, 20, 39])] == pytest.approx(
        np.array(expected), abs=2e-3
    )
    assert values.mean() == pytest.approx(-6.53115, abs=1e-3)


def test_log_mel_40_of_silence_is_the_log_of_epsilon() -> None:
    assert np.unique(log_mel_40(np.zeros(48_000))) == pytest.approx(np.log(2.0**-52))


def test_mel_db_128_equals_librosa_transposed(snippet: np.ndarray) -> None:
    sound = soxr.resample(snippet, 24_000, 22_050)
    values = mel_db_128(sound)
    power = librosa.feature.melspectrogram(y=sound, sr=22_050)
    assert np.allclose(values, librosa.power_to_db(power, ref=np.max).T, atol=1e-4)
    assert values.max() == pytest.approx(0, abs=1e-4)
    assert values.min() >= -80.001


def test_the_waveform_is_resampled_to_16_khz(snippet: np.ndarray) -> None:
    waveform = FEATURES["waveform"].compute(snippet)
    time = np.arange(48_000) / 16_000
    expected = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)
    expected += 0.1 * np.sin(2 * np.pi * 3000 * time)
    assert np.abs(waveform - expected)[500:-500].max() < 1e-3


def test_another_length_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError):
        FEATURES["waveform"].compute(np.zeros(71_999, np.float32))
