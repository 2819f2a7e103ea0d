"""Hibari, the default voice. Its wheel contains one voice of 7.9 MB; nothing is downloaded.

PyPI `hibari-tts` (Apache 2.0): a distilled Kokoro-82M, 24 kHz, over 100 times faster than real time
on one core. https://pypi.org/project/hibari-tts/
"""

import importlib
import importlib.metadata
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hearback.engine.io import sha256_of
from hearback.reading.voices.base import RenderError, VoiceError, seed_of

INSTALL = "pip install hibari-tts==0.2.1"
VOICE = "heart"  # American English, female; included in the wheel


class HibariVoice:
    """A voice of the package `hibari`.

    `voice` is a name in `hibari.voices.VOICES`. Only "heart" comes with the package; the file of
    another voice must be in hibari's cache folder, because nothing is downloaded.
    """

    def __init__(self, speed: float, voice: str = VOICE) -> None:
        # Disable onnxruntime's telemetry (1.31.1, Privacy.md); read once, on import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            hibari = importlib.import_module("hibari")
            voices = importlib.import_module("hibari.voices")
            importlib.import_module("onnxruntime")  # hibari imports it later
            version = importlib.metadata.version("hibari-tts")
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            raise VoiceError(
                f"the voice hibari is not installed here ({error}): {INSTALL}"
            ) from error
        if voice not in voices.VOICES:
            known = ", ".join(voices.VOICES)
            raise VoiceError(f"hibari has no voice {voice!r}: choose from {known}")
        try:
            model = Path(voices.voice_path(voice, download_missing=False))
        except FileNotFoundError as error:
            raise VoiceError(
                f"hibari's voice {voice!r} is not on this machine, and nothing is downloaded: "
                f"put its file at {error}, or use {VOICE!r}, which comes with the package"
            ) from error
        # One thread: with more, the order of summation varies, and so does the waveform.
        self._hibari = hibari.Hibari(voice=voice, model=str(model), threads=1)
        self.sample_rate: int = self._hibari.sample_rate
        self._speed = speed
        self._described: dict[str, str | float | int] = {
            "backend": "hibari",
            "voice": voice,
            "speed": speed,
            "sample_rate": self.sample_rate,
            "package_version": f"hibari-tts {version}",
            "weights": sha256_of(model),
        }

    def describe(self) -> dict[str, str | float | int]:
        """Return the voice's identity and settings."""
        return dict(self._described)

    def render(self, text: str) -> NDArray[np.float32]:
        """Return the spoken text, shape (n,), 24 kHz. Raises RenderError if hibari fails on it."""
        try:
            waveform = self._hibari(text, speed=self._speed, seed=seed_of(text))
        except Exception as error:  # one odd text must not end the run
            raise RenderError(f"hibari failed: {type(error).__name__}: {error}") from error
        return np.asarray(waveform, dtype=np.float32)

    def __reduce__(self) -> tuple[type["HibariVoice"], tuple[float, str]]:
        """Pickle the settings only."""
        return type(self), (self._speed, str(self._described["voice"]))

    def close(self) -> None:
        """Release the model."""
        self._hibari = None
