"""Recordings as the world has them: all that was written is read, or it is said."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.problems import Report
from tests.engine import recording_corpus as corpus
from tests.soak.fuzz.outcomes import REFUSED, Outcome, Rng, check_report, result_of


def _sound(rng: Rng, rate: int = SAMPLE_RATE) -> np.ndarray:
    return corpus.sound(round(float(rng.uniform(0.5, 5)), 1), rate)


def _wav(rng: Rng) -> tuple[bytes, float]:
    samples = _sound(rng)
    return corpus.encoded("WAV", "PCM_16", samples), len(samples) / SAMPLE_RATE


def _ogg(rng: Rng) -> tuple[bytes, float]:
    samples = _sound(rng)
    subtype = ("VORBIS", "OPUS")[rng.integers(2)]
    return corpus.encoded("OGG", subtype, samples), len(samples) / SAMPLE_RATE


def _mp3(rng: Rng) -> tuple[bytes, float]:
    samples = _sound(rng)
    return corpus.mp3(samples, variable=rng.random() < 0.5), len(samples) / SAMPLE_RATE


def chained(rng: Rng) -> tuple[bytes, float]:
    """Return two or three Ogg or MP3 streams, one after the other."""
    make = (_ogg, _mp3)[rng.integers(2)]
    parts = [make(rng) for _ in range(int(rng.integers(2, 4)))]
    return b"".join(content for content, _ in parts), sum(seconds for _, seconds in parts)


def cut_ogg(rng: Rng) -> tuple[bytes, float]:
    """Return an Ogg without its last pages."""
    content, seconds = _ogg(rng)
    return corpus.cut_between_pages(content, float(rng.uniform(0.3, 0.9))), seconds


def cut_anywhere(rng: Rng) -> tuple[bytes, float]:
    """Return a file of which half of the bytes or more are there."""
    content, seconds = (_wav, _ogg, _mp3)[rng.integers(3)](rng)
    return content[: int(len(content) * rng.uniform(0.5, 0.95))], seconds


def mp3_from_a_pipe(rng: Rng) -> tuple[bytes, float]:
    """Return an MP3 without a Xing header, sometimes with tags."""
    content, seconds = _mp3(rng)
    tag = corpus.id3v2() if rng.random() < 0.3 else b""
    return tag + corpus.without_xing(content) + (
        corpus.id3v1() if rng.random() < 0.3 else b""
    ), seconds


def wav_without_sizes(rng: Rng) -> tuple[bytes, float]:
    """Return a WAV from a pipe, or of a recorder that was killed."""
    content, seconds = _wav(rng)
    sizes = ((0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (None, 0), (0x7FFFFFFF, 0x7FFFFFDB))
    return corpus.wav_with_sizes(content, *sizes[rng.integers(len(sizes))]), seconds


def cancelling_stereo(rng: Rng) -> tuple[bytes, float]:
    """Return channels whose mean is nearly silent."""
    samples = _sound(rng)
    right = -float(rng.choice([0.9, 0.95, 0.99, 1.0])) * samples
    content = corpus.encoded("WAV", "PCM_16", np.stack([samples, right], axis=1))
    return content, len(samples) / SAMPLE_RATE


CONTAINERS = (("ipod", "aac"), ("adts", "aac"), ("webm", "libopus"), ("matroska", "libopus"))


@lru_cache
def foreign_files() -> tuple[tuple[bytes, float], ...]:
    """Return files of all `CONTAINERS` and their lengths; made once, because that opens files."""
    files = []
    for container, codec in CONTAINERS:
        rate = 48_000 if codec == "libopus" else SAMPLE_RATE
        for seconds in (0.7, 2.5):
            samples = corpus.sound(seconds, rate)
            content = corpus.encoded_by_av(container, codec, samples, sample_rate=rate)
            files.append((content, seconds))
    return tuple(files)


def foreign_container(rng: Rng) -> tuple[bytes, float]:
    """Return a container that libsndfile does not know."""
    files = foreign_files()
    return files[rng.integers(len(files))]


def no_recording(rng: Rng) -> tuple[bytes, float]:
    """Return a pointer of Git LFS, a web page, or a zip."""
    contents = (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 160044\n",
        b"<!DOCTYPE html><html><head><title>404</title></head></html>\n" * 20,
        b"\n <html><body>Sign in</body></html>",
        b"PK\x03\x04" + rng.bytes(2000),
    )
    return contents[rng.integers(len(contents))], 0.0


RECORDINGS = (
    chained, chained, cut_ogg, cut_anywhere, mp3_from_a_pipe, wav_without_sizes, cancelling_stereo,
    foreign_container, no_recording,
)  # fmt: skip
NAMES = ("clip.wav", "clip.mp3", "clip.ogg", "clip.m4a", "clip.WAV", "clip")
# Codecs add some silence at both ends.
MAX_DIFFERENCE = 0.15  # s, and as much for each stream


def try_world_recording(rng: Rng, folder: Path) -> Outcome:
    """Store a recording whose length is known."""
    foreign_files()  # in the first input, before the soak watches which files are opened
    make = RECORDINGS[rng.integers(len(RECORDINGS))]
    content, seconds = make(rng)
    name = NAMES[rng.integers(len(NAMES))]
    (folder / "data" / name).write_bytes(content)
    table = folder / "data" / "train_metadata.csv"
    metadata = pd.DataFrame({"filename": [name], "line": [2]})
    report = Report()
    data, stores = folder / "data", folder / "store"
    store = build_store(
        metadata, data, table, stores, "train", report=report, progress=False, workers=1
    )
    check_report(report)
    assert len(report.problems) <= 1, f"listed twice: {report}"
    kind = f"world recordings: {make.__name__.replace('_', ' ')}"
    if name not in store:
        (problem,) = report.errors
        assert "Format not recognised" not in problem.what, f"{make.__name__}: {problem.what}"
        return Outcome(kind, REFUSED)
    assert make is not no_recording, "what is no recording was read"
    read = len(store.get(name)) / SAMPLE_RATE
    is_whole = abs(read - seconds) < 3 * MAX_DIFFERENCE and read > 0.9 * seconds
    assert is_whole or report.problems, f"{read:.2f} of {seconds:.2f} s were read without a word"
    if make is cancelling_stereo:
        assert report.problems and np.std(store.get(name)) > 0.01, "most of the level is lost"
    if make is mp3_from_a_pipe:
        assert not report.problems, f"warned of a whole recording: {report}"
    return Outcome(kind, result_of(report))
