"""Expected texts as the words that a reader says."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearback.engine.data.problems import Report
from hearback.reading import text_normalizer
from hearback.reading.corpora import METADATA
from hearback.reading.tables import read_metadata
from hearback.reading.text_normalizer import (
    UnspeakableTextError,
    normalize_text,
    written_words,
)

SPOKEN = {
    # Curly and other apostrophes, in capitals, and lost in encodings.
    "it’s": "it's",
    "it‘s": "it's",
    "it`s": "it's",
    "itʼs": "it's",
    "IT'S A DOG": "it's a dog",
    "itâ€™s": "it's",
    "donÃ¢â‚¬â„¢t": "don't",
    "it&#39;s": "it's",
    "it&amp;#39;s": "it's",
    "it&rsquo;s &amp; that": "it's and that",
    # Invisible and composed characters.
    "so\u00adft ze\u200bro": "soft zero",
    "be\u0301ar": "béar",
    "the\u00a0cat": "the cat",
    "ﬁsh": "fish",
    "Ａ　ｄｏｇ": "a dog",
    # Quotes, sentences, dashes and hyphens.
    '"the cat sat"': "the cat sat",
    "“The cat,” he said.": "the cat he said",
    "'hello there' he said": "hello there he said",
    "‘It’s’": "it's",
    "Hello. How are you? I'm fine!": "hello how are you i'm fine",
    "ice-cream — and well-known": "ice cream and well known",
    "wait...what": "wait what",
    "the *dog*": "the dog",
    # Apostrophes that belong to a word.
    "the dogs' bowl": "the dogs' bowl",
    "rock 'n' roll, 'tis": "rock 'n' roll 'tis",
    "don''t": "don't",
    "Hawaiʻi": "hawai'i",
    "‘Twas": "'twas",
    # Numbers, as they are read.
    "I have 3 cats": "i have three cats",
    "21 105 1,234": "twenty one one hundred and five one thousand two hundred and thirty four",
    "3.5": "three point five",
    "in 1999": "in nineteen ninety nine",
    "the 1st and 22nd": "the first and twenty second",
    "$1 $5 $5.50 £2": "one dollar five dollars five dollars and fifty cents two pounds",
    "3:30, 3:00 and 3:05pm": "three thirty three o'clock and three oh five p m",
    "at 5 p.m.": "at five p m",
    "10:00 a.m., 5 PM": "ten a m five p m",
    "50%": "fifty percent",
    "½ cup, 3/4": "one half cup three quarters",
    "6 1/2 or 6½, 1 2/3": "six and a half or six and a half one and two thirds",
    ".5": "point five",
    "#5": "number five",
    "−5 and 5 − 3 = 2": "minus five and five minus three equals two",
    "5 - 3 = 2": "five minus three equals two",
    "the cat − a dog, well−known": "the cat a dog well known",
    "$0.50 $.05 £0.01": "fifty cents five cents one penny",
    "5 kg, 5 lbs. 1 lb and 5kg": "five kilograms five pounds one pound and five kilograms",
    "Vol. 2, ch. 3": "volume two chapter three",
    "⅛ cup, 6⅞": "one eighth cup six and seven eighths",
    "I have 1234 toys": "i have one thousand two hundred and thirty four toys",
    "In 1999 cats sat, in 2001.": "in nineteen ninety nine cats sat in two thousand and one",
    "𝐛𝐨𝐥𝐝": "bold",
    "''.": "",
    # Abbreviations and symbols.
    "Mr. and Mrs. Fox": "mister and missus fox",
    "Mr Fox, MRS Fox, Dr Fox": "mister fox missus fox doctor fox",
    "in Oct. we saw Jan.": "in october we saw jan",
    "He said no.": "he said no",
    "No. Eat the fig.": "no eat the fig",
    "the U.S.A.": "the u s a",
    "AT&T": "at and t",
    "3 + 4 = 7": "three plus four equals seven",
    "😀 happy™": "happy",
}

REFUSED = {
    "Dr. St. John": "'St.' is an abbreviation of several words",
    "2-3": "'2-3' has digits that can be read in several ways",
    "10–12": "'10-12' has digits that can be read in several ways",
    "3—5": "'3-5' has digits that can be read in several ways",
    "5−3": "'5-3' has digits that can be read in several ways",
    "5 – 10 cats": "'5-10' has digits that can be read in several ways",
    "$5–$10": "digits that can be read in several ways",
    "Jan. 5": "'Jan. 5' has digits that can be read in several ways",
    "many lbs.": "'lbs.' is an abbreviation of several words",
    "Henry VIII": "'VIII' is a Roman numeral, which can be read in several ways",
    '12" long': "'12\"' can be read in several ways",
    "⅒ cup": "'⅒' has a number that can be read in several ways",
    "你好": "'你好' has letters that no English word has",
    "日本 привет": "'日本' has letters that no English word has",
    "house No. 5": "'No. 5' has digits that can be read in several ways",
    "№ five": "'№' has a symbol that can be read in several ways",
    "five ¥": "'¥' has a symbol that can be read in several ways",
    "a < b": "'<' has a symbol that can be read in several ways",
    "call 555-1234": "digits that can be read in several ways",
    "1990s": "digits that can be read in several ways",
    "007": "begins with a zero, which can be read in several ways",
    "10/12/2024": "digits that can be read in several ways",
    "me@home.org": "is an address, which can be read in several ways",
    "five°": "a symbol that can be read in several ways",
    "the <b>cat</b>": "has markup",
    "the \u0441at": "mixes Latin letters with others",
    "the caf㩠": "mixes Latin letters with others",
}


@pytest.mark.parametrize(("written", "spoken"), SPOKEN.items())
def test_a_text_becomes_the_words_that_a_reader_says(written: str, spoken: str) -> None:
    assert normalize_text(written).text == spoken


@pytest.mark.parametrize(("written", "message"), REFUSED.items())
def test_a_text_with_several_readings_is_refused(written: str, message: str) -> None:
    with pytest.raises(UnspeakableTextError, match=message) as raised:
        normalize_text(written)
    assert raised.value.cure == "write the words that the learner was asked to say"


@pytest.mark.parametrize(
    "pattern", ["{}", "-{}", "{}.5", "${}", "${},999.50", "{}%", "{}th", "1/{}"]
)
def test_more_digits_than_python_converts_are_refused(pattern: str) -> None:
    with pytest.raises(UnspeakableTextError, match="can be read in several ways"):
        normalize_text(pattern.format("9" * 5000))


@pytest.mark.parametrize("text", ["it's a dog", "the dogs' café", "mr fox has kg"])
def test_a_plain_text_is_returned_as_it_is(text: str) -> None:
    normalized = normalize_text(text)
    assert (normalized.text, normalized.changes) == (text, ())


@given(st.text(alphabet=st.sampled_from("ab'’- .,\"&5$:%3stIé\u0301\u00ad“”—"), max_size=12))
def test_normalizing_twice_changes_nothing_more(text: str) -> None:
    try:
        once = normalize_text(text)
    except UnspeakableTextError:
        return
    assert normalize_text(once.text).text == once.text
    assert len(once.written) == len(once.text.split())


@given(st.text(max_size=30))
def test_any_text_is_normalized_or_refused(text: str) -> None:
    try:
        spoken = normalize_text(text)
    except UnspeakableTextError:
        return
    assert len(spoken.written) == len(spoken.text.split())


def test_each_word_keeps_the_part_of_the_text_as_written() -> None:
    assert written_words(["“It’s $5,” he said"]) == ["“It’s", "$5,”", "$5,”", "he", "said"]
    assert written_words(["It’s 6 a.m."]) == ["It’s", *["6 a.m."] * 3]


def test_white_space_is_no_change() -> None:
    normalized = normalize_text("one \t two\nthree")
    assert (normalized.text, normalized.changes) == ("one two three", ())


def test_the_kinds_of_changes_are_named() -> None:
    assert normalize_text("It’s 5!").changes == (
        text_normalizer.APOSTROPHES,
        text_normalizer.CAPITALS,
        text_normalizer.SPOKEN,
    )
    assert normalize_text("“it is”").changes == (text_normalizer.PUNCTUATION,)


@pytest.mark.parametrize(
    "text", ["it?s here", "it¬Ãs here", "itÂ’s here", "ITÂ’S", "don”t", "it;s"]
)
def test_a_text_that_may_be_wrongly_decoded_is_suspicious(text: str) -> None:
    assert normalize_text(text).is_suspicious


def test_a_text_whose_characters_were_lost_is_refused() -> None:
    with pytest.raises(UnspeakableTextError, match="characters that were lost in decoding"):
        normalize_text("itï¿½s here")


def read(tmp_path: Path, texts: list[str]) -> tuple[pd.DataFrame, Report]:
    """Read a metadata table with these expected texts."""
    table = pd.DataFrame(
        [(f"{i}.wav", "sentence_repetition", text, "1", "s") for i, text in enumerate(texts)],
        columns=METADATA,
    )
    path = tmp_path / "train_metadata.csv"
    table.to_csv(path, index=False)
    report = Report()
    return read_metadata(path, report), report


def test_a_table_has_texts_as_spoken_and_as_written_and_its_changes_are_said_once(
    tmp_path: Path,
) -> None:
    written = ["it’s", "It’s", "the CAT", "a dog", "5 cats"]
    metadata, report = read(tmp_path, written)
    assert metadata["expected_text"].tolist() == [
        "it's",
        "it's",
        "the cat",
        "a dog",
        "five cats",
    ]
    assert metadata["written_text"].tolist() == written
    (problem,) = report.problems
    assert problem.severity == "warning" and problem.row is None
    assert problem.what == (
        "4 of 5 expected texts were changed (curly apostrophes in 2, capital letters in 2, "
        "numbers, symbols and abbreviations in 1), first on line 2 ('0.wav'), such as 'it’s' -> "
        "\"it's\"; 'It’s' -> \"it's\"; 'the CAT' -> 'the cat'"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("=HYPERLINK(1)", "= Sheet1.A1(", "=$B$2&C2", "=Sheet1!A2", "='My Sheet'!B3"),
        *("#REF!", "#name?", "#N/A"),
    ],
)
def test_a_formula_is_named_as_one(text: str, tmp_path: Path) -> None:
    _, report = read(tmp_path, ["a dog", text])
    (error,) = report.errors
    assert error.row == 3
    assert error.what.startswith("expected_text: ")
    assert error.what.endswith("is a formula or an error of a spreadsheet, not a value")
    assert "paste values in place of formulas" in error.cure


@pytest.mark.parametrize("text", ["= the cat", "the cat = a dog", "# ref", "= if you", "= 5"])
def test_other_texts_are_no_formulas(text: str, tmp_path: Path) -> None:
    _, report = read(tmp_path, [text])
    assert "formula" not in str(report)


def test_refused_texts_are_problems_of_their_rows(tmp_path: Path) -> None:
    metadata, report = read(tmp_path, ["2-3 cats", "it?s", "a dog"])
    assert metadata["expected_text"].tolist() == ["", "it s", "a dog"]
    (error,) = report.errors
    assert (error.row, error.filename) == (2, "0.wav")
    assert error.what == "expected_text: '2-3' has digits that can be read in several ways"
    assert "expected_text 'it?s' may have wrongly decoded characters" in str(report)
