"""The spoken form of one written word: numbers, amounts, times and abbreviations as words."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

# A number with more digits is probably a telephone number or an identifier.
_MAX_DIGITS = 9
_YEARS = range(1100, 2100)

# Words that begin with an apostrophe; before others it opens a quotation.
ELISIONS = frozenset(
    {"'tis", "'twas", "'twill", "'em", "'cause", "'cos", "'til", "'bout", "'round", "'n", "'n'"}
)
_ABBREVIATIONS = {
    "mr.": "mister",
    "mrs.": "missus",
    "ms.": "ms",
    "dr.": "doctor",
    "prof.": "professor",
    "jr.": "junior",
    "sr.": "senior",
    "vs.": "versus",
    "etc.": "et cetera",
}
# Without a full stop they are words in lower case, or letters: "mr" is what a plain text has.
_TITLES = ("mr", "mrs", "dr", "prof", "jr", "sr")
_ABBREVIATIONS |= {"feb.": "february", "apr.": "april", "aug.": "august", "sept.": "september"}
_ABBREVIATIONS |= {"oct.": "october", "nov.": "november", "dec.": "december"}
_AMBIGUOUS = frozenset(
    {
        "st.",
        "ave.",
        "rd.",
        "mt.",
        "ft.",
        "pt.",
        "approx.",
        "lb.",
        "lbs.",
        "lbs",
        "kg",
        "kg.",
        "vol.",
    }
)
_ROMAN = re.compile(r"(?=[IVX]{2})X{0,3}(?:IX|IV|V?I{0,3})")
_UNITS = {
    **dict.fromkeys(("lb", "lbs"), ("pound", "pounds")),
    "kg": ("kilogram", "kilograms"),
    "km": ("kilometer", "kilometers"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "oz": ("ounce", "ounces"),
    "mph": ("mile per hour", "miles per hour"),
}
_NUMBERED = {"vol": "volume", "ch": "chapter", "p": "page"}
_SYMBOLS = {
    **{"&": "and", "+": "plus", "−": "minus", "=": "equals", "×": "times", "÷": "divided by"},
}
_FRACTIONS = {
    "1/2": "one half",
    "1/3": "one third",
    "2/3": "two thirds",
    "1/4": "one quarter",
    "3/4": "three quarters",
    "1⁄8": "one eighth",
    "3⁄8": "three eighths",
    "5⁄8": "five eighths",
    "7⁄8": "seven eighths",
}
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
}
# Letters with combining accents that have no composed form, and apostrophes within and at the end.
_WORD = re.compile(r"(?:'?[^\W_][\u0300-\u036f]*)+'?")
_LETTER = r"[^\W\d_]"

Match = re.Match[str]


class AmbiguousTextError(ValueError):
    """A written word that can be read in several ways; the message completes a sentence on it."""


@dataclass(frozen=True)
class SpokenWords:
    """The words of a written word; `is_spelled_out` if they are not its own letters."""

    words: tuple[str, ...]
    is_spelled_out: bool = False


def spoken_words(written: str) -> SpokenWords:
    """Return the words that a reader says for a written word, in the case as written.

    Only the outer punctuation has been removed, except one last full stop. Characters that nobody
    says (emoji, asterisks) are left out. Raises AmbiguousTextError.
    """
    lower = written.lower()
    if (spoken := _ABBREVIATIONS.get(lower) or _SYMBOLS.get(lower)) is not None:
        return SpokenWords(tuple(spoken.split()), True)
    if lower in _TITLES and written != lower:
        return SpokenWords(tuple(_ABBREVIATIONS[f"{lower}."].split()), True)
    if lower in _AMBIGUOUS:
        raise AmbiguousTextError("is an abbreviation of several words")
    if _ROMAN.fullmatch(written.rstrip(".")):
        raise AmbiguousTextError("is a Roman numeral, which can be read in several ways")
    if re.fullmatch(rf"(?:{_LETTER}\.){{2,}}", written):  # U.S.A., p.m.
        return SpokenWords(tuple(written.replace(".", " ").split()), True)
    core = re.sub("⁄(?!8$)", "/", written.removesuffix("."))
    if re.search(r"\w@\w|://|^www\.|\.(?:com|org|net)$", core, re.I):
        raise AmbiguousTextError("is an address, which can be read in several ways")
    if any(character.isdigit() for character in core):
        return SpokenWords(tuple(_spell_out(core).replace("-", " ").split()), True)
    if any(map(_is_read_in_several_ways, core)):
        raise AmbiguousTextError("has a symbol that can be read in several ways")
    if any(unicodedata.category(character) in ("No", "Nl") for character in core):  # ⅒, ⑤, Ⅷ
        raise AmbiguousTextError("has a number that can be read in several ways")
    # R&B, AT&T
    separated = "".join(
        f" {_SYMBOLS[character]} " if character in _SYMBOLS else character for character in core
    )
    # Hyphens, slashes and punctuation without a space separate words; apostrophes belong to them.
    parts = _WORD.findall(separated)
    words = (part if part.lower() in ELISIONS else part.lstrip("'") for part in parts)
    return SpokenWords(tuple(filter(None, words)), separated != core)


def are_read_together(first: str, second: str) -> bool:
    """Return whether two written words, one after the other, are spoken as one: 10:00 a.m."""
    return any(
        pattern.fullmatch(first) and next_pattern.fullmatch(second)
        for pattern, next_pattern in _READ_TOGETHER
    )


def _is_read_in_several_ways(character: str) -> bool:
    """Return whether a symbol is said, but not always in the same way: ~, ¥, <, №."""
    category = unicodedata.category(character)
    if category == "Sm":
        # "¬" stands where an apostrophe was decoded wrongly, of which there is a warning.
        return character not in _SYMBOLS and character != "¬"
    if category == "So":  # emoji are not said, and ㎏ is
        return character in "°" or unicodedata.normalize("NFKC", character) not in (
            *(character, "TM", "SM"),
        )
    return category == "Sc" or character in "%#@\\^§"


def _spell_out(text: str) -> str:
    """Return the words of a text with digits."""
    if re.search(rf"\d{{{_MAX_DIGITS + 1}}}", text.replace(",", "")):  # int() has a limit, too
        raise AmbiguousTextError("has digits that can be read in several ways")
    for pattern, spell in _PATTERNS:
        if match := pattern.fullmatch(text):
            return spell(match)
    raise AmbiguousTextError("has digits that can be read in several ways")


def _number(digits: str, *, ordinal: bool = False, year: bool = False) -> str:
    """Return the words of a number such as "1,234" or "-3.5"."""
    # Imported here: it takes 0.1 s, and most texts have no digits.
    from num2words import num2words  # noqa: PLC0415

    plain = digits.replace(",", "")
    if len(plain) > _MAX_DIGITS:
        raise AmbiguousTextError("has digits that can be read in several ways")
    whole, point, decimals = plain.partition(".")
    if len(whole) > 1 and whole.startswith("0"):
        raise AmbiguousTextError("begins with a zero, which can be read in several ways")
    kind = "ordinal" if ordinal else "year" if year else "cardinal"
    words = num2words(int(whole or 0), lang="en", to=kind)
    if point:
        words += " point " + " ".join(num2words(int(digit)) for digit in decimals)
    return re.sub(r"[-,]", " ", words)


def _whole(match: Match) -> str:
    digits = match[0]
    is_year = "," not in digits and "." not in digits and int(digits) in _YEARS
    return _number(digits, year=is_year)


def _time(match: Match) -> str:
    hours, minutes = int(match[1]), int(match[2])
    if not hours or hours > 12 or minutes > 59:
        raise AmbiguousTextError("has digits that can be read in several ways")
    half_of_day = " ".join((match[3] or "").replace(".", ""))
    if minutes == 0:
        spoken = _number(match[1]) + ("" if half_of_day else " o'clock")
    else:
        zero = "oh " if minutes < 10 else ""
        spoken = f"{_number(match[1])} {zero}{_number(str(minutes))}"
    return f"{spoken} {half_of_day}"


def _money(match: Match) -> str:
    one, many, one_part, many_parts = _CURRENCIES[match[1]]
    whole, _, part = match[2].partition(".")
    if int(part or 0) and not int((whole or "0").replace(",", "")):
        return f"{_number(str(int(part)))} {one_part if int(part) == 1 else many_parts}"
    words = f"{_number(whole)} {one if whole == '1' else many}"
    if int(part or 0):
        unit = one_part if int(part) == 1 else many_parts
        words += f" and {_number(str(int(part)))} {unit}"
    return words


def _measure(match: Match) -> str:
    one, many = _UNITS[match[2].lower()]
    return f"{_number(match[1])} {one if match[1] == '1' else many}"


_DIGITS = r"\d+|\d{1,3}(?:,\d{3})+"
_DECIMAL = rf"(?:{_DIGITS})(?:\.\d+)?"
# Written words that have one meaning only together, or, as "No. 5", several.
_READ_TOGETHER = (
    (re.compile(r"\d{1,2}(?:[:.]\d\d)?"), re.compile(r"[ap]\.?m\.?", re.I)),
    (re.compile(_DIGITS), re.compile("|".join(_FRACTIONS))),
    (
        re.compile(r"(?:no|fig|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.", re.I),
        re.compile(r"\d+"),
    ),
    (re.compile(rf"(?:{'|'.join(_NUMBERED)})\.", re.I), re.compile(r"\d+")),
    (re.compile(_DECIMAL), re.compile(rf"(?:{'|'.join(_UNITS)})\.?", re.I)),
)
_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[Match], str]], ...] = (
    (re.compile("|".join(_FRACTIONS)), lambda match: _FRACTIONS[match[0]]),
    (
        re.compile(rf"({_DIGITS})[ &]({'|'.join(_FRACTIONS)})"),
        lambda m: f"{_number(m[1])} and {_FRACTIONS[m[2]].replace('one', 'a')}",
    ),
    (re.compile(_DECIMAL), _whole),
    (re.compile(r"\.\d+"), lambda match: _number(match[0]).removeprefix("zero ")),
    (re.compile(rf"-({_DECIMAL})"), lambda match: f"minus {_number(match[1])}"),
    (re.compile(rf"({_DIGITS})(?:st|nd|rd|th)", re.I), lambda m: _number(m[1], ordinal=True)),
    (re.compile(r"(\d{1,2})[:.](\d{2}) ?([ap]\.?m\.?)", re.I), _time),
    (re.compile(r"(\d{1,2}):(\d{2})()"), _time),
    (re.compile(r"(\d{1,2}) ?([ap])\.?m\.?", re.I), lambda m: f"{_number(m[1])} {m[2]} m"),
    (re.compile(rf"([$£€])((?:{_DIGITS})(?:\.\d\d)?|\.\d\d)"), _money),
    (re.compile(rf"({_DECIMAL}) ?({'|'.join(_UNITS)})", re.I), _measure),
    (
        re.compile(rf"({'|'.join(_NUMBERED)})\. (\d+)", re.I),
        lambda match: f"{_NUMBERED[match[1].lower()]} {_number(match[2])}",
    ),
    (re.compile(rf"({_DECIMAL})%"), lambda match: f"{_number(match[1])} percent"),
    (re.compile(r"#(\d+)"), lambda match: f"number {_number(match[1])}"),
    (re.compile(rf"(\d+)-({_LETTER}+(?:-{_LETTER}+)*)"), lambda m: f"{_number(m[1])} {m[2]}"),
    (re.compile(r"([a-z])-?(\d{1,2})", re.I), lambda match: f"{match[1]} {_number(match[2])}"),
    (re.compile(r"(\d)([a-z])", re.I), lambda match: f"{_number(match[1])} {match[2]}"),
)
