"""Reference speech: a folder with a recording of every expected text, all in the same voice.

    tts_data/
      <id>.wav         16 kHz mono, 16 bits; the id is a hash of the text
      data_paths.csv   path, text
      voice.json       the voice and its settings

`hearback.reading.render` writes such a folder; this module reads it.
"""

import csv
import hashlib
import json
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.paths import contained
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, read_json, sha256_of
from hearback.reading import step_command

INDEX = "data_paths.csv"
VOICE = "voice.json"
_HEADER_BYTES = 44  # of a WAV file with 16-bit samples and no extra chunks

VoiceRecord = dict[str, str | float | int]


class BadReferencesError(HearbackError, ValueError):
    """The folder has no references, or is incomplete or damaged."""


class MissingReferenceError(HearbackError, KeyError):
    """A text without a reference."""

    __str__ = Exception.__str__  # KeyError's own puts the message in quotes


class References:
    """The references in a folder, loaded on demand.

    Raises BadReferencesError if the folder has no index or no voice file, or lacks a recording that
    its index lists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / INDEX).is_file() or not (folder / VOICE).is_file():
            raise BadReferencesError(
                f"{folder}: no references there; run `{step_command('preprocess')}` first"
            )
        self.voice: VoiceRecord = read_voice_record(folder)
        self._paths = read_index(folder)
        self._n_samples: dict[str, int] = {}
        broken = []
        for text, path in self._paths.items():
            n_samples = count_samples(path)
            if n_samples is None:
                broken.append(text)
            else:
                self._n_samples[text] = n_samples
        if broken:
            raise BadReferencesError(
                f"{folder}: {len(broken)} of {len(self._paths)} recordings in {INDEX} are missing "
                f"or incomplete, the first that of {broken[0]!r}; run `{self._command()}`"
            )

    @property
    def texts(self) -> list[str]:
        """The texts that have a reference."""
        return list(self._paths)

    def path(self, text: str) -> Path:
        """Return the path of the reference of `text`. Raises MissingReferenceError."""
        try:
            return self._paths[text]
        except KeyError:
            raise MissingReferenceError(
                f"no reference for {text!r} in {self.folder}: run `{self._command()}`"
            ) from None

    def waveform(self, text: str) -> NDArray[np.float32]:
        """Return the reference of `text`, shape (n,), 16 kHz. Raises MissingReferenceError."""
        # Opened here: soundfile encodes a name strictly, which fails where only ASCII is known.
        with self.path(text).open("rb") as file:
            waveform, _ = soundfile.read(file, dtype="float32")
        return waveform

    def n_samples(self, text: str) -> int:
        """Return the number of samples of the reference of `text`. Raises MissingReferenceError."""
        self.path(text)
        return self._n_samples[text]

    def fingerprint(self, texts: Iterable[str] | None = None) -> str:
        """Return the SHA-256 of the voice and of the references of `texts` (default: all).

        A training fingerprints its own texts only, so further references do not change it.
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
        command = step_command("preprocess")
        return f"{command} --tts_data {self.folder} --voice {backend} --speed {speed}"


def reference_id(text: str) -> str:
    """Return the first 16 hexadecimal digits of the text's SHA-256; the same on any machine."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def missing_texts(texts: Iterable[str], folder: Path) -> list[str]:
    """Return the texts without a complete reference in `folder`, unique, in their order."""
    paths = read_index(folder)
    return [text for text in dict.fromkeys(texts) if not is_complete(text, paths)]


def is_complete(text: str, paths: Mapping[str, Path]) -> bool:
    """Return whether the index `paths` lists `text` with a complete recording."""
    return text in paths and count_samples(paths[text]) is not None


def count_samples(path: Path) -> int | None:
    """Return the number of samples of a reference, or None if it is missing or incomplete."""
    try:
        with wave.open(str(path), "rb") as file:
            layout = file.getnchannels(), file.getsampwidth(), file.getframerate()
            n_samples = file.getnframes()
        n_bytes = path.stat().st_size
    except (OSError, EOFError, wave.Error):
        return None
    # The header of a truncated file still has the full length.
    complete = n_samples > 0 and n_bytes >= _HEADER_BYTES + 2 * n_samples
    return n_samples if complete and layout == (1, 2, SAMPLE_RATE) else None


def read_index(folder: Path) -> dict[str, Path]:
    """Return the index, text -> path; empty if there is none. Raises BadReferencesError."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        return _read_rows(folder, path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadReferencesError(
            f"{path}: damaged ({error}); delete it and render again"
        ) from error


def _read_rows(folder: Path, path: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path", "text"}.issubset(reader.fieldnames or ()):
            raise BadReferencesError(
                f"{path}: no columns path and text; delete it and render again"
            )
        for row in reader:
            inside = contained(folder, row["path"]) if row["path"] else None
            if inside is None or not row["text"]:
                where = f"{path}, line {reader.line_num}"
                raise BadReferencesError(f"{where}: no path inside the folder, or no text")
            paths[row["text"]] = inside
    return paths


def write_index(folder: Path, paths: Mapping[str, Path]) -> None:
    """Write the index of the complete references among `paths`, text -> path."""
    root = folder.resolve()
    rows = [
        (path.resolve().relative_to(root).as_posix(), text)
        for text, path in paths.items()
        if count_samples(path) is not None
    ]
    index = folder / INDEX
    with (
        atomic_write(index) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        # Quote everything: a text may have a line break, or a lone carriage return.
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("path", "text"), *rows])


def read_voice_record(folder: Path) -> VoiceRecord:
    """Return the content of `voice.json`. Raises BadReferencesError if it is damaged."""
    path = folder / VOICE
    try:
        record = read_json(path)
    except ValueError as error:
        raise BadReferencesError(
            f"{path}: damaged ({error}); render into another folder"
        ) from error
    if not isinstance(record, dict):
        raise BadReferencesError(f"{path}: damaged (no object); render into another folder")
    return record
