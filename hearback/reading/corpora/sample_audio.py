"""The audio of the embedded sample: a voice transformed into a learner's, with a room and noise.

The voice is transformed with WORLD (Morise et al. 2016), through pyworld.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyworld
import scipy  # imports its parts as they are used
import soxr

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.tables import GRADES

VOICE_SPEEDS = (0.8, 0.95, 1.1)  # relative to the voice's default speed
FRAME_MS = 5.0  # WORLD's usual step


@dataclass(frozen=True)
class Learner:
    """The properties of a learner's speech; factors are relative to the voice."""

    name: str
    grade: str
    skill: float  # log odds of a correct answer, up to a constant
    pitch: float  # factor
    formants: float  # factor; higher for a shorter vocal tract
    voice_speed: float  # one of VOICE_SPEEDS
    stretch: float  # factor on the duration, on top of the voice's speed
    reverb_seconds: float  # reverberation time (RT60)
    direct_db: float  # direct-to-reverberant ratio


def make_learner(name: str, grade: str, rng: np.random.Generator) -> Learner:
    """Return a random learner; younger ones have a higher pitch and less skill."""
    age = GRADES.index(grade)
    return Learner(
        name=name,
        grade=grade,
        skill=0.4 * (age - 1.5) + rng.normal(0, 0.5),
        pitch=float(np.clip(1.45 - 0.08 * age + rng.normal(0, 0.10), 1.05, 1.75)),
        formants=float(np.clip(1.22 - 0.04 * age + rng.normal(0, 0.03), 1.04, 1.30)),
        voice_speed=float(rng.choice(VOICE_SPEEDS)),
        stretch=float(rng.uniform(0.93, 1.08)),
        reverb_seconds=float(rng.uniform(0.15, 0.5)),
        direct_db=float(rng.uniform(6, 18)),
    )


@dataclass(frozen=True)
class Speech:
    """WORLD's analysis of speech, one frame per FRAME_MS."""

    f0: np.ndarray  # (frames,), Hz, 0 if unvoiced
    envelope: np.ndarray  # (frames, bins), power
    aperiodicity: np.ndarray  # (frames, bins), 0 to 1

    @classmethod
    def of(cls, waveform: np.ndarray, sample_rate: int) -> Self:
        """Analyse a waveform, (n,), resampled to SAMPLE_RATE."""
        samples = soxr.resample(waveform.astype(np.float64), sample_rate, SAMPLE_RATE)
        rough, times = pyworld.dio(samples, SAMPLE_RATE, frame_period=FRAME_MS)
        f0 = pyworld.stonemask(samples, rough, times, SAMPLE_RATE)
        envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
        aperiodicity = pyworld.d4c(samples, f0, times, SAMPLE_RATE)
        return cls(f0, envelope, aperiodicity)

    def transform(self, pitch: float, formants: float, stretch: float) -> np.ndarray:
        """Return the speech with its pitch, formants and duration multiplied, (n,), float64."""
        return pyworld.synthesize(
            self.f0 * pitch,
            np.exp(_stretch_bins(np.log(self.envelope), formants)),
            _stretch_bins(self.aperiodicity, formants),
            SAMPLE_RATE,
            FRAME_MS * stretch,
        )


def _stretch_bins(frames: np.ndarray, factor: float) -> np.ndarray:
    """Move bin b to b * factor, (frames, bins); the last bin is repeated to the end."""
    n_bins = frames.shape[1]
    source = np.minimum(np.arange(n_bins) / factor, n_bins - 1)
    low = np.minimum(source.astype(int), n_bins - 2)
    share = source - low
    return np.ascontiguousarray(frames[:, low] * (1 - share) + frames[:, low + 1] * share)


def reverberate(
    waveform: np.ndarray, seconds: float, direct_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Add reverberation: noise that decays by 60 dB in `seconds`, `direct_db` below the speech.

    Maps (n,) to (n,) at SAMPLE_RATE; the tail is cut off.
    """
    times = np.arange(1, int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.normal(size=len(times)) * 10 ** (-3 * times / seconds)
    echo *= 10 ** (-direct_db / 20) / np.linalg.norm(echo)
    response = np.concatenate([[1.0], echo])
    return scipy.signal.fftconvolve(waveform, response)[: len(waveform)]


def add_noise(
    waveform: np.ndarray, snr_db: float, pink: bool, rng: np.random.Generator
) -> np.ndarray:
    """Add white or pink noise, `snr_db` below the louder half of the samples, (n,)."""
    spectrum = np.fft.rfft(rng.normal(size=len(waveform)))
    if pink:
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    noise = np.fft.irfft(spectrum, len(waveform))
    power = waveform**2
    loud = power[power >= np.median(power)].mean()
    return waveform + noise * np.sqrt(loud / np.mean(noise**2)) * 10 ** (-snr_db / 20)


def record(
    speech: Speech, learner: Learner, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the learner's recording, (n,) at SAMPLE_RATE, and its parameters."""
    pitch = learner.pitch * rng.uniform(0.96, 1.04)
    stretch = learner.stretch * rng.uniform(0.96, 1.04)
    waveform = speech.transform(pitch, learner.formants, stretch)
    silence = [np.zeros(int(rng.uniform(0.05, 0.4) * SAMPLE_RATE)) for _ in range(2)]
    waveform = np.concatenate([silence[0], waveform, silence[1]])
    waveform = reverberate(waveform, learner.reverb_seconds, learner.direct_db, rng)
    snr_db = rng.uniform(12, 35)
    waveform = add_noise(waveform, snr_db, bool(rng.integers(2)), rng)
    waveform *= rng.uniform(0.1, 0.9) / np.abs(waveform).max()
    parameters = {
        "pitch": pitch,
        "formants": learner.formants,
        "pace": learner.voice_speed / stretch,
        "snr_db": snr_db,
    }
    return waveform, {name: round(value, 3) for name, value in parameters.items()}
