"""CSV as programs write it: encodings, separators, quotes, and files that are no CSV."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hearback.engine.data.problems import Problem, Report
from hearback.engine.data.tables import read_table
from hearback.engine.data.text_files import read_text

COLUMNS = ("filename", "text", "score")
PLAIN = 'filename,text,score\na.wav,"cat, dog",1\nb.wav,it is,0\n'
ROWS = [["a.wav", "cat, dog", "1"], ["b.wav", "it is", "0"]]


def read(path: Path, content: str | bytes) -> tuple[list[list[str]], list[Problem]]:
    """Return the rows and the problems of a table with this content."""
    path = path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    report = Report()
    table = read_table(path, COLUMNS, report)
    return table.frame[list(COLUMNS)].to_numpy().tolist(), report.problems


def divided_by(separator: str) -> str:
    """Return the plain table with another separator."""
    rows = [list(COLUMNS), *ROWS]
    return "\n".join(separator.join(row) for row in rows)


SPELLINGS: dict[str, str | bytes] = {
    "plain": PLAIN,
    "spaces": 'filename, text, score\na.wav, "cat, dog", 1\n b.wav , it is , 0 \n',
    "spaces after quotes": 'filename,text,score\na.wav,"cat, dog" ,1\nb.wav,"it is"  ,0\n',
    "no-break spaces": 'filename,text,score\na.wav,\xa0"cat, dog"\xa0,1\xa0\nb.wav,\xa0it is,0\n',
    "semicolons": divided_by(";"),
    "tabs": divided_by("\t"),
    "pipes": divided_by("|"),
    "sep=,": f"sep=,\n{PLAIN}",
    "sep=;": f"sep=;\r\n{divided_by(';')}",
    "quoted sep=;": f'"sep=;"\n{divided_by(";")}',
    "utf-8 with a mark": PLAIN.encode("utf-8-sig"),
    "utf-16": PLAIN.encode("utf-16"),
    "utf-16, big-endian": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "utf-16-le without a mark": PLAIN.encode("utf-16-le"),
    "utf-16-be without a mark": PLAIN.encode("utf-16-be"),
    "utf-32": PLAIN.encode("utf-32"),
    "excel's text": divided_by("\t").replace("\n", "\r\n").encode("utf-16"),
    "old mac": PLAIN.replace("\n", "\r"),
    "names of columns": PLAIN.replace("filename,text,score", " File Name , TEXT,\ufeffScore"),
    "trailing commas": PLAIN.replace("\n", ",,\n"),
    "trailing commas in rows": PLAIN.replace("1\n", "1,\n").replace("0\n", "0,,,\n"),
    "trailing commas in the header": PLAIN.replace("score\n", "score,,\n"),
    "index": ",filename,text,score\n0,a.wav,\"cat, dog\",1\n1,b.wav,it is,0\n",
    "named index": "Unnamed: 0,filename,text,score\n0,a.wav,\"cat, dog\",1\n1,b.wav,it is,0\n",
    "each row is one field": (
        '"filename,text,score"\n"a.wav,""cat, dog"",1"\n"b.wav,it is,0"\n'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_table_is_read_as_meant(tmp_path: Path, name: str) -> None:
    rows, problems = read(tmp_path, SPELLINGS[name])
    assert not problems
    assert rows == ROWS


def test_the_separator_is_chosen_by_the_header(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "filename,text,score\na.wav,x;y;z|w,1\n")
    assert not problems
    assert rows == [["a.wav", "x;y;z|w", "1"]]


def test_a_sep_line_that_the_header_contradicts_is_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, f"sep=,\n{divided_by(';')}") == (ROWS, [])


def test_line_numbers_count_the_sep_line(tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, "sep=,\nfilename,text,score\na.wav,x,1\nb.wav,x,y,1\n")
    assert (problem.row, problem.what) == (4, "4 fields where the header has 3")


def test_a_text_with_a_line_end_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, 'filename, text, score\na.wav, "x\ny", 1\n') == (
        [["a.wav", "x\ny", "1"]],
        [],
    )


def test_windows_1252_is_read_with_a_warning(tmp_path: Path) -> None:
    content = "filename,text,score\na.wav,caf\u00e9,1\nb.wav,it\u2019s \u2013 na\u00efve,0\n"
    rows, (problem,) = read(tmp_path, content.encode("cp1252"))
    assert [row[1] for row in rows] == ["caf\u00e9", "it\u2019s \u2013 na\u00efve"]
    assert (problem.severity, problem.row) == ("warning", None)
    assert problem.what == (
        "not UTF-8, read as Windows-1252: 2 lines with 'caf\u00e9', 'it\u2019s', '\u2013'"
    )


@pytest.mark.parametrize(
    "content",
    [
        "filename,text,score\na.wav,it\u2019s,1\n".encode("mac-roman"),
        "filename,text,score\na.wav,\u30ab\u30c4,1\n".encode("shift-jis"),
        "filename,text,score\na.wav,caf\u00e9 ".encode() + b"caf\xe9,1\n",  # of both
        b"filename,text,score\na.wav,\x81x,1\n",
    ],
)
def test_other_encodings_are_an_error_in_their_rows(tmp_path: Path, content: bytes) -> None:
    _, (problem,) = read(tmp_path, content)
    assert (problem.severity, problem.row, problem.what) == ("error", 2, "not UTF-8")


def test_a_repeated_header_is_left_out_with_a_warning(tmp_path: Path) -> None:
    rows, (problem,) = read(tmp_path, PLAIN + "filename,text,score\nc.wav,x,1\n")
    assert rows == [*ROWS, ["c.wav", "x", "1"]]
    assert problem.severity == "warning"
    assert problem.what == "the header again, left out: 1 line (4)"


def test_a_column_in_its_own_spelling_is_preferred(tmp_path: Path) -> None:
    content = "Filename,filename,text,score\nx.wav,a.wav,y,1\n"
    assert read(tmp_path, content) == ([["a.wav", "y", "1"]], [])


def test_a_column_in_two_other_spellings_is_an_error(tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, "Filename,File name,text,score\nx.wav,a.wav,y,1\n")
    assert problem.what == "the column 'filename' is there 2 times"


def test_a_line_with_a_comma_too_many_is_one_error(tmp_path: Path) -> None:
    _, problems = read(tmp_path, "filename,text,score\na.wav,one, two,1\nb.wav,x,0\n")
    assert [(problem.row, problem.what) for problem in problems] == [
        (2, "4 fields where the header has 3")
    ]


def test_rows_below_a_wrong_header_are_not_reported(tmp_path: Path) -> None:
    _, problems = read(tmp_path, "name\n" + "a.wav,x,1\n" * 50)
    assert {problem.row for problem in problems} == {None}
    assert [problem.what for problem in problems] == ["its first line names no column: 'name'"]


def test_a_header_below_other_lines_is_found(tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, "My class\n\nfilename,text,score\na.wav,x,1\n")
    assert problem.cure == "remove what is above line 3, which names them"


def test_a_table_without_a_header_is_one_error(tmp_path: Path) -> None:
    _, (problem,) = read(tmp_path, "a.wav,x,1\nb.wav,y,0\n")
    assert problem.what == "its first line names no column: 'a.wav', 'x', '1'"
    assert problem.cure.startswith(
        "write a first line with the columns' names: filename,text,score"
    )


def test_too_few_fields_are_named_and_curly_quotes_explained(tmp_path: Path) -> None:
    _, (few, many) = read(tmp_path, "filename,text,score\na.wav,x\nb.wav,“one, two”,1\n")
    assert few.what == "2 fields where the header has 3: no score"
    assert few.cure == "add what is missing; an empty field needs its comma, too"
    assert many.cure.endswith('double quotes (straight ones: ", not “)')


def test_a_replacement_character_in_valid_utf_8_is_no_fault_of_the_encoding(
    tmp_path: Path,
) -> None:
    _, problems = read(tmp_path, "filename,text,score\na.wav,it\ufffds,1\n")
    assert problems == []


@pytest.mark.parametrize("blank", ["", ",,", '"","",""', '"" , "" , ""', "   "])
def test_blank_lines_are_no_rows(tmp_path: Path, blank: str) -> None:
    assert read(tmp_path, f"{PLAIN}{blank}\n") == (ROWS, [])


@pytest.mark.parametrize("n_lines", [99, 100, 101, 300])
def test_an_open_quote_costs_its_row_only(tmp_path: Path, n_lines: int) -> None:
    others = [[f"{number}.wav", "x", "1"] for number in range(n_lines)]
    content = PLAIN + 'c.wav,"x,1\n' + "".join(f"{','.join(row)}\n" for row in others)
    rows, (problem,) = read(tmp_path, content)
    assert rows[:2] == ROWS and rows[3:] == others
    assert problem.row == 4 and problem.what.startswith("not CSV: ")
    assert problem.cure.startswith("close each quote")


def zipped(folder: Path) -> bytes:
    """Return a zip, as spreadsheets are."""
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return (folder / "a.zip").read_bytes()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (zipped, "the file is a spreadsheet or another Office document (.xlsx, "),
        (lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(99), "the file is a spreadsheet or "),
        (lambda _: gzip.compress(PLAIN.encode()), "the file is a gzip archive, not CSV"),
        (lambda _: b"PAR1" + bytes(99), "the file is a Parquet file, not CSV"),
        (lambda _: b"%PDF-1.7\n", "the file is a PDF file, not CSV"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "the file is a Git LFS poi"),
        (lambda _: b"\n<!DOCTYPE html><html>", "the file is a web page (HTML), not CSV"),
        (lambda _: bytes(99), "the file is not UTF-8 text"),
    ],
)
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, content: Callable[[Path], bytes], what: str
) -> None:
    rows, (problem,) = read(tmp_path, content(tmp_path))
    assert rows == []
    assert problem.what.startswith(what)


@pytest.mark.parametrize(
    "content",
    [
        lambda folder: zipped(folder)[:-100],
        lambda folder: zipped(folder)[:20],
        lambda folder: zipped(folder)[60:],
        lambda folder: zipped(folder).replace(b"xl/", b"yy/"),
        lambda _: np.random.default_rng(0).bytes(3000),
        lambda _: bytes(3000),
        lambda _: b"",
    ],
)
def test_a_damaged_spreadsheet_is_named_by_its_suffix(
    tmp_path: Path, content: Callable[[Path], bytes]
) -> None:
    path, report = tmp_path / "a.XLSX", Report()
    path.write_bytes(content(tmp_path))
    assert read_text(path, report) is None
    (problem,) = report.problems
    assert problem.what == "the file is a damaged spreadsheet, not CSV"
    assert problem.cure.startswith("copy it again, or repair it in a spreadsheet program; then sav")


def test_a_spreadsheet_whose_first_entry_is_another_is_none_the_less_one(tmp_path: Path) -> None:
    path, report = tmp_path / "a.xlsx", Report()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("media.bin", np.random.default_rng(0).bytes(5000))
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert read_text(path, report) is None
    assert report.problems[0].what.startswith("the file is a spreadsheet or another Office")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_text_that_is_named_as_a_spreadsheet_is_read(tmp_path: Path, encoding: str) -> None:
    path, report = tmp_path / "a.xlsx", Report()
    path.write_bytes("filename,text\na.wav,the café\n".encode(encoding))
    text = read_text(path, report)
    assert text is not None and text.lines[1] == "a.wav,the café\n"


@pytest.mark.parametrize(
    "content", ["a.ogg,1\nb.ogg,2\n", "a.ogg;1\nb.ogg;2\n", "filename,score\na.ogg,1\nb.ogg,2\n"]
)
def test_a_table_without_a_header_is_read_as_meant(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.txt").write_text(content)
    report = Report()
    table = read_table(tmp_path / "labels.txt", ("filename", "score"), report, has_header=False)
    assert not report.problems
    assert table.frame["filename"].tolist() == ["a.ogg", "b.ogg"]
    assert table.frame["score"].tolist() == ["1", "2"]
