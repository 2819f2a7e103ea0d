"""Decoding of recordings, WAV files, and the store."""

import contextlib
import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine.audio import decode as decode_module
from hearback.engine.audio import libsndfile, store_builder
from hearback.engine.audio.decode import SAMPLE_RATE, UnreadableAudioError, decode
from hearback.engine.audio.store import (
    BadStoreError,
    FileStore,
    MemoryStore,
    NotInStoreError,
    Store,
)
from hearback.engine.audio.store_builder import build_store
from hearback.engine.audio.store_format import StoreFormat
from hearback.engine.audio.wav import to_int16, write_wav
from hearback.engine.data.problems import Problem, Report
from hearback.engine.locks import ReadOnlyFolderError
from hearback.engine.project import ROOT
from tests.conftest import files_no_longer_than
from tests.helpers import make_read_only, tone


def level_at(waveform: np.ndarray, hertz: float) -> float:
    """Return the amplitude of a sine of this frequency in a waveform at 16 kHz."""
    time = np.arange(len(waveform)) / SAMPLE_RATE
    return float(2 * np.abs(np.mean(waveform * np.exp(-2j * np.pi * hertz * time))))


def floats(path: Path, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> Path:
    """Write a WAV of 32-bit floating point samples."""
    soundfile.write(path, samples, sample_rate, subtype="FLOAT", format="WAV")
    return path


# Decoding


def test_a_16_bit_16_khz_recording_is_unchanged(tmp_path: Path) -> None:
    samples = np.array([0, 1, -1, 32_767, -32_768, 1234] * 200, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    recording = decode(tmp_path / "a.wav")
    assert recording.notes == ()
    assert recording.waveform.dtype == np.float32
    assert np.array_equal(recording.waveform * 32_768, samples)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.flac", {}),
        ("a.mp3", {}),
        ("a.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("no_suffix", {"format": "FLAC"}),
        ("named.raw", {"format": "WAV"}),
        ("named.sd2", {"format": "WAV"}),
        ("a.wav", {"subtype": "PCM_U8"}),
        ("a.wav", {"subtype": "DOUBLE"}),
    ],
)
def test_all_formats_are_decoded(tmp_path: Path, name: str, settings: dict[str, str]) -> None:
    soundfile.write(tmp_path / name, tone(seconds=1.0), SAMPLE_RATE, **settings)
    recording = decode(tmp_path / name)
    assert recording.notes == ()
    assert abs(len(recording.waveform) - SAMPLE_RATE) < 0.1 * SAMPLE_RATE
    assert level_at(recording.waveform[4000:12_000], 440.0) == pytest.approx(0.5, abs=0.03)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(440.0), tone(1000.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE)
    recording = decode(tmp_path / "a.wav")
    assert recording.notes == ("2 channels, averaged",)
    assert np.allclose(recording.waveform, (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path: Path, sample_rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440.0, 1.0, sample_rate), sample_rate)
    recording = decode(tmp_path / "a.wav")
    assert recording.waveform.dtype == np.float32
    assert abs(len(recording.waveform) - SAMPLE_RATE) <= 1
    assert level_at(recording.waveform[4000:12_000], 440.0) == pytest.approx(0.5, abs=0.005)
    assert recording.notes[0].startswith(f"{sample_rate / 1000:g} kHz, resampled to 16 kHz")


def test_resampling_does_not_alias(tmp_path: Path) -> None:
    both = tone(440.0, 1.0, 44_100) + tone(12_000.0, 1.0, 44_100, peak=0.4)
    soundfile.write(tmp_path / "a.wav", both, 44_100)
    waveform = decode(tmp_path / "a.wav").waveform[4000:12_000]
    assert level_at(waveform, 440.0) == pytest.approx(0.5, abs=0.005)
    assert level_at(waveform, SAMPLE_RATE - 12_000.0) < 1e-4


def test_notes_describe_the_missing_band(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(440.0, 0.3, 8000)] * 2, axis=1), 8000)
    assert decode(tmp_path / "a.wav").notes == (
        "2 channels, averaged",
        "8 kHz, resampled to 16 kHz; the upper half of the band (above 4 kHz) is missing",
    )
    soundfile.write(tmp_path / "a.wav", tone(440.0, 0.3, 44_100), 44_100)
    assert decode(tmp_path / "a.wav").notes == ("44.1 kHz, resampled to 16 kHz",)


def test_the_sample_rate_can_be_chosen(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440.0, 1.0, 24_000), 24_000)
    recording = decode(tmp_path / "a.wav", 24_000)
    assert recording.notes == ()
    assert np.abs(recording.waveform - tone(440.0, 1.0, 24_000)).max() < 1e-4
    assert decode(tmp_path / "a.wav", 22_050).notes == ("24 kHz, resampled to 22.05 kHz",)
    low = decode(tmp_path / "a.wav", 48_000)
    assert len(low.waveform) == 48_000
    assert low.notes == (
        "24 kHz, resampled to 48 kHz; the upper half of the band (above 12 kHz) is missing",
    )


def with_one(value: float) -> np.ndarray:
    samples = tone()
    samples[100] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros(8000, np.float32), "silent"),
        (np.full(8000, 0.5, np.float32), "silent"),  # a constant offset
        (tone(peak=0.9e-3), "silent"),
        (np.zeros((8000, 2), np.float32), "silent"),
        (tone(seconds=0.049), "shorter than 0.05 s"),
        (with_one(np.nan), "NaN or infinite"),
        (with_one(np.inf), "NaN or infinite"),
        (np.stack([with_one(np.inf), with_one(-np.inf)], axis=1), "NaN or infinite"),
        (tone(peak=32_767.0), "integers of 16 bits as floating point"),
    ],
)
def test_unusable_recordings_are_refused(tmp_path: Path, samples: np.ndarray, why: str) -> None:
    with pytest.raises(UnreadableAudioError, match=why):
        decode(floats(tmp_path / "a.wav", samples))


def test_quiet_short_and_loud_recordings_are_accepted(tmp_path: Path) -> None:
    for samples in (tone(peak=1.2e-3), tone(seconds=0.05), tone(peak=1.5)):
        assert len(decode(floats(tmp_path / "a.wav", samples)).waveform) == len(samples)


def test_telephone_recordings_are_accepted(tmp_path: Path) -> None:
    """libsndfile cannot seek in GSM 6.10, and soundfile asks for the length then."""
    soundfile.write(tmp_path / "a.wav", tone(seconds=1.0, sample_rate=8000), 8000, "GSM610")
    assert len(decode(tmp_path / "a.wav").waveform) == pytest.approx(SAMPLE_RATE, abs=1000)


def test_many_channels_at_a_high_rate_are_accepted(tmp_path: Path) -> None:
    channels = np.stack([tone(440.0, 0.5, 96_000)] * 7, axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 96_000, "PCM_24")
    recording = decode(tmp_path / "a.wav")
    assert recording.notes == ("7 channels, averaged", "96 kHz, resampled to 16 kHz")
    assert level_at(recording.waveform, 440.0) == pytest.approx(0.5, abs=0.01)


def most_memory(function: Callable[[], object]) -> int:
    """Return the bytes that a function takes at most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_long_recordings_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(seconds=2.0), SAMPLE_RATE)
    n_bytes = 3 * 3600 * 2 * SAMPLE_RATE
    with path.open("r+b") as file:
        file.seek(40)
        file.write(n_bytes.to_bytes(4, "little"))
        file.truncate(44 + n_bytes)  # a hole in the file: no disk is filled
    recording = decode(path)
    assert len(recording.waveform) == 30 * SAMPLE_RATE
    assert recording.notes == ("10800 s long, only the first 30 s are kept",)
    assert level_at(recording.waveform[: 2 * SAMPLE_RATE], 440.0) == pytest.approx(0.5, abs=0.01)
    assert most_memory(lambda: decode(path)) < 20e6


def test_a_recording_of_the_maximal_length_has_no_note(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(seconds=30.0), SAMPLE_RATE)
    recording = decode(tmp_path / "a.wav")
    assert recording.notes == ()
    assert len(recording.waveform) == 30 * SAMPLE_RATE


def test_reading_in_blocks_gives_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([tone(), tone(880.0)], axis=1), SAMPLE_RATE)
    at_once = decode(tmp_path / "a.flac").waveform
    monkeypatch.setattr(libsndfile, "_BLOCK_SAMPLES", 999)
    assert np.array_equal(decode(tmp_path / "a.flac").waveform, at_once)


@pytest.mark.parametrize("sample_rate", [0, 1, 3999, 2**31 - 1, 2**31, 2**32 - 1])
def test_impossible_sample_rates_are_refused(tmp_path: Path, sample_rate: int) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    content[24:28] = sample_rate.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UnreadableAudioError):
        decode(path)


@pytest.mark.parametrize("n_told", [2**31, 2**36 - 1])
def test_header_sizes_are_never_trusted_for_allocation(tmp_path: Path, n_told: int) -> None:
    """The samples that are there are read: `test_decode.py` compares them."""
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(seconds=1.0), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    info = int.from_bytes(content[18:26], "big") >> 36 << 36 | n_told
    content[18:26] = info.to_bytes(8, "big")
    path.write_bytes(content)

    assert most_memory(lambda: decode(path)) < 20e6
    (note,) = decode(path).notes
    assert note == "breaks off after 1.00 s: its header announces more"


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au"])
def test_truncated_files_have_a_note(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(seconds=1.0), SAMPLE_RATE, "PCM_16")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    (note,) = decode(tmp_path / name).notes
    assert note == "breaks off after 0.50 s: its header announces more"


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    """libsndfile, given a path, also opens what a Mac would call the file's resource fork."""
    (tmp_path / "a.wav").write_bytes(b"\1no audio" * 100)
    fork = tmp_path / "._a.wav"
    os.mkfifo(fork)  # whoever opens it waits
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(decode, tmp_path / "a.wav")
        try:
            with pytest.raises(UnreadableAudioError, match=r"^is of no known format"):
                decoding.result(timeout=30)
        finally:
            with contextlib.suppress(OSError):  # nobody waits
                os.close(os.open(fork, os.O_WRONLY | os.O_NONBLOCK))


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.ogg", "a.flac", "a.raw", "a"])
def test_files_without_audio_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UnreadableAudioError, match=r"^is missing$"):
        decode(path)
    path.touch()
    with pytest.raises(UnreadableAudioError, match=r"^is empty: 0 bytes$"):
        decode(path)
    path.write_bytes(b"\1no audio" * 100)
    with pytest.raises(UnreadableAudioError, match=r"^is of no known format"):
        decode(path)


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudioError, match="not a file"):
        decode(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableAudioError, match="not a file"):
        decode(tmp_path / "pipe.wav")


def test_a_truncated_opus_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(seconds=2.0), SAMPLE_RATE, format="OGG", subtype="OPUS")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(UnreadableAudioError):
        decode(path)


# 16 bits


def test_int16_clips_and_does_not_wrap() -> None:
    samples = to_int16(np.array([1.0, 1.5, -1.0, -1.5, 0.0, 0.5], dtype=np.float32))
    assert samples.tolist() == [32_767, 32_767, -32_768, -32_768, 0, 16_384]
    assert samples.dtype == np.dtype("<i2")


def test_int16_refuses_nan_and_infinity() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_int16(np.array([0.0, np.nan]))


def test_wav_files_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.wav"
    write_wav(path, tone(), SAMPLE_RATE)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    assert np.abs(decode(path).waveform - tone()).max() <= 0.5 / 32_768


def test_a_failed_write_leaves_the_previous_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(), SAMPLE_RATE)
    previous = path.read_bytes()
    with pytest.raises(ValueError, match="NaN"):
        write_wav(path, with_one(np.nan), SAMPLE_RATE)
    assert path.read_bytes() == previous
    assert list(tmp_path.iterdir()) == [path]


# A table of recordings


def table(*filenames: str) -> pd.DataFrame:
    return pd.DataFrame({"filename": filenames, "line": range(2, 2 + len(filenames))})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data folder with three good recordings of different lengths."""
    for number, name in enumerate(("a", "b", "c"), start=1):
        write_wav(tmp_path / "data" / f"{name}.wav", tone(seconds=0.1 * number), SAMPLE_RATE)
    return tmp_path / "data"


@pytest.fixture
def build(tmp_path: Path, folder: Path) -> Callable[..., Store]:
    def build(*filenames: str, report: Report | None = None) -> Store:
        return build_store(
            table(*filenames),
            folder,
            Path("metadata.csv"),
            tmp_path / "store",
            "train",
            report=Report() if report is None else report,
            progress=False,
            workers=2,
        )

    return build


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects the filenames of decoded recordings."""
    names: list[str] = []

    def noting(path: Path) -> decode_module.Recording:
        names.append(path.name)
        return decode(path)

    monkeypatch.setattr(store_builder, "decode", noting)
    return names


def files(folder: Path) -> list[Path]:
    """Return the files of complete and unfinished stores in a folder, without locks."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_the_store_has_the_decoded_waveforms(folder: Path, build: Callable[..., Store]) -> None:
    store = build("b.wav", "a.wav", "c.wav")
    assert len(store) == 3
    for name in ("a.wav", "b.wav", "c.wav"):
        waveform = store.get(name)
        assert waveform.dtype == np.float32
        assert np.array_equal(waveform, decode(folder / name).waveform)
        assert store.n_samples(name) == len(waveform)


def test_missing_recordings_raise_not_in_store(build: Callable[..., Store]) -> None:
    store = build("a.wav")
    assert "a.wav" in store
    assert "b.wav" not in store
    with pytest.raises(KeyError):
        store.get("b.wav")
    with pytest.raises(NotInStoreError, match=r"^'b\.wav' is not in "):
        store.n_samples("b.wav")


def test_bad_recordings_are_reported_and_left_out(
    tmp_path: Path, folder: Path, build: Callable[..., Store]
) -> None:
    floats(folder / "silent.wav", np.zeros(8000, np.float32))
    (folder / "text.wav").write_text("not audio")
    floats(folder / "stereo.wav", np.stack([tone(440.0, 0.3, 44_100)] * 2, axis=1), 44_100)
    write_wav(tmp_path / "outside.wav", tone(), SAMPLE_RATE)
    (folder / "link.wav").symlink_to(tmp_path / "outside.wav")
    report = Report()
    names = [
        "silent.wav",
        "a.wav",
        "nothing.wav",
        "text.wav",
        "link.wav",
        "",
        "stereo.wav",
        "a.wav",
    ]
    store = build(*names, report=report)

    assert [(problem.row, problem.filename, problem.what) for problem in report.warnings] == [
        (8, "stereo.wav", "2 channels, averaged; 44.1 kHz, resampled to 16 kHz")
    ]
    assert {(problem.row, problem.filename) for problem in report.errors} == {
        (2, "silent.wav"),
        (4, "nothing.wav"),
        (5, "text.wav"),
        (6, "link.wav"),
    }
    assert {problem.file for problem in report.problems} == {"metadata.csv"}
    assert [name for name in names if name in store] == ["a.wav", "stereo.wav", "a.wav"]

    # A second build reports everything again.
    again = Report()
    build(*names, report=again)
    assert set(again.problems) == set(report.problems)


def test_problems_are_in_the_order_of_the_table(build: Callable[..., Store]) -> None:
    report = Report()
    build(*(f"missing {number}.wav" for number in range(50)), report=report)
    assert [problem.row for problem in report.errors] == list(range(2, 52))


def test_problems_of_the_table_are_not_repeated(build: Callable[..., Store]) -> None:
    report = Report([Problem("metadata.csv", 9, "something else", "mend it")])
    build("../a.wav", report=report)
    build("../a.wav", report=report)
    assert len(report.problems) == 2


def test_only_new_or_changed_recordings_are_decoded(
    folder: Path, build: Callable[..., Store], decoded: list[str]
) -> None:
    build("a.wav", "b.wav")
    assert sorted(decoded) == ["a.wav", "b.wav"]
    decoded.clear()

    build("a.wav", "b.wav")
    assert decoded == []

    write_wav(folder / "b.wav", tone(880.0, 0.2), SAMPLE_RATE)  # of the same size
    os.utime(folder / "b.wav", ns=(1, 1))
    store = build("a.wav", "b.wav", "c.wav")
    assert sorted(decoded) == ["b.wav", "c.wav"]
    for name in ("a.wav", "b.wav", "c.wav"):
        assert np.array_equal(store.get(name), decode(folder / name).waveform)


def test_removed_recordings_are_dropped(
    tmp_path: Path, folder: Path, build: Callable[..., Store]
) -> None:
    build("a.wav", "b.wav", "c.wav")
    (folder / "b.wav").unlink()
    report = Report()
    store = build("b.wav", "c.wav", report=report)
    assert [name for name in ("a.wav", "b.wav", "c.wav") if name in store] == ["c.wav"]
    assert [problem.what for problem in report.errors] == ["the recording is missing"]
    sizes = [path.stat().st_size for path in files(tmp_path / "store") if path.suffix == ".pcm"]
    assert sizes == [2 * store.n_samples("c.wav")]


def test_a_bad_recording_does_not_rewrite_the_store(
    tmp_path: Path, build: Callable[..., Store], decoded: list[str]
) -> None:
    build("a.wav", "missing.wav")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in files(tmp_path / "store"))
    decoded.clear()
    build("a.wav", "missing.wav")
    after = sorted((path.name, path.stat().st_mtime_ns) for path in files(tmp_path / "store"))
    assert before == after
    assert decoded == ["missing.wav"]


def test_a_store_may_be_empty(build: Callable[..., Store]) -> None:
    assert len(build()) == 0
    assert len(build("missing.wav")) == 0
    assert len(build("a.wav")) == 1


def test_the_fingerprint_depends_on_the_audio(folder: Path, build: Callable[..., Store]) -> None:
    first = build("a.wav", "b.wav").fingerprint()
    assert build("b.wav").fingerprint() != first
    assert build("b.wav", "a.wav").fingerprint() == first  # a.wav is now after b.wav
    os.utime(folder / "a.wav", ns=(1, 1))
    assert build("a.wav", "b.wav").fingerprint() == first
    write_wav(folder / "a.wav", tone(seconds=0.1, peak=0.4), SAMPLE_RATE)
    assert build("a.wav", "b.wav").fingerprint() != first


def test_the_fingerprint_depends_on_the_names(folder: Path, build: Callable[..., Store]) -> None:
    first = build("a.wav").fingerprint()
    (folder / "a.wav").rename(folder / "d.wav")
    assert build("d.wav").fingerprint() != first


def test_a_store_is_opened_by_its_name(tmp_path: Path, build: Callable[..., Store]) -> None:
    built = build("a.wav", "b.wav")
    opened = FileStore(tmp_path / "store", "train")
    assert opened.fingerprint() == built.fingerprint()
    assert np.array_equal(opened.get("b.wav"), built.get("b.wav"))


def test_returned_waveforms_are_copies(build: Callable[..., Store]) -> None:
    store = build("a.wav")
    store.get("a.wav")[:] = 0
    assert store.get("a.wav").any()


def length_and_sum(store: Store, filename: str) -> tuple[int, float]:
    waveform = store.get(filename)
    return len(waveform), float(np.abs(waveform).sum())


@pytest.mark.slow
def test_other_processes_read_the_same_values(build: Callable[..., Store]) -> None:
    store = build("a.wav", "b.wav")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        theirs = [pool.submit(length_and_sum, store, name) for name in ("a.wav", "b.wav")]
        ours = [length_and_sum(store, name) for name in ("a.wav", "b.wav")]
        assert [future.result() for future in theirs] == ours


def test_a_store_is_pickled_as_a_path(build: Callable[..., Store]) -> None:
    store = build("a.wav")
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    assert np.array_equal(pickle.loads(pickled).get("a.wav"), store.get("a.wav"))


def test_a_store_in_memory_has_the_samples_of_one_on_disk(
    folder: Path, build: Callable[..., Store]
) -> None:
    recordings = {name: decode(folder / name) for name in ("a.wav", "b.wav")}
    in_memory, on_disk = MemoryStore(recordings), build(*recordings)
    for store in (in_memory, pickle.loads(pickle.dumps(in_memory))):
        assert len(store) == 2 and "a.wav" in store and "c.wav" not in store
        for name in recordings:
            np.testing.assert_array_equal(store.get(name), on_disk.get(name))
            assert store.n_samples(name) == on_disk.n_samples(name)
            assert store.entries[name].notes == tuple(on_disk.entries[name].notes)
        with pytest.raises(NotInStoreError, match=r"^'c\.wav' is not in memory: "):
            store.get("c.wav")
    assert len(MemoryStore({})) == 0


def test_a_store_can_be_moved_with_its_folder(tmp_path: Path, build: Callable[..., Store]) -> None:
    fingerprint = build("a.wav").fingerprint()
    shutil.copytree(tmp_path / "store", tmp_path / "elsewhere")
    assert FileStore(tmp_path / "elsewhere", "train").fingerprint() == fingerprint


def test_an_open_store_outlives_a_rebuild(build: Callable[..., Store]) -> None:
    store = build("a.wav", "b.wav")
    before = store.get("b.wav")
    build("b.wav")
    assert np.array_equal(store.get("b.wav"), before)


def test_damaged_samples_are_decoded_again_where_they_are_verified(
    tmp_path: Path, folder: Path, build: Callable[..., Store], decoded: list[str]
) -> None:
    sources = ("a.wav", "b.wav", "c.wav")
    before = build(*sources)
    values = {name: before.get(name) for name in sources}
    path = next((tmp_path / "store").glob("*.pcm"))
    content = bytearray(path.read_bytes())
    content[2 * before.entries["b.wav"].offset + 100] ^= 1
    path.write_bytes(content)
    decoded.clear()
    assert not np.array_equal(build(*sources).get("b.wav"), values["b.wav"])
    for expected in (["b.wav"], []):
        decoded.clear()
        where = (table(*sources), folder, Path("metadata.csv"), tmp_path / "store", "train")
        store = build_store(*where, report=Report(), progress=False, verify=True)
        assert decoded == expected
        assert store.damaged() == []
        assert all(np.array_equal(store.get(name), values[name]) for name in sources)


def test_a_full_disk_names_the_file_of_the_store(
    tmp_path: Path, build: Callable[..., Store]
) -> None:
    with files_no_longer_than(2000), pytest.raises(OSError) as refusal:
        build("a.wav")
    assert str(refusal.value.filename).startswith(str(tmp_path / "store" / "train."))


def test_a_missing_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadStoreError, match="build it first"):
        FileStore(tmp_path, "train")


def cut_data(folder: Path) -> None:
    path = next(folder.glob("*.pcm"))
    path.write_bytes(path.read_bytes()[:-2])


def remove_data(folder: Path) -> None:
    next(folder.glob("*.pcm")).unlink()


def cut_index(folder: Path) -> None:
    path = folder / "train.json"
    path.write_text(path.read_text()[:-20])


def older_index(folder: Path) -> None:
    path = folder / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))


def other_index(folder: Path) -> None:
    (folder / "train.json").write_text("[]")


def change_index(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "train.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def change_entry(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "train.json"
        index = json.loads(path.read_text())
        index["recordings"]["a.wav"] |= changes
        path.write_text(json.dumps(index))

    return damage


def elsewhere(folder: Path) -> None:
    (folder.parent / "outside.pcm").write_bytes(bytes(10**6))
    change_index(data="../outside.pcm")(folder)


def deep_index(folder: Path) -> None:
    (folder / "train.json").write_text("[" * 10**6)


@pytest.mark.parametrize(
    "damage",
    [
        cut_data,
        remove_data,
        cut_index,
        older_index,
        other_index,
        elsewhere,
        deep_index,
        change_index(n_samples="7"),
        change_index(n_samples=float("nan")),
        change_index(n_samples=1),
        change_entry(offset=-5),
        change_entry(n_samples="9"),
        change_entry(n_samples=10**9),
        change_entry(notes=[3]),
    ],
)
def test_damage_is_detected_and_repaired_by_a_build(
    tmp_path: Path, build: Callable[..., Store], damage: Callable[[Path], None]
) -> None:
    fingerprint = build("a.wav", "b.wav").fingerprint()
    damage(tmp_path / "store")
    with pytest.raises(BadStoreError, match="build"):
        FileStore(tmp_path / "store", "train")
    assert build("a.wav", "b.wav").fingerprint() == fingerprint
    assert len(list((tmp_path / "store").glob("*.pcm"))) == 1


# Builds a store with one thread, and is killed at the nth call of a function of store_writer.
KILLED = """
import os, sys
from pathlib import Path
import pandas as pd
from hearback.engine.audio import store_writer
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.problems import Report

name, number, *filenames = sys.argv[1:]
real, calls = getattr(store_writer, name), []

def killed(*args, **settings):
    calls.append(args)
    if len(calls) == int(number):
        os.kill(os.getpid(), 9)
    return real(*args, **settings)

setattr(store_writer, name, killed)
table = pd.DataFrame({"filename": filenames, "line": range(2, 2 + len(filenames))})
build_store(
    table,
    Path("data"),
    Path("metadata.csv"),
    Path("store"),
    "train",
    report=Report(),
    progress=False,
    workers=1,
)
"""
TEN = [f"{number}.wav" for number in range(10)]


@pytest.fixture
def ten(folder: Path) -> Path:
    for number, name in enumerate(TEN, start=1):
        write_wav(folder / name, tone(100.0 * number, 0.05 * number), SAMPLE_RATE)
    return folder


def killed_build(tmp_path: Path, function: str, call: int, *filenames: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, function, str(call), *filenames],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.returncode == -9


@pytest.mark.slow
@pytest.mark.parametrize("previous", [[], ["0.wav", "1.wav"], ["a.wav", "0.wav", "1.wav"]])
@pytest.mark.parametrize(
    "killed_at",
    [
        ("_as_line", 1, 0),  # at the journal's header
        ("_as_line", 5, 3),  # after the fourth recording's samples, before its line
        ("write_json", 1, 10),  # between data and index: everything is kept
    ],
)
def test_a_killed_build_keeps_the_previous_store_and_can_be_resumed(
    ten: Path,
    build: Callable[..., Store],
    decoded: list[str],
    previous: list[str],
    killed_at: tuple[str, int, int],  # function, call, number of new recordings kept
) -> None:
    tmp_path, (function, call, n_kept) = ten.parent, killed_at
    if previous:
        before = build(*previous).fingerprint()
    killed_build(tmp_path, function, call, *TEN)
    if previous:
        assert FileStore(tmp_path / "store", "train").fingerprint() == before
    else:
        with pytest.raises(BadStoreError):
            FileStore(tmp_path / "store", "train")

    new = [name for name in TEN if name not in previous]
    decoded.clear()
    store = build(*TEN)
    assert sorted(decoded) == new[n_kept:]
    for name in TEN:
        assert np.array_equal(store.get(name), decode(ten / name).waveform)
    assert len(store) == len(TEN)
    assert len(files(tmp_path / "store")) == 2
    data = next((tmp_path / "store").glob("*.pcm"))
    assert data.stat().st_size == sum(2 * store.n_samples(name) for name in TEN)


def rewritten(folder: Path) -> None:
    """Give a recording other audio of the same length."""
    write_wav(folder / "1.wav", tone(2000.0, 0.1), SAMPLE_RATE)
    os.utime(folder / "1.wav", ns=(1, 1))


@pytest.mark.slow
def test_a_build_killed_twice_notices_changed_recordings(
    tmp_path: Path, ten: Path, build: Callable[..., Store], decoded: list[str]
) -> None:
    killed_build(tmp_path, "_as_line", 5, *TEN)
    rewritten(ten)
    # The first build kept 0, 1 and 2. This one adds 1, 3 and 4 to the same journal.
    killed_build(tmp_path, "_as_line", 4, *TEN)
    decoded.clear()
    store = build(*TEN)
    assert sorted(decoded) == TEN[5:]
    for name in TEN:
        assert np.array_equal(store.get(name), decode(ten / name).waveform)
    data = next((tmp_path / "store").glob("*.pcm"))
    assert data.stat().st_size == sum(2 * store.n_samples(name) for name in TEN)


@pytest.mark.slow
def test_a_killed_build_of_another_table_leaves_nothing(
    tmp_path: Path, ten: Path, build: Callable[..., Store], decoded: list[str]
) -> None:
    before = build(*TEN[:2]).fingerprint()
    killed_build(tmp_path, "_as_line", 5, *TEN)
    decoded.clear()
    store = build(*TEN[:2])
    assert store.fingerprint() == before
    assert decoded == []
    data = next((tmp_path / "store").glob("*.pcm"))
    assert data.stat().st_size == sum(2 * store.n_samples(name) for name in TEN[:2])
    assert len(files(tmp_path / "store")) == 2
    assert np.array_equal(build(*TEN).get("9.wav"), decode(ten / "9.wav").waveform)


def half_a_line(journal: Path, _data: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:-30])


def half_a_recording(_journal: Path, data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-31])


def other_samples(_journal: Path, data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-100] + bytes(100))


def no_data(_journal: Path, data: Path) -> None:
    data.unlink()


def no_header(journal: Path, _data: Path) -> None:
    journal.write_bytes(journal.read_bytes()[20:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [half_a_line, half_a_recording, other_samples, no_data, no_header]
)
def test_samples_lost_in_a_power_cut_are_decoded_again(
    ten: Path,
    build: Callable[..., Store],
    decoded: list[str],
    damage: Callable[[Path, Path], None],
) -> None:
    killed_build(ten.parent, "_as_line", 9, *TEN)  # seven are complete, the eighth has no line
    store_folder = ten.parent / "store"
    journal, data = store_folder / ".train.journal", next(store_folder.glob("*.pcm"))
    samples_of_eighth = 2 * len(decode(ten / TEN[7]).waveform)
    data.write_bytes(data.read_bytes()[:-samples_of_eighth])
    damage(journal, data)
    decoded.clear()
    store = build(*TEN)
    assert sorted(decoded) == TEN[0 if damage in (no_data, no_header) else 6 :]
    for name in TEN:
        assert np.array_equal(store.get(name), decode(ten / name).waveform)
    assert len(files(store_folder)) == 2


def test_a_store_is_extended_without_rewriting(
    tmp_path: Path, ten: Path, build: Callable[..., Store]
) -> None:
    opened = build(*TEN[:5])
    data = next((tmp_path / "store").glob("*.pcm"))
    extended = build(*TEN)
    assert next((tmp_path / "store").glob("*.pcm")) == data
    for store, names in ((opened, TEN[:5]), (extended, TEN)):
        for name in names:
            assert np.array_equal(store.get(name), decode(ten / name).waveform)


def test_concurrent_builds_decode_once(build: Callable[..., Store], decoded: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        builds = [pool.submit(build, "a.wav", "b.wav", "c.wav") for _ in range(4)]
        fingerprints = {future.result().fingerprint() for future in builds}
    assert len(fingerprints) == 1
    assert sorted(decoded) == ["a.wav", "b.wav", "c.wav"]


def test_two_stores_share_a_folder(tmp_path: Path, folder: Path) -> None:
    stores = {
        name: build_store(
            table(filename),
            folder,
            Path("metadata.csv"),
            tmp_path / "store",
            name,
            report=Report(),
            progress=False,
        )
        for name, filename in (("train", "a.wav"), ("train_2", "b.wav"), ("test", "c.wav"))
    }
    for name, store in stores.items():
        assert FileStore(tmp_path / "store", name).fingerprint() == store.fingerprint()
    with pytest.raises(ValueError, match="name"):
        build_store(
            table(), folder, Path("m.csv"), tmp_path, "../x", report=Report(), progress=False
        )


# Stores of other arrays


PEAKS = StoreFormat(
    1, 8_000, is_audio=False, shape=(2, 3), parameters={"window": [1, {"of": "peaks"}]}
)


def peaks(filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return six values of a recording that do not fit into int16."""
    recording = decode(path, 8_000)
    values = len(recording.waveform) * np.linspace(-1e3, 1 / 3, 6, dtype=np.float32).reshape(2, 3)
    return values, ("a note",) if filename == "b.wav" else ()


@pytest.fixture
def build_peaks(tmp_path: Path, folder: Path) -> Callable[..., Store]:
    def build_peaks(*filenames: str, **settings: Any) -> Store:
        defaults: dict[str, Any] = {
            "report": Report(),
            "store_format": PEAKS,
            "load": peaks,
            "progress": False,
        }
        places = (folder, Path("metadata.csv"), tmp_path / "store", "train")
        return build_store(table(*filenames), *places, **(defaults | settings))

    return build_peaks


def test_a_store_can_hold_other_arrays(
    tmp_path: Path, folder: Path, build_peaks: Callable[..., Store]
) -> None:
    report = Report()
    store = build_peaks("a.wav", "b.wav", "missing.wav", report=report)
    for opened in (
        store,
        FileStore(tmp_path / "store", "train", PEAKS),
        pickle.loads(pickle.dumps(store)),
    ):
        for name in ("a.wav", "b.wav"):
            values = opened.get(name)
            assert values.dtype == np.float32
            assert np.array_equal(values, peaks(name, folder / name)[0])
        assert opened.n_samples("a.wav") == 6
    store.get("a.wav")[:] = 0
    assert store.get("a.wav").any()
    assert [(problem.severity, problem.what) for problem in report.problems] == [
        ("warning", "a note"),
        ("error", "the recording is missing"),
    ]
    assert report.warnings[0].cure.endswith("8 kHz mono original, use that")


def test_a_store_of_another_format_is_refused_and_built_again(
    tmp_path: Path, build_peaks: Callable[..., Store]
) -> None:
    calls = []

    def counting(filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
        calls.append(filename)
        return peaks(filename, path)

    build_peaks("a.wav")
    for other in (
        replace(PEAKS, version=2),
        replace(PEAKS, sample_rate=16_000),
        replace(PEAKS, shape=(3, 2)),
        replace(PEAKS, parameters={"window": [1, {"of": "troughs"}]}),
    ):
        with pytest.raises(BadStoreError, match="build it again"):
            FileStore(tmp_path / "store", "train", other)
    build_peaks("a.wav", load=counting)
    assert calls == []
    build_peaks("a.wav", load=counting, store_format=replace(PEAKS, version=2))
    assert calls == ["a.wav"]
    assert len(list((tmp_path / "store").glob("*.pcm"))) == 1


@pytest.mark.parametrize(
    "values", [np.zeros((3, 2)), np.zeros(6), np.full((2, 3), np.nan), np.full((2, 3), np.inf)]
)
def test_invalid_arrays_are_refused(build_peaks: Callable[..., Store], values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"an array of|NaN or infinite"):
        build_peaks("a.wav", load=lambda _filename, _path: (values, ()))


def test_an_entry_of_the_wrong_size_is_damage(
    tmp_path: Path, build_peaks: Callable[..., Store]
) -> None:
    build_peaks("a.wav", "b.wav")
    change_entry(n_samples=5)(tmp_path / "store")
    with pytest.raises(BadStoreError, match="damaged"):
        FileStore(tmp_path / "store", "train", PEAKS)
    assert len(build_peaks("a.wav", "b.wav")) == 2


def test_the_index_of_speech_has_the_documented_fields(
    tmp_path: Path, build: Callable[..., Store]
) -> None:
    build("a.wav")
    index = json.loads((tmp_path / "store" / "train.json").read_text())
    assert list(index) == ["version", "dtype", "sample_rate", "data", "n_samples", "recordings"]
    assert (index["version"], index["dtype"], index["sample_rate"]) == (7, "<i2", 16_000)


def test_loud_recordings_are_clipped_in_the_store(
    folder: Path, build: Callable[..., Store]
) -> None:
    floats(folder / "loud.wav", tone(peak=2.0))
    waveform = build("loud.wav").get("loud.wav")
    assert waveform.max() == pytest.approx(1.0, abs=1e-4)
    assert waveform.min() == -1.0
    # Where the tone is far over full scale it stays there, on its own side.
    loud = np.abs(tone(peak=2.0)) > 1
    assert (np.sign(waveform) == np.sign(tone()))[loud].all()


def test_a_full_disk_raises_os_error_and_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, np.zeros(10), SAMPLE_RATE)
    previous = path.read_bytes()
    with files_no_longer_than(1000), pytest.raises(OSError) as refusal:
        write_wav(path, np.zeros(10_000), SAMPLE_RATE)
    assert refusal.value.errno == errno.EFBIG
    assert refusal.value.filename == str(path)
    assert path.read_bytes() == previous
    assert list(tmp_path.iterdir()) == [path]


def test_a_complete_store_is_opened_on_a_read_only_disk(
    tmp_path: Path, build: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = build("a.wav", "b.wav").entries
    (tmp_path / "store" / ".train.lock").unlink(missing_ok=True)
    make_read_only(monkeypatch, tmp_path)
    assert build("a.wav", "b.wav").entries == entries


def test_an_incomplete_store_on_a_read_only_disk_is_an_error_with_its_cure(
    tmp_path: Path, build: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    build("a.wav")
    make_read_only(monkeypatch, tmp_path)
    with pytest.raises(ReadOnlyFolderError) as refusal:
        build("a.wav", "b.wav")
    assert str(refusal.value) == (
        f"{tmp_path / 'store'}: cannot be written to (Read-only file system); its store of train "
        "is not complete, or of files of another size or time: choose a writable folder with "
        "--store"
    )


def test_unreadable_recordings_need_no_writing(
    tmp_path: Path, folder: Path, build: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bad.wav").write_bytes(b"not audio")
    build("a.wav", "bad.wav")
    make_read_only(monkeypatch, tmp_path)
    report = Report()
    assert list(build("a.wav", "bad.wav", report=report).entries) == ["a.wav"]
    assert [problem.filename for problem in report.errors] == ["bad.wav"]
