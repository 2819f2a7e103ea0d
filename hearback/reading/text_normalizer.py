"""Normalize expected texts to the words that a reader says.

One form of a text is used by training, references, word scores and inference: lower-case words with
apostrophes, separated by single spaces, such as "it's three o'clock". A text in this form is
returned as it is. Everything else is changed to it where it has one meaning, and refused where it
has several:

- Encoding faults, HTML entities, curly apostrophes, ligatures, letters apart from their accents:
  ftfy (https://ftfy.readthedocs.io) repairs what is certain.
- Numbers: num2words (https://github.com/savoirfairelinux/num2words) spells them out.
- Capitals, punctuation, invisible characters and emoji: no reader says them.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from hearback.engine.data.problems import quoted
from hearback.engine.errors import HearbackError
from hearback.reading.spoken_forms import (
    ELISIONS,
    AmbiguousTextError,
    are_read_together,
    spoken_words,
)

# Recorded in a fold's metadata. Increase it when `normalize_text` returns another text than before.
VERSION = 1

_PLAIN = re.compile(r"[a-z]+(?:'[a-z]+)*(?: [a-z]+(?:'[a-z]+)*)*")
_APOSTROPHES = str.maketrans(dict.fromkeys("´`ʹʻʼ′‘’‛＇", "'"))
_STRAIGHT_QUOTES = str.maketrans(dict.fromkeys("“”„‟", '"'))
_PUNCTUATION = ',.;:!?"“”„«»()[]{}…'
_DASHES = re.compile(r"[‐‑‒–—―]|--+")
_DASH_BETWEEN_DIGITS = re.compile(r"(?<=\d)(?:[‐‑‒–—―−]|--+)(?=[$£€]?\d)")
_DASH_BETWEEN_NUMBERS = re.compile(r"(?<=\d) (?:[-–−]|--) (?=[$£€]?\d)")
_INCHES = re.compile(r'[.\d]*\d"')
_MINUS = re.compile(r"(?<!\S)−(?=[.\d])")
# A number of four digits without a comma, before a plural and not after "in": 1234 toys.
_COUNT = re.compile(
    r"(?<!in )(?<!of )(?<!by )(?<!since )(?<!until )(?<!from )(?<!year )(?<![^\s\"“'(])"
    r"(1[1-9]|20)(\d\d) (?!(?:was|has|this|its|his|does|always|sometimes|perhaps|us|yes)\b)"
    r"(?=[a-z]+s\b)",
    re.I,
)
_SPACES = re.compile(r"[ \t\r\n]+")
_DOUBLED_APOSTROPHE = re.compile(r"(?<=\w)''(?=\w)")
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")

_FRACTIONS = {
    **{"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4"},
    # Not 1/8, which may be a date.
    **{"⅛": "1⁄8", "⅜": "3⁄8", "⅝": "5⁄8", "⅞": "7⁄8"},
}
_FRACTION_AFTER_DIGIT = re.compile(rf"(?<=\d)(?=[{''.join(_FRACTIONS)}])")
# A question mark in the place of an apostrophe; an accented capital inside a word, as in "itÂ’s".
_WRONGLY_DECODED = re.compile(
    r"[^\W\d_]\?[^\W\d_]|[a-z][À-ÖØ-Þ]|Â['’]|[a-z];(?:s|t|m|d|re|ve|ll)\b"
)

_QUOTE_IN_WORD = re.compile(r"[^\W\d_]”[^\W\d_]")

# Kinds of changes, for the report.
ENCODING = "wrongly decoded characters"
ENTITIES = "HTML entities"
APOSTROPHES = "curly apostrophes"
CHARACTERS = "invisible or composed characters"
PUNCTUATION = "punctuation"
SPOKEN = "numbers, symbols and abbreviations"
CAPITALS = "capital letters"

_MAX_EXAMPLES = 3
DECODING_CURE = "compare it with its source, and save the table as UTF-8"
CHANGED_CURE = (
    "scored as changed, and outputs keep the text as written; where learners say something else, "
    "write the words that they say"
)


class UnspeakableTextError(HearbackError, ValueError):
    """A text that is empty, too long, or can be read in several ways.

    `cure` says what to do; `status` is "unreadable" or "too_long".
    """

    def __init__(
        self,
        what: str,
        cure: str = "write the words that the learner was asked to say",
        status: str = "unreadable",
    ) -> None:
        super().__init__(what)
        self.cure = cure
        self.status = status


@dataclass(frozen=True)
class NormalizedText:
    """A text as the words that a reader says.

    Attributes:
        text: the words, separated by single spaces; "" if there are none.
        written: for each word the part of the written text that it comes from: for each of "five
            dollars" it is "$5".
        changes: the kinds of changes, in the order in which they were made.
        is_suspicious: characters may have been decoded wrongly, but the right ones are unknown.
    """

    text: str
    written: tuple[str, ...]
    changes: tuple[str, ...] = ()
    is_suspicious: bool = False


@lru_cache(maxsize=65_536)
def normalize_text(text: str) -> NormalizedText:
    """Return a text as the words that a reader says. Raises UnspeakableTextError."""
    if _PLAIN.fullmatch(text):
        return NormalizedText(text, tuple(text.split()))
    return _Normalizer(text).normalize()


def describe_changes(
    changed: Sequence[tuple[str, NormalizedText]], n_texts: int, first: str
) -> str:
    """Return how many of `n_texts` texts were changed and how, with three examples.

    `changed` are the changed texts as written, and as the words that a reader says; `first` is the
    place of the first one.
    """
    counts = Counter(change for _, normalized in changed for change in normalized.changes)
    kinds = ", ".join(f"{change} in {count}" for change, count in counts.most_common())
    examples = {written: normalized.text for written, normalized in changed}
    shown = "; ".join(
        f"{quoted(written)} -> {quoted(text)}"
        for written, text in islice(examples.items(), _MAX_EXAMPLES)
    )
    verb = "was" if len(changed) == 1 else "were"
    how = f"{verb} changed ({kinds}), first {first}"
    n = "the expected text" if n_texts == 1 else f"{len(changed)} of {n_texts} expected texts"
    return f"{n} {how}, such as {shown}"


def written_words(texts: Sequence[str]) -> list[str]:
    """Return the part of its written text that each word of the `texts` comes from, in order."""
    return [part for text in texts for part in normalize_text(text).written]


@dataclass
class _Normalizer:
    """Normalizes one text, and collects the kinds of changes."""

    text: str
    changes: dict[str, None] = field(default_factory=dict)

    def normalize(self) -> NormalizedText:
        repaired = self._repair(self.text)
        if _MARKUP.search(repaired):
            raise UnspeakableTextError(f"{quoted(self.text)} has markup, such as <b>")
        if (inches := _INCHES.search(repaired)) and repaired.count('"') % 2:
            raise UnspeakableTextError(f"{quoted(inches[0])} can be read in several ways")
        words: list[str] = []
        written: list[str] = []
        for chunk, as_written in self._separate(repaired):
            spoken = self._words(chunk)
            words += spoken
            written += [as_written] * len(spoken)
        text = " ".join(words)
        is_same = text == " ".join(self.text.split())
        self._note(PUNCTUATION, not is_same and not self.changes)
        return NormalizedText(
            text, tuple(written), tuple(self.changes), self._is_suspicious(repaired)
        )

    def _repair(self, text: str) -> str:
        """Repair characters: encoding, entities, apostrophes, composed letters, invisible ones."""
        # Imported here: reading plain texts needs no ftfy.
        import ftfy  # noqa: PLC0415

        decoded = ftfy.fix_encoding(text)
        self._note(ENCODING, decoded != text)
        # Twice: "&amp;#39;".
        unescaped = html.unescape(html.unescape(decoded))
        self._note(ENTITIES, unescaped != decoded)
        uncurled = unescaped.translate(_APOSTROPHES)
        self._note(APOSTROPHES, uncurled != unescaped)
        fixed = ftfy.fix_text(uncurled, unescape_html=False)
        visible = "".join(
            " " if unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc") else character
            for character in map(_plain_letter, fixed)
            # Cf: soft hyphens, zero-width spaces, directions.
            if unicodedata.category(character) != "Cf" and not _is_selector(character)
        )
        # Not split(), which splits at the spaces that are replaced.
        plain = _SPACES.sub(" ", uncurled.translate(_STRAIGHT_QUOTES))
        self._note(CHARACTERS, _SPACES.sub(" ", visible) != plain)
        if "\ufffd" in visible:
            what = f"{quoted(self.text)} has characters that were lost in decoding"
            raise UnspeakableTextError(what, DECODING_CURE)
        # 6½ becomes 6&1/2, and not 61/2.
        separated = _FRACTION_AFTER_DIGIT.sub("&", self._settle_numbers(visible))
        for character, spelled in _FRACTIONS.items():
            separated = separated.replace(character, spelled)
        return separated

    def _settle_numbers(self, text: str) -> str:
        """Tell minus from dash beside numbers, and counts from years.

        A dash between numbers is "to", "minus" or a pause: it becomes a hyphen, which is refused.
        """
        text = _MINUS.sub("-", _DASH_BETWEEN_DIGITS.sub("-", _COUNT.sub(_comma, text)))
        text = _DASH_BETWEEN_NUMBERS.sub(" − " if "=" in text else "-", text)
        # Elsewhere it is a dash: "the cat − a dog", "well−known".
        return text if "=" in text else re.sub(r"(?<!\d )−|−(?! \d)", "—", text)

    def _note(self, change: str, is_changed: bool) -> None:
        if is_changed:
            self.changes[change] = None

    def _separate(self, repaired: str) -> Iterator[tuple[str, str]]:
        """Yield the parts between spaces and dashes, without punctuation, and as written."""
        parts, written = repaired.split(), self.text.split()
        if len(parts) != len(written):
            written = parts
        is_quoting = False
        for part, as_written in _join_parts(parts, written):
            for piece in _DASHES.split(part):
                core = _strip_punctuation(piece)
                ends = piece.rstrip(_PUNCTUATION)
                # Abbreviations keep their last full stop: "Mr.", "a.m.".
                is_dotted = piece.removeprefix(ends).startswith(".")
                if core.startswith("'") and core.lower() not in ELISIONS:
                    is_quoting = True
                    core = core.lstrip("'")
                if core.endswith("'") and (is_quoting or core.endswith("''")):
                    is_quoting = is_dotted = False
                    core = core.rstrip("'")
                if core:
                    yield core + "." if is_dotted else core, as_written

    def _words(self, chunk: str) -> list[str]:
        """Return the words of a part of the text, in lower case."""
        try:
            spoken = spoken_words(chunk)
        except AmbiguousTextError as error:
            raise UnspeakableTextError(f"{quoted(chunk)} {error}") from None
        words = [word.lower() for word in spoken.words]
        for word in words:
            self._check_script(word)
        self._note(SPOKEN, spoken.is_spelled_out)
        self._note(PUNCTUATION, not spoken.is_spelled_out and chunk != " ".join(spoken.words))
        self._note(CAPITALS, words != list(spoken.words))
        return words

    def _is_suspicious(self, repaired: str) -> bool:
        """Return whether characters may have been decoded wrongly, or replace an apostrophe."""
        from ftfy.badness import is_bad  # noqa: PLC0415

        if _QUOTE_IN_WORD.search(self.text):  # ftfy makes it straight
            return True
        return is_bad(repaired) or _WRONGLY_DECODED.search(repaired) is not None

    def _check_script(self, word: str) -> None:
        """Refuse letters that are not Latin: others, look-alikes, wrongly decoded ones."""
        names = [unicodedata.name(letter, "") for letter in word if letter.isalpha()]
        is_latin = any(name.startswith("LATIN") for name in names)
        if is_latin and not all(name.startswith("LATIN") for name in names):
            raise UnspeakableTextError(f"{quoted(word)} mixes Latin letters with others")
        if names and not is_latin:
            raise UnspeakableTextError(f"{quoted(word)} has letters that no English word has")


def _join_parts(parts: Sequence[str], written: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each part of a text with what was written; "10:00 a.m." and "6 1/2" as one part."""
    rest = zip(parts, written, strict=True)
    part, as_written = next(rest, ("", ""))
    for next_part, next_written in rest:
        if are_read_together(part.lstrip(_PUNCTUATION), next_part.rstrip(_PUNCTUATION)):
            part, as_written = f"{part} {next_part}", f"{as_written} {next_written}"
            continue
        yield part, as_written
        part, as_written = next_part, next_written
    yield part, as_written


def _strip_punctuation(piece: str) -> str:
    """Return a part of a text without the punctuation around it; ".5" keeps its point."""
    core = piece.strip(_PUNCTUATION)
    point = re.search(r"(?<!\.)\.$", piece[: piece.find(core)])
    # A doubled apostrophe, as databases write it: don''t.
    return ("." if point and core[:1].isdigit() else "") + _DOUBLED_APOSTROPHE.sub("'", core)


def _comma(found: re.Match[str]) -> str:
    """Return a number of four digits and the space after it, with a comma."""
    digits = found[1] + found[2]
    return f"{digits[0]},{digits[1:]} "


def _plain_letter(character: str) -> str:
    """Return the letter or digit that a mathematical one (bold, script) looks like."""
    is_styled = "\U0001d400" <= character <= "\U0001d7ff"
    return unicodedata.normalize("NFKC", character) if is_styled else character


def _is_selector(character: str) -> bool:
    """Return whether a character only selects the form of the previous one, as in emoji."""
    return "\ufe00" <= character <= "\ufe0f" or character == "\u20e3"
