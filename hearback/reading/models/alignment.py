"""Align two sequences of frames by dynamic time warping, and describe the path.

Dynamic time warping (DTW; Sakoe & Chiba, "Dynamic programming algorithm optimization for spoken
word recognition", IEEE Trans. ASSP 26, 1978) matches each frame of the learner to a frame of the
reference. A replaced word has a high cost. Where a word is omitted, many frames of the reference
match a few frames of the learner; where a word is inserted, the reverse. The features of a path
follow Lee & Glass, "A comparison-based approach to mispronunciation detection", SLT 2012.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from hearback.engine.whisper.encoder import FRAMES_PER_SECOND, SAMPLES_PER_FRAME

DIAGONAL_WEIGHT = 2.0  # a diagonal step counts twice (Sakoe & Chiba's symmetric form)
SPEED_FRAMES = (8, 15, 30)  # spans, in frames, over which the local speed is measured
SILENCE_DB = -40.0  # relative to the reference's loudest frame: quieter frames are silence

PATH_FEATURES = (
    "log_length_ratio",
    "log_reference_length",
    "diagonal_share",
    "reference_only_share",
    "learner_only_share",
    "longest_reference_only",
    "longest_learner_only",
    "largest_detour",
    "mean_detour",
    *(
        f"{side}_{what}_{frames}"
        for side in ("reference", "learner")
        for frames in SPEED_FRAMES
        for what in ("slowest", "fastest", "uneven")
    ),
)


@dataclass(frozen=True)
class AlignmentPath:
    """The alignment of a learner with its reference.

    Attributes:
        reference: (steps,) frame indices, nondecreasing; `FRAMES_PER_SECOND` frames per second.
        learner: (steps,) frame indices, nondecreasing.
        costs: (steps,) cosine distances of the aligned frames, 0 to 2.
    """

    reference: NDArray[np.int64]
    learner: NDArray[np.int64]
    costs: NDArray[np.float32]

    def cost_between(self, start: float, end: float) -> float:
        """Return the mean cost from `start` to `end`, in seconds of the reference; NaN if empty."""
        inside = (self.reference >= start * FRAMES_PER_SECOND) & (
            self.reference < end * FRAMES_PER_SECOND
        )
        return float(self.costs[inside].mean()) if inside.any() else float("nan")

    def learner_between(self, start: float, end: float) -> tuple[float, float]:
        """Map an interval of the reference to the learner's, (start, end) in seconds each."""
        first = np.searchsorted(self.reference, int(start * FRAMES_PER_SECOND))
        last = np.searchsorted(self.reference, int(np.ceil(end * FRAMES_PER_SECOND)))
        frames = self.learner[min(first, len(self.learner) - 1) : max(last, first + 1)]
        return frames[0] / FRAMES_PER_SECOND, (frames[-1] + 1) / FRAMES_PER_SECOND


@numba.njit(nogil=True)
def dtw(
    costs: NDArray[np.float32], n_rows: NDArray[np.int64], n_columns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Dynamic time warping: the cheapest monotonic paths from corner to corner.

    A path steps down, right, or both at once; a diagonal step counts `DIAGONAL_WEIGHT` times, so
    that the weights of all paths have the same sum.

    Args:
        costs: (batch, rows, columns).
        n_rows: (batch,), number of valid rows of each matrix.
        n_columns: (batch,), number of valid columns of each matrix.

    Returns:
        Rows and columns of the paths, (batch, rows + columns - 1) each, padded with the last cell,
        and the paths' lengths, (batch,).
    """
    n_batch, most_rows, most_columns = costs.shape
    rows = np.zeros((n_batch, most_rows + most_columns - 1), np.int64)
    columns = np.zeros_like(rows)
    lengths = np.zeros(n_batch, np.int64)
    total = np.empty((most_rows, most_columns))
    came_from = np.empty((most_rows, most_columns), np.int8)  # 0: both, 1: down, 2: right
    for b in range(n_batch):
        for i in range(n_rows[b]):
            for j in range(n_columns[b]):
                cost = costs[b, i, j]
                if i == 0 and j == 0:
                    total[i, j] = DIAGONAL_WEIGHT * cost
                    continue
                cheapest = np.inf
                step = 0
                if i > 0 and j > 0:
                    cheapest = total[i - 1, j - 1] + DIAGONAL_WEIGHT * cost
                if i > 0 and total[i - 1, j] + cost < cheapest:
                    cheapest = total[i - 1, j] + cost
                    step = 1
                if j > 0 and total[i, j - 1] + cost < cheapest:
                    cheapest = total[i, j - 1] + cost
                    step = 2
                total[i, j] = cheapest
                came_from[i, j] = step
        # Backtrack: fill the arrays from their end, then move the path to their start.
        position = rows.shape[1] - 1
        i, j = n_rows[b] - 1, n_columns[b] - 1
        rows[b, position], columns[b, position] = i, j
        while i > 0 or j > 0:
            step = came_from[i, j]
            if step != 2:
                i -= 1
            if step != 1:
                j -= 1
            position -= 1
            rows[b, position], columns[b, position] = i, j
        length = rows.shape[1] - position
        for k in range(rows.shape[1]):
            source = min(position + k, rows.shape[1] - 1)
            rows[b, k], columns[b, k] = rows[b, source], columns[b, source]
        lengths[b] = length
    return rows, columns, lengths


def path_features(reference: NDArray[np.int64], learner: NDArray[np.int64]) -> list[float]:
    """Compute `PATH_FEATURES`, which describe a path's shape independently of its costs.

    Args:
        reference: (steps,) frame indices along the path.
        learner: (steps,) frame indices along the path.
    """
    n_reference, n_learner = reference[-1] + 1, learner[-1] + 1
    forward, onward = np.diff(reference), np.diff(learner)
    reference_only, learner_only = onward == 0, forward == 0
    # Mean aligned frame of the learner for each frame of the reference, and the reverse.
    to_learner = np.bincount(reference, learner) / np.bincount(reference)
    to_reference = np.bincount(learner, reference) / np.bincount(learner)
    detour = np.abs(to_learner - np.linspace(0, n_learner - 1, n_reference)) / n_learner
    values = [
        np.log(n_learner / n_reference),
        np.log(n_reference),
        1 - (reference_only.sum() + learner_only.sum()) / max(1, len(forward)),
        reference_only.sum() / n_reference,
        learner_only.sum() / n_learner,
        _longest_run(reference_only),
        _longest_run(learner_only),
        detour.max(),
        detour.mean(),
    ]
    for aligned in (to_learner, to_reference):
        for frames in SPEED_FRAMES:
            width = min(frames, len(aligned) - 1)
            speed = np.log((aligned[width:] - aligned[: len(aligned) - width] + 1) / (width + 1))
            median = np.median(speed)
            values += [speed.min() - median, speed.max() - median, speed.std()]
    return [float(value) for value in values]


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def word_spans(reference: NDArray[np.float32], text: str) -> list[tuple[float, float]]:
    """Estimate the interval of each word in its rendered reference.

    Voices do not report word timings. This estimate divides the time that is not silent in
    proportion to each word's letters and digits plus one (short words take longer than their number
    of letters suggests). It is too coarse to cut words out.

    Args:
        reference: (samples,) at 16 kHz.
        text: its text.

    Returns:
        (start, end) of each word, in seconds.

    Raises:
        ValueError: the text has no word or the reference is silent.
    """
    words = text.split()
    if not words:
        raise ValueError("the text has no word")
    n_frames = -(-len(reference) // SAMPLES_PER_FRAME)
    padded = np.pad(reference, (0, n_frames * SAMPLES_PER_FRAME - len(reference)))
    power = np.square(padded, dtype=np.float64).reshape(n_frames, -1).mean(1)
    voiced = power > power.max(initial=0) * 10 ** (SILENCE_DB / 10)
    if not voiced.any():
        raise ValueError("the reference is silent: it has no word")
    # Share of the voiced time before each frame's start.
    elapsed = np.concatenate([[0.0], np.cumsum(voiced)]) / voiced.sum()
    letters = np.array([1 + sum(map(str.isalnum, word)) for word in words])
    shares = np.concatenate([[0.0], np.cumsum(letters) / letters.sum()])
    # A word starts after and ends before the silence around it.
    edges = np.arange(n_frames + 1) / FRAMES_PER_SECOND
    tolerance = 1e-9
    starts = [edges[np.searchsorted(elapsed, share + tolerance) - 1] for share in shares[:-1]]
    ends = [edges[np.searchsorted(elapsed, share - tolerance)] for share in shares[1:]]
    return [(float(start), float(end)) for start, end in zip(starts, ends, strict=True)]
