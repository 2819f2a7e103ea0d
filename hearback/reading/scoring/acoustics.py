"""What a recording sounds like, in a few numbers, whatever is said in it."""

from dataclasses import dataclass

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.window_coverage import (
    FRAME_SAMPLES,
    N_LOUDEST_FRAMES,
    NOISE_PERCENTILE,
    find_speech,
)

TREBLE_HZ = 4000  # telephones have nothing above
FLAT = 0.995  # samples above this share of the peak count as at the peak
MIN_RUN = 3  # samples in a row at the peak: the microphone or the amplifier cut them
LOUD_SHARE = 1e-3  # of the loudest frame's power: 30 dB below
# The entropy of a frame's spectrum, in nats; thresholds: docs/results/scoring.md.
TONE_ENTROPY = 1.1  # its mean over the loud frames; a sine has 0.9
STEADY_ENTROPY = 0.1  # its standard deviation
MIN_STEADY_FRAMES = 10  # 0.3 s: a short vowel is steady, too
_TINY = 1e-12


@dataclass(frozen=True)
class Acoustics:
    """Numbers about one recording.

    Attributes:
        seconds: its length.
        speech_seconds: length of the parts that stand out from its noise.
        level_db: of those parts, in dB relative to full scale (negative).
        contrast_db: its loudest parts above its quietest ones, in dB: with pauses, about the
            signal-to-noise ratio.
        treble_db: energy above 4 kHz against that below, in dB.
        clipped_share: share of the speech's samples that are cut off at the peak.
        is_tone: whether it has one frequency at a time, or sounds the same all the time.
    """

    seconds: float
    speech_seconds: float
    level_db: float
    contrast_db: float
    treble_db: float
    clipped_share: float
    is_tone: bool

    @classmethod
    def of(cls, waveform: np.ndarray) -> "Acoustics":
        """Measure a recording, (samples,) float32 at 16 kHz, of at least one frame of 30 ms."""
        speech, _ = find_speech(waveform)
        frames = waveform[: len(speech) * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        level = _decibel(frames.var(axis=1, dtype=np.float64))
        loudest = np.sort(level)[-min(N_LOUDEST_FRAMES, len(level))]
        spoken = frames[speech]
        power = _spectra(spoken).mean(axis=0)
        n_low = TREBLE_HZ * FRAME_SAMPLES // SAMPLE_RATE
        return cls(
            seconds=len(waveform) / SAMPLE_RATE,
            speech_seconds=float(speech.sum()) * FRAME_SAMPLES / SAMPLE_RATE,
            level_db=float(_decibel(spoken.var(dtype=np.float64))),
            contrast_db=float(loudest - np.percentile(level, NOISE_PERCENTILE)),
            treble_db=float(_decibel(power[n_low:].sum() / max(power[1:n_low].sum(), _TINY))),
            clipped_share=clipped_share(waveform, spoken.size),
            is_tone=is_tone(waveform),
        )


def is_tone(waveform: np.ndarray) -> bool:
    """Return whether a recording has one frequency at a time, or never changes."""
    n_frames = len(waveform) // FRAME_SAMPLES
    spectra = _spectra(waveform[: n_frames * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES))
    total = spectra.sum(axis=1)
    loud = total > LOUD_SHARE * total.max()
    shares = spectra[loud] / np.maximum(total[loud, None], _TINY)
    entropy = -(shares * np.log(shares + _TINY)).sum(axis=1)
    is_steady = len(entropy) >= MIN_STEADY_FRAMES and entropy.std() < STEADY_ENTROPY
    return bool(is_steady or entropy.mean() < TONE_ENTROPY)


def _spectra(frames: np.ndarray) -> np.ndarray:
    """Return the power spectra of (frames, samples), (frames, frequencies)."""
    power: np.ndarray = np.abs(np.fft.rfft(frames * np.hanning(FRAME_SAMPLES), axis=1)) ** 2
    return power


def _decibel(power: np.ndarray | float) -> np.ndarray:
    return 10 * np.log10(np.asarray(power) + _TINY)


def clipped_share(waveform: np.ndarray, n_speech: int | None = None) -> float:
    """Return the share of samples that are in runs at the peak, of a recording's speech.

    `n_speech` is the number of its samples that are speech, found only if there are such runs.
    """
    n_flat = _count_flat(waveform)
    if not n_flat:
        return 0.0
    if n_speech is None:
        n_speech = int(find_speech(waveform)[0].sum()) * FRAME_SAMPLES
    return n_flat / max(n_speech, n_flat)


def _count_flat(waveform: np.ndarray) -> int:
    """Return the number of samples in runs at the positive or negative peak."""
    limit = FLAT * max(float(np.abs(waveform).max()), _TINY)
    n_flat = 0
    for at_peak in (waveform >= limit, waveform <= -limit):
        if at_peak.sum() < MIN_RUN:
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[0], at_peak.astype(np.int8), [0]])))
        runs = edges[1::2] - edges[::2]
        n_flat += int(runs[runs >= MIN_RUN].sum())
    return n_flat
