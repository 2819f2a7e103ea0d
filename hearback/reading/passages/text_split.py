"""Which words of a text are said in which segment of its recording: dynamic programming.

A split's score is the sum of its segments' log-likelihoods, and a reward for each word: without it,
the likeliest text of a segment is often a short one. Segments are taken in order. For each, a few
first words are tried, those that are likeliest after the segments before. Where none of them fits
to the segment's end, the reader may have skipped lines: `jumps` looks for where they went on.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hearback.reading.passages.jumps import (
    JUMP_COST,
    UNREAD_INSIDE,
    WORD_REWARD,
    LikelihoodFn,
    Path,
    Runs,
    SegmentSearch,
    WordRange,
)

SKIP_COST = 3.0  # nats for each word left out, when first words are chosen
N_STARTS_WHEN_LOST = 40  # first words tried for a segment if the likeliest ones don't fit
# Fewer words at the end of the text count as said. In 40 recordings of speechocean762 (tiny.en),
# the last 3 to 8 words that were said cost at most 3 nats each, as many unsaid ones after them at
# least 4.7; `WORD_REWARD` lies between.
UNREAD_WORDS = 3
MAX_WORDS_PER_SECOND = 6.0
LARGEST_PACE = 2.0  # of a segment, relative to the whole recording's
EXTRA_WORDS = 4  # that a segment may have beyond what this pace allows


def split_text(n_words: int, seconds: Sequence[float], likelihood_fn: LikelihoodFn) -> list[Runs]:
    """Return the words said in each segment: the split of the text with the largest score.

    A segment has several runs of words if its reader skipped words inside it, and none if nothing
    of the text is said there. Words skipped between two segments are in the runs before and after,
    as these are likeliest with them, since they may have been said unclearly. Those that were
    surely not said are in no run: `UNREAD_WORDS` or more at the end, and `UNREAD_INSIDE` or more
    elsewhere that cost `JUMP_COST` more than they earn. If no segment has words, the first one
    gets the whole text.

    Args:
        n_words: number of words in the text, at least 1.
        seconds: length of each segment, at least one segment.
        likelihood_fn: log-likelihoods of words given segments.
    """
    mean_pace = n_words / sum(seconds)
    pace = min(MAX_WORDS_PER_SECOND, LARGEST_PACE * mean_pace)
    scores = np.full(n_words + 1, -np.inf)  # by the number of words read or skipped so far
    scores[0] = 0.0
    steps: list[tuple[dict[int, Runs], np.ndarray]] = []
    for segment, length in enumerate(seconds):
        most = min(n_words, EXTRA_WORDS + int(pace * length))
        reachable, origin = _skip(scores)
        starts = _choose_starts(scores, reachable, origin)
        search = SegmentSearch(segment, reachable, mean_pace * length, most, likelihood_fn)
        paths = search.find_paths(starts)
        scores, runs_by_stop = _best_by_stop(n_words, paths)
        steps.append((runs_by_stop, origin))
    _, origin = _skip(scores)
    split: list[Runs] = []
    stop = int(origin[n_words])
    for runs_by_stop, origin in reversed(steps):
        runs = runs_by_stop[stop]
        split.append(tuple(run for run in runs if len(run)))
        stop = int(origin[runs[0].start])
    return _with_skipped(n_words, split[::-1], likelihood_fn)


def _skip(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores when words may be skipped, and the number of words before skipping."""
    best = np.maximum.accumulate(scores)
    is_own = (scores == best) & np.isfinite(scores)
    return best, np.maximum.accumulate(np.where(is_own, np.arange(len(scores)), 0))


def _choose_starts(scores: np.ndarray, reachable: np.ndarray, origin: np.ndarray) -> list[int]:
    """Return the first words to try for a segment, the likeliest first."""
    ranking = np.maximum(scores, reachable - SKIP_COST * (np.arange(len(scores)) - origin))
    order = np.argsort(-ranking, kind="stable")
    return [int(start) for start in order[np.isfinite(ranking[order])][:N_STARTS_WHEN_LOST]]


def _best_by_stop(n_words: int, paths: Sequence[Path]) -> tuple[np.ndarray, dict[int, Runs]]:
    """Return the best score of each word before which the segment can stop, and its runs.

    The scores are (words + 1,); the runs are those of the words that a path can reach.
    """
    scores = np.full(n_words + 1, -np.inf)
    runs: dict[int, Runs] = {}
    for path in paths:
        for n, total in enumerate(path.whole.tolist()):
            if total > scores[path.start + n]:
                scores[path.start + n] = total
                runs[path.start + n] = (*path.said, WordRange(path.start, path.start + n))
    return scores, runs


def _with_skipped(n_words: int, split: Sequence[Runs], likelihood_fn: LikelihoodFn) -> list[Runs]:
    """Return the split with the skipped words that may have been said."""
    filled = [at for at, runs in enumerate(split) if runs]
    if not filled:
        return [(WordRange(0, n_words),), *split[1:]]
    whole = [list(runs) for runs in split]
    first = whole[filled[0]]
    first[0] = WordRange(_first_word(filled[0], first, likelihood_fn), first[0].stop)
    for at, after in pairwise(filled):
        left, right = whole[at], whole[after]
        stop, start = _best_edges((at, left), (after, right), likelihood_fn)
        left[-1] = WordRange(left[-1].start, stop)
        right[0] = WordRange(start, right[0].stop)
    last = whole[filled[-1]]
    if n_words - last[-1].stop < UNREAD_WORDS:
        last[-1] = WordRange(last[-1].start, n_words)
    return [tuple(runs) for runs in whole]


def _first_word(segment: int, runs: Sequence[WordRange], likelihood_fn: LikelihoodFn) -> int:
    """Return where the first segment with words starts: 0 if the words before it may be said."""
    start = runs[0].start
    if start < UNREAD_INSIDE:
        return 0
    without, with_all = _from_edges(segment, [start, 0], runs, likelihood_fn)
    return start if _is_unread(without - with_all, start) else 0


def _best_edges(
    before: tuple[int, Sequence[WordRange]],
    after: tuple[int, Sequence[WordRange]],
    likelihood_fn: LikelihoodFn,
) -> tuple[int, int]:
    """Return where the words of a segment stop and those of the next one start.

    `before` and `after` are their numbers and runs. The words between were skipped: a word that is
    said unclearly costs more than its reward. They go where both are likeliest.
    """
    (segment, runs), (next_segment, next_runs) = before, after
    first, last = runs[-1].stop, next_runs[0].start
    if first == last:
        return first, last
    edges, start = np.arange(first, last + 1), runs[-1].start
    found = likelihood_fn(segment, [start], last - start, tuple(runs[:-1]))
    left = found.whole[0, edges - start]
    right = _from_edges(next_segment, edges.tolist(), next_runs, likelihood_fn)
    best = int(np.argmax(left + right))
    loss = left[0] + right[-1] - (left[best] + right[best])
    if last - first >= UNREAD_INSIDE and _is_unread(loss, last - first):
        return first, last
    return first + best, first + best


def _is_unread(loss: float, n_words: int) -> bool:
    """Return whether words that make a split less likely by `loss` nats were not read."""
    return loss - WORD_REWARD * n_words > JUMP_COST


def _from_edges(
    segment: int, edges: Sequence[int], runs: Sequence[WordRange], likelihood_fn: LikelihoodFn
) -> np.ndarray:
    """Return the log-likelihood of a segment's first run if it starts at each edge, (edges,).

    If it is the only run, also that nothing follows it.
    """
    stop = runs[0].stop
    found = likelihood_fn(segment, edges, stop - min(edges))
    values = found.whole if len(runs) == 1 else found.begins
    return values[range(len(edges)), stop - np.array(edges)]
