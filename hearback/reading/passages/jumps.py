"""Where a reader who skipped words went on: jumps in the words of a segment.

A path is a way through a segment's words; its curve is the log-likelihood of its first 0, 1, …
words and their rewards. It rises by some nats with each word that is said, and falls by about one
with each word that is not. Where it falls far, the reader may have gone on elsewhere: all words of
the text that follow are tried, each with its next few words, and the likeliest with all of theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

WORD_REWARD = 4.0  # nats; a word of a learner who is hard to understand costs 2 to 3
EMPTY_FLOOR = -12.0  # log-likelihood of a segment without words is at least this: it may be noise
JUMP_COST = 15.0  # nats: a jump must make a segment likelier by more; false ones gain 2 at most
UNREAD_INSIDE = 8  # fewer words that are skipped before the end count as said unclearly
N_STARTS = 5  # first words tried for a segment
LOST = 2.0  # nats: if no path's `gain` is above, none of these first words fits
DOUBTFUL_FALL = 12.0  # nats: a path whose curve falls further is doubtful
DOUBTFUL_SHARE = 0.75  # a path with a smaller share of the expected words is doubtful, too
N_CONTEXT_WORDS = 4  # before a jump inside a segment, when all words after it are tried
N_FIRST_WORDS = 4  # that are tried after a jump
N_BEST = 4  # of these jumps are tried with all their words
N_FALSE_WORDS = 8  # so many words may fit by chance: if the curve falls then, others are tried
MAX_JUMPS = 3  # in a segment
MAX_SKIPPED = 400  # words, some three minutes; the time that a search takes grows with them


@dataclass(frozen=True)
class WordRange:
    """Words of a text, `start` to `stop` - 1; none if they are equal."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Return the number of words."""
        return self.stop - self.start


Runs = tuple[WordRange, ...]  # of the words said in a segment; between them, words were skipped


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of words in a segment, in nats, (starts, 1 + words) float64.

    Attributes:
        begins: that 0, 1, … words from the first one on are said next; -inf after the text's end.
        whole: … and then nothing else.
    """

    begins: np.ndarray
    whole: np.ndarray


class LikelihoodFn(Protocol):
    """Computes how likely words of a text are in a segment of its recording."""

    def __call__(
        self, segment: int, starts: Sequence[int], n_words: int, said: Runs = ()
    ) -> Likelihoods:
        """Return the likelihoods of up to `n_words` from each of the `starts` on.

        They follow on the runs `said` in the segment, and are conditional on them.
        """


@dataclass(frozen=True)
class Path:
    """A way through a segment's words, with the scores of its possible ends.

    Attributes:
        said: runs of words before the last one.
        start: first word of the last run.
        begins: (1 + words,), score of the split so far with 0, 1, … words of the last run.
        whole: … and nothing else in the segment.
    """

    said: Runs
    start: int
    begins: np.ndarray
    whole: np.ndarray

    @property
    def top(self) -> float:
        """The highest point of its curve, whatever follows in the segment."""
        return float(self.begins.max())

    @property
    def gain(self) -> float:
        """What the words of the last run add to the score, at their best end; -inf: it has none."""
        return float(self.whole[1:].max(initial=-np.inf) - self.begins[0])

    @property
    def n_words(self) -> int:
        """The number of words up to its best end."""
        return sum(map(len, self.said)) + int(self.whole.argmax())

    def largest_fall(self) -> tuple[int, float]:
        """Return after how many words of the last run its curve falls most, and how far.

        The curve goes up to its top or its best end, whichever is later; the score of the best end
        is its last point, so that ending the segment can be the fall.
        """
        n = max(int(self.begins.argmax()), int(self.whole.argmax()))
        curve = np.append(self.begins[: n + 1], self.whole.max())
        highest = np.maximum.accumulate(curve)
        lowest = int(np.argmax(highest - curve))
        return int(curve[: lowest + 1].argmax()), float(highest[lowest] - curve[lowest])


@dataclass(frozen=True)
class SegmentSearch:
    """The search for the words of a segment.

    Attributes:
        segment: its number.
        scores: (words + 1,) float64, best scores of the segments before it, by the position in the
            text at which it may start.
        n_expected: number of words in it if the whole text was read, at one pace.
        most: largest number of words in it.
        likelihood_fn: of words of the text in it.
    """

    segment: int
    scores: np.ndarray
    n_expected: float
    most: int
    likelihood_fn: LikelihoodFn

    def find_paths(self, starts: Sequence[int]) -> list[Path]:
        """Return paths through the segment from the first words `starts` on, the likeliest first.

        `N_STARTS` are tried, and the others if none of these fits. Where the best path falls far or
        has few words, also paths with jumps.
        """
        chosen = starts[:N_STARTS]
        paths = self._follow(chosen, self.scores[list(chosen)])
        if max(path.gain for path in paths) <= LOST and len(starts) > N_STARTS:
            others = starts[N_STARTS:]
            paths += self._follow(others, self.scores[list(others)])
        best = max(paths, key=lambda path: path.top)
        for _ in range(MAX_JUMPS):
            n, fall = best.largest_fall()
            enough = best.n_words >= DOUBTFUL_SHARE * self.n_expected
            if fall <= DOUBTFUL_FALL and enough:
                break
            jumped = self._jump_inside(best, n) if n else []
            if n <= N_FALSE_WORDS and not best.said:
                jumped += self._jump_before(best.start)
            likeliest = max(jumped, key=lambda path: path.top, default=best)
            paths += jumped
            if likeliest.top <= best.top:
                break
            best = likeliest
        return paths

    def _follow(self, starts: Sequence[int], bases: np.ndarray, said: Runs = ()) -> list[Path]:
        """Return the paths from each of the `starts` on, whose scores so far are `bases`."""
        found = self.likelihood_fn(self.segment, starts, self.most, said)
        rewards = WORD_REWARD * np.arange(self.most + 1)
        paths = []
        for start, base, begins, whole in zip(
            starts, bases, found.begins + rewards, found.whole + rewards, strict=True
        ):
            # A jump to no words is none.
            whole[0] = -np.inf if said else max(whole[0], EMPTY_FLOOR)
            room = slice(len(self.scores) - start)
            paths.append(Path(said, start, base + begins[room], base + whole[room]))
        return paths

    def _jump_before(self, start: int) -> list[Path]:
        """Return the likeliest paths from first words after `start` on."""
        last = min(start + MAX_SKIPPED, len(self.scores) - 2)
        starts = np.arange(start + 1, last + 1)
        # Words skipped between segments cost nothing; `_follow_likeliest` drops paths that gain no
        # more than `JUMP_COST`, which may fit by chance.
        return self._follow_likeliest(starts, self.scores[starts], (), ())

    def _jump_inside(self, path: Path, n: int) -> list[Path]:
        """Return the likeliest paths that jump after `n` words of the last run of `path`."""
        stop = path.start + n
        last = min(stop + MAX_SKIPPED, len(self.scores) - 2)
        starts = np.arange(stop + UNREAD_INSIDE, last + 1)
        bases = np.full(len(starts), path.begins[n] - JUMP_COST)
        context = WordRange(max(path.start, stop - N_CONTEXT_WORDS), stop)
        said = (*path.said, WordRange(path.start, stop))
        return self._follow_likeliest(starts, bases, (context,), said)

    def _follow_likeliest(
        self, starts: np.ndarray, bases: np.ndarray, context: Runs, said: Runs
    ) -> list[Path]:
        """Return the paths after `said` with the likeliest first words, given the `context`."""
        if not len(starts):
            return []
        found = self.likelihood_fn(self.segment, starts.tolist(), N_FIRST_WORDS, context)
        first = (found.begins + WORD_REWARD * np.arange(N_FIRST_WORDS + 1))[:, 1:].max(axis=1)
        chosen = np.argsort(-(bases + first), kind="stable")[:N_BEST]
        paths = self._follow(starts[chosen].tolist(), bases[chosen], said)
        return [path for path in paths if path.top - path.begins[0] > JUMP_COST]
