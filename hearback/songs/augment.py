"""Augmentation of a snippet's features, and of a batch, its randomness passed in.

Features are float32, time first: spectrograms, (frames, bands), in decibels or another logarithm,
or waveforms, (samples,). What comes back has the same shape; the input stays as it was.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hearback.engine.audio.effects import (
    check_probabilities,
    check_range,
    cut,
    draw_shares,
    scale_gain,
)
from hearback.engine.errors import HearbackError
from hearback.songs.tables import CLASSES

FADE_SECONDS = 0.005  # at either end of a piece of a waveform


@dataclass(frozen=True)
class SpectrogramAugmentation:
    """How likely each effect is, and its range.

    `reverse`, `time_masks`, `frequency_masks` and `gain` are probabilities; by default all are 0,
    so that nothing happens. The ranges are uniform, their ends included. Masks are those of Park et
    al., "SpecAugment", 2019, with widths in shares, so that they fit features of any size.

    Frequency masks are for spectrograms, and gain is for waveforms.
    """

    reverse: float = 0.0
    time_masks: float = 0.0
    time_masks_fewest: int = 1
    time_masks_most: int = 2
    time_mask_share_low: float = 0.0  # of the snippet
    time_mask_share_high: float = 0.15
    frequency_masks: float = 0.0
    frequency_masks_fewest: int = 1
    frequency_masks_most: int = 2
    frequency_mask_share_low: float = 0.0  # of the bands
    frequency_mask_share_high: float = 0.15
    gain: float = 0.0
    gain_low: float = 0.5  # factor on the amplitude
    gain_high: float = 1.5

    def __post_init__(self) -> None:
        """Refuse probabilities and ranges that are none."""
        check_probabilities(self, "reverse", "time_masks", "frequency_masks", "gain")
        check_range(self.time_masks_fewest, self.time_masks_most)
        check_range(self.time_mask_share_low, self.time_mask_share_high, ceiling=1)
        check_range(self.frequency_masks_fewest, self.frequency_masks_most)
        check_range(self.frequency_mask_share_low, self.frequency_mask_share_high, ceiling=1)
        check_range(self.gain_low, self.gain_high)

    def apply(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return `features` with each effect, or without, as `rng` decides.

        Raises HearbackError for an effect that features of this kind cannot have.
        """
        features = np.asarray(features, dtype=np.float32)
        is_waveform = features.ndim == 1
        if is_waveform and self.frequency_masks:
            raise HearbackError("augmentation: a waveform has no frequencies to mask")
        if not is_waveform and self.gain:
            raise HearbackError("augmentation: a gain is for waveforms, not for spectrograms")
        if rng.random() < self.reverse:
            features = reverse(features)
        # A spectrogram is masked with its own mean, as in SpecAugment, whose features have mean
        # zero: that says "unknown". The minimum would say "silence", a hint here at no voice.
        masked_with = 0.0 if is_waveform else float(features.mean())
        if rng.random() < self.time_masks:
            numbers = (self.time_masks_fewest, self.time_masks_most)
            widths = (self.time_mask_share_low, self.time_mask_share_high)
            shares = draw_shares(numbers, widths, rng)
            features = cut(features, shares, rng, masked_with)
        if rng.random() < self.frequency_masks:
            numbers = (self.frequency_masks_fewest, self.frequency_masks_most)
            widths = (self.frequency_mask_share_low, self.frequency_mask_share_high)
            shares = draw_shares(numbers, widths, rng)
            features = cut(features.T, shares, rng, masked_with).T
        if rng.random() < self.gain:
            features = scale_gain(features, rng.uniform(self.gain_low, self.gain_high))
        return features


def reverse(features: np.ndarray) -> np.ndarray:
    """Play a snippet backwards.

    A spectrogram holds no phases, so that of a reversed waveform is the reversed spectrogram, but
    for less than a frame by which the frames lie elsewhere.
    """
    return features[::-1].copy()


def shuffle(
    waveform: np.ndarray, n_pieces: int, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Cut a waveform, (samples,), into pieces of the same length and play them in another order.

    No words are left of pieces shorter than a syllable or two, while voices sound as they did. Each
    piece fades in and out within `FADE_SECONDS`, so that joints do not click.
    """
    pieces = np.array_split(waveform, n_pieces)
    n_fade = round(FADE_SECONDS * sample_rate)
    for piece in pieces:
        if len(piece) < 2 * n_fade:
            raise HearbackError(f"{n_pieces} pieces are too short to fade in and out")
    ramp = np.linspace(0, 1, n_fade, endpoint=False, dtype=np.float32)
    faded = []
    for place in rng.permutation(n_pieces):
        piece = pieces[place].astype(np.float32)
        piece[:n_fade] *= ramp
        piece[-n_fade:] *= ramp[::-1]
        faded.append(piece)
    return np.concatenate(faded)


def mix_up(
    inputs: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each of a batch with another of it, features and targets in the same proportion.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, with one proportion a batch,
    drawn from Beta(alpha, alpha), as in its authors' code. `inputs` are (batch, ...), `targets`
    (batch, classes) shares. An `alpha` of 0 mixes nothing.

    By its definition a man's and a woman's snippet give half of each class. For waveforms, whose
    mixture is heard as two singers, the truth would be "several"; for logarithms of spectra, which
    is what the published systems mixed, the mean is no sound that could be heard.
    """
    if alpha < 0:
        raise ValueError(f"mix-up with an alpha of {alpha}: it cannot be negative")
    if alpha == 0:
        return inputs, targets
    share = float(rng.beta(alpha, alpha))
    others = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    return (
        share * inputs + (1 - share) * inputs[others],
        share * targets + (1 - share) * targets[others],
    )


NO_VOICE, MALE, FEMALE, SEVERAL = range(len(CLASSES))
LEVEL_DB = 6.0  # by which one of two voices may be the louder
MUSIC_DB = (-12.0, 0.0)  # of added music, against the snippet


@dataclass(frozen=True)
class Mixer:
    """Draws partners among the training rows; `labels` and `singers` are (rows,) of the table.

    `singers` are joined by ";", "" where they are not known.
    """

    rows: np.ndarray
    labels: np.ndarray
    singers: np.ndarray

    def draw(self, row: int, rng: np.random.Generator) -> tuple[int, int, float] | None:
        """Return two rows whose sum is of the class of `row`, and the second's gain in dB.

        The first is `row` itself but where several sing: then any two persons' voices will do. None
        where there are no such rows.
        """
        if self.labels[row] == SEVERAL:
            alone = self.rows[np.isin(self.labels[self.rows], (MALE, FEMALE))]
            first = int(rng.choice(alone)) if len(alone) else row
            others = alone[self._sung_by_others(first, alone)]
            gain_db = float(rng.uniform(-LEVEL_DB, LEVEL_DB))
        else:
            first = row
            others = self.rows[(self.labels[self.rows] == NO_VOICE) & (self.rows != row)]
            gain_db = float(rng.uniform(*MUSIC_DB))
        return (first, int(rng.choice(others)), gain_db) if len(others) else None

    def _sung_by_others(self, row: int, rows: np.ndarray) -> np.ndarray:
        """Return for each of `rows` whether it is certain that somebody else sings there."""
        other_class = self.labels[rows] != self.labels[row]
        known = (self.singers[rows] != "") & (self.singers[row] != "")
        return other_class | (known & (self.singers[rows] != self.singers[row]))


def mix(first: np.ndarray, second: np.ndarray, gain_db: float) -> np.ndarray:
    """Return the sum of two waveforms, the second `gain_db` above the first, as loud as the first.

    Both are (samples,) float32; levels are root mean squares.
    """
    level = _level(first)
    second = second * (10 ** (gain_db / 20) * level / max(_level(second), 1e-9))
    both = first + second
    return (both * (level / max(_level(both), 1e-9))).astype(np.float32)


def _level(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))
