"""The mean of a recording's channels, and whether they cancel each other."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Channels cancel if their mean has less than this part of the power that the mean of uncorrelated
# channels would have. Two channels of one level do at a correlation below -0.75.
_CANCELLING = 0.25

# A channel this far below the loudest is silent (60 dB).
_SILENT = 1e-6

# Samples of a block from which the powers are computed, evenly spread.
_LOOKED_AT = 1 << 13


# Samples of a stretch that is looked at by itself, about a second: channels may cancel each other
# in a part of the recording only. One is used if that part has more than this share of the power.
_STRETCH = 1 << 14
_MOST_LOST = 0.1


class NotFiniteError(Exception):
    """NaN or infinite samples."""


@dataclass
class Mixdown:
    """The channels of a recording as one."""

    mono: np.ndarray  # (n,) float32
    n_channels: int
    # Number of the channel to use instead, from 0, because the mean loses most of the sound.
    better_channel: int | None = None
    n_silent: int = 0  # channels without a sound, where another has one


def mix(blocks: Iterable[np.ndarray], n_channels: int, channel: int | None = None) -> Mixdown:
    """Return the mean of blocks (n, channels) of float32, or one channel of them.

    Raises NotFiniteError.
    """
    mixed: list[np.ndarray] = []
    whole, stretch, stretches = _Powers(n_channels), _Powers(n_channels), []
    for block in blocks:
        if not np.isfinite(block).all():
            raise NotFiniteError
        if channel is not None:
            mixed.append(block[:, channel].copy())
            continue
        mono = _mean(block)
        mixed.append(mono)
        if n_channels > 1:
            step = len(block) // _LOOKED_AT + 1
            some = np.column_stack([block[::step], mono[::step]]).astype(np.float64)
            whole.add(some)
            for start in range(0, len(some), max(1, _STRETCH // step)):
                stretch.add(some[start : start + max(1, _STRETCH // step)])
                if stretch.n_samples * step >= _STRETCH:
                    stretches.append(stretch)
                    stretch = _Powers(n_channels)
    mono = mixed[0] if len(mixed) == 1 else np.concatenate([np.zeros(0, np.float32), *mixed])
    mixdown = Mixdown(mono, n_channels)
    if whole.n_samples and whole.is_certain:
        each = whole.powers[:-1]
        loudest = int(np.argmax(each))
        lost = sum(part.energy for part in stretches if part.is_certain and part.cancels)
        if whole.cancels or lost > _MOST_LOST * whole.energy:
            mixdown.better_channel = loudest
        mixdown.n_silent = int(np.sum(each < _SILENT * each[loudest]))
    return mixdown


class _Powers:
    """The powers of the channels of a stretch, and of their mean."""

    def __init__(self, n_channels: int) -> None:
        self.n_samples = 0
        self._sums, self._squares = np.zeros(n_channels + 1), np.zeros(n_channels + 1)

    def add(self, samples: np.ndarray) -> None:
        """Add samples of the channels and of their mean, (n, channels + 1) float64."""
        self.n_samples += len(samples)
        self._sums += samples.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", samples, samples)

    @property
    def powers(self) -> np.ndarray:
        """Those of each channel and of the mean, without constant offsets, which may differ."""
        with np.errstate(over="ignore", invalid="ignore"):
            means = self._sums / self.n_samples
            return np.maximum(self._squares / self.n_samples - means**2, 0)

    @property
    def energy(self) -> float:
        """That of all channels."""
        return float(self.n_samples * self.powers[:-1].sum())

    @property
    def is_certain(self) -> bool:
        """Whether the sound is not too small beside an offset for the digits of float32."""
        sound, total = sum(self.powers[:-1]), sum(self._squares[:-1]) / self.n_samples
        return bool(sound > 1e-9 * total)

    @property
    def cancels(self) -> bool:
        """Whether the mean has much less power than that of uncorrelated channels."""
        *each, of_mean = self.powers
        return bool(of_mean * len(each) ** 2 < _CANCELLING * sum(each))


def _mean(block: np.ndarray) -> np.ndarray:
    """Return the mean of a block's channels, (n,) float32: `block.mean(axis=1)`, 20 times as fast.

    Of eight channels or more, which numpy sums in another order, it may differ in the last bit.
    """
    with np.errstate(over="ignore"):  # infinite means are refused later
        mean = block[:, 0].copy()
        for channel in range(1, block.shape[1]):
            mean += block[:, channel]
        mean /= block.shape[1]
    return mean
