"""Pronunciations by hibari's grapheme-to-phoneme rules, and similar-sounding words."""

import functools
import importlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from hearback.engine.errors import HearbackError

MAX_DISTANCE = 0.5  # normalized: at most half of the phonemes of a similar word are changed
N_NEAREST = 20  # number of similar words to choose from, plus ties with the last
TEMPERATURE = 0.1  # of the softmax over negative distances

# Drop stress and length; map a flap to t; merge reduced vowels.
_NORMALIZED = str.maketrans(
    {"ˈ": None, "ˌ": None, "ː": None, "T": "t", "ᵊ": "ə", "ɐ": "ə", "ᵻ": "ɪ"}
)


@functools.cache
def hibari_pronounce() -> Callable[[str], str]:
    """Return hibari's g2p: text to phonemes with stress marks, words separated by spaces."""
    try:
        g2p = importlib.import_module("hibari.g2p").G2P()
    except ImportError as error:
        raise HearbackError(
            f"hard negatives need hibari's g2p, which is not installed here ({error}): "
            "pip install -r requirements.txt"
        ) from error
    return g2p


def phonemes_only(pronunciation: str) -> str:
    """Return g2p's output without stress, punctuation, spaces and allophones."""
    return "".join(filter(str.isalpha, pronunciation.translate(_NORMALIZED)))


class SimilarWords:
    """Words with their phonemes, searched by similarity of sound."""

    def __init__(self, phonemes_by_word: Mapping[str, str]) -> None:
        self.words = list(phonemes_by_word)
        self._phonemes = list(phonemes_by_word.values())
        self._cache: dict[str, tuple[list[str], NDArray[np.float64]]] = {}

    def near(self, phonemes: str) -> tuple[list[str], NDArray[np.float64]]:
        """Return the nearest words without homophones, and the probability of each, (words,)."""
        if phonemes not in self._cache:
            self._cache[phonemes] = self._find_near(phonemes)
        return self._cache[phonemes]

    def _find_near(self, phonemes: str) -> tuple[list[str], NDArray[np.float64]]:
        if not self.words:
            return [], np.zeros(0)
        scorer = Levenshtein.normalized_distance
        distances = cdist([phonemes], self._phonemes, scorer=scorer, dtype=np.float64)[0]
        distances[distances == 0] = np.inf
        last = np.sort(distances)[: min(N_NEAREST, len(distances))][-1]
        (chosen,) = np.nonzero(distances <= min(MAX_DISTANCE, last))
        weights = np.exp(-distances[chosen] / TEMPERATURE)
        return [self.words[at] for at in chosen], weights / weights.sum()
