"""Find the recordings in a file that libsndfile does not read, and whether its end is missing.

FFmpeg reads only the first of several recordings in an MP4, AMR or WMA file, and does not report
that the end of a WebM is missing.
"""

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import BinaryIO

from hearback.engine.audio.containers import PLACEHOLDER_SIZE, Part, join_pieces

_NO_END = "the end of the file is missing"
_MOST_ELEMENTS = 100_000  # of a file; those after are not read
_MAX_AMR_BYTES = 1 << 22  # half an hour or more; those after are not read
_MAX_ASF_HEADER_BYTES = 1 << 22

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # File Properties Object

# Bytes of a frame of 20 ms, by its type.
_AMR_FRAMES = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, *[1] * 7),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, *[1] * 6),
}

_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"

# Where the recordings begin, and whether the last one's end is missing.
_Found = tuple[list[int], bool]


def find_other_parts(content: BinaryIO, n_bytes: int, demuxer: str) -> list[Part]:
    """Return the recordings in a file of `n_bytes`; `demuxer` is FFmpeg's name of its format."""
    find = _FINDERS.get(demuxer)
    if find is None:
        return [Part(content)]
    starts, is_cut = find(content, n_bytes)
    spans = list(pairwise([*starts, n_bytes]))
    cuts = [None] * (len(spans) - 1) + [_NO_END if is_cut else None]
    if len(spans) == 1:
        return [Part(content, cuts[0])]
    return [Part(join_pieces(content, span), cut) for span, cut in zip(spans, cuts, strict=True)]


def _find_mp4(content: BinaryIO, n_bytes: int) -> _Found:
    starts, position = [0], 0
    has_media = False
    for _ in range(_MOST_ELEMENTS):
        content.seek(position)
        header = content.read(16)
        name, size = header[4:8], int.from_bytes(header[:4], "big")
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        if len(header) < 8 or size < 8:  # 0: up to the end
            break
        if name == b"ftyp" and has_media:
            starts.append(position)
            has_media = False
        has_media = has_media or name in (b"moov", b"mdat")
        position += size
        if position >= n_bytes:
            return starts, position > n_bytes
    return starts, False


def _find_avi(content: BinaryIO, n_bytes: int) -> _Found:
    """Large ones are several RIFF files, one after the other."""
    position = 0
    for _ in range(_MOST_ELEMENTS):
        content.seek(position)
        header = content.read(8)
        size = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or not size:
            return [0], False
        position += 8 + size + size % 2
        if position > n_bytes + size % 2:
            return [0], size < PLACEHOLDER_SIZE
    return [0], False


def _find_mpegts(content: BinaryIO, n_bytes: int) -> _Found:
    return [0], n_bytes % 188 != 0  # bytes of a packet


def _find_amr(content: BinaryIO, n_bytes: int) -> _Found:
    starts: list[int] = []
    content.seek(0)
    data = content.read(_MAX_AMR_BYTES)
    position = 0
    sizes: tuple[int, ...] = (1,) * 16
    while position < len(data):
        magic = next((each for each in _AMR_FRAMES if data.startswith(each, position)), None)
        if magic is None:
            position += sizes[data[position] >> 3 & 15]
        else:
            starts.append(position)
            position, sizes = position + len(magic), _AMR_FRAMES[magic]
    return starts or [0], position > len(data) == n_bytes


def _find_asf(content: BinaryIO, n_bytes: int) -> _Found:
    starts = [0]
    while len(starts) < _MOST_ELEMENTS:
        content.seek(starts[-1])
        head = content.read(24)
        head += content.read(min(int.from_bytes(head[16:24], "little"), _MAX_ASF_HEADER_BYTES))
        at = head.find(_ASF_FILE)
        if at < 0 or len(head) < at + 92:
            break
        (size,) = struct.unpack_from("<Q", head, at + 40)
        is_broadcast = head[at + 88] & 1  # its size is unknown
        end = starts[-1] + size
        if is_broadcast or size < at:
            break
        if end >= n_bytes:
            return starts, end > n_bytes
        content.seek(end)
        if content.read(16) != _ASF_HEADER:
            break
        starts.append(end)
    return starts, False


def _find_matroska(content: BinaryIO, n_bytes: int) -> _Found:
    starts: list[int] = []
    position = end = 0
    for _ in range(_MOST_ELEMENTS):
        content.seek(position)
        header = content.read(12)
        n_id = 9 - header[0].bit_length() if header else 9
        n_size = 9 - header[n_id].bit_length() if n_id <= 4 and len(header) > n_id else 9
        if n_size > 8 or len(header) < n_id + n_size:
            return starts or [0], end > n_bytes or 0 < len(header) < 2
        name = header[:n_id]
        size = int.from_bytes(header[n_id : n_id + n_size], "big") & ((1 << 7 * n_size) - 1)
        if name == _EBML:
            starts.append(position)
        position += n_id + n_size
        is_unknown = size == (1 << 7 * n_size) - 1  # of a recorder that wrote into a pipe
        if not is_unknown:
            end = max(end, position + size)
        if name not in (_SEGMENT, _CLUSTER):
            position = min(position + size, n_bytes)  # a damaged size is beyond what can be sought
    return starts or [0], False


_FINDERS: dict[str, Callable[[BinaryIO, int], _Found]] = {
    "mov": _find_mp4,
    "amr": _find_amr,
    "avi": _find_avi,
    "mpegts": _find_mpegts,
    "asf": _find_asf,
    "matroska": _find_matroska,
}
