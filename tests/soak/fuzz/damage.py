"""Damage to any file: bytes in, bytes out."""

import pickle
from collections.abc import Callable

import numpy as np

from tests.soak.fuzz.audio_files import valid_file


def cut_short(content: bytes, rng: np.random.Generator) -> bytes:
    """Truncate at a random position."""
    return content[: rng.integers(len(content) + 1)]


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip up to 64 bits; in half of the cases all of them in the first 128 bytes."""
    flipped = bytearray(content)
    end = len(flipped) if rng.random() < 0.5 else min(len(flipped), 128)
    for position in rng.integers(0, max(end, 1), int(rng.integers(1, 65))):
        if position < len(flipped):
            flipped[position] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """Join the beginning with the end of another audio file."""
    other, _ = valid_file(rng)
    return content[: rng.integers(len(content) + 1)] + other[rng.integers(len(other)) :]


def overwrite(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a section with zeros, ones or noise, as bad sectors do."""
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    fill = (bytes(end - start), b"\xff" * int(end - start), rng.bytes(end - start))
    return content[:start] + fill[rng.integers(3)] + content[end:]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    """Duplicate a section."""
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:end] + content[start:]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    cut_short,
    flip_bits,
    splice,
    overwrite,
    repeat,
)


def replace_content(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return content of another kind: HTML, CSV, a pickle, a lone magic number, noise, …"""
    contents = (
        b"",
        b"\0" * 10_000,
        b"<html><body>404 Not Found</body></html>\n" * 10,
        b"filename,score\na.wav,1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 160044\n",
        b"PK\x03\x04" + rng.bytes(500),
        pickle.dumps([1, 2, 3]),
        b"RIFF",
        b"OggS",
        b"fLaC",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"\xff\xfb" * 2000,
        rng.bytes(int(rng.integers(1, 5000))),
    )
    return contents[rng.integers(len(contents))]


def keep_intact(content: bytes, _rng: np.random.Generator) -> bytes:
    """Return the content unchanged."""
    return content
