"""Two snippets heard at once: a true snippet of a class that is known.

Where mix-up gives a mixture half of each class, the sum of two waveforms has a class of its own: a
voice over other music stays what it is, and two persons' voices are several. The classes keep their
shares: what is made of a snippet is of its own class.
"""

from dataclasses import dataclass

import numpy as np

from songs.tables import CLASSES

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
