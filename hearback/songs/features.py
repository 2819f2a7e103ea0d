"""The models' inputs: two kinds of log-mel spectrograms, or the waveform."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import librosa
import numpy as np
import soxr

from hearback.songs.separation.methods import SOUND_RATE
from hearback.songs.tables import SECONDS

N_SAMPLES = round(SECONDS * SOUND_RATE)  # of a snippet

# Replaces zero energy before the logarithm, as in python_speech_features.
_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Features:
    """A kind of model input: its name, shape and computation."""

    name: str
    shape: tuple[int, ...]
    sample_rate: int  # Hz, of the waveform passed to `from_waveform`
    from_waveform: Callable[[np.ndarray], np.ndarray]

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        """Return the features, `shape` float32, of a waveform, (72000,) float32 at 24 kHz."""
        assert waveform.shape == (N_SAMPLES,), waveform.shape
        # soxr avoids aliasing, as in `hearback.engine.audio.decode`.
        resampled = soxr.resample(waveform, SOUND_RATE, self.sample_rate, quality="HQ")
        features = np.ascontiguousarray(self.from_waveform(resampled), np.float32)
        assert features.shape == self.shape, features.shape
        return features


def log_mel_40(waveform: np.ndarray) -> np.ndarray:
    """Return log-mel energies as in system 1: (48000,) at 16 kHz -> (299, 40).

    Reimplements python_speech_features 0.6 (last release in 2017), `logfbank(waveform, 16_000,
    winlen=0.025, winstep=0.01, nfilt=40, nfft=512, preemph=0.97)`: frames of 25 ms every 10 ms
    without a window function, the last one zero-padded; natural logarithm of the power in
    triangular filters, evenly spaced in mel (2595 log10(1 + f / 700)), with corners rounded down to
    bins. On 50 snippets both implementations agree to 2e-6 (float32 rounding).
    """
    emphasised = np.append(waveform[0], waveform[1:] - 0.97 * waveform[:-1]).astype(np.float64)
    n_frames = 1 + -(-(len(waveform) - 400) // 160)
    padded = np.pad(emphasised, (0, (n_frames - 1) * 160 + 400 - len(waveform)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    power = np.abs(np.fft.rfft(frames, 512)) ** 2 / 512
    energies = power @ _triangles().T
    return np.log(np.where(energies == 0, _EPSILON, energies))


@cache
def _triangles() -> np.ndarray:
    """Return the filters of `log_mel_40`, (40, 257)."""
    corners_hz = librosa.mel_frequencies(42, fmin=0, fmax=8_000, htk=True)
    # 513, one more than the FFT size, as in python_speech_features.
    corners = np.floor(513 * corners_hz / 16_000)
    bins = np.arange(257)
    return np.stack([np.interp(bins, corners[n : n + 3], [0, 1, 0]) for n in range(40)])


def mel_db_128(waveform: np.ndarray) -> np.ndarray:
    """Return librosa's mel spectrogram in dB: (66150,) at 22,050 Hz -> (130, 128).

    Relative to its maximum, with a floor of -80 dB; windows of 2048 samples every 512. As in
    system 2, but with the frames first.
    """
    power = librosa.feature.melspectrogram(
        y=waveform, sr=22_050, n_fft=2048, hop_length=512, n_mels=128
    )
    return librosa.power_to_db(power, ref=np.max).T


def waveform_16k(waveform: np.ndarray) -> np.ndarray:
    """Return the waveform itself, (48000,) at 16 kHz: the Whisper model computes its log-mel."""
    return waveform


FEATURES = {
    features.name: features
    for features in (
        Features("log_mel_40", (299, 40), 16_000, log_mel_40),
        Features("mel_db_128", (130, 128), 22_050, mel_db_128),
        Features("waveform", (48_000,), 16_000, waveform_16k),
    )
}
