"""Recordings: decode, check, bring to one rate and one channel, and keep so in a store.

A recording that cannot be used (missing, unreadable, silent, ...) is an error. One in another
layout (stereo, 8 kHz, 44.1 kHz, ...) is converted, one that goes on for minutes is cut, and a
warning says what was done. What the header of a file tells is believed of nothing that costs
memory.
"""

import re
import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from hearback.engine.errors import HearbackError
from hearback.engine.io import open_file

SAMPLE_RATE = 16_000  # Hz, Whisper's

# Below this peak nobody spoke: speech recorded far too low still peaks some 20 dB above it, and
# 16 bits have only 32 steps left there.
SILENCE_DBFS = -60.0

# No word is this short; what is was cut by mistake.
MIN_SECONDS = 0.05

# What is kept of a recording that is longer. A window is 16 s; an augmentation that plays faster
# (by 1.3 and by 1.15 at most) fills it from the first 24 s, and no model hears what comes later.
KEPT_SECONDS = 30.0

# A telephone's rate is 8 kHz; nothing records speech above 384 kHz. What tells another rate is
# damaged: resampled, one second at 2 GHz would take the memory of a day.
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz

# Lossy codecs go over full scale by a little. Four times over it (12 dB) are integers written as
# floating point, or a damaged stream.
MAX_PEAK = 4.0

# Goes up when decode() gives other samples, or refuses other recordings, than it did: stores from
# before are then built again.
VERSION = 2

# Of all channels, 64 MB as float32: more than any clip has, so that those are read in one go.
_BLOCK_SAMPLES = 1 << 24

# How libsndfile's log says of WAV, AIFF and AU that the header tells of more bytes than there are.
_BYTES_MISSING = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.M)

# libsndfile keeps the reason of a failed open in a global, which another thread's open resets.
_opening = threading.Lock()


@dataclass(frozen=True)
class Recording:
    """A recording as the models hear it, and what was done to it on the way."""

    waveform: np.ndarray  # (n,), float32, mono, at the rate asked for; full scale is 1.0
    notes: tuple[str, ...]  # e.g. "2 channels, averaged", "44.1 kHz, resampled to 16 kHz"


class UnreadableAudio(HearbackError, ValueError):  # noqa: N818  (the fault is the audio's)
    """A recording that cannot be used; the message ends a sentence that begins with its name."""


def decode(path: Path, sample_rate: int = SAMPLE_RATE) -> Recording:
    """Decode an audio file of any format that libsndfile knows (WAV, FLAC, MP3, Ogg Opus, ...).

    Channels are averaged, and the first `KEPT_SECONDS` resampled to `sample_rate` in Hz; nothing
    else is read.
    Raises UnreadableAudio if the file is missing or unreadable, or if what is in it cannot be
    speech: no samples, NaN or infinite ones, too short, silent, far over full scale, no possible
    sample rate. Opens no other file than this one.
    """
    mono, own_rate, notes = _read(path)
    _check_level(mono)
    if own_rate != sample_rate:
        # soxr, because its filter ends just below the lower of the two Nyquist frequencies
        # (linear interpolation or a short filter folds what a 44.1 kHz recording has above 8 kHz
        # back into the speech), takes a small part of the time of decoding, and is what librosa
        # resamples with.
        mono = soxr.resample(mono, own_rate, sample_rate, quality="HQ")
        notes.append(_resampling(own_rate, sample_rate))
    return Recording(mono, tuple(notes))


def _read(path: Path) -> tuple[np.ndarray, int, list[str]]:
    """Return an audio file's first seconds, (n,) float32 mono, its sample rate, and notes."""
    try:
        if not path.is_file():
            raise UnreadableAudio("is not a file" if path.exists() else _missing(path))
        if path.stat().st_size == 0:
            raise UnreadableAudio("is empty: 0 bytes")
        # Opened here: libsndfile, given a name, also opens others made of it (a Mac's resource
        # forks, "._a.wav"), wherever links of such names lead, and heeds some suffixes.
        with open_file(path) as content:
            with _opening:
                file = soundfile.SoundFile(content)
            with file:
                mono, notes = _first_seconds(file)
    except (OSError, soundfile.SoundFileError) as error:
        # The others' str() begins with the path, which the report says already.
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise UnreadableAudio(f"is unreadable: {reason}") from error
    if len(mono) < MIN_SECONDS * file.samplerate:
        raise UnreadableAudio(f"is shorter than {MIN_SECONDS:g} s")
    return mono, file.samplerate, notes


def _missing(path: Path) -> str:
    """Say that a file is missing, and whether one is there whose name only looks the same."""
    for form in ("NFC", "NFD"):  # archives from a Mac have the latter
        other = path.with_name(unicodedata.normalize(form, path.name))
        if other.name != path.name and other.exists():
            return f"is missing; there is one with the same letters in another Unicode form, {form}"
    return "is missing"


def _first_seconds(file: soundfile.SoundFile) -> tuple[np.ndarray, list[str]]:
    """Return the mean of the channels, (n,) float32, at most `KEPT_SECONDS` of it, and notes."""
    sample_rate, n_channels = file.samplerate, file.channels
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise UnreadableAudio(f"tells a sample rate of {sample_rate} Hz")
    n_wanted = min(file.frames, round(KEPT_SECONDS * sample_rate))
    blocks = [np.zeros(0, np.float32)]
    n_read = 0
    while n_read < n_wanted:
        n_asked = min(n_wanted - n_read, max(1, _BLOCK_SAMPLES // n_channels))
        block = file.read(n_asked, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        if not np.isfinite(block).all():
            raise UnreadableAudio("has NaN or infinite samples")
        with np.errstate(over="ignore"):  # the level is checked for it
            blocks.append(block.mean(axis=1))
        n_read += len(block)
    if n_read == 0:
        raise UnreadableAudio("is empty: no samples")
    notes = []
    missing = _BYTES_MISSING.search(file.extra_info)
    if n_read < n_wanted or (missing and int(missing[1]) > int(missing[2])):
        notes.append(f"breaks off after {n_read / sample_rate:.2f} s: its header tells of more")
    elif n_wanted < file.frames:
        seconds = file.frames / sample_rate
        notes.append(f"{seconds:.0f} s long, of which the first {KEPT_SECONDS:g} s are kept")
    if n_channels > 1:
        notes.append(f"{n_channels} channels, averaged")
    return np.concatenate(blocks), notes


def _check_level(mono: np.ndarray) -> None:
    # Half the range, not the largest value: a constant offset is no sound.
    if (mono.max() - mono.min()) / 2 < 10 ** (SILENCE_DBFS / 20):
        raise UnreadableAudio(f"is silent: its peak is below {SILENCE_DBFS:g} dBFS")
    peak = np.abs(mono).max()
    if peak > MAX_PEAK:
        raise UnreadableAudio(f"has a peak of {peak:.3g} times full scale")


def _resampling(own_rate: int, sample_rate: int) -> str:
    """Say that a recording was resampled, and what it lacks."""
    note = f"{own_rate / 1000:g} kHz, resampled to {sample_rate / 1000:g} kHz"
    if own_rate < sample_rate:
        lost = 1 - own_rate / sample_rate
        part = "half" if lost == 0.5 else f"{lost:.0%}"
        above = f"above {own_rate / 2000:g} kHz"
        note += f"; the upper {part} of the band ({above}) is missing"
    return note
