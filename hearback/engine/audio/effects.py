"""Augmentation: a waveform in, another waveform out, its randomness passed in.

Waveforms are float32, of shape (n,), 16 kHz mono, n > 0. What comes back is too, and finite; the
input stays as it was. Values may leave [-1, 1]: nothing here clips.

The effects and their ranges are those of the second-placed code of DrivenData's "Goodnight Moon,
Hello Early Literacy Screening", but for two that had no or another effect there: the result of
`warp_envelope` was thrown away, and `cut` fell on the clip's start only. `change_speed` and
`colour` are additions, off by default.

Pitch, pace and envelope are changed together, in one pass over short-time spectra (`revoice`).
docs/performance.md compares it with librosa's phase vocoder and with WORLD.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.fft
import scipy.signal
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.errors import HearbackError

# Of the phase vocoder, samples: 32 ms, so that a plosive stays where it is, and still long enough
# to tell the harmonics of a low voice (80 Hz) apart. Four frames overlap.
N_FFT = 512
HOP = N_FFT // 4
HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)

# A random curve over frequency is drawn at knots evenly spaced in mel: formants are about as wide.
KNOTS_OVER_FREQUENCY = 16
SECONDS_BETWEEN_KNOTS = 0.1


def check_probabilities(augmentation: object, *names: str) -> None:
    """Raise HearbackError where one of the fields called `names` is no probability."""
    for name in names:
        if not 0 <= getattr(augmentation, name) <= 1:
            raise HearbackError(f"augmentation: {name} is no probability")


def check_range(low: float, high: float, *, floor: float = 0.0, ceiling: float = np.inf) -> None:
    """Raise HearbackError where low to high is no range between floor and ceiling."""
    if not floor <= low <= high <= ceiling:
        raise HearbackError(f"augmentation: {low} to {high} is no range here")


def draw_shares(
    numbers: tuple[int, int], widths: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Draw how many stretches to `cut`, and each one's share, from ranges, ends included."""
    return rng.uniform(*widths, int(rng.integers(*numbers, endpoint=True)))


def cut(
    signal: np.ndarray, shares: np.ndarray, rng: np.random.Generator, filled_with: float = 0.0
) -> np.ndarray:
    """Fill one stretch for each of `shares` (of the signal, whose first axis is time), anywhere."""
    signal = signal.copy()
    for share in shares:
        length = round(share * len(signal))
        start = int(rng.integers(0, len(signal) - length, endpoint=True))
        signal[start : start + length] = filled_with
    return signal


def change_speed(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Play `rate` times as fast: duration, pitch and formants all move, as on a tape.

    Ko et al., "Audio Augmentation for Speech Recognition", Interspeech 2015.
    """
    changed = soxr.resample(waveform, SAMPLE_RATE * rate, SAMPLE_RATE, quality="HQ")
    return _fit(changed, n_samples_at_speed(len(waveform), rate))


def n_samples_at_speed(n_samples: int, rate: float) -> int:
    """Return how long a waveform of `n_samples` is when it is played `rate` times as fast."""
    return max(1, round(n_samples / rate))


@dataclass(frozen=True)
class EnvelopeChange:
    """A random change of a voice's spectral envelope over time and frequency, in nats of power.

    The competition's code analysed a voice by WORLD (Morise et al., 2016) and added
    0.8 · N(0, 1) - 0.3 to every value of the power envelope. A voice's powers lie far below 1, so
    noise of full scale would have been left of it, had the result been used. Here as much is added
    to the *logarithm* of the power, where it makes sense: the expected power stays, as
    e^(mean + std²/2) = e^0.02. And as an envelope is smooth, the numbers are drawn at knots, every
    0.1 s and 16 over the mel scale, and interpolated.

    `at_knots` is (knots over time, KNOTS_OVER_FREQUENCY), normally distributed about 0.
    """

    at_knots: np.ndarray
    mean: float

    @classmethod
    def draw(cls, seconds: float, std: float, mean: float, rng: np.random.Generator) -> Self:
        """Draw the change for a clip of `seconds`."""
        n_knots = 2 + int(seconds / SECONDS_BETWEEN_KNOTS)
        normal = rng.standard_normal((n_knots, KNOTS_OVER_FREQUENCY), dtype=np.float32)
        return cls(np.float32(std) * normal, mean)

    def at(self, seconds: np.ndarray, hertz: np.ndarray) -> np.ndarray:
        """Return the change at these times and frequencies, (n_seconds, n_hertz) float32.

        Before the first knot and after the last it is as it is there.
        """
        knots = SECONDS_BETWEEN_KNOTS * np.arange(len(self.at_knots))
        over_time = _interpolation(np.clip(seconds, 0, knots[-1]), knots)
        over_frequency = _interpolation_over_frequency(np.minimum(hertz, SAMPLE_RATE / 2))
        return over_time @ self.at_knots @ over_frequency.T + np.float32(self.mean)


def shift_pitch(waveform: np.ndarray, semitones: float) -> np.ndarray:
    """Shift pitch, and formants with it, by `semitones`, the duration kept."""
    return revoice(waveform, semitones=semitones)


def stretch(waveform: np.ndarray, rate: float) -> np.ndarray:
    """Speak `rate` times as fast, the pitch kept."""
    return revoice(waveform, rate=rate)


def warp_envelope(
    waveform: np.ndarray, std: float, mean: float, rng: np.random.Generator
) -> np.ndarray:
    """Perturb the voice's spectral envelope (`EnvelopeChange`), F0 and duration kept."""
    seconds = len(waveform) / SAMPLE_RATE
    return revoice(waveform, envelope=EnvelopeChange.draw(seconds, std, mean, rng))


def revoice(
    waveform: np.ndarray,
    semitones: float = 0.0,
    rate: float = 1.0,
    envelope: EnvelopeChange | None = None,
) -> np.ndarray:
    """Shift pitch and formants by `semitones`, speak `rate` times as fast, change the envelope.

    A phase vocoder gives the clip the length that becomes the wanted one when it is played faster,
    or slower, by the ratio of the pitches. The change of the envelope is a gain on the short-time
    spectra in between: a filter that varies slowly, and that leaves F0 and phases alone.
    """
    pitch = 2 ** (semitones / 12)
    n_wanted = n_samples_at_speed(len(waveform), rate)
    n_made = max(1, round(n_wanted * pitch))
    spectra = _spectra(waveform, n_made, rate / pitch)
    if envelope is not None:
        # Times and frequencies as they will be when it is played.
        seconds = _centres(len(spectra)) / (SAMPLE_RATE * pitch)
        hertz = np.linspace(0, SAMPLE_RATE / 2, spectra.shape[1]) * pitch
        spectra *= np.exp(0.5 * envelope.at(seconds, hertz))  # power to amplitude
    made = _overlap_add(spectra)[:n_made]
    if pitch != 1:
        made = soxr.resample(made, SAMPLE_RATE * pitch, SAMPLE_RATE, quality="HQ")
    return _fit(made, n_wanted)


def colour(waveform: np.ndarray, std_db: float, rng: np.random.Generator) -> np.ndarray:
    """Filter the clip by one smooth random curve, as another microphone or room would.

    The gain, in dB, is normally distributed at every frequency with standard deviation `std_db`;
    the clip's RMS is kept.
    """
    normal = rng.standard_normal(KNOTS_OVER_FREQUENCY, dtype=np.float32)
    hertz = np.linspace(0, SAMPLE_RATE / 2, 2 * N_FFT + 1)
    gain_db = np.float32(std_db) * (_interpolation_over_frequency(hertz) @ normal)
    # As an impulse response, which is short: the curve is smooth.
    response = scipy.fft.fftshift(scipy.fft.irfft(10 ** (gain_db / 20)))[1:]  # its centre is 0 s
    filtered = scipy.signal.oaconvolve(waveform, response, mode="same")
    power = np.mean(np.square(filtered))
    scale = np.sqrt(np.mean(np.square(waveform)) / power) if power > 0 else 1.0
    return (filtered * scale).astype(np.float32)


def add_noise(waveform: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise of standard deviation `std`, of full scale."""
    return waveform + np.float32(std) * rng.standard_normal(len(waveform), dtype=np.float32)


def scale_gain(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the amplitude by `factor`."""
    return waveform * np.float32(factor)


def _centres(n_frames: int) -> np.ndarray:
    """Return the sample at the centre of each frame; the first ends where the clip begins."""
    return HOP * np.arange(n_frames) - N_FFT // 2


def _spectra(waveform: np.ndarray, n_made: int, rate: float) -> np.ndarray:
    """Return the short-time spectra, (n_frames, n_bins), of the clip `rate` times as fast.

    A phase vocoder: each frame is the input's at that place, rotated so that it goes on where the
    frame before it, one hop earlier, left off. How far a sinusoid turns in a hop is seen in the
    input, between that frame and the one a hop before.
    """
    n_frames = -(-(n_made + N_FFT) // HOP)
    has_pretrained_init = np.rint(rate * _centres(n_frames)).astype(np.intp) - N_FFT // 2
    before = HOP - has_pretrained_init[0]
    after = max(0, has_pretrained_init[-1] + N_FFT - len(waveform))
    frames = sliding_window_view(np.pad(waveform, (before, after)), N_FFT)
    spectra = scipy.fft.rfft(frames[has_pretrained_init + before] * HANN)
    if rate != 1:
        hop_before = scipy.fft.rfft(frames[has_pretrained_init + before - HOP] * HANN)
        spectra *= _rotations(spectra, hop_before)
    return spectra


def _rotations(spectra: np.ndarray, hop_before: np.ndarray) -> np.ndarray:
    """Return the complex factors of magnitude 1, (n_frames, n_bins), that join frames smoothly.

    Only the spectrum's peaks are followed from frame to frame; the bins around each turn with it,
    so that what one sinusoid has spread over them stays together. Left to themselves, as in the
    classic vocoder, they drift apart, and the voice sounds as if far away. Laroche and Dolson,
    "Improved phase vocoder time-scale modification of audio", 1999: identity phase locking.
    """
    n_frames, n_bins = spectra.shape
    peaks = np.flatnonzero(_are_peaks(np.square(spectra.real) + np.square(spectra.imag)))
    # A peak's region reaches half-way to its neighbours. Bins are counted through all frames, and
    # each frame's first and last is a peak, so no region reaches into the next frame.
    edges = (peaks[1:] + peaks[:-1]) // 2 + 1
    widths = np.diff(edges, prepend=0, append=spectra.size)
    region = np.repeat(np.arange(len(peaks)), widths)

    # The phase at a peak is that of the region where it lay in the frame before, plus a hop's.
    n_first = np.searchsorted(peaks, n_bins)
    later = peaks[n_first:]
    turns = spectra.ravel()[later - n_bins] * hop_before.ravel()[later].conj()
    sizes = np.abs(turns)
    rotations = np.ones(len(peaks), np.complex64)
    np.divide(turns, sizes, out=rotations[n_first:], where=sizes > 1e-30)
    came_from = np.arange(len(peaks))
    came_from[n_first:] = region[later - n_bins]
    # The product of all turns on the way from the first frame, twice as many in each round.
    for _ in range(n_frames.bit_length()):
        rotations *= rotations[came_from]
        came_from = came_from[came_from]
    return np.repeat(rotations, widths).reshape(n_frames, n_bins)


def _are_peaks(power: np.ndarray) -> np.ndarray:
    """Mark in (n_frames, n_bins) what exceeds two bins on either side; the first and the last."""
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
    """Return the waveform that short-time spectra at `_centres` stand for, from sample 0 on."""
    frames = scipy.fft.irfft(spectra, N_FFT)
    frames *= HANN * (HOP / np.sum(np.square(HANN)))
    n_frames, n_overlapping = len(frames), N_FFT // HOP
    hops = np.zeros((n_frames + n_overlapping - 1, HOP), np.float32)
    for at, part in enumerate(np.split(frames, n_overlapping, axis=1)):
        hops[at : at + n_frames] += part
    return hops.ravel()[N_FFT:]


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
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def _interpolation_over_frequency(hertz: np.ndarray) -> np.ndarray:
    """Return the (n_hertz, KNOTS_OVER_FREQUENCY) matrix for frequencies from 0 Hz to Nyquist."""
    highest = np.log1p(SAMPLE_RATE / 2 / 700)  # mel: O'Shaughnessy's, without its factor
    return _interpolation(np.log1p(hertz / 700), np.linspace(0, highest, KNOTS_OVER_FREQUENCY))
