"""Tests of the labels of phones."""

import numpy as np
import pytest

from hearback.reading.phone_labels import TranscriptionError, parse, shares_accepted


def test_phones_in_round_brackets_are_rejected() -> None:
    assert parse("B (EH0) R") == [("b", True), ("ɛ", False), ("ɹ", True)]
    assert parse("(B EH0) R") == [("b", False), ("ɛ", False), ("ɹ", True)]


def test_accented_phones_are_accepted_and_added_ones_left_out() -> None:
    assert parse("B {EH0} [ L ] R") == [("b", True), ("ɛ", True), ("ɹ", True)]
    assert parse("B [ (L) {R} ] [AX0]") == [("b", True)]
    assert parse("") == []


def test_phones_of_the_corpus_alone_are_those_of_the_dictionary() -> None:
    assert parse("(TR) EE0 AX0") == [("t", False), ("ɹ", False), ("ɝ", True), ("ə", True)]


@pytest.mark.parametrize(
    ("transcription", "message"),
    [
        ("B XX R", "'XX' is no phone"),
        ("B (EH0 R", r"'\(' is not closed"),
        ("B EH0) R", r"'\)' without '\('"),
        ("B (EH0] R", r"'\]' without '\['"),
        ("b ɛ", "'b' is no phone of ARPAbet and no bracket"),
    ],
)
def test_what_is_no_transcription_is_said(transcription: str, message: str) -> None:
    with pytest.raises(TranscriptionError, match=message):
        parse(transcription)


def test_a_share_is_of_the_experts() -> None:
    experts = "B (EH0) R | B EH0 {R} | B EH0 R | (B EH0 R) | B (EH0) R"
    assert shares_accepted(("b", "ɛ", "ɹ"), experts) == pytest.approx((0.8, 0.4, 0.8))


def test_other_pronunciations_are_aligned() -> None:
    # The dictionary's vowel is another one, and it has no "r".
    found = shares_accepted(("b", "æ", "t", "s"), "B (AA0) R T S | B (AA0) R TS | B AA0 R (TS)")
    assert found == pytest.approx((1.0, 1 / 3, 2 / 3, 2 / 3))


def test_a_phone_that_too_few_experts_write_has_no_label() -> None:
    found = shares_accepted(("w", "ɪ", "ð", "h"), "W IH0 DH | W IH0 DH HH | (W) IH0 DH")
    assert found == pytest.approx((2 / 3, 1.0, 1.0, np.nan), nan_ok=True)


def test_a_word_without_transcriptions_has_no_labels() -> None:
    for empty in ("", " | "):
        assert np.isnan(shares_accepted(("b", "ɛ"), empty)).tolist() == [True, True]


def test_one_expert_is_enough_where_there_is_one() -> None:
    np.testing.assert_allclose(shares_accepted(("b", "ɛ"), "B (EH0)"), (1.0, 0.0))
