"""Which words of a text are said in which segment of its recording: dynamic programming.

A split's score is the sum of its segments' log-likelihoods, and a reward for each word: without it,
the likeliest text of a segment is often a short one. Segments are taken in order. For each, a few
first words are tried, those that are likeliest after the segments before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Maps a segment's number, the first words to try, and a number of words to the log-likelihoods, in
# nats, that 0, 1, … words from the first one on are said in the segment and nothing else,
# (starts, 1 + words) float64; -inf after the end of the text.
LikelihoodFn = Callable[[int, Sequence[int], int], np.ndarray]

WORD_REWARD = 4.0  # nats; a word of a learner who is hard to understand costs 2 to 3
SKIP_COST = 3.0  # nats for each word left out, when first words are chosen
EMPTY_FLOOR = -12.0  # log-likelihood of a segment without words is at least this: it may be noise
N_STARTS = 5  # first words tried for a segment
N_STARTS_WHEN_LOST = 40  # … if none of them fits
# Of 40 recordings of speechocean762 (tiny.en), the last 3 to 8 words cost at most 3 nats each, as
# many that were not said after them at least 4.7; the reward is between.
UNREAD_WORDS = 3
UNREAD_INSIDE = 40  # words that are skipped before the end, from which on they were not read
LOST = 2.0  # nats, with the rewards: if the best score is not above, no words fit
MAX_WORDS_PER_SECOND = 6.0
LARGEST_PACE = 2.0  # of a segment, relative to the whole recording's
EXTRA_WORDS = 4  # that a segment may have beyond what this pace allows


@dataclass(frozen=True)
class WordRange:
    """Words of a text, `start` to `stop` - 1; none if they are equal."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Return the number of words."""
        return self.stop - self.start


def split_text(
    n_words: int, seconds: Sequence[float], likelihood_fn: LikelihoodFn
) -> list[WordRange]:
    """Return the words said in each segment: the split of the text with the largest score.

    Segments can be empty, and words skipped. Skipped words are in the ranges of the segments before
    and after, as these are likeliest with them, since they may have been said unclearly. Those that
    were surely not said are in no range: `UNREAD_WORDS` or more at the end, and `UNREAD_INSIDE` or
    more elsewhere, where unclear words cost more. If no segment has words, the first one gets the
    whole text.

    Args:
        n_words: number of words in the text, at least 1.
        seconds: length of each segment, at least one segment.
        likelihood_fn: log-likelihoods of words given segments.
    """
    pace = min(MAX_WORDS_PER_SECOND, LARGEST_PACE * n_words / sum(seconds))
    scores = np.full(n_words + 1, -np.inf)  # by the number of words that have passed
    scores[0] = 0.0
    steps: list[_Step] = []
    for segment, length in enumerate(seconds):
        most = min(n_words, EXTRA_WORDS + int(pace * length))
        scores, step = _add_segment(scores, segment, most, likelihood_fn)
        steps.append(step)
    _, origin = _skip(scores)
    ranges: list[WordRange] = []
    stop = int(origin[n_words])
    for step in reversed(steps):
        start = int(step.starts[stop])
        ranges.append(WordRange(start, stop))
        stop = int(step.origin[start])
    return _with_skipped(n_words, ranges[::-1], likelihood_fn)


@dataclass(frozen=True)
class _Step:
    """The best way to each state, (words + 1,) int64 each.

    `starts` are first words of the segment by the number of words that have passed after it;
    `origin` the number of words that had passed before some were skipped, by first word.
    """

    starts: np.ndarray
    origin: np.ndarray


def _skip(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores when words may be skipped, and the number of words before skipping."""
    best = np.maximum.accumulate(scores)
    is_own = (scores == best) & np.isfinite(scores)
    return best, np.maximum.accumulate(np.where(is_own, np.arange(len(scores)), 0))


def _add_segment(
    before: np.ndarray, segment: int, most: int, likelihood_fn: LikelihoodFn
) -> tuple[np.ndarray, _Step]:
    """Return the scores after a segment of at most `most` words, and how they came about."""
    reachable, origin = _skip(before)
    ranking = np.maximum(before, reachable - SKIP_COST * (np.arange(len(before)) - origin))
    order = np.argsort(-ranking, kind="stable")
    order = order[np.isfinite(ranking[order])][:N_STARTS_WHEN_LOST]
    scores = np.full(len(before), -np.inf)
    starts = np.zeros(len(before), np.int64)
    for chosen in (order[:N_STARTS], order[N_STARTS:]):
        if not len(chosen):
            break
        values = likelihood_fn(segment, chosen.tolist(), most)
        values[:, 0] = np.maximum(values[:, 0], EMPTY_FLOOR)
        values += WORD_REWARD * np.arange(values.shape[1])
        for start, of_start in zip(chosen.tolist(), values, strict=True):
            n = min(len(of_start), len(scores) - start)
            total = reachable[start] + of_start[:n]
            states = start + np.flatnonzero(total > scores[start : start + n])
            scores[states] = total[states - start]
            starts[states] = start
        if values[:, 1:].max(initial=-np.inf) > LOST:
            break
    return scores, _Step(starts, origin)


def _with_skipped(
    n_words: int, ranges: Sequence[WordRange], likelihood_fn: LikelihoodFn
) -> list[WordRange]:
    """Return the ranges with the skipped words that may have been said."""
    filled = [at for at, each in enumerate(ranges) if len(each)]
    if not filled:
        return [WordRange(0, n_words), *ranges[1:]]
    whole = list(ranges)
    first = ranges[filled[0]].start
    start = first if first >= UNREAD_INSIDE else 0
    for at, after in pairwise(filled):
        if ranges[after].start - ranges[at].stop >= UNREAD_INSIDE:
            whole[at] = WordRange(start, ranges[at].stop)
            start = ranges[after].start
            continue
        stop = _best_edge((at, start), after, ranges, likelihood_fn)
        whole[at] = WordRange(start, stop)
        start = stop
    last = ranges[filled[-1]].stop
    whole[filled[-1]] = WordRange(start, n_words if n_words - last < UNREAD_WORDS else last)
    return whole


def _best_edge(
    before: tuple[int, int],
    after: int,
    ranges: Sequence[WordRange],
    likelihood_fn: LikelihoodFn,
) -> int:
    """Return the first word of the segment `after`, so that it and the one before are likeliest.

    `before` is the segment before and its first word. The words between their `ranges` were
    skipped: a word that is said unclearly costs more than its reward.
    """
    segment, start = before
    first, last, stop = ranges[segment].stop, ranges[after].start, ranges[after].stop
    if first == last:
        return first
    edges = np.arange(first, last + 1)
    left = likelihood_fn(segment, [start], last - start)[0, edges - start]
    right = likelihood_fn(after, edges.tolist(), stop - first)[range(len(edges)), stop - edges]
    return first + int(np.argmax(left + right))
