"""Joined clips in which one word is mispronounced, by the labels of words."""

from collections.abc import Sequence

import numpy as np

from benchmarks.joined_clips import TOLERANCE, Clip, JoinedClips, Joiner
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.dataset import TrainingData
from hearback.reading.passages.rows import LONG_SECONDS

LENGTHS = (5.0, 20.0)  # seconds
_FEWEST_SECONDS = 15.0  # of a speaker's well-read clips
_LONGEST_FIRST = LONG_SECONDS - 0.1  # scores of longer ones are corrected for their length
_MAX_ATTEMPTS = 10


def draw_mispronounced(
    joiner: Joiner, rows: Sequence[int] | np.ndarray, n: int, seed: int
) -> list[list[JoinedClips]]:
    """Return up to `n` draws, each with a recording of each of `LENGTHS` with one wrong clip.

    That clip has a score of 0 though its text is the one that was read: experts rejected a word.
    The others are the speaker's well-read ones, as in `Joiner.draw_nested`.
    """
    wrong = find_mispronounced(joiner.data, rows)
    seconds_of = {
        speaker: sum(len(joiner.clip(row)) for row in known) / SAMPLE_RATE
        for speaker, known in joiner.by_speaker.items()
    }
    speakers = [each for each in seconds_of if seconds_of[each] >= _FEWEST_SECONDS]
    speakers = [each for each in speakers if each in wrong]
    rng = np.random.default_rng(seed + 1000)
    found: list[list[JoinedClips]] = []
    for _ in range(20 * n if speakers else 0):
        for speaker in rng.permutation(speakers).tolist():
            if len(found) == n:
                return found
            for _ in range(_MAX_ATTEMPTS):
                if drawn := _draw(joiner, wrong[speaker], speaker, rng):
                    found.append(drawn)
                    break
    return found


def find_mispronounced(
    data: TrainingData, rows: Sequence[int] | np.ndarray
) -> dict[str, list[int]]:
    """Return the rows of score 0 whose text is the one that was read, by speaker."""
    found: dict[str, list[int]] = {}
    for row in map(int, rows):
        read = data.word_labels.get(data.filenames[row])
        if data.labels[row] == 0 and read is not None and read.text == data.source.texts[row]:
            found.setdefault(data.metadata["speaker"].iloc[row], []).append(row)
    return found


def _draw(
    joiner: Joiner, wrong: Sequence[int], speaker: str, rng: np.random.Generator
) -> list[JoinedClips]:
    """Return a draw; empty if it did not come out."""
    row = int(rng.choice(wrong))
    left = [(int(each), joiner.clip(each)) for each in rng.permutation(joiner.by_speaker[speaker])]
    chosen: list[Clip] = [(row, joiner.clip(row))]
    drawn = []
    for seconds in LENGTHS:
        left = joiner.extend(chosen, left, seconds, rng)
        total = sum(len(clip) for _, clip in chosen) / SAMPLE_RATE
        if total < seconds * (1 - TOLERANCE) or (seconds == LENGTHS[0] and total > _LONGEST_FIRST):
            return []
        changed = [each for each, _ in chosen].index(row)
        drawn.append(joiner.join(list(chosen), changed))
    return drawn
