"""Notes on how a recording was converted."""

from hearback.engine.audio.notes import (
    CutNote,
    LossNote,
    OriginalLength,
    kinds_of,
    original_length,
)


def test_the_note_says_what_is_kept() -> None:
    length = OriginalLength(30.7, is_minimum=True)
    assert CutNote(length, 30.0) == "more than 31 s long, only the first 30 s are kept"


def test_notes_have_kinds_and_the_original_length() -> None:
    notes = ("2 channels, averaged", CutNote(OriginalLength(40.0), 30.0), LossNote("breaks off"))
    assert kinds_of(notes) == ("conversion", "cut", "loss")
    assert original_length(notes) == "40 s"
    assert original_length(notes[:1]) == ""
