"""Labels of words, and the targets that they give for texts.

A corpus may say how well each word was read, as experts heard it (`word_label_table` reads that).
The words are those that the reader was given. Where a recording has another expected text, because
a corpus changed it, the two are aligned: a changed word was not said.
"""

import difflib
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
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
    """The words that a reader was given, as spoken, and what experts say of each.

    Attributes:
        words: the words.
        shares: (words,) float32, 0 to 1: the share of experts who accept the word.
        accuracies: (words,) float32, 0 to 10: the mean of the experts' scores; NaN where unknown.
        transcriptions: the experts' phones of each word (`phone_labels`); "" where unknown.
    """

    words: tuple[str, ...]
    shares: np.ndarray
    accuracies: np.ndarray
    transcriptions: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str], shares: Sequence[float] | np.ndarray) -> Self:
        """Return words of which only the shares are known."""
        n_words = len(words)
        unknown = np.full(n_words, np.nan, dtype=np.float32)
        return cls(tuple(words), np.asarray(shares, dtype=np.float32), unknown, ("",) * n_words)

    @property
    def text(self) -> str:
        """The text that was read."""
        return " ".join(self.words)

    @classmethod
    def all_said(cls, text: str) -> Self:
        """Return the words of a text as ones that all experts accept."""
        words = text.split()
        return cls.of(words, np.ones(len(words)))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """Return the words of recordings that are joined."""
        parts = list(parts)
        return cls(
            tuple(word for part in parts for word in part.words),
            np.concatenate([part.shares for part in parts]),
            np.concatenate([part.accuracies for part in parts]),
            tuple(each for part in parts for each in part.transcriptions),
        )

    def targets(self, text: str) -> WordTargets:
        """Return the targets of any text for this recording.

        A word that aligns with a word that was read has its share; any other was not said. Where
        words that were read are missing in the text, it is not complete.
        """
        words = text.split()
        said = np.zeros(len(words), dtype=np.float32)
        complete = np.ones(len(words) + 1, dtype=np.float32)
        for kind, start, stop, read_start, read_stop in self._matcher(words).get_opcodes():
            if kind == "equal":
                said[start:stop] = self.shares[read_start:read_stop]
            elif stop - start < read_stop - read_start:
                complete[stop] = 0
        return WordTargets(said, complete)

    def transcriptions_of(self, text: str) -> list[str]:
        """Return the experts' phones of the words of any text; "" for a word that was not read."""
        words = text.split()
        found = [""] * len(words)
        for block in self._matcher(words).get_matching_blocks():
            read = slice(block.b, block.b + block.size)
            found[block.a : block.a + block.size] = self.transcriptions[read]
        return found

    def _matcher(self, words: Sequence[str]) -> difflib.SequenceMatcher[str]:
        """Return the alignment of a text's words with those that were read."""
        return difflib.SequenceMatcher(None, words, self.words, autojunk=False)

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

    def targets(
        self, filenames: Sequence[str], texts: Sequence[str], n_positions: int
    ) -> np.ndarray | None:
        """Return the targets of texts, (rows, n_positions, 2), laid out as in `reading.words`.

        NaN where a recording has no labels, or a text no such word; None without labels.
        """
        if not self:
            return None
        targets = np.full((len(texts), n_positions, 2), np.nan)
        for row, (filename, text) in enumerate(zip(filenames, texts, strict=True)):
            if (read := self.get(filename)) is not None:
                said, complete = read.targets(text)
                targets[row, : len(said), 0] = said
                targets[row, : len(complete), 1] = complete
        return targets

    def digest(self) -> str | None:
        """Return 16 hex digits that change with any label; None without labels."""
        if not self:
            return None
        digest = hashlib.sha256()
        for name, read in sorted(self.by_filename.items()):
            digest.update(f"{name}\n{read.text}\n".encode())
            digest.update(read.shares.tobytes())
            if any(read.transcriptions):
                digest.update("\n".join(read.transcriptions).encode())
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
