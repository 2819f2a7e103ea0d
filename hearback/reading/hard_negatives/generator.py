"""Generate hard negatives of a text from the words of all known texts."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from hearback.engine.errors import HearbackError
from hearback.reading.hard_negatives.pronunciation import (
    SimilarWords,
    hibari_pronounce,
    phonemes_only,
)
from hearback.reading.hard_negatives.respelling import respellings
from hearback.reading.hard_negatives.table import HardNegative, Kind
from hearback.reading.voices.base import seed_of

KIND_SHARES: Mapping[Kind, float] = {"substitute": 0.5, "omit": 0.25, "insert": 0.25}
CACHE_SIZE = 1 << 16  # texts and words with cached phonemes
_MAX_ATTEMPTS = 10  # per kind, before the next kind is tried
_CORE = re.compile(r"[^\W_](?:.*[^\W_])?")  # a word without surrounding punctuation


class NoHardNegativeError(HearbackError, ValueError):
    """A text without a hard negative."""


class HardNegativeGenerator:
    """Draws hard negatives of a text.

    In texts of several words, one word is replaced by a similar-sounding one, removed, or added
    ("substitute", "omit", "insert"; `KIND_SHARES`). A text of one word is replaced by a similar
    one-word text ("neighbour"), or one of its sounds is changed, dropped or added ("respell"). With
    n neighbours, respelling has a probability of 1 / (n + 1). If the text has no letters ("3"), a
    word is added. A hard negative never sounds like its original.

    `pronounce` maps a text to phonemes, one character each (default: hibari's g2p). Results depend
    on the random numbers and on the set of `texts`, not on their order.
    """

    def __init__(self, texts: Iterable[str], pronounce: Callable[[str], str] | None = None) -> None:
        pronounce = pronounce or hibari_pronounce()
        # Cached: half of the requests are repeated, and a sentence takes a millisecond.
        self._clean = functools.lru_cache(CACHE_SIZE)(lambda text: phonemes_only(pronounce(text)))
        known = [text.split() for text in texts]
        self._vocabulary = self._similar(word for words in known for word in words)
        self._singles = self._similar(words[0] for words in known if len(words) == 1)

    def draw(self, text: str, rng: np.random.Generator) -> HardNegative:
        """Return a random hard negative of `text`, known or not. Raises NoHardNegativeError."""
        words = text.split()
        spoken = [at for at, word in enumerate(words) if self._phonemes(word)]
        if spoken:
            original = self._clean(text)
            draw_by_kind = {
                "substitute": self._substitute,
                "omit": self._omit,
                "insert": self._insert,
                "neighbour": self._neighbour,
                "respell": self._respell,
            }
            for kind in self._kinds(words, spoken, rng):
                for _ in range(_MAX_ATTEMPTS):
                    negative = draw_by_kind[kind](words, spoken, rng)
                    # "read" may sound like "red", depending on its neighbours.
                    if negative is not None and self._clean(negative.text) != original:
                        return negative
        raise NoHardNegativeError(
            f"no hard negative of {text!r}: it has no word that could be changed"
        )

    def draw_several(self, text: str, n: int, rng: np.random.Generator) -> tuple[HardNegative, ...]:
        """Return up to `n` hard negatives of `text` that sound different.

        A larger `n` only appends to the result. Empty if `draw` raises.
        """
        found: dict[str, HardNegative] = {}
        for _ in range(_MAX_ATTEMPTS * n):
            if len(found) == n:
                break
            try:
                negative = self.draw(text, rng)
            except NoHardNegativeError:
                break
            found.setdefault(self._clean(negative.text), negative)
        return tuple(found.values())

    def _kinds(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> tuple[Kind, ...]:
        """Return the kinds in the order to try."""
        if len(spoken) > 1:
            kinds, shares = list(KIND_SHARES), list(KIND_SHARES.values())
            order = rng.choice(len(kinds), size=len(kinds), replace=False, p=shares)
            return tuple(kinds[at] for at in order)
        near, _ = self._singles.near(self._phonemes(words[spoken[0]]))
        if rng.integers(len(near) + 1) == 0:
            return ("respell", "neighbour", "insert")
        return ("neighbour", "respell", "insert")

    def _substitute(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        near = {at: self._vocabulary.near(self._phonemes(words[at])) for at in spoken}
        with_near = [at for at, (candidates, _) in near.items() if candidates]
        if not with_near:
            return None
        at = int(rng.choice(with_near))
        return _replace(words, at, _choose(*near[at], rng), "substitute")

    def _omit(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative:
        at = int(rng.choice(spoken))
        return HardNegative(" ".join([*words[:at], *words[at + 1 :]]), "omit", (), at)

    def _insert(
        self, words: Sequence[str], _spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        at = int(rng.integers(len(words) + 1))
        # Do not repeat a word: the position of the wrong one would be ambiguous.
        beside = {self._phonemes(word) for word in words[max(0, at - 1) : at + 1]}
        word = str(rng.choice(self._vocabulary.words)) if self._vocabulary.words else ""
        if not word or self._phonemes(word) in beside:
            return None
        return HardNegative(" ".join([*words[:at], word, *words[at:]]), "insert", (at,))

    def _neighbour(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        at = spoken[0]
        candidates, probabilities = self._singles.near(self._phonemes(words[at]))
        if not candidates:
            return None
        return _replace(words, at, _choose(candidates, probabilities, rng), "neighbour")

    def _respell(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        at = spoken[0]
        phonemes = self._phonemes(words[at])
        fallback = None
        for spelling in respellings(_core(words[at]), rng):
            distance = Levenshtein.distance(phonemes, self._phonemes(spelling))
            if distance == 1:
                return _replace(words, at, spelling, "respell")
            if distance > 1 and fallback is None:  # e.g. a vowel that changes the vowel before it
                fallback = _replace(words, at, spelling, "respell")
        return fallback

    def _similar(self, words: Iterable[str]) -> SimilarWords:
        """Return the pronounceable words, each in one spelling."""
        spelled: dict[str, str] = {}
        for word in map(_core, words):
            folded = word.casefold()
            # Prefer "the" to "The" (capitals sort first): a capital would mark an inserted word.
            spelled[folded] = max(spelled.get(folded, ""), word)
        return SimilarWords(
            {
                word: phonemes
                for _, word in sorted(spelled.items())
                if (phonemes := self._phonemes(word))
            }
        )

    def _phonemes(self, word: str) -> str:
        """Return the phonemes of a word pronounced alone; empty for punctuation."""
        core = _core(word)
        return self._clean(core) if core else ""


def generate_hard_negatives(
    texts: Iterable[str], n: int, seed: int, pronounce: Callable[[str], str] | None = None
) -> dict[str, tuple[HardNegative, ...]]:
    """Return up to `n` hard negatives for each of `texts`, from the words of all of them.

    Each text has its own random numbers, so a larger `n` only appends to the results.
    """
    known = sorted(set(texts))
    generator = HardNegativeGenerator(known, pronounce)
    return {
        text: generator.draw_several(text, n, np.random.default_rng([seed, seed_of(text)]))
        for text in known
    }


def _core(word: str) -> str:
    """Return the word without surrounding punctuation."""
    found = _CORE.search(word)
    return found.group() if found else ""


def _replace(words: Sequence[str], at: int, replacement: str, kind: Kind) -> HardNegative:
    """Replace the word at `at`, keeping its punctuation and capital."""
    old, core = words[at], _core(words[at])
    if core[0].isupper():
        replacement = replacement[0].upper() + replacement[1:]
    text = " ".join([*words[:at], old.replace(core, replacement, 1), *words[at + 1 :]])
    return HardNegative(text, kind, (at,))


def _choose(
    candidates: Sequence[str], probabilities: NDArray[np.float64], rng: np.random.Generator
) -> str:
    return candidates[int(rng.choice(len(candidates), p=probabilities))]
