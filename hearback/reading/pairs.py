"""Expected texts and learners as the models take them in; clips in batches of one window length."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import pandas as pd

from hearback.engine.audio.effects import change_speed, n_samples_at_speed
from hearback.engine.audio.store import Store
from hearback.engine.data.batching import SizedDataset
from hearback.engine.whisper.tokenizer import TextReader
from hearback.reading.augment import Augmentation
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.references import References
from hearback.reading.tables import GRADES, TASKS
from hearback.reading.window_batches import UNKNOWN, WINDOW_SAMPLES, Pair, Text

# How learner and expected text meet: "joined", reference and learner in one waveform; "aligned",
# both encoded, then aligned; "tokens", the learner encoded and the text read by the decoder. Or as
# two vectors, the learner's and that of the text's meaning or of its reference speech, which a
# classifier or their cosine compares.
Pairing = Literal[
    "joined",
    "aligned",
    "tokens",
    "text classifier",
    "text cosine",
    "speech classifier",
    "speech cosine",
]
WITH_TEXT_EMBEDDING: tuple[Pairing, ...] = ("text classifier", "text cosine")
WITHOUT_REFERENCE: tuple[Pairing, ...] = ("tokens", *WITH_TEXT_EMBEDDING)


def join(reference: np.ndarray, learner: np.ndarray) -> np.ndarray:
    """Join (samples,) and (samples,) to one waveform, reference first, cut at 16 s."""
    return np.concatenate([reference, learner[: max(0, WINDOW_SAMPLES - len(reference))]])[
        :WINDOW_SAMPLES
    ]


def encode_context(task: str, grade: str) -> np.ndarray:
    """Return (task id, grade id) / 4, float32, as the competition's winner had them."""
    return np.array([TASKS.index(task), GRADES.index(grade)], dtype=np.float32) / 4


class PairSource:
    """A table's clips with their references: what pairs are made of."""

    def __init__(
        self,
        metadata: pd.DataFrame,
        references: References,
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
        self.references = references
        self.store = store
        self.grades = metadata["grade"].tolist()
        self.speeds = dict.fromkeys(GRADES, 1.0)

    def at_speeds(self, by_grade: Sequence[float]) -> Self:
        """Return the same clips with the recordings of each of `GRADES` played so fast, as on tape.

        Below 1 a voice becomes slower and lower, as if the speaker was larger. A recording that
        fits in the window is not made longer than that.
        """
        played = copy(self)
        played.speeds = dict(zip(GRADES, by_grade, strict=True))
        return played

    def speed_of(self, row: int) -> float:
        """Return how many times as fast a row's recording is played."""
        wanted = self.speeds[self.grades[row]]
        fits = self.store.n_samples(self.filenames[row]) / WINDOW_SAMPLES
        return min(1.0, max(wanted, fits)) if wanted < 1 else wanted

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.filenames)

    def learner(self, row: int) -> np.ndarray:
        """Return a row's recording, (samples,) float32 at 16 kHz."""
        recording, speed = self.store.get(self.filenames[row]), self.speed_of(row)
        return recording if speed == 1 else change_speed(recording, speed)

    def n_samples(self, row: int, pairing: Pairing) -> int:
        """Return what a row's window must hold before it is cut to 16 s."""
        learner = n_samples_at_speed(self.store.n_samples(self.filenames[row]), self.speed_of(row))
        if pairing in WITHOUT_REFERENCE:
            return learner
        reference = self.references.n_samples(self.texts[row])
        return reference + learner if pairing == "joined" else max(reference, learner)


@dataclass(frozen=True)
class OtherText:
    """A text that a recording does not quite say; `said` and `complete` as in `Text`."""

    text: str
    said: np.ndarray
    complete: np.ndarray


@dataclass(frozen=True)
class Example:
    """A clip and the text that it is compared with.

    `is_negative` says that this is not the row's own text, but one that the clip does not say; `others`
    are such texts that are read against the same recording, where the model reads.
    """

    row: int
    text: str
    label: float = float("nan")
    is_negative: bool = False
    others: tuple[OtherText, ...] = ()


class PairDataset(SizedDataset[Pair]):
    """Draws as pairs, augmented or as they are.

    `reader` is needed where the model reads, `embedder` where it takes texts as vectors: of the
    examples' texts, all at once. `augmentations` are the reference's and the learner's; their
    randomness comes from `seeds` and the draw's place: it does not depend on the number of workers.
    """

    def __init__(
        self,
        source: PairSource,
        examples: Sequence[Example],
        pairing: Pairing,
        *,
        reader: TextReader | None = None,
        embedder: TextEmbedder | None = None,
        augmentations: tuple[Augmentation, Augmentation] | None = None,
        seeds: tuple[int, ...] = (),
    ) -> None:
        self.source = source
        self.examples = examples
        self.pairing = pairing
        self.reader = reader
        self.augmentations = augmentations
        self.seeds = seeds
        # Vectors, not the embedder itself: that would be copied to every worker.
        self.embeddings = embedder.embed(draw.text for draw in examples) if embedder else {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.examples)

    def __getitem__(self, index: int) -> Pair:
        """Build the `index`-th pair."""
        draw = self.examples[index]
        learner = self.source.learner(draw.row)
        reference = None
        if self.pairing not in WITHOUT_REFERENCE:
            reference = self.source.references.waveform(draw.text)
        if self.augmentations is not None:
            rng = np.random.default_rng((*self.seeds, index))
            augment_reference, augment_learner = self.augmentations
            if reference is not None:
                reference = augment_reference.apply(reference, rng)
            learner = augment_learner.apply(learner, rng)
        pair = Pair(
            learner[:WINDOW_SAMPLES],
            self.source.contexts[draw.row],
            draw.row,
            draw.label,
            draw.is_negative,
        )
        if self.pairing in WITH_TEXT_EMBEDDING:
            return replace(pair, text_embedding=self.embeddings[draw.text])
        if reference is None:
            return replace(pair, texts=self._texts(draw))
        if self.pairing == "joined":
            return replace(pair, waveform=join(reference, learner))
        return replace(pair, reference=reference[:WINDOW_SAMPLES])

    def _texts(self, draw: Example) -> tuple[Text, ...]:
        assert self.reader is not None
        # All words of a correct clip were said; of a wrong one nobody says which were not.
        known = 1.0 if draw.label == 1 else UNKNOWN
        reading = self.reader.read(draw.text)
        said = np.full(reading.n_words, known, dtype=np.float32)
        complete = np.full(reading.n_words + 1, known, dtype=np.float32)
        others = [
            Text(self.reader.read(other.text), other.said, other.complete) for other in draw.others
        ]
        return (Text(reading, said, complete), *others)
