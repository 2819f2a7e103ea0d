"""The tokens of the recogniser of phones and of the phones of words."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

PAD, START, END, UNKNOWN = "<pad>", "<sos>", "<eos>", "<unk>"
WORD_BOUNDARY, BLANK = "<wb>", "<blank>"

# ARPAbet -> the recogniser's phones, in the International Phonetic Alphabet. Unstressed AH is ə.
ARPABET = {
    **{"AA": "ɑ", "AE": "æ", "AH": "ʌ", "AH0": "ə", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "EH": "ɛ"},
    **{"ER": "ɝ", "EY": "eɪ", "IH": "ɪ", "IY": "i", "OW": "oʊ", "OY": "ɔɪ", "UH": "ʊ", "UW": "u"},
    **{"B": "b", "CH": "t͡ʃ", "D": "d", "DH": "ð", "F": "f", "G": "ɡ", "HH": "h", "JH": "d͡ʒ"},
    **{"K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ"},
    **{"T": "t", "TH": "θ", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ"},
}


@dataclass(frozen=True)
class PhoneVocabulary:
    """Phones, in the International Phonetic Alphabet, and letters.

    Attributes:
        phones: the tokens of the recogniser; the last two are a word boundary and CTC's blank.
            Those before them are the tokens of `GraphemeToPhone`, with the same ids.
        letters: the tokens of written words.
    """

    phones: tuple[str, ...]
    letters: tuple[str, ...]

    @classmethod
    def from_lists(cls, phones: Any, letters: Any) -> Self:  # noqa: ANN401  (JSON's)
        """Return the vocabulary of two lists, as read from JSON; ValueError if they are none."""
        for tokens in (phones, letters):
            is_list = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
            if not is_list or len(set(tokens)) < len(tokens) or not {PAD, UNKNOWN} <= set(tokens):
                raise ValueError(f"its tokens are no list of different texts with {UNKNOWN}")
        if {START, END} - set(phones) or phones[-2:] != [WORD_BOUNDARY, BLANK]:
            raise ValueError(f"its phones do not end with {WORD_BOUNDARY} and {BLANK}")
        return cls(tuple(phones), tuple(letters))

    @cached_property
    def phone_ids(self) -> dict[str, int]:
        """The ids of the phones."""
        return {phone: number for number, phone in enumerate(self.phones)}

    @cached_property
    def letter_ids(self) -> dict[str, int]:
        """The ids of the letters."""
        return {letter: number for number, letter in enumerate(self.letters)}

    @property
    def blank(self) -> int:
        """The id of CTC's blank."""
        return self.phone_ids[BLANK]

    @property
    def word_boundary(self) -> int:
        """The id of the boundary of two words."""
        return self.phone_ids[WORD_BOUNDARY]

    @property
    def special(self) -> frozenset[int]:
        """The ids of tokens that are no sounds: padding, start, end, unknown, boundary, blank."""
        tokens = (PAD, START, END, UNKNOWN, WORD_BOUNDARY, BLANK)
        return frozenset(self.phone_ids[token] for token in tokens)
