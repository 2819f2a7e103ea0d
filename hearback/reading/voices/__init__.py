"""Text-to-speech voices for the reference speech, one module per backend.

A project has one fixed voice. `Voice.describe` is saved beside the references (`voice.json`), and
references in another voice are refused.
"""

from collections.abc import Mapping
from typing import Any

from hearback.engine.errors import HearbackError
from hearback.reading.voices.base import RenderError, Voice, VoiceError
from hearback.reading.voices.hibari import HibariVoice
from hearback.reading.voices.melo import MeloVoice

__all__ = ["BACKENDS", "SPEED", "RenderError", "Voice", "VoiceError", "open_voice", "reopen_voice"]

BACKENDS = ("hibari", "melo")
SPEED = 0.7  # the competition's speed: slow speech, as to a child


def open_voice(backend: str, speed: float = SPEED, **options: Any) -> Voice:  # noqa: ANN401
    """Open the voice "hibari" or "melo" at `speed` (1 is the voice's default, less is slower).

    `options` are keyword arguments of `HibariVoice` or `MeloVoice`. Raises VoiceError if the
    backend's package or one of its files is missing.
    """
    if not 0.1 <= speed <= 10:  # NaN too
        raise HearbackError(f"speed {speed}: must be 0.1 to 10 times the voice's default")
    if backend == "hibari":
        return HibariVoice(speed, **options)
    if backend == "melo":
        return MeloVoice(speed, **options)
    raise HearbackError(f"no voice {backend!r}: choose from {' and '.join(BACKENDS)}")


def reopen_voice(record: Mapping[str, str | float | int], **options: Any) -> Voice:  # noqa: ANN401
    """Open the voice of a `voice.json` record.

    Its weights are not compared here: `render_missing` refuses another voice. `options` are
    settings that depend on the machine, such as the path of MeloTTS's Python.
    """
    backend = str(record.get("backend"))
    if backend == "hibari":
        options = {"voice": record.get("voice"), **options}
    return open_voice(backend, float(record.get("speed", SPEED)), **options)
