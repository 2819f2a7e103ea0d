"""The pronunciations of the corpus's words, and similar-sounding words."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein

from hearback.engine.data.problems import Problem, Report
from hearback.reading.corpora.speechocean762_files import LEXICON, Corpus
from hearback.reading.corpora.speechocean762_tables import CURE_INCOMPLETE, Utterance, read_text


@dataclass
class Lexicon:
    """The corpus's vocabulary with pronunciations.

    `pronunciations` maps each word to its variants: sequences of phonemes without stress, or of
    letters if the corpus has no lexicon.
    """

    pronunciations: dict[str, list[tuple[str, ...]]]
    _near: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def distance(self, first: str, second: str) -> int:
        """Return the smallest edit distance between two words' variants; 0 for homophones."""
        return min(
            Levenshtein.distance(a, b)
            for a in self.pronunciations[first]
            for b in self.pronunciations[second]
        )

    def near(self, word: str) -> list[str]:
        """Return the most similar words without homophones, at most half of `word`'s sounds apart.

        Words of one sound may be one sound apart. Empty if `word` is not in the lexicon.
        """
        if word not in self._near:
            self._near[word] = self._find_near(word)
        return self._near[word]

    def _find_near(self, word: str) -> list[str]:
        lengths = {len(variant) for variant in self.pronunciations.get(word, ())}
        best, found = max(1, max(lengths, default=0) // 2), []
        for other, variants in self.pronunciations.items() if lengths else ():
            if min(abs(len(variant) - n) for variant in variants for n in lengths) > best:
                continue  # the difference in length is a lower bound
            distance = self.distance(word, other)
            if 0 < distance < best:
                best, found = distance, [other]
            elif distance == best:
                found.append(other)
        return found


def read_lexicon(corpus: Corpus, utterances: Iterable[Utterance], report: Report) -> Lexicon:
    """Read the pronunciations of the corpus's words.

    Without resource/lexicon.txt, words are compared by spelling, and the report gets a warning.
    """
    words = sorted({word for each in utterances for word in each.text.split()})
    if corpus.read(LEXICON) is None:
        what = "missing: similar words are found by spelling"
        cure = "take it from the corpus"
        report.add(Problem(LEXICON, None, what, cure, severity="warning"))
        return Lexicon({word: [tuple(word)] for word in words})
    pronunciations: dict[str, list[tuple[str, ...]]] = {}
    for row, line in enumerate(read_text(corpus, LEXICON, report).splitlines(), 1):
        word, *phonemes = line.lower().split() or [""]
        if phonemes:
            variant = tuple(phoneme.rstrip("012") for phoneme in phonemes)
            pronunciations.setdefault(word, []).append(variant)
        else:
            what = f"not a word and its phonemes: {line!r}"
            report.add(Problem(LEXICON, row, what, CURE_INCOMPLETE))
    return Lexicon({word: pronunciations[word] for word in words if word in pronunciations})
