"""Rows of any length as rows that fit in a window, and their scores put together again."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import Store
from hearback.engine.devices import mixed_precision
from hearback.engine.evaluation.logistic import SMALLEST_PROBABILITY, logit
from hearback.reading.inference.predict import Predictions
from hearback.reading.models.evidence import LARGEST_LOGIT
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import PairSource
from hearback.reading.passages.jumps import Runs, WordRange
from hearback.reading.passages.length import correct_length
from hearback.reading.passages.likelihood import SegmentLikelihood
from hearback.reading.passages.segments import Segment, find_segments
from hearback.reading.passages.text_split import split_text
from hearback.reading.tables import LONGEST_TEXT
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES
from hearback.reading.words import COMPLETE

LONG_SECONDS = 8.0  # shorter recordings are not corrected
SMALLEST_POWER = 0.5  # of the odds of parts, in `combine`


@dataclass(frozen=True)
class PassageWindow:
    """A part of a row's recording, and the words of its text that are said there.

    They are several `runs` if words between them were skipped.
    """

    row: int
    segment: Segment
    runs: Runs

    @property
    def n_words(self) -> int:
        """The number of words."""
        return sum(map(len, self.runs))


class SegmentStore(Store):
    """Parts of a store's recordings, under names of their own."""

    def __init__(self, store: Store, parts: Mapping[str, tuple[str, Segment]]) -> None:
        self._arguments = store, parts
        entries = {}
        for part, (name, segment) in parts.items():
            whole = store.entries[name]
            entries[part] = replace(
                whole,
                offset=whole.offset + segment.start,
                n_samples=segment.stop - segment.start,
                sha256=f"{whole.sha256} from {segment.start} to {segment.stop}",
            )
        super().__init__(entries, store.samples, f"parts of {store.origin}", store.format)

    def __reduce__(self) -> Any:  # noqa: ANN401  (pickle's own)
        """Pickle the whole store and where its parts are."""
        return type(self), self._arguments


@dataclass(frozen=True)
class Passages:
    """The rows of a source as windows.

    Attributes:
        source: has a row for each window, with its part of the recording and of the text.
        windows: the windows, by row and time.
        unmatched: (row, part) of recordings in which nothing of the text is recognised.
        original: the source that was split.
        long_seconds: the scores of longer recordings are corrected for the length of their texts.
        most_words: of that correction (`length.correct_length`).
    """

    source: PairSource
    windows: tuple[PassageWindow, ...]
    unmatched: tuple[tuple[int, Segment], ...]
    original: PairSource
    long_seconds: float = LONG_SECONDS
    most_words: float = np.inf

    def grades(self, grades: np.ndarray) -> np.ndarray:
        """Return the grade of each window, from those of the rows."""
        return grades[[window.row for window in self.windows]]

    def by_row(self) -> list[list[int]]:
        """Return the numbers of each row's windows."""
        numbers: list[list[int]] = [[] for _ in range(len(self.original))]
        for number, window in enumerate(self.windows):
            numbers[window.row].append(number)
        return numbers

    def merge(self, predictions: Predictions) -> Predictions:
        """Return the predictions of the rows, from those of the windows."""
        clips = np.empty(len(self.original))
        for row, numbers in enumerate(self.by_row()):
            store, name = self.original.store, self.original.filenames[row]
            n_words = np.array([self.windows[number].n_words for number in numbers])
            found = predictions.clips[numbers]
            if store.n_samples(name) > self.long_seconds * SAMPLE_RATE:
                found = correct_length(found, n_words, self.most_words)
            if n_words.sum() < len(self.original.texts[row].split()):
                # The others were not read, or no window has room for them.
                clips[row] = SMALLEST_PROBABILITY
            else:
                clips[row] = combine(found, n_words)
        words = predictions.words
        return Predictions(clips, None if words is None else self._merge_words(words))

    def _merge_words(self, words: np.ndarray) -> np.ndarray:
        """Return the log-odds of the rows' words, (rows, positions, 2)."""
        lengths = [len(text.split()) for text in self.original.texts]
        positions = np.arange(1 + max(lengths, default=0))
        n_words = np.array(lengths)[:, None]
        kept = np.stack([positions < n_words, positions <= n_words], axis=-1)
        # Words that are in no window were not read, or none has room for them.
        merged = np.where(kept, -LARGEST_LOGIT, np.nan)
        ends: dict[int, int] = {}
        for window, of_window in zip(self.windows, words, strict=True):
            target, first = merged[window.row], 0
            for run in window.runs:
                found = of_window[first : first + len(run) + 1]
                # Where two windows meet, both tell whether a word is missing.
                end = target[run.start, COMPLETE] if ends.get(window.row) == run.start else np.inf
                target[run.start : run.stop] = found[:-1]
                target[run.start, COMPLETE] = min(end, found[0, COMPLETE])
                target[run.stop, COMPLETE] = found[-1, COMPLETE]
                ends[window.row] = run.stop
                first += len(run)
        return merged

    def merge_times(self, times: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Return start and end of each word of the rows, (words, 2) seconds.

        `times` are those of the windows' words, by window, in seconds of its part at its own speed.
        Words that are in no window have the time at which the word before them ends.
        """
        merged: dict[int, np.ndarray] = {}
        for number, window in enumerate(self.windows):
            of_row = merged.setdefault(
                window.row, np.zeros((len(self.original.texts[window.row].split()), 2))
            )
            found = times[number] + window.segment.start / SAMPLE_RATE
            first = 0
            for run in window.runs:
                of_run = found[first : first + len(run)]
                of_row[run.start : run.stop] = of_run
                of_row[run.stop :] = of_run[-1, 1]
                first += len(run)
        return merged


def combine(probabilities: np.ndarray, n_words: np.ndarray) -> float:
    """Return the probability that all parts of a text were said, from those of the parts.

    With the parts' own odds it would be right if one part at most is wrong, each word being equally
    likely to be the wrong one: the odds are then the harmonic mean of the parts' odds, weighted by
    their words. But the more parts, the lower the lowest of them is by chance, so their log-odds
    count less: they are divided by the square root of the number of parts, at most by 2.
    """
    if len(probabilities) == 1:
        return float(probabilities[0])
    power = max(SMALLEST_POWER, len(probabilities) ** -0.5)
    log_odds = logit(probabilities, SMALLEST_PROBABILITY) * power
    mean = 1 / np.average(np.exp(-log_odds), weights=n_words)
    return float(mean / (1 + mean))


def whole_rows(source: PairSource) -> Passages:
    """Return the rows of `source` with a window each, cut at its longest; no score is corrected."""
    n_samples = [source.store.n_samples(name) for name in source.filenames]
    windows = tuple(
        PassageWindow(row, Segment(0, n), (WordRange(0, len(source.texts[row].split())),))
        for row, n in enumerate(n_samples)
    )
    return Passages(source, windows, (), source, long_seconds=np.inf)


def split_rows(
    source: PairSource,
    model: TokenScorer | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    most_words: float = np.inf,
) -> Passages:
    """Return the rows of `source` as windows that fit the encoder.

    Args:
        source: the rows, at their own speed.
        model: finds the words of long recordings, of more than 30 s or with a text of more than
            `LONGEST_TEXT`; None: these are cut at 30 s.
        device: where the model is.
        dtype: of its matrix products.
        most_words: of `Passages`.
    """
    windows: list[PassageWindow] = []
    unmatched: list[tuple[int, Segment]] = []
    for row in range(len(source)):
        n_samples = source.store.n_samples(source.filenames[row])
        fits = n_samples <= LONGEST_WINDOW_SAMPLES
        fits = fits and len(source.texts[row].encode()) <= LONGEST_TEXT
        if model is None or fits:
            runs = (WordRange(0, len(source.texts[row].split())),)
            windows.append(PassageWindow(row, Segment(0, n_samples), runs))
            continue
        with mixed_precision(device, dtype):
            split = split_recording(source, row, model, device)
        windows += [window for window in split if window.n_words]
        unmatched += [(row, window.segment) for window in split if not window.n_words]
    parts = _with_windows(source, windows)
    return Passages(parts, tuple(windows), tuple(unmatched), source, most_words=most_words)


def split_recording(
    source: PairSource, row: int, model: TokenScorer, device: torch.device
) -> list[PassageWindow]:
    """Return all parts of a row's recording, with the words that are said there."""
    segments = find_segments(source.store.get(source.filenames[row]))
    words = source.texts[row].split()
    whole = (WordRange(0, len(words)),)
    parts = _with_windows(source, [PassageWindow(row, each, whole) for each in segments])
    parts = parts.with_speeds(model.recipe.speed_by_grade)
    likelihood = SegmentLikelihood(model, words, parts.learner, device)
    split = split_text(len(words), [each.seconds for each in segments], likelihood)
    return [
        PassageWindow(row, segment, _with_room(model, words, runs))
        for segment, runs in zip(segments, split, strict=True)
    ]


def _with_room(model: TokenScorer, words: Sequence[str], runs: Runs) -> Runs:
    """Return the first words of the `runs`, as many as the decoder has positions for."""
    assert model.text_tokenizer is not None
    tokenized = model.text_tokenizer.encode(_text_of(words, runs))
    n_free = model.decoder.config.max_target_positions - len(model.text_tokenizer.prompt)
    # The first token that is too many: the end needs a position, too.
    left = int(tokenized.word_ids[min(n_free, len(tokenized.word_ids)) - 1])
    kept = []
    for run in runs:
        kept.append(WordRange(run.start, min(run.stop, run.start + left)))
        left -= len(kept[-1])
    return tuple(run for run in kept if len(run))


def _text_of(words: Sequence[str], runs: Runs) -> str:
    """Return the text of some runs of words."""
    return " ".join(word for run in runs for word in words[run.start : run.stop])


def _with_windows(source: PairSource, windows: Sequence[PassageWindow]) -> PairSource:
    """Return a source with a row for each window."""
    names = [f"{source.filenames[each.row]}#{number}" for number, each in enumerate(windows)]
    parts = {
        name: (source.filenames[each.row], each.segment)
        for name, each in zip(names, windows, strict=True)
    }
    texts = [_text_of(source.texts[each.row].split(), each.runs) for each in windows]
    split = copy(source)
    split.filenames = names
    split.texts = texts
    split.contexts = [source.contexts[each.row] for each in windows]
    split.labels = source.labels[[each.row for each in windows]]
    split.grades = [source.grades[each.row] for each in windows]
    split.store = SegmentStore(source.store, parts)
    return split.with_longest(LONGEST_WINDOW_SAMPLES)
