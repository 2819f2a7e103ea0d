"""Which expected texts are in another language than English, which the models learned from?

By words that are frequent in 23 other languages with Latin letters (`language_words`): made-up
words and names are in few. Statistics of letters find more single texts, but need another package;
docs/reference/input.md compares them. `text_normalizer` refuses texts in other scripts.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from hearback.engine.data.problems import Problem, Report, count_noun, quoted
from hearback.reading.language_words import ENGLISH, OTHER_LANGUAGES

MIN_WORDS = 4  # of a text that is checked alone
MIN_TEXTS = 5  # different ones, of a table that is checked as a whole
# Shares of the words that are frequent in the other language. A table in one of the languages has
# 20 % or more, one of made-up words up to 2.5 %.
MIN_SHARE_OF_TEXT, MIN_SHARE_OF_TABLE = 0.2, 0.1
# Different ones, and their letters: more than a few made-up words of three letters hit by chance.
MIN_DIFFERENT_OF_TEXT, MIN_DIFFERENT_OF_TABLE = 2, 3
MIN_LETTERS_OF_TEXT, MIN_LETTERS_OF_TABLE = 7, 10
# A language is named if, of the different words, so many times more are its own than another's.
SURE = 2

CURE = (
    "scored as English, the only language that the scorers know, so a low score is no sign of bad "
    "reading"
)

_LETTERS = str.maketrans(
    {**{"ł": "l", "đ": "d", "ı": "i", "ø": "o", "ð": "d"}, **{"ß": "ss", "œ": "oe", "æ": "ae"}}
)
_MADE_UP = re.compile(r"non[\W_]*word", re.I)  # a task, as tables write it
_ENGLISH = frozenset(ENGLISH.split())
_LANGUAGES_OF: dict[str, list[str]] = {}  # by word
for _language, _words in OTHER_LANGUAGES.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)


@dataclass(frozen=True)
class OtherLanguage:
    """The texts of a table that look like another language than English.

    Attributes:
        indices: their indices, ascending.
        language: its name, such as "Spanish"; "" if they have several, or it is unsure.
    """

    indices: tuple[int, ...]
    language: str = ""


@dataclass(frozen=True)
class _Evidence:
    """What the words of one text, or of several, tell about their language.

    Attributes:
        n_texts: number of texts.
        n_words: number of their words.
        n_english: how many are frequent in English alone.
        n_other: how many are frequent in another language, for each that has one; the other words
            with an accent count for each of these, too.
        different: the different ones of them.
    """

    n_texts: int
    n_words: int
    n_english: int
    n_other: dict[str, int]
    different: dict[str, frozenset[str]]

    @property
    def best(self) -> str:
        """The likeliest other language, "" if none has a word."""
        return max(self.n_other, key=self.n_other.__getitem__, default="")

    def is_like(self, language: str, min_share: float) -> bool:
        """Return whether the words are more like a language than like English."""
        n = self.n_other.get(language, 0)
        return n > self.n_english and n >= min_share * self.n_words


def find_other_language(texts: Sequence[str]) -> OtherLanguage:
    """Return which of the `texts`, in the form of `text_normalizer`, look like another language.

    A text is checked alone if it has `MIN_WORDS` words or more. `MIN_TEXTS` different texts of two
    words or more are checked together, too; if they are in another language, each text with more
    frequent words of it than of English counts, however short.
    """
    evidence = {text: _weigh(text) for text in dict.fromkeys(texts)}
    # Single words may be names, or made up.
    whole = _add([each for each in evidence.values() if each.n_words > 1])
    language = whole.best if _is_other_table(whole) else None
    found = {
        text
        for text, each in evidence.items()
        if _is_other_text(each) or (language is not None and each.is_like(language, 0.0))
    }
    indices = tuple(index for index, text in enumerate(texts) if text in found)
    return OtherLanguage(indices, _name(_add([evidence[text] for text in found])))


def report_other_language(
    path: Path, frame: pd.DataFrame, texts: Sequence[str], report: Report
) -> None:
    """Report in one warning how many texts look like another language, with the first row.

    Args:
        path: of the table, or the folder of the recordings.
        frame: with the columns `filename` and `line`, and perhaps `task`: made-up words to repeat
            are in no language.
        texts: of its rows, in the form of `text_normalizer`; "" where there is none to check.
        report: receives the warning.
    """
    tasks = frame["task"] if "task" in frame else [""] * len(frame)
    rows = list(zip(texts, frame["line"].tolist(), frame["filename"], tasks, strict=True))
    checked = [row for row in rows if row[0] and not _MADE_UP.match(row[3])]
    found = find_other_language([text for text, *_ in checked])
    if not found.indices:
        return
    indices, language = found.indices, found.language
    text, line, filename, _ = checked[indices[0]]
    verb = "looks" if len(indices) == 1 else "look"
    what = (
        f"{len(indices)} of {count_noun(len(checked), 'text')} {verb} {_like(language)}; the first "
        f"is {quoted(text)}"
    )
    if len(checked) == 1:
        what = f"the text {quoted(text)} looks {_like(language)}"
    report.add(Problem(str(path), line, what, CURE, "warning", filename or None))


def notes_of_language(text: str) -> tuple[str, ...]:
    """Return a note on a text that looks like another language; none for an English one."""
    found = find_other_language([text])
    return (f"the text looks {_like(found.language)}; {CURE}",) if found.indices else ()


def _like(language: str) -> str:
    return "like another language than English" + (f", probably {language}" if language else "")


@lru_cache(maxsize=65_536)
def _weigh(text: str) -> _Evidence:
    """Return what the words of one text tell."""
    words = text.split()
    plain = [word if word.isascii() else _without_accents(word) for word in words]
    n_other = Counter(language for word in plain for language in _LANGUAGES_OF.get(word, ()))
    accented = [
        word
        for word, written in zip(plain, words, strict=True)
        if word != written and word not in _LANGUAGES_OF
    ]
    return _Evidence(
        n_texts=1,
        n_words=len(words),
        n_english=sum(word in _ENGLISH for word in plain),
        n_other={language: n + len(accented) for language, n in n_other.items()},
        different={
            language: frozenset(accented).union(
                word for word in plain if language in _LANGUAGES_OF.get(word, ())
            )
            for language in n_other
        },
    )


def _without_accents(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word.translate(_LETTERS))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _add(several: Sequence[_Evidence]) -> _Evidence:
    """Return what several texts tell together."""
    n_other: Counter[str] = Counter()
    different: dict[str, frozenset[str]] = {}
    for each in several:
        n_other.update(each.n_other)
        for language, words in each.different.items():
            different[language] = different.get(language, frozenset()) | words
    return _Evidence(
        n_texts=len(several),
        n_words=sum(each.n_words for each in several),
        n_english=sum(each.n_english for each in several),
        n_other=dict(n_other),
        different=different,
    )


def _is_other_text(text: _Evidence) -> bool:
    """Return whether a single text is in another language."""
    limits = MIN_DIFFERENT_OF_TEXT, MIN_LETTERS_OF_TEXT, MIN_SHARE_OF_TEXT
    return text.n_words >= MIN_WORDS and _is_other(text, *limits)


def _is_other_table(table: _Evidence) -> bool:
    """Return whether the texts of a table are, most of them, in another language."""
    limits = MIN_DIFFERENT_OF_TABLE, MIN_LETTERS_OF_TABLE, MIN_SHARE_OF_TABLE
    return table.n_texts >= MIN_TEXTS and _is_other(table, *limits)


def _is_other(evidence: _Evidence, min_different: int, min_letters: int, min_share: float) -> bool:
    """Return whether there are enough different words of the likeliest other language."""
    words = evidence.different.get(evidence.best, frozenset())
    is_enough = len(words) >= min_different and sum(map(len, words)) >= min_letters
    return is_enough and evidence.is_like(evidence.best, min_share)


def _name(evidence: _Evidence) -> str:
    """Return the language of the texts, "" if it is unsure."""
    language = evidence.best
    own = evidence.different.get(language, frozenset())
    is_sure = len(own) >= MIN_DIFFERENT_OF_TABLE and all(
        len(own - words) > SURE * len(words - own)
        for other, words in evidence.different.items()
        if other != language
    )
    return language if is_sure else ""
