"""What is sent to the workers of a cluster, and what they return. Without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hearback.engine.audio.store_builder import Found
from hearback.engine.data.problems import Problem
from hearback.reading.inference.batch_plan import PlannedBatch

CHUNK_ROWS = 2000  # of the table that are decoded, or checked, at once
SHARD_ROWS = 1000  # a shard ends with the batch that reaches as many
N_EVIDENCE = 5  # numbers that a row's evidence has
SHARDS_PER_WORKER = 8  # at least, so that all workers end at about the same time


@dataclass(frozen=True)
class InputFormat:
    """Folds that share input batches.

    Attributes:
        folds: their numbers among those of the ensemble.
        batch_seconds: seconds of windows in a batch.
        has_reference_windows: references have windows of their own.
    """

    folds: tuple[int, ...]
    batch_seconds: float
    has_reference_windows: bool


@dataclass(frozen=True)
class EnsemblePlan:
    """What the process without torch needs to know of an ensemble's folds.

    Attributes:
        formats: in the order in which they run.
        hears_reference: some model hears reference speech.
        embeds_texts: some model compares vectors of texts.
        corrects_longer: scores of recordings of over 16 s are corrected for their length.
        n_measured: number of recordings that are compared with those of the training.
    """

    formats: tuple[InputFormat, ...]
    hears_reference: bool
    embeds_texts: bool
    corrects_longer: bool
    n_measured: int


@dataclass(frozen=True)
class StoredRows:
    """Rows of the test table with their decoded recordings.

    Attributes:
        metadata: (rows) of `read_metadata`.
        paths: data files of stores.
        files: (rows,) int, index in `paths`.
        offsets: (rows,) int, of the first sample.
        n_samples: (rows,) int.
    """

    metadata: pd.DataFrame
    paths: Sequence[str]
    files: np.ndarray
    offsets: np.ndarray
    n_samples: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.metadata)

    def take(self, rows: np.ndarray) -> "StoredRows":
        """Return some rows, with the files that they need."""
        used, files = np.unique(self.files[rows], return_inverse=True)
        return StoredRows(
            self.metadata.iloc[rows].reset_index(drop=True),
            [self.paths[file] for file in used],
            files,
            self.offsets[rows],
            self.n_samples[rows],
        )


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of the test table, to decode.

    Attributes:
        number: from 0.
        metadata: the rows.
        faulty: lines of rows that cannot be scored, whatever their recording is.
        found: the recordings' files; None: the worker looks for them.
    """

    number: int
    metadata: pd.DataFrame
    faulty: frozenset[int | None]
    found: Found | None = None


@dataclass(frozen=True)
class Decoded:
    """A decoded chunk.

    Attributes:
        rows: (usable,) int, of the chunk, that can be scored.
        path: data file of the store.
        offsets: (usable,) int, of the first sample.
        n_samples: (usable,) int.
        windows: (formats, usable) int32, window lengths in samples.
        unsafe: problems of names that lead out of the folder.
        decoding: problems of the recordings.
        uncovered: problems of recordings that do not fit in the windows.
    """

    rows: np.ndarray
    path: str
    offsets: np.ndarray
    n_samples: np.ndarray
    windows: np.ndarray
    unsafe: Sequence[Problem]
    decoding: Sequence[Problem]
    uncovered: Sequence[Problem]


@dataclass(frozen=True)
class Group:
    """Folds that run side by side.

    Attributes:
        folds: their numbers among those of the ensemble.
        started: models with folds in an earlier group.
        collects_evidence: returns what its token scorers' decoders tell beside the score.
        texts: file with the texts of all rows, if models compare vectors of them: a vector depends
            a little on those computed with it.
    """

    folds: tuple[int, ...]
    started: frozenset[str]
    collects_evidence: bool
    texts: str | None


@dataclass(frozen=True)
class Shard:
    """Batches to score with a group of folds.

    Attributes:
        group: the folds.
        rows: (rows,) int, numbers of the rows among the usable ones.
        stored: the rows.
        batches: with indices among the shard's rows.
        n_positions: of words (`predict.score_with_words`).
        with_words: the scores of words are wanted.
    """

    group: Group
    rows: np.ndarray
    stored: StoredRows
    batches: Sequence[PlannedBatch]
    n_positions: int
    with_words: bool


@dataclass(frozen=True)
class ShardScores:
    """Scores of a shard's rows.

    Attributes:
        parts: name of a model, and what to add to the sums of its folds, in this order: (rows, 1)
            or, with words, (rows, 1 + 2 positions) float64.
        evidence: (rows, N_EVIDENCE), the fields of `DecoderEvidence` without times; None if no
            model tells.
    """

    parts: Sequence[tuple[str, np.ndarray]]
    evidence: np.ndarray | None


@dataclass(frozen=True)
class ScoredRows:
    """Consecutive rows with scores, to find what is to be said about them.

    Attributes:
        start: number of the first one among the usable rows.
        stored: the rows.
        probabilities: (rows,).
        evidence: (rows, N_EVIDENCE) as in `ShardScores`, NaN where unknown.
    """

    start: int
    stored: StoredRows
    probabilities: np.ndarray
    evidence: np.ndarray


@dataclass(frozen=True)
class WordRows:
    """Rows whose words are written.

    Attributes:
        number: of this part of the table, from 0; the first one begins with the header.
        metadata: the rows.
        log_odds: (rows, positions, 2), the ensemble's means.
        statuses: (rows,).
        quotes_texts: all texts are in quotes.
    """

    number: int
    metadata: pd.DataFrame
    log_odds: np.ndarray
    statuses: Sequence[str]
    quotes_texts: bool


@dataclass(frozen=True)
class UsableRows:
    """The rows that can be scored, and the window of each, (formats, rows) int32."""

    stored: StoredRows
    windows: np.ndarray

    @property
    def texts(self) -> list[str]:
        """Their texts."""
        return self.stored.metadata["expected_text"].tolist()


def group_batches(
    batches: Iterator[PlannedBatch], n_rows: int
) -> Iterator[tuple[np.ndarray, list[PlannedBatch]]]:
    """Yield consecutive batches that have `n_rows` or more in all, and the rows of each group.

    The indices of the batches are then among these rows, (rows,) int.
    """
    rows: list[int] = []
    members: list[PlannedBatch] = []
    for batch in batches:
        own = list(range(len(rows), len(rows) + len(batch.indices)))
        members.append(PlannedBatch(own, batch.n_samples, batch.n_windows))
        rows += batch.indices
        if len(rows) >= n_rows:
            yield np.array(rows, dtype=np.int64), members
            rows, members = [], []
    if rows:
        yield np.array(rows, dtype=np.int64), members


def slices(n_rows: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` rows."""
    for start in range(0, n_rows, size):
        yield slice(start, min(n_rows, start + size))
