"""Recordings: decode, check, bring to one rate and one channel, and keep so in a store.

A recording that cannot be used (missing, unreadable, silent, ...) is an error. One in another
layout (stereo, 8 kHz, 44.1 kHz, ...) is converted, one that goes on for minutes is cut, and a
warning says what was done. What the header of a file tells is believed of nothing that costs
memory.
"""

import io
from pathlib import Path

import numpy as np
import soundfile

from hearback.engine.io import atomic_write

FULL_SCALE = 32_768  # of int16: a 16-bit file at 16 kHz goes through the store bit for bit

INT16 = np.dtype("<i2")


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write a mono waveform, (n,) in [-1, 1], as 16-bit WAV, whole or not at all. Peaks clip."""
    # Made in memory: libsndfile says "System error" of a full disk, and no more.
    encoded = io.BytesIO()
    soundfile.write(encoded, to_int16(waveform), sample_rate, "PCM_16", format="WAV")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Convert floating point samples to little-endian int16; what is over full scale clips.

    Raises ValueError for NaN and infinite samples, which no integer stands for.
    """
    if not np.isfinite(waveform).all():
        raise ValueError("the waveform has NaN or infinite samples")
    scaled = np.rint(waveform * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(INT16)
