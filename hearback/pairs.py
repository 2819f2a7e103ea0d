"""Expected texts and learners as the models take them in; clips in batches of one window length."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hearback.audio import SAMPLE_RATE, Store
from hearback.augment import Augmentation, change_speed, n_samples_at_speed
from hearback.batches import SizedDataset, Tensors
from hearback.embeddings import TextEmbedder
from hearback.encoder import SAMPLES_PER_FRAME, WINDOW_SECONDS
from hearback.references import References
from hearback.tables import GRADES, TASKS
from hearback.texts import Reading, TextReader

WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE
UNKNOWN = -1.0  # of a word: nobody says whether this one was said

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


@dataclass(frozen=True)
class Text:
    """A text that is read against a recording, with what is known of its words.

    `said` (words,) float32: 1 where the recording says the word, 0 where not, UNKNOWN. `complete`
    (words + 1,) likewise: 1 where nothing is missing before the word, or at the end of the text.
    """

    reading: Reading
    said: np.ndarray
    complete: np.ndarray


@dataclass(frozen=True)
class Pair:
    """One clip as the model hears it.

    `waveform` is (samples,), float32 at 16 kHz, at most 16 s: the reference and then the learner
    where they are joined, else the learner. `reference` (samples,) is there where it is apart.
    `texts` are the expected text and what else is read against the same recording;
    `text_embedding` (width,) float32 is there where the text is a vector. `context` is (2,): what
    is known beside the sound. `row` is the clip's place in its table and `label` its score (NaN at
    inference); `made` says that the text is not the row's own, but one that was chosen because the
    recording does not say it.
    """

    waveform: np.ndarray
    context: np.ndarray
    row: int
    label: float = float("nan")
    made: bool = False
    reference: np.ndarray | None = None
    texts: tuple[Text, ...] = ()
    text_embedding: np.ndarray | None = None

    @property
    def n_samples(self) -> int:
        """What its window must hold."""
        return max(len(self.waveform), 0 if self.reference is None else len(self.reference))


@dataclass(frozen=True)
class TextBatch(Tensors):
    """Texts that are read against a batch's recordings: first each clip's own, in their order.

    `tokens` (texts, tokens) int64, padded with the end of text: the first `n_prompt` are the
    prompt, what follows are the targets, `n_targets` (texts,) of them. `words` (texts, targets)
    int64 says which word a target belongs to, the number of words for the end of text and after it.
    `n_words` (texts,), `clips` (texts,) say how many and against which recording. `said` (texts,
    most words) and `complete` (texts, most words + 1) are those of `Text`, UNKNOWN where there is
    no word.
    """

    tokens: Tensor
    n_prompt: int
    n_targets: Tensor
    words: Tensor
    n_words: Tensor
    clips: Tensor
    said: Tensor
    complete: Tensor


@dataclass(frozen=True)
class Batch(Tensors):
    """Pairs of one window length: `waveforms` (batch, window samples), the rest (batch, …).

    `references` (batch, window samples) and `n_reference_frames` are there where references are
    apart, `texts` where texts are read, `text_embeddings` (batch, width) where they are vectors.
    With `reference_of` (batch,) clips share references: it says which of them is a clip's. `frames`
    are what an encoder makes of the `sounds`, where that is known already.
    """

    waveforms: Tensor
    n_frames: Tensor
    context: Tensor
    labels: Tensor
    rows: Tensor
    made: Tensor
    references: Tensor | None = None
    n_reference_frames: Tensor | None = None
    texts: TextBatch | None = None
    text_embeddings: Tensor | None = None
    reference_of: Tensor | None = None
    frames: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.rows)

    @property
    def sounds(self) -> Tensor:
        """What is encoded: the waveforms, then the references where those are apart."""
        if self.references is None:
            return self.waveforms
        return torch.cat([self.waveforms, self.references])


def join(reference: np.ndarray, learner: np.ndarray) -> np.ndarray:
    """Join (samples,) and (samples,) to one waveform, reference first, cut at 16 s."""
    return np.concatenate([reference, learner[: max(0, WINDOW_SAMPLES - len(reference))]])[
        :WINDOW_SAMPLES
    ]


def encode_context(task: str, grade: str) -> np.ndarray:
    """Return (task id, grade id) / 4, float32, as the competition's winner had them."""
    return np.array([TASKS.index(task), GRADES.index(grade)], dtype=np.float32) / 4


def window_samples(n_samples: int, window: Literal["trimmed", "fixed"], step_seconds: float) -> int:
    """Return the length of the window that a pair of `n_samples` is heard in.

    "trimmed": its own length rounded up to a step, at most 16 s; "fixed": always 16 s. A step is
    rounded to whole encoder frames, so that every window is.
    """
    if window == "fixed":
        return WINDOW_SAMPLES
    step = max(1, round(step_seconds * SAMPLE_RATE / SAMPLES_PER_FRAME)) * SAMPLES_PER_FRAME
    return min(WINDOW_SAMPLES, -(-max(n_samples, 1) // step) * step)


def collate(pairs: Sequence[Pair], n_samples: int) -> Batch:
    """Lay pairs in one batch whose window is `n_samples` long, silence to the edge."""
    references = [pair.reference for pair in pairs if pair.reference is not None]
    embeddings = [pair.text_embedding for pair in pairs if pair.text_embedding is not None]
    return Batch(
        waveforms=_lay([pair.waveform for pair in pairs], n_samples),
        n_frames=_count_frames([pair.waveform for pair in pairs]),
        context=torch.from_numpy(np.stack([pair.context for pair in pairs])),
        labels=torch.tensor([pair.label for pair in pairs], dtype=torch.float32),
        rows=torch.tensor([pair.row for pair in pairs]),
        made=torch.tensor([pair.made for pair in pairs]),
        references=_lay(references, n_samples) if references else None,
        n_reference_frames=_count_frames(references) if references else None,
        texts=collate_texts([pair.texts for pair in pairs]) if pairs[0].texts else None,
        text_embeddings=torch.from_numpy(np.stack(embeddings)) if embeddings else None,
    )


def share_references(batch: Batch, texts: Sequence[str]) -> Batch:
    """Keep one reference for each text of a batch as `collate` lays it; `texts` are its clips'."""
    if batch.references is None:
        return batch
    place_of = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    first = [texts.index(text) for text in place_of]
    return replace(
        batch,
        references=batch.references[first],
        reference_of=torch.tensor([place_of[text] for text in texts]),
    )


def _lay(waveforms: Sequence[np.ndarray], n_samples: int) -> Tensor:
    laid = torch.zeros(len(waveforms), n_samples)
    for line, waveform in zip(laid, waveforms, strict=True):
        line[: len(waveform)] = torch.from_numpy(waveform)
    return laid


def _count_frames(waveforms: Sequence[np.ndarray]) -> Tensor:
    return torch.tensor([-(-len(waveform) // SAMPLES_PER_FRAME) for waveform in waveforms])


def collate_texts(of_clips: Sequence[Sequence[Text]]) -> TextBatch:
    """Lay the texts of a batch's clips in one: every clip's first, then what else there is."""
    order = [(texts[0], clip) for clip, texts in enumerate(of_clips)]
    order += [(text, clip) for clip, texts in enumerate(of_clips) for text in texts[1:]]
    texts = [text for text, _ in order]
    readings = [text.reading for text in texts]

    def lay(rows: Sequence[np.ndarray], padding: float) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(row) for row in rows], batch_first=True, padding_value=padding
        )

    words = lay([reading.words for reading in readings], -1)
    n_words = torch.tensor([reading.n_words for reading in readings])
    return TextBatch(
        tokens=lay([reading.tokens for reading in readings], int(readings[0].tokens[-1])),
        n_prompt=len(readings[0].tokens) - len(readings[0].words),
        n_targets=torch.tensor([len(reading.words) for reading in readings]),
        words=torch.where(words < 0, n_words[:, None], words),
        n_words=n_words,
        clips=torch.tensor([clip for _, clip in order]),
        said=lay([text.said for text in texts], UNKNOWN),
        complete=lay([text.complete for text in texts], UNKNOWN),
    )


def batched(
    pairs: Iterable[Pair],
    batch_size: int,
    window: Literal["trimmed", "fixed"],
    step_seconds: float,
    *,
    fill: bool = False,
) -> Iterator[Batch]:
    """Gather pairs by window length and give each batch as soon as it is full.

    What is left over at the end comes in smaller batches, longest window first; with `fill` it
    comes in full ones (but the last), in the window of the longest of each: a training step on a
    few clips is as long as one on many, and worse. No pair is lost or given twice. The order
    depends on the order of `pairs` alone.
    """
    waiting: dict[int, list[Pair]] = {}
    for pair in pairs:
        length = window_samples(pair.n_samples, window, step_seconds)
        waiting.setdefault(length, []).append(pair)
        if len(waiting[length]) == batch_size:
            yield collate(waiting.pop(length), length)
    left = [(length, waiting[length]) for length in sorted(waiting, reverse=True)]
    if fill:
        flat = [(length, pair) for length, of_length in left for pair in of_length]
        chunks = [flat[at : at + batch_size] for at in range(0, len(flat), batch_size)]
        left = [(chunk[0][0], [pair for _, pair in chunk]) for chunk in chunks]
    for length, of_length in left:
        yield collate(of_length, length)


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
class Draw:
    """A clip and the text that it is compared with.

    `made` says that this is not the row's own text, but one that the clip does not say; `others`
    are such texts that are read against the same recording, where the model reads.
    """

    row: int
    text: str
    label: float = float("nan")
    made: bool = False
    others: tuple[OtherText, ...] = ()


class PairDataset(SizedDataset[Pair]):
    """Draws as pairs, augmented or as they are.

    `reader` is needed where the model reads, `embedder` where it takes texts as vectors: of the
    draws' texts, all at once. `augmentations` are the reference's and the learner's; their
    randomness comes from `seeds` and the draw's place: it does not depend on the number of workers.
    """

    def __init__(
        self,
        source: PairSource,
        draws: Sequence[Draw],
        pairing: Pairing,
        *,
        reader: TextReader | None = None,
        embedder: TextEmbedder | None = None,
        augmentations: tuple[Augmentation, Augmentation] | None = None,
        seeds: tuple[int, ...] = (),
    ) -> None:
        self.source = source
        self.draws = draws
        self.pairing = pairing
        self.reader = reader
        self.augmentations = augmentations
        self.seeds = seeds
        # Vectors, not the embedder itself: that would be copied to every worker.
        self.embeddings = embedder.embed(draw.text for draw in draws) if embedder else {}

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.draws)

    def __getitem__(self, index: int) -> Pair:
        """Build the `index`-th pair."""
        draw = self.draws[index]
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
            draw.made,
        )
        if self.pairing in WITH_TEXT_EMBEDDING:
            return replace(pair, text_embedding=self.embeddings[draw.text])
        if reference is None:
            return replace(pair, texts=self._texts(draw))
        if self.pairing == "joined":
            return replace(pair, waveform=join(reference, learner))
        return replace(pair, reference=reference[:WINDOW_SAMPLES])

    def _texts(self, draw: Draw) -> tuple[Text, ...]:
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
