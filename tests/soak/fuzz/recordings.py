"""Damaged audio files, decoded into a store."""

import io
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from hearback.engine.audio.decode import KEPT_SECONDS, SAMPLE_RATE, decode
from hearback.engine.audio.level import MAX_PEAK
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.problems import Report
from tests.soak.fuzz.audio_files import speech, valid_file
from tests.soak.fuzz.damage import DAMAGES, keep_intact, replace_content
from tests.soak.fuzz.outcomes import READ, REFUSED, WARNED, Outcome, check_report

_EXTREMES = (0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_WAV_FIELDS = {4: "<I", 16: "<I", 20: "<H", 22: "<H", 24: "<I", 28: "<I", 32: "<H", 34: "<H"}
_WAV_DATA_SIZE = 40
_FLAC_STREAM_INFO = 18  # sample rate (20 bits), channels (3), bits (5), number of samples (36)


def corrupt_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Write extreme values into the header's sizes, rates and channel counts."""
    corrupted = bytearray(content)
    if content[:4] == b"RIFF" and content[12:16] == b"fmt " and len(content) > 64:
        fields = {**_WAV_FIELDS, _WAV_DATA_SIZE: "<I"}
        for position in rng.choice(list(fields), size=int(rng.integers(1, 4)), replace=False):
            layout = fields[int(position)]
            value = _EXTREMES[rng.integers(len(_EXTREMES))] & (
                2 ** (8 * struct.calcsize(layout)) - 1
            )
            struct.pack_into(layout, corrupted, int(position), value)
    elif content[:4] == b"fLaC":
        rate = int(rng.choice([0, 1, 16_000, 655_350, 2**20 - 1]))
        n_samples = int(rng.choice([0, 1, 2**31, 2**31 - 1, 70_000_000, 2**36 - 1]))
        channels, bits = int(rng.integers(8)), int(rng.choice([3, 15, 23, 31]))
        packed = rate << 44 | channels << 41 | bits << 36 | n_samples
        corrupted[_FLAC_STREAM_INFO : _FLAC_STREAM_INFO + 8] = packed.to_bytes(8, "big")
    else:
        for position in rng.integers(4, 100, int(rng.integers(1, 4))):
            order = "<I" if rng.random() < 0.5 else ">I"
            if position + 4 <= len(corrupted):
                struct.pack_into(
                    order, corrupted, position, _EXTREMES[rng.integers(len(_EXTREMES))]
                )
    return bytes(corrupted)


def extreme_samples(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return a valid WAV file with silent, clipped, huge, tiny, few or non-finite samples."""
    sound = speech(rng).astype(np.float64)
    variants = (
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
    samples = variants[rng.integers(len(variants))]
    subtype = ("FLOAT", "DOUBLE")[rng.integers(2)]
    file = io.BytesIO()
    with np.errstate(over="ignore"):  # 1e300 is infinite in single precision
        soundfile.write(file, samples, SAMPLE_RATE, subtype, format="WAV")
    return file.getvalue()


def append_itself(content: bytes, _rng: np.random.Generator) -> bytes:
    """Return the file twice, as a recorder that appends writes."""
    return content + content


def cut_anywhere(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the first 30 to 90 % of a file."""
    return content[: int(rng.uniform(0.3, 0.9) * len(content))]


def unknown_sizes(content: bytes, rng: np.random.Generator) -> bytes:
    """Write what a program writes into a WAV's header when it does not know the size."""
    changed = bytearray(content)
    position = content.find(b"data", 0, 256)
    if content[:4] == b"RIFF" and position > 0:
        value = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)[rng.integers(5)]
        struct.pack_into("<I", changed, 4, value)
        struct.pack_into("<I", changed, position + 4, value)
    return bytes(changed)


AUDIO_DAMAGES = (
    *DAMAGES,
    append_itself,
    cut_anywhere,
    unknown_sizes,
    corrupt_header,
    corrupt_header,
    replace_content,
    extreme_samples,
    keep_intact,
)
SUFFIXES = (".wav", ".WAV", ".mp3", ".flac", ".ogg", ".raw", ".sd2", ".vox", ".txt", ".csv", "")


def try_audio(rng: np.random.Generator, folder: Path) -> Outcome:
    """Damage an audio file, in a tenth of the cases with another suffix, and store it."""
    content, suffix = valid_file(rng)
    damage = AUDIO_DAMAGES[rng.integers(len(AUDIO_DAMAGES))]
    if rng.random() < 0.1:
        suffix = SUFFIXES[rng.integers(len(SUFFIXES))]
    name = f"clip{suffix}"
    data = folder / "data"
    (data / name).write_bytes(damage(content, rng))
    result = store_one(folder, name)
    if damage is append_itself and result != REFUSED:
        check_all_is_read(folder, name, content)
    assert damage is not keep_intact or result != REFUSED, f"{name} is valid, and was refused"
    return Outcome(f"audio: {damage.__name__.replace('_', ' ')}", result)


def check_all_is_read(folder: Path, name: str, content: bytes) -> None:
    """Check that a file that holds a recording twice has twice its length."""
    once = folder / "data" / f"once {name}"
    once.write_bytes(content)
    twice = folder / "data" / name
    lengths = [len(decode(path).waveform) for path in (once, twice)]
    # An MP3 without the length of its padding may lose a frame of it.
    assert lengths[1] >= min(2 * lengths[0] - SAMPLE_RATE // 10, KEPT_SECONDS * SAMPLE_RATE), (
        f"{name}: {lengths[1]} samples are read of two recordings of {lengths[0]}"
    )
    once.unlink()


def store_one(folder: Path, filename: str) -> str:
    """Store the recording `filename` of a one-row table; return the result."""
    table = folder / "data" / "train_metadata.csv"
    metadata = pd.DataFrame({"filename": [filename], "line": [2]})
    report = Report()
    store = build_store(
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
