"""The streams of an MP3 file: where each begins and ends, and how long it is.

libsndfile takes the length of an MP3 from its Xing frame, or estimates it from the first frame's
bit rate, and reads no further. Of a file with variable bit rate and no Xing frame, and of files
that were appended to each other, it would lose the rest.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import BinaryIO

# Bytes of a file that are searched: minutes of sound, of which only the first seconds are used.
_MOST_BYTES = 1 << 24

# Bytes between two frames in which the next one is searched, and bytes tried in one file.
_MOST_JUNK = 1 << 16
_MOST_TRIED = 1 << 17

# A stream is certain after so many frames in a row: other bytes may look like one frame.
_SURE = 3

_BIT_RATES = {  # kbit/s by (is MPEG-1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)  # of MPEG-1; MPEG-2 has half, MPEG-2.5 a quarter of them
_XING_MARKS = re.compile(b"Xing|Info|VBRI")
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


@dataclass
class MpegStream:
    """One stream of a file."""

    first: Frame
    header: bytes  # of the first frame
    n_frames_told: int | None = None  # by its Xing frame; None without one
    size_at: int | None = None  # where its Xing frame tells its number of bytes
    n_frames: int = 0  # that are there, without the Xing frame
    bit_rates: set[int] = field(default_factory=set)
    spans: list[tuple[int, int]] = field(default_factory=list)  # runs of frames, in bytes
    is_cut: bool = False  # in the middle of a frame

    @property
    def n_samples(self) -> int:
        """The number of samples of each channel."""
        return self.n_frames * self.first.n_samples

    @property
    def n_missing(self) -> int:
        """The number of frames that its Xing frame counts and that are not there."""
        # Some encoders count the Xing frame too.
        missing = 0 if self.n_frames_told is None else self.n_frames_told - self.n_frames
        return missing if missing > 1 else 0

    def add(self, start: int, end: int) -> None:
        """Append the frames between two positions in the file."""
        if self.spans and self.spans[-1][1] == start:
            self.spans[-1] = (self.spans[-1][0], end)
        else:
            self.spans.append((start, end))

    def xing_frame(self) -> bytes:
        """Return a Xing frame with the stream's length; it decodes to silence."""
        rates = _BIT_RATES[self.first.is_mpeg1, 3]
        header = bytearray(self.header)
        header[1] |= 1  # no checksum
        index = next(i for i in range(9, 15) if rates[i] >= 64)
        header[2] = header[2] & 0b00001101 | index << 4  # without padding
        frame = parse_header(bytes(header))
        assert frame is not None
        told = b"Xing" + struct.pack(">II", 1, self.n_frames)
        return (bytes(header) + bytes(frame.side_bytes) + told).ljust(frame.n_bytes, b"\0")


@dataclass
class MpegFile:
    """What was found in a file."""

    streams: list[MpegStream]
    is_whole: bool  # False if only its first bytes were searched
    n_junk: int  # bytes that are neither frames nor tags


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
    bit_rate = _BIT_RATES[is_mpeg1, layer][bit_index]
    n_samples = {1: 384, 2: 1152, 3: 1152 if is_mpeg1 else 576}[layer]
    if layer == 1:
        n_bytes = (12_000 * bit_rate // sample_rate + padding) * 4
    else:
        n_bytes = n_samples // 8 * 1000 * bit_rate // sample_rate + padding
    is_mono = header[3] >> 6 == 3
    return Frame(n_bytes, n_samples, sample_rate, is_mono, bit_rate, layer, is_mpeg1)


def find_streams(content: BinaryIO, n_bytes: int, seconds: float) -> MpegFile | None:
    """Return the streams in the first `seconds` of an MP3 of `n_bytes`; None if it is no MP3."""
    start = 0
    content.seek(0)
    while (tag := content.read(10))[:3] == b"ID3" and len(tag) == 10:
        start += id3_bytes(tag)
        content.seek(start)
    content.seek(start)
    data = content.read(max(min(_MOST_BYTES, n_bytes - start), 0))
    walk = _Walk(data, start)
    # A tag may be followed by zeros.
    position = walk.next_frame(0) if start else 0
    if position is None or not walk.is_sure(position):
        return None
    return walk.streams(position, seconds, start + len(data) == n_bytes)


def id3_bytes(tag: bytes) -> int:
    """Return the length of an ID3v2 tag from its first ten bytes."""
    size = 0
    for byte in tag[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if tag[5] & 0x10 else 0)  # and a footer


class _Tag:
    """A tag: it ends one recording, or begins the next."""


@dataclass(frozen=True)
class _Junk:
    """Bytes that are neither frames nor a tag, nor only zeros."""

    n_bytes: int


class _Walk:
    """A walk from frame to frame; positions are in `data`, which begins at `offset`.

    `position` is where the walk goes on.
    """

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset
        self.position = 0
        self.n_tried = 0
        # Found at once: most frames have no mark, and there are hundreds of them.
        self._xing_marks = {found.start() for found in _XING_MARKS.finditer(data)}

    def frame(self, position: int) -> Frame | None:
        return parse_header(self.data[position : position + 4])

    def is_sure(self, position: int) -> bool:
        """Return whether some frames in a row begin here, or frames up to the end."""
        first = self.frame(position)
        if first is None:
            return False
        for _ in range(_SURE - 1):
            frame = self.frame(position)
            if frame is None or not frame.continues(first):
                return False
            position += frame.n_bytes
            if position >= len(self.data):
                return position == len(self.data)
        return True

    def next_frame(self, position: int) -> int | None:
        """Return where sure frames begin, at or behind a position; None if nowhere near."""
        end = position + _MOST_JUNK
        while self.n_tried < _MOST_TRIED:
            position = self.data.find(b"\xff", position, end)
            if position < 0:
                return None
            if self.is_sure(position):
                return position
            self.n_tried += 1
            position += 1
        return None

    def skip_tag(self, position: int) -> int:
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

    def streams(self, position: int, seconds: float, is_whole: bool) -> MpegFile:
        """Collect the streams from a position on."""
        streams: list[MpegStream] = []
        n_junk, length = 0, 0.0
        is_new = True  # the next frame begins a stream
        self.position = position
        for found in self._find():
            if isinstance(found, _Tag):
                is_new = True
                continue
            if isinstance(found, _Junk):
                n_junk += found.n_bytes
                continue
            position, frame = found
            start = position + self.offset
            told = self._xing(position, frame)
            stream = streams[-1] if streams and not is_new else None
            if stream and (told is not None or not frame.continues(stream.first) or _full(stream)):
                stream = None
            if stream is None:
                stream = MpegStream(frame, self.data[position : position + 4])
                streams.append(stream)
                is_new = False
                if told is not None:
                    stream.n_frames_told = told or None
                    if told:
                        stream.add(start, start + frame.n_bytes)
                        stream.size_at = self._size_at(position, frame)
                    continue  # a Xing frame without a number is left out
            if position + frame.n_bytes > len(self.data):
                stream.is_cut = is_whole
                break
            frame_seconds = frame.n_samples / frame.sample_rate
            n_wanted = int((seconds - length) / frame_seconds) + 1
            if stream.n_frames_told is not None:
                n_wanted = min(n_wanted, stream.n_frames_told - stream.n_frames)
            n_frames = self._follow(frame, stream, n_wanted - 1) + 1
            stream.add(start, self.position + self.offset)
            stream.n_frames += n_frames
            stream.bit_rates.add(frame.bit_rate)
            length += n_frames * frame_seconds
            if length > seconds:
                return MpegFile(streams, False, n_junk)
        # Some encoders count one frame less than there is: it is no stream of its own.
        kept = [stream for stream in streams if stream.n_frames > (1 if len(streams) > 1 else 0)]
        return MpegFile(kept, is_whole, n_junk)

    def _follow(self, frame: Frame, stream: MpegStream, n_most: int) -> int:
        """Walk over up to `n_most` frames that continue a stream; return how many there are."""
        position, n_frames = self.position, 0
        while n_frames < n_most:
            following = self.frame(position)
            if following is None or not (following is frame or following.continues(frame)):
                break
            end = position + following.n_bytes
            if end > len(self.data) or self._xing(position, following) is not None:
                break
            if following is not frame:
                stream.bit_rates.add(following.bit_rate)
            position, n_frames = end, n_frames + 1
        self.position = position
        return n_frames

    def _find(self) -> "Iterator[tuple[int, Frame] | _Tag | _Junk]":
        """Yield what comes next in the file: a frame with its position, a tag, or junk."""
        previous: Frame | None = None
        while (position := self.position) < len(self.data):
            frame = self.frame(position)
            known = frame is not None and previous is not None and frame.continues(previous)
            if frame is not None and (known or self.is_sure(position)):
                previous = frame
                self.position += frame.n_bytes
                yield position, frame
                continue
            behind = self.skip_tag(position)
            if behind > position:
                self.position = behind
                yield _Tag()
                continue
            found = self.next_frame(position + 1)
            end = len(self.data) if found is None else found
            if any(self.data[position : position + _MOST_JUNK][: end - position]):
                yield _Junk(end - position)
            if found is None:
                return
            self.position = found

    def _xing(self, position: int, frame: Frame) -> int | None:
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

    def _size_at(self, position: int, frame: Frame) -> int | None:
        """Return where in the file a Xing frame with a number of frames tells that of bytes."""
        start = position + 4 + frame.side_bytes
        return self.offset + start + 12 if self.data[start + 7] & 2 else None


def _full(stream: MpegStream) -> bool:
    """Return whether all frames that a stream tells of are there."""
    return stream.n_frames_told is not None and stream.n_frames >= stream.n_frames_told
