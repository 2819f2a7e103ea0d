"""When each word of a recording is said, and where it leaves the reference, by models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from hearback.engine.audio.decode import Recording
from hearback.engine.audio.store import MemoryStore
from hearback.engine.devices import choose_device, compute_dtype, mixed_precision
from hearback.engine.page.clips import Sound
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
from hearback.reading.references import References
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES, WINDOW_SAMPLES

# Start and end of each word, (words, 2) seconds, by a key.
Times = Mapping[str, np.ndarray]


@dataclass
class WordAnnotator:
    """Adds times and divergences to the words of recordings: see `clips.Annotator`.

    The first fold in `timing` with weights and a decoder times the words. The first in `aligning`
    with weights marks where they diverge from the reference, which needs `references`. Without such
    a fold, its part is skipped.

    Attributes:
        words: of recordings, by index as text; those that a model times or aligns are replaced.
            What is known of them is kept.
        texts: expected texts of all recordings, as they are said.
        references: None if there are none.
        timing: folds that may time words.
        aligning: folds that may align.
        device_name: for the models; None: a GPU if there is one.
    """

    words: dict[str, Words]
    texts: Sequence[str]
    references: References | None
    timing: Sequence[FoldFiles] = ()
    aligning: Sequence[FoldFiles] = ()
    device_name: str | None = None
    _times_in_references: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, sounds: Mapping[int, Sound]) -> None:
        """Add those of some recordings, given by their indices."""
        there = {index: sound for index, sound in sounds.items() if sound.learner is not None}
        self._add_times(there)
        self._add_divergences(there)

    @cached_property
    def device(self) -> torch.device:
        """The device that the models run on."""
        return choose_device(self.device_name)

    @cached_property
    def timer(self) -> TokenScorer | None:
        """The model that times words."""
        model = _open_first(self.timing, "tokens")
        return model if isinstance(model, TokenScorer) else None

    @cached_property
    def aligner(self) -> AlignedScorer | None:
        """The model that aligns recordings with references."""
        model = _open_first(self.aligning, "aligned") if self.references is not None else None
        return model if isinstance(model, AlignedScorer) else None

    def _add_times(self, sounds: Mapping[int, Sound]) -> None:
        if self.timer is None:
            return
        texts = {str(index): self.texts[index] for index in sounds}
        learners = {str(index): sound.learner for index, sound in sounds.items()}
        in_learner = self._times(
            {
                key: (learner, texts[key])
                for key, learner in learners.items()
                if learner is not None and not self._known(key).starts
            }
        )
        references = {self.texts[index]: sound.reference for index, sound in sounds.items()}
        self._times_in_references |= self._times(
            {
                text: (reference, text)
                for text, reference in references.items()
                if reference is not None and text not in self._times_in_references
            }
        )
        for key, text in texts.items():
            known = self._known(key)
            if times := _starts_and_ends(in_learner.get(key), known):
                known = replace(known, starts=times[0], ends=times[1])
            if times := _starts_and_ends(self._times_in_references.get(text), known):
                known = replace(known, reference_starts=times[0], reference_ends=times[1])
            self.words[key] = known

    def _known(self, key: str) -> Words:
        """Return what is known of a recording's words."""
        return self.words.get(key) or Words(self.texts[int(key)].split())

    def _times(self, sounds: Mapping[str, tuple[np.ndarray, str]]) -> Times:
        """Time the words of waveforms and their texts; those longer than a window are left out."""
        short = {key: x for key, x in sounds.items() if len(x[0]) <= LONGEST_WINDOW_SAMPLES}
        if not short:
            return {}
        assert self.timer is not None
        texts = [text for _, text in short.values()]
        source = _source({key: waveform for key, (waveform, _) in short.items()}, texts, None)
        source = source.with_longest(LONGEST_WINDOW_SAMPLES)
        with mixed_precision(self.device, compute_dtype(self.device, "auto")):
            times = time_words(self.timer, source, range(len(source)), self.device)
        return {key: times[row] for row, key in enumerate(short)}

    def _add_divergences(self, sounds: Mapping[int, Sound]) -> None:
        if self.aligner is None:
            return
        learners = {
            str(index): sound.learner
            for index, sound in sounds.items()
            if sound.learner is not None
            and sound.reference is not None
            and len(sound.learner) <= WINDOW_SAMPLES
        }
        if not learners:
            return
        source = _source(learners, [self.texts[int(key)] for key in learners], self.references)
        source = source.with_speeds(self.aligner.recipe.speed_by_grade)
        paths = align_clips(self.aligner, source, range(len(source)), device=self.device)
        for key, rows in divergence_table(source, paths).groupby("filename", sort=False):
            known = self.words.get(str(key)) or Words(rows["word"].tolist())
            self.words[str(key)] = replace(known, diverges=rows["diverges"].tolist())


def _source(
    waveforms: Mapping[str, np.ndarray], texts: Sequence[str], references: References | None
) -> PairSource:
    """Return waveforms by name, with their texts, as the models read them."""
    store = MemoryStore({name: Recording(waveform, ()) for name, waveform in waveforms.items()})
    frame = pd.DataFrame({"filename": list(waveforms), "expected_text": texts})
    return PairSource(frame.assign(task="", grade=""), references, store)


def _open_first(folds: Sequence[FoldFiles], pairing: Pairing) -> Scorer | None:
    """Return the first model of `folds` with this pairing that has its weights, or None."""
    for files in folds:
        if not files.metadata.is_file() or not files.weights.is_file():
            continue
        metadata = read_fold_metadata(files)
        if (metadata.get("recipe") or {}).get("pair") == pairing:  # baselines have no recipe
            return load_scorer(files, metadata)
    return None


def _starts_and_ends(times: np.ndarray | None, words: Words) -> list[list[float]] | None:
    """Return the starts and the ends of (words, 2) times; None if they are not of these words."""
    if times is None or len(times) != len(words.words):
        return None
    starts_and_ends: list[list[float]] = times.T.round(3).tolist()
    return starts_and_ends
