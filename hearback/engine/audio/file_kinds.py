"""Tell what a file is from its first bytes: a recording of some format, or something else.

libsndfile's "Format not recognised" is the same for a phone's recording, a web page and a Git LFS
pointer, and each has another cure.
"""

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from hearback.engine.audio.mpeg import find_streams, id3_bytes
from hearback.engine.data.other_files import OtherFile, identify
from hearback.engine.io import open_file

# Bytes to look at. A web page's or a pointer's kind is clear from fewer.
HEAD_BYTES = 4096

_CURE_UNPACK = "unpack it, and put the recordings that are in it there"
_CURE_DOWNLOAD = "look into the file, and download or copy the recording again"


@dataclass(frozen=True)
class FileKind:
    """What a file is. Its `name` completes "is ..."."""

    name: str
    demuxer: str | None = None  # FFmpeg's name of the format, for recordings
    cure: str | None = None  # for what is no recording


_AVI = FileKind("an AVI video", "avi")
_MPEG_TS = FileKind("an MPEG transport stream", "mpegts")

# Formats of recordings that libsndfile does not read, by their first bytes.
_RECORDINGS = (
    (b"\x1aE\xdf\xa3", FileKind("a WebM or Matroska file", "matroska")),
    (b"#!AMR", FileKind("an AMR file", "amr")),
    (b"0&\xb2u\x8ef\xcf\x11", FileKind("a WMA file (Windows Media)", "asf")),
    (b".RMF", FileKind("a RealMedia file", "rm")),
    (b"FLV", FileKind("a Flash video", "flv")),
    (b"MAC ", FileKind("a Monkey's Audio file", "ape")),
    (b"wvpk", FileKind("a WavPack file", "wv")),
    (b"TTA1", FileKind("a True Audio file", "tta")),
    (b"MPCK", FileKind("a Musepack file", "mpc8")),
    (b"MP+", FileKind("a Musepack file", "mpc")),
    (b"\x0bw", FileKind("an AC-3 file", "ac3")),
    (b"\0\0\x01\xba", FileKind("an MPEG video", "mpeg")),
    (b"\x02#!SILK", FileKind("a SILK file (a voice message)")),
    (b"#!SILK", FileKind("a SILK file (a voice message)")),
)

# What is no recording, and is not found in the place of tables.
_OTHERS = (
    (b"MThd", FileKind("a MIDI file: notes, no sound")),
    (
        b"\0\x05\x16\x07",
        FileKind(
            "a Mac's metadata file (AppleDouble), not the recording",
            cure="name the recording itself, whose name has no '._' in front",
        ),
    ),
)

_XML = FileKind("an XML file, not a recording", cure=_CURE_DOWNLOAD)
_JSON = FileKind("a JSON file, not a recording", cure=_CURE_DOWNLOAD)
_PLAYLIST = FileKind(
    "a playlist, not a recording", cure="put the recording that it names there, as one file"
)
_BASE64 = FileKind(
    "a recording as base64 text", cure="decode it: remove what is before a comma, then `base64 -d`"
)
_ZEROS = FileKind(
    "no recording: its first bytes are zeros",
    cure="copy it again: a copy that stopped, or a recorder that was killed, leaves such files",
)

# Of a file that no decoder knows.
UNKNOWN_KIND = FileKind(
    "of no known format, or its beginning is missing or damaged",
    cure="copy it again, or convert it to WAV where it plays",
)

# Base64 of "RIFF", "OggS", "ID3", "fLaC", WebM's and MP4's first bytes.
_BASE64_STARTS = re.compile(rb"(data:(audio|video)/|UklGR|T2dnUw|SUQz|ZkxhQ|GkXfo|AAAA[GHI])")
_BRANDS = (
    (b"M4", "an M4A file (MPEG-4)"),
    (b"3g", "a 3GP file"),
    (b"qt", "a QuickTime file"),
)
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free")

# Containers that libsndfile reads, but not with every codec that may be in them.
_CONTAINERS = (
    (b"RIFF", FileKind("a WAV file", "wav")),
    (b"caff", FileKind("a CAF file", "caf")),
    (b"OggS", FileKind("an Ogg file", "ogg")),
    (b"FORM", FileKind("an AIFF file", "aiff")),
    (b".snd", FileKind("an AU file", "au")),
)
_OTHER_NAMES = (
    (b"fLaC", "a FLAC file"),
    (b"RF64", "an RF64 file"),
    (b"riff", "a W64 file"),
    (b"ID3", "an MP3 file"),
    (b"\xff", "an MP3 file"),
)

# First bytes of recordings that libsndfile reads, or a tag's; MP3s may have none.
_READ_BY_LIBSNDFILE = re.compile(
    rb"(RIFF|RIFX|RF64).{4}WAVE|FORM.{4}(AIF[FC]|8SVX|16SV)|fLaC|OggS|caff|riff|ID3|\.snd|dns\."
    rb"|NIST_1A|Creative Voice File|2BIT|PVF1",
    re.DOTALL,
)


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file; b"" if it cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def is_recording(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a recording, in any known format."""
    kind = unreadable_by_libsndfile(head)
    if kind is not None:
        return kind.demuxer is not None
    if _READ_BY_LIBSNDFILE.match(head):
        return True
    return find_streams(BytesIO(head), len(head), 1.0) is not None  # an MP3 without a tag


def unreadable_by_libsndfile(head: bytes) -> FileKind | None:
    """Return a file's kind if libsndfile does not read it; None if it may. `head` begins it."""
    if head[:4] in (b"fLaC", b"OggS") or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        return None
    for magic, kind in (*_RECORDINGS, *_OTHERS):
        if head.startswith(magic):
            return kind
    if other := identify(head):
        return _kind_of_other(other)
    return _kind_inside(head) or _text_kind(head.lstrip(b"\xef\xbb\xbf \t\r\n"))


def _kind_of_other(other: OtherFile) -> FileKind:
    if other.group == "archive":
        return FileKind(other.name, cure=_CURE_UNPACK)
    if other.group == "pointer":
        cure = f"run `{other.command}` in the folder of the data"
        return FileKind(f"{other.name}, not the recording", cure=cure)
    if other.group == "page":
        return FileKind(f"{other.name}, not a recording", cure=_CURE_DOWNLOAD)
    return FileKind(other.name)


def _kind_inside(head: bytes) -> FileKind | None:
    """Return the kind of a file whose mark is not at its beginning, or is a pattern."""
    if head[4:8] in _ATOMS:
        names = [name for brand, name in _BRANDS if head[8:].startswith(brand)]
        return FileKind(names[0] if names else "an MP4 file", "mov")
    is_tagged_aac = head[:3] == b"ID3" and _is_adts(head[id3_bytes(head) :])
    patterns = (
        (head[:4] == b"RIFF" and head[8:12] == b"AVI ", _AVI),
        (is_tagged_aac or _is_adts(head), FileKind("an AAC file (ADTS)", "aac")),
        (head[:1] == b"V" and head[1:2] >= b"\xe0", FileKind("an AAC file (LOAS)", "loas")),
        (head[:1] == head[188:189] == head[376:377] == b"G", _MPEG_TS),
        (len(head) >= 64 and not any(head), _ZEROS),
    )
    return next((kind for is_it, kind in patterns if is_it), None)


def other_codec(head: bytes) -> FileKind | None:
    """Return the kind of a file whose container libsndfile reads, but perhaps not its codec."""
    return next((kind for magic, kind in _CONTAINERS if head.startswith(magic)), None)


def name_of(head: bytes) -> str:
    """Return what a file is that libsndfile takes for a recording, for "is ..."."""
    if head[:3] == b"ID3" and (behind := head[id3_bytes(head) :]):
        return name_of(behind)
    names = (name for magic, name in _OTHER_NAMES if head.startswith(magic))
    kind = other_codec(head)
    return kind.name if kind else next(names, "a file")


def _is_adts(data: bytes) -> bool:
    """Return whether data begins with the header of an AAC frame."""
    if len(data) < 7 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return False
    rate, length = data[2] >> 2 & 15, (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    return rate < 13 and length >= 7


def _text_kind(start: bytes) -> FileKind | None:
    """Return the kind of a text; None if it is none."""
    lower = start[:1000].lower()
    starts = (
        (_BASE64_STARTS.match(start), _BASE64),
        (lower.startswith((b"<?xml", b"<!doctype", b"<error")), _XML),
        (lower.startswith((b"#extm3u", b"[playlist]")), _PLAYLIST),
        (start[:1] in (b"{", b"[") and _is_text(start), _JSON),
    )
    kind = next((kind for is_it, kind in starts if is_it), None)
    if kind is not None or not _is_text(start):
        return kind
    words = " ".join(start[:60].decode("utf-8", "replace").split())
    return FileKind(f"a text, not a recording: it begins {words[:40]!r}", cure=_CURE_DOWNLOAD)


def _is_text(start: bytes) -> bool:
    """Return whether bytes are printable text in UTF-8."""
    # A format of libsndfile that begins with letters (NIST, MAT5, PAF, ...) has zeros behind them.
    if start.startswith((b"NIST", b"PVF1")):  # recordings whose header is a text
        return False
    if len(start) < 4 or any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in start):
        return False
    try:
        start[: max(len(start) - 4, 1)].decode()
    except UnicodeDecodeError as error:
        return error.start >= len(start) - 8  # a character that is cut
    return True
