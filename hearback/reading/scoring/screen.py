"""Scores on the screen: a line for each recording, and its words, the doubtful ones marked."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from wcwidth import wcswidth

from hearback.engine.data.problems import count_noun
from hearback.reading.scoring.results import Score, WordScore, count_statuses
from hearback.reading.scoring.status import DOUBTFUL

MIN_TEXT_WIDTH = 24  # columns; in a narrower terminal the text has lines of its own
MAX_SHOWN = 60  # recordings; of more, the lowest scores are shown
N_LOWEST = 20

_RESET, _UNDERLINE = "\033[0m", "\033[4m"
_CONTROLS = ("Cc", "Cf", "Zl", "Zp")  # Unicode categories: controls, marks, separators of lines
# By probability: red, yellow, no colour.
_COLOURS = ((DOUBTFUL, "\033[31m"), (0.8, "\033[33m"))


@dataclass(frozen=True)
class Screen:
    """How to show scores: in how many columns, and whether with colours."""

    width: int = 100
    has_colours: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> "Screen":
        """Return what a stream can show; colours need a terminal, and NO_COLOR to be unset."""
        width = shutil.get_terminal_size((100, 24)).columns
        is_terminal = stream.isatty()
        has_colours = is_terminal and not os.environ.get("NO_COLOR")
        has_colours &= os.environ.get("TERM") != "dumb"
        return cls(max(width, 20), has_colours)

    def table(self, scores: Sequence[Score]) -> str:
        """Return the scores as lines; of many recordings, the lowest and those without a score."""
        shown, rest = _choose_shown(scores)
        lines = [*self._lines(shown), *([rest] if rest else [])]
        return "\n".join(
            [*lines, "", f"{count_noun(len(scores), 'recording')}: {count_statuses(scores)}"]
        )

    def _lines(self, scores: Sequence[Score]) -> Iterable[str]:
        names = [_visible(score.filename) or "–" for score in scores]
        name_width = max(map(display_width, ["recording", *names]), default=0)
        status_width = max([6, *(len(score.status) for score in scores)], default=0)
        prefix = 5 + 2 + status_width + 2 + name_width + 2
        is_narrow = self.width - prefix < MIN_TEXT_WIDTH
        indent = 4 if is_narrow else prefix
        head = f"score  {'status':{status_width}}  {_padded('recording', name_width)}"
        yield f"{head}".rstrip() if is_narrow else f"{head}  text"
        for score, name, note in zip(scores, names, _shown_notes(scores), strict=True):
            value = "    –" if score.probability is None else f"{score.probability:5.2f}"
            start = f"{value}  {score.status:{status_width}}  {_padded(name, name_width)}"
            lines = self._wrapped(score, note, self.width - indent)
            if is_narrow:
                yield start.rstrip()
                yield from (" " * indent + line for line in lines)
            else:
                yield f"{start}  {lines[0] if lines else ''}".rstrip()
                yield from (" " * indent + line for line in lines[1:])

    def _wrapped(self, score: Score, note: str, width: int) -> list[str]:
        """Return the words of a text, marked by their scores, or the note of one without."""
        if score.probability is None:
            pieces = [(word, word) for word in note.split()]
        else:
            pieces = [(self._marked(word), _plain(word)) for word in score.words]
        lines: list[str] = []
        line: list[str] = []
        used = 0
        for marked, plain in pieces:
            n = display_width(plain)
            if line and used + 1 + n > width:
                lines.append(" ".join(line))
                line, used = [], 0
            used += n + (1 if line else 0)
            line.append(marked)
        return [*lines, " ".join(line)] if line else lines

    def _marked(self, word: WordScore) -> str:
        plain = _plain(word)
        if not self.has_colours or word.probability is None:
            return plain
        for below, colour in _COLOURS:
            if word.probability < below:
                underline = _UNDERLINE if below == DOUBTFUL else ""
                return f"{colour}{underline}{plain}{_RESET}"
        return plain


def _choose_shown(scores: Sequence[Score]) -> tuple[list[Score], str]:
    """Return the scores to show, and a line about those that are not; "" if all are."""
    if len(scores) <= MAX_SHOWN:
        return list(scores), ""
    scored = [score for score in scores if score.probability is not None]
    lowest = sorted(scored, key=lambda score: score.probability or 0.0)[:N_LOWEST]
    without = [score for score in scores if score.probability is None]
    named = [f"the {len(lowest)} lowest"] if lowest else []
    if without:
        n = min(len(without), N_LOWEST)
        named.append(f"{n}{'' if n == len(without) else f' of {len(without)}'} without a score")
    rest = f"… {' and '.join(named)} of {len(scores)} recordings are shown"
    return lowest + without[:N_LOWEST], rest


def _shown_notes(scores: Iterable[Score]) -> Iterator[str]:
    """Yield why a recording has no score, and the cure; what a line above says is not repeated."""
    shown: set[str] = set()
    for score in scores:
        note = score.notes[-1] if score.notes and score.probability is None else ""
        what, _, cure = note.partition("; ")
        yield f"{what}; see above" if cure in shown else note
        if cure:
            shown.add(cure)


def _plain(word: WordScore) -> str:
    """Return a word, in brackets if it was probably not said: colours alone would not be enough."""
    is_doubtful = word.probability is not None and word.probability < DOUBTFUL
    return f"[{word.word}]" if is_doubtful else word.word


def display_width(text: str) -> int:
    """Return the columns of a terminal that a text takes."""
    width = wcswidth(text)
    return len(text) if width < 0 else width


def _visible(name: str) -> str:
    """Return a filename with escapes for characters that would change what a terminal shows.

    These are line breaks, control characters, and marks of the writing direction.
    """
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) in _CONTROLS else character
        for character in name
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - display_width(text))


def show(scores: Sequence[Score]) -> None:
    """Print the scores."""
    print(Screen.of(sys.stdout).table(scores))
