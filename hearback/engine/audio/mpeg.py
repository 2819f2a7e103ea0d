"""The streams of an MP3 file: where each begins and ends, and how long it is.

libsndfile takes the length of an MP3 from its Xing frame, or estimates it from the first frame's
bit rate, and reads no further. Of a file with variable bit rate and no Xing frame, and of files
that were appended to each other, it would lose the rest.
"""

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from hearback.engine.audio.mpeg_frames import (
    BIT_RATES,
    MAX_GAP_BYTES,
    Frame,
    Frames,
    id3_bytes,
    parse_header,
)
from hearback.engine.audio.notes import damage_note

# Of a file: minutes of sound, of which only the first seconds are used.
_MAX_WALKED_BYTES = 1 << 24

_N_CERTAIN_FRAMES = 10  # if a file's first frame is followed by none


@dataclass(frozen=True)
class Damage:
    """Bytes between two frames of a stream that are no frame."""

    seconds: float  # before it, of all frames in the file
    n_bytes: int


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
    damages: list[Damage] = field(default_factory=list)
    is_cut: bool = False  # in the middle of a frame

    @property
    def n_samples(self) -> int:
        """The number of samples of each channel."""
        return self.n_frames * self.first.n_samples

    @property
    def n_damaged(self) -> float:
        """The number of frames that its damage replaces, at its mean bit rate."""
        n_bytes = sum(end - start for start, end in self.spans)
        n_lost = sum(damage.n_bytes for damage in self.damages)
        return n_lost / n_bytes * self.n_frames if n_lost else 0.0

    @property
    def missing_seconds(self) -> float | None:
        """How much of its end its Xing frame counts and the file lacks; None without one."""
        if self.n_frames_told is None:
            return None
        return (self.n_missing + self.is_cut) * self.first.n_samples / self.first.sample_rate

    @property
    def n_missing(self) -> int:
        """The number of frames of its end that its Xing frame counts and that are not there."""
        if self.n_frames_told is None:
            return 0
        # Twice: the bit rate may be lower where it is damaged.
        missing = self.n_frames_told - self.n_frames - round(2 * self.n_damaged)
        # Some encoders count the Xing frame too.
        return missing if missing > 1 else 0

    def damage_notes(self, kept_seconds: float) -> tuple[str, ...]:
        """Return the note on damage in the first `kept_seconds`, if there is any."""
        places = [damage.seconds for damage in self.damages if damage.seconds < kept_seconds]
        missing_seconds = self.n_damaged * self.first.n_samples / self.first.sample_rate
        return (damage_note(places, missing_seconds),) if places else ()

    def add(self, start: int, end: int) -> None:
        """Append the frames between two positions in the file."""
        if self.spans and self.spans[-1][1] == start:
            self.spans[-1] = (self.spans[-1][0], end)
        else:
            self.spans.append((start, end))

    def xing_frame(self) -> bytes:
        """Return a Xing frame with the stream's length; it decodes to silence."""
        rates = BIT_RATES[self.first.is_mpeg1, 3]
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


def find_streams(content: BinaryIO, n_bytes: int, seconds: float) -> MpegFile | None:
    """Return the streams in the first `seconds` of an MP3 of `n_bytes`; None if it is no MP3."""
    start = 0
    content.seek(0)
    while (tag := content.read(10))[:3] == b"ID3" and len(tag) == 10:
        start += id3_bytes(tag)
        content.seek(start)
    content.seek(start)
    data = content.read(max(min(_MAX_WALKED_BYTES, n_bytes - start), 0))
    frames = Frames(data)
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
    data += content.read(MAX_GAP_BYTES)
    first, frames = parse_header(data[:4]), Frames(data)
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


class _Collector:
    """Collects the streams in the first `seconds` of a file, whose frames begin at `offset`."""

    def __init__(self, frames: Frames, offset: int, seconds: float, *, is_whole: bool) -> None:
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
        latest = stream.spans[-1][1] - self._offset if stream.spans else position
        if self._frames.is_damage(latest, position):
            stream.damages.append(Damage(self._length, position - latest))
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
        if any(self._frames.data[position : min(position + MAX_GAP_BYTES, end)]):  # not only zeros
            self._n_junk += end - position
        return end


def _is_full(stream: MpegStream) -> bool:
    """Return whether all frames that a stream tells of are there."""
    return stream.n_frames_told is not None and stream.n_frames >= stream.n_frames_told
