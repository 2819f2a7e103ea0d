"""The error that every step prints as one line instead of a traceback, and suggestions in it."""

import difflib
from collections.abc import Iterable


class HearbackError(Exception):
    """An error that the user can fix; the message names the cure."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """Return the known word that a mistyped one probably stands for, or None.

    `cutoff`, 0 to 1, is how alike they must be (`difflib`).
    """
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """Return "; did you mean x?" for unknown words that are like known ones, else ""."""
    known = list(known)
    found = [near for near in (nearest(word, known) for word in words) if near is not None]
    return f"; did you mean {' and '.join(dict.fromkeys(found))}?" if found else ""
