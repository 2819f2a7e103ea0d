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

from dataclasses import dataclass, replace

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.effects import (
    EnvelopeChange,
    add_noise,
    change_speed,
    check_probabilities,
    check_range,
    colour,
    cut,
    draw_shares,
    revoice,
    scale_gain,
)


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
        check_probabilities(
            self, "cuts", "speed", "pitch", "stretch", "envelope", "colour", "noise", "gain"
        )
        check_range(self.cuts_fewest, self.cuts_most)
        check_range(self.cut_share_low, self.cut_share_high)
        check_range(self.speed_low, self.speed_high, floor=0.1)
        check_range(self.stretch_low, self.stretch_high, floor=0.1)
        check_range(self.gain_low, self.gain_high)

    def apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return `waveform` with each effect, or without, as `rng` decides.

        In the order in which a recording comes about: what is said (cuts), how (speed, then pitch,
        stretch and envelope together), over which channel (colour, noise, gain).
        """
        waveform = np.asarray(waveform, dtype=np.float32)
        if rng.random() < self.cuts:
            widths = (self.cut_share_low, self.cut_share_high)
            shares = draw_shares((self.cuts_fewest, self.cuts_most), widths, rng)
            waveform = cut(waveform, shares, rng)
        if rng.random() < self.speed:
            waveform = change_speed(waveform, rng.uniform(self.speed_low, self.speed_high))
        waveform = self._revoice(waveform, rng)
        if rng.random() < self.colour:
            waveform = colour(waveform, self.colour_db, rng)
        if rng.random() < self.noise:
            waveform = add_noise(waveform, self.noise_std, rng)
        if rng.random() < self.gain:
            waveform = scale_gain(waveform, rng.uniform(self.gain_low, self.gain_high))
        return waveform

    def _revoice(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        semitones, rate, envelope = 0.0, 1.0, None
        if rng.random() < self.pitch:
            semitones = rng.uniform(-self.pitch_semitones, self.pitch_semitones)
        if rng.random() < self.stretch:
            rate = rng.uniform(self.stretch_low, self.stretch_high)
        if rng.random() < self.envelope:
            seconds = len(waveform) / rate / SAMPLE_RATE
            envelope = EnvelopeChange.draw(seconds, self.envelope_std, self.envelope_mean, rng)
        if semitones == 0 and rate == 1 and envelope is None:
            return waveform
        return revoice(waveform, semitones, rate, envelope)


COMPETITION_A = Augmentation(pitch=0.4, stretch=0.4, noise=0.4, gain=0.4, envelope=0.4)
COMPETITION_B = replace(COMPETITION_A, envelope=0.3, cuts=0.4)
COMPETITION_B_REFERENCE = replace(COMPETITION_B, pitch=0.0, envelope=0.0)
# Light and cheap, for small corpora: no phase vocoder (docs/results.md).
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
