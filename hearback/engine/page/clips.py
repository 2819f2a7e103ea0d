"""Which recordings a page plays, and their sound as MP3."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from hearback.engine.audio.decode import (
    KEPT_SECONDS,
    SAMPLE_RATE,
    Recording,
    UnreadableAudioError,
    decode,
)
from hearback.engine.data.paths import containing
from hearback.engine.io import atomic_write
from hearback.engine.machine import count_processors
from hearback.engine.page.content import Clip
from hearback.engine.page.flags import EVERY, NO

N_FIRST, N_RANDOM = 150, 50  # recordings that `SOME` plays: the first of the order, and others
MAX_BYTES = 10_000_000  # of the clips of `SOME`, as base64
MAX_BYTES_INSIDE = 75_000_000  # of clips in the page itself; beyond, they are scripts beside it
_N_AT_ONCE = 64  # recordings whose sound is in memory
_SCRIPT_BYTES = 4_000_000  # of one script
_CALL = "hearback.addClips("  # how a script begins


class Sound(NamedTuple):
    """Waveforms of a recording and of its reference, (samples,) float32 at 16 kHz, or None."""

    learner: np.ndarray | None
    reference: np.ndarray | None = None


# Is called with the sounds of some recordings by their index.
Annotator = Callable[[Mapping[int, Sound]], None]


@dataclass(frozen=True)
class Clips:
    """The clips by the index of the recording, and how many did not fit in."""

    by_index: Mapping[int, Clip]
    n_left_out: int = 0


def decode_if_possible(
    folder: Path, filename: str, kept_seconds: float = KEPT_SECONDS
) -> Recording | None:
    """Decode a recording, of which the first `kept_seconds` count; None if it cannot be read.

    A filename that leads out of the folder is not read: a page may be passed on.
    """
    path = containing(folder, follow_links=True)(filename)
    try:
        return decode(path, kept_seconds=kept_seconds) if path and path.is_file() else None
    except UnreadableAudioError:
        return None


def read_lengths(folder: Path, filenames: Sequence[str]) -> list[float | None]:
    """Return the lengths of recordings in seconds, by their headers; None where unknown.

    A filename that leads out of the folder is not read.
    """
    contained = containing(folder, follow_links=True)

    def read(filename: str) -> float | None:
        path = contained(filename)
        try:
            return float(soundfile.info(path).duration) if path and path.is_file() else None
        except soundfile.LibsndfileError:
            return None

    with ThreadPoolExecutor(count_processors()) as threads:
        return list(threads.map(read, filenames))


def choose(
    order: Sequence[int], always: Sequence[int], how: str, rng: np.random.Generator
) -> list[int]:
    """Return the indices of the recordings to play, the most important first.

    Args:
        order: the others, the most interesting first: by loss, or by doubt.
        always: recordings without a score.
        how: one of `flags.AUDIO`.
        rng: draws the random ones.
    """
    if how == NO:
        return []
    chosen = [*always, *order]
    if how == EVERY:
        return chosen
    n_first = len(always) + N_FIRST
    first, rest = chosen[:n_first], chosen[n_first:]
    drawn = rng.permutation(len(rest))[:N_RANDOM]
    return first + [rest[index] for index in sorted(drawn.tolist())]


def encode(
    indices: Sequence[int],
    sound_of: Callable[[int], Sound],
    max_bytes: float = float("inf"),
    progress: str | None = None,
    annotator: Annotator | None = None,
) -> Clips:
    """Encode recordings in their order; those that exceed `max_bytes` of base64 are left out.

    `progress` is the description of a bar. `annotator` is called with the sounds, before they are
    encoded: each recording is decoded once, and `_N_AT_ONCE` of them are in memory.
    """
    clips: dict[int, Clip] = {}
    n_bytes = n_silent = 0
    # Decoders and encoders release the interpreter's lock.
    with (
        ThreadPoolExecutor(count_processors()) as threads,
        tqdm(
            total=len(indices),
            desc=progress,
            unit="clip",
            disable=progress is None or not indices,
        ) as bar,
    ):
        for start in range(0, len(indices), _N_AT_ONCE):
            chunk = indices[start : start + _N_AT_ONCE]
            sounds = dict(zip(chunk, threads.map(sound_of, chunk), strict=True))
            if annotator is not None:
                annotator(sounds)
            for index, clip in zip(chunk, threads.map(_encode, sounds.values()), strict=True):
                bar.update()
                if clip is None:
                    n_silent += 1
                elif n_bytes + clip.n_bytes <= max_bytes:
                    clips[index] = clip
                    n_bytes += clip.n_bytes
    return Clips(clips, len(indices) - len(clips) - n_silent)


def _encode(sound: Sound) -> Clip | None:
    """Return the clip of a sound; None if there is nothing to hear of the learner."""
    if sound.learner is None:
        return None
    return Clip(*("" if x is None else encode_mp3(x) for x in sound))


def encode_mp3(waveform: np.ndarray) -> str:
    """Return a waveform, (samples,) float32 at 16 kHz, as an MP3 file in base64.

    About 43 kbit/s. Every browser plays MP3, without an offset in time; Opus of a third less takes
    libsndfile six times as long.
    """
    file = BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), SAMPLE_RATE, format="MP3")
    return base64.b64encode(file.getvalue()).decode()


def n_bytes_of(clips: Mapping[int, Clip]) -> int:
    """Return the size of clips in a page, in bytes."""
    return sum(clip.n_bytes for clip in clips.values())


def key_of(clips: Mapping[int, Clip], filenames: Sequence[str]) -> str:
    """Return a digest of clips and of their recordings: that of the scripts of one page only."""
    digest = hashlib.sha256(json.dumps(list(filenames)).encode())
    for index, clip in sorted(clips.items()):
        digest.update(f"{index} {clip.learner} {clip.reference}".encode())
    return digest.hexdigest()[:16]


def write_scripts(clips: Mapping[int, Clip], page: Path, key: str) -> dict[str, list[int]]:
    """Write clips as scripts to the folder `<page>_clips` beside a page; see `Page.clip_scripts`.

    The folder of an earlier page of that name is replaced. `key` is `Page.clip_key`: a copy of an
    earlier page must not play the new recordings under the names of its own.
    """
    folder = clips_folder(page)
    remove_scripts(page)
    scripts: dict[str, list[int]] = {}
    part: dict[int, Clip] = {}

    def write_part() -> None:
        path = folder / f"{len(scripts):04d}.js"
        content = json.dumps({str(index): clip.__dict__ for index, clip in part.items()})
        with atomic_write(path) as temporary:
            temporary.write_text(f'{_CALL}"{key}", {content});\n', encoding="utf-8")
        scripts[f"{folder.name}/{path.name}"] = list(part)
        part.clear()

    for index, clip in sorted(clips.items()):
        part[index] = clip
        if n_bytes_of(part) > _SCRIPT_BYTES:
            write_part()
    if part:
        write_part()
    return scripts


def clips_folder(page: Path) -> Path:
    """Return the folder beside a page for clips that are too large for it."""
    return page.with_name(f"{page.stem}_clips")


def remove_scripts(page: Path) -> None:
    """Delete the scripts of an earlier page of this name: they would play other recordings."""
    folder = clips_folder(page)
    if folder.is_dir() and all(map(_is_script, folder.iterdir())):
        shutil.rmtree(folder)


def _is_script(path: Path) -> bool:
    """Return whether a file was written by `write_scripts`."""
    if not re.fullmatch(r"[0-9]{4,}\.js", path.name) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_CALL)) == _CALL.encode()
