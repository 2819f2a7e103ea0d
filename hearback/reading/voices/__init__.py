"""Reference speech: a text in, a waveform out, one module a backend.

A project has one fixed voice. What `Voice.describe` returns is written beside the references
(`voice.json`), and references of another voice are refused.
"""

from collections.abc import Mapping
from typing import Any

from hearback.engine.errors import HearbackError
from hearback.reading.voices.base import RenderError, Voice, VoiceError
from hearback.reading.voices.hibari import HibariVoice
from hearback.reading.voices.melo import MeloVoice

__all__ = ["BACKENDS", "SPEED", "RenderError", "Voice", "VoiceError", "open_voice", "reopen_voice"]

BACKENDS = ("hibari", "melo")
SPEED = 0.7  # the competition's pace: slow speech, as to a child


def open_voice(backend: str, speed: float = SPEED, **options: Any) -> Voice:  # noqa: ANN401
    """Open a voice: "hibari" or "melo", at `speed` (1 is the voice's own pace, less is slower).

    `options` are the backend's own: `HibariVoice` and `MeloVoice` say which. Raises VoiceError
    when the backend's package or one of its files is missing.
    """
    if not 0.1 <= speed <= 10:  # NaN too
        raise HearbackError(f"speed {speed}: a voice speaks at 0.1 to 10 times its own pace")
    if backend == "hibari":
        return HibariVoice(speed, **options)
    if backend == "melo":
        return MeloVoice(speed, **options)
    raise HearbackError(f"no voice {backend!r}: there are {' and '.join(BACKENDS)}")


def reopen_voice(record: Mapping[str, str | float | int], **options: Any) -> Voice:  # noqa: ANN401
    """Open the voice that made references, as their `voice.json` says.

    Whether it is that voice to the last weight is seen when it renders: `render_missing` refuses
    another one. `options` are of the place, such as where MeloTTS's python lies.
    """
    backend = str(record.get("backend"))
    if backend == "hibari":
        options = {"voice": record.get("voice"), **options}
    return open_voice(backend, float(record.get("speed", SPEED)), **options)
