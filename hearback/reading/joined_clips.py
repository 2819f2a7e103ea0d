"""Joined clips: several training recordings of one speaker as one long recording.

The clips of a corpus last a few seconds, and a model that has learned from these alone scores
longer recordings worse. `Recipe.joined_clips` adds long examples to each epoch: clips as they were
recorded, with short pauses between them, and their texts, one after the other. What was joined is
then one recording: it is augmented and encoded as a whole, in windows of up to 30 s.

This is not the pairing "joined", in which a reference is followed by the learner.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.errors import HearbackError
from hearback.reading.augment import Augmentation
from hearback.reading.recipe import Recipe
from hearback.reading.tables import LONGEST_TEXT
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES, UNKNOWN
from hearback.reading.word_labels import WordTargets

if TYPE_CHECKING:
    from hearback.reading.dataset import TrainingData

TARGET_SECONDS = (8.0, 28.0)  # a length is drawn between these; clips are added until it is reached
LONGEST_PAUSE = round(0.3 * SAMPLE_RATE)  # samples
SHARE_CORRECT = 0.5  # of joined clips that are all correct; the others contain a wrong one
_MAX_ATTEMPTS = 20
_SEED = 3011


@dataclass(frozen=True)
class JoinedClips:
    """Clips, one after the other.

    Attributes:
        rows: their indices in the table, at least two.
        pauses: samples of silence between them, one number less than rows.
    """

    rows: tuple[int, ...]
    pauses: tuple[int, ...]

    def waveform(self, recording: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return the clips with their pauses, (samples,) float32; `recording` gives a row's."""
        parts = [recording(self.rows[0])]
        for pause, row in zip(self.pauses, self.rows[1:], strict=True):
            parts += [np.zeros(pause, dtype=np.float32), recording(row)]
        return np.concatenate(parts)

    def text(self, texts: Sequence[str]) -> str:
        """Return the clips' texts, joined by blanks; `texts` are those of all rows."""
        return " ".join(texts[row] for row in self.rows)


def augment(
    augmentation: Augmentation, waveform: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Augment what was joined as one recording, (samples,); the result is at most 30 s long.

    An augmentation that slows it down beyond that is drawn again, since cutting would take words
    away; after some attempts it stays as it is.
    """
    for _ in range(_MAX_ATTEMPTS):
        augmented = augmentation.apply(waveform, rng)
        if len(augmented) <= LONGEST_WINDOW_SAMPLES:
            return augmented
    return waveform


def join_targets(parts: Sequence[WordTargets]) -> WordTargets:
    """Return the targets of joined texts from those of each.

    Between two texts, `complete` is that of the end of the first and that of the start of the
    second: 0 if something is missing at one of them, else `UNKNOWN` if one is unknown, else the
    lower one.
    """
    complete = [parts[0].complete]
    for before, after in pairwise(parts):
        complete[-1] = complete[-1][:-1]
        border = _complete_border(float(before.complete[-1]), float(after.complete[0]))
        complete += [np.array([border], dtype=np.float32), after.complete[1:]]
    return WordTargets(np.concatenate([part.said for part in parts]), np.concatenate(complete))


def _complete_border(end: float, start: float) -> float:
    if 0 in (end, start):
        return 0.0
    return UNKNOWN if UNKNOWN in (end, start) else min(end, start)


class ClipJoiner:
    """Draws joined clips from rows of a training set.

    All clips of one draw are of the same speaker; in a table without the column `speaker`, of the
    same task and grade. Clips are added in random order until a random length is reached
    (`TARGET_SECONDS`) or no more fit into 30 s; with few clips the result is shorter. About half
    of the draws are of correct clips only (`SHARE_CORRECT`); the others are of a wrong clip and
    any others.

    Args:
        data: the training set.
        rows: (rows,), indices of the rows to draw from.

    Raises:
        HearbackError: there are no two clips that can be joined.
    """

    def __init__(self, data: "TrainingData", rows: np.ndarray) -> None:
        source, numbers = data.source, rows.tolist()
        self._labels = data.labels
        self._n_samples = {row: source.store.n_samples(source.filenames[row]) for row in numbers}
        self._n_bytes = {row: len(source.texts[row].encode()) for row in numbers}
        self._speaker_of = dict(zip(numbers, _speakers(data.metadata)[rows].tolist(), strict=True))
        self._clips_of: dict[str, list[int]] = {}
        for row, speaker in self._speaker_of.items():
            self._clips_of.setdefault(speaker, []).append(row)
        # Clips that a draw may start from: there is another one to join with.
        self._correct = self._starts(only_correct=True)
        self._wrong = self._starts(only_correct=False)
        if not self._correct and not self._wrong:
            raise HearbackError(
                "joined_clips: no speaker (without that column: no task and grade) has two clips "
                "that fit into 30 s together; train with --set joined_clips=0"
            )

    def _starts(self, *, only_correct: bool) -> list[int]:
        """Return the rows that draws of correct clips, or those of any, may start from."""
        return [
            row
            for row in self._n_samples
            if (self._labels[row] == 1) == only_correct
            and self._mates(row, only_correct=only_correct)
        ]

    def _mates(self, row: int, *, only_correct: bool) -> list[int]:
        """Return the rows that may be joined with a row."""
        return [
            mate
            for mate in self._clips_of[self._speaker_of[row]]
            if mate != row
            and (not only_correct or self._labels[mate] == 1)
            and self._fits(self._n_samples[row], self._n_bytes[row], mate)
        ]

    def _fits(self, n_samples: int, n_bytes: int, row: int, pause: int = LONGEST_PAUSE) -> bool:
        """Return whether a row fits after what has so many samples and bytes of text."""
        return (
            n_samples + pause + self._n_samples[row] <= LONGEST_WINDOW_SAMPLES
            # As a single row's; it also keeps the texts within the decoder's positions.
            and n_bytes + 1 + self._n_bytes[row] <= LONGEST_TEXT
        )

    def draw(self, n: int, rng: np.random.Generator) -> list[JoinedClips]:
        """Return `n` random draws; the same clips may be in several."""
        return [self._draw(rng) for _ in range(n)]

    def _draw(self, rng: np.random.Generator) -> JoinedClips:
        only_correct = bool(self._correct) and (not self._wrong or rng.random() < SHARE_CORRECT)
        first = int(rng.choice(self._correct if only_correct else self._wrong))
        target = rng.uniform(*TARGET_SECONDS) * SAMPLE_RATE
        rows, pauses = [first], list[int]()
        n_samples, n_bytes = self._n_samples[first], self._n_bytes[first]
        for row in map(int, rng.permutation(self._mates(first, only_correct=only_correct))):
            if pauses and n_samples >= target:
                break
            pause = int(rng.integers(LONGEST_PAUSE + 1))
            if self._fits(n_samples, n_bytes, row, pause):
                rows.append(row)
                pauses.append(pause)
                n_samples += pause + self._n_samples[row]
                n_bytes += 1 + self._n_bytes[row]
        return JoinedClips(tuple(rng.permutation(rows).tolist()), tuple(pauses))


def draw_fixed(recipe: Recipe, data: "TrainingData") -> tuple[JoinedClips, ...]:
    """Return the joined clips of a training set that all folds and seeds share.

    For models whose encoder outputs are computed once (`encoded`). Each is of the rows of one fold,
    and depends on these alone, so that all others may train on it. Empty if the recipe joins no
    clips. Raises HearbackError if the clips of a fold cannot be joined.
    """
    joined: list[JoinedClips] = []
    for fold in np.unique(data.folds).tolist() if recipe.joined_clips else ():
        rows = data.validation_rows(fold)
        n_joined = round(recipe.joined_clips * len(rows))
        joined += ClipJoiner(data, rows).draw(n_joined, np.random.default_rng((_SEED, fold)))
    return tuple(joined)


def _speakers(metadata: pd.DataFrame) -> np.ndarray:
    """Return each row's speaker, (rows,) of str; without that column its task and grade."""
    if "speaker" in metadata:
        return metadata["speaker"].to_numpy(dtype=str)
    return metadata["task"].str.cat(metadata["grade"], sep=" ").to_numpy(dtype=str)
