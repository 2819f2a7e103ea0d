"""Notes on how a recording was converted; a store keeps them as text, with their kinds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from hearback.engine.audio.mixdown import Mixdown
from hearback.engine.data.problems import Problem, count_noun

Kind: TypeAlias = Literal["usual", "conversion", "loss", "break", "cut"]

# Why a recording is unreadable, where no more is known.
DAMAGED = "its content is damaged or cut"
UNKNOWN_CODEC = "its encoding is unknown, or its header is damaged"

# No word is this short: a shorter recording was cut by mistake, and no sound is lost with less.
SHORTEST_SOUND_SECONDS = 0.05
_LOST = "what is there is used; copy the recording again, if a whole one exists"
# What to do about notes, by their kind. The first one that a recording has is said.
_CURES: dict[str, str] = {
    "break": _LOST,
    "loss": _LOST,
    "cut": "used as far as it is kept; split the recording and its text, if the speech goes on",
}


class UsualNote(str):
    """A note on a conversion that loses nothing, of what phones and browsers record."""


class LossNote(str):
    """A note that some of the sound is missing from the file."""


class BreakNote(LossNote):
    """A note that speech is missing from the file: a recording's end, or some in the middle."""


class CutNote(str):
    """A note that only the beginning of a recording is kept."""

    def __new__(cls, original: "OriginalLength", kept_seconds: float) -> "CutNote":
        """Return the note on a recording of which only `kept_seconds` are kept."""
        note = super().__new__(cls, f"{original} long, only the first {kept_seconds:g} s are kept")
        note.original, note.kept_seconds = original, kept_seconds
        return note

    def __reduce__(self) -> Any:  # noqa: ANN401  (pickle's own)
        """Pickle what the note is made of."""
        return type(self), (self.original, self.kept_seconds)

    original: "OriginalLength"
    kept_seconds: float


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


@dataclass(frozen=True)
class UnreadableProblem(Problem):
    """The error of a recording that cannot be used; `seconds` is its length, None if unknown."""

    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class NotesProblem(Problem):
    """The warning that a recording was converted.

    Attributes:
        notes: what `what` says, with the kind of each.
        wanted: describes a recording that needs no conversion.
    """

    notes: tuple[tuple[str, str], ...]
    wanted: str

    @classmethod
    def of(
        cls,
        file: str,
        row: int | None,
        filename: str,
        notes: Sequence[tuple[str, str]],
        wanted: str,
    ) -> "NotesProblem":
        """Return the warning of the recording in a row of a file."""
        what, cure = _describe(notes, wanted)
        return cls(file, row, what, cure, "warning", filename, notes=tuple(notes), wanted=wanted)

    def without(self, kind: Kind) -> "NotesProblem | None":
        """Return the warning without notes of a kind; None if nothing is left."""
        notes = tuple(note for note in self.notes if note[1] != kind)
        if not notes:
            return None
        what, cure = _describe(notes, self.wanted)
        return replace(self, what=what, cure=cure, notes=notes)


def _describe(notes: Sequence[tuple[str, str]], wanted: str) -> tuple[str, str]:
    """Return notes in one line, and what to do."""
    kinds = {kind for _, kind in notes}
    cures = [cure for kind, cure in _CURES.items() if kind in kinds]
    converted = f"used as converted; where there is a {wanted}, use that"
    return "; ".join(text for text, _ in notes), cures[0] if cures else converted


def kinds_of(notes: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kind of each note."""
    return tuple(_kind_of(note) for note in notes)


def _kind_of(note: str) -> Kind:
    match note:
        case BreakNote():
            return "break"
        case LossNote():
            return "loss"
        case CutNote():
            return "cut"
        case UsualNote():
            return "usual"
        case _:
            return "conversion"


def original_length(notes: Sequence[str]) -> str:
    """Return the original length of a recording that was cut, such as "40 s"; else ""."""
    return next((str(note.original) for note in notes if isinstance(note, CutNote)), "")


def break_note(seconds: float, cut: str, missing_seconds: float | None = None) -> LossNote:
    """Return the note on a recording that breaks off after some `seconds`; `cut` says why.

    `missing_seconds` are missing from the file; None if unknown. If these are too few for a sound,
    it is no `BreakNote`, and tells them.
    """
    if missing_seconds is not None and missing_seconds < SHORTEST_SOUND_SECONDS:
        return LossNote(f"{1000 * missing_seconds:.1f} ms are missing at its end: {cut}")
    return BreakNote(f"breaks off after {seconds:.2f} s: {cut}")


def damage_note(places: Sequence[float], missing_seconds: float) -> LossNote:
    """Return the note on a recording with damage inside, at `places` in s.

    About `missing_seconds` are missing there. If these are too few for a sound, it is no
    `BreakNote`.
    """
    others = f" and {count_noun(len(places) - 1, 'other place')}" if len(places) > 1 else ""
    kind = LossNote if missing_seconds < SHORTEST_SOUND_SECONDS else BreakNote
    return kind(f"damaged at {places[0]:.2f} s{others}: about {missing_seconds:.2f} s are missing")


def channel_notes(mixdown: Mixdown) -> list[str]:
    """Return the notes on a recording's channels."""
    n_channels = mixdown.n_channels
    if n_channels == 1:
        return []
    if mixdown.better_channel is not None:
        used = mixdown.better_channel + 1
        return [f"{n_channels} channels that cancel each other, only channel {used} is used"]
    note = f"{n_channels} channels, averaged"
    if mixdown.n_silent:
        return [f"{note} ({mixdown.n_silent} of them silent)"]
    return [UsualNote(note)]


def resampling_note(own_rate: int, sample_rate: int) -> str:
    """Describe the resampling between two rates in Hz, and the part of the band that is missing."""
    note = f"{own_rate / 1000:g} kHz, resampled to {sample_rate / 1000:g} kHz"
    if own_rate < sample_rate:
        lost = 1 - own_rate / sample_rate
        part = "half" if lost == 0.5 else f"{lost:.0%}"
        above = f"above {own_rate / 2000:g} kHz"
        return f"{note}; the upper {part} of the band ({above}) is missing"
    return UsualNote(note)
