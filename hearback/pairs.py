"""Reference and learner in one waveform; waveforms in batches of one window length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hearback.audio import SAMPLE_RATE, Store
from hearback.augment import Augmentation
from hearback.encoder import SAMPLES_PER_FRAME, WINDOW_SECONDS
from hearback.references import References
from hearback.tables import GRADES, TASKS

WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE


@dataclass(frozen=True)
class Pair:
    """One clip as the model hears it.

    `waveform` is (samples,), float32 at 16 kHz: the reference, then the learner, cut at 16 s.
    `context` is (2,): what is known beside the sound. `row` is the clip's place in its table and
    `label` its score (NaN at inference).
    """

    waveform: np.ndarray
    context: np.ndarray
    row: int
    label: float = float("nan")


@dataclass(frozen=True)
class Batch:
    """Pairs of one window length: `waveforms` (batch, window samples), the rest (batch, …)."""

    waveforms: Tensor
    n_frames: Tensor
    context: Tensor
    labels: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.rows)

    def to(self, device: torch.device) -> "Batch":
        """Move the tensors, without waiting where their memory is pinned."""
        return Batch(**{k: v.to(device, non_blocking=True) for k, v in vars(self).items()})

    def pin_memory(self) -> "Batch":
        """Pin the tensors' memory, so that `to` need not wait."""
        return Batch(**{k: v.pin_memory() for k, v in vars(self).items()})


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


def collate(pairs: list[Pair], n_samples: int) -> Batch:
    """Lay pairs in one batch whose window is `n_samples` long, silence to the edge."""
    waveforms = torch.zeros(len(pairs), n_samples)
    for line, pair in zip(waveforms, pairs, strict=True):
        line[: len(pair.waveform)] = torch.from_numpy(pair.waveform)
    n_frames = [-(-len(pair.waveform) // SAMPLES_PER_FRAME) for pair in pairs]
    return Batch(
        waveforms=waveforms,
        n_frames=torch.tensor(n_frames),
        context=torch.from_numpy(np.stack([pair.context for pair in pairs])),
        labels=torch.tensor([pair.label for pair in pairs], dtype=torch.float32),
        rows=torch.tensor([pair.row for pair in pairs]),
    )


def batched(
    pairs: Iterable[Pair],
    batch_size: int,
    window: Literal["trimmed", "fixed"],
    step_seconds: float,
) -> Iterator[Batch]:
    """Gather pairs by window length and give each batch as soon as it is full.

    What is left over at the end comes in smaller batches, longest window first; no pair is lost or
    given twice. The order depends on the order of `pairs` alone.
    """
    waiting: dict[int, list[Pair]] = {}
    for pair in pairs:
        length = window_samples(len(pair.waveform), window, step_seconds)
        waiting.setdefault(length, []).append(pair)
        if len(waiting[length]) == batch_size:
            yield collate(waiting.pop(length), length)
    for length in sorted(waiting, reverse=True):
        yield collate(waiting[length], length)


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

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.filenames)

    def reference(self, row: int) -> np.ndarray:
        """Return the reference of a row's text, (samples,) float32 at 16 kHz."""
        return self.references.waveform(self.texts[row])

    def learner(self, row: int) -> np.ndarray:
        """Return a row's recording, (samples,) float32 at 16 kHz."""
        return self.store.get(self.filenames[row])

    def n_samples(self, row: int) -> int:
        """Return the length of a row's pair before it is cut to 16 s."""
        reference = self.references.n_samples(self.texts[row])
        return reference + self.store.n_samples(self.filenames[row])


class PairDataset(torch.utils.data.Dataset[Pair]):
    """Learners with their own or with other rows' texts, augmented or as they are.

    `augmentations` are the reference's and the learner's. Their randomness comes from `seeds` and
    the row: it depends neither on the number of workers nor on the order.
    """

    def __init__(
        self,
        source: PairSource,
        learners: np.ndarray,
        texts: np.ndarray,
        augmentations: tuple[Augmentation, Augmentation] | None = None,
        seeds: tuple[int, ...] = (),
    ) -> None:
        self.source = source
        self.learners, self.texts = learners, texts
        self.augmentations = augmentations
        self.seeds = seeds

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.learners)

    def __getitem__(self, index: int) -> Pair:
        """Build the `index`-th pair; a learner with another row's text has the label 0."""
        row, text_row = int(self.learners[index]), int(self.texts[index])
        reference = self.source.reference(text_row)
        learner = self.source.learner(row)
        if self.augmentations is not None:
            rng = np.random.default_rng((*self.seeds, row, text_row))
            augment_reference, augment_learner = self.augmentations
            reference = augment_reference.apply(reference, rng)
            learner = augment_learner.apply(learner, rng)
        said = self.source.texts[row] == self.source.texts[text_row]
        label = float(self.source.labels[row]) if said else 0.0
        return Pair(join(reference, learner), self.source.contexts[row], row, label)
