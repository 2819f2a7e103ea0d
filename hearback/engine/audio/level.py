"""Whether the level of a recording can be that of speech."""

import numpy as np

from hearback.engine.audio.notes import OriginalLength

# Peaks of speech, even when recorded far too quietly, are some 20 dB above this level, which is
# 32 steps of 16-bit audio.
SILENCE_DBFS = -60.0

# Lossy codecs exceed full scale slightly. A peak of four times full scale (12 dB) means integers
# written as floating point, or a damaged stream.
MAX_PEAK = 4.0


def find_silence(
    mono: np.ndarray, original: OriginalLength | None, kept_seconds: float
) -> tuple[str, str | None, str] | None:
    """Return what is wrong with a silent recording, the cure, and the kind; None if it is not.

    `mono`, (n,), is all of it, or its first `kept_seconds` if its `original` length is given.
    """
    # Half the range, not the maximum: a constant offset is silence.
    if (mono.max() - mono.min()) / 2 >= 10 ** (SILENCE_DBFS / 20):
        return None
    if original is None:
        return f"is silent: its peak is below {SILENCE_DBFS:g} dBFS", None, "silent"
    what = f"is {original} long; its first {kept_seconds:g} s are silent, and no more is read"
    return what, "cut the silence before the speech", "too_long"


def find_excess(mono: np.ndarray, is_float: bool) -> tuple[str, str | None] | None:
    """Return what is wrong with samples far over full scale, and the cure; None if they are not.

    `is_float` tells whether the file has floating point samples.
    """
    peak = np.abs(mono).max()
    if peak <= MAX_PEAK:
        return None
    for bits in (16, 24, 32) if is_float else ():
        if 2.0 ** (bits - 10) < peak <= 2.0 ** (bits - 1):  # at least 1/512 of that full scale
            what = f"has integers of {bits} bits as floating point (a peak of {peak:.0f})"
            return what, f"divide its samples by {2 ** (bits - 1)}"
    return f"has a peak of {peak:.3g} times full scale", None
