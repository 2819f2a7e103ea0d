"""Decode what libsndfile does not read, with PyAV or the command ffmpeg, where one is there.

Both are optional: infer runs where neither is. The format is always named, never guessed: FFmpeg
would follow a playlist to other files and addresses.
"""

import contextlib
import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from hearback.engine.audio.notes import DAMAGED, UNKNOWN_CODEC
from hearback.engine.errors import HearbackError

# PyAV has types, but may not be installed.
AvModule: TypeAlias = Any
AvContainer: TypeAlias = Any
AvStream: TypeAlias = Any
AvFrame: TypeAlias = Any

# ffmpeg is stopped after this time, for the first seconds of one recording.
_MOST_SECONDS = 120.0
_MAX_WAV_BYTES = 1 << 29  # that ffmpeg writes
# Packets in a row without sound: after more of them, the file may be made to take forever.
_MOST_PACKETS = 200_000
# PyAV reads behind the end of a frame's list of planes if there are more: the process would crash.
_MOST_PLANES = 7


class OtherDecoderError(Exception):
    """Why PyAV or ffmpeg did not decode a file, in our words."""


@dataclass
class Damage:
    """What is known of a file's packets, of those that were decoded."""

    n_packets: int = 0  # that are damaged
    is_at_end: bool = False  # the last one is


@dataclass
class OtherSound:
    """A sound as PyAV decodes it."""

    sample_rate: int
    n_channels: int
    seconds: float | None  # of all of it, if its header tells
    n_tracks: int
    blocks: Iterator[np.ndarray]  # (n, channels), float32
    damage: "Damage"


def load_av() -> AvModule | None:
    """Return PyAV's module; None if it is not installed, or does not load here."""
    # Named at run time: infer's packages do not contain it.
    try:
        return importlib.import_module("av")
    except (ImportError, OSError):
        return None


def find_ffmpeg() -> str | None:
    """Return the path of the command ffmpeg; None if there is none."""
    return shutil.which("ffmpeg")


@contextlib.contextmanager
def open_with_av(av: AvModule, content: BinaryIO, demuxer: str) -> Iterator[OtherSound]:
    """Yield the first sound track of a file. Raises OtherDecoderError."""
    content.seek(0)
    try:
        with av.open(content, format=demuxer, metadata_errors="replace") as container:
            tracks = container.streams.audio
            if not tracks:
                raise OtherDecoderError("it has no sound track")
            damage = Damage()
            frames = _frames(av, container, tracks[0], damage)
            first = next(frames, None)
            if first is None:
                raise OtherDecoderError("it has no samples")
            yield OtherSound(
                first.sample_rate,
                len(first.layout.channels),
                _duration(av, container, tracks[0], demuxer),
                len(tracks),
                _blocks(av, first, frames),
                damage,
            )
    except HearbackError:  # raised by what reads the sound; some of them are ValueErrors
        raise
    except (av.FFmpegError, EOFError, ValueError) as error:
        unknown = (av.DecoderNotFoundError, av.DemuxerNotFoundError)
        is_unknown = isinstance(error, unknown) or type(error) is ValueError
        reason = UNKNOWN_CODEC if is_unknown else DAMAGED
        raise OtherDecoderError(reason) from error


def _duration(av: AvModule, container: AvContainer, track: AvStream, demuxer: str) -> float | None:
    """Return a track's length in s from its header; None where FFmpeg would only estimate it."""
    if demuxer == "mov" and track.duration:
        return float(track.duration * track.time_base)
    if demuxer == "matroska" and container.duration and not container.streams.video:
        return container.duration / av.time_base
    return None


def _frames(
    av: AvModule, container: AvContainer, track: AvStream, damage: Damage
) -> Iterator[AvFrame]:
    """Yield a track's frames; a packet that cannot be decoded is skipped, as players do."""
    n_silent = 0
    for packet in container.demux(track):
        is_damaged = packet.is_corrupt
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            is_damaged, frames = True, []
        if packet.size:  # the last packet is empty
            damage.n_packets += is_damaged
            damage.is_at_end = is_damaged
        n_silent = 0 if frames else n_silent + 1
        if n_silent > _MOST_PACKETS:
            raise OtherDecoderError(f"it has no sound in {_MOST_PACKETS} packets")
        yield from frames


def _blocks(av: AvModule, first: AvFrame, rest: Iterator[AvFrame]) -> Iterator[np.ndarray]:
    shape = first.sample_rate, len(first.layout.channels)
    yield _samples(av, first)
    for frame in rest:
        if (frame.sample_rate, len(frame.layout.channels)) != shape:
            raise OtherDecoderError("its sample rate or channels change in the middle")
        yield _samples(av, frame)


def _samples(av: AvModule, frame: AvFrame) -> np.ndarray:
    """Return a frame's samples, (n, channels) float32, full scale is 1.0."""
    if frame.format.is_planar and len(frame.layout.channels) > _MOST_PLANES:
        (frame,) = av.AudioResampler(format=frame.format.packed.name).resample(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype.kind == "u":
        return ((samples.T.astype(np.float32) - 128) / 128).astype(np.float32)
    scale = np.iinfo(samples.dtype).max + 1.0 if samples.dtype.kind == "i" else 1.0
    return np.ascontiguousarray(samples.T / scale, dtype=np.float32)


@contextlib.contextmanager
def converted_by_ffmpeg(
    ffmpeg: str, path: Path, demuxer: str, seconds: float
) -> Iterator[tuple[BinaryIO, bool]]:
    """Yield the first `seconds` of a file's first sound track, and whether ffmpeg complained.

    The sound is a WAV in a temporary folder. Raises OtherDecoderError.
    """
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sound.wav"
        command = [
            *(ffmpeg, "-v", "error", "-nostdin", "-protocol_whitelist", "file"),
            *("-f", demuxer, "-i", f"file:{path.absolute()}", "-map", "0:a:0", "-vn"),
            *("-t", f"{seconds:g}", "-c:a", "pcm_f32le", "-fs", str(_MAX_WAV_BYTES), f"file:{wav}"),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_MOST_SECONDS, check=False, text=True
            )
        except subprocess.TimeoutExpired as error:
            raise OtherDecoderError(f"ffmpeg took over {_MOST_SECONDS:g} s") from error
        except OSError as error:
            raise OtherDecoderError(f"ffmpeg does not run: {error.strerror}") from error
        if not wav.is_file() or not wav.stat().st_size:
            said = subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)
            raise OtherDecoderError("ffmpeg does not decode it") from said
        with wav.open("rb") as content:
            yield content, bool(done.stderr.strip())
