"""Find the recordings in a file, and correct the lengths in their headers.

libsndfile reads only the first of several recordings, and trusts lengths that are placeholders.
Recorders that append, encoders that write into a pipe and recorders that were killed leave such
files. libsndfile gets each recording as a file of its own, with a correct header. Most files need
no correction, and are read as they are.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import BinaryIO

from hearback.engine.audio.flac import flac_starts, mended_flac
from hearback.engine.audio.mpeg import MpegStream, find_streams
from hearback.engine.audio.mpeg_frames import id3_bytes
from hearback.engine.audio.notes import SHORTEST_SOUND_SECONDS, LossNote

# Sizes that a program writes when it does not know the size (yet): 0xFFFFFFFF, 0x7FFFF000, ...
# Only the first seconds of a true length of 2 GB would be kept.
PLACEHOLDER_SIZE = 0x7FFF_0000

HEADER_HAS_MORE = "its header announces more"  # why a recording breaks off

# libsndfile's log line for a WAV, AIFF or AU header with more bytes than the file has.
_BYTES_MISSING = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.M)

_MOST_PAGES = 100_000  # of an Ogg file that are searched
_MOST_CHUNKS = 1000  # of a WAV file that are searched
_MP3_IN_WAV = 0x55
_AUDIO_IN_OGG = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex   ")


@dataclass(frozen=True)
class Part:
    """One recording of a file, as a decoder should read it."""

    content: BinaryIO
    # Why it is known to break off, after "breaks off after 1.20 s: ".
    cut: str | None = None
    missing_seconds: float | None = None  # of its end; None if unknown
    notes: tuple[str, ...] = ()
    # Its length in s, where the header does not tell it; 0: as the header tells.
    seconds: float = 0.0
    # The header's length is an estimate: less sound does not mean that it breaks off.
    is_estimated: bool = False


class _Pieces(io.RawIOBase):
    """Bytes, and spans (start, end) of a file, read as one file."""

    def __init__(self, content: BinaryIO, pieces: Sequence[bytes | tuple[int, int]]) -> None:
        self._content = content
        self._pieces: list[tuple[int, int, bytes | int]] = []  # start, end, bytes or their offset
        self._size = self._position = 0
        for piece in pieces:
            n_bytes = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            source = piece if isinstance(piece, bytes) else piece[0]
            self._pieces.append((self._size, self._size + n_bytes, source))
            self._size += n_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        for start, end, source in self._pieces:
            if start <= self._position < end:
                skipped, n_bytes = self._position - start, min(end - self._position, len(view))
                if isinstance(source, bytes):
                    data = source[skipped : skipped + n_bytes]
                else:
                    self._content.seek(source + skipped)
                    data = self._content.read(n_bytes)
                view[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0


def join_pieces(content: BinaryIO, *pieces: bytes | tuple[int, int]) -> BinaryIO:
    """Return bytes, and spans (start, end) of a file, as one file."""
    # Buffered: libsndfile reads headers a few bytes at a time.
    return io.BufferedReader(_Pieces(content, pieces), 1 << 16)  # type: ignore[return-value]


def find_parts(content: BinaryIO, n_bytes: int, kept_seconds: float) -> list[Part]:
    """Return the recordings in a file of `n_bytes`, at least those of its first `kept_seconds`."""
    content.seek(0)
    head = content.read(12)
    if head[:3] == b"ID3" and (tag := _tag_before_other(content, head, n_bytes)):
        # libsndfile takes any file with such a tag for an MP3, except a FLAC.
        return find_parts(join_pieces(content, (tag, n_bytes)), n_bytes - tag, kept_seconds)
    if head[:4] == b"OggS":
        parts = _ogg_parts(content, n_bytes)
    elif head[:4] == b"fLaC":
        starts = [*flac_starts(content), n_bytes]
        spans = list(pairwise(starts))
        whole = len(spans) == 1
        parts = [Part(content)] if whole else [Part(join_pieces(content, span)) for span in spans]
    elif head[:4] == b"RIFF" and head[8:] == b"WAVE":
        parts = _wav_parts(content, n_bytes, kept_seconds)
    elif head[:4] in _ENDS:
        parts = _appended(content, n_bytes, head[:4])
    elif head[:4] == b"caff":
        parts = _caf_parts(content, n_bytes)
    elif head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        parts = _mp3_parts(content, n_bytes, kept_seconds)
    else:
        parts = []
    content.seek(0)
    return parts or [Part(content)]


def _tag_before_other(content: BinaryIO, head: bytes, n_bytes: int) -> int:
    """Return the length of an ID3v2 tag before a file that is no MP3; else 0."""
    end = id3_bytes(head)
    content.seek(end)
    start = content.read(4)
    is_other = start in (b"RIFF", b"OggS", b"fLaC", b"caff", *_ENDS)
    return end if is_other and end < n_bytes else 0


def missing_share(log: str) -> float:
    """Return how much a file lacks of what its header announces, as a share of what it has.

    `log` is libsndfile's; 0.0 if nothing is missing.
    """
    told = _BYTES_MISSING.search(log)
    if told is None or not int(told[2]) < int(told[1]) < PLACEHOLDER_SIZE:
        return 0.0
    return (int(told[1]) - int(told[2])) / max(1, int(told[2]))


def mended(part: Part) -> Part | None:
    """Return a part that libsndfile refuses with a corrected header; None if that is unknown."""
    found = mended_flac(part.content)
    if found is None:
        return None
    head, start, end, cut = found
    return replace(part, content=join_pieces(part.content, head, (start, end)), cut=cut)


# MP3


def _mp3_parts(content: BinaryIO, n_bytes: int, kept_seconds: float) -> list[Part]:
    """Return the parts of an MP3; none if it is none."""
    found = find_streams(content, n_bytes, kept_seconds + 1)
    if found is None or not found.streams:
        return []
    if len(found.streams) == 1 and not found.n_junk:
        (stream,) = found.streams
        # With one bit rate, libsndfile's estimate is right.
        is_told = stream.n_frames_told is not None
        if (is_told and not stream.n_missing) or (len(stream.bit_rates) == 1 and not is_told):
            return [_mp3_of(content, stream, is_estimated=not is_told)]
    parts = [_mp3_part(content, stream, kept_seconds) for stream in found.streams]
    if not found.is_whole:
        # At the rate of what was looked at; it is longer than what is kept in any case.
        walked = sum(stream.n_samples / stream.first.sample_rate for stream in found.streams)
        seconds = walked * n_bytes / found.streams[-1].spans[-1][1]
        parts[-1] = replace(parts[-1], seconds=seconds, cut=None)
    return parts


def _mp3_part(content: BinaryIO, stream: MpegStream, kept_seconds: float) -> Part:
    pieces: list[bytes | tuple[int, int]] = [*stream.spans]
    if stream.n_frames_told is None:
        pieces.insert(0, stream.xing_frame())
    elif (stream.n_missing or stream.damages) and stream.size_at is not None:
        # libmpg123 writes a line to stderr for a size that is not true.
        (start, end), at = stream.spans[0], stream.size_at
        n_bytes = sum(span[1] - span[0] for span in stream.spans)
        pieces[:1] = [(start, at), n_bytes.to_bytes(4, "big"), (at + 4, end)]
    part = _mp3_of(join_pieces(content, *pieces), stream, is_estimated=True)
    return replace(part, notes=stream.damage_notes(kept_seconds))


def _mp3_of(content: BinaryIO, stream: MpegStream, *, is_estimated: bool) -> Part:
    cut = "its last frame is cut" if stream.is_cut else None
    cut = HEADER_HAS_MORE if stream.n_missing else cut
    return Part(content, cut, stream.missing_seconds, is_estimated=is_estimated)


# Ogg


@dataclass
class _Link:
    """One recording of an Ogg file; "link" is the specification's word (chained streams)."""

    start: int
    end: int = 0
    serial: bytes | None = None  # of its audio
    is_ended: bool = False


def _ogg_parts(content: BinaryIO, n_bytes: int) -> list[Part]:
    links: list[_Link] = []
    in_front = False  # among the first pages of the streams that are interleaved in a link
    end = position = 0
    for position, end, flags, serial, payload in _ogg_pages(content, n_bytes):
        begins = bool(flags & 2)
        if not links or (begins and not in_front):
            links.append(_Link(position))
        in_front, link = begins, links[-1]
        if begins and (link.serial is None or payload.startswith(_AUDIO_IN_OGG)):
            link.serial = serial
        link.end = end
        # libsndfile drops a last page that is cut.
        link.is_ended |= bool(flags & 4) and serial == link.serial and end <= n_bytes
    is_whole = end >= n_bytes
    if not is_whole and links:
        links[-1].end = n_bytes
        links[-1].is_ended = links[-1].is_ended or position > _MOST_PAGES
    parts = []
    for link in links:
        cut = None if link.is_ended else "the end of its stream is missing"
        whole = len(links) == 1
        span = content if whole else join_pieces(content, (link.start, min(link.end, n_bytes)))
        parts.append(Part(span, cut))
    return parts


def _ogg_pages(content: BinaryIO, n_bytes: int) -> Iterator[tuple[int, int, int, bytes, bytes]]:
    """Yield (start, end, flags, serial number, first bytes of the payload) of each page."""
    position = 0
    for _ in range(_MOST_PAGES):
        content.seek(position)
        header = content.read(27 + 255 + 8)
        if header[:4] != b"OggS" or len(header) < 28:
            return
        body = 27 + header[26]
        end = position + body + sum(header[27:body])
        yield position, end, header[5], header[14:18], header[body : body + 8]
        position = end


# WAV, and what is like it


# The first bytes of files whose header tells their size -> that size, from the first 28 bytes.
_ENDS: dict[bytes, Callable[[bytes], int]] = {
    b"FORM": lambda head: 8 + int.from_bytes(head[4:8], "big"),
    b".snd": lambda head: int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big"),
    b"riff": lambda head: int.from_bytes(head[16:24], "little"),
    b"RF64": lambda head: 8 + int.from_bytes(head[20:28], "little"),
}


def _appended(content: BinaryIO, n_bytes: int, magic: bytes) -> list[Part]:
    """Return the parts of a file in which each recording's header tells its size."""
    starts, end = [0], 0
    while len(starts) < _MOST_CHUNKS:
        content.seek(starts[-1])
        end = starts[-1] + _ENDS[magic](content.read(28))
        if end <= starts[-1] or end > n_bytes:  # also beyond what a file can be sought to
            break
        content.seek(end + end % 2)
        if content.read(4) != magic:
            break
        starts.append(end + end % 2)
    spans = list(pairwise([*starts, n_bytes]))
    parts = (
        [Part(join_pieces(content, span)) for span in spans] if len(spans) > 1 else [Part(content)]
    )
    # libsndfile tells of the others. A few bytes may be missing of a size that was rounded up.
    if magic in (b"riff", b"RF64") and n_bytes + 16 < end < PLACEHOLDER_SIZE:
        parts[-1] = replace(parts[-1], cut=HEADER_HAS_MORE)
    return parts


def _wav_parts(content: BinaryIO, n_bytes: int, kept_seconds: float) -> list[Part]:
    """Return the parts of a WAV; none if it does not begin as one."""
    parts: list[Part] = []
    start = 0
    while start < n_bytes and len(parts) < _MOST_CHUNKS:
        content.seek(start)
        head = content.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            break
        size = int.from_bytes(head[4:8], "little")
        end = start + 8 + size + size % 2
        content.seek(end)
        appended = content.read(12)
        if appended[:4] != b"RIFF" or appended[8:] != b"WAVE":
            end = n_bytes
        parts += _wav_part(content, start, end, n_bytes, kept_seconds)
        start = end
    return parts


def _wav_part(
    content: BinaryIO, start: int, end: int, n_bytes: int, kept_seconds: float
) -> list[Part]:
    """Return the parts of a span of a file that holds a WAV: one, or those of an MP3 inside it."""
    plain = Part(content if (start, end) == (0, n_bytes) else join_pieces(content, (start, end)))
    found = _find_data(content, start + 12, end)
    if found is None:
        return [plain]
    first, size, rate, encoding = found
    behind = min(first + size + size % 2, end)
    if encoding == _MP3_IN_WAV:
        mp3 = join_pieces(content, (first, behind))
        return _mp3_parts(mp3, behind - first, kept_seconds) or [plain]
    is_sound = end - (behind if size else first) > SHORTEST_SOUND_SECONDS * rate  # of bytes
    if not rate or not is_sound or _are_chunks(content, behind if size else first, end):
        return [plain]
    if size:
        note = f"{(end - behind) / rate:.2f} s behind what its header announces are not read"
        return [replace(plain, notes=(LossNote(note),))]
    told = struct.pack("<I", min(end - first, 0xFFFF_FFFF - 64))
    whole = struct.pack("<I", min(end - start - 8, 0xFFFF_FFFF - 64))
    pieces = (start, start + 4), whole, (start + 8, first - 4), told, (first, end)
    note = "its header says that it has no samples: all behind the header are read"
    return [Part(join_pieces(content, *pieces), notes=(note,))]


def _find_data(content: BinaryIO, position: int, end: int) -> tuple[int, int, int, int] | None:
    """Return a WAV's samples: where they begin, their told size, bytes per second, and encoding.

    None if no chunk of samples is found.
    """
    rate = encoding = 0
    for _ in range(_MOST_CHUNKS):
        content.seek(position)
        header = content.read(24)
        if len(header) < 8 or position + 8 > end:
            return None
        name, size = header[:4], int.from_bytes(header[4:8], "little")
        if name == b"data":
            return position + 8, size, rate, encoding
        if name == b"fmt " and len(header) >= 20:
            encoding = int.from_bytes(header[8:10], "little")
            rate = int.from_bytes(header[16:20], "little")
        position += 8 + size + size % 2
    return None


def _are_chunks(content: BinaryIO, start: int, end: int) -> bool:
    """Return whether a span of a WAV holds chunks, rather than samples."""
    position = start
    for _ in range(_MOST_CHUNKS):
        content.seek(position)
        header = content.read(8)
        if not all(32 <= byte < 127 for byte in header[:4]):
            # Chunks may be followed by padding.
            return position > start
        size = int.from_bytes(header[4:], "little")
        position += 8 + size + size % 2
        if position >= end - 8:
            return position <= end + 1
    return True


def _caf_parts(content: BinaryIO, n_bytes: int) -> list[Part]:
    """Return the parts of a CAF; the size -1 of its last data means "up to the end"."""
    starts, position = [0], 8
    for _ in range(_MOST_CHUNKS):
        content.seek(position)
        header = content.read(12)
        if header[:4] == b"caff":
            starts.append(position)
            position += 8
            continue
        size = int.from_bytes(header[4:], "big", signed=True)
        n_there = n_bytes - position - 12
        is_cut = size > n_there > 4  # libsndfile refuses it; the first 4 bytes are a counter
        if header[:4] == b"data" and (size == -1 or is_cut):
            pieces = (
                (starts[-1], position + 4),
                struct.pack(">q", n_there),
                (position + 12, n_bytes),
            )
            spans = list(pairwise(starts))
            cut = HEADER_HAS_MORE if is_cut else None
            return [
                *(Part(join_pieces(content, span)) for span in spans),
                Part(join_pieces(content, *pieces), cut),
            ]
        if len(header) < 12 or not 0 <= size <= n_there:  # also beyond what can be sought to
            break
        position += 12 + size
    spans = list(pairwise([*starts, n_bytes]))
    return [Part(join_pieces(content, span)) for span in spans] if len(spans) > 1 else []
