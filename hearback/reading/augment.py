"""Augmentation settings of the reading competition, and their presets.

The effects and their ranges are those of the second-placed code of DrivenData's "Goodnight Moon,
Hello Early Literacy Screening", with two differences: that code discarded the result of
`warp_envelope`, and applied `cut` to the start of the clip only. `change_speed` and `colour` are
additions, off by default. The effects are in `hearback.engine.audio.effects`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.effects import (
    EnvelopeChange,
    add_noise,
    change_speed,
    colour,
    cut,
    revoice,
    sample_shares,
    scale_gain,
)
from hearback.engine.training.field_types import AtLeast0, CountFrom0, Range, Share
from hearback.engine.training.fields import Rule, ValidatedFields

_Rate = Annotated[float, Range(at_least=0.1)]


@dataclass(frozen=True)
class Augmentation(ValidatedFields):
    """The probability and range of each effect. By default all probabilities are 0.

    Ranges are uniform and include their ends.

    Attributes:
        cuts: probability of `cut`: segments are replaced by silence.
        cuts_fewest, cuts_most: number of segments.
        cut_share_low, cut_share_high: length of a segment, as a share of the clip.
        speed: probability of `change_speed`.
        speed_low, speed_high: speed factor.
        pitch: probability of a pitch shift.
        pitch_semitones: largest shift, up or down.
        stretch: probability of a change of speaking rate.
        stretch_low, stretch_high: rate factor.
        envelope: probability of an `EnvelopeChange`.
        envelope_std, envelope_mean: in nats of power.
        colour: probability of `colour`.
        colour_db: standard deviation of the gain, in dB.
        noise: probability of `add_noise`.
        noise_std: standard deviation, relative to full scale.
        gain: probability of `scale_gain`.
        gain_low, gain_high: factor on the amplitude.
    """

    KIND = "augmentation"

    cuts: Share = 0.0
    cuts_fewest: CountFrom0 = 1
    cuts_most: CountFrom0 = 6
    cut_share_low: AtLeast0 = 0.025
    cut_share_high: AtLeast0 = 0.075
    speed: Share = 0.0
    speed_low: _Rate = 0.9
    speed_high: _Rate = 1.1
    pitch: Share = 0.0
    pitch_semitones: AtLeast0 = 5.0
    stretch: Share = 0.0
    stretch_low: _Rate = 0.7
    stretch_high: _Rate = 1.3
    envelope: Share = 0.0
    envelope_std: AtLeast0 = 0.8
    envelope_mean: float = -0.3
    colour: Share = 0.0
    colour_db: AtLeast0 = 4.0
    noise: Share = 0.0
    noise_std: AtLeast0 = 0.03
    gain: Share = 0.0
    gain_low: AtLeast0 = 0.7
    gain_high: AtLeast0 = 1.3

    def _rules(self) -> Iterator[Rule]:
        is_kept = self.cuts_fewest <= self.cuts_most
        yield "cuts_fewest", is_kept, f"it must be at most cuts_most, {self.cuts_most}"
        for name in ("cut_share", "speed", "stretch", "gain"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            yield f"{name}_low", low <= high, f"it must be at most {name}_high, {high}"

    def apply(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply each effect with its probability.

        The order is that of a recording's origin: content (cuts), voice (speed, then pitch, stretch
        and envelope together), channel (colour, noise, gain).

        Args:
            waveform: (samples,) at 16 kHz.
            rng: random generator.

        Returns:
            (samples,) float32; the number of samples can differ.
        """
        waveform = np.asarray(waveform, dtype=np.float32)
        if rng.random() < self.cuts:
            widths = (self.cut_share_low, self.cut_share_high)
            shares = sample_shares((self.cuts_fewest, self.cuts_most), widths, rng)
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
            envelope = EnvelopeChange.sample(seconds, self.envelope_std, self.envelope_mean, rng)
        if semitones == 0 and rate == 1 and envelope is None:
            return waveform
        return revoice(waveform, semitones, rate, envelope)


COMPETITION_A = Augmentation(pitch=0.4, stretch=0.4, noise=0.4, gain=0.4, envelope=0.4)
COMPETITION_B = replace(COMPETITION_A, envelope=0.3, cuts=0.4)
COMPETITION_B_REFERENCE = replace(COMPETITION_B, pitch=0.0, envelope=0.0)
# Light and fast, for small corpora: without the phase vocoder (docs/results/small_preset.md).
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
