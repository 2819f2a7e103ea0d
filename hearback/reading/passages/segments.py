"""Cut a long recording into segments at its pauses, each short enough for one window."""

from dataclasses import dataclass

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.window_coverage import FRAME_SAMPLES, find_speech

MAX_SECONDS = 24.0  # of a segment; windows have 30 s, and a recipe may play slower
MARGIN_SECONDS = 0.4  # of silence that a segment keeps before and after its speech
INNER_SHARE = 0.5  # a part is cut within this share of it, in its middle
QUIET_FRAMES = 5  # a cut without a pause is where this many frames have the least energy


@dataclass(frozen=True)
class Segment:
    """A part of a recording, in samples at 16 kHz."""

    start: int
    stop: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.stop - self.start) / SAMPLE_RATE


def find_segments(waveform: np.ndarray, max_seconds: float = MAX_SECONDS) -> list[Segment]:
    """Return the parts of a recording that hold its speech, in order.

    A part that is too long is cut in the middle of the longest pause in its middle half or, without
    a pause, where it is quietest there. Silence between the parts is left out. A recording without
    speech that stands out is cut all the same.

    Args:
        waveform: (samples,) float32 at 16 kHz.
        max_seconds: length of the longest segment.
    """
    speech, _ = find_speech(waveform)
    frames = waveform[: len(speech) * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    energy = np.convolve(frames.var(axis=1), np.ones(QUIET_FRAMES), mode="same")
    max_frames = int(max_seconds * SAMPLE_RATE) // FRAME_SAMPLES
    waiting, parts = [_trimmed(speech, 0, len(speech))], []
    while waiting:
        start, stop = waiting.pop()
        if stop - start <= max_frames:
            parts.append(Segment(start * FRAME_SAMPLES, stop * FRAME_SAMPLES))
            continue
        cut = start + _best_cut(speech[start:stop], energy[start:stop])
        # The first part is taken next, so that the parts come out in order.
        waiting += [_trimmed(speech, cut, stop), _trimmed(speech, start, cut)]
    return parts


def _best_cut(speech: np.ndarray, energy: np.ndarray) -> int:
    """Return the frame before which (frames,) of a part are cut."""
    margin = int(len(speech) * (1 - INNER_SHARE) / 2)
    inner = slice(margin, len(speech) - margin)
    steps = np.diff(np.concatenate([[True], speech[inner], [True]]).astype(np.int8))
    pauses = np.flatnonzero(steps).reshape(-1, 2)
    if len(pauses):
        start, stop = pauses[np.argmax(pauses[:, 1] - pauses[:, 0])]
        return margin + int(start + stop) // 2
    return margin + int(energy[inner].argmin())


def _trimmed(speech: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    """Return a part without the silence at its ends, save for a margin."""
    margin = round(MARGIN_SECONDS * SAMPLE_RATE / FRAME_SAMPLES)
    inside = start + np.flatnonzero(speech[start:stop])
    if not len(inside):
        return start, stop
    return max(start, int(inside[0]) - margin), min(stop, int(inside[-1]) + 1 + margin)
