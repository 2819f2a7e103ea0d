"""Labels of phones: experts' transcriptions of a word, aligned with the phones of a text.

The notation is that of speechocean762 (Zhang et al. 2021): the word's phones in ARPAbet, those that
an expert rejects in round brackets, accented ones in braces, phones that the reader added in square
brackets, and a bar between experts:

    B (EH0) R | B EH0 {R} | B EH0 [ L ] R

An accented phone is accepted, as an accented word is. A transcription may have other phones than
the dictionary: the two are aligned, and a phone without a counterpart has no label.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hearback.engine.phones.vocabulary import ARPABET

# torch: reading a table needs none.
if TYPE_CHECKING:
    from hearback.engine.phones.tokenizer import PhoneTokenizer
    from hearback.engine.whisper.tokenizer import TokenizedText

# Phones of speechocean762 that ARPAbet does not have.
_FURTHER = {
    **{"AX": "ə", "AXR": "ɝ", "EE": "ɝ", "OO": "ɔ"},
    **{"TR": "t ɹ", "DR": "d ɹ", "TS": "t s", "DZ": "d z"},
    **{"AR": "ɑ ɹ", "EHR": "ɛ ɹ", "IR": "ɪ ɹ", "OR": "ɔ ɹ", "UR": "ʊ ɹ"},
}
_SYMBOLS = {symbol: phone.split() for symbol, phone in {**ARPABET, **_FURTHER}.items()}
_VOWELS = frozenset(
    phone
    for symbol, phones in _SYMBOLS.items()
    for phone in phones
    if symbol[0] in "AEIOU" and phone != "ɹ"
)
_PIECE = re.compile(r"[()\[\]{}]|[A-Z]+[0-2]?")
_CLOSING = {")": "(", "]": "[", "}": "{"}
# Costs of the alignment: experts write another vowel where the dictionary has one of another
# variety of English, seldom another consonant.
_OTHER_VOWEL, _OTHER_PHONE, _GAP = 0.5, 1.0, 0.7
_FEWEST_EXPERTS = 3


class TranscriptionError(ValueError):
    """A transcription that cannot be read; the message says what is wrong with it."""


def parse(transcription: str) -> list[tuple[str, bool]]:
    """Return the phones of one expert's transcription, in IPA, and whether each is accepted.

    Phones that the reader added are left out. Raises TranscriptionError for unknown phones and for
    brackets that do not match.
    """
    if rest := _PIECE.sub("", transcription).strip():
        raise TranscriptionError(f"{rest.split()[0]!r} is no phone of ARPAbet and no bracket")
    phones: list[tuple[str, bool]] = []
    brackets: list[str] = []  # that are open
    for piece in _PIECE.findall(transcription):
        if piece in "([{":
            brackets.append(piece)
        elif piece in _CLOSING:
            if not brackets or brackets.pop() != _CLOSING[piece]:
                raise TranscriptionError(f"{piece!r} without {_CLOSING[piece]!r}")
        elif (found := _SYMBOLS.get(piece) or _SYMBOLS.get(piece.rstrip("012"))) is None:
            raise TranscriptionError(f"{piece!r} is no phone of ARPAbet")
        elif "[" not in brackets:
            phones += [(phone, "(" not in brackets) for phone in found]
    if brackets:
        raise TranscriptionError(f"{brackets[-1]!r} is not closed")
    return phones


def phone_targets(
    text: "TokenizedText", transcriptions: Sequence[str], tokenizer: "PhoneTokenizer"
) -> np.ndarray | None:
    """Return the share of experts who accept each target of a text of phones, (targets,) float32.

    `transcriptions` are of its words. NaN where a word has none, and at the end of the text;
    None if no word has one.
    """
    if not any(transcriptions):
        return None
    targets = np.full(len(text.word_ids), np.nan, dtype=np.float32)
    for word, transcription in enumerate(transcriptions):
        of_word = np.flatnonzero(text.word_ids == word)
        phones = tokenizer.phones(text.tokens[of_word])
        targets[of_word] = shares_accepted(phones, transcription)
    return targets


@functools.lru_cache(maxsize=1 << 16)
def shares_accepted(phones: Sequence[str], transcriptions: str) -> tuple[float, ...]:
    """Return the share of experts who accept each phone of a word; NaN where too few say so.

    `phones` are in IPA, hashable. `transcriptions` may be empty.
    """
    experts = [_align(phones, parse(each)) for each in transcriptions.split("|") if each.strip()]
    if not experts:
        return (math.nan,) * len(phones)
    accepted = np.array(experts)
    known = ~np.isnan(accepted)
    n_known = known.sum(axis=0)
    shares = np.where(known, accepted, 0.0).sum(axis=0) / np.maximum(n_known, 1)
    enough = n_known >= min(_FEWEST_EXPERTS, len(experts))
    return tuple(np.where(enough, shares, np.nan).tolist())


def _align(phones: Sequence[str], transcribed: Sequence[tuple[str, bool]]) -> list[float]:
    """Return for each phone whether the phone that it aligns with is accepted; NaN without one."""
    costs = np.empty((len(phones) + 1, len(transcribed) + 1))
    costs[:, 0] = _GAP * np.arange(len(phones) + 1)
    costs[0] = _GAP * np.arange(len(transcribed) + 1)
    for row, phone in enumerate(phones, 1):
        for column, (other, _) in enumerate(transcribed, 1):
            costs[row, column] = min(
                costs[row - 1, column - 1] + _distance(phone, other),
                costs[row - 1, column] + _GAP,
                costs[row, column - 1] + _GAP,
            )
    aligned = [np.nan] * len(phones)
    row, column = len(phones), len(transcribed)
    while row and column:
        other, is_accepted = transcribed[column - 1]
        if costs[row, column] == costs[row - 1, column - 1] + _distance(phones[row - 1], other):
            row, column = row - 1, column - 1
            aligned[row] = float(is_accepted)
        elif costs[row, column] == costs[row - 1, column] + _GAP:
            row -= 1
        else:
            column -= 1
    return aligned


def _distance(phone: str, other: str) -> float:
    if phone == other:
        return 0.0
    return _OTHER_VOWEL if phone in _VOWELS and other in _VOWELS else _OTHER_PHONE
