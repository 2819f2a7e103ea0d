"""Files in the place of a table or a recording are called the same by both readers."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from hearback.engine.audio.decode import UnreadableAudioError, decode
from hearback.engine.data.other_files import identify
from hearback.engine.data.problems import Report
from hearback.engine.data.text_files import read_text


def zipped(name: str, content: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.wav"))
    return file.getvalue()


OFFICE = "a spreadsheet or another Office document"
CONTENTS = {
    "xlsx": (zipped("[Content_Types].xml"), OFFICE),
    "ods": (zipped("mimetype", "application/vnd.oasis.opendocument.spreadsheet"), OFFICE),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), OFFICE),
    "zip": (zipped("a.wav"), "a ZIP archive"),
    "tar": (tarred(), "a tar archive"),
    "gzip": (gzip.compress(b"filename"), "a gzip archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7-Zip archive"),
    "Parquet": (b"PAR1" + bytes(99), "a Parquet file"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "annex": (b"../.git/annex/objects/Xk/SHA256E-s1.csv\n", "a git-annex pointer"),
    "page": (b"\xef\xbb\xbf\n<!DOCTYPE HTML><html></html>", "a web page"),
    "page with a comment": (b"<!-- x --><html></html>", "a web page"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_both_readers_name_the_kind(name: str, tmp_path: Path) -> None:
    content, kind = CONTENTS[name]
    path = tmp_path / "a"
    path.write_bytes(content)
    report = Report()
    assert read_text(path, report) is None
    (problem,) = report.problems
    assert problem.what.startswith(f"the file is {kind}") and problem.what.endswith(", not CSV")
    assert problem.cure
    with pytest.raises(UnreadableAudioError, match=f"^is {kind}"):
        decode(path)


def test_an_archive_has_the_command_that_unpacks_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(gzip.compress(b"filename"))
    report = Report()
    read_text(tmp_path / "a.csv", report)
    assert report.problems[0].cure == (
        "unpack it with `gunzip`, and put the table that is in it there"
    )


@pytest.mark.parametrize(
    "head",
    [
        b"filename,task\n/annex/a.wav,x\n",
        b"PK,name\n",
        b"GI,f\n",
        b'"<html>",1\n',
        b"a," * 128 + b"austar\n",
        b"filename\n../annex/objects/a.wav\n",
    ],
)
def test_a_table_is_none_of_them(head: bytes) -> None:
    assert identify(head) is None
