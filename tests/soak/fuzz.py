"""Broken and fuzz input, made of random numbers, and what is promised of it.

A family is a function that makes one input in an empty folder, gives it to the project's readers,
and returns what became of it: "read", "read with a warning" or "refused", after the kind of input.
Where a promise is broken it raises: an AssertionError, or whatever exception a reader let through.
Sounds are synthetic; nothing here is a recording of anybody.
"""

import codecs
import csv
import io
import json
import os
import pickle
import shutil
import socket
import struct
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import soundfile
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from hearback.engine.audio.decode import KEPT_SECONDS, MAX_PEAK, SAMPLE_RATE
from hearback.engine.audio.store import Store
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import write_table
from hearback.engine.ensemble.calibration import Calibration
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.engine.training import checkpoint, fold_files
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.whisper.pretrained import read_config, read_tensors
from hearback.engine.whisper.tokenizer import TextReader
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.evaluation import read_out_of_fold
from hearback.reading.hard_negatives import (
    generate_hard_negatives,
    read_hard_negatives,
    write_hard_negatives,
)
from hearback.reading.models import load
from hearback.reading.models.scorers import build
from hearback.reading.tables import (
    GRADES,
    LONGEST_TEXT,
    TASKS,
    read_labels,
    read_metadata,
    read_submission_format,
)
from train_model2ds import RECIPE as MODEL_2DS

READ, WARNED, REFUSED = "read", "read with a warning", "refused"
LONGEST_MESSAGE = 100_000  # characters
LONGEST_LINE_NUMBER = 20  # characters of a report for each of its problems: it names every row
HEADER = ["filename", "task", "expected_text", "grade"]


@dataclass(frozen=True)
class Outcome:
    """What kind of input it was, and what became of it."""

    kind: str
    result: str


Family = Callable[[np.random.Generator, Path], Outcome]


# Sounds


def speech(rng: np.random.Generator, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return what has the rhythm and the band of speech, (n,) float32: a buzz in syllables."""
    times = np.arange(int(rng.uniform(0.2, 0.8) * sample_rate)) / sample_rate
    pitch = rng.uniform(120, 350) * (1 + 0.1 * np.sin(2 * np.pi * 2 * times))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    buzz = sum(np.sin(n * phase) / n for n in range(1, 8))
    loudness = 0.15 * (1 + np.sin(2 * np.pi * 4 * times))
    return (loudness * buzz + rng.normal(0, 0.003, len(times))).astype(np.float32)


# Container, encoding, suffix, sample rates, most channels.
_ANY_RATE = (8_000, 16_000, 22_050, 44_100, 96_000)
ENCODINGS = (
    ("WAV", "PCM_16", ".wav", _ANY_RATE, 7),
    ("WAV", "PCM_U8", ".wav", _ANY_RATE, 7),
    ("WAV", "PCM_24", ".wav", _ANY_RATE, 7),
    ("WAV", "FLOAT", ".wav", _ANY_RATE, 7),
    ("WAV", "DOUBLE", ".wav", _ANY_RATE, 7),
    ("WAV", "ULAW", ".wav", _ANY_RATE, 2),
    ("WAV", "IMA_ADPCM", ".wav", _ANY_RATE, 2),
    ("WAV", "MS_ADPCM", ".wav", _ANY_RATE, 2),
    ("WAV", "GSM610", ".wav", (8_000,), 1),
    ("WAVEX", "PCM_16", ".wav", _ANY_RATE, 7),
    ("FLAC", "PCM_16", ".flac", _ANY_RATE, 7),
    ("FLAC", "PCM_24", ".flac", _ANY_RATE, 2),
    ("MP3", "MPEG_LAYER_III", ".mp3", (16_000, 44_100), 2),
    ("OGG", "VORBIS", ".ogg", (16_000, 44_100), 2),
    ("OGG", "OPUS", ".opus", (16_000, 48_000), 2),
    ("AIFF", "PCM_16", ".aiff", _ANY_RATE, 2),
    ("AU", "PCM_16", ".au", _ANY_RATE, 2),
    ("W64", "PCM_16", ".w64", _ANY_RATE, 2),
    ("RF64", "PCM_16", ".rf64", _ANY_RATE, 2),
    ("CAF", "ALAC_16", ".caf", _ANY_RATE, 2),
)
N_VOICES = 3


@lru_cache
def encoded(encoding: int, voice: int) -> bytes:
    """Return one of `ENCODINGS`' files, whole: every voice in another rate and channel count."""
    container, subtype, _, rates, most_channels = ENCODINGS[encoding]
    rng = np.random.default_rng([encoding, voice])
    sample_rate = int(rng.choice(rates))
    n_channels = int(rng.integers(1, most_channels + 1))
    sound = speech(rng, sample_rate)
    file = io.BytesIO()
    sounds = np.stack([sound] * n_channels, axis=1)
    soundfile.write(file, sounds, sample_rate, subtype, format=container)
    return file.getvalue()


def whole(rng: np.random.Generator) -> tuple[bytes, str]:
    """Return the bytes of a whole audio file and its suffix."""
    encoding = int(rng.integers(len(ENCODINGS)))
    return encoded(encoding, int(rng.integers(N_VOICES))), ENCODINGS[encoding][2]


# Damage to any file: bytes in, bytes out.


def cut_short(content: bytes, rng: np.random.Generator) -> bytes:
    """Keep the beginning."""
    return content[: rng.integers(len(content) + 1)]


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip up to 64 bits, half of the time all of them near the beginning."""
    flipped = bytearray(content)
    end = len(flipped) if rng.random() < 0.5 else min(len(flipped), 128)
    for place in rng.integers(0, max(end, 1), int(rng.integers(1, 65))):
        if place < len(flipped):
            flipped[place] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """Put the end of another audio file behind the beginning."""
    other, _ = whole(rng)
    return content[: rng.integers(len(content) + 1)] + other[rng.integers(len(other)) :]


def overwrite(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a stretch with zeros, ones or noise, as bad sectors do."""
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    fill = (bytes(end - start), b"\xff" * int(end - start), rng.bytes(end - start))
    return content[:start] + fill[rng.integers(3)] + content[end:]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    """Write a stretch twice."""
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:end] + content[start:]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    cut_short,
    flip_bits,
    splice,
    overwrite,
    repeat,
)

# Damage to audio alone.

_EXTREMES = (0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_WAV_FIELDS = {4: "<I", 16: "<I", 20: "<H", 22: "<H", 24: "<I", 28: "<I", 32: "<H", 34: "<H"}
_WAV_DATA_SIZE = 40
_FLAC_STREAM_INFO = 18  # sample rate (20 bits), channels (3), bits (5), number of samples (36)


def lie_in_the_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Write extreme numbers where a header has sizes, rates and channel counts."""
    lying = bytearray(content)
    if content[:4] == b"RIFF" and content[12:16] == b"fmt " and len(content) > 64:
        fields = {**_WAV_FIELDS, _WAV_DATA_SIZE: "<I"}
        for place in rng.choice(list(fields), size=int(rng.integers(1, 4)), replace=False):
            layout = fields[int(place)]
            value = _EXTREMES[rng.integers(len(_EXTREMES))] & (
                2 ** (8 * struct.calcsize(layout)) - 1
            )
            struct.pack_into(layout, lying, int(place), value)
    elif content[:4] == b"fLaC":
        rate = int(rng.choice([0, 1, 16_000, 655_350, 2**20 - 1]))
        n_samples = int(rng.choice([0, 1, 2**31, 2**31 - 1, 70_000_000, 2**36 - 1]))
        channels, bits = int(rng.integers(8)), int(rng.choice([3, 15, 23, 31]))
        packed = rate << 44 | channels << 41 | bits << 36 | n_samples
        lying[_FLAC_STREAM_INFO : _FLAC_STREAM_INFO + 8] = packed.to_bytes(8, "big")
    else:
        for place in rng.integers(4, 100, int(rng.integers(1, 4))):
            order = "<I" if rng.random() < 0.5 else ">I"
            if place + 4 <= len(lying):
                struct.pack_into(order, lying, place, _EXTREMES[rng.integers(len(_EXTREMES))])
    return bytes(lying)


def no_audio(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return something else altogether."""
    others = (
        b"",
        b"\0" * 10_000,
        b"<html><body>404 Not Found</body></html>\n" * 10,
        b"filename,score\na.wav,1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 160044\n",
        b"PK\x03\x04" + rng.bytes(500),
        pickle.dumps([1, 2, 3]),
        b"RIFF",
        b"OggS",
        b"fLaC",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"\xff\xfb" * 2000,
        rng.bytes(int(rng.integers(1, 5000))),
    )
    return others[rng.integers(len(others))]


def odd_samples(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return a whole file whose samples are none that a microphone gives, or just so."""
    sound = speech(rng).astype(np.float64)
    oddities = (
        np.zeros(8000),
        np.full(8000, 0.3),
        np.where(sound > 0, 1.0, -1.0),
        sound[:1],
        sound[:0],
        sound[:100],
        np.where(np.arange(len(sound)) == 500, np.nan, sound),
        np.where(np.arange(len(sound)) == 500, -np.inf, sound),
        sound * 1e30,
        sound * 1e300,
        sound * 1e-30,
        sound * 32_768,
        np.where(np.arange(len(sound)) % 2, 1e308, -1e308),
    )
    samples = oddities[rng.integers(len(oddities))]
    subtype = ("FLOAT", "DOUBLE")[rng.integers(2)]
    file = io.BytesIO()
    with np.errstate(over="ignore"):  # 1e300 is infinite in single precision
        soundfile.write(file, samples, SAMPLE_RATE, subtype, format="WAV")
    return file.getvalue()


def leave(content: bytes, _rng: np.random.Generator) -> bytes:
    """Leave a file whole."""
    return content


AUDIO_DAMAGES = (*DAMAGES, lie_in_the_header, lie_in_the_header, no_audio, odd_samples, leave)
SUFFIXES = (".wav", ".WAV", ".mp3", ".flac", ".ogg", ".raw", ".sd2", ".vox", ".txt", ".csv", "")


def try_audio(rng: np.random.Generator, folder: Path) -> Outcome:
    """Damage an audio file, now and then under another suffix, and store what it holds."""
    content, suffix = whole(rng)
    damage = AUDIO_DAMAGES[rng.integers(len(AUDIO_DAMAGES))]
    if rng.random() < 0.1:
        suffix = SUFFIXES[rng.integers(len(SUFFIXES))]
    name = f"clip{suffix}"
    data = folder / "data"
    (data / name).write_bytes(damage(content, rng))
    result = store_one(folder, name)
    assert damage is not leave or result != REFUSED, f"{name} is whole, and was refused"
    return Outcome(f"audio: {damage.__name__.replace('_', ' ')}", result)


def store_one(folder: Path, filename: str) -> str:
    """Store the one recording of a table; return what became of it."""
    table = folder / "data" / "train_metadata.csv"
    metadata = pd.DataFrame({"filename": [filename], "line": [2]})
    report = Report()
    store = Store.build(
        metadata,
        folder / "data",
        table,
        folder / "store",
        "train",
        report=report,
        progress=False,
        workers=1,
    )
    check_report(report)
    if filename not in store:
        (problem,) = report.errors
        assert (problem.file, problem.row, problem.filename) == (str(table), 2, filename)
        return REFUSED
    inside = (folder / "data").resolve()
    assert (inside / filename).resolve().is_relative_to(inside), f"{filename!r} was read outside"
    waveform = store.get(filename)
    assert 0 < len(waveform) <= KEPT_SECONDS * SAMPLE_RATE
    assert np.isfinite(waveform).all() and np.abs(waveform).max() <= MAX_PEAK
    assert not report.errors
    return WARNED if report.warnings else READ


def check_report(report: Report) -> None:
    """Assert that every problem is said, with a cure, and not at any length."""
    said = str(report)
    longest = LONGEST_MESSAGE + LONGEST_LINE_NUMBER * len(report.problems)
    assert len(said) < longest, f"a report of {len(said)} characters"
    for problem in report.problems:
        assert problem.what and problem.cure and problem.file
        assert problem.cure in said


# Names and what lies under them


NAMES = (
    "../outside/secret.wav", "x/../../outside/secret.wav", "../../../../../../etc/passwd",
    "/etc/passwd", "/dev/zero", "/proc/self/environ", "//outside/secret.wav",
    "C:\\windows\\win.ini", "c:secret.wav", "..\\outside\\secret.wav", "\\\\server\\share\\a.wav",
    "file:///etc/passwd", "http://127.0.0.1/a.wav", "~/a.wav", "$HOME/a.wav",
    "%2e%2e%2foutside/secret.wav", "a\nb.wav", "a\tb.wav", "a\0b.wav", "\x1b[2Ja.wav", ".", "./",
    "x/", "-rf", "; rm -rf x;.wav", "`touch x`.wav", "$(touch x).wav", "=cmd|' /C calc'!A0",
    "CON", "nul.wav", "a.wav.", "a" * 251 + ".wav", "a" * 252 + ".wav", "é" * 125 + ".wav",
    "é" * 126 + ".wav", "x/" * 200 + "a.wav", "x/" * 3000 + "a.wav", "a" * 100_000, "7", "007",
    "1e3", "NA", "null", "nan", "True", "zoë.wav", unicodedata.normalize("NFD", "zoë.wav"),
    "👶🏽.wav", "\u202egnp.wav", "\u200b.wav", "\ufeff.wav", "\u2028.wav", "ي.wav", "ﬁ.wav",
    "%s%n.wav", "{0}.wav", "a,b.wav", 'a"b.wav', "a;b.wav",
)  # fmt: skip


def put_nothing(_path: Path, _outside: Path) -> None:
    """Leave the name without a file."""


def put_recording(path: Path, _outside: Path) -> None:
    """Put a good recording there."""
    path.write_bytes(encoded(0, 0))


def put_in_the_other_form(path: Path, _outside: Path) -> None:
    """Put a recording there under the name's other Unicode form, as archives from a Mac do."""
    name = path.name
    form: Literal["NFC", "NFD"] = "NFC" if unicodedata.is_normalized("NFD", name) else "NFD"
    path.with_name(unicodedata.normalize(form, name)).write_bytes(encoded(0, 0))


def put_folder(path: Path, _outside: Path) -> None:
    """Put a folder there."""
    path.mkdir()


def put_pipe(path: Path, _outside: Path) -> None:
    """Put a pipe there that nobody writes to."""
    os.mkfifo(path)


def put_socket(path: Path, _outside: Path) -> None:
    """Put a socket there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def put_link_outside(path: Path, outside: Path) -> None:
    """Put a link to a good recording outside of the folder there."""
    path.symlink_to(outside / "secret.wav")


def put_link_inside(path: Path, _outside: Path) -> None:
    """Put a link to a good recording inside of the folder there."""
    path.with_name("inside").write_bytes(encoded(0, 0))
    path.symlink_to("inside")


def put_link_to_device(path: Path, _outside: Path) -> None:
    """Put a link there to what never ends."""
    path.symlink_to("/dev/zero")


def put_link_to_nothing(path: Path, _outside: Path) -> None:
    """Put a link there to what is not there."""
    path.symlink_to("nothing")


def put_link_round(path: Path, _outside: Path) -> None:
    """Put a link there to itself."""
    path.symlink_to(path.name)


def put_links_round(path: Path, _outside: Path) -> None:
    """Put a link there to one that leads back."""
    path.symlink_to("other")
    path.with_name("other").symlink_to(path.name)


CONTENTS = (
    put_nothing, put_recording, put_recording, put_in_the_other_form, put_folder, put_pipe,
    put_socket, put_link_outside, put_link_inside, put_link_to_device, put_link_to_nothing,
    put_link_round, put_links_round,
)  # fmt: skip
FOLDERS = ("", "", "x/", "out/", "loop/")  # the last two are links: outside, and round


def try_name(rng: np.random.Generator, folder: Path) -> Outcome:
    """Name something odd, or by an odd name, in a table, and store what can be read."""
    data, outside = folder / "data", folder / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(encoded(0, 0))
    (data / "x").mkdir()
    (data / "out").symlink_to(outside)
    (data / "loop").symlink_to("loop")
    name = NAMES[rng.integers(len(NAMES))] if rng.random() < 0.6 else "clip.wav"
    put = CONTENTS[rng.integers(len(CONTENTS))]
    within = FOLDERS[rng.integers(len(FOLDERS))]
    name = within + name if name == "clip.wav" else name
    kind = "odd name" if not name.endswith("clip.wav") else put.__name__.replace("_", " ")
    # What cannot lie under this name does not: that is an input too.
    try:
        path = data / name
        if path.parent.resolve().is_relative_to(data.resolve()):
            put(path, outside)
    except (OSError, ValueError, RuntimeError):
        kind += ", not there"
    rows = [HEADER, [name, TASKS[0], "cat", "1"]]
    metadata_path = data / "train_metadata.csv"
    metadata_path.write_bytes(as_csv(rows).encode())
    report = Report()
    metadata = read_metadata(metadata_path, report)
    check_report(report)
    assert len(metadata) == 1
    read_name = metadata["filename"][0]
    assert read_name == name.strip()
    result = store_one(folder, read_name) if read_name else REFUSED
    assert result == REFUSED or not report.errors, f"{name!r} was reported, and read all the same"
    return Outcome(f"names: {kind}", result)


# Tables


def as_csv(rows: list[list[str]]) -> str:
    """Return rows as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return file.getvalue()


ODD_TEXTS = (
    "NA", "null", "nan", "None", "N/A", "true", "1", "1.0", "1e5", "007", "=1+1", "=cmd()",
    "@SUM(A1)", "+1", "-1", "it's", 'said "no"', "one, two", "two\nlines", "two\r\nlines", "a\rb",
    "naïve", unicodedata.normalize("NFD", "naïve"), "İstanbul", "ŉ", "straße", "ＡＢＣ", "ﬁn",
    "café\u200bau\u00a0lait", "\u202eright to left", "שלום", "مرحبا", "你好", "👶🏽 cries", "𝒜",
    "a" + "\u0301" * 100, "<|endoftext|>", "cat <|startoftranscript|> cat", "{0}", "%s", "\\n",
    "a\u2028b", "a\x0bb", "a\x0cb", "a\x85b", "\ufeffcat", "x" * LONGEST_TEXT,
    "'; DROP TABLE x;--",
)  # fmt: skip


def rows_of(rng: np.random.Generator) -> tuple[list[list[str]], list[list[str]]]:
    """Return a metadata table and its labels that are as they should be, odd texts among them."""
    metadata, labels = [HEADER], [["filename", "score"]]
    for number in range(int(rng.integers(1, 24))):
        text = ODD_TEXTS[rng.integers(len(ODD_TEXTS))] if rng.random() < 0.5 else f"word {number}"
        task, grade = TASKS[rng.integers(len(TASKS))], GRADES[rng.integers(len(GRADES))]
        metadata.append([f"{number}.wav", task, text, grade])
        labels.append([f"{number}.wav", ("0", "1", "0.0", "1.0")[rng.integers(4)]])
    return metadata, labels


def byte_order_mark(content: bytes, _rng: np.random.Generator) -> bytes:
    """Begin as spreadsheets do."""
    return b"\xef\xbb\xbf" + content


def windows_line_ends(content: bytes, _rng: np.random.Generator) -> bytes:
    """End lines as Windows does."""
    return content.replace(b"\n", b"\r\n")


def other_delimiter(content: bytes, rng: np.random.Generator) -> bytes:
    """Put something else in the commas' place."""
    return content.replace(b",", (b";", b"\t", b"|", b"", b",,")[rng.integers(5)])


def column_twice(content: bytes, _rng: np.random.Generator) -> bytes:
    """Give the first column twice."""
    return b"\n".join(line.split(b",")[0] + b"," + line for line in content.split(b"\n"))


def many_columns(content: bytes, rng: np.random.Generator) -> bytes:
    """Give a line 100,000 columns, the header or another one."""
    lines = content.split(b"\n")
    lines[rng.integers(2)] += b",x" * 100_000
    return b"\n".join(lines)


def ragged(content: bytes, rng: np.random.Generator) -> bytes:
    """Give some lines other numbers of fields."""
    lines = content.split(b"\n")
    for place in rng.integers(0, len(lines), 3):
        more = rng.random() < 0.5
        lines[place] = lines[place] + b",x" if more else lines[place].rpartition(b",")[0]
    return b"\n".join(lines)


def zero_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Put zero bytes in."""
    for _ in range(int(rng.integers(1, 4))):
        place = rng.integers(len(content) + 1)
        content = content[:place] + b"\0" + content[place:]
    return content


# Looked up here: the soak counts what is imported while an input is read.
_ENCODINGS = tuple(map(codecs.lookup, ("utf-16", "utf-16-le", "utf-32", "latin-1", "ascii")))


def other_encoding(content: bytes, rng: np.random.Generator) -> bytes:
    """Encode otherwise."""
    encoding = _ENCODINGS[rng.integers(len(_ENCODINGS))]
    return encoding.encode(content.decode("utf-8", "replace"), "replace")[0]


def stray_quotes(content: bytes, rng: np.random.Generator) -> bytes:
    """Put quotes in that nobody closes."""
    for _ in range(int(rng.integers(1, 4))):
        place = rng.integers(len(content) + 1)
        content = content[:place] + b'"' + content[place:]
    return content


def quotes_without_end(_content: bytes, rng: np.random.Generator) -> bytes:
    """Write lines each of which opens a quote that the next one closes, and opens another."""
    line = (b'a","\n', b'"a\n', b'""",\n', b'","\n', b'"\n')[rng.integers(5)]
    return b"filename,task,expected_text,grade\n" + line * 40_000


def huge_field(content: bytes, rng: np.random.Generator) -> bytes:
    """Put a megabyte in a field."""
    filler = (b"x", b"word ", "é".encode(), b"?", b" ", b'""')[rng.integers(6)]
    field = filler * (1_000_000 // len(filler))
    field = b'"' + field + b'"' if rng.random() < 0.5 else field
    lines = content.split(b"\n")
    fields = lines[min(1, len(lines) - 1)].split(b",")
    fields[rng.integers(len(fields))] = field
    lines[min(1, len(lines) - 1)] = b",".join(fields)
    return b"\n".join(lines)


def other_file(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return something else altogether."""
    return no_audio(b"", rng) if rng.random() < 0.7 else whole(rng)[0]


def noise(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return what of a table's letters and others comes at random."""
    letters = list(b'filename,score\n\r"; \t\0\xff\xe9\xc3a.wav01')
    return bytes(rng.choice(letters, int(rng.integers(0, 2000))).astype(np.uint8))


TABLE_DAMAGES = (
    cut_short, flip_bits, overwrite, repeat, byte_order_mark, windows_line_ends, other_delimiter,
    column_twice, many_columns, ragged, zero_bytes, other_encoding, stray_quotes,
    quotes_without_end, huge_field, other_file, noise, leave, leave,
)  # fmt: skip
HARMLESS = (leave, byte_order_mark)  # what must be read to the letter all the same


def try_table(rng: np.random.Generator, folder: Path) -> Outcome:
    """Damage a table of the three, read all, and write a submission that is read back."""
    data = folder / "data"
    metadata_rows, label_rows = rows_of(rng)
    contents = {
        "train_metadata.csv": as_csv(metadata_rows),
        "train_labels.csv": as_csv(label_rows),
        "submission_format.csv": as_csv(label_rows[:1] + label_rows[:0:-1]),
    }
    damaged = list(contents)[rng.integers(len(contents))]
    damage = TABLE_DAMAGES[rng.integers(len(TABLE_DAMAGES))]
    for name, content in contents.items():
        written = content.encode()
        (data / name).write_bytes(damage(written, rng) if name == damaged else written)
    report = Report()
    metadata = read_metadata(data / "train_metadata.csv", report)
    labels = read_labels(data / "train_labels.csv", metadata, report)
    listed = read_submission_format(data / "submission_format.csv", metadata, report)
    check_report(report)
    assert list(metadata.columns) == [*HEADER, "line"]
    assert len(labels) == len(metadata) and labels.isin([0.0, 1.0, np.nan]).all()
    assert all(isinstance(name, str) and name for name in listed)
    assert metadata["expected_text"].str.len().max() <= LONGEST_TEXT or not len(metadata)
    if damage in HARMLESS:
        texts = [row[2].strip() for row in metadata_rows[1:]]
        assert metadata["expected_text"].tolist() == texts, "texts were changed"
        assert not report.errors
    result = REFUSED if report.errors else WARNED if report.warnings else READ
    kind = f"tables: {damage.__name__.replace('_', ' ')}"
    if any(problem.file == str(data / "submission_format.csv") for problem in report.errors):
        return Outcome(kind, result)
    submission = pd.DataFrame({"filename": listed, "score": np.full(len(listed), 0.5)})
    write_table(submission, folder / "submission.csv")
    again = read_submission_format(folder / "submission.csv", metadata, Report())
    assert again == listed, "a submission was read back otherwise"
    return Outcome(kind, result)


# Texts


def letters(rng: np.random.Generator) -> str:
    """Return a text of characters from anywhere in Unicode, or an odd one, or several."""
    parts = []
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.5:
            parts.append(ODD_TEXTS[rng.integers(len(ODD_TEXTS))])
        else:
            codes = rng.integers(1, 0x110000, int(rng.integers(1, 12)))
            parts.append("".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000))
    return " ".join(parts)


def by_letter(text: str) -> str:
    """Pronounce each letter as itself, whatever it is."""
    return "".join(filter(str.isalnum, text.casefold()))


@lru_cache
def tokenizer_json() -> bytes:
    """Return a tokenizer of bytes with a Whisper's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"])
    return tokenizer.to_str().encode()


def try_text(rng: np.random.Generator, folder: Path) -> Outcome:
    """Read odd texts as tokens, and make hard negatives of them, there and back."""
    path = folder / "tokenizer.json"
    path.write_bytes(tokenizer_json())
    reader = TextReader(path)
    # As tables give them: without the white space around them, never empty, said in words.
    texts = [text for _ in range(6) if any(map(str.isalnum, text := letters(rng).strip()))]
    for text in texts:
        reading = reader.read(text)
        inside = reading.tokens[len(reader.prompt) : -1]
        assert not set(inside.tolist()) & {*reader.prompt, reader.end}, f"{text!r} commands"
        assert set(reading.words.tolist()) == set(range(len(text.split()) + 1)), f"{text!r}"
    made = generate_hard_negatives(texts, 2, int(rng.integers(100)), by_letter)
    made = {text: several for text, several in made.items() if several}
    for several in made.values():
        for miss in several:
            assert all(0 <= at < len(miss.text.split()) for at in miss.wrong)
    write_hard_negatives(made, folder)
    assert read_hard_negatives(folder) == made
    table = folder / "hard_negatives.csv"
    damage = DAMAGES[rng.integers(len(DAMAGES))]
    table.write_bytes(damage(table.read_bytes(), rng))
    try:
        read_hard_negatives(folder)
    except HearbackError as error:
        check_message(error, table)
        return Outcome("texts: odd texts, and a damaged table of hard negatives", REFUSED)
    return Outcome("texts: odd texts, and a damaged table of hard negatives", READ)


def check_message(error: HearbackError, path: Path) -> None:
    """Assert that an error names the file, or its folder, and is not endless."""
    said = str(error)
    assert str(path) in said or str(path.parent) in said, f"names no file: {said[:300]}"
    assert len(said) < LONGEST_MESSAGE


# Models


class Poison:
    """What runs code when it is unpickled: `take`."""

    taken = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """Tell pickle what to call."""
        return take, ()


def take() -> None:
    """Note that a pickle was read."""
    Poison.taken = True


IDENTITY = {"recipe_fingerprint": "0", "n_folds": 2, "data_fingerprint": "0"}
SHAPE = {
    "d_model": 4,
    "encoder_layers": 1,
    "encoder_attention_heads": 1,
    "encoder_ffn_dim": 4,
    "num_mel_bins": 8,
}
RECIPE = replace(MODEL_2DS, name="modelx")
FILES = {
    "metadata": "assets/modelx_0.json",
    "weights": "assets/modelx_0.safetensors",
    "out-of-fold table": "assets/modelx_0.oof.csv",
    "partial": "assets/modelx_0.partial",
    "configuration": "model_configs.json",
    "backbone's configuration": "assets/backbone/config.json",
    "backbone's weights": "assets/backbone/model.safetensors",
    "backbone's index": "assets/backbone/model.safetensors.index.json",
    "tokenizer": "assets/tokenizer.json",
    "store's index": "store/train.json",
    "store's samples": "store/train.0.pcm",
}


def make_assets(folder: Path) -> None:
    """Write one of each file that a model is made of, whole."""
    files = FoldFiles(folder / "assets", RECIPE.name, 0)
    torch.manual_seed(0)
    scorer = build(RECIPE, SHAPE)
    oof = pd.DataFrame({"filename": ["a.wav", "b.wav"], "score": [0.0, 1.0], "pred": [0.2, 0.7]})
    fold_metadata = {
        **IDENTITY,
        "recipe": RECIPE.as_dict(),
        "shape": SHAPE,
        "tokenizer": None,
        "base_rate": 0.5,
        "group_by": None,
        "limit": None,
        "seconds": 1.0,
        "n_validation": 2,
        "retrain_command": "python train_modelx.py",
        "epochs": [{"validation_log_loss": 0.5}],
        "voice": {"backend": "none"},
    }
    fold_files.save_fold(files, scorer.state_dict(), oof, fold_metadata)
    checkpoint.save_partial(files.partial, scorer.state_dict(), {"run_key": IDENTITY})
    config = EnsembleConfig(
        (ModelConfig(RECIPE.name, (0,), 1.0),), {"backend": "none"}, {"all": 0.5}, {}, 2,
        calibration=Calibration(),
    )  # fmt: skip
    config.save(folder / "model_configs.json")
    backbone = folder / "assets" / "backbone"
    tensors = {f"model.encoder.{n}": t.clone() for n, t in scorer.encoder.state_dict().items()}
    backbone.mkdir()
    save_file(tensors, backbone / "model.safetensors")
    weight_map = dict.fromkeys(tensors, "one.safetensors")
    write_json(backbone / "model.safetensors.index.json", {"weight_map": weight_map})
    write_json(backbone / "config.json", {"model_type": "whisper", **SHAPE})
    (folder / "assets" / "tokenizer.json").write_bytes(tokenizer_json())
    samples = (speech(np.random.default_rng(0)) * 32_767).astype("<i2")
    (folder / FILES["store's samples"]).write_bytes(samples.tobytes())
    entry: dict[str, Any] = {
        "offset": 0,
        "n_samples": len(samples),
        "source_size": 1,
        "source_mtime_ns": 1,
    }
    entry |= {"sha256": "0", "notes": []}
    index: dict[str, Any] = {
        "version": 2,
        "dtype": "<i2",
        "sample_rate": SAMPLE_RATE,
        "data": "train.0.pcm",
    }
    index |= {"n_samples": len(samples), "recordings": {"a.wav": entry}}
    write_json(folder / FILES["store's index"], index)


def read_model(target: str, folder: Path) -> None:
    """Read what a file belongs to, the way the steps do."""
    assets = folder / "assets"
    files = FoldFiles(assets, RECIPE.name, 0)
    if target in ("metadata", "weights"):
        load.load_scorer(files, fold_files.read_fold_metadata(files))
    if target in ("metadata", "out-of-fold table"):
        read_out_of_fold(assets)
        fold_files.why_not_done(files, IDENTITY)
    if target == "partial":
        checkpoint.load_partial(files.partial, IDENTITY)
    if target == "configuration":
        config = EnsembleConfig.load(folder / "model_configs.json")
        for model in config.models_to_run:
            for fold in model.folds:
                path = FoldFiles(assets, model.name, fold).metadata
                assert path.parent.resolve() == assets.resolve(), f"{path} is not in the assets"
                fold_files.read_fold_metadata(FoldFiles(assets, model.name, fold))
        config.predict(np.full((len(config.models_to_run), 2), 0.5), np.array(["KG", "1"]))
        config.base_rate(TASKS[0])
    if target.startswith("backbone"):
        if target == "backbone's index":
            (assets / "backbone" / "model.safetensors").rename(
                assets / "backbone" / "one.safetensors"
            )
        read_config(assets / "backbone")
        read_tensors(assets / "backbone", "encoder")
    if target == "tokenizer":
        TextReader(assets / "tokenizer.json").read("the cat")
    if target.startswith("store"):
        store = Store(folder / "store", "train")
        for name in ("a.wav", "b.wav"):
            if name in store:
                store.n_samples(name)
                store.get(name)
        store.fingerprint()


ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 3, 2**40, 10**30, 1.5, float("nan"), float("inf"), "", "x", "0",
    "../../x", "/etc/passwd", "model.safetensors", "\0", [], [[]], ["x"], {}, {"x": 1},
    "x" * 10_000, ".", "..",
)  # fmt: skip


def odd_value(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a value of a JSON file, or drop it."""
    document = json.loads(content)
    value = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    if rng.random() < 0.1:
        return json.dumps(value).encode()
    place = document
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = keys[rng.integers(len(keys))]
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            if isinstance(place, dict) and rng.random() < 0.2:
                del place[key]
            else:
                place[key] = value
            break
        place = place[key]
    return json.dumps(document).encode()


def deep_json(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return JSON nested deeper than any reader's stack."""
    n = 100_000
    return (b"[" * n + b"]" * n, b'{"a":' * n + b"1" + b"}" * n, b"[" * n)[rng.integers(3)]


Poisoner = Callable[[Path, bytes, np.random.Generator], Any]
POISONS: Mapping[str, Poisoner] = {
    "damaged": lambda path, content, rng: path.write_bytes(
        DAMAGES[rng.integers(len(DAMAGES))](content, rng)
    ),
    "pickle": lambda path, _, rng: path.write_bytes(
        pickle.dumps({"model": Poison()}, protocol=int(rng.integers(6)))
    ),
    "torch.save": lambda path, _, __: torch.save({"model": Poison()}, path),
    "folder": lambda path, _, __: path.mkdir(),
    "pipe": lambda path, _, __: os.mkfifo(path),
    "link to nothing": lambda path, _, __: path.symlink_to("nothing"),
    "empty": lambda path, _, __: path.touch(),
    "gone": lambda _, __, ___: None,
}
JSON_POISONS: Mapping[str, Poisoner] = {
    "odd value": lambda path, content, rng: path.write_bytes(odd_value(content, rng)),
    "deep": lambda path, content, rng: path.write_bytes(deep_json(content, rng)),
}
# What other projects load, and nobody here asks for.
PICKLES = ("pytorch_model.bin", "modelx_0.pth", "modelx_0.bin", "modelx_0.pt", "modelx_0.ckpt")


def try_model(rng: np.random.Generator, folder: Path) -> Outcome:
    """Damage or poison a file of a model, lay pickles beside it, and read it."""
    make_assets(folder)
    target = list(FILES)[rng.integers(len(FILES))]
    path = folder / FILES[target]
    kinds = list(POISONS)
    if path.suffix == ".json" and rng.random() < 0.7:
        kinds = ["odd value"] * 12 + ["deep"]
    kind = kinds[rng.integers(len(kinds))]
    content = path.read_bytes()
    path.unlink()
    {**POISONS, **JSON_POISONS}[kind](path, content, rng)
    for name in PICKLES:
        for directory in (folder / "assets", folder / "assets" / "backbone"):
            torch.save(Poison(), directory / name)
    Poison.taken = False
    try:
        read_model(target, folder)
        result = READ
    except HearbackError as error:
        check_message(error, path)
        result = REFUSED
    assert not Poison.taken, f"the {target} ran code"
    return Outcome(f"models: {kind}", result)


FAMILIES: Mapping[str, tuple[float, Family]] = {
    "audio": (0.5, try_audio),
    "names": (0.12, try_name),
    "tables": (0.2, try_table),
    "texts": (0.06, try_text),
    "models": (0.12, try_model),
}


def try_family(family: Family, rng: np.random.Generator, folder: Path) -> Outcome:
    """Make an input of a family in `folder`, which is emptied, and try it."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("data", "store", "assets"):
        (folder / name).mkdir(parents=True)
    return family(rng, folder)


def try_one(seed: int, number: int, folder: Path) -> Outcome:
    """Make the input of a seed and a number in `folder`, which is emptied, and try it."""
    rng = np.random.default_rng([seed, number])
    shares = [share for share, _ in FAMILIES.values()]
    _, family = list(FAMILIES.values())[rng.choice(len(shares), p=shares)]
    return try_family(family, rng, folder)
