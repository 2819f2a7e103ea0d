"""Render expected texts to a folder of references with one voice, in several processes.

A recording is either complete or missing, so the next run resumes a killed one. Each process opens
its own copy of the voice; the audio does not depend on the number of processes.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.level import SILENCE_DBFS
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.engine.locks import write_lock
from hearback.engine.machine import count_processors
from hearback.reading.references import (
    INDEX,
    VOICE,
    BadReferencesError,
    VoiceRecord,
    count_samples,
    is_complete,
    read_index,
    read_voice_record,
    reference_id,
    write_index,
)
from hearback.reading.voices.base import RenderError, Voice, VoiceError

EDGE_SECONDS = 0.1  # of silence kept before and after the words
EDGE_DB = -40.0  # relative to the peak: the silence threshold at the edges
MIN_TEXTS_PER_PROCESS = 16  # with fewer, starting a process takes longer than rendering
_SHOWN_CHARACTERS = 40  # of a setting in an error message


class VoiceMismatchError(HearbackError, ValueError):
    """The folder has references in another voice."""


class UnrenderedTextsError(HearbackError):
    """Texts that the voice cannot speak; all other texts are rendered.

    `failures` maps each text to the reason; `n_rendered` is the number of texts rendered.
    """

    def __init__(self, failures: Mapping[str, str], n_rendered: int) -> None:
        lines = [f"  {text!r}: {why}" for text, why in failures.items()]
        what = "text" if len(failures) == 1 else "texts"
        super().__init__("\n".join([f"no reference for {len(failures)} {what}:", *lines]))
        self.failures = dict(failures)
        self.n_rendered = n_rendered


def render_missing(
    texts: Iterable[str],
    voice: Voice,
    folder: Path,
    *,
    progress: bool = True,
    jobs: int | None = None,
) -> int:
    """Render the texts that have no reference in `folder` yet, and return their number.

    `jobs` is the maximum number of processes (default: one per processor). With two or more, the
    calling script must be importable without side effects, as `multiprocessing` requires.

    Raises VoiceMismatchError, before anything is written, if the folder has references in another
    voice; UnrenderedTextsError, after all other texts are rendered, if the voice cannot speak some
    of them; VoiceError if the voice has failed, or if a process was killed. In each case the index
    lists the recordings on disk.
    """
    texts_by_id = _by_id(texts)
    if _has_all(texts_by_id, voice, folder):  # nothing to write, perhaps on a read-only disk
        return 0
    cure = "some texts have no complete reference there: choose a writable folder with --tts_data"
    # A second process that renders into the same folder waits here.
    with write_lock(folder / ".lock", cure):
        _write_or_check_voice(folder, voice)
        for unfinished in folder.glob(".*.wav"):  # left by a killed run
            unfinished.unlink()
        index = read_index(folder)
        # Recordings on disk count even if unlisted: a killed run has written no index.
        paths = {id_: folder / f"{id_}.wav" for id_ in texts_by_id}
        missing = {
            text: paths[id_]
            for id_, text in texts_by_id.items()
            if not is_complete(text, index) and count_samples(paths[id_]) is None
        }
        reasons: dict[str, str | None] = {}
        hidden = not (progress and missing)
        try:
            with tqdm(total=len(missing), desc="rendering", unit="text", disable=hidden) as bar:
                for text, reason in _render_all(missing, voice, _n_processes(missing, jobs)):
                    reasons[text] = reason
                    bar.update()
        finally:
            # Requested texts come first: the index does not depend on the number of runs.
            requested = {
                text: index[text] if is_complete(text, index) else paths[id_]
                for id_, text in texts_by_id.items()
            }
            rest = {text: path for text, path in index.items() if text not in requested}
            write_index(folder, requested | rest)
    if failures := {text: reason for text in missing if (reason := reasons[text]) is not None}:
        raise UnrenderedTextsError(failures, len(missing) - len(failures))
    return len(missing)


def _has_all(texts_by_id: Mapping[str, str], voice: Voice, folder: Path) -> bool:
    """Return whether a folder has the references of all texts, and nothing is left to write.

    Raises VoiceMismatchError if they are in another voice.
    """
    if not (folder / VOICE).is_file() or not (folder / INDEX).is_file():
        return False
    _write_or_check_voice(folder, voice)
    index, texts = read_index(folder), list(texts_by_id.values())
    # The requested texts come first in an index, and a killed run leaves unfinished recordings.
    return (
        list(index)[: len(texts)] == texts
        and all(is_complete(text, index) for text in index)
        and not any(folder.glob(".*.wav"))
    )


def _n_processes(missing: Mapping[str, Path], jobs: int | None) -> int:
    return min(jobs or count_processors(), len(missing) // MIN_TEXTS_PER_PROCESS)


def _render_all(
    paths: Mapping[str, Path], voice: Voice, n_processes: int
) -> Iterator[tuple[str, str | None]]:
    """Render each text to its path; yield (text, None), or (text, reason) on failure.

    With two processes or more the order is arbitrary.
    """
    if n_processes < 2:
        for text, path in paths.items():
            yield text, _render(text, voice, path)
        return
    # Spawned, not forked: this process may hold threads and a GPU.
    pool = ProcessPoolExecutor(
        n_processes,
        multiprocessing.get_context("spawn"),
        _prepare_process,
        (pickle.dumps(voice),),  # as bytes, so that an error on opening it belongs to a text
    )
    try:
        futures = {pool.submit(_render_in_process, *item): item[0] for item in paths.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise VoiceError(
            f"one of the {n_processes} rendering processes was killed, perhaps for lack of memory; "
            "run the command again to resume, or with fewer processes (--jobs)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _render(text: str, voice: Voice, path: Path) -> str | None:
    """Write the reference of `text`; return the reason if the voice cannot speak it."""
    try:
        write_wav(path, _speak(text, voice), SAMPLE_RATE)
    except RenderError as error:
        return str(error)
    return None


class _Process:
    """The state of a rendering process: its voice, pickled and opened."""

    pickled: bytes
    voice: Voice | None = None


def _prepare_process(pickled_voice: bytes) -> None:
    _Process.pickled = pickled_voice
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends it after this text

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)  # the parent was killed; no further text will come

    threading.Thread(target=end_with_parent, daemon=True).start()


def _render_in_process(text: str, path: Path) -> str | None:
    # Open the voice with the first text: errors in the initializer would not reach the parent.
    if _Process.voice is None:
        _Process.voice = pickle.loads(_Process.pickled)
    return _render(text, _Process.voice, path)


def _by_id(texts: Iterable[str]) -> dict[str, str]:
    """Return id -> text, without duplicates."""
    by_id: dict[str, str] = {}
    for text in texts:
        other = by_id.setdefault(reference_id(text), text)
        if other != text:
            raise HearbackError(
                f"{text!r} and {other!r} have the same id {reference_id(text)}; change one of them"
            )
    return by_id


def has_words(text: str) -> bool:
    """Return whether a text contains a letter or a digit; a voice cannot speak other texts."""
    return any(character.isalnum() for character in text)


def _speak(text: str, voice: Voice) -> NDArray[np.float32]:
    """Return the spoken text, shape (n,), 16 kHz. Raises RenderError if it is silent."""
    if not has_words(text):
        raise RenderError("it has no letter and no digit")
    waveform = voice.render(text)
    if waveform.size == 0:
        raise RenderError("the voice gave no audio")
    if not np.isfinite(waveform).all():
        raise RenderError("the voice gave NaN or infinite samples")
    if np.abs(waveform).max() < 10 ** (SILENCE_DBFS / 20):
        raise RenderError("the voice gave silence")
    return trim_edges(soxr.resample(waveform, voice.sample_rate, SAMPLE_RATE, quality="HQ"))


def trim_edges(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Trim leading and trailing silence to `EDGE_SECONDS`; (n,) at 16 kHz.

    A third of hibari's output is such silence, which would take up space in every model's window.
    """
    loud = np.flatnonzero(np.abs(waveform) > np.abs(waveform).max() * 10 ** (EDGE_DB / 20))
    edge = round(EDGE_SECONDS * SAMPLE_RATE)
    return waveform[max(0, loud[0] - edge) : loud[-1] + 1 + edge]


def voice_record(voice: Voice) -> VoiceRecord:
    """Return the content of `voice.json` for references rendered with `voice`."""
    stored = {"stored_sample_rate": SAMPLE_RATE, "edge_seconds": EDGE_SECONDS}
    return {**voice.describe(), **stored}


def _write_or_check_voice(folder: Path, voice: Voice) -> None:
    """Write `voice.json` if it is missing; raise VoiceMismatchError if it lists another voice."""
    requested = voice_record(voice)
    if not (folder / VOICE).is_file():
        if (folder / INDEX).is_file():
            raise BadReferencesError(
                f"{folder}: has references but no {VOICE}; render into another folder "
                "(--tts_data), or delete this one"
            )
        write_json(folder / VOICE, requested)
        return
    present = read_voice_record(folder)
    differing = [key for key in {**present, **requested} if present.get(key) != requested.get(key)]
    if differing:
        lines = [
            f"  {key}: {_shorten(present.get(key))} there, {_shorten(requested.get(key))} requested"
            for key in differing
        ]
        raise VoiceMismatchError(
            "\n".join(
                [
                    f"{folder}: its references are by another voice, and a project has one voice:",
                    *lines,
                    "Use that voice, render into another folder (--tts_data), or delete this one.",
                ]
            )
        )


def _shorten(value: str | float | None) -> str:
    shown = "nothing" if value is None else str(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:12]}…"
