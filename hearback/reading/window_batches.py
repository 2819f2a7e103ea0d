"""Batches of one window length: pairs and labelled texts, collated and padded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.batching import BatchPart, Items, Tensors
from hearback.engine.whisper.encoder import (
    LONGEST_WINDOW_SECONDS,
    SAMPLES_PER_FRAME,
    WINDOW_SECONDS,
)
from hearback.engine.whisper.tokenizer import TokenizedText

if TYPE_CHECKING:  # which import this module
    from hearback.reading.models.phone_head import PhoneEvidence
    from hearback.reading.models.token_head import DecoderOutput

WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE
LONGEST_WINDOW_SAMPLES = LONGEST_WINDOW_SECONDS * SAMPLE_RATE
UNKNOWN = -1.0  # word target of a word without a label


@dataclass(frozen=True)
class LabelledText:
    """A tokenized text with word targets, where they are known.

    Attributes:
        tokenized: the text.
        said: (words,) float32 targets: 1 if the learner says the word, 0 if not, the share of
            experts who accept it, or UNKNOWN.
        complete: (words + 1,) float32 targets: 1 if no word is missing before this word (last
            entry: at the end of the text), 0 if one is missing, or UNKNOWN.
        phones: (targets,) float32, of a text of phones: the share of experts who accept each, or
            UNKNOWN; None if all are unknown.
    """

    tokenized: TokenizedText
    said: np.ndarray
    complete: np.ndarray
    phones: np.ndarray | None = None


@dataclass(frozen=True)
class Encoding:
    """A recording's encoder output, if it was computed before (`hearback.reading.encoded`).

    Attributes:
        frames: (frames, width) float16, of the whole window.
        n_frames: number of frames before the window's padding.
    """

    frames: np.ndarray
    n_frames: int


@dataclass(frozen=True)
class Pair:
    """A learner's recording with its expected text: one input of the model.

    Attributes:
        waveform: (samples,) float32 at 16 kHz, at most 16 s (models that hear it alone: 30 s): the
            learner; for "joined" pairs the reference followed by the learner.
        context: (2,) float32: task and grade (`pairs.encode_context`).
        row: index in the table.
        label: 0 or 1, or a probability in training; NaN at inference.
        is_negative: the text is a sampled one that the recording does not say.
        reference: (samples,) float32 at 16 kHz, if it is encoded separately.
        texts: for models that score words: the expected text first, then hard negatives.
        text_embedding: (width,) float32, if the text is compared as a vector.
        encoding: the recording's encoder output, in place of its waveform, which is then empty.
    """

    waveform: np.ndarray
    context: np.ndarray
    row: int
    label: float = float("nan")
    is_negative: bool = False
    reference: np.ndarray | None = None
    texts: tuple[LabelledText, ...] = ()
    text_embedding: np.ndarray | None = None
    encoding: Encoding | None = None

    @property
    def n_samples(self) -> int:
        """Number of samples that the window must hold."""
        if self.encoding is not None:
            return len(self.encoding.frames) * SAMPLES_PER_FRAME
        return max(len(self.waveform), 0 if self.reference is None else len(self.reference))


@dataclass(frozen=True)
class TextBatch(Tensors):
    """The texts of a batch: first the expected text of each clip, in the clips' order.

    Attributes:
        tokens: (texts, tokens) int64, padded with the end of text. The first `n_prompt` tokens are
            the prompt, the rest are targets.
        n_prompt: number of prompt tokens, the same for all texts.
        n_targets: (texts,) int64, number of targets: the text's tokens and the end of text.
        word_ids: (texts, targets) int64, index of each target's word; `n_words` for the end of text
            and the padding.
        n_words: (texts,) int64.
        clips: (texts,) int64, index of each text's recording in the batch.
        said: (texts, max words) float32, as in `LabelledText`; UNKNOWN in the padding.
        complete: (texts, max words + 1) float32, as in `LabelledText`; UNKNOWN in the padding.
        targets: (2, targets of all texts) int64, text and position of each, without the padding:
            found here, so that no device has to search for them.
        phones: (texts, targets) float32, as in `LabelledText`; None if all are unknown.
    """

    tokens: Tensor
    n_prompt: int
    n_targets: Tensor
    word_ids: Tensor
    n_words: Tensor
    clips: Tensor
    said: Tensor
    complete: Tensor
    targets: Tensor
    phones: Tensor | None = None

    def select(self, indices: Tensor) -> "TextBatch":
        """Return the texts at these indices, with the same padding and the same `clips`."""
        selected = super(TextBatch, replace(self, targets=self.tokens)).select(indices)
        return replace(selected, targets=_target_places(selected.n_targets, selected.word_ids))


@dataclass(frozen=True)
class Batch(Tensors):
    """Pairs of one window length.

    Attributes:
        waveforms: (batch, samples) float32, zero-padded to the window.
        n_frames: (batch,) int64, number of encoder frames before the padding.
        context: (batch, 2) float32.
        labels: (batch,) float32.
        rows: (batch,) int64.
        is_negative: (batch,) bool.
        references: (batch, samples) float32 or, with `reference_index`, (references, samples).
        n_reference_frames: (batch,) int64.
        texts: the texts of models that score words.
        text_embeddings: (batch, width) float32.
        reference_index: (batch,) int64, each clip's row in `references`, if clips share them.
        frames: (waveforms + references, frames, width), the output of the encoder for
            `encoder_waveforms`, if it was computed before.
        decoded: the output of the model's decoder for `frames` and `texts`, if it was computed
            before.
        evidence: the evidence for the phones of `texts`, if it was computed before.
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
    reference_index: Tensor | None = None
    frames: Tensor | None = None
    decoded: "DecoderOutput | None" = None
    evidence: "PhoneEvidence | None" = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.rows)

    @property
    def encoder_waveforms(self) -> Tensor:
        """The encoder's input: all waveforms, then all separate references; (…, samples)."""
        if self.references is None:
            return self.waveforms
        return torch.cat([self.waveforms, self.references])

    def split(self, n_examples: int) -> list[BatchPart["Batch"]]:
        """Split a training batch on the CPU into parts of at most `n_examples` pairs, in order.

        Windows and texts are padded as in the whole batch. The items are pairs, with references
        also both sides of pairs, and texts. Raises ValueError for a batch of inference.
        """
        if self.reference_index is not None or self.decoded is not None:
            raise ValueError("only batches of training are split")
        return [self._part(pairs) for pairs in torch.arange(len(self)).split(n_examples)]

    def _part(self, pairs: Tensor) -> BatchPart["Batch"]:
        """Return the part with these pairs, consecutive ones."""
        items = [Items(pairs, len(self))]
        part = super(Batch, replace(self, texts=None, frames=None)).select(pairs)
        encoded = pairs
        if self.references is not None:
            encoded = torch.cat([pairs, len(self) + pairs])
            items.append(Items(encoded, 2 * len(self)))
        if self.frames is not None:
            part = replace(part, frames=self.frames[encoded])
        if self.texts is not None:
            texts = torch.isin(self.texts.clips, pairs).nonzero().squeeze(1)
            selected = self.texts.select(texts)
            part = replace(part, texts=replace(selected, clips=selected.clips - pairs[0]))
            items.append(Items(texts, len(self.texts.tokens)))
        return BatchPart(part, tuple(items))


def window_samples(
    n_samples: int,
    window: Literal["trimmed", "fixed"],
    step_seconds: float,
    longest: int = WINDOW_SAMPLES,
) -> int:
    """Return the window length, in samples, for a pair of `n_samples`.

    "trimmed": `n_samples` rounded up to a multiple of the step, at most `longest`; "fixed": always
    16 s, or where `longest` is more, `longest` for pairs that are longer. The step is rounded to a
    whole number of encoder frames.
    """
    if window == "fixed":
        return WINDOW_SAMPLES if n_samples <= WINDOW_SAMPLES else longest
    step = max(1, round(step_seconds * SAMPLE_RATE / SAMPLES_PER_FRAME)) * SAMPLES_PER_FRAME
    return min(longest, -(-max(n_samples, 1) // step) * step)


def collate(pairs: Sequence[Pair], n_samples: int) -> Batch:
    """Collate pairs into a batch, zero-padded to a window of `n_samples`."""
    references = [pair.reference for pair in pairs if pair.reference is not None]
    embeddings = [pair.text_embedding for pair in pairs if pair.text_embedding is not None]
    encodings = [pair.encoding for pair in pairs if pair.encoding is not None]
    n_frames = _count_frames([pair.waveform for pair in pairs])
    return Batch(
        waveforms=pad_waveforms([pair.waveform for pair in pairs], n_samples),
        n_frames=torch.tensor([each.n_frames for each in encodings]) if encodings else n_frames,
        context=torch.from_numpy(np.stack([pair.context for pair in pairs])),
        labels=torch.tensor([pair.label for pair in pairs], dtype=torch.float32),
        rows=torch.tensor([pair.row for pair in pairs]),
        is_negative=torch.tensor([pair.is_negative for pair in pairs]),
        references=pad_waveforms(references, n_samples) if references else None,
        n_reference_frames=_count_frames(references) if references else None,
        texts=collate_texts([pair.texts for pair in pairs]) if pairs[0].texts else None,
        text_embeddings=torch.from_numpy(np.stack(embeddings)) if embeddings else None,
        frames=_pad_frames(encodings, n_samples // SAMPLES_PER_FRAME) if encodings else None,
    )


def deduplicate_references(batch: Batch, texts: Sequence[str]) -> Batch:
    """Keep one reference per distinct text and set `reference_index`.

    Args:
        batch: a batch from `collate`; returned unchanged if it has no references.
        texts: the expected text of each of its clips.
    """
    if batch.references is None:
        return batch
    index_of = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    first = [texts.index(text) for text in index_of]
    return replace(
        batch,
        references=batch.references[first],
        reference_index=torch.tensor([index_of[text] for text in texts]),
    )


def pad_waveforms(waveforms: Sequence[np.ndarray], n_samples: int) -> Tensor:
    """Stack waveforms, (samples,) each, with zeros after them: (waveforms, n_samples) float32."""
    padded = torch.zeros(len(waveforms), n_samples)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return padded


def _pad_frames(encodings: Sequence[Encoding], n_frames: int) -> Tensor:
    """Stack encoder outputs: (encodings, n_frames, width) float32.

    A shorter window is prolonged by its last frame, which is silence in most windows.
    """
    padded = [
        np.pad(each.frames, ((0, n_frames - len(each.frames)), (0, 0)), mode="edge")
        for each in encodings
    ]
    return torch.from_numpy(np.stack(padded)).float()


def _count_frames(waveforms: Sequence[np.ndarray]) -> Tensor:
    return torch.tensor([-(-len(waveform) // SAMPLES_PER_FRAME) for waveform in waveforms])


def collate_texts(texts_by_clip: Sequence[Sequence[LabelledText]]) -> TextBatch:
    """Collate the texts of a batch: the first text of every clip, then the remaining texts."""
    order = [(texts[0], clip) for clip, texts in enumerate(texts_by_clip)]
    order += [(text, clip) for clip, texts in enumerate(texts_by_clip) for text in texts[1:]]
    texts = [text for text, _ in order]
    tokenized = [text.tokenized for text in texts]

    def pad(rows: Sequence[np.ndarray], padding: float) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(row) for row in rows], batch_first=True, padding_value=padding
        )

    word_ids = pad([text.word_ids for text in tokenized], -1)
    n_words = torch.tensor([text.n_words for text in tokenized])
    n_targets = torch.tensor([len(text.word_ids) for text in tokenized])
    return TextBatch(
        tokens=pad([text.tokens for text in tokenized], int(tokenized[0].tokens[-1])),
        n_prompt=len(tokenized[0].tokens) - len(tokenized[0].word_ids),
        n_targets=n_targets,
        word_ids=torch.where(word_ids < 0, n_words[:, None], word_ids),
        n_words=n_words,
        clips=torch.tensor([clip for _, clip in order]),
        said=pad([text.said for text in texts], UNKNOWN),
        complete=pad([text.complete for text in texts], UNKNOWN),
        targets=_target_places(n_targets, word_ids),
        phones=pad([_phones(text) for text in texts], UNKNOWN)
        if any(text.phones is not None for text in texts)
        else None,
    )


def _target_places(n_targets: Tensor, word_ids: Tensor) -> Tensor:
    """Return `TextBatch.targets`."""
    return (torch.arange(word_ids.shape[1]) < n_targets[:, None]).nonzero().T.contiguous()


def _phones(text: LabelledText) -> np.ndarray:
    if text.phones is not None:
        return text.phones
    return np.full(len(text.tokenized.word_ids), UNKNOWN, dtype=np.float32)


def batch_by_window(
    pairs: Iterable[Pair],
    batch_size: int,
    window: Literal["trimmed", "fixed"],
    step_seconds: float,
    *,
    longest: int = WINDOW_SAMPLES,
    fill: bool = False,
) -> Iterator[Batch]:
    """Group pairs by window length and yield each batch as soon as it is full.

    Every pair is in exactly one batch. The order of the batches depends only on the order of the
    pairs.

    Args:
        pairs: the pairs to batch.
        batch_size: pairs per batch; fewer in windows of over 16 s, to bound the memory
            (`pairs_per_batch`).
        window: see `window_samples`.
        step_seconds: see `window_samples`.
        longest: see `window_samples`.
        fill: merge the incomplete batches that remain at the end into full ones, each with its
            longest window. Training uses it, because a step on a few clips is as long as a step on
            many, but noisier. Otherwise they are yielded unchanged, longest window first.
    """
    waiting: dict[int, list[Pair]] = {}
    for pair in pairs:
        length = window_samples(pair.n_samples, window, step_seconds, longest)
        waiting.setdefault(length, []).append(pair)
        if len(waiting[length]) == pairs_per_batch(batch_size, length):
            yield collate(waiting.pop(length), length)
    remaining = [(length, waiting[length]) for length in sorted(waiting, reverse=True)]
    if fill:
        remaining = _merge(remaining, batch_size)
    for length, members in remaining:
        yield collate(members, length)


def pairs_per_batch(batch_size: int, n_samples: int) -> int:
    """Return the number of pairs in a batch of windows of `n_samples`.

    It is `batch_size` up to 16 s; longer windows are as many as have `batch_size` × 16 s in all.
    """
    return max(1, batch_size * WINDOW_SAMPLES // max(n_samples, WINDOW_SAMPLES))


def _merge(
    batches: Sequence[tuple[int, list[Pair]]], batch_size: int
) -> list[tuple[int, list[Pair]]]:
    """Return full batches, and perhaps a last one that is not, of the pairs of incomplete ones.

    They are given longest window first.
    """
    flat = [(length, pair) for length, members in batches for pair in members]
    merged = []
    while flat:
        longest = flat[0][0]
        n_pairs = pairs_per_batch(batch_size, longest)
        merged.append((longest, [pair for _, pair in flat[:n_pairs]]))
        flat = flat[n_pairs:]
    return merged
