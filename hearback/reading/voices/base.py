"""What the voices share."""

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hearback.engine.errors import HearbackError


class VoiceError(HearbackError):
    """The voice cannot be used at all: its package, a file or its process is missing."""


class RenderError(HearbackError):
    """The voice cannot say this one text; the message says why."""


class Voice(Protocol):
    """Renders texts. The same text gives the same waveform, whatever was rendered before it.

    A voice is pickled as what it was opened with, so that it is opened anew in another process.
    """

    sample_rate: int  # of what `render` returns, in Hz

    def describe(self) -> dict[str, str | float | int]:
        """Return backend, voice, speed, sample_rate, package_version and weights (SHA-256)."""
        ...

    def render(self, text: str) -> NDArray[np.float32]:
        """Return the spoken text, shape (n,), at `sample_rate`; about -1 to 1, not clipped.

        Raises RenderError when this text cannot be said, VoiceError when no text can be any more.
        """
        ...

    def close(self) -> None:
        """Let go of what the voice holds; it renders no more."""
        ...


def seed_of(text: str) -> int:
    """Return the text's own seed, 0 to 2^32 - 1: the same on every machine and in any order."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
