"""Two snippets heard together: a true snippet of a class that is known.

Where mix-up gives a mixture half of each class, the sum of two waveforms has a class of its own: a
voice over other music stays what it is, and two persons' voices are several. So they are where one
is heard after the other, and one person's are not. The classes keep their shares: what is made of a
snippet is of its own class.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from songs.tables import CLASSES

NO_VOICE, MALE, FEMALE, SEVERAL = range(len(CLASSES))
LEVEL_DB = 6.0  # by which one of two voices may be the louder
MUSIC_DB = (-12.0, 0.0)  # of added music, against the snippet
TURN = (0.3, 0.7)  # of a snippet: where the second follows on the first
FADE_SHARE = 0.01  # of a snippet, in which it does: 30 ms, so that nothing clicks


class Mixture(NamedTuple):
    """Two rows of a table, and how they are mixed (`mix`)."""

    first: int
    second: int
    gain_db: float
    turn: float | None = None


@dataclass(frozen=True)
class Mixer:
    """Draws mixtures of training rows; `labels` and `singers` are (rows,) of the table.

    `singers` are joined by ";", "" where they are not known. In a share `in_turn` of the mixtures
    one is heard after the other: of several two persons, of one voice the same person again, of no
    voice other music. The change of music alone then tells nothing.
    """

    rows: np.ndarray
    labels: np.ndarray
    singers: np.ndarray
    in_turn: float = 0.0

    def draw(self, row: int, rng: np.random.Generator) -> Mixture | None:
        """Return a mixture of the class of `row`, None where there are no rows for one.

        The first is `row` itself but where several sing: then any two persons' voices will do.
        """
        first, label = row, self.labels[row]
        # Who mixes nothing in turn draws what was drawn before there was that.
        turn = float(rng.uniform(*TURN)) if self.in_turn and rng.random() < self.in_turn else None
        if label == SEVERAL:
            alone = self.rows[np.isin(self.labels[self.rows], (MALE, FEMALE))]
            first = int(rng.choice(alone)) if len(alone) else row
            others = alone[self._sung_by_others(first, alone)]
        elif label != NO_VOICE and turn is not None:
            others = self.rows[self._sung_by_the_same(row, self.rows) & (self.rows != row)]
        else:
            others = self.rows[(self.labels[self.rows] == NO_VOICE) & (self.rows != row)]
        is_music = label != SEVERAL and turn is None
        gain_db = float(rng.uniform(*(MUSIC_DB if is_music else (-LEVEL_DB, LEVEL_DB))))
        return Mixture(first, int(rng.choice(others)), gain_db, turn) if len(others) else None

    def _sung_by_others(self, row: int, rows: np.ndarray) -> np.ndarray:
        """Return for each of `rows` whether it is certain that somebody else sings there."""
        other_class = self.labels[rows] != self.labels[row]
        known = (self.singers[rows] != "") & (self.singers[row] != "")
        return other_class | (known & (self.singers[rows] != self.singers[row]))

    def _sung_by_the_same(self, row: int, rows: np.ndarray) -> np.ndarray:
        """Return for each of `rows` whether it is certain that the same person sings there."""
        known = self.singers[row] != ""
        same = (self.labels[rows] == self.labels[row]) & (self.singers[rows] == self.singers[row])
        return same & known


def mix(
    first: np.ndarray, second: np.ndarray, gain_db: float, turn: float | None = None
) -> np.ndarray:
    """Return two waveforms heard together, the second `gain_db` above the first, as loud as that.

    They are summed, or the second follows on the first at `turn`, a share of the snippet. Both are
    (samples,) float32; levels are root mean squares.
    """
    level = _level(first)
    second = second * (10 ** (gain_db / 20) * level / max(_level(second), 1e-9))
    if turn is not None:
        shares = np.linspace(0, 1, len(first), dtype=np.float32)
        rising = np.clip((shares - turn) / FADE_SHARE, 0, 1)
        first, second = first * (1 - rising), second * rising
    both = first + second
    return (both * (level / max(_level(both), 1e-9))).astype(np.float32)


def _level(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))
