"""The frames of an MP3 file: their headers, and the tags around them."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

# Bytes between two frames in which the next one is searched, and positions tried in one file.
MAX_GAP_BYTES = 1 << 16
_MAX_TRIED_POSITIONS = 1 << 17

# A stream is certain after so many frames in a row: other bytes may look like one frame.
_N_SURE_FRAMES = 3

BIT_RATES = {  # kbit/s by (is MPEG-1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)  # of MPEG-1; MPEG-2 has half, MPEG-2.5 a quarter of them
_XING_MARKS = re.compile(b"Xing|Info|VBRI")
_TAG_MARKS = re.compile(b"TAG|ID3|LYRICSBEGIN")
_VERSIONS = {3: 1, 2: 2, 0: 4}  # the header's bits -> the divisor of the sample rate


@dataclass(frozen=True)
class Frame:
    """The header of a frame."""

    n_bytes: int
    n_samples: int  # for each channel
    sample_rate: int
    is_mono: bool
    bit_rate: int
    layer: int
    is_mpeg1: bool

    def continues(self, other: "Frame") -> bool:
        """Return whether both may be frames of one stream."""
        return (self.sample_rate, self.is_mono, self.layer) == (
            other.sample_rate,
            other.is_mono,
            other.layer,
        )

    @cached_property
    def side_bytes(self) -> int:
        """The length of the side information of layer 3, which a Xing frame has in front."""
        return (17, 32)[not self.is_mono] if self.is_mpeg1 else (9, 17)[not self.is_mono]


@lru_cache(maxsize=4096)
def parse_header(header: bytes) -> Frame | None:
    """Return the frame of a header of four bytes; None without one, or with a free bit rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    divisor, layer = _VERSIONS.get(header[1] >> 3 & 3), 4 - (header[1] >> 1 & 3)
    rate_index, bit_index = header[2] >> 2 & 3, header[2] >> 4
    if divisor is None or layer == 4 or rate_index == 3 or bit_index in (0, 15):
        return None
    is_mpeg1, padding = divisor == 1, header[2] >> 1 & 1
    sample_rate = _RATES[rate_index] // divisor
    bit_rate = BIT_RATES[is_mpeg1, layer][bit_index]
    n_samples = {1: 384, 2: 1152, 3: 1152 if is_mpeg1 else 576}[layer]
    if layer == 1:
        n_bytes = (12_000 * bit_rate // sample_rate + padding) * 4
    else:
        n_bytes = n_samples // 8 * 1000 * bit_rate // sample_rate + padding
    is_mono = header[3] >> 6 == 3
    return Frame(n_bytes, n_samples, sample_rate, is_mono, bit_rate, layer, is_mpeg1)


def id3_bytes(tag: bytes) -> int:
    """Return the length of an ID3v2 tag from its first ten bytes."""
    size = 0
    for byte in tag[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if tag[5] & 0x10 else 0)  # and a footer


@dataclass(frozen=True)
class Run:
    """Frames one after the other that may be of one stream."""

    end: int  # position after the last one
    n_frames: int
    bit_rates: frozenset[int]


class Frames:
    """The frames in `data`. Positions are indices of its bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._n_tries_left = _MAX_TRIED_POSITIONS
        # Found at once: most frames have no mark, and there are hundreds of them.
        self._xing_marks = {found.start() for found in _XING_MARKS.finditer(data)}

    def __len__(self) -> int:
        """Return the number of bytes."""
        return len(self.data)

    def at(self, position: int) -> Frame | None:
        """Return the frame whose header is at a position; None if there is none."""
        return parse_header(self.data[position : position + 4])

    def is_sure(self, position: int) -> bool:
        """Return whether some frames in a row begin here, or frames up to the end."""
        first = self.at(position)
        if first is None:
            return False
        for _ in range(_N_SURE_FRAMES - 1):
            frame = self.at(position)
            if frame is None or not frame.continues(first):
                return False
            position += frame.n_bytes
            if position >= len(self.data):
                return position == len(self.data)
        return True

    def find(self, position: int) -> int | None:
        """Return where sure frames begin, at or behind a position; None if nowhere near."""
        end = position + MAX_GAP_BYTES
        while self._n_tries_left > 0:
            position = self.data.find(b"\xff", position, end)
            if position < 0:
                return None
            if self.is_sure(position):
                return position
            self._n_tries_left -= 1
            position += 1
        return None

    def run(self, position: int, frame: Frame, n_most: int) -> Run:
        """Return the complete `frame` at a position, and up to `n_most` frames with it.

        A Xing frame ends the run, for it begins a stream.
        """
        position += frame.n_bytes
        n_frames, bit_rates = 1, {frame.bit_rate}
        while n_frames < n_most:
            following = self.at(position)
            # Headers are mostly the same, and parsed once.
            if following is None or not (following is frame or following.continues(frame)):
                break
            end = position + following.n_bytes
            if end > len(self.data) or self.n_told(position, following) is not None:
                break
            bit_rates.add(following.bit_rate)
            position, n_frames = end, n_frames + 1
        return Run(position, n_frames, frozenset(bit_rates))

    def end_of_tag(self, position: int) -> int:
        """Return the end of a tag that begins here; the position itself if none does."""
        mark = self.data[position : position + 32]
        if mark.startswith(b"TAG"):
            return position + 128
        if mark.startswith(b"ID3") and len(mark) > 10:
            return position + id3_bytes(mark[:10])
        if mark.startswith(b"APETAGEX") and len(mark) > 16:
            n_bytes = int.from_bytes(mark[12:16], "little")
            return position + n_bytes + (32 if mark[23] & 0x20 else 0)
        return position

    def is_damage(self, start: int, end: int) -> bool:
        """Return whether bytes between two frames are damage, and not zeros or a tag."""
        gap = self.data[start:end]
        return any(gap) and _TAG_MARKS.search(gap) is None

    def n_told(self, position: int, frame: Frame) -> int | None:
        """Return the number of frames that a Xing frame tells, 0 if none; None if it is none."""
        if frame.layer != 3 or not self._xing_marks:
            return None
        start = position + 4 + frame.side_bytes
        if position + 36 in self._xing_marks and self.data.startswith(b"VBRI", position + 36):
            return 0
        if start not in self._xing_marks or self.data.startswith(b"VBRI", start):
            # With a checksum, two bytes later in some files.
            return None
        flags = int.from_bytes(self.data[start + 4 : start + 8], "big")
        return int.from_bytes(self.data[start + 8 : start + 12], "big") if flags & 1 else 0

    def size_at(self, position: int, frame: Frame) -> int | None:
        """Return where a Xing frame with a number of frames tells that of bytes, if it does."""
        start = position + 4 + frame.side_bytes
        return start + 12 if self.data[start + 7] & 2 else None
