"""Write WAV files, and convert samples to 16 bits."""

import io
from pathlib import Path

import numpy as np
import soundfile

from hearback.engine.io import atomic_write

FULL_SCALE = 32_768  # of int16: the store keeps a 16-bit file at 16 kHz bit for bit

INT16 = np.dtype("<i2")


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write a mono waveform, (n,) in [-1, 1], as 16-bit WAV, atomically. Peaks clip."""
    # Encoded in memory: for a full disk, libsndfile only reports "System error".
    encoded = io.BytesIO()
    soundfile.write(encoded, to_int16(waveform), sample_rate, "PCM_16", format="WAV")
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Convert floating point samples to little-endian int16, clipping at full scale.

    Raises ValueError for NaN and infinite samples.
    """
    if not np.isfinite(waveform).all():
        raise ValueError("the waveform has NaN or infinite samples")
    scaled = np.rint(waveform * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(INT16)
