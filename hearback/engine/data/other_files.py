"""Files that are often found in the place of a table or a recording, by their first bytes."""

import codecs
from dataclasses import dataclass
from typing import Literal

_HEAD_BYTES = 4096
GIT_LFS = b"version https://git-lfs"  # first bytes of a file not yet fetched by Git LFS

Group = Literal["archive", "sheet", "damaged sheet", "pointer", "page", "other"]


@dataclass(frozen=True)
class OtherFile:
    """What a file is that is neither a table nor a recording.

    Attributes:
        name: completes "is ...".
        group: files of one group have the same cure.
        command: unpacks an archive, or fetches what a pointer stands for; "" for other groups.
    """

    name: str
    group: Group = "other"
    command: str = ""


_ZIP = OtherFile("a ZIP archive", "archive", "unzip")
_OFFICE = OtherFile("a spreadsheet or another Office document (.xlsx, .ods, .docx)", "sheet")
_DAMAGED_SHEET = OtherFile("a damaged spreadsheet", "damaged sheet")
_TAR = OtherFile("a tar archive", "archive", "tar -xf")
_LFS = OtherFile("a Git LFS pointer", "pointer", "git lfs pull")
_ANNEX = OtherFile("a git-annex pointer", "pointer", "git annex get .")
_HTML = OtherFile("a web page (HTML)", "page")

_BY_FIRST_BYTES = (
    (b"\xd0\xcf\x11\xe0", OtherFile("a spreadsheet or another Office document (.xls)", "sheet")),
    (b"\x1f\x8b", OtherFile("a gzip archive", "archive", "gunzip")),
    (b"BZh", OtherFile("a bzip2 archive", "archive", "bunzip2")),
    (b"\xfd7zXZ", OtherFile("an xz archive", "archive", "unxz")),
    (b"(\xb5/\xfd", OtherFile("a Zstandard archive", "archive", "unzstd")),
    (b"7z\xbc\xaf", OtherFile("a 7-Zip archive", "archive", "7z x")),
    (b"Rar!", OtherFile("a RAR archive", "archive", "unrar x")),
    (b"PAR1", OtherFile("a Parquet file")),
    (b"%PDF", OtherFile("a PDF file")),
    (b"\x89PNG", OtherFile("a picture (PNG)")),
    (b"\xff\xd8\xff", OtherFile("a picture (JPEG)")),
    (b"GIF8", OtherFile("a picture (GIF)")),
    (b"\x93NUMPY", OtherFile("an array of NumPy")),
    (b"SQLite format 3", OtherFile("an SQLite database")),
    (GIT_LFS, _LFS),
)

# In the first entries of a ZIP archive that is an Office document.
_OFFICE_ENTRIES = (b"[Content_Types].xml", b"xl/", b"mimetypeapplication/vnd.oasis")
_SHEET_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
_END_OF_ZIP, _MAX_ZIP_END_BYTES = b"PK\x05\x06", 22 + 0xFFFF  # with its comment
_PAGE_STARTS = (b"<!doctype html", b"<head", b"<html", b"<script", b"<meta")


def identify(head: bytes) -> OtherFile | None:
    """Return what the file that begins with `head` is; None if it may be what is expected."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")  # a byte order mark, and blank lines
    for magic, kind in _BY_FIRST_BYTES:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _OFFICE if any(entry in head for entry in _OFFICE_ENTRIES) else _ZIP
    if head[257:262] == b"ustar" and b"\0" in head[:257]:
        return _TAR
    if start.startswith(GIT_LFS):
        return _LFS
    if b"/annex/objects/" in start.partition(b"\n")[0][:300]:
        return _ANNEX
    return _HTML if _is_page(start[:1000].lower()) else None


def identify_whole(content: bytes, suffix: str) -> OtherFile | None:
    """Return what a file with this content is, as `identify`; a damaged spreadsheet by its suffix.

    What has such a suffix, but is text, may be what is expected.
    """
    kind = identify(content[:_HEAD_BYTES])
    if suffix.lower() not in _SHEET_SUFFIXES:
        return kind
    if kind is _ZIP and any(entry in content for entry in _OFFICE_ENTRIES):
        kind = _OFFICE
    if kind in (_OFFICE, _ZIP):  # the list of a ZIP's entries is at its end
        is_damaged = kind is _ZIP or _END_OF_ZIP not in content[-_MAX_ZIP_END_BYTES:]
    else:
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        is_damaged = kind is None and (not content or (b"\0" in content and not is_utf16))
    return _DAMAGED_SHEET if is_damaged else kind


def _is_page(start: bytes) -> bool:
    return start.startswith(_PAGE_STARTS) or (start.startswith(b"<") and b"<html" in start)
