"""Notes on how a recording was converted."""

import pytest

from hearback.engine.audio.notes import OriginalLength, split_length


@pytest.mark.parametrize("length", [OriginalLength(40.0), OriginalLength(31.0, is_minimum=True)])
def test_the_length_of_a_recording_is_read_from_its_note(length: OriginalLength) -> None:
    notes = ("2 channels, averaged", length.note(30.0), "44.1 kHz, resampled to 16 kHz")
    assert split_length(notes) == (length, [notes[0], notes[2]])


def test_the_note_says_what_is_kept() -> None:
    note = "more than 31 s long, only the first 30 s are kept"
    assert OriginalLength(30.7, is_minimum=True).note(30.0) == note


@pytest.mark.parametrize("note", ["", "31 s long", "breaks off after 2.00 s: no end"])
def test_other_notes_say_no_length(note: str) -> None:
    assert split_length([note]) == (None, [note])
