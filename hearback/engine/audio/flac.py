"""The length of a FLAC whose header has no length, or a longer one than the file.

An encoder that writes into a pipe leaves the number of samples at 0, and libsndfile reads nothing
of such a file. Each frame has its number in its header; that of the last complete frame tells the
length.
"""

from typing import BinaryIO

_BEGIN = b"fLaC\0\0\0\x22"  # the mark, and the header of the first block, which has 34 bytes
_INFO = 18  # where the sample rate (20 bits), channels (3), bits (5) and samples (36) are
_BLOCK = 1 << 17
_MAX_SEARCHED_BYTES = 1 << 28  # of a file, for streams that were appended
_MAX_TAIL_BYTES = 1 << 20  # bytes at the end in which the last frame is searched
_SIZES = {1: 192, **{n: 576 << (n - 2) for n in range(2, 6)}, **{n: 1 << n for n in range(8, 16)}}


def flac_starts(content: BinaryIO) -> list[int]:
    """Return where FLAC streams begin in a file that begins with one."""
    starts, position, kept = [], 0, b""
    content.seek(0)
    while position < _MAX_SEARCHED_BYTES and (block := content.read(_BLOCK)):
        data, found = kept + block, -1
        while (found := data.find(_BEGIN, found + 1)) >= 0:
            starts.append(position - len(kept) + found)
        position += len(block)
        kept = data[-(len(_BEGIN) - 1) :]
    return starts or [0]


def mended_flac(content: BinaryIO) -> tuple[bytes, int, int, str | None] | None:
    """Return a correct header, the span (start, end) of the frames, and why it breaks off, or None.

    None if the file is no FLAC, or has no complete frame near its end.
    """
    n_bytes = content.seek(0, 2)
    content.seek(0)
    head = content.read(_INFO + 8)
    if not head.startswith(_BEGIN):
        return None
    tail_start = max(_INFO + 24, n_bytes - _MAX_TAIL_BYTES)
    content.seek(tail_start)
    tail = content.read(_MAX_TAIL_BYTES)
    last = _last_frame(tail, int.from_bytes(head[8:10], "big"))
    if last is None:
        return None
    start, n_before, n_samples = last
    if _crc16(tail[start:-2]) == int.from_bytes(tail[-2:], "big"):
        end, n_samples, cut = n_bytes, n_before + n_samples, None
    else:  # the frame is cut; those before it are complete
        end, n_samples, cut = tail_start + start, n_before, "the end of its stream is missing"
    info = int.from_bytes(head[_INFO:], "big")
    n_told = info % 2**36
    if n_told == n_samples or not n_samples:
        return None  # it is damaged elsewhere
    true = (info - n_told | n_samples).to_bytes(8, "big")
    return head[:_INFO] + true, _INFO + 8, end, "its header announces more" if n_told else cut


def _last_frame(tail: bytes, block_size: int) -> tuple[int, int, int] | None:
    """Return where the last frame begins, its first sample, and its number of samples."""
    position = len(tail)
    while (position := tail.rfind(b"\xff", 0, position)) >= 0:
        header = _parse(tail[position : position + 16], block_size)
        if header is not None:
            return position, *header
    return None


def _parse(data: bytes, block_size: int) -> tuple[int, int] | None:
    """Return (first sample, number of samples) of a frame's header; None if it is none."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8:
        return None
    n_coded = 1 if data[4] < 0x80 else 8 - (data[4] ^ 0xFF).bit_length()
    if n_coded > 7 or (n_coded == 1 and data[4] >= 0x80):
        return None
    number = data[4] if n_coded == 1 else data[4] & (0x7F >> n_coded)
    for byte in data[5 : 4 + n_coded]:
        number = number << 6 | byte & 0x3F
    position, size_code, rate_code = 4 + n_coded, data[2] >> 4, data[2] & 15
    size = _SIZES.get(size_code, 0)
    if size_code in (6, 7):
        n_size = size_code - 5
        size = int.from_bytes(data[position : position + n_size], "big") + 1
        position += n_size
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if not size or position >= len(data) or _crc8(data[:position]) != data[position]:
        return None
    is_variable = bool(data[1] & 1)
    return (number if is_variable else number * block_size), size


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value


def _crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
    return value
