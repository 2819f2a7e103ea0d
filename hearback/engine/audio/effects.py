"""Audio effects for augmentation: pure functions of a waveform and a random generator.

Waveforms are (samples,) float32, 16 kHz mono, with at least one sample. Results are finite and of
the same type; inputs are not modified. Values can exceed [-1, 1]: nothing is clipped.

Pitch, rate and spectral envelope are changed together, in one pass over short-time spectra
(`revoice`). docs/results/performance.md compares it with librosa's phase vocoder and with WORLD.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy  # imports its parts as they are used
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from hearback.engine.audio.decode import SAMPLE_RATE

# Phase vocoder, in samples: 32 ms is short enough to keep plosives in place and long enough to
# resolve the harmonics of a low voice (80 Hz). Four frames overlap.
N_FFT = 512
HOP = N_FFT // 4
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)

# Knots of random curves over frequency, evenly spaced in mel, about as wide as formants.
KNOTS_OVER_FREQUENCY = 16
SECONDS_BETWEEN_KNOTS = 0.1


def sample_shares(
    numbers: tuple[int, int], widths: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Sample the number of segments to `cut` and their lengths as shares of the clip.

    Args:
        numbers: range of the number of segments, inclusive.
        widths: range of each segment's share.
        rng: random generator.

    Returns:
        (segments,) shares.
    """
    return rng.uniform(*widths, int(rng.integers(*numbers, endpoint=True)))


def cut(
    signal: np.ndarray, shares: np.ndarray, rng: np.random.Generator, filled_with: float = 0.0
) -> np.ndarray:
    """Overwrite random segments of a signal, one for each of `shares`.

    Args:
        signal: (time, …).
        shares: length of each segment as a share of the signal.
        rng: random generator.
        filled_with: the value written.
    """
    signal = signal.copy()
    for share in shares:
        length = round(share * len(signal))
        start = int(rng.integers(0, len(signal) - length, endpoint=True))
        signal[start : start + length] = filled_with
    return signal


def change_speed(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Resample to play `rate` times as fast; duration, pitch and formants all change.

    Ko et al., "Audio Augmentation for Speech Recognition", Interspeech 2015.
    """
    changed = soxr.resample(waveform, SAMPLE_RATE * rate, SAMPLE_RATE, quality="HQ")
    return _fit(changed, n_samples_at_speed(len(waveform), rate))


def n_samples_at_speed(n_samples: int, rate: float) -> int:
    """Return the number of samples of a waveform of `n_samples` played `rate` times as fast."""
    return max(1, round(n_samples / rate))


@dataclass(frozen=True)
class EnvelopeChange:
    """A random change of a voice's spectral envelope over time and frequency, in nats of power.

    A published recipe adds 0.8 · N(0, 1) - 0.3 to every value of the power envelope of WORLD
    (Morise et al., 2016). As powers of a voice are far below 1, that would leave only noise. Here
    the same numbers are added to the *logarithm* of the power, which keeps the expected power:
    e^(mean + std²/2) = e^0.02. Envelopes are smooth, so the numbers are sampled at knots, every
    0.1 s and 16 over the mel scale, and interpolated.

    Attributes:
        at_knots: (knots over time, KNOTS_OVER_FREQUENCY), normally distributed with mean 0.
        mean: added everywhere, in nats of power.
    """

    at_knots: np.ndarray
    mean: float

    @classmethod
    def sample(cls, seconds: float, std: float, mean: float, rng: np.random.Generator) -> Self:
        """Sample the change for a clip of `seconds`."""
        n_knots = 2 + int(seconds / SECONDS_BETWEEN_KNOTS)
        normal = rng.standard_normal((n_knots, KNOTS_OVER_FREQUENCY), dtype=np.float32)
        return cls(np.float32(std) * normal, mean)

    def at(self, seconds: np.ndarray, hertz: np.ndarray) -> np.ndarray:
        """Return the change at these times and frequencies, (n_seconds, n_hertz) float32.

        Times before the first or after the last knot have that knot's value.
        """
        knots = SECONDS_BETWEEN_KNOTS * np.arange(len(self.at_knots))
        over_time = _interpolation(np.clip(seconds, 0, knots[-1]), knots)
        over_frequency = _interpolation_over_frequency(np.minimum(hertz, SAMPLE_RATE / 2))
        return over_time @ self.at_knots @ over_frequency.T + np.float32(self.mean)


def shift_pitch(waveform: np.ndarray, semitones: float) -> np.ndarray:
    """Shift pitch and formants by `semitones`; the duration is unchanged."""
    return revoice(waveform, semitones=semitones)


def stretch(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Change the speaking rate to `rate` times as fast; pitch and formants are unchanged."""
    return revoice(waveform, rate=rate)


def warp_envelope(
    waveform: np.ndarray, std: float, mean: float, rng: np.random.Generator
) -> np.ndarray:
    """Perturb the spectral envelope (`EnvelopeChange`); F0 and duration are unchanged."""
    seconds = len(waveform) / SAMPLE_RATE
    return revoice(waveform, envelope=EnvelopeChange.sample(seconds, std, mean, rng))


def revoice(
    waveform: np.ndarray,
    semitones: float = 0.0,
    rate: float = 1.0,
    envelope: EnvelopeChange | None = None,
) -> np.ndarray:
    """Shift pitch and formants by `semitones`, speak `rate` times as fast, change the envelope.

    A phase vocoder stretches the clip so that resampling by the pitch ratio then gives it its final
    length. The envelope change is a gain on the short-time spectra: a slowly varying filter that
    does not affect F0 and phases.
    """
    pitch = 2 ** (semitones / 12)
    n_final = n_samples_at_speed(len(waveform), rate)
    n_stretched = max(1, round(n_final * pitch))
    spectra = _spectra(waveform, n_stretched, rate / pitch)
    if envelope is not None:
        # Times and frequencies after resampling.
        seconds = _centres(len(spectra)) / (SAMPLE_RATE * pitch)
        hertz = np.linspace(0, SAMPLE_RATE / 2, spectra.shape[1]) * pitch
        spectra *= np.exp(0.5 * envelope.at(seconds, hertz))  # power to amplitude
    stretched = _overlap_add(spectra)[:n_stretched]
    if pitch != 1:
        stretched = soxr.resample(stretched, SAMPLE_RATE * pitch, SAMPLE_RATE, quality="HQ")
    return _fit(stretched, n_final)


def colour(waveform: np.ndarray, std_db: float, rng: np.random.Generator) -> np.ndarray:
    """Filter by a smooth random frequency response, as of another microphone or room.

    The gain at every frequency is normally distributed, with mean 0 and standard deviation `std_db`
    in dB; the clip's RMS is unchanged.
    """
    normal = rng.standard_normal(KNOTS_OVER_FREQUENCY, dtype=np.float32)
    hertz = np.linspace(0, SAMPLE_RATE / 2, 2 * N_FFT + 1)
    gain_db = np.float32(std_db) * (_interpolation_over_frequency(hertz) @ normal)
    # Zero-phase impulse response; it is short because the curve is smooth.
    response = scipy.fft.fftshift(scipy.fft.irfft(10 ** (gain_db / 20)))[1:]  # centred at 0 s
    filtered = scipy.signal.oaconvolve(waveform, response, mode="same")
    power = np.mean(np.square(filtered))
    scale = np.sqrt(np.mean(np.square(waveform)) / power) if power > 0 else 1.0
    return (filtered * scale).astype(np.float32)


def add_noise(waveform: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise with standard deviation `std`, relative to full scale."""
    return waveform + np.float32(std) * rng.standard_normal(len(waveform), dtype=np.float32)


def scale_gain(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the amplitude by `factor`."""
    return waveform * np.float32(factor)


def _centres(n_frames: int) -> np.ndarray:
    """Return the sample at each frame's centre, (n_frames,); the first is before the clip."""
    return HOP * np.arange(n_frames) - N_FFT // 2


def _spectra(waveform: np.ndarray, n_samples: int, rate: float) -> np.ndarray:
    """Return short-time spectra, (n_frames, n_bins), of the clip at `rate` times its speed.

    A phase vocoder: each output frame is the input frame at the corresponding time, with its phases
    rotated to continue the previous output frame. The phase advance per hop is measured in the
    input, between that frame and the one a hop before. `n_samples` is the output's length.
    """
    n_frames = -(-(n_samples + N_FFT) // HOP)
    starts = np.rint(rate * _centres(n_frames)).astype(np.intp) - N_FFT // 2
    before = HOP - starts[0]
    after = max(0, starts[-1] + N_FFT - len(waveform))
    frames = sliding_window_view(np.pad(waveform, (before, after)), N_FFT)
    spectra = scipy.fft.rfft(frames[starts + before] * HANN)
    if rate != 1:
        hop_before = scipy.fft.rfft(frames[starts + before - HOP] * HANN)
        spectra *= _rotations(spectra, hop_before)
    return spectra


def _rotations(spectra: np.ndarray, hop_before: np.ndarray) -> np.ndarray:
    """Return the phase rotations, (n_frames, n_bins) complex of magnitude 1, that join the frames.

    Identity phase locking: only spectral peaks are tracked between frames, and the bins around a
    peak rotate with it, which keeps the bins of one sinusoid coherent. In the classic vocoder they
    drift apart, and the voice sounds distant. Laroche and Dolson, "Improved phase vocoder
    time-scale modification of audio", 1999.
    """
    n_frames, n_bins = spectra.shape
    peaks = np.flatnonzero(_are_peaks(np.square(spectra.real) + np.square(spectra.imag)))
    # A peak's region extends half-way to its neighbours. Bins are numbered through all frames; as
    # each frame's first and last bins are peaks, no region extends into another frame.
    edges = (peaks[1:] + peaks[:-1]) // 2 + 1
    widths = np.diff(edges, prepend=0, append=spectra.size)
    region = np.repeat(np.arange(len(peaks)), widths)

    # A peak continues the phase of its region in the previous frame, advanced by a hop.
    n_first = np.searchsorted(peaks, n_bins)
    later = peaks[n_first:]
    turns = spectra.ravel()[later - n_bins] * hop_before.ravel()[later].conj()
    sizes = np.abs(turns)
    rotations = np.ones(len(peaks), np.complex64)
    np.divide(turns, sizes, out=rotations[n_first:], where=sizes > 1e-30)
    came_from = np.arange(len(peaks))
    came_from[n_first:] = region[later - n_bins]
    # Cumulative product of the rotations since the first frame, by pointer doubling.
    for _ in range(n_frames.bit_length()):
        rotations *= rotations[came_from]
        came_from = came_from[came_from]
    return np.repeat(rotations, widths).reshape(n_frames, n_bins)


def _are_peaks(power: np.ndarray) -> np.ndarray:
    """Mask of peaks, (n_frames, n_bins): bins above two neighbours on each side, and the edges."""
    peaks = np.zeros(power.shape, dtype=bool)
    inner = power[:, 2:-2]
    peaks[:, 2:-2] = (
        (inner > power[:, :-4])
        & (inner > power[:, 1:-3])
        & (inner >= power[:, 3:-1])
        & (inner >= power[:, 4:])
    )
    peaks[:, [0, -1]] = True
    return peaks


def _overlap_add(spectra: np.ndarray) -> np.ndarray:
    """Return the waveform, from sample 0 on, of short-time spectra at `_centres`."""
    frames = scipy.fft.irfft(spectra, N_FFT)
    frames *= HANN * (HOP / np.sum(np.square(HANN)))
    n_frames, n_overlapping = len(frames), N_FFT // HOP
    hops = np.zeros((n_frames + n_overlapping - 1, HOP), np.float32)
    for at, part in enumerate(np.split(frames, n_overlapping, axis=1)):
        hops[at : at + n_frames] += part
    return hops.ravel()[N_FFT:]


def _fit(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Trim or zero-pad the end to `n_samples`."""
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


def _interpolation(positions: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the (n_positions, n_knots) matrix of linear interpolation between even `knots`.

    Rows have L2 norm 1: independent standard normals at the knots give a standard normal at every
    position.
    """
    step = knots[1] - knots[0]
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - knots) / step)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def _interpolation_over_frequency(hertz: np.ndarray) -> np.ndarray:
    """Return the (n_hertz, KNOTS_OVER_FREQUENCY) matrix for frequencies from 0 Hz to Nyquist."""
    highest = np.log1p(SAMPLE_RATE / 2 / 700)  # O'Shaughnessy's mel without its factor
    return _interpolation(np.log1p(hertz / 700), np.linspace(0, highest, KNOTS_OVER_FREQUENCY))
