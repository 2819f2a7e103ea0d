"""Recordings as programs write them and as copies damage them, made here from a synthetic sound.

Everything is made with soundfile, with PyAV where soundfile has no encoder, and by moving bytes.
"""

import io
import struct
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

RATE = 16_000  # Hz
SECONDS = 3.5


@lru_cache
def sound(seconds: float = SECONDS, sample_rate: int = RATE, pitch: float = 150.0) -> np.ndarray:
    """Return bursts of a buzz with pauses between them, (n,) float32.

    The pauses make the frames of a variable bit rate differ, as speech does.
    """
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(4 * np.pi * times))) / sample_rate
    buzz = sum(np.sin(number * phase) / number for number in range(1, 8))
    spoken = 0.15 * (1 + np.sin(8 * np.pi * times)) * (np.sin(np.pi * times) > 0)
    noise = np.random.default_rng(0).normal(0, 0.002, len(times))
    return (spoken * buzz + noise).astype(np.float32)


def encoded(
    container: str, subtype: str | None = None, samples: np.ndarray | None = None, **settings: Any
) -> bytes:
    """Return a file that soundfile writes of `samples`, (n,) or (n, channels)."""
    file, sample_rate = io.BytesIO(), settings.pop("sample_rate", RATE)
    samples = sound(SECONDS, sample_rate) if samples is None else samples
    soundfile.write(file, samples, sample_rate, subtype, format=container, **settings)
    return file.getvalue()


def encoded_by_av(
    container: str,
    codec: str,
    samples: np.ndarray | None = None,
    *,
    sample_rate: int = RATE,
    bit_rate: int = 0,
    options: dict[str, str] | None = None,
) -> bytes:
    """Return a file that PyAV writes of mono `samples`; `options` are the container's."""
    samples = sound(SECONDS, sample_rate) if samples is None else samples
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=container, options=options or {}) as output,
    ):
        stream: Any = output.add_stream(codec, rate=sample_rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        pcm = np.round(samples * 32_767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = sample_rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        output.close()  # some formats write their index, or move it, now
        return Path(file.name).read_bytes()


def seconds_by_av(content: bytes, demuxer: str | None = None) -> float:
    """Return the length of the sound that PyAV decodes, in s."""
    n_samples, sample_rate = 0, 1
    container: Any
    with av.open(io.BytesIO(content), format=demuxer) as container:
        for frame in container.decode(audio=0):
            n_samples, sample_rate = n_samples + frame.samples, frame.sample_rate
    return n_samples / sample_rate


# MP3


def mp3(samples: np.ndarray | None = None, *, variable: bool = True, rate: int = RATE) -> bytes:
    """Return an MP3 with a Xing or Info frame."""
    mode = "VARIABLE" if variable else "CONSTANT"
    settings = {"bitrate_mode": mode, "compression_level": 0.6, "sample_rate": rate}
    return encoded("MP3", "MPEG_LAYER_III", samples, **settings)


def without_xing(content: bytes) -> bytes:
    """Return an MP3 without its first frame, as an encoder writes into a pipe."""
    marks = [content.find(mark) for mark in (b"Xing", b"Info")]
    start = min(mark for mark in marks if mark > 0) + 8
    position = content.find(b"\xff", start)
    while not (content[position + 1] == content[1] and content[position - 1] in (0, 0x55, 0xAA)):
        position = content.find(b"\xff", position + 1)
    return content[position:]


def id3v2(n_bytes: int = 3000) -> bytes:
    """Return a tag as it stands before an MP3, with a frame of `n_bytes`."""
    body = b"TXXX" + struct.pack(">IH", n_bytes, 0) + bytes(n_bytes)
    size = len(body)
    return b"ID3\x03\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + body


def id3v1() -> bytes:
    """Return a tag as it stands behind an MP3."""
    return b"TAG" + b"a title".ljust(125, b"\0")


# Ogg


def ogg_pages(content: bytes) -> list[bytes]:
    """Return the pages of an Ogg file."""
    pages, position = [], 0
    while position < len(content):
        n_segments = content[position + 26]
        lengths = content[position + 27 : position + 27 + n_segments]
        end = position + 27 + n_segments + sum(lengths)
        pages.append(content[position:end])
        position = end
    return pages


def cut_between_pages(content: bytes, part: float = 0.6) -> bytes:
    """Return the first part of an Ogg file's pages."""
    pages = ogg_pages(content)
    return b"".join(pages[: max(3, round(part * len(pages)))])


# WAV


def wav_with_sizes(content: bytes, riff: int | None, data: int | None) -> bytes:
    """Return a WAV with other sizes in its header."""
    changed, position = bytearray(content), content.index(b"data") + 4
    if riff is not None:
        changed[4:8] = struct.pack("<I", riff)
    if data is not None:
        changed[position : position + 4] = struct.pack("<I", data)
    return bytes(changed)
