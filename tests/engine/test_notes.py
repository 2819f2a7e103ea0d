"""Notes on how a recording was converted."""

import pickle

from hearback.engine.audio.notes import (
    CutNote,
    LossNote,
    NotesProblem,
    OriginalLength,
    break_note,
    damage_note,
    kinds_of,
    original_length,
    resampling_note,
)


def test_the_note_says_what_is_kept() -> None:
    length = OriginalLength(30.7, is_minimum=True)
    assert CutNote(length, 30.0) == "more than 31 s long, only the first 30 s are kept"


def test_notes_have_kinds_and_the_original_length() -> None:
    notes = ("2 channels, averaged", CutNote(OriginalLength(40.0), 30.0), LossNote("breaks off"))
    assert kinds_of(notes) == ("conversion", "cut", "loss")
    assert original_length(notes) == "40 s"
    assert original_length(notes[:1]) == ""


def test_a_warning_of_notes_can_leave_out_a_kind() -> None:
    notes = [("40 s long", "cut"), ("breaks off", "loss"), ("2 channels", "conversion")]
    problem = NotesProblem.of("t.csv", 2, "a.wav", notes, "16 kHz mono original")
    assert problem.what == "40 s long; breaks off; 2 channels"
    assert problem.cure.startswith("what is there is used; copy the recording again")
    without_loss = problem.without("loss")
    assert without_loss is not None and without_loss.what == "40 s long; 2 channels"
    assert without_loss.cure.startswith("used as far as it is kept")
    rest = without_loss.without("cut")
    assert rest is not None and (rest.file, rest.row, rest.filename) == ("t.csv", 2, "a.wav")
    assert (rest.what, rest.severity) == ("2 channels", "warning")
    assert rest.cure == "used as converted; where there is a 16 kHz mono original, use that"
    assert rest.without("conversion") is None


def test_a_recording_that_breaks_off_has_a_note_of_its_kind() -> None:
    note = break_note(1.234, "its last frame is cut")
    assert note == "breaks off after 1.23 s: its last frame is cut"
    assert kinds_of([note]) == ("break",)


def test_what_phones_record_is_usual_and_a_narrow_band_is_not() -> None:
    notes = [resampling_note(48_000, 16_000), resampling_note(8_000, 16_000)]
    assert kinds_of(notes) == ("usual", "conversion")


def test_a_few_missing_samples_are_no_break() -> None:
    few = break_note(3.0, "its header announces more", 0.0011)
    assert few == "1.1 ms are missing at its end: its header announces more"
    assert kinds_of([few]) == ("loss",)
    assert kinds_of([break_note(3.0, "its header announces more", 0.5)]) == ("break",)


def test_a_note_of_a_cut_recording_can_be_pickled() -> None:
    note = CutNote(OriginalLength(40.0), 30.0)
    copied = pickle.loads(pickle.dumps(note))
    assert copied == note and copied.original == note.original
    assert kinds_of([copied]) == ("cut",)


def test_damage_inside_is_a_break_if_a_sound_may_be_missing() -> None:
    notes = [damage_note([1.234], 0.026), damage_note([1.0, 2.0, 3.0], 0.5)]
    assert notes[0] == "damaged at 1.23 s: about 0.03 s are missing"
    assert notes[1] == "damaged at 1.00 s and 2 other places: about 0.50 s are missing"
    assert kinds_of(notes) == ("loss", "break")
