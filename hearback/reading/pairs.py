"""Pairs of a learner's recording and an expected text: the inputs of the models."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import pandas as pd

from hearback.engine.audio.effects import change_speed, n_samples_at_speed
from hearback.engine.audio.store import Store
from hearback.engine.data.batching import SizedDataset
from hearback.engine.errors import HearbackError
from hearback.engine.phones.tokenizer import PhoneTokenizer
from hearback.engine.whisper.tokenizer import WordTokenizer
from hearback.reading import joined_clips
from hearback.reading.augment import Augmentation
from hearback.reading.joined_clips import JoinedClips, join_targets
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.pairings import WITH_TEXT_EMBEDDING, WITHOUT_REFERENCE, Pairing
from hearback.reading.phone_labels import phone_targets
from hearback.reading.references import References
from hearback.reading.tables import GRADES, TASKS
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    UNKNOWN,
    WINDOW_SAMPLES,
    Encoding,
    LabelledText,
    Pair,
)
from hearback.reading.word_labels import ReadWords, WordLabels, WordTargets

ORIGINAL = 0  # of the versions of `EncodedRows`: without augmentation, at the speed of inference


def join(reference: np.ndarray, learner: np.ndarray) -> np.ndarray:
    """Concatenate reference and learner, (samples,) each, and cut the result at 16 s."""
    return np.concatenate([reference, learner[: max(0, WINDOW_SAMPLES - len(reference))]])[
        :WINDOW_SAMPLES
    ]


def encode_context(task: str, grade: str) -> np.ndarray:
    """Return (task id, grade id) / 4, (2,) float32, the encoding of the competition's winner.

    An unknown task or grade, "", is 0; only models without `uses_context` may score such rows.
    """
    ids = [TASKS.index(task) if task else 0, GRADES.index(grade) if grade else 0]
    return np.array(ids, dtype=np.float32) / 4


class EncodedRows(Protocol):
    """Encoder outputs of the rows, in versions: `ORIGINAL`, and from 1 on augmented ones.

    Joined clips only have augmented ones.
    """

    @property
    def n_augmented(self) -> int:
        """Number of augmented versions."""

    def get(self, clip: int | JoinedClips, version: int) -> Encoding:
        """Return a version of the encoder output of a row or of joined clips."""


class PairSource:
    """The recordings, texts and references of a table's rows.

    Args:
        metadata: the table (`hearback.reading.tables.read_metadata`).
        references: rendered reference speech; None for models that hear none.
        store: decoded recordings.
        labels: (rows,), or None at inference.
    """

    def __init__(
        self,
        metadata: pd.DataFrame,
        references: References | None,
        store: Store,
        labels: np.ndarray | None = None,
    ) -> None:
        self.filenames = metadata["filename"].tolist()
        self.texts = metadata["expected_text"].tolist()
        self.contexts = [
            encode_context(task, grade)
            for task, grade in zip(metadata["task"], metadata["grade"], strict=True)
        ]
        self.labels = np.full(len(metadata), np.nan) if labels is None else labels
        self._references = references
        self.store = store
        self.grades = metadata["grade"].tolist()
        self.speeds = dict.fromkeys(GRADES, 1.0)
        self.encoded: EncodedRows | None = None
        self.longest = WINDOW_SAMPLES

    @property
    def has_references(self) -> bool:
        """Whether there is reference speech."""
        return self._references is not None

    @property
    def references(self) -> References:
        """The reference speech. Raises HearbackError if there is none."""
        if self._references is None:
            raise HearbackError("these recordings were read without their reference speech")
        return self._references

    def with_encoded(self, encoded: EncodedRows) -> Self:
        """Return a copy of the source with the encoder outputs of its rows."""
        source = copy(self)
        source.encoded = encoded
        return source

    def with_longest(self, n_samples: int) -> Self:
        """Return a copy of the source in which recordings of over 16 s are cut at `n_samples`.

        For models that hear the recording alone, at inference: up to `LONGEST_WINDOW_SAMPLES`.
        Shorter recordings are not affected.
        """
        source = copy(self)
        source.longest = n_samples
        return source

    def longest_window(self, row: int) -> int:
        """Return the number of samples at which a row's recording is cut."""
        is_long = self.store.n_samples(self.filenames[row]) > WINDOW_SAMPLES
        return self.longest if is_long else WINDOW_SAMPLES

    def with_speeds(self, by_grade: Sequence[float]) -> Self:
        """Return a copy of the source with the recordings resampled to another speed.

        A speed below 1 makes a recording slower and lowers its pitch and formants, as for a larger
        speaker. A recording that fits in the window is not stretched beyond the window.

        Args:
            by_grade: the speed for each of `GRADES`; 1 is the original.
        """
        source = copy(self)
        source.speeds = dict(zip(GRADES, by_grade, strict=True))
        return source

    def speed_of(self, row: int) -> float:
        """Return the speed factor of a row's recording; 1 for an unknown grade."""
        wanted = self.speeds.get(self.grades[row], 1.0)
        # At this speed, the recording just fills the window.
        slowest = self.store.n_samples(self.filenames[row]) / self.longest_window(row)
        return min(1.0, max(wanted, slowest)) if wanted < 1 else wanted

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.filenames)

    def learner(self, row: int) -> np.ndarray:
        """Return a row's recording, (samples,) float32 at 16 kHz."""
        recording, speed = self.store.get(self.filenames[row]), self.speed_of(row)
        return recording if speed == 1 else change_speed(recording, speed)

    def n_samples(self, row: int, pairing: Pairing) -> int:
        """Return the number of samples of a row's pair before it is cut to 16 s."""
        learner = n_samples_at_speed(self.store.n_samples(self.filenames[row]), self.speed_of(row))
        if pairing in WITHOUT_REFERENCE:
            return learner
        reference = self.references.n_samples(self.texts[row])
        return reference + learner if pairing == "joined" else max(reference, learner)


@dataclass(frozen=True)
class HardNegativeText:
    """A text that differs in a word or a sound from the spoken one, with its word targets.

    `said` and `complete` are as in `LabelledText`.
    """

    text: str
    said: np.ndarray
    complete: np.ndarray


@dataclass(frozen=True)
class Example:
    """A clip and the text that it is compared with.

    Attributes:
        row: the clip's index in the table; of joined clips the first one's.
        text: the expected text.
        label: 0 or 1, or a probability in training; NaN at inference.
        is_negative: `text` is a sampled text that the clip does not say, not the row's own.
        hard_negatives: further texts that a token scorer scores on the same recording.
        joined: the clips, if several are one recording.
    """

    row: int
    text: str
    label: float = float("nan")
    is_negative: bool = False
    hard_negatives: tuple[HardNegativeText, ...] = ()
    joined: JoinedClips | None = None

    @property
    def clip(self) -> int | JoinedClips:
        """The learner's sound: a row's recording, or joined clips."""
        return self.row if self.joined is None else self.joined


class PairDataset(SizedDataset[Pair]):
    """Examples as pairs, optionally augmented.

    Args:
        source: the clips and references.
        examples: the clips and texts to pair.
        pairing: how learner and text are compared.
        text_tokenizer: required for "tokens" and "phones".
        embedder: required for the pairings in `WITH_TEXT_EMBEDDING`; embeds all texts at once.
        augmentations: the reference's and the learner's; None: no augmentation.
        word_labels: of training rows, for the targets of their words; none elsewhere.
        seeds: seeds of the augmentation. Its random numbers depend on these and the example's index
            only, not on the number of workers.

    Where the source has encoder outputs, pairs have these in place of the recordings: with
    `augmentations` one of the augmented versions, drawn at random, else the original.
    """

    def __init__(
        self,
        source: PairSource,
        examples: Sequence[Example],
        pairing: Pairing,
        *,
        text_tokenizer: WordTokenizer | None = None,
        embedder: TextEmbedder | None = None,
        augmentations: tuple[Augmentation, Augmentation] | None = None,
        word_labels: WordLabels | None = None,
        seeds: tuple[int, ...] = (),
    ) -> None:
        self.source = source
        self.examples = examples
        self.pairing = pairing
        self.text_tokenizer = text_tokenizer
        self.augmentations = augmentations
        self.word_labels = word_labels or WordLabels()
        self.seeds = seeds
        # Keep the vectors, not the embedder, which would be copied to every worker.
        self.embeddings = embedder.embed(each.text for each in examples) if embedder else {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.examples)

    def __getitem__(self, index: int) -> Pair:
        """Build the pair of the example at `index`."""
        example = self.examples[index]
        if self.source.encoded is not None:
            return self._encoded_pair(self.source.encoded, example, index)
        learner, longest = self._recording(example)
        reference = None
        if self.pairing not in WITHOUT_REFERENCE:
            reference = self.source.references.waveform(example.text)
        if self.augmentations is not None:
            rng = np.random.default_rng((*self.seeds, index))
            augment_reference, augment_learner = self.augmentations
            if reference is not None:
                reference = augment_reference.apply(reference, rng)
            augment = joined_clips.augment if example.joined else Augmentation.apply
            learner = augment(augment_learner, learner, rng)
        pair = Pair(
            learner[:longest],
            self.source.contexts[example.row],
            example.row,
            example.label,
            example.is_negative,
        )
        if self.pairing in WITH_TEXT_EMBEDDING:
            return replace(pair, text_embedding=self.embeddings[example.text])
        if reference is None:
            return replace(pair, texts=self._texts(example))
        if self.pairing == "joined":
            return replace(pair, waveform=join(reference, learner))
        return replace(pair, reference=reference[:WINDOW_SAMPLES])

    def _recording(self, example: Example) -> tuple[np.ndarray, int]:
        """Return the waveform, (samples,), and the number of samples at which it is cut."""
        if example.joined is None:
            return self.source.learner(example.row), self.source.longest_window(example.row)
        return example.joined.waveform(self.source.learner), LONGEST_WINDOW_SAMPLES

    def _encoded_pair(self, encoded: EncodedRows, example: Example, index: int) -> Pair:
        version = ORIGINAL
        if self.augmentations is not None:
            rng = np.random.default_rng((*self.seeds, index))
            version = int(rng.integers(1, encoded.n_augmented + 1))
        return Pair(
            np.empty(0, dtype=np.float32),
            self.source.contexts[example.row],
            example.row,
            example.label,
            example.is_negative,
            texts=self._texts(example),
            encoding=encoded.get(example.clip, version),
        )

    def _texts(self, example: Example) -> tuple[LabelledText, ...]:
        read = self._read(example)
        negatives = [
            self._labelled(
                each.text,
                read.targets(each.text) if read else WordTargets(each.said, each.complete),
                read,
            )
            for each in example.hard_negatives
        ]
        return (self._labelled(example.text, self._targets(example), read), *negatives)

    def _labelled(self, text: str, targets: WordTargets, read: ReadWords | None) -> LabelledText:
        """Return a text with its targets; those of phones are what experts say of `read`."""
        assert self.text_tokenizer is not None
        tokenized = self.text_tokenizer.encode(text)
        phones = None
        if isinstance(self.text_tokenizer, PhoneTokenizer) and read is not None:
            phones = phone_targets(tokenized, read.transcriptions_of(text), self.text_tokenizer)
        known = None if phones is None else np.nan_to_num(phones, nan=UNKNOWN)
        return LabelledText(tokenized, *targets, known)

    def _read(self, example: Example) -> ReadWords | None:
        """Return the words that were read, if they have labels.

        Where some of joined clips have labels, the words of the others count as said, which matters
        for hard negatives only: they are of correct clips.
        """
        if example.joined is None:
            labels = self.word_labels
            return labels.get(self.source.filenames[example.row]) if labels else None
        parts = [(part, self._read(part)) for part in self._parts(example.joined)]
        if all(read is None for _, read in parts):
            return None
        return ReadWords.join(read or ReadWords.all_said(part.text) for part, read in parts)

    def _parts(self, joined: JoinedClips) -> list[Example]:
        """Return joined clips as single ones with their own texts and labels."""
        source = self.source
        return [Example(row, source.texts[row], float(source.labels[row])) for row in joined.rows]

    def _targets(self, example: Example) -> WordTargets:
        if example.joined is not None:
            return join_targets([self._targets(part) for part in self._parts(example.joined)])
        if (read := self._read(example)) is not None:
            return read.targets(example.text)
        # A correct clip says all words; for an incorrect one the labels of the words are unknown.
        target = 1.0 if example.label == 1 else UNKNOWN
        n_words = len(example.text.split())
        return WordTargets(
            np.full(n_words, target, dtype=np.float32),
            np.full(n_words + 1, target, dtype=np.float32),
        )
