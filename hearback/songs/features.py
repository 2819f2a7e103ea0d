"""What the models see of a snippet: log-mel spectrograms of two kinds, or the waveform itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import librosa
import numpy as np
import soxr

from hearback.songs.separation.methods import SOUND_RATE
from hearback.songs.tables import SECONDS

N_SAMPLES = round(SECONDS * SOUND_RATE)  # of a snippet at SOUND_RATE

# What python_speech_features takes the logarithm of in place of an energy of zero.
_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Features:
    """One kind of input: its name, its shape, and how a snippet becomes it."""

    name: str
    shape: tuple[int, ...]
    sample_rate: int  # Hz, of the sound that `from_sound` is given
    from_sound: Callable[[np.ndarray], np.ndarray]

    def compute(self, waveform: np.ndarray) -> np.ndarray:
        """Return the features, `shape` float32, of a waveform, (72000,) float32 at 24 kHz."""
        assert waveform.shape == (N_SAMPLES,), waveform.shape
        # soxr, as hearback.engine.audio.decode.decode: no fold-over of what lies above the new band.
        sound = soxr.resample(waveform, SOUND_RATE, self.sample_rate, quality="HQ")
        features = np.ascontiguousarray(self.from_sound(sound), np.float32)
        assert features.shape == self.shape, features.shape
        return features


def log_mel_40(sound: np.ndarray) -> np.ndarray:
    """Return log-mel energies as system 1 had them: (48000,) at 16 kHz -> (299, 40).

    Those of python_speech_features 0.6, whose releases ended in 2017: its `logfbank(sound, 16_000,
    winlen=0.025, winstep=0.01, nfilt=40, nfft=512, preemph=0.97)`. Frames of 25 ms every 10 ms, no
    window function, the last one filled up with zeros; natural logarithm of the power in triangles
    that are even in mel (2595 log10(1 + f / 700)) with their corners moved down to the bins.
    Compared with it over 50 snippets: nowhere further off than float32's rounding, 2e-6.
    """
    emphasised = np.append(sound[0], sound[1:] - 0.97 * sound[:-1]).astype(np.float64)
    n_frames = 1 + -(-(len(sound) - 400) // 160)
    padded = np.pad(emphasised, (0, (n_frames - 1) * 160 + 400 - len(sound)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    power = np.abs(np.fft.rfft(frames, 512)) ** 2 / 512
    energies = power @ _triangles().T
    return np.log(np.where(energies == 0, _EPSILON, energies))


@cache
def _triangles() -> np.ndarray:
    """Return the filters of `log_mel_40`, (40, 257)."""
    corners_hz = librosa.mel_frequencies(42, fmin=0, fmax=8_000, htk=True)
    # 513, one more than the transform is long: as python_speech_features has it.
    corners = np.floor(513 * corners_hz / 16_000)
    bins = np.arange(257)
    return np.stack([np.interp(bins, corners[n : n + 3], [0, 1, 0]) for n in range(40)])


def mel_db_128(sound: np.ndarray) -> np.ndarray:
    """Return librosa's mel spectrogram in dB: (66150,) at 22,050 Hz -> (130, 128).

    Against its maximum, which is 0 dB, and no lower than -80 dB; windows of 2048 samples every 512.
    As system 2 had it, but with the frames first.
    """
    power = librosa.feature.melspectrogram(
        y=sound, sr=22_050, n_fft=2048, hop_length=512, n_mels=128
    )
    return librosa.power_to_db(power, ref=np.max).T


def waveform_16k(sound: np.ndarray) -> np.ndarray:
    """Return the sound itself, (48000,) at 16 kHz: a Whisper encoder makes its own log-mel."""
    return sound


FEATURES = {
    features.name: features
    for features in (
        Features("log_mel_40", (299, 40), 16_000, log_mel_40),
        Features("mel_db_128", (130, 128), 22_050, mel_db_128),
        Features("waveform", (48_000,), 16_000, waveform_16k),
    )
}
