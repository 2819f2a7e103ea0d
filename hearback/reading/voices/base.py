"""The interface of a voice, and its errors."""

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hearback.engine.errors import HearbackError


class VoiceError(HearbackError):
    """The voice is unusable: its package, a file or its process is missing."""


class RenderError(HearbackError):
    """The voice cannot speak this text; the message has the reason."""


class Voice(Protocol):
    """Renders texts. A waveform does not depend on the texts rendered before it.

    Pickling keeps only the settings: another process opens its own copy of the voice.
    """

    sample_rate: int  # of `render`'s waveforms, in Hz

    def describe(self) -> dict[str, str | float | int]:
        """Return backend, voice, speed, sample_rate, package_version and weights (SHA-256)."""
        ...

    def render(self, text: str) -> NDArray[np.float32]:
        """Return the spoken text, shape (n,), at `sample_rate`; about -1 to 1, not clipped.

        Raises RenderError if this text cannot be spoken, VoiceError if the voice has failed.
        """
        ...

    def close(self) -> None:
        """Release all resources; the voice cannot render afterwards."""
        ...


def seed_of(text: str) -> int:
    """Return a random seed for the text, 0 to 2^32 - 1: the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
