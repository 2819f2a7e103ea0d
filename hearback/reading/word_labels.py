"""Labels of words, and the targets that they give for texts.

A corpus may say how well each word was read, as experts heard it (`word_label_table` reads that).
The words are those that the reader was given. Where a recording has another expected text, because
a corpus changed it, the two are aligned: a changed word was not said.
"""

import difflib
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np

from hearback.engine.data.problems import count_noun

PANEL = 5  # experts of speechocean762, who decide by majority


class WordTargets(NamedTuple):
    """Targets of a text's words: `said`, (words,), and `complete`, (words + 1,), both float32.

    They are probabilities; see `window_batches.LabelledText`.
    """

    said: np.ndarray
    complete: np.ndarray


@dataclass(frozen=True)
class ReadWords:
    """The words that a reader was given, as spoken, and the share of experts who accept each.

    `shares` is (words,) float32, 0 to 1.
    """

    words: tuple[str, ...]
    shares: np.ndarray

    @property
    def text(self) -> str:
        """The text that was read."""
        return " ".join(self.words)

    def targets(self, text: str) -> WordTargets:
        """Return the targets of any text for this recording.

        A word that aligns with a word that was read has its share; any other was not said. Where
        words that were read are missing in the text, it is not complete.
        """
        words = text.split()
        said = np.zeros(len(words), dtype=np.float32)
        complete = np.ones(len(words) + 1, dtype=np.float32)
        matcher = difflib.SequenceMatcher(None, words, self.words, autojunk=False)
        for kind, start, stop, read_start, read_stop in matcher.get_opcodes():
            if kind == "equal":
                said[start:stop] = self.shares[read_start:read_stop]
            elif stop - start < read_stop - read_start:
                complete[stop] = 0
        return WordTargets(said, complete)

    def probability(self, text: str) -> float:
        """Return the probability that another panel of experts would call `text` correct.

        Each of `PANEL` experts accepts a word with the probability of its share; the majority
        decides about a word, and all words must be accepted.
        """
        targets = self.targets(text)
        said = targets.said.astype(np.float64)
        accepted = np.zeros_like(said)
        for votes in range(PANEL // 2 + 1, PANEL + 1):
            accepted += math.comb(PANEL, votes) * said**votes * (1 - said) ** (PANEL - votes)
        return float(np.prod(accepted) * np.prod(targets.complete))


@dataclass(frozen=True)
class WordLabels:
    """The labelled words of recordings, by filename; none where a corpus has no such table."""

    by_filename: Mapping[str, ReadWords] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.by_filename)

    @property
    def n_words(self) -> int:
        """Number of labelled words of all recordings."""
        return sum(len(read.words) for read in self.by_filename.values())

    def get(self, filename: str) -> ReadWords | None:
        """Return the words of a recording, or None if they have no labels."""
        return self.by_filename.get(filename)

    def kept(self, filenames: Iterable[str]) -> Self:
        """Return the labels of these recordings only."""
        names = set(filenames)
        return type(self)({name: of for name, of in self.by_filename.items() if name in names})

    def digest(self) -> str | None:
        """Return 16 hex digits that change with any label; None without labels."""
        if not self:
            return None
        digest = hashlib.sha256()
        for name, read in sorted(self.by_filename.items()):
            digest.update(f"{name}\n{read.text}\n".encode())
            digest.update(read.shares.tobytes())
        return digest.hexdigest()[:16]

    def record(self) -> dict[str, Any] | None:
        """Return the digest and the numbers of words and recordings, as JSON; None without any."""
        if not self:
            return None
        return {
            "digest": self.digest(),
            "words": self.n_words,
            "recordings": len(self.by_filename),
        }


def describe(record: Mapping[str, Any] | None) -> str:
    """Return a `WordLabels.record` in words: "labels of 14575 words in 2298 recordings"."""
    if record is None:
        return "no labels of words"
    words, recordings = record.get("words", 0), record.get("recordings", 0)
    return f"labels of {count_noun(words, 'word')} in {count_noun(recordings, 'recording')}"
