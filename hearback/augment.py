"""Augmentation: a waveform in, another waveform out, its randomness passed in.

Waveforms are float32, of shape (n,), 16 kHz mono, n > 0. What comes back is too, and finite; the
input stays as it was. Values may leave [-1, 1]: nothing here clips.

The effects and their ranges are those of the second-placed code of DrivenData's "Goodnight Moon,
Hello Early Literacy Screening", but for two that had no or another effect there: the result of
`warp_envelope` was thrown away, and `cut` fell on the clip's start only. `change_speed` and
`colour` are additions, off by default.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
import soxr

from hearback.audio import SAMPLE_RATE
from hearback.errors import HearbackError

# Window of the phase vocoder, samples: 64 ms. librosa's 2048, meant for music at 22 kHz, smears
# plosives over 128 ms.
N_FFT = 1024
FRAME_MILLISECONDS = 10.0  # of WORLD; its default of 5 takes half as long again
# DIO's limit on F0's change from frame to frame. With its default of 0.1 it misses a fifth of real
# learners' voiced frames (those that HARVEST finds, in ten times the time), with 0.2 a tenth.
F0_RANGE = 0.2
# WORLD's estimates need some signal; shorter ones are padded with silence for it.
SHORTEST_SAMPLES = SAMPLE_RATE // 10

# A random curve over frequency is drawn at knots evenly spaced in mel: formants are about as wide.
KNOTS_OVER_FREQUENCY = 16
SECONDS_BETWEEN_KNOTS = 0.1


@dataclass(frozen=True)
class Augmentation:
    """How likely each effect is, and its range.

    `pitch`, `stretch`, `noise`, `gain`, `envelope`, `cuts`, `speed` and `colour` are probabilities;
    by default all are 0, so that nothing happens. The ranges are uniform, their ends included; the
    fields say which function below they belong to.
    """

    cuts: float = 0.0
    cuts_fewest: int = 1
    cuts_most: int = 6
    cut_share_low: float = 0.025  # of the clip
    cut_share_high: float = 0.075
    speed: float = 0.0
    speed_low: float = 0.9  # times as fast
    speed_high: float = 1.1
    pitch: float = 0.0
    pitch_semitones: float = 5.0  # up or down
    stretch: float = 0.0
    stretch_low: float = 0.7  # times as fast
    stretch_high: float = 1.3
    envelope: float = 0.0
    envelope_std: float = 0.8  # nats of power
    envelope_mean: float = -0.3
    colour: float = 0.0
    colour_db: float = 4.0  # standard deviation
    noise: float = 0.0
    noise_std: float = 0.03  # of full scale
    gain: float = 0.0
    gain_low: float = 0.7  # factor on the amplitude
    gain_high: float = 1.3

    def __post_init__(self) -> None:
        """Refuse probabilities and ranges that are none."""
        for name in ("cuts", "speed", "pitch", "stretch", "envelope", "colour", "noise", "gain"):
            if not 0 <= getattr(self, name) <= 1:
                raise HearbackError(f"augmentation: {name} is no probability")
        for low, high, floor in (
            (self.cuts_fewest, self.cuts_most, 0),
            (self.cut_share_low, self.cut_share_high, 0),
            (self.speed_low, self.speed_high, 0.1),
            (self.stretch_low, self.stretch_high, 0.1),
            (self.gain_low, self.gain_high, 0),
        ):
            if not floor <= low <= high:
                raise HearbackError(f"augmentation: {low} to {high} is no range here")

    def apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return `waveform` with each effect, or without, as `rng` decides.

        In the order in which a recording comes about: what is said (cuts), how (speed, pitch,
        stretch, envelope), over which channel (colour, noise, gain). The competition's code
        analysed the envelope last; WORLD does so better before noise is added.
        """
        waveform = np.asarray(waveform, dtype=np.float32)
        if rng.random() < self.cuts:
            number = int(rng.integers(self.cuts_fewest, self.cuts_most, endpoint=True))
            shares = rng.uniform(self.cut_share_low, self.cut_share_high, number)
            waveform = cut(waveform, shares, rng)
        if rng.random() < self.speed:
            waveform = change_speed(waveform, rng.uniform(self.speed_low, self.speed_high))
        if rng.random() < self.pitch:
            semitones = rng.uniform(-self.pitch_semitones, self.pitch_semitones)
            waveform = shift_pitch(waveform, semitones)
        if rng.random() < self.stretch:
            waveform = stretch(waveform, rng.uniform(self.stretch_low, self.stretch_high))
        if rng.random() < self.envelope:
            waveform = warp_envelope(waveform, self.envelope_std, self.envelope_mean, rng)
        if rng.random() < self.colour:
            waveform = colour(waveform, self.colour_db, rng)
        if rng.random() < self.noise:
            waveform = add_noise(waveform, self.noise_std, rng)
        if rng.random() < self.gain:
            waveform = scale_gain(waveform, rng.uniform(self.gain_low, self.gain_high))
        return waveform


COMPETITION_A = Augmentation(pitch=0.4, stretch=0.4, noise=0.4, gain=0.4, envelope=0.4)
COMPETITION_B = replace(COMPETITION_A, envelope=0.3, cuts=0.4)
COMPETITION_B_REFERENCE = replace(COMPETITION_B, pitch=0.0, envelope=0.0)
# Light and cheap, for small corpora: no phase vocoder, no WORLD (docs/results.md).
LIGHT = Augmentation(
    speed=0.5,
    speed_low=0.85,
    speed_high=1.15,
    colour=0.5,
    noise=0.4,
    noise_std=0.01,
    gain=0.8,
    gain_low=0.5,
    gain_high=1.5,
)
LIGHT_REFERENCE = Augmentation(gain=0.8, gain_low=0.5, gain_high=1.5)


def cut(waveform: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set one stretch of the clip to zero for each of `shares` (of the clip), anywhere in it."""
    waveform = waveform.copy()
    for share in shares:
        length = round(share * len(waveform))
        start = int(rng.integers(0, len(waveform) - length, endpoint=True))
        waveform[start : start + length] = 0
    return waveform


def change_speed(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Play `rate` times as fast: duration, pitch and formants all move, as on a tape.

    Ko et al., "Audio Augmentation for Speech Recognition", Interspeech 2015.
    """
    changed = soxr.resample(waveform, SAMPLE_RATE * rate, SAMPLE_RATE, quality="HQ")
    return _fit(changed, max(1, round(len(waveform) / rate)))


def shift_pitch(waveform: np.ndarray, semitones: float) -> np.ndarray:
    """Shift pitch, and formants with it, by `semitones`, the duration kept (phase vocoder)."""
    import librosa  # noqa: PLC0415  (slow to start, and not needed without this effect)

    padded = _fit(waveform, max(len(waveform), N_FFT))
    shifted = librosa.effects.pitch_shift(padded, sr=SAMPLE_RATE, n_steps=semitones, n_fft=N_FFT)
    return _fit(shifted, len(waveform))


def stretch(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Speak `rate` times as fast, the pitch kept (phase vocoder)."""
    import librosa  # noqa: PLC0415

    padded = _fit(waveform, max(len(waveform), N_FFT))
    stretched = librosa.effects.time_stretch(padded, rate=rate, n_fft=N_FFT)
    return _fit(stretched, max(1, round(len(waveform) / rate)))


def warp_envelope(
    waveform: np.ndarray, std: float, mean: float, rng: np.random.Generator
) -> np.ndarray:
    """Perturb the voice's spectral envelope, F0 and duration kept (WORLD: Morise et al., 2016).

    The competition's code added 0.8 · N(0, 1) - 0.3 to every value of WORLD's power envelope. A
    voice's powers lie far below 1, so noise of full scale would have been left of it, had the
    result been used. Here as much is added to the *logarithm* of the power, where it makes sense:
    the expected power stays, as e^(mean + std²/2) = e^0.02. And as an envelope is smooth, the
    normal numbers are drawn at knots, every 0.1 s and 16 over the mel scale, and interpolated.

    WORLD's analysis and synthesis alone change a log-mel spectrum by about as much as this does;
    where that, or its time, is too much, `colour` changes the envelope and nothing else.
    """
    import pyworld  # noqa: PLC0415  (training needs it, inference does not)

    samples = _fit(waveform, max(len(waveform), SHORTEST_SAMPLES)).astype(np.float64)
    f0, seconds = pyworld.dio(
        samples, SAMPLE_RATE, frame_period=FRAME_MILLISECONDS, allowed_range=F0_RANGE, speed=4
    )
    f0 = pyworld.stonemask(samples, f0, seconds, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(samples, f0, seconds, SAMPLE_RATE)  # (n_frames, n_bins), power
    aperiodicity = pyworld.d4c(samples, f0, seconds, SAMPLE_RATE)

    knots = np.arange(0, seconds[-1] + SECONDS_BETWEEN_KNOTS, SECONDS_BETWEEN_KNOTS)
    over_time = _interpolation(seconds, knots)
    over_frequency = _interpolation_over_frequency(envelope.shape[1])
    normal = rng.standard_normal((len(knots), KNOTS_OVER_FREQUENCY))
    change = std * (over_time @ normal @ over_frequency.T) + mean

    warped = pyworld.synthesize(
        f0, envelope * np.exp(change), aperiodicity, SAMPLE_RATE, FRAME_MILLISECONDS
    )
    return _fit(warped.astype(np.float32), len(waveform))


def colour(waveform: np.ndarray, std_db: float, rng: np.random.Generator) -> np.ndarray:
    """Filter the clip by one smooth random curve, as another microphone or room would.

    The gain, in dB, is normally distributed at every frequency with standard deviation `std_db`;
    the clip's RMS is kept.
    """
    n_padded = scipy.fft.next_fast_len(len(waveform) + N_FFT, real=True)
    spectrum = scipy.fft.rfft(waveform, n_padded)
    curve = _interpolation_over_frequency(N_FFT) @ rng.standard_normal(KNOTS_OVER_FREQUENCY)
    gain_db = std_db * np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, N_FFT), curve)
    filtered = scipy.fft.irfft(spectrum * 10 ** (gain_db / 20), n_padded)[: len(waveform)]
    power = np.mean(np.square(filtered))
    scale = np.sqrt(np.mean(np.square(waveform)) / power) if power > 0 else 1.0
    return (filtered * scale).astype(np.float32)


def add_noise(waveform: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise of standard deviation `std`, of full scale."""
    return waveform + np.float32(std) * rng.standard_normal(len(waveform), dtype=np.float32)


def scale_gain(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the amplitude by `factor`."""
    return waveform * np.float32(factor)


def _fit(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut the end off, or pad it with silence, to `n_samples`."""
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


def _interpolation(positions: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the (n_positions, n_knots) matrix that interpolates linearly between even `knots`.

    Its rows have length 1, so that independent normal numbers at the knots give a normal number of
    the same variance everywhere.
    """
    step = knots[1] - knots[0]
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - knots) / step)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _interpolation_over_frequency(n_bins: int) -> np.ndarray:
    """Return the (n_bins, KNOTS_OVER_FREQUENCY) matrix for bins from 0 Hz to Nyquist."""
    hertz = np.linspace(0, SAMPLE_RATE / 2, n_bins)
    mel = np.log1p(hertz / 700)  # O'Shaughnessy's, without its factor
    return _interpolation(mel, np.linspace(0, mel[-1], KNOTS_OVER_FREQUENCY))
