"""Well-read clips of one speaker, joined into recordings of known length, text and truth."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.engine.whisper.encoder import LONGEST_WINDOW_SECONDS
from hearback.reading.dataset import TrainingData
from hearback.reading.hard_negatives import HardNegative, HardNegativeGenerator
from hearback.reading.pairs import PairSource
from hearback.reading.window_coverage import FRAME_SAMPLES, find_speech

TOLERANCE = 0.12  # of the length that is asked for
LONGEST_REQUIRED = 20.0  # seconds; nested draws may lack longer recordings
_MAX_ATTEMPTS = 20

Clip = tuple[int, np.ndarray]  # its row, and its samples


@dataclass(frozen=True)
class JoinedClips:
    """Clips one after the other, all well read.

    Attributes:
        waveform: (samples,) float32 at 16 kHz.
        texts: the text of each clip.
        edges: (clips + 1,) the first sample of each clip, and the number of samples.
        speaker, grade: the first clip's.
        changed: the clip whose text has another word in `wrong_text`.
        wrong_text: the whole text, with a word that was not said, or without one that was; the text
            as read if a word of the changed clip is mispronounced instead.
        wrong_words: position of that word in `wrong_text`; those before and after a missing one.
    """

    waveform: np.ndarray
    texts: tuple[str, ...]
    edges: np.ndarray
    speaker: str
    grade: str
    changed: int
    wrong_text: str
    wrong_words: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.waveform) / SAMPLE_RATE

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
        self._clips: dict[int, np.ndarray] = {}
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
                found.append(self._join_changed(clips))
        return found

    def draw_pairs(self, n: int, most_seconds: float) -> Iterator[JoinedClips]:
        """Yield up to `n` recordings of two clips of one speaker, no longer than `most_seconds`."""
        pairs = []
        for rows in self.by_speaker.values():
            order = self.rng.permutation(rows).tolist()
            pairs += list(zip(order[::2], order[1::2], strict=False))
        for at in self.rng.permutation(len(pairs))[:n].tolist():
            joined = self._join_changed([(row, self.clip(row)) for row in pairs[at]])
            if len(joined.waveform) <= most_seconds * SAMPLE_RATE:
                yield joined

    def draw_nested(self, seconds: Sequence[float], n: int) -> list[list[JoinedClips]]:
        """Return `n` draws, each with a recording of each length, which contains the shorter ones.

        Each recording is a shorter one with more clips of its speaker before and after it; the
        changed word is the same. So lengths differ in nothing else. `seconds` rise. The speakers
        with enough for `LONGEST_REQUIRED` take turns; a draw lacks longer recordings for which its
        speaker has too little. Those longer than a window go on with other speakers' clips.
        """
        required = [each for each in seconds if each <= LONGEST_REQUIRED] or [seconds[0]]
        enough = required[-1] * (1 - TOLERANCE) * SAMPLE_RATE
        speakers = [
            speaker
            for speaker, rows in self.by_speaker.items()
            if sum(len(self.clip(row)) for row in rows) >= enough
        ]
        found: list[list[JoinedClips]] = []
        for _ in range(2 * n if speakers else 0):
            for speaker in self.rng.permutation(speakers).tolist():
                if len(found) == n:
                    return found
                drawn = self._nest(speaker, seconds)
                if len(drawn) >= len(required):
                    found.append(drawn)
        return found

    def _nest(self, speaker: str, seconds: Sequence[float]) -> list[JoinedClips]:
        """Return a draw of `draw_nested`, the longest of some attempts."""
        longest: list[list[Clip]] = []
        for _ in range(_MAX_ATTEMPTS):
            grown = self._grow(speaker, seconds)
            longest = max(longest, grown, key=len)
        if not longest:
            return []
        changed = longest[0][int(self.rng.integers(len(longest[0])))][0]
        negative = self.generator.draw(self.data.metadata["expected_text"].iloc[changed], self.rng)
        return [
            self.join(clips, [row for row, _ in clips].index(changed), negative)
            for clips in longest
        ]

    def _grow(self, speaker: str, seconds: Sequence[float]) -> list[list[Clip]]:
        """Return random clips of a speaker for each length, until one does not come out."""
        left = [(row, self.clip(row)) for row in self.rng.permutation(self.by_speaker[speaker])]
        if max(seconds) > LONGEST_WINDOW_SECONDS:  # no speaker has as much
            others = [
                row
                for other in self.by_speaker
                if other != speaker
                for row in self.by_speaker[other]
            ]
            left += [(row, self.clip(row)) for row in self.rng.permutation(others)]
        chosen: list[Clip] = []
        grown: list[list[Clip]] = []
        for each in seconds:
            left = self.extend(chosen, left, each, self.rng)
            if sum(len(clip) for _, clip in chosen) < each * (1 - TOLERANCE) * SAMPLE_RATE:
                break
            grown.append(list(chosen))
        return grown

    def extend(
        self, chosen: list[Clip], left: list[Clip], seconds: float, rng: np.random.Generator
    ) -> list[Clip]:
        """Add clips before or after the `chosen` ones, to about `seconds`; return those left."""
        most = seconds * (1 + TOLERANCE) * SAMPLE_RATE
        if seconds <= LONGEST_WINDOW_SECONDS:
            most = min(most, LONGEST_WINDOW_SECONDS * SAMPLE_RATE)
        for row, clip in tuple(left):
            total = sum(len(each) for _, each in chosen)
            if total >= seconds * (1 - TOLERANCE) * SAMPLE_RATE:
                break
            if total + len(clip) <= most:
                left = [other for other in left if other[0] != row]
                chosen.insert(len(chosen) * int(rng.integers(2)), (int(row), clip))
        return left

    def _choose(self, seconds: float) -> list[Clip]:
        """Return random clips of about `seconds` together; empty if it did not come out."""
        chosen: list[Clip] = []
        n_wanted, total = seconds * SAMPLE_RATE, 0
        speakers = self.rng.permutation(list(self.by_speaker)).tolist()
        available = sum(len(self.clip(row)) for row in self.by_speaker[speakers[0]])
        # One speaker where one has enough.
        n_speakers = 1 if seconds <= 60 else len(speakers)
        if n_speakers == 1 and available < n_wanted * (1 - TOLERANCE):
            return []
        for speaker in speakers[:n_speakers]:
            for row in self.rng.permutation(self.by_speaker[speaker]).tolist():
                clip = self.clip(row)
                if total + len(clip) <= n_wanted * (1 + TOLERANCE):
                    chosen.append((row, clip))
                    total += len(clip)
                if total >= n_wanted * (1 - TOLERANCE):
                    return chosen
        return []

    def clip(self, row: int) -> np.ndarray:
        """Return a row's recording with `margin` around its speech."""
        if row not in self._clips:
            self._clips[row] = self._cut(row)
        return self._clips[row]

    def _cut(self, row: int) -> np.ndarray:
        waveform = self.data.source.store.get(self.data.filenames[row])
        if self.margin is None:
            return waveform
        speech = np.flatnonzero(find_speech(waveform)[0]) * FRAME_SAMPLES
        margin = round(self.margin * SAMPLE_RATE)
        return waveform[max(0, speech[0] - margin) : speech[-1] + FRAME_SAMPLES + margin]

    def _join_changed(self, clips: Sequence[Clip]) -> JoinedClips:
        """Join clips; a random one of them has the changed word."""
        changed = int(self.rng.integers(len(clips)))
        text = self.data.metadata["expected_text"].iloc[clips[changed][0]]
        return self.join(clips, changed, self.generator.draw(text, self.rng))

    def join(
        self, clips: Sequence[Clip], changed: int, negative: HardNegative | None = None
    ) -> JoinedClips:
        """Join clips; the `changed` one has the text of `negative`, or None: its own."""
        metadata = self.data.metadata
        texts = [metadata["expected_text"].iloc[row] for row, _ in clips]
        before = sum(len(text.split()) for text in texts[:changed])
        wrong_text, wrong = " ".join(texts), tuple[int, ...]()
        if negative is not None:
            wrong_text = " ".join([*texts[:changed], negative.text, *texts[changed + 1 :]])
            wrong = negative.wrong if negative.gap is None else (negative.gap - 1, negative.gap)
        n_words = len(wrong_text.split())
        return JoinedClips(
            np.concatenate([clip for _, clip in clips]),
            tuple(texts),
            np.cumsum([0, *(len(clip) for _, clip in clips)]),
            metadata["speaker"].iloc[clips[0][0]],
            metadata["grade"].iloc[clips[0][0]],
            changed,
            wrong_text,
            tuple(before + at for at in wrong if 0 <= before + at < n_words),
        )


def as_source(data: TrainingData, joined: Sequence[JoinedClips]) -> PairSource:
    """Return a source with a row for each text of each recording: as read, then the wrong one."""
    rows = [
        {
            "filename": str(at),
            "task": data.metadata["task"].iloc[0],
            "grade": each.grade,
            "expected_text": text,
        }
        for at, each in enumerate(joined)
        for text in dict.fromkeys((each.text, each.wrong_text))
    ]
    store = MemoryStore({str(at): Recording(each.waveform, ()) for at, each in enumerate(joined)})
    return PairSource(pd.DataFrame(rows), None, store)
