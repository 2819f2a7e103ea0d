"""Spellings of a word with one sound changed, dropped or added."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

# A group of letters that English usually pronounces as one sound, or a letter.
_GRAPHEME = re.compile(
    r"tch|dge|sh|ch|th|ph|wh|ck|ng|qu|([bdfglmnprstz])\1"
    r"|ee|ea|oo|ou|ow|oa|oi|oy|ai|ay|au|aw|ie|ew|[^\W\d_]",
    re.IGNORECASE,
)
_VOWEL_LETTERS = frozenset("aeiouy")
_VOWELS = ("a", "e", "i", "o", "u", "ee", "oo", "ay", "ow", "oy")
_CONSONANTS = (
    *("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z"),
    *("sh", "ch", "th"),
)


def respellings(word: str, rng: np.random.Generator) -> Iterator[str]:
    """Yield `word` with one grapheme changed, dropped or added, in random order.

    Changes come first with probability 0.5. A respelling may still sound like `word`.
    """
    graphemes = [match.span() for match in _GRAPHEME.finditer(word)]
    edits = {
        "change": list(_changed(word, graphemes)),
        "drop": list(_dropped(word, graphemes)),
        "add": list(_added(word, graphemes)),
    }
    kinds = list(edits)
    for kind in rng.choice(len(kinds), size=len(kinds), replace=False, p=[0.5, 0.25, 0.25]):
        spellings = edits[kinds[kind]]
        for at in rng.permutation(len(spellings)):
            yield spellings[at]


def _is_vowel(grapheme: str) -> bool:
    return grapheme[0].lower() in _VOWEL_LETTERS


def _changed(word: str, graphemes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word with a vowel replaced by a vowel, or a consonant by a consonant."""
    for start, end in graphemes:
        grapheme = word[start:end]
        for other in _VOWELS if _is_vowel(grapheme) else _CONSONANTS:
            if other != grapheme.lower():
                yield word[:start] + other + word[end:]


def _dropped(word: str, graphemes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word without one consonant, or without one vowel if another one remains."""
    n_vowels = sum(_is_vowel(word[start:end]) for start, end in graphemes)
    for start, end in graphemes:
        if len(graphemes) > 2 and (n_vowels > 1 or not _is_vowel(word[start:end])):
            yield word[:start] + word[end:]


def _added(word: str, graphemes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word with a consonant added where English has clusters, or beside a lone vowel."""
    if not graphemes:
        return
    start, end = graphemes[0][0], graphemes[-1][1]
    first, last = word[slice(*graphemes[0])], word[slice(*graphemes[-1])]
    for consonant in _CONSONANTS if _is_vowel(first) else ("s",):
        yield word[:start] + consonant + word[start:]
    for consonant in ("s", "t", "d", "n", "l", "m", "k") if _is_vowel(last) else ("s", "t", "d"):
        yield word[:end] + consonant + word[end:]
    for (left, right), following in pairwise(graphemes):
        if not _is_vowel(word[left:right]) and _is_vowel(word[slice(*following)]):
            for liquid in ("l", "r"):
                yield word[:right] + liquid + word[right:]
