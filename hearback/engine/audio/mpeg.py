"""The streams of an MP3 file: where each begins and ends, and how long it is.

libsndfile takes the length of an MP3 from its Xing frame, or estimates it from the first frame's
bit rate, and reads no further. Of a file with variable bit rate and no Xing frame, and of files
that were appended to each other, it would lose the rest.
"""

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import BinaryIO

# Of a file: minutes of sound, of which only the first seconds are used.
_MAX_WALKED_BYTES = 1 << 24

# Bytes between two frames in which the next one is searched, and positions tried in one file.
_MAX_GAP_BYTES = 1 << 16
_MAX_TRIED_POSITIONS = 1 << 17

# A stream is certain after so many frames in a row: other bytes may look like one frame.
_N_SURE_FRAMES = 3
_N_CERTAIN_FRAMES = 10  # if a file's first frame is followed by none

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
    def missing_seconds(self) -> float | None:
        """How much its Xing frame counts and the file lacks; None without one."""
        if self.n_frames_told is None:
            return None
        return (self.n_missing + self.is_cut) * self.first.n_samples / self.first.sample_rate

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
    data = content.read(max(min(_MAX_WALKED_BYTES, n_bytes - start), 0))
    frames = _Frames(data)
    # A tag may be followed by zeros.
    position = frames.find(0) if start else 0
    if position is None or not frames.is_sure(position):
        return None
    collector = _Collector(frames, start, seconds, is_whole=start + len(data) == n_bytes)
    return collector.collect(position)


def is_no_mpeg(content: BinaryIO, n_bytes: int) -> bool:
    """Return whether a file of `n_bytes` begins like a frame, but only by chance.

    No other frames follow, neither behind the first nor near. libsndfile makes noise of such bytes.
    """
    content.seek(0)
    data = content.read(4)
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return False
    data += content.read(_MAX_GAP_BYTES)
    first, frames = parse_header(data[:4]), _Frames(data)
    is_short = first is not None and n_bytes < 2 * first.n_bytes + 4
    is_free = data[2] < 0x10  # a bit rate that headers do not tell
    if is_short or is_free or frames.is_sure(0):
        return False
    position = frames.find(0)
    while position is not None and (frame := frames.at(position)):
        run = frames.run(position, frame, _N_CERTAIN_FRAMES)
        if run.n_frames >= _N_CERTAIN_FRAMES:
            return False
        position = frames.find(run.end)
    return True


def id3_bytes(tag: bytes) -> int:
    """Return the length of an ID3v2 tag from its first ten bytes."""
    size = 0
    for byte in tag[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if tag[5] & 0x10 else 0)  # and a footer


@dataclass(frozen=True)
class _Run:
    """Frames one after the other that may be of one stream."""

    end: int  # position after the last one
    n_frames: int
    bit_rates: frozenset[int]


class _Frames:
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
        end = position + _MAX_GAP_BYTES
        while self._n_tries_left > 0:
            position = self.data.find(b"\xff", position, end)
            if position < 0:
                return None
            if self.is_sure(position):
                return position
            self._n_tries_left -= 1
            position += 1
        return None

    def run(self, position: int, frame: Frame, n_most: int) -> _Run:
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
        return _Run(position, n_frames, frozenset(bit_rates))

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


class _Collector:
    """Collects the streams in the first `seconds` of a file, whose frames begin at `offset`."""

    def __init__(self, frames: _Frames, offset: int, seconds: float, *, is_whole: bool) -> None:
        self._frames = frames
        self._offset = offset
        self._seconds = seconds
        self._is_whole = is_whole
        self._streams: list[MpegStream] = []
        self._current: MpegStream | None = None  # that the next frame may continue
        self._length = 0.0  # of the streams, in s
        self._n_junk = 0

    def collect(self, position: int) -> MpegFile:
        """Return what is found from a position on, at which a frame begins."""
        latest: Frame | None = None
        while position < len(self._frames) and self._length <= self._seconds:
            frame = self._frames.at(position)
            is_next = frame is not None and latest is not None and frame.continues(latest)
            if frame is not None and (is_next or self._frames.is_sure(position)):
                latest = frame
                position = self._add_frames(position, frame)
            elif (behind := self._frames.end_of_tag(position)) > position:
                # A tag ends one recording, or begins the next.
                self._current = None
                position = behind
            else:
                position = self._skip_junk(position)
        if self._length > self._seconds:
            return MpegFile(self._streams, False, self._n_junk)
        # Some encoders count one frame less than there is: it is no stream of its own.
        n_stray = 1 if len(self._streams) > 1 else 0
        kept = [stream for stream in self._streams if stream.n_frames > n_stray]
        return MpegFile(kept, self._is_whole, self._n_junk)

    def _add_frames(self, position: int, frame: Frame) -> int:
        """Add a frame, and those that follow it in its stream; return where they end."""
        end = position + frame.n_bytes
        n_told = self._frames.n_told(position, frame)
        if n_told is not None:
            self._begin_with_xing(position, frame, n_told)
            return end
        stream = self._current
        if stream is None or not frame.continues(stream.first) or _is_full(stream):
            stream = self._begin(position, frame)
        if end > len(self._frames):
            stream.is_cut = self._is_whole
            return end
        run = self._frames.run(position, frame, self._n_wanted(stream, frame))
        stream.add(self._offset + position, self._offset + run.end)
        stream.n_frames += run.n_frames
        stream.bit_rates |= run.bit_rates
        self._length += run.n_frames * frame.n_samples / frame.sample_rate
        return run.end

    def _begin(self, position: int, frame: Frame) -> MpegStream:
        self._current = MpegStream(frame, self._frames.data[position : position + 4])
        self._streams.append(self._current)
        return self._current

    def _begin_with_xing(self, position: int, frame: Frame, n_told: int) -> None:
        """Begin a stream with a Xing frame; one that tells no number of frames is left out."""
        stream = self._begin(position, frame)
        if not n_told:
            return
        stream.n_frames_told = n_told
        start, size_at = self._offset + position, self._frames.size_at(position, frame)
        stream.add(start, start + frame.n_bytes)
        stream.size_at = None if size_at is None else self._offset + size_at

    def _n_wanted(self, stream: MpegStream, frame: Frame) -> int:
        """Return how many frames to add at once: those of the seconds, and of the stream."""
        n_wanted = int((self._seconds - self._length) * frame.sample_rate / frame.n_samples) + 1
        if stream.n_frames_told is None:
            return n_wanted
        return min(n_wanted, stream.n_frames_told - stream.n_frames)

    def _skip_junk(self, position: int) -> int:
        """Count bytes that are neither frames nor tags; return where the next frame begins."""
        found = self._frames.find(position + 1)
        end = len(self._frames) if found is None else found
        if any(self._frames.data[position : min(position + _MAX_GAP_BYTES, end)]):  # not only zeros
            self._n_junk += end - position
        return end


def _is_full(stream: MpegStream) -> bool:
    """Return whether all frames that a stream tells of are there."""
    return stream.n_frames_told is not None and stream.n_frames >= stream.n_frames_told
