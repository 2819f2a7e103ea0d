"""Valid audio files in many formats; all sounds are synthetic."""

import io
from functools import lru_cache

import numpy as np
import soundfile

from hearback.engine.audio.decode import SAMPLE_RATE


def speech(rng: np.random.Generator, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return a buzz with the rhythm and band of speech, shape (n,), float32."""
    times = np.arange(int(rng.uniform(0.2, 0.8) * sample_rate)) / sample_rate
    pitch = rng.uniform(120, 350) * (1 + 0.1 * np.sin(2 * np.pi * 2 * times))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    buzz = sum(np.sin(n * phase) / n for n in range(1, 8))
    loudness = 0.15 * (1 + np.sin(2 * np.pi * 4 * times))
    return (loudness * buzz + rng.normal(0, 0.003, len(times))).astype(np.float32)


# Container, encoding, suffix, sample rates, maximum number of channels.
_ANY_RATE = (8_000, 16_000, 22_050, 44_100, 96_000)
ENCODINGS = (
    ("WAV", "PCM_16", ".wav", _ANY_RATE, 7),
    ("WAV", "PCM_U8", ".wav", _ANY_RATE, 7),
    ("WAV", "PCM_24", ".wav", _ANY_RATE, 7),
    ("WAV", "FLOAT", ".wav", _ANY_RATE, 7),
    ("WAV", "DOUBLE", ".wav", _ANY_RATE, 7),
    ("WAV", "ULAW", ".wav", _ANY_RATE, 2),
    ("WAV", "IMA_ADPCM", ".wav", _ANY_RATE, 2),
    ("WAV", "MS_ADPCM", ".wav", _ANY_RATE, 2),
    ("WAV", "GSM610", ".wav", (8_000,), 1),
    ("WAVEX", "PCM_16", ".wav", _ANY_RATE, 7),
    ("FLAC", "PCM_16", ".flac", _ANY_RATE, 7),
    ("FLAC", "PCM_24", ".flac", _ANY_RATE, 2),
    ("MP3", "MPEG_LAYER_III", ".mp3", (16_000, 44_100), 2),
    ("OGG", "VORBIS", ".ogg", (16_000, 44_100), 2),
    ("OGG", "OPUS", ".opus", (16_000, 48_000), 2),
    ("AIFF", "PCM_16", ".aiff", _ANY_RATE, 2),
    ("AU", "PCM_16", ".au", _ANY_RATE, 2),
    ("W64", "PCM_16", ".w64", _ANY_RATE, 2),
    ("RF64", "PCM_16", ".rf64", _ANY_RATE, 2),
    ("CAF", "ALAC_16", ".caf", _ANY_RATE, 2),
)
N_VOICES = 3


@lru_cache
def encoded(encoding: int, voice: int) -> bytes:
    """Return a valid file of `ENCODINGS[encoding]`; `voice` varies sample rate and channels."""
    container, subtype, _, rates, max_channels = ENCODINGS[encoding]
    rng = np.random.default_rng([encoding, voice])
    sample_rate = int(rng.choice(rates))
    n_channels = int(rng.integers(1, max_channels + 1))
    sound = speech(rng, sample_rate)
    file = io.BytesIO()
    sounds = np.stack([sound] * n_channels, axis=1)
    soundfile.write(file, sounds, sample_rate, subtype, format=container)
    return file.getvalue()


def valid_file(rng: np.random.Generator) -> tuple[bytes, str]:
    """Return the bytes of a random valid audio file and its suffix."""
    encoding = int(rng.integers(len(ENCODINGS)))
    return encoded(encoding, int(rng.integers(N_VOICES))), ENCODINGS[encoding][2]
