"""Hard negatives: texts that differ from the one that was said by one word or one sound.

A recording in which a learner says "the cat sat" well is one in which they did not say "the hat
sat", "the cat" or "the cat sat down". How words sound comes from the grapheme-to-phoneme rules of
the voice `hibari` (PyPI `hibari-tts`), which also read words that no dictionary has; how near two
words are is the Levenshtein distance of their phonemes over the number of phonemes of the longer
one.

The kinds and their shares are about those of the negatives that `corpora.speechocean762` makes
(https://www.openslr.org/101/): 418 substitutions, 152 omissions, 131 insertions. For training only:
inference does not import this module, nor what it needs.

    tts_data/hard_negatives.csv
      text, near_miss, kind, wrong (positions, a space between them), gap (empty where none is)
"""

import csv
import functools
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write
from hearback.reading.voices.base import seed_of

Kind = Literal["substitute", "omit", "insert", "neighbour", "respell"]

KIND_SHARES: Mapping[Kind, float] = {"substitute": 0.5, "omit": 0.25, "insert": 0.25}
FARTHEST = 0.5  # a word with more than half of its sounds changed does not sound near
NEAREST = 20  # of the words near enough, so many are drawn from, and those as near as the last
PREFERENCE = 0.1  # 0.1 farther makes a word 1/e as likely
TABLE = "hard_negatives.csv"

_COLUMNS = ("text", "hard_negative", "kind", "wrong", "gap")
N_CACHED = 1 << 16  # texts and words whose phonemes are kept
_TRIES = 10  # for a kind, before the next one

# Stress and length are not sounds; a flap is a t, and reduced vowels differ by their neighbours.
_ONE_SOUND = str.maketrans(
    {"ˈ": None, "ˌ": None, "ː": None, "T": "t", "ᵊ": "ə", "ɐ": "ə", "ᵻ": "ɪ"}
)

_CORE = re.compile(r"[^\W_](?:.*[^\W_])?")  # a word less the punctuation around it
# A group of letters that English mostly reads as one sound, or a letter.
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


class NoHardNegative(HearbackError, ValueError):  # noqa: N818  (it says what is wrong)
    """A text of which no hard negative can be made."""


@dataclass(frozen=True)
class HardNegative:
    """A text that is nearly another one, the original.

    `wrong` are the positions of the words in `text` that are not what the original says. `gap` is
    the position in `text` before which a word of the original is missing (the number of words if
    it is the last one), None where none is. Words are what stands between white space.
    """

    text: str
    kind: Kind
    wrong: tuple[int, ...]
    gap: int | None = None


class HardNegativeGenerator:
    """Makes hard negatives of a text from the words of all known texts.

    Texts of several words get one word replaced by a near-sounding one, one word less, or one word
    more ("substitute", "omit", "insert"; `KIND_SHARES`). A text of one word gets one of the known
    one-word texts near it ("neighbour"), or one sound changed, dropped or added in its spelling
    ("respell"): always where it has no neighbour, else as if this were one neighbour more. What has
    no letters ("3") gets a word more. A hard negative never sounds like its original.

    `pronounce` gives the phonemes of a text, a character each; hibari's g2p if None. What is drawn
    depends on the random numbers and on the set of `texts`, not on their order.
    """

    def __init__(self, texts: Iterable[str], pronounce: Callable[[str], str] | None = None) -> None:
        pronounce = pronounce or hibari_pronounce()
        # Half of what is asked was asked before, and a sentence takes a millisecond.
        self._clean = functools.lru_cache(N_CACHED)(lambda text: sounds_only(pronounce(text)))
        known = [text.split() for text in texts]
        self._vocabulary = self._words(word for words in known for word in words)
        self._singles = self._words(words[0] for words in known if len(words) == 1)

    def draw(self, text: str, rng: np.random.Generator) -> HardNegative:
        """Return a hard negative of `text`, which need not be a known text. Raises NoNearMiss."""
        words = text.split()
        spoken = [at for at, word in enumerate(words) if self._sounds(word)]
        if spoken:
            original = self._clean(text)
            make = {
                "substitute": self._substitute,
                "omit": self._omit,
                "insert": self._insert,
                "neighbour": self._neighbour,
                "respell": self._respell,
            }
            for kind in self._kinds(words, spoken, rng):
                for _ in range(_TRIES):
                    made = make[kind](words, spoken, rng)
                    # "read" may be "red": how a word is read depends on its neighbours.
                    if made is not None and self._clean(made.text) != original:
                        return made
        raise NoHardNegative(f"no hard negative of {text!r}: it has no word that could be changed")

    def several(self, text: str, n: int, rng: np.random.Generator) -> tuple[HardNegative, ...]:
        """Return `n` hard negatives of `text` that sound different, fewer where there are no more.

        The first of them are those that a smaller `n` gives; there are none where `draw` raises.
        """
        found: dict[str, HardNegative] = {}
        for _ in range(_TRIES * n):
            if len(found) == n:
                break
            try:
                made = self.draw(text, rng)
            except NoHardNegative:
                break
            found.setdefault(self._clean(made.text), made)
        return tuple(found.values())

    def _kinds(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> tuple[Kind, ...]:
        """Return the kinds to try, in the order in which to try them."""
        if len(spoken) > 1:
            kinds, shares = list(KIND_SHARES), list(KIND_SHARES.values())
            order = rng.choice(len(kinds), size=len(kinds), replace=False, p=shares)
            return tuple(kinds[at] for at in order)
        near, _ = self._singles.near(self._sounds(words[spoken[0]]))
        if rng.integers(len(near) + 1) == 0:
            return ("respell", "neighbour", "insert")
        return ("neighbour", "respell", "insert")

    def _substitute(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        near = {at: self._vocabulary.near(self._sounds(words[at])) for at in spoken}
        with_near = [at for at, (candidates, _) in near.items() if candidates]
        if not with_near:
            return None
        at = int(rng.choice(with_near))
        return _replaced(words, at, _pick(*near[at], rng), "substitute")

    def _omit(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative:
        at = int(rng.choice(spoken))
        return HardNegative(" ".join([*words[:at], *words[at + 1 :]]), "omit", (), at)

    def _insert(
        self, words: Sequence[str], _spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        at = int(rng.integers(len(words) + 1))
        # Twice the same word: which one would be wrong?
        beside = {self._sounds(word) for word in words[max(0, at - 1) : at + 1]}
        word = str(rng.choice(self._vocabulary.words)) if self._vocabulary.words else ""
        if not word or self._sounds(word) in beside:
            return None
        return HardNegative(" ".join([*words[:at], word, *words[at:]]), "insert", (at,))

    def _neighbour(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        at = spoken[0]
        candidates, chances = self._singles.near(self._sounds(words[at]))
        if not candidates:
            return None
        return _replaced(words, at, _pick(candidates, chances, rng), "neighbour")

    def _respell(
        self, words: Sequence[str], spoken: Sequence[int], rng: np.random.Generator
    ) -> HardNegative | None:
        at = spoken[0]
        sounds = self._sounds(words[at])
        respelled = None
        for spelling in respellings(_core(words[at]), rng):
            distance = Levenshtein.distance(sounds, self._sounds(spelling))
            if distance == 1:
                return _replaced(words, at, spelling, "respell")
            if distance > 1 and respelled is None:  # e.g. a vowel that changes the one before it
                respelled = _replaced(words, at, spelling, "respell")
        return respelled

    def _words(self, words: Iterable[str]) -> "_Words":
        """Return the words, each in one spelling, that can be said."""
        spelled: dict[str, str] = {}
        for word in map(_core, words):
            folded = word.casefold()
            # Of "The" and "the" the latter (capitals sort first): none gives away what was put in.
            spelled[folded] = max(spelled.get(folded, ""), word)
        return _Words(
            {word: sounds for _, word in sorted(spelled.items()) if (sounds := self._sounds(word))}
        )

    def _sounds(self, word: str) -> str:
        """Return the phonemes of a word said alone; nothing for punctuation."""
        core = _core(word)
        return self._clean(core) if core else ""


class _Words:
    """Words with their phonemes, and which of them sound near some phonemes."""

    def __init__(self, sounds_of: Mapping[str, str]) -> None:
        self.words = list(sounds_of)
        self._sounds = list(sounds_of.values())
        self._near: dict[str, tuple[list[str], NDArray[np.float64]]] = {}

    def near(self, sounds: str) -> tuple[list[str], NDArray[np.float64]]:
        """Return the nearest words that are no homophones, and the probability of each."""
        if sounds not in self._near:
            self._near[sounds] = self._nearest(sounds)
        return self._near[sounds]

    def _nearest(self, sounds: str) -> tuple[list[str], NDArray[np.float64]]:
        if not self.words:
            return [], np.zeros(0)
        scorer = Levenshtein.normalized_distance
        distances = cdist([sounds], self._sounds, scorer=scorer, dtype=np.float64)[0]
        distances[distances == 0] = np.inf
        last = np.sort(distances)[: min(NEAREST, len(distances))][-1]
        (chosen,) = np.nonzero(distances <= min(FARTHEST, last))
        chances = np.exp(-distances[chosen] / PREFERENCE)
        return [self.words[at] for at in chosen], chances / chances.sum()


@functools.cache
def hibari_pronounce() -> Callable[[str], str]:
    """Return hibari's g2p: text in, phonemes with stress marks out, words between spaces."""
    try:
        g2p = importlib.import_module("hibari.g2p").G2P()
    except ImportError as error:
        raise HearbackError(
            f"hard negatives need hibari's g2p, which is not installed here ({error}): "
            "pip install -r requirements.txt"
        ) from error
    return g2p


def sounds_only(phonemes: str) -> str:
    """Return what is heard of g2p's phonemes: no stress, punctuation or spaces, no allophones."""
    return "".join(filter(str.isalpha, phonemes.translate(_ONE_SOUND)))


def respellings(word: str, rng: np.random.Generator) -> Iterator[str]:
    """Yield `word` with one group of letters changed, dropped or added, in random order.

    Half of the time changed ones come first. They need not sound different.
    """
    groups = [match.span() for match in _GRAPHEME.finditer(word)]
    edits = {
        "change": list(_changed(word, groups)),
        "drop": list(_dropped(word, groups)),
        "add": list(_added(word, groups)),
    }
    kinds = list(edits)
    for kind in rng.choice(len(kinds), size=len(kinds), replace=False, p=[0.5, 0.25, 0.25]):
        spellings = edits[kinds[kind]]
        for at in rng.permutation(len(spellings)):
            yield spellings[at]


def generate_hard_negatives(
    texts: Iterable[str], n: int, seed: int, pronounce: Callable[[str], str] | None = None
) -> dict[str, tuple[HardNegative, ...]]:
    """Return up to `n` hard negatives for each of `texts`, made of the words of all of them.

    Each text has random numbers of its own, so the first ones are the same whatever `n` is.
    """
    known = sorted(set(texts))
    source = HardNegativeGenerator(known, pronounce)
    return {
        text: source.several(text, n, np.random.default_rng([seed, seed_of(text)]))
        for text in known
    }


def write_hard_negatives(
    hard_negatives: Mapping[str, Iterable[HardNegative]], folder: Path
) -> None:
    """Write the table of hard negatives into the folder of the references, whole or not at all."""
    rows = [
        (text, made.text, made.kind, " ".join(map(str, made.wrong)), _or_empty(made.gap))
        for text, several in hard_negatives.items()
        for made in several
    ]
    path = folder / TABLE
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        # Everything in quotes: a text may have a line break, and even a lone carriage return.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([_COLUMNS, *rows])


def read_hard_negatives(folder: Path) -> dict[str, tuple[HardNegative, ...]]:
    """Return text -> its hard negatives, in their order, from the folder of the references.

    Raises HearbackError, which says what to do, if the table is not there or damaged.
    """
    path = folder / TABLE
    make = f"`python preprocess.py --tts_data {folder} --hard_negatives 2` makes it"
    if not path.is_file():
        raise HearbackError(f"{path}: no hard negatives there; {make}")
    found: dict[str, list[HardNegative]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            fits = set(_COLUMNS).issubset(reader.fieldnames or ())
            for row in reader if fits else ():
                found.setdefault(row["text"], []).append(_from_row(row))
        except (ValueError, AttributeError, TypeError, csv.Error) as error:
            where = f"{path}, line {reader.line_num}"
            raise HearbackError(f"{where}: damaged ({error}); delete it, and {make}") from error
    if not fits:
        raise HearbackError(f"{path}: not a table of hard negatives; delete it, and {make}")
    return {text: tuple(several) for text, several in found.items()}


def _from_row(row: Mapping[str, str]) -> HardNegative:
    """Return what a row of the table says; ValueError and the like if it cannot be true."""
    wrong = tuple(int(at) for at in row["wrong"].split())
    gap = int(row["gap"]) if row["gap"] else None
    n_words = len(row["hard_negative"].split())
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = next((kind for kind in kinds if kind == row["kind"]), None)
    if kind is None:
        raise ValueError(f"unknown kind {row['kind']!r}")
    if not n_words or any(not 0 <= at < n_words for at in wrong):
        raise ValueError(f"no words {row['wrong']} in {row['hard_negative']!r}")
    if gap is not None and not 0 <= gap <= n_words:
        raise ValueError(f"no gap {gap} in {row['hard_negative']!r}")
    return HardNegative(row["hard_negative"], kind, wrong, gap)


def _or_empty(number: int | None) -> str:
    return "" if number is None else str(number)


def _core(word: str) -> str:
    """Return the word without the punctuation around it."""
    found = _CORE.search(word)
    return found.group() if found else ""


def _replaced(words: Sequence[str], at: int, replacement: str, kind: Kind) -> HardNegative:
    """Put a word in another one's place, with its punctuation and its capital."""
    old, core = words[at], _core(words[at])
    if core[0].isupper():
        replacement = replacement[0].upper() + replacement[1:]
    text = " ".join([*words[:at], old.replace(core, replacement, 1), *words[at + 1 :]])
    return HardNegative(text, kind, (at,))


def _pick(candidates: Sequence[str], chances: NDArray[np.float64], rng: np.random.Generator) -> str:
    return candidates[int(rng.choice(len(candidates), p=chances))]


def _is_vowel(group: str) -> bool:
    return group[0].lower() in _VOWEL_LETTERS


def _changed(word: str, groups: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word with a vowel for a vowel, or a consonant for a consonant."""
    for start, end in groups:
        group = word[start:end]
        for other in _VOWELS if _is_vowel(group) else _CONSONANTS:
            if other != group.lower():
                yield word[:start] + other + word[end:]


def _dropped(word: str, groups: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word less a consonant; less a vowel, too, if another one is left."""
    n_vowels = sum(_is_vowel(word[start:end]) for start, end in groups)
    for start, end in groups:
        if len(groups) > 2 and (n_vowels > 1 or not _is_vowel(word[start:end])):
            yield word[:start] + word[end:]


def _added(word: str, groups: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield the word with a consonant more where English has clusters, or beside a lone vowel."""
    if not groups:
        return
    start, end = groups[0][0], groups[-1][1]
    first, last = word[slice(*groups[0])], word[slice(*groups[-1])]
    for consonant in _CONSONANTS if _is_vowel(first) else ("s",):
        yield word[:start] + consonant + word[start:]
    for consonant in ("s", "t", "d", "n", "l", "m", "k") if _is_vowel(last) else ("s", "t", "d"):
        yield word[:end] + consonant + word[end:]
    for (left, right), following in pairwise(groups):
        if not _is_vowel(word[left:right]) and _is_vowel(word[slice(*following)]):
            for liquid in ("l", "r"):
                yield word[:right] + liquid + word[right:]
