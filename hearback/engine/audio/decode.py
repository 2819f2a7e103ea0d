"""Decode a recording, check it, and convert it to mono at one sample rate.

An unusable recording (missing, unreadable, silent, ...) is an error. A recording in another layout
(stereo, 8 kHz, 44.1 kHz, ...) is converted, and a long one is cut; notes describe such changes.
What is read is all there is, or a note says what is not. Header sizes are never trusted for
allocation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from hearback.engine.audio.containers import (
    HEADER_HAS_MORE,
    Part,
    find_parts,
    mended,
    missing_share,
)
from hearback.engine.audio.file_kinds import (
    HEAD_BYTES,
    UNKNOWN_KIND,
    FileKind,
    name_of,
    other_codec,
    unreadable_by_libsndfile,
)
from hearback.engine.audio.level import find_excess, find_silence
from hearback.engine.audio.libsndfile import (
    describe,
    is_unknown_codec,
    is_unknown_format,
    open_sound,
    read_blocks,
)
from hearback.engine.audio.mixdown import Mixdown, NotFiniteError, mix
from hearback.engine.audio.mpeg import is_no_mpeg
from hearback.engine.audio.notes import (
    SHORTEST_SOUND_SECONDS,
    BreakNote,
    CutNote,
    LossNote,
    OriginalLength,
    break_note,
    channel_notes,
    resampling_note,
)
from hearback.engine.audio.other_containers import find_other_parts
from hearback.engine.audio.other_decoders import (
    AvModule,
    Damage,
    OtherDecoderError,
    converted_by_ffmpeg,
    find_ffmpeg,
    load_av,
    open_with_av,
)
from hearback.engine.data.problems import count_noun
from hearback.engine.errors import HearbackError
from hearback.engine.io import open_file

SAMPLE_RATE = 16_000  # Hz, Whisper's

# Longer recordings are cut, unless more is asked for. In training a window is 16 s; sped up (by at
# most 1.3 and 1.15) it is filled from the first 24 s. At inference it is up to 30 s.
KEPT_SECONDS = 30.0

# Telephones have 8 kHz, and no device records speech above 384 kHz. A header with another rate is
# damaged: resampling "one second at 2 GHz" would need the memory of a day of audio.
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz

# Increase it when decode() returns other samples or notes than before, or refuses other recordings,
# so that existing stores are built again.
VERSION = 7

# An MP3's first frame is a delay of the decoder, and its last may be padding: a recording this much
# shorter than its frames is whole.
_PADDING_SECONDS = 0.2

# No file of any format is shorter: it is cut.
_FEWEST_BYTES = 16
_CURE_ACCESS = "look whether the file can be opened there, or copy it to another disk"
_CURE_CUT = "copy it again, or record it again"
# The same for all kinds: a report says it once. PyAV's versions are those of pyproject.toml.
_CURE_OTHER = (
    "install PyAV (`pip install 'av>=14,<19'`) or ffmpeg here; or convert it, "
    "`ffmpeg -i FILE -ar 16000 -ac 1 NEW.wav`, and use NEW.wav in its place"
)


@dataclass(frozen=True)
class Recording:
    """A decoded recording, and notes on its conversion."""

    waveform: np.ndarray  # (n,), float32, mono, at the requested rate; full scale is 1.0
    notes: tuple[str, ...]  # e.g. "2 channels, averaged", "44.1 kHz, resampled to 16 kHz"


class UnreadableAudioError(HearbackError, ValueError):
    """A recording that cannot be used; the message completes a sentence about it.

    `cure` tells what to do, where that is known from what is in the file. `subject` is what the
    sentence is about, "the recording" or "the file". `kind` is "unreadable",
    "silent", "too_short", or "too_long" if no sound is in the seconds that are read. `seconds` is
    the length of one that was read to its end; None if it is unknown.
    """

    def __init__(
        self,
        what: str,
        cure: str | None = None,
        kind: str = "unreadable",
        seconds: float | None = None,
    ) -> None:
        super().__init__(what)
        self.cure = cure
        self.kind = kind
        self.seconds = seconds
        self.subject = "the recording"


@dataclass
class _Sound:
    """What has been decoded of a file."""

    mono: np.ndarray  # (n,), float32
    sample_rate: int
    seconds: float  # of all there is, as far as it is known
    notes: list[str] = field(default_factory=list)
    is_longer: bool = False  # by an unknown time
    original: OriginalLength | None = None  # if only a part of it is kept
    is_float: bool = False  # the file's samples are floating point


def decode(
    path: Path, sample_rate: int = SAMPLE_RATE, *, kept_seconds: float = KEPT_SECONDS
) -> Recording:
    """Decode an audio file in any format of libsndfile (WAV, FLAC, MP3, Ogg Opus, ...).

    Other formats (M4A, WebM, AMR, ...) are decoded where PyAV, or the command ffmpeg, is there.
    Only the first `kept_seconds` are read. Channels are averaged, or if they cancel each other, one
    is used; and the result is resampled to `sample_rate` in Hz. Recordings that were appended to
    each other in one file are joined.

    Raises UnreadableAudioError if the file is missing or unreadable, or if its content cannot be
    speech: no samples, NaN or infinite samples, too short, silent, far over full scale, or an
    impossible sample rate. Opens no other file than this one.
    """
    sound = _read(path, kept_seconds)
    mono, own_rate, notes = sound.mono, sound.sample_rate, sound.notes
    broken = next((note for note in notes if isinstance(note, BreakNote)), None)
    seconds = len(mono) / own_rate if sound.original is None else None
    if len(mono) < SHORTEST_SOUND_SECONDS * own_rate:
        if broken:
            raise UnreadableAudioError(broken, _CURE_CUT)
        raise UnreadableAudioError(
            f"is shorter than {SHORTEST_SOUND_SECONDS:g} s", None, "too_short", seconds
        )
    if silence := find_silence(mono, sound.original, kept_seconds):
        if broken:
            raise UnreadableAudioError(f"{broken}; what is there is silent", _CURE_CUT)
        raise UnreadableAudioError(*silence, seconds=seconds)
    if excess := find_excess(mono, sound.is_float):
        raise UnreadableAudioError(*excess, seconds=seconds)
    if own_rate != sample_rate:
        # soxr's filter ends just below the lower of the two Nyquist frequencies; linear
        # interpolation or a short filter would alias the band above 8 kHz of a 44.1 kHz recording
        # into the speech. It takes a small part of the decoding time, and librosa uses it too.
        mono = soxr.resample(mono, own_rate, sample_rate, quality="HQ")
        notes.append(resampling_note(own_rate, sample_rate))
    return Recording(mono, tuple(notes))


def _read(path: Path, kept_seconds: float) -> _Sound:
    """Return an audio file's first seconds."""
    try:
        if not path.is_file():
            raise UnreadableAudioError("is not a file" if path.exists() else "is missing")
        n_bytes = path.stat().st_size
        if n_bytes == 0:
            raise UnreadableAudioError("is empty: 0 bytes")
        # Opened here: given a name, libsndfile also opens related files (a Mac's resource forks,
        # "._a.wav"), follows links with such names, and interprets some suffixes.
        with open_file(path) as content:
            head = content.read(HEAD_BYTES)
            kind = unreadable_by_libsndfile(head)
            if n_bytes < _FEWEST_BYTES and (kind is None or other_codec(head)):
                only = count_noun(n_bytes, "byte")
                raise UnreadableAudioError(f"is cut: the file has only {only}", _CURE_CUT)
            if kind is None and is_no_mpeg(content, n_bytes):
                kind = UNKNOWN_KIND
            if kind is not None:
                return _read_other(path, content, kind, kept_seconds)
            parts = find_parts(content, n_bytes, kept_seconds)
            try:
                return _read_parts(parts, _read_part, kept_seconds)
            except soundfile.LibsndfileError as error:
                kind = other_codec(head)
                if kind and is_unknown_codec(error):
                    return _read_other(path, content, kind, kept_seconds)
                if is_unknown_format(error):
                    return _read_other(path, content, UNKNOWN_KIND, kept_seconds)
                what = f"is {name_of(head)} that is unreadable: {describe(error, parts[0].cut)}"
                raise UnreadableAudioError(what, _CURE_CUT) from error
    except OSError as error:
        # str(OSError) contains the path, which the report already names.
        reason = error.strerror or error
        raise UnreadableAudioError(f"is unreadable: {reason}", _CURE_ACCESS) from error


def _read_parts(
    parts: list[Part], read: Callable[[Part, float], _Sound], kept_seconds: float
) -> _Sound:
    """Return the first seconds of a file's parts, one after the other, as `read` returns each."""
    sound: _Sound | None = None
    n_read = 0
    for part in parts:
        if sound is not None and sound.seconds > kept_seconds:
            break
        try:
            found = read(part, kept_seconds)
        except (soundfile.LibsndfileError, OtherDecoderError, UnreadableAudioError) as error:
            if sound is None:
                raise
            is_own = not isinstance(error, soundfile.LibsndfileError)
            reason = error if is_own else describe(error, part.cut)
            which = f"recording {n_read + 1} of {len(parts)} in the file"
            sound.notes.append(LossNote(f"{which}: {reason}"))
            continue
        finally:
            n_read += 1
        sound = found if sound is None else _join(sound, found)
    assert sound is not None
    if len(parts) > 1:
        sound.notes.insert(0, f"{len(parts)} recordings one after the other in the file, joined")
    return _cut_to_kept(sound, kept_seconds, is_more=n_read < len(parts))


def _join(first: _Sound, second: _Sound) -> _Sound:
    """Return a sound at the first one's sample rate."""
    mono = second.mono
    if second.sample_rate != first.sample_rate:
        mono = soxr.resample(mono, second.sample_rate, first.sample_rate, quality="HQ")
    notes = [*first.notes, *(note for note in second.notes if note not in first.notes)]
    mono = np.concatenate([first.mono, mono])
    seconds = first.seconds + second.seconds
    is_longer, is_float = second.is_longer, first.is_float or second.is_float
    return _Sound(mono, first.sample_rate, seconds, notes, is_longer, is_float=is_float)


def _cut_to_kept(sound: _Sound, kept_seconds: float, is_more: bool = False) -> _Sound:
    n_kept = round(kept_seconds * sound.sample_rate)
    is_more = is_more or sound.is_longer
    if is_more or sound.seconds * sound.sample_rate > n_kept + 0.5:
        sound.original = OriginalLength(sound.seconds, is_more)
        sound.notes.insert(0, CutNote(sound.original, kept_seconds))
    sound.mono = sound.mono[:n_kept]
    return sound


def _read_part(part: Part, kept_seconds: float) -> _Sound:
    """Return the first seconds of a part that libsndfile reads, and notes."""
    try:
        return _read_with_libsndfile(part, kept_seconds)
    except soundfile.LibsndfileError:
        other = mended(part)
        if other is None:
            raise
        return _read_with_libsndfile(other, kept_seconds)


def _read_with_libsndfile(part: Part, kept_seconds: float) -> _Sound:
    with open_sound(part.content) as file:
        sample_rate, n_told = file.samplerate, file.frames
        _check_rate(sample_rate)
        n_kept = round(kept_seconds * sample_rate)
        n_wanted = min(n_told, n_kept)
        mixdown = _mix(read_blocks(file, n_wanted), file.channels)
        is_float = file.subtype in ("FLOAT", "DOUBLE")
        share = missing_share(file.extra_info)
        is_missing, n_missing = share > 0, share * n_told  # samples
    n_read = len(mixdown.mono)
    if n_read == 0 and (cut := part.cut or (HEADER_HAS_MORE if is_missing else None)):
        raise UnreadableAudioError(f"has no samples: {cut}", _CURE_CUT)
    if n_read == 0:
        raise UnreadableAudioError("is empty: no samples", kind="too_short")
    if mixdown.better_channel is not None:
        with open_sound(part.content) as file:
            mono = _mix(read_blocks(file, n_wanted), file.channels, mixdown.better_channel).mono
        mixdown.mono = mono
    is_short, seconds = n_read < n_wanted, n_read / sample_rate
    if is_short and not part.is_estimated:
        n_missing += n_wanted - n_read
    cut = part.cut or (HEADER_HAS_MORE if n_missing else None)
    missing_seconds = part.missing_seconds if part.cut else n_missing / sample_rate
    notes: list[str] = []
    if cut and n_read < n_kept:
        notes.append(break_note(seconds, cut, missing_seconds))
    notes += [*part.notes, *channel_notes(mixdown)]
    if not is_short:  # there may be more than is kept
        seconds = max(seconds, part.seconds or n_told / sample_rate)
    return _Sound(mixdown.mono, sample_rate, seconds, notes, is_float=is_float)


def _mix(blocks: Iterator[np.ndarray], n_channels: int, channel: int | None = None) -> Mixdown:
    try:
        return mix(blocks, n_channels, channel)
    except NotFiniteError:
        raise UnreadableAudioError("has NaN or infinite samples") from None


def _read_other(path: Path, content: BinaryIO, kind: FileKind, kept_seconds: float) -> _Sound:
    """Return the first seconds of a file that libsndfile does not read."""
    if kind.demuxer is None:
        error = UnreadableAudioError(f"is {kind.name}", kind.cure)
        error.subject = "the file"  # it is no recording
        raise error
    demuxer, av, ffmpeg = kind.demuxer, load_av(), find_ffmpeg()
    parts = find_other_parts(content, content.seek(0, 2), demuxer)
    try:
        if av is not None:
            return _read_parts(parts, partial(_read_with_av, av, demuxer), kept_seconds)
        if ffmpeg is not None:
            return _read_with_ffmpeg(ffmpeg, path, demuxer, parts, kept_seconds)
    except OtherDecoderError as error:
        what = f"is {kind.name} that is unreadable: {parts[0].cut or error}"
        raise UnreadableAudioError(what, _CURE_CUT) from error
    raise UnreadableAudioError(f"is {kind.name}, which needs PyAV or ffmpeg", _CURE_OTHER)


def _read_with_ffmpeg(
    ffmpeg: str, path: Path, demuxer: str, parts: list[Part], kept_seconds: float
) -> _Sound:
    with converted_by_ffmpeg(ffmpeg, path, demuxer, kept_seconds + 1) as (wav, is_damaged):
        sound = _read_parts([Part(wav, parts[-1].cut)], _read_part, kept_seconds)
    if len(parts) > 1:
        note = f"{len(parts)} recordings one after the other in the file, perhaps not all are read"
        sound.notes.insert(0, LossNote(note))
    if is_damaged:
        sound.notes.insert(0, LossNote("damaged, as ffmpeg reports"))
    return sound


def _read_with_av(av: AvModule, demuxer: str, part: Part, kept_seconds: float) -> _Sound:
    with open_with_av(av, part.content, demuxer) as other:
        sample_rate, n_tracks = other.sample_rate, other.n_tracks
        _check_rate(sample_rate)
        n_wanted = round(kept_seconds * sample_rate)
        mixdown = _mix(_first(other.blocks, n_wanted + 1), other.n_channels)
        told, damage = other.seconds, other.damage
    if mixdown.better_channel is not None:
        with open_with_av(av, part.content, demuxer) as other:
            blocks = _first(other.blocks, n_wanted + 1)
            mixdown.mono = _mix(blocks, other.n_channels, mixdown.better_channel).mono
    n_read = len(mixdown.mono)
    seconds = n_read / sample_rate
    cut = part.cut or _find_cut(told, damage, seconds, kept_seconds)
    notes = channel_notes(mixdown)
    if n_tracks > 1:
        notes.append(f"{n_tracks} sound tracks, only the first is used")
    if cut and n_read < n_wanted:
        notes.insert(0, break_note(seconds, cut))
    elif damage.n_packets:
        notes.append(LossNote(count_noun(damage.n_packets, "damaged packet")))
    is_longer = n_read > n_wanted and told is None
    return _Sound(mixdown.mono, sample_rate, max(told or 0.0, seconds), notes, is_longer)


def _find_cut(
    told: float | None, damage: Damage, seconds: float, kept_seconds: float
) -> str | None:
    """Return why a sound of some `seconds` breaks off, if it does; its header `told` its length."""
    if told is not None and seconds < min(told, kept_seconds) - _PADDING_SECONDS:
        return HEADER_HAS_MORE
    return "its last packet is damaged" if damage.is_at_end else None


def _first(blocks: Iterator[np.ndarray], n_samples: int) -> Iterator[np.ndarray]:
    """Yield blocks up to a number of samples."""
    while n_samples > 0 and (block := next(blocks, None)) is not None:
        yield block[:n_samples]
        n_samples -= len(block)


def _check_rate(sample_rate: int) -> None:
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise UnreadableAudioError(f"has an invalid sample rate: {sample_rate} Hz")
