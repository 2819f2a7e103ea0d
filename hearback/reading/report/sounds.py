"""The sound of recordings and references, and when each word is said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import Recording
from hearback.engine.audio.memory_store import MemoryStore
from hearback.engine.devices import choose_device, compute_dtype, mixed_precision
from hearback.engine.page.clips import Sound, decode_if_possible
from hearback.engine.page.content import Words
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.reading.inference.divergences import align_clips, divergence_table
from hearback.reading.models.base import Scorer
from hearback.reading.models.load import load_scorer
from hearback.reading.models.scorers import AlignedScorer
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.models.word_times import time_words
from hearback.reading.pairings import Pairing
from hearback.reading.pairs import PairSource
from hearback.reading.references import INDEX, References
from hearback.reading.scoring.recordings import LONGEST_RECORDING
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES, WINDOW_SAMPLES


@dataclass(frozen=True)
class Sounds:
    """Recordings of a folder, and the reference speech of their texts, if there is any.

    Attributes:
        folder: of the recordings.
        filenames: of the page's recordings.
        texts: their expected texts, as they are said.
        references: None if there are none.
    """

    folder: Path
    filenames: Sequence[str]
    texts: Sequence[str]
    references: References | None = None

    def __call__(self, index: int) -> Sound:
        """Return the sound of a recording, without what is missing or cannot be read."""
        learner = self.recording(index)
        return Sound(None if learner is None else learner.waveform, self.reference(index))

    def recording(self, index: int) -> Recording | None:
        """Return a decoded recording, or None if it is missing or cannot be read."""
        return decode_if_possible(self.folder, self.filenames[index], LONGEST_RECORDING)

    def reference(self, index: int) -> np.ndarray | None:
        """Return the reference of a recording's text, (samples,), or None."""
        text = self.texts[index]
        if self.references is None or text not in self.references:
            return None
        return self.references.waveform(text)


def open_references(folder: Path) -> References | None:
    """Open a folder of reference speech; None if it has none. HearbackError if it is damaged."""
    return References(folder) if (folder / INDEX).is_file() else None


# Returns start and end of each word, (words, 2) seconds, of some waveforms and their texts, by key.
# Those of recordings that are longer than a window are missing.
WordTimer = Callable[[Mapping[str, tuple[np.ndarray, str]]], Mapping[str, np.ndarray]]


def open_timer(folds: Sequence[FoldFiles], device: str | None) -> WordTimer | None:
    """Return a timer of words with the first of `folds` that has a decoder and its weights.

    None if there is none: predictions are published without their weights.
    """
    scorer = _open_first(folds, "tokens")
    return _timer(scorer, device) if isinstance(scorer, TokenScorer) else None


def _timer(scorer: TokenScorer, device_name: str | None) -> WordTimer:
    device = choose_device(device_name)
    dtype = compute_dtype(device, "auto")

    def times_of(sounds: Mapping[str, tuple[np.ndarray, str]]) -> Mapping[str, np.ndarray]:
        short = {key: x for key, x in sounds.items() if len(x[0]) <= LONGEST_WINDOW_SAMPLES}
        if not short:
            return {}
        store = MemoryStore({key: Recording(waveform, ()) for key, (waveform, _) in short.items()})
        texts = [text for _, text in short.values()]
        frame = pd.DataFrame({"filename": list(short), "expected_text": texts})
        source = PairSource(frame.assign(task="", grade=""), None, store)
        with mixed_precision(device, dtype):
            times = time_words(
                scorer, source.with_longest(LONGEST_WINDOW_SAMPLES), range(len(source)), device
            )
        return {key: times[row] for row, key in enumerate(short)}

    return times_of


def add_times(
    words: Mapping[str, Words], sounds: Sounds, indices: Sequence[int], timer: WordTimer
) -> dict[str, Words]:
    """Return the words of all recordings, those of `indices` with times in both of their sounds."""
    learners = {str(index): sounds.recording(index) for index in indices}
    texts = {str(index): sounds.texts[index] for index in indices}
    references = {sounds.texts[index]: sounds.reference(index) for index in indices}
    in_learner = timer(
        {key: (x.waveform, texts[key]) for key, x in learners.items() if x is not None}
    )
    in_reference = timer({text: (x, text) for text, x in references.items() if x is not None})
    found = dict(words)
    for key, text in texts.items():
        known = found.get(key, Words(text.split()))
        if key in in_learner:
            starts, ends = in_learner[key].T.round(3).tolist()
            known = replace(known, starts=starts, ends=ends)
        if text in in_reference:
            starts, ends = in_reference[text].T.round(3).tolist()
            known = replace(known, reference_starts=starts, reference_ends=ends)
        found[key] = known
    return found


def add_divergences(
    words: Mapping[str, Words],
    sounds: Sounds,
    indices: Sequence[int],
    folds: Sequence[FoldFiles],
    device_name: str | None,
) -> dict[str, Words]:
    """Return the words of all recordings, those of `indices` with where they leave the reference.

    The first of `folds` that aligns learner and reference, and has its weights, tells; without one,
    or without references, nothing is added.
    """
    model = _open_first(folds, "aligned") if sounds.references is not None else None
    learners = {
        str(index): sounds.recording(index)
        for index in indices
        if sounds.references is not None and sounds.texts[index] in sounds.references
    }
    readable = {
        key: recording
        for key, recording in learners.items()
        if recording is not None and len(recording.waveform) <= WINDOW_SAMPLES
    }
    if not isinstance(model, AlignedScorer) or not readable:
        return dict(words)
    texts = [sounds.texts[int(key)] for key in readable]
    frame = pd.DataFrame({"filename": list(readable), "expected_text": texts})
    source = PairSource(
        frame.assign(task="", grade=""), sounds.references, MemoryStore(readable)
    ).with_speeds(model.recipe.speed_by_grade)
    paths = align_clips(model, source, range(len(source)), device=choose_device(device_name))
    found = dict(words)
    for key, rows in divergence_table(source, paths).groupby("filename", sort=False):
        known = found.get(str(key), Words(rows["word"].tolist()))
        found[str(key)] = replace(known, diverges=rows["diverges"].tolist())
    return found


def _open_first(folds: Sequence[FoldFiles], pairing: Pairing) -> Scorer | None:
    """Return the first model of `folds` with this pairing that has its weights, or None."""
    for files in folds:
        metadata = read_fold_metadata(files)
        if metadata["recipe"].get("pair") == pairing and files.weights.is_file():
            return load_scorer(files, metadata)
    return None
