"""Well-read clips of one speaker, joined into recordings of known length, text and truth."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.reading.dataset import TrainingData
from hearback.reading.hard_negatives import HardNegativeGenerator
from hearback.reading.pairs import PairSource
from hearback.reading.window_coverage import FRAME_SAMPLES, find_speech

TOLERANCE = 0.12  # of the length that is asked for


@dataclass(frozen=True)
class JoinedClips:
    """Clips one after the other, all well read.

    Attributes:
        waveform: (samples,) float32 at 16 kHz.
        texts: the text of each clip.
        edges: (clips + 1,) the first sample of each clip, and the number of samples.
        grade: the first speaker's.
        changed: the clip whose text has another word in `wrong_text`.
        wrong_text: the whole text, with a word that was not said, or without one that was.
        wrong_words: position of that word in `wrong_text`; those before and after a missing one.
    """

    waveform: np.ndarray
    texts: tuple[str, ...]
    edges: np.ndarray
    grade: str
    changed: int
    wrong_text: str
    wrong_words: tuple[int, ...]

    @property
    def text(self) -> str:
        """The whole text, as read."""
        return " ".join(self.texts)


class Joiner:
    """Joins clips of the `rows` of a training set that are labelled 1.

    `margin` are the seconds of silence kept before and after each clip's speech; None: as recorded.
    """

    def __init__(
        self, data: TrainingData, rows: Iterable[int], margin: float | None, seed: int
    ) -> None:
        self.data, self.margin = data, margin
        self.rng = np.random.default_rng(seed)
        self.generator = HardNegativeGenerator(data.metadata["expected_text"])
        self.by_speaker: dict[str, list[int]] = {}
        for row in rows:
            if data.labels[row] == 1:
                self.by_speaker.setdefault(data.metadata["speaker"].iloc[row], []).append(row)

    def draw(self, seconds: float, n: int) -> list[JoinedClips]:
        """Return `n` recordings of about `seconds`; of several speakers if one has too little."""
        found: list[JoinedClips] = []
        for _ in range(100 * n):
            if len(found) == n:
                break
            clips = self._choose(seconds)
            if clips:
                found.append(self._join(clips))
        return found

    def draw_pairs(self, n: int, most_seconds: float) -> Iterator[JoinedClips]:
        """Yield up to `n` recordings of two clips of one speaker, no longer than `most_seconds`."""
        pairs = []
        for rows in self.by_speaker.values():
            order = self.rng.permutation(rows).tolist()
            pairs += list(zip(order[::2], order[1::2], strict=False))
        for at in self.rng.permutation(len(pairs))[:n].tolist():
            joined = self._join([(row, self._clip(row)) for row in pairs[at]])
            if len(joined.waveform) <= most_seconds * SAMPLE_RATE:
                yield joined

    def _choose(self, seconds: float) -> list[tuple[int, np.ndarray]]:
        """Return random clips of about `seconds` together; empty if it did not come out."""
        chosen: list[tuple[int, np.ndarray]] = []
        n_wanted, total = seconds * SAMPLE_RATE, 0
        speakers = self.rng.permutation(list(self.by_speaker)).tolist()
        available = sum(len(self._clip(row)) for row in self.by_speaker[speakers[0]])
        # One speaker where one has enough.
        n_speakers = 1 if seconds <= 60 else len(speakers)
        if n_speakers == 1 and available < n_wanted * (1 - TOLERANCE):
            return []
        for speaker in speakers[:n_speakers]:
            for row in self.rng.permutation(self.by_speaker[speaker]).tolist():
                clip = self._clip(row)
                if total + len(clip) <= n_wanted * (1 + TOLERANCE):
                    chosen.append((row, clip))
                    total += len(clip)
                if total >= n_wanted * (1 - TOLERANCE):
                    return chosen
        return []

    def _clip(self, row: int) -> np.ndarray:
        waveform = self.data.source.store.get(self.data.filenames[row])
        if self.margin is None:
            return waveform
        speech = np.flatnonzero(find_speech(waveform)[0]) * FRAME_SAMPLES
        margin = round(self.margin * SAMPLE_RATE)
        return waveform[max(0, speech[0] - margin) : speech[-1] + FRAME_SAMPLES + margin]

    def _join(self, clips: Sequence[tuple[int, np.ndarray]]) -> JoinedClips:
        metadata = self.data.metadata
        texts = [metadata["expected_text"].iloc[row] for row, _ in clips]
        changed = int(self.rng.integers(len(clips)))
        negative = self.generator.draw(texts[changed], self.rng)
        before = sum(len(text.split()) for text in texts[:changed])
        wrong_text = " ".join([*texts[:changed], negative.text, *texts[changed + 1 :]])
        wrong = negative.wrong if negative.gap is None else (negative.gap - 1, negative.gap)
        n_words = len(wrong_text.split())
        return JoinedClips(
            np.concatenate([clip for _, clip in clips]),
            tuple(texts),
            np.cumsum([0, *(len(clip) for _, clip in clips)]),
            metadata["grade"].iloc[clips[0][0]],
            changed,
            wrong_text,
            tuple(before + at for at in wrong if 0 <= before + at < n_words),
        )


def as_source(data: TrainingData, joined: Sequence[JoinedClips]) -> PairSource:
    """Return a source with two rows for each recording: its text as read, then its wrong text."""
    rows = [
        {
            "filename": str(at),
            "task": data.metadata["task"].iloc[0],
            "grade": each.grade,
            "expected_text": text,
        }
        for at, each in enumerate(joined)
        for text in (each.text, each.wrong_text)
    ]
    store = MemoryStore({str(at): Recording(each.waveform, ()) for at, each in enumerate(joined)})
    return PairSource(pd.DataFrame(rows), None, store)
