"""Notes on how a recording was converted; a store keeps them as text, with their kinds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hearback.engine.audio.mixdown import Mixdown

Kind: TypeAlias = Literal["conversion", "loss", "cut"]


class LossNote(str):
    """A note that some of the sound is missing from the file."""


class CutNote(str):
    """A note that only the beginning of a recording is kept."""

    def __new__(cls, original: "OriginalLength", kept_seconds: float) -> "CutNote":
        """Return the note on a recording of which only `kept_seconds` are kept."""
        note = super().__new__(cls, f"{original} long, only the first {kept_seconds:g} s are kept")
        note.original = original
        return note

    original: "OriginalLength"


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


def kinds_of(notes: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kind of each note."""
    return tuple(
        "loss"
        if isinstance(note, LossNote)
        else "cut"
        if isinstance(note, CutNote)
        else "conversion"
        for note in notes
    )


def original_length(notes: Sequence[str]) -> str:
    """Return the original length of a recording that was cut, such as "40 s"; else ""."""
    return next((str(note.original) for note in notes if isinstance(note, CutNote)), "")


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
