"""Augmentation of single snippets and of batches, with explicit random generators.

Features are float32, time first: log spectrograms, (frames, bands), or waveforms, (samples,). All
functions return the same shape and leave their input unchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hearback.engine.audio.effects import cut, sample_shares, scale_gain
from hearback.engine.errors import HearbackError
from hearback.engine.training.field_types import AtLeast0, CountFrom0, Share
from hearback.engine.training.fields import Rule, ValidatedFields
from hearback.songs.tables import FEMALE, MALE, NO_VOICE, SEVERAL

if TYPE_CHECKING:
    from torch import Tensor

FADE_SECONDS = 0.005  # at both ends of each shuffled piece
_SILENCE = 1e-9  # level that silence is scaled from: it stays silence


@dataclass(frozen=True)
class Augmentation(ValidatedFields):
    """The probability and range of each effect on a spectrogram or waveform.

    `reverse`, `time_masks`, `frequency_masks` and `gain` are probabilities, 0 by default. Values
    are drawn uniformly from their ranges, bounds included. The masks follow Park et al.,
    "SpecAugment", 2019, but their widths are shares of the features' size.

    Frequency masks are for spectrograms only, gain for waveforms only.
    """

    KIND = "augmentation"

    reverse: Share = 0.0
    time_masks: Share = 0.0
    min_time_masks: CountFrom0 = 1
    max_time_masks: CountFrom0 = 2
    time_mask_share_low: Share = 0.0  # of the snippet
    time_mask_share_high: Share = 0.15
    frequency_masks: Share = 0.0
    min_frequency_masks: CountFrom0 = 1
    max_frequency_masks: CountFrom0 = 2
    frequency_mask_share_low: Share = 0.0  # of the bands
    frequency_mask_share_high: Share = 0.15
    gain: Share = 0.0
    gain_low: AtLeast0 = 0.5  # factor on the amplitude
    gain_high: AtLeast0 = 1.5

    def _rules(self) -> Iterator[Rule]:
        for low, high in (
            ("min_time_masks", "max_time_masks"),
            ("time_mask_share_low", "time_mask_share_high"),
            ("min_frequency_masks", "max_frequency_masks"),
            ("frequency_mask_share_low", "frequency_mask_share_high"),
            ("gain_low", "gain_high"),
        ):
            limit = getattr(self, high)
            yield low, getattr(self, low) <= limit, f"it must be at most {high}, {limit}"

    def apply(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply each effect with its probability.

        Raises HearbackError for a frequency mask on a waveform or a gain on a spectrogram.
        """
        features = np.asarray(features, dtype=np.float32)
        is_waveform = features.ndim == 1
        if is_waveform and self.frequency_masks:
            raise HearbackError(
                "augmentation: frequency masks are for spectrograms, not for waveforms"
            )
        if not is_waveform and self.gain:
            raise HearbackError("augmentation: a gain is for waveforms, not for spectrograms")
        if rng.random() < self.reverse:
            features = reverse(features)
        # Masks are filled with the spectrogram's mean, as in SpecAugment, where features have zero
        # mean. The minimum would look like silence and so suggest the class "no voice".
        fill = 0.0 if is_waveform else float(features.mean())
        if rng.random() < self.time_masks:
            numbers = (self.min_time_masks, self.max_time_masks)
            widths = (self.time_mask_share_low, self.time_mask_share_high)
            shares = sample_shares(numbers, widths, rng)
            features = cut(features, shares, rng, fill)
        if rng.random() < self.frequency_masks:
            numbers = (self.min_frequency_masks, self.max_frequency_masks)
            widths = (self.frequency_mask_share_low, self.frequency_mask_share_high)
            shares = sample_shares(numbers, widths, rng)
            features = cut(features.T, shares, rng, fill).T
        if rng.random() < self.gain:
            features = scale_gain(features, rng.uniform(self.gain_low, self.gain_high))
        return features


def reverse(features: np.ndarray) -> np.ndarray:
    """Play a snippet backwards.

    Log spectrograms have no phase, so reversing one equals reversing the waveform, up to an offset
    of less than a frame.
    """
    return features[::-1].copy()


def shuffle(
    waveform: np.ndarray, n_pieces: int, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Split a waveform, (samples,), into pieces of equal length and shuffle their order.

    Pieces shorter than one or two syllables contain no words but keep the sound of the voice. Each
    piece fades in and out within `FADE_SECONDS` to avoid clicks. Raises HearbackError if the pieces
    are shorter than both fades.
    """
    pieces = np.array_split(waveform, n_pieces)
    n_fade = round(FADE_SECONDS * sample_rate)
    for piece in pieces:
        if len(piece) < 2 * n_fade:
            raise HearbackError(f"{n_pieces} pieces are too short to fade in and out")
    ramp = np.linspace(0, 1, n_fade, endpoint=False, dtype=np.float32)
    faded = []
    for index in rng.permutation(n_pieces):
        piece = pieces[index].astype(np.float32)
        piece[:n_fade] *= ramp
        piece[-n_fade:] *= ramp[::-1]
        faded.append(piece)
    return np.concatenate(faded)


def mix_up(
    inputs: "Tensor", targets: "Tensor", alpha: float, rng: np.random.Generator
) -> "tuple[Tensor, Tensor]":
    """Apply mix-up: interpolate inputs and targets of each example with another of the batch.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, with one weight per batch,
    drawn from Beta(alpha, alpha), as in the authors' code. `inputs` are (batch, ...), `targets` are
    (batch, classes) probabilities. With an `alpha` of 0 both are returned unchanged. Raises
    ValueError for a negative alpha.

    Mixing a man's and a woman's snippet gives a target of half of each class. This suits the log
    spectra of the published systems, but not waveforms: there both voices would be audible, and the
    correct class would be "several" (see `Mixer`).
    """
    if alpha < 0:
        raise ValueError(f"mix-up: invalid alpha {alpha}, must be 0 or more")
    if alpha == 0:
        return inputs, targets
    share = float(rng.beta(alpha, alpha))
    import torch  # noqa: PLC0415  (recipes import this module, and --help needs no torch)

    partners = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    return (
        share * inputs + (1 - share) * inputs[partners],
        share * targets + (1 - share) * targets[partners],
    )


LEVEL_DB = 6.0  # largest level difference of two voices
MUSIC_DB = (-12.0, 0.0)  # level of added music, relative to the snippet


@dataclass(frozen=True)
class Mixer:
    """Draws pairs of training rows for true mixtures.

    Attributes:
        rows: the training rows, (n,).
        labels: classes of all rows of the table, (rows,).
        singers: singers of all rows of the table, (rows,), joined by ";", "" if unknown.
    """

    rows: np.ndarray
    labels: np.ndarray
    singers: np.ndarray

    def draw(self, row: int, rng: np.random.Generator) -> tuple[int, int, float] | None:
        """Draw two rows that have the class of `row` when mixed, and the second one's gain in dB.

        For a `row` with several singers, these are two rows of one singer each, not the same
        person; otherwise `row` itself and a row without a voice. None if there are no such rows.
        """
        if self.labels[row] == SEVERAL:
            alone = self.rows[np.isin(self.labels[self.rows], (MALE, FEMALE))]
            first = int(rng.choice(alone)) if len(alone) else row
            seconds = alone[self._has_other_singer(first, alone)]
            gain_db = float(rng.uniform(-LEVEL_DB, LEVEL_DB))
        else:
            first = row
            seconds = self.rows[(self.labels[self.rows] == NO_VOICE) & (self.rows != row)]
            gain_db = float(rng.uniform(*MUSIC_DB))
        return (first, int(rng.choice(seconds)), gain_db) if len(seconds) else None

    def _has_other_singer(self, row: int, rows: np.ndarray) -> np.ndarray:
        """Mask of `rows` known to be sung by a person other than the singer of `row`."""
        other_class = self.labels[rows] != self.labels[row]
        known = (self.singers[rows] != "") & (self.singers[row] != "")
        return other_class | (known & (self.singers[rows] != self.singers[row]))


def mix(first: np.ndarray, second: np.ndarray, gain_db: float) -> np.ndarray:
    """Add two waveforms, (samples,) float32, the second `gain_db` louder than the first.

    The sum is scaled to the level of the first.
    """
    level = _level(first)
    second = second * (10 ** (gain_db / 20) * level / max(_level(second), _SILENCE))
    both = first + second
    return (both * (level / max(_level(both), _SILENCE))).astype(np.float32)


def _level(waveform: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform))))
