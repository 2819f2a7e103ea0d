"""Where in a recording a decoder finds each token of a text: its cross-attention, aligned.

Some heads of Whisper's cross-attention look at the frames of the token that is predicted next. The
monotonic path with the most attention gives each token its first frame, as in `timing.py` of
openai/whisper: the weights are standardised over the tokens, smoothed over the frames, averaged
over the heads, and aligned by dynamic time warping.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from hearback.engine.whisper.decoder import DecoderConfig

Heads = tuple[tuple[int, int], ...]  # layer and head

MEDIAN_FRAMES = 7
# The alignment heads of openai's models, from the table in their package, by the number of decoder
# layers, heads and tokens: English-only models have 51,864, multilingual ones 51,865. (A distilled
# decoder may be as deep as a smaller model's: distil-small.en has 4 layers, as tiny.en, of 12
# heads.)
_ALIGNMENT_HEADS: dict[tuple[int, int, int], Heads] = {
    (4, 6, 51_864): ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),
    (4, 6, 51_865): ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)),
    (4, 20, 51_866): ((2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14)),
    (6, 8, 51_864): ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7)),
    (6, 8, 51_865): ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)),
    (12, 12, 51_865): (
        *((5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8)),
        *((9, 0), (9, 7), (9, 9), (10, 5)),
    ),
    (24, 16, 51_865): ((13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4)),
    (32, 20, 51_866): (
        *((7, 0), (10, 17), (12, 18), (13, 12), (16, 1)),
        *((17, 14), (19, 11), (21, 4), (24, 1), (25, 6)),
    ),
}


def alignment_heads(config: DecoderConfig) -> Heads:
    """Return the heads of a decoder that align its text with the recording.

    For sizes that are not openai's: all heads of the upper half of the layers.
    """
    n_layers, n_heads = config.decoder_layers, config.decoder_attention_heads
    known = _ALIGNMENT_HEADS.get((n_layers, n_heads, config.vocab_size))
    if known is not None:
        return known
    return tuple(
        (layer, head) for layer in range(n_layers // 2, n_layers) for head in range(n_heads)
    )


def token_frames(attention: Tensor) -> np.ndarray:
    """Return the first frame of each token, (tokens,) int64, nondecreasing.

    Args:
        attention: (heads, tokens, frames) weights, in which a token's row is that of the position
            that predicts it; of frames within the recording only.
    """
    weights = attention.float().cpu()
    deviation, mean = torch.std_mean(weights, dim=1, keepdim=True, correction=0)
    scores = ((weights - mean) / deviation.clamp(min=1e-6)).numpy()
    return align(_smooth(scores).mean(axis=0))


def _smooth(scores: np.ndarray) -> np.ndarray:
    """Return the running median over `MEDIAN_FRAMES` of (heads, tokens, frames)."""
    margin = MEDIAN_FRAMES // 2
    if scores.shape[-1] <= margin:
        return scores
    padded = np.pad(scores, ((0, 0), (0, 0), (margin, margin)), mode="reflect")
    return np.median(sliding_window_view(padded, MEDIAN_FRAMES, axis=-1), axis=-1)


def align(scores: np.ndarray) -> np.ndarray:
    """Return the first column of each row on the best path, (rows,) int64, nondecreasing.

    The path runs from the first to the last cell of `scores`, (rows, columns), in steps down, right
    or both, and has the largest sum (dynamic time warping without weights).
    """
    n_rows, n_columns = scores.shape
    # The largest sum of a path to each cell of the row above.
    above = np.full(n_columns, -np.inf)
    entry = np.empty(
        (n_rows, n_columns), np.int64
    )  # first column of the path in a row, by its last one
    is_down = np.empty((n_rows, n_columns), bool)  # whether the step into the row is straight down
    for row, values in enumerate(scores.astype(np.float64)):
        diagonal = np.concatenate([[0.0 if row == 0 else -np.inf], above[:-1]])
        is_down[row] = above > diagonal
        # A path that enters in column c and goes right to column d adds total[d] - total[c - 1].
        total = values.cumsum()
        at_entry = np.maximum(above, diagonal) - (total - values)
        best = np.maximum.accumulate(at_entry)
        is_best = at_entry == best
        entry[row] = np.maximum.accumulate(np.where(is_best, np.arange(n_columns), 0))
        above = best + total
    first = np.empty(n_rows, np.int64)
    column = n_columns - 1
    for row in range(n_rows - 1, -1, -1):
        first[row] = column = entry[row, column]
        column -= row > 0 and not is_down[row, column]
    return first
