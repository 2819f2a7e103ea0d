"""Decode a recording, check it, and convert it to mono at one sample rate.

An unusable recording (missing, unreadable, silent, ...) is an error. A recording in another layout
(stereo, 8 kHz, 44.1 kHz, ...) is converted, and a long one is cut; notes describe such changes.
Header sizes are never trusted for allocation.
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

# Peaks of speech, even when recorded far too quietly, are some 20 dB above this level, which is
# 32 steps of 16-bit audio.
SILENCE_DBFS = -60.0

# No word is this short: such a file was cut by mistake.
MIN_SECONDS = 0.05

# Longer recordings are cut. A window is 16 s; with augmentations that speed up (by at most 1.3 and
# 1.15) it is filled from the first 24 s, so no model uses anything later.
KEPT_SECONDS = 30.0

# Telephones have 8 kHz, and no device records speech above 384 kHz. A header with another rate is
# damaged: resampling "one second at 2 GHz" would need the memory of a day of audio.
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz

# Lossy codecs exceed full scale slightly. A peak of four times full scale (12 dB) means integers
# written as floating point, or a damaged stream.
MAX_PEAK = 4.0

# Increase it when decode() returns other samples or refuses other recordings than before, so that
# existing stores are built again.
VERSION = 2

# Samples of all channels per read, 64 MB as float32: a usual clip is read at once.
_BLOCK_SAMPLES = 1 << 24

# libsndfile's log line for a WAV, AIFF or AU header with more bytes than the file has.
_BYTES_MISSING = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.M)

# libsndfile keeps the error of a failed open in a global, which other threads' opens overwrite.
_opening = threading.Lock()


@dataclass(frozen=True)
class Recording:
    """A decoded recording, and notes on its conversion."""

    waveform: np.ndarray  # (n,), float32, mono, at the requested rate; full scale is 1.0
    notes: tuple[str, ...]  # e.g. "2 channels, averaged", "44.1 kHz, resampled to 16 kHz"


class UnreadableAudioError(HearbackError, ValueError):
    """A recording that cannot be used; the message completes a sentence about it."""


def decode(path: Path, sample_rate: int = SAMPLE_RATE) -> Recording:
    """Decode an audio file in any format of libsndfile (WAV, FLAC, MP3, Ogg Opus, ...).

    Only the first `KEPT_SECONDS` are read. Channels are averaged, and the result is resampled to
    `sample_rate` in Hz. Raises UnreadableAudioError if the file is missing or unreadable, or if its
    content cannot be speech: no samples, NaN or infinite samples, too short, silent, far over full
    scale, or an impossible sample rate. Opens no other file than this one.
    """
    mono, own_rate, notes = _read(path)
    _check_level(mono)
    if own_rate != sample_rate:
        # soxr's filter ends just below the lower of the two Nyquist frequencies; linear
        # interpolation or a short filter would alias the band above 8 kHz of a 44.1 kHz recording
        # into the speech. It takes a small part of the decoding time, and librosa uses it too.
        mono = soxr.resample(mono, own_rate, sample_rate, quality="HQ")
        notes.append(_resampling(own_rate, sample_rate))
    return Recording(mono, tuple(notes))


def _read(path: Path) -> tuple[np.ndarray, int, list[str]]:
    """Return an audio file's first seconds, (n,) float32 mono, its sample rate, and notes."""
    try:
        if not path.is_file():
            raise UnreadableAudioError("is not a file" if path.exists() else _missing(path))
        if path.stat().st_size == 0:
            raise UnreadableAudioError("is empty: 0 bytes")
        # Opened here: given a name, libsndfile also opens related files (a Mac's resource forks,
        # "._a.wav"), follows links with such names, and interprets some suffixes.
        with open_file(path) as content:
            with _opening:
                file = soundfile.SoundFile(content)
            with file:
                mono, notes = _first_seconds(file)
    except (OSError, soundfile.SoundFileError) as error:
        # str(OSError) contains the path, which the report already names.
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise UnreadableAudioError(f"is unreadable: {reason}") from error
    if len(mono) < MIN_SECONDS * file.samplerate:
        raise UnreadableAudioError(f"is shorter than {MIN_SECONDS:g} s")
    return mono, file.samplerate, notes


def _missing(path: Path) -> str:
    """Describe a missing file; mention a file with the same name in another Unicode form."""
    for form in ("NFC", "NFD"):  # archives from a Mac use NFD
        other = path.with_name(unicodedata.normalize(form, path.name))
        if other.name != path.name and other.exists():
            return f"is missing; there is one with the same letters in another Unicode form, {form}"
    return "is missing"


def _first_seconds(file: soundfile.SoundFile) -> tuple[np.ndarray, list[str]]:
    """Return the mean of the channels, (n,) float32, at most `KEPT_SECONDS` long, and notes."""
    sample_rate, n_channels = file.samplerate, file.channels
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise UnreadableAudioError(f"has an invalid sample rate: {sample_rate} Hz")
    n_wanted = min(file.frames, round(KEPT_SECONDS * sample_rate))
    blocks = [np.zeros(0, np.float32)]
    n_read = 0
    while n_read < n_wanted:
        n_asked = min(n_wanted - n_read, max(1, _BLOCK_SAMPLES // n_channels))
        block = file.read(n_asked, dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        if not np.isfinite(block).all():
            raise UnreadableAudioError("has NaN or infinite samples")
        with np.errstate(over="ignore"):  # _check_level refuses infinite means
            blocks.append(block.mean(axis=1))
        n_read += len(block)
    if n_read == 0:
        raise UnreadableAudioError("is empty: no samples")
    notes = []
    missing = _BYTES_MISSING.search(file.extra_info)
    if n_read < n_wanted or (missing and int(missing[1]) > int(missing[2])):
        notes.append(f"breaks off after {n_read / sample_rate:.2f} s: its header announces more")
    elif n_wanted < file.frames:
        seconds = file.frames / sample_rate
        notes.append(f"{seconds:.0f} s long, only the first {KEPT_SECONDS:g} s are kept")
    if n_channels > 1:
        notes.append(f"{n_channels} channels, averaged")
    return np.concatenate(blocks), notes


def _check_level(mono: np.ndarray) -> None:
    # Half the range, not the maximum: a constant offset is silence.
    if (mono.max() - mono.min()) / 2 < 10 ** (SILENCE_DBFS / 20):
        raise UnreadableAudioError(f"is silent: its peak is below {SILENCE_DBFS:g} dBFS")
    peak = np.abs(mono).max()
    if peak > MAX_PEAK:
        raise UnreadableAudioError(f"has a peak of {peak:.3g} times full scale")


def _resampling(own_rate: int, sample_rate: int) -> str:
    """Describe the resampling, and the part of the band that is missing."""
    note = f"{own_rate / 1000:g} kHz, resampled to {sample_rate / 1000:g} kHz"
    if own_rate < sample_rate:
        lost = 1 - own_rate / sample_rate
        part = "half" if lost == 0.5 else f"{lost:.0%}"
        above = f"above {own_rate / 2000:g} kHz"
        note += f"; the upper {part} of the band ({above}) is missing"
    return note
