"""The table train_words.csv: what is read, each problem, and the comparison with the texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.problems import Problem, Report
from hearback.reading.word_label_table import (
    read_word_labels,
    report_disagreement,
    words_path,
)
from hearback.reading.word_labels import WordLabels

HEADER = "filename,position,word,share"
CAT = ("a.wav,0,the,1", "a.wav,1,cat,0.4")
DOG = ("b.wav,0,a,1", "b.wav,1,dog,0")
NUMBERING = "number the words of a recording from 0, each once"


def make_metadata(**texts: str) -> pd.DataFrame:
    """The recordings a.wav and b.wav, or those of `texts`, without the suffix."""
    texts = texts or {"a": "the cat", "b": "a dog"}
    return pd.DataFrame(
        {"filename": [f"{name}.wav" for name in texts], "expected_text": list(texts.values())}
    )


def read(
    folder: Path, rows: Sequence[str], header: str = HEADER, metadata: pd.DataFrame | None = None
) -> tuple[WordLabels, Report]:
    path = words_path(folder)
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    report = Report()
    return read_word_labels(path, make_metadata() if metadata is None else metadata, report), report


def only(report: Report) -> Problem:
    (problem,) = report.problems
    return problem


def as_dict(labels: WordLabels) -> dict[str, list[tuple[str, float]]]:
    return {
        name: [
            (word, round(float(share), 6))
            for word, share in zip(read.words, read.shares, strict=True)
        ]
        for name, read in labels.by_filename.items()
    }


BOTH = {"a.wav": [("the", 1.0), ("cat", 0.4)], "b.wav": [("a", 1.0), ("dog", 0.0)]}


def test_without_a_table_there_are_no_labels(tmp_path: Path) -> None:
    report = Report()
    assert not read_word_labels(words_path(tmp_path), make_metadata(), report)
    assert not report.problems


def test_shares_are_read_in_the_order_of_the_positions(tmp_path: Path) -> None:
    labels, report = read(tmp_path, [CAT[1], DOG[1], CAT[0], DOG[0]])
    assert not report.problems
    assert as_dict(labels) == BOTH
    assert labels.by_filename["a.wav"].shares.dtype == np.float32


def test_accuracy_becomes_the_share_of_experts_who_give_7_or_more(tmp_path: Path) -> None:
    header = "filename,position,word,accuracy,phones"
    rows = ["a.wav,0,the,10 8 7 10 9,DH AH0", "a.wav,1,cat,3 7 10 2 6.9,K (AE1) T"]
    labels, report = read(tmp_path, rows, header)
    assert not report.problems
    assert as_dict(labels) == {"a.wav": BOTH["a.wav"]}


def test_a_share_counts_where_both_are_there(tmp_path: Path) -> None:
    rows = ["a.wav,0,the,1,2 2 2", "a.wav,1,cat,,10 8 1 1 1"]
    labels, report = read(tmp_path, rows, f"{HEADER},accuracy")
    assert not report.problems
    assert as_dict(labels) == {"a.wav": BOTH["a.wav"]}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + "\n".join([HEADER, *CAT, *DOG]),
        "\n".join([HEADER, *CAT, *DOG]).replace(",", ";").replace("0.4", "0,4"),
        "\n".join([HEADER, *CAT, *DOG]).replace(",0,", ",0.0,").replace(",1,", ",1.0,"),
        "\r\n".join(["File Name,Position,WORD,Share".replace("File Name", "filename"), *CAT, *DOG]),
    ],
    ids=["byte order mark", "semicolons", "numbers with a point", "capitals"],
)
def test_tables_of_spreadsheets(tmp_path: Path, text: str) -> None:
    words_path(tmp_path).write_text(text, encoding="utf-8")
    report = Report()
    labels = read_word_labels(words_path(tmp_path), make_metadata(), report)
    assert not report.problems, str(report)
    assert as_dict(labels) == BOTH


def test_filenames_that_are_spelled_otherwise_are_used_with_a_warning(tmp_path: Path) -> None:
    labels, report = read(tmp_path, [*(row.replace("a.wav", "A.WAV") for row in CAT), *DOG])
    assert as_dict(labels) == BOTH
    assert only(report).severity == "warning"
    assert "'A.WAV' is 'a.wav'" in only(report).what


def test_words_are_normalized_as_the_texts_are(tmp_path: Path) -> None:
    written = ["It’s", "12", "o'clock", "21", "Cats!"]
    rows = [f"a.wav,{at},{word},{1 - at / 10:g}" for at, word in enumerate(written)]
    labels, report = read(tmp_path, rows, metadata=make_metadata(a="it's"))
    assert not report.errors, str(report)
    assert as_dict(labels)["a.wav"] == [
        *(("it's", 1.0), ("twelve", 0.9), ("o'clock", 0.8), ("twenty", 0.7), ("one", 0.7)),
        ("cats", 0.6),
    ]


def test_quotes_around_several_words_are_none_of_their_letters(tmp_path: Path) -> None:
    rows = ["a.wav,0,'hello,1", "a.wav,1,there',0"]
    labels, report = read(tmp_path, rows)
    assert not report.problems
    assert as_dict(labels) == {"a.wav": [("hello", 1.0), ("there", 0.0)]}


@pytest.mark.parametrize(
    ("rows", "line", "what", "cure"),
    [
        (["a.wav,x,the,1"], 2, "the position is 'x'", NUMBERING),
        (["a.wav,-1,the,1"], 2, "the position is '-1'", NUMBERING),
        (["a.wav,0.5,the,1"], 2, "the position is '0.5'", NUMBERING),
        ([f"a.wav,{'9' * 5000},the,1"], 2, "the position is", NUMBERING),
        (
            [*CAT, "a.wav,1,sat,1"],
            4,
            "a position that its recording has on an earlier line",
            f"{NUMBERING}; remove the doubled rows",
        ),
        ([*DOG, CAT[0], "a.wav,2,sat,1"], 4, "no word at position 1", f"add it; {NUMBERING}"),
        (
            [*DOG, "a.wav,2,cat,1", "a.wav,1,the,1"],
            4,
            "its words are numbered from 1",
            "subtract 1 from their positions",
        ),
        (["a.wav,0,,1"], 2, "empty word", "fill in the word that was to be read"),
        (
            [CAT[0], "a.wav,1,?!,1"],
            3,
            "the word '?!' has no letter and no digit",
            "remove the row, and number the words without it",
        ),
        ([f"a.wav,0,{'9' * 5000},1"], 2, "word: '9999", "write the words"),
        (["a.wav,0,2-3,1"], 2, "word: '2-3' has digits that can be read", "write the words"),
        (
            ["a.wav,0,1234,1", "a.wav,1,toys,1"],
            2,
            "its words are 'twelve thirty four toys', but together 'one thousand two hundred",
            "write the words as they are said, one a row",
        ),
        (
            [f"a.wav,{at},mississippi,1" for at in range(40)],
            2,
            "its words together have over 400 bytes",
            "check that they are of one recording",
        ),
        *(
            (
                [f"a.wav,0,the,{share}"],
                2,
                f"the word's label is share '{share}'",
                "write a share of 0 to 1, or scores of 0 to 10 separated by spaces",
            )
            for share in ("", "1.5", "-0.1", "nan", "yes", "1 1")
        ),
    ],
)
def test_a_bad_row_is_an_error_of_its_recording(
    tmp_path: Path, rows: list[str], line: int, what: str, cure: str
) -> None:
    labels, report = read(tmp_path, rows)
    problem = only(report)
    assert (problem.severity, problem.row, problem.filename) == ("error", line, "a.wav")
    assert what in problem.what
    assert problem.cure.startswith(cure)
    assert "a.wav" not in labels.by_filename


@pytest.mark.parametrize("accuracy", ["", "10 x", "11 5", "-1", "10,8,3", "nan 10"])
def test_a_bad_accuracy_is_an_error(tmp_path: Path, accuracy: str) -> None:
    rows = [f'a.wav,0,the,"{accuracy}"', "b.wav,0,a,10"]
    labels, report = read(tmp_path, rows, "filename,position,word,accuracy")
    assert only(report).what == f"the word's label is accuracy '{accuracy}'"
    assert set(labels.by_filename) == {"b.wav"}


def test_all_problems_of_all_recordings_are_in_one_report(tmp_path: Path) -> None:
    _, report = read(tmp_path, ["a.wav,0,the,2", "a.wav,0,cat,1", "b.wav,0,?,1", "b.wav,1,dog,"])
    assert sorted(problem.row or 0 for problem in report.errors) == [2, 3, 4, 5]


def test_a_row_with_too_few_fields_is_reported_once(tmp_path: Path) -> None:
    labels, report = read(tmp_path, ["a.wav,0,the", CAT[1], *DOG])
    assert "3 fields where the header has 4" in only(report).what
    assert as_dict(labels) == {"b.wav": BOTH["b.wav"]}  # no gap is reported besides


def test_a_row_without_a_filename_is_an_error(tmp_path: Path) -> None:
    _, report = read(tmp_path, [*CAT, ",0,dog,1"])
    assert (only(report).row, only(report).what) == (4, "empty filename")


@pytest.mark.parametrize(
    ("header", "rows", "what", "cure"),
    [
        ("filename,index,word,share", CAT, "the column 'position' is missing", "'index' is there"),
        (
            "filename,position,word,score",
            CAT,
            "no column share or accuracy",
            "add `share` (0 to 1) or `accuracy` (scores of 0 to 10, separated by spaces)",
        ),
        (
            "filename,position,word,acc",
            CAT,
            "no column share or accuracy",
            "add `share` (0 to 1) or `accuracy` (scores of 0 to 10, separated by spaces); 'acc' is "
            "there: rename it to accuracy; the columns that are there: 'filename', 'position', ",
        ),
        (HEADER, (), "no rows below the header", "add the rows"),
        (
            "filename,position,word,accuracy",
            ("a.wav,0,the,1", "a.wav,1,cat,0.4 1"),
            "no score in accuracy is above 1",
            "scores are 0 to 10; shares of 0 to 1 belong in a column `share`",
        ),
        (
            HEADER,
            ("a.wav,1,the,1", "a.wav,2,cat,1", "b.wav,1,dog,1"),
            "its words are numbered from 1",
            "subtract 1 from every position",
        ),
    ],
)
def test_a_bad_table_is_one_error(
    tmp_path: Path, header: str, rows: Sequence[str], what: str, cure: str
) -> None:
    labels, report = read(tmp_path, rows, header)
    assert not labels
    (problem,) = report.table_errors
    assert problem is only(report)
    assert problem.what == what
    assert problem.cure.startswith(cure)


def test_a_table_that_is_there_twice_is_one_error(tmp_path: Path) -> None:
    labels, report = read(tmp_path, [*CAT, *DOG, *CAT, *DOG])
    (problem,) = report.table_errors
    assert problem is only(report)
    assert problem.what == "4 doubled rows, such as line 6, like line 2"
    assert problem.cure == "remove the doubled rows"
    assert as_dict(labels) == BOTH


def test_positions_that_are_there_again_are_one_fault(tmp_path: Path) -> None:
    _, report = read(tmp_path, [*CAT, *DOG, "a.wav,1,hat,1", "b.wav,0,an,1", "b.wav,1,hog,1"])
    assert len(report.errors) == 3
    assert str(report).count("error: a position that its recording has on an earlier line") == 1
    assert "line 6 ('a.wav')" in str(report)


def test_all_missing_columns_are_in_one_report(tmp_path: Path) -> None:
    _, report = read(tmp_path, ["a.wav,0,the,10"], "file,pos,token,acc")
    assert [problem.what for problem in report.table_errors] == [
        "the column 'filename' is missing",
        "the column 'position' is missing",
        "the column 'word' is missing",
        "no column share or accuracy",
    ]


def test_a_file_without_a_header_is_said_once(tmp_path: Path) -> None:
    _, report = read(tmp_path, CAT, "1,2,3,4")
    assert "its first line names no column" in only(report).what


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    words_path(tmp_path).write_text("")
    report = Report()
    assert not read_word_labels(words_path(tmp_path), make_metadata(), report)
    assert only(report).what == "the file is empty"


def test_scores_that_accept_no_word_are_a_warning(tmp_path: Path) -> None:
    labels, report = read(
        tmp_path, ["a.wav,0,the,5 4", "a.wav,1,cat,1 2"], "filename,position,word,accuracy"
    )
    assert as_dict(labels) == {"a.wav": [("the", 0.0), ("cat", 0.0)]}
    assert only(report).severity == "warning"
    assert only(report).what == "no score in accuracy is above 5"


def test_words_of_recordings_without_metadata_are_left_out(tmp_path: Path) -> None:
    labels, report = read(tmp_path, [*CAT, "c.wav,0,pig,1", "c.wav,1,pig,1", "d.wav,0,x,9"])
    assert as_dict(labels) == {"a.wav": BOTH["a.wav"]}
    assert only(report).severity == "warning"
    assert only(report).what == "2 recordings without a row in the metadata, such as 'c.wav'"
    assert only(report).cure == "their words are not used"


def test_a_table_of_no_recording_is_probably_another_corpus_s(tmp_path: Path) -> None:
    labels, report = read(tmp_path, [row.replace(".wav", ".ogg") for row in CAT])
    assert not labels
    problem = only(report)
    assert problem.what == "none of its 1 recording is in the metadata, such as 'a.ogg'"
    assert "probably of another corpus" in problem.cure
    assert "'a.wav' is there" in problem.cure


def test_metadata_that_could_not_be_read_are_not_reported_again(tmp_path: Path) -> None:
    _, report = read(tmp_path, CAT, metadata=make_metadata().assign(filename=""))
    assert not report.problems


def disagreement(
    folder: Path, words: dict[str, str], expected: dict[str, str], label: float = 0.0
) -> Report:
    """Compare the words that were read with the expected texts, by recording."""
    metadata = make_metadata(**expected)
    rows = [
        f"{name}.wav,{at},{word},1"
        for name, text in words.items()
        for at, word in enumerate(text.split())
    ]
    labels, report = read(folder, rows, metadata=metadata)
    path = words_path(folder)
    report_disagreement(labels, path, metadata, np.full(len(metadata), label), report)
    return report


def test_words_of_the_expected_texts_or_near_them_are_no_problem(tmp_path: Path) -> None:
    words = {"a": "the cat", "b": "a dog", "c": "one two", "d": "pig"}
    expected = {"a": "the hat", "b": "a dog", "c": "one", "d": "big", "e": "not in the table"}
    assert not disagreement(tmp_path, words, expected).problems


def test_words_of_another_corpus_are_a_warning(tmp_path: Path) -> None:
    words = {"a": "the cat", "b": "a dog", "c": "one two"}
    report = disagreement(tmp_path, words, {"a": "his name", "b": "we went", "c": "one two"})
    assert only(report).severity == "warning"
    assert only(report).what == (
        "2 recordings of 3 with no word of the expected text, such as a.wav: 'the cat' was read, "
        "'his name' is expected"
    )
    assert "probably of another corpus" in only(report).cure


def test_single_recordings_with_other_words_are_a_warning(tmp_path: Path) -> None:
    words = {"a": "the cat", "b": "a dog", "c": "one two"}
    report = disagreement(tmp_path, words, {"a": "the cat", "b": "we went", "c": "one two"})
    assert only(report).what.startswith("1 recording of 3 with no word of the expected text")
    assert "check that the filenames are right" in only(report).cure


def test_a_text_that_was_not_read_cannot_have_been_said(tmp_path: Path) -> None:
    report = disagreement(tmp_path, {"a": "the cat"}, {"a": "the hat"}, label=1.0)
    assert only(report).severity == "warning"
    assert only(report).what == (
        "1 recording labelled 1, where other words were read than expected, such as a.wav: "
        "'the cat' was read, 'the hat' is expected"
    )
    assert "correct the label, the expected text or the words" in only(report).cure


PHONES_HEADER = "filename,position,word,accuracy,phones"


def test_scores_and_phones_of_words_are_kept(tmp_path: Path) -> None:
    rows = ["a.wav,1,cat,4 8,K (AE0) T | K AE0 T", "a.wav,0,the,10 9,"]
    labels, report = read(tmp_path, rows, PHONES_HEADER)
    assert not report.problems
    words = labels.by_filename["a.wav"]
    assert words.transcriptions == ("", "K (AE0) T | K AE0 T")
    assert words.accuracies.tolist() == [9.5, 6.0]
    assert words.transcriptions_of("cat the cat") == ["", "", "K (AE0) T | K AE0 T"]


def test_phones_that_cannot_be_read_are_a_warning(tmp_path: Path) -> None:
    rows = ["a.wav,0,the,9,DH AX0)", "a.wav,1,cat,4,K (AE0) T", "b.wav,0,a,9,X", "b.wav,1,dog,9,"]
    labels, report = read(tmp_path, rows, PHONES_HEADER)
    problem = only(report)
    assert problem.severity == "warning"
    assert (
        problem.what == "the phones of 2 words cannot be read: line 2, 'DH AX0)': ')' without '('"
    )
    assert labels.by_filename["a.wav"].transcriptions == ("", "K (AE0) T")


def test_labels_with_phones_have_another_digest(tmp_path: Path) -> None:
    without, _ = read(tmp_path, CAT)
    header = f"{HEADER},phones"
    empty, _ = read(tmp_path, [f"{row}," for row in CAT], header)
    with_phones, _ = read(tmp_path, [f"{CAT[0]},DH AX0", f"{CAT[1]},"], header)
    assert without.digest() == empty.digest() != with_phones.digest()
