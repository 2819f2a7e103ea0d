"""Notes on how a recording was converted; a store keeps them as text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hearback.engine.audio.mixdown import Mixdown

_CUT = re.compile(r"(more than )?(\d+) s long, only the first [\d.]+ s are kept")


@dataclass(frozen=True)
class OriginalLength:
    """The length of a recording of which only the beginning is kept.

    Attributes:
        seconds: of the recording, rounded to whole ones in its note.
        is_minimum: whether it is longer by an unknown time.
    """

    seconds: float
    is_minimum: bool = False

    def __str__(self) -> str:
        """Return e.g. "40 s" or "more than 31 s"."""
        return f"{'more than ' if self.is_minimum else ''}{self.seconds:.0f} s"

    def note(self, kept_seconds: float) -> str:
        """Return the note on a recording of which only `kept_seconds` are kept."""
        return f"{self} long, only the first {kept_seconds:g} s are kept"

    @classmethod
    def from_note(cls, note: str) -> "OriginalLength | None":
        """Return the length that a `note` of this class says; None for other notes."""
        found = _CUT.fullmatch(note)
        return None if found is None else cls(float(found[2]), found[1] is not None)


def split_length(notes: Iterable[str]) -> tuple[OriginalLength | None, list[str]]:
    """Return the original length of a recording that was cut, or None, and the other notes."""
    length, others = None, []
    for note in notes:
        found = OriginalLength.from_note(note)
        length = length or found
        if found is None:
            others.append(note)
    return length, others


def channel_notes(mixdown: Mixdown) -> list[str]:
    """Return the notes on a recording's channels."""
    n_channels = mixdown.n_channels
    if n_channels == 1:
        return []
    if mixdown.better_channel is not None:
        used = mixdown.better_channel + 1
        return [f"{n_channels} channels that cancel each other, only channel {used} is used"]
    silent = f" ({mixdown.n_silent} of them silent)" if mixdown.n_silent else ""
    return [f"{n_channels} channels, averaged{silent}"]


def resampling_note(own_rate: int, sample_rate: int) -> str:
    """Describe the resampling between two rates in Hz, and the part of the band that is missing."""
    note = f"{own_rate / 1000:g} kHz, resampled to {sample_rate / 1000:g} kHz"
    if own_rate < sample_rate:
        lost = 1 - own_rate / sample_rate
        part = "half" if lost == 0.5 else f"{lost:.0%}"
        above = f"above {own_rate / 2000:g} kHz"
        note += f"; the upper {part} of the band ({above}) is missing"
    return note
