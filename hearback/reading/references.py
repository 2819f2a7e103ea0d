"""The references: every expected text, spoken once by one voice and kept in a folder.

    tts_data/
      <id>.wav         16 kHz mono, 16 bits; the id follows from the text
      data_paths.csv   path, text
      voice.json       the voice that made them

A recording is there whole or not at all, so a run that was killed is taken up where it ended.
Several processes render at once, each with the voice opened anew; the audio is the same.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import threading
import wave
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import soundfile
import soxr
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from hearback.engine.audio.decode import SAMPLE_RATE, SILENCE_DBFS
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.paths import contained
from hearback.engine.devices import count_processors
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, read_json, sha256_of, write_json
from hearback.reading.voices.base import RenderError, Voice, VoiceError

EDGE_SECONDS = 0.1  # of the silence before and after the words that is kept
EDGE_DB = -40.0  # below the peak: what is quieter is silence there
INDEX = "data_paths.csv"
VOICE = "voice.json"
FEWEST_TEXTS = 16  # of a process: with fewer, to start it takes longer than to render them
_HEADER_BYTES = 44  # of a WAV file with 16-bit samples and nothing else
_SEEN_VALUE = 40  # characters of a setting that an error shows


class BadReferences(HearbackError, ValueError):  # noqa: N818  (the fault is the references')
    """The folder is not one of references, or not a whole one."""


class OtherVoice(HearbackError, ValueError):  # noqa: N818  (it says what is wrong)
    """The folder holds another voice's references."""


class MissingReference(HearbackError, KeyError):  # noqa: N818  (it says what KeyError says)
    """A text without a reference."""

    __str__ = Exception.__str__  # KeyError's own puts the message in quotes


class UnrenderedTexts(HearbackError):  # noqa: N818  (it says what is wrong)
    """Texts that the voice could not say; all others are rendered.

    `failures` is text -> why; `n_rendered` is how many texts were rendered all the same.
    """

    def __init__(self, failures: Mapping[str, str], n_rendered: int) -> None:
        lines = [f"  {text!r}: {why}" for text, why in failures.items()]
        what = "text" if len(failures) == 1 else "texts"
        super().__init__("\n".join([f"no reference for {len(failures)} {what}:", *lines]))
        self.failures = dict(failures)
        self.n_rendered = n_rendered


class References:
    """The references in a folder, read as they are asked for.

    Raises BadReferences if the folder has no index or no voice, or lacks a recording that its
    index lists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / INDEX).is_file() or not (folder / VOICE).is_file():
            raise BadReferences(f"{folder}: no references there; run `python preprocess.py` first")
        self.voice: dict[str, str | float | int] = _read_voice(folder)
        self._paths = _read_index(folder)
        self._n_samples: dict[str, int] = {}
        broken = []
        for text, path in self._paths.items():
            n_samples = _n_samples(path)
            if n_samples is None:
                broken.append(text)
            else:
                self._n_samples[text] = n_samples
        if broken:
            raise BadReferences(
                f"{folder}: {len(broken)} of {len(self._paths)} recordings in {INDEX} are missing "
                f"or not whole, the first that of {broken[0]!r}; run `{self._command()}`"
            )

    @property
    def texts(self) -> list[str]:
        """The texts that have a reference."""
        return list(self._paths)

    def path(self, text: str) -> Path:
        """Return where the reference of `text` lies. Raises MissingReference."""
        try:
            return self._paths[text]
        except KeyError:
            raise MissingReference(
                f"no reference for {text!r} in {self.folder}: run `{self._command()}`"
            ) from None

    def waveform(self, text: str) -> NDArray[np.float32]:
        """Return the reference of `text`, shape (n,), 16 kHz. Raises MissingReference."""
        waveform, _ = soundfile.read(self.path(text), dtype="float32")
        return waveform

    def n_samples(self, text: str) -> int:
        """Return how many samples the reference of `text` has. Raises MissingReference."""
        self.path(text)
        return self._n_samples[text]

    def fingerprint(self, texts: Iterable[str] | None = None) -> str:
        """Return the SHA-256 of the voice and of the references of `texts` (default: of all).

        A training's fingerprint is that of its own texts, so that rendering more changes nothing.
        """
        digest = hashlib.sha256(json.dumps(self.voice, sort_keys=True).encode())
        for text in sorted(set(self._paths if texts is None else texts)):
            digest.update(f"\n{text}\0{sha256_of(self.path(text))}".encode())
        return digest.hexdigest()

    def __contains__(self, text: object) -> bool:
        """Return whether `text` has a reference."""
        return text in self._paths

    def __len__(self) -> int:
        """Return the number of references."""
        return len(self._paths)

    def _command(self) -> str:
        backend, speed = self.voice.get("backend"), self.voice.get("speed")
        return f"python preprocess.py --tts_data {self.folder} --voice {backend} --speed {speed}"


def reference_id(text: str) -> str:
    """Return the text's id: the first 16 hexadecimal digits of its SHA-256, on any machine."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def voice_record(voice: Voice) -> dict[str, str | float | int]:
    """Return what `voice.json` says of references that `voice` makes."""
    stored = {"stored_sample_rate": SAMPLE_RATE, "edge_seconds": EDGE_SECONDS}
    return {**voice.describe(), **stored}


def missing_texts(texts: Iterable[str], folder: Path) -> list[str]:
    """Return, once each and in their order, the texts that have no whole reference in `folder`."""
    paths = _read_index(folder)
    return [text for text in dict.fromkeys(texts) if not _is_listed(text, paths)]


def render_missing(
    texts: Iterable[str],
    voice: Voice,
    folder: Path,
    *,
    progress: bool = True,
    jobs: int | None = None,
) -> int:
    """Render the texts that have no reference in `folder` yet, and return how many those were.

    `jobs` is the number of processes, by default one for each processor; few texts are rendered by
    fewer. A script that has many rendered must be safe to import, as `multiprocessing` asks.
    Raises OtherVoice, before anything is written, if the folder holds another voice's references;
    UnrenderedTexts, when all other texts are rendered, if the voice cannot say some of them;
    VoiceError if it can say none any more, or if a process was killed. In each case the index
    lists what is there.
    """
    wanted = _by_id(texts)
    folder.mkdir(parents=True, exist_ok=True)
    # A second process that renders into the same folder waits here.
    with FileLock(folder / ".lock"):
        _keep_voice(folder, voice)
        for begun in folder.glob(".*.wav"):  # by a run that was killed
            begun.unlink()
        paths = _read_index(folder)
        # What is on disk counts, listed or not: a killed run has written no index.
        made = {id_: folder / f"{id_}.wav" for id_ in wanted}
        missing = {
            id_: text
            for id_, text in wanted.items()
            if not _is_listed(text, paths) and _n_samples(made[id_]) is None
        }
        to_make = {text: made[id_] for id_, text in missing.items()}
        n_processes = min(jobs or count_processors(), len(missing) // FEWEST_TEXTS)
        why_not: dict[str, str | None] = {}
        shown = progress and bool(missing)
        try:
            with tqdm(total=len(missing), desc="rendering", unit="text", disable=not shown) as bar:
                for text, why in _render_all(to_make, voice, n_processes):
                    why_not[text] = why
                    bar.update()
        finally:
            # What is asked for comes first, so that the index is the same however often it took.
            asked = {
                text: paths[text] if _is_listed(text, paths) else made[id_]
                for id_, text in wanted.items()
            }
            _write_index(folder, asked | {t: path for t, path in paths.items() if t not in asked})
    if failures := {text: why for text in to_make if (why := why_not[text]) is not None}:
        raise UnrenderedTexts(failures, len(missing) - len(failures))
    return len(missing)


def _render_all(
    paths: Mapping[str, Path], voice: Voice, n_processes: int
) -> Iterator[tuple[str, str | None]]:
    """Render each text to its path; yield it as it is done, with the reason if it cannot be said.

    With two processes or more the order is any.
    """
    if n_processes < 2:
        for text, path in paths.items():
            yield text, _render(text, voice, path)
        return
    # Spawned, not forked: the process may hold threads and a GPU.
    pool = ProcessPoolExecutor(
        n_processes,
        multiprocessing.get_context("spawn"),
        _prepare_process,
        (pickle.dumps(voice),),  # as bytes, so that an error on opening it is a text's
    )
    try:
        futures = {pool.submit(_render_in_process, *item): item[0] for item in paths.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise VoiceError(
            f"one of the {n_processes} processes that render was killed, perhaps for want of "
            "memory; run it again, it goes on where it was, or with fewer processes (--jobs)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _render(text: str, voice: Voice, path: Path) -> str | None:
    """Write the reference of `text`; return why if the voice cannot say it."""
    try:
        write_wav(path, _spoken(text, voice), SAMPLE_RATE)
    except RenderError as error:
        return str(error)
    return None


class _Process:
    """What a process that renders keeps between two texts: its voice, as it came and opened."""

    pickled: bytes
    voice: Voice | None = None


def _prepare_process(pickled_voice: bytes) -> None:
    _Process.pickled = pickled_voice
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends it after this text

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)  # it was killed; nobody would ever ask for another text

    threading.Thread(target=end_with_parent, daemon=True).start()


def _render_in_process(text: str, path: Path) -> str | None:
    # With the first text, not before: what it raises comes back only from here.
    if _Process.voice is None:
        _Process.voice = pickle.loads(_Process.pickled)
    return _render(text, _Process.voice, path)


def _by_id(texts: Iterable[str]) -> dict[str, str]:
    """Return id -> text, each text once."""
    by_id: dict[str, str] = {}
    for text in texts:
        other = by_id.setdefault(reference_id(text), text)
        if other != text:
            raise HearbackError(
                f"{text!r} and {other!r} have the same id {reference_id(text)}; change one of them"
            )
    return by_id


def _spoken(text: str, voice: Voice) -> NDArray[np.float32]:
    """Return the text spoken, shape (n,), 16 kHz; RenderError if nothing is heard."""
    if not any(character.isalnum() for character in text):
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
    """Cut the silence before and after the words, (n,) at 16 kHz, down to `EDGE_SECONDS`.

    A third of what hibari gives is such silence, and every model would hear it in every window.
    """
    loud = np.flatnonzero(np.abs(waveform) > np.abs(waveform).max() * 10 ** (EDGE_DB / 20))
    edge = round(EDGE_SECONDS * SAMPLE_RATE)
    return waveform[max(0, loud[0] - edge) : loud[-1] + 1 + edge]


def _n_samples(path: Path) -> int | None:
    """Return how many samples a reference has, or None if it is not there, or not whole."""
    try:
        with wave.open(str(path), "rb") as file:
            layout = file.getnchannels(), file.getsampwidth(), file.getframerate()
            n_samples = file.getnframes()
        n_bytes = path.stat().st_size
    except (OSError, EOFError, wave.Error):
        return None
    # The header of a file that was cut short (a copy that broke off) still tells the full length.
    whole = n_samples > 0 and n_bytes >= _HEADER_BYTES + 2 * n_samples
    return n_samples if whole and layout == (1, 2, SAMPLE_RATE) else None


def _is_listed(text: str, paths: Mapping[str, Path]) -> bool:
    return text in paths and _n_samples(paths[text]) is not None


def _read_index(folder: Path) -> dict[str, Path]:
    """Return text -> path as the index has them, nothing if there is no index."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        return _read_rows(folder, path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadReferences(f"{path}: damaged ({error}); delete it and render again") from error


def _read_rows(folder: Path, path: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path", "text"}.issubset(reader.fieldnames or ()):
            raise BadReferences(f"{path}: no columns path and text; delete it and render again")
        for row in reader:
            inside = contained(folder, row["path"]) if row["path"] else None
            if inside is None or not row["text"]:
                where = f"{path}, line {reader.line_num}"
                raise BadReferences(f"{where}: no path inside the folder, or no text")
            paths[row["text"]] = inside
    return paths


def _write_index(folder: Path, paths: Mapping[str, Path]) -> None:
    """List the references that are whole."""
    root = folder.resolve()
    rows = [
        (path.resolve().relative_to(root).as_posix(), text)
        for text, path in paths.items()
        if _n_samples(path) is not None
    ]
    index = folder / INDEX
    with (
        atomic_write(index) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        # Everything in quotes: a text may have a line break, and even a lone carriage return.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("path", "text"), *rows])


def _read_voice(folder: Path) -> dict[str, str | float | int]:
    path = folder / VOICE
    try:
        voice = read_json(path)
    except ValueError as error:
        raise BadReferences(f"{path}: damaged ({error}); render into another folder") from error
    if not isinstance(voice, dict):
        raise BadReferences(f"{path}: damaged (no object); render into another folder")
    return voice


def _keep_voice(folder: Path, voice: Voice) -> None:
    """Write the voice beside its references; OtherVoice if another one made what is there."""
    asked = voice_record(voice)
    if not (folder / VOICE).is_file():
        if (folder / INDEX).is_file():
            raise BadReferences(
                f"{folder}: has references and no {VOICE} that says whose; render into another "
                "folder (--tts_data), or delete this one"
            )
        write_json(folder / VOICE, asked)
        return
    there = _read_voice(folder)
    differing = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    if differing:
        lines = [
            f"  {key}: {_shown(there.get(key))} there, {_shown(asked.get(key))} asked for"
            for key in differing
        ]
        raise OtherVoice(
            "\n".join(
                [
                    f"{folder}: its references are another voice's, and one project has one voice:",
                    *lines,
                    "Ask for the voice that is there, or render into another folder (--tts_data), "
                    "or delete this one.",
                ]
            )
        )


def _shown(value: str | float | None) -> str:
    shown = "nothing" if value is None else str(value)
    return shown if len(shown) <= _SEEN_VALUE else f"{shown[:12]}…"
