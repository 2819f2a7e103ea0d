"""Expected texts and learners as the models take them in; clips in batches of one window length."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.batching import Tensors
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, WINDOW_SECONDS
from hearback.engine.whisper.tokenizer import Reading

WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE
UNKNOWN = -1.0  # of a word: nobody says whether this one was said


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
    inference); `is_negative` says that the text is not the row's own, but one that was chosen because the
    recording does not say it.
    """

    waveform: np.ndarray
    context: np.ndarray
    row: int
    label: float = float("nan")
    is_negative: bool = False
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
    is_negative: Tensor
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
        is_negative=torch.tensor([pair.is_negative for pair in pairs]),
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
