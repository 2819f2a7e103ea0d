"""What is read of a recording is all there is, or it is said: recordings as the world has them."""

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine.audio import decode as decode_module
from hearback.engine.audio import other_decoders
from hearback.engine.audio.decode import SAMPLE_RATE, UnreadableAudioError, decode
from hearback.engine.audio.file_kinds import is_recording, read_head
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.problems import Report
from hearback.engine.project import ROOT
from tests.engine.recording_corpus import (
    SECONDS,
    cut_between_pages,
    encoded,
    encoded_by_av,
    id3v1,
    id3v2,
    mp3,
    seconds_by_av,
    sound,
    wav_with_sizes,
    without_xing,
)
from tests.helpers import environment_of_scripts, tone

PYPROJECT = ROOT / "pyproject.toml"
JOINED = "2 recordings one after the other in the file, joined"
NO_SAMPLES_TOLD = "its header says that it has no samples: all behind the header are read"
NO_END = "the end of its stream is missing"
NO_END_OF_FILE = "the end of the file is missing"


def other(seconds: float = 2.0) -> np.ndarray:
    """Return another sound than the corpus' usual one."""
    return sound(seconds, pitch=220.0)


def flac_with(n_told: int) -> bytes:
    """Return a FLAC whose header tells this number of samples."""
    content = bytearray(encoded("FLAC"))
    info = int.from_bytes(content[18:26], "big") >> 36 << 36 | n_told
    content[18:26] = info.to_bytes(8, "big")
    return bytes(content)


def caf_of_unknown_size() -> bytes:
    content = bytearray(encoded("CAF", "PCM_16"))
    position = content.index(b"data") + 4
    content[position : position + 8] = b"\xff" * 8
    return bytes(content)


def aac(samples: np.ndarray | None = None) -> bytes:
    return encoded_by_av("adts", "aac", samples)


def amr(samples: np.ndarray | None = None) -> bytes:
    samples = sound(SECONDS, 8_000) if samples is None else samples
    return encoded_by_av("amr", "libopencore_amrnb", samples, sample_rate=8_000, bit_rate=12_200)


def wma(samples: np.ndarray | None = None) -> bytes:
    return encoded_by_av("asf", "wmav2", samples, sample_rate=44_100, bit_rate=64_000)


def webm(samples: np.ndarray | None = None, **options: str) -> bytes:
    """Return a WebM; with live="1" as browsers write it, without lengths."""
    return encoded_by_av("webm", "libopus", samples, sample_rate=48_000, options=options)


def m4a(samples: np.ndarray | None = None, **options: str) -> bytes:
    return encoded_by_av("ipod", "aac", samples, options=options)


def part_of(content: bytes, part: float = 0.6) -> bytes:
    return content[: int(part * len(content))]


def av_mp3(**settings: object) -> bytes:
    """Return an MP3 of 44.1 kHz and one bit rate, without a Xing frame."""
    options = {"write_xing": "0", "id3v2_version": "0"}
    return encoded_by_av("mp3", "libmp3lame", sample_rate=44_100, bit_rate=128_000, options=options)


# Files of which everything is read, and nothing needs to be said.
WHOLE: dict[str, Callable[[], bytes]] = {
    "wav": lambda: encoded("WAV"),
    "wav, 24 bit": lambda: encoded("WAV", "PCM_24"),
    "wav, 32 bit": lambda: encoded("WAV", "PCM_32"),
    "wav, 8 bit": lambda: encoded("WAV", "PCM_U8"),
    "wav, float": lambda: encoded("WAV", "FLOAT"),
    "wav, double": lambda: encoded("WAV", "DOUBLE"),
    "wav, extensible": lambda: encoded("WAVEX", "PCM_24"),
    "wav, mu-law": lambda: encoded("WAV", "ULAW"),
    "wav, a-law": lambda: encoded("WAV", "ALAW"),
    "wav, IMA ADPCM": lambda: encoded("WAV", "IMA_ADPCM"),
    "wav, MS ADPCM": lambda: encoded("WAV", "MS_ADPCM"),
    "wav, MP3 inside": lambda: encoded_by_av("wav", "libmp3lame"),
    "rf64": lambda: encoded("RF64", "PCM_16"),
    "w64": lambda: encoded("W64", "PCM_16"),
    "aiff": lambda: encoded("AIFF", "PCM_16"),
    "au": lambda: encoded("AU", "PCM_16"),
    "caf": lambda: encoded("CAF", "PCM_16"),
    "caf, ALAC": lambda: encoded("CAF", "ALAC_16"),
    "caf, of unknown size": caf_of_unknown_size,
    "flac": lambda: encoded("FLAC"),
    "flac, 24 bit": lambda: encoded("FLAC", "PCM_24"),
    "flac, from a pipe": lambda: flac_with(0),
    "vorbis": lambda: encoded("OGG", "VORBIS"),
    "opus": lambda: encoded("OGG", "OPUS"),
    "mp3": mp3,
    "mp3, tagged": lambda: id3v2() + mp3() + id3v1(),
    "mp3, without Xing": lambda: without_xing(mp3()),
    "mp3, without Xing, tagged": lambda: id3v2(100_000) + without_xing(mp3()) + id3v1(),
    "mp3, without Xing, one bit rate": lambda: without_xing(mp3(variable=False)),
    "mp3, without Xing, 128 kbit/s": av_mp3,
    "mp3, without Xing, appended": lambda: without_xing(mp3()) + without_xing(mp3(other())),
    "mp2": lambda: encoded_by_av("mp2", "mp2", sample_rate=44_100, bit_rate=128_000),
    "webm, Opus": webm,
    "webm, from a pipe": lambda: webm(live="1"),
    "matroska, PCM": lambda: encoded_by_av("matroska", "pcm_s16le"),
    "m4a": m4a,
    "m4a, ALAC": lambda: encoded_by_av("ipod", "alac"),
    "mp4": lambda: encoded_by_av("mp4", "aac", sample_rate=44_100),
    "mp4, in fragments": lambda: encoded_by_av(
        "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "mov": lambda: encoded_by_av("mov", "aac"),
    "3gp": lambda: encoded_by_av("3gp", "aac"),
    "aac": aac,
    "aac, tagged": lambda: id3v2(500) + aac() + id3v1(),
    "aac, LOAS": lambda: encoded_by_av("latm", "aac"),
    "amr": amr,
    "wma": wma,
    "wav, WMA inside": lambda: encoded_by_av("wav", "wmav2", sample_rate=44_100, bit_rate=64_000),
    "avi": lambda: encoded_by_av("avi", "pcm_s16le"),
    "flv": lambda: encoded_by_av("flv", "aac", sample_rate=44_100),
    "mpegts": lambda: encoded_by_av("mpegts", "aac"),
    "ac3": lambda: encoded_by_av("ac3", "ac3", sample_rate=48_000, bit_rate=128_000),
    "wavpack": lambda: encoded_by_av("wv", "wavpack"),
    "tta": lambda: encoded_by_av("tta", "tta"),
    # Headers of programs that write into a pipe.
    **{
        f"wav, sizes {riff:#x} {data:#x}": lambda riff=riff, data=data: wav_with_sizes(  # type: ignore[misc]
            encoded("WAV"), riff, data
        )
        for riff, data in (
            (0xFFFF_FFFF, 0xFFFF_FFFF),
            (0xFFFF_FFFF, 0xFFFF_FFFF - 36),
            (0, 0xFFFF_FFFF),
            (0x7FFF_FFFF, 0x7FFF_FFFF - 36),
            (0x7FFF_F024, 0x7FFF_F000),
            (0x8000_0024, 0x8000_0000),
        )
    },
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_recording_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(WHOLE[name]())
    assert is_recording(read_head(tmp_path / "a"))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"the cat", b"filename,text\n", "caf\u00e9".encode("utf-16"), bytes(5000)),
        *(b"\xff\xfb" * 3000, bytes(range(256)) * 20, b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"),
        *(b"PK\x03\x04", b"<html>", b'{"a": 1}', b"MThd" + bytes(99), b"#!SILK_V3" + bytes(99)),
    ],
)
def test_what_is_no_recording_is_not_taken_for_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert not is_recording(read_head(tmp_path / "a.wav"))


def told_on(content: bytes, tmp_path: Path, name: str = "a.bin") -> tuple[float, tuple[str, ...]]:
    """Return the length in s of what is read of a file, and the notes that tell of a loss."""
    (tmp_path / name).write_bytes(content)
    recording = decode(tmp_path / name)
    notes = tuple(note for note in recording.notes if "resampled to" not in note)
    return len(recording.waveform) / SAMPLE_RATE, notes


@pytest.mark.parametrize("name", WHOLE)
def test_everything_is_read_without_a_word(name: str, tmp_path: Path) -> None:
    content = WHOLE[name]()
    seconds, notes = told_on(content, tmp_path)
    assert notes == ()
    # Decoders differ in the padding of lossy codecs, one frame at each end of a recording.
    assert seconds == pytest.approx(seconds_by_av_at(content, name), abs=0.075)


def seconds_by_av_at(content: bytes, name: str) -> float:
    if name == "caf, ALAC":  # FFmpeg leaves out the last packet's padding twice
        return SECONDS
    if name == "mp3, without Xing, appended":
        return seconds_by_av(without_xing(mp3())) + seconds_by_av(without_xing(mp3(other())))
    return seconds_by_av(content)


# File, its length as read, in s, and what is said.
SAID: dict[str, tuple[Callable[[], bytes], float, str]] = {
    "opus, appended": (
        lambda: encoded("OGG", "OPUS") + encoded("OGG", "OPUS", other()),
        5.5,
        JOINED,
    ),
    "vorbis, appended": (
        lambda: encoded("OGG", "VORBIS") + encoded("OGG", "VORBIS", other()),
        5.5,
        JOINED,
    ),
    "opus and vorbis": (
        lambda: encoded("OGG", "OPUS") + encoded("OGG", "VORBIS", other()),
        5.5,
        JOINED,
    ),
    "vorbis of two rates": (
        lambda: (
            encoded("OGG", "VORBIS")
            + encoded("OGG", "VORBIS", sound(2.0, 44_100), sample_rate=44_100)
        ),
        5.5,
        JOINED,
    ),
    "the same vorbis twice": (lambda: encoded("OGG", "VORBIS") * 2, 7.0, JOINED),
    "mp3, appended": (lambda: mp3() + mp3(other()), 5.5, JOINED),
    "mp3, tagged, appended": (
        lambda: id3v2() + mp3() + id3v1() + id3v2() + mp3(other()) + id3v1(),
        5.5,
        JOINED,
    ),
    "mp3, the second without Xing": (lambda: mp3() + without_xing(mp3(other())), 5.55, JOINED),
    "mp3 of two rates": (lambda: mp3() + mp3(sound(2.0, 44_100), rate=44_100), 5.5, JOINED),
    "wav, appended": (lambda: encoded("WAV") + encoded("WAV", None, other()), 5.5, JOINED),
    "flac, appended": (lambda: encoded("FLAC") + encoded("FLAC", None, other()), 5.5, JOINED),
    "caf, appended": (lambda: encoded("CAF") + encoded("CAF", None, other()), 5.5, JOINED),
    "caf, appended, of unknown size": (lambda: encoded("CAF") + caf_of_unknown_size(), 7.0, JOINED),
    "aiff, appended": (lambda: encoded("AIFF") + encoded("AIFF", None, other()), 5.5, JOINED),
    "au, appended": (lambda: encoded("AU") + encoded("AU", None, other()), 5.5, JOINED),
    "w64, appended": (lambda: encoded("W64") + encoded("W64", None, other()), 5.5, JOINED),
    "rf64, appended": (lambda: encoded("RF64") + encoded("RF64", None, other()), 5.5, JOINED),
    "opus, cut": (
        lambda: cut_between_pages(encoded("OGG", "OPUS")),
        1.97,
        f"breaks off after 1.97 s: {NO_END}",
    ),
    "vorbis, cut": (
        lambda: cut_between_pages(encoded("OGG", "VORBIS")),
        1.96,
        f"breaks off after 1.96 s: {NO_END}",
    ),
    "vorbis, cut in a page": (
        lambda: encoded("OGG", "VORBIS")[:-300],
        2.97,
        f"breaks off after 2.97 s: {NO_END}",
    ),
    "mp3, cut": (
        lambda: mp3()[: len(mp3()) // 2],
        1.62,
        "breaks off after 1.62 s: its header announces more",
    ),
    "mp3, without Xing, cut": (
        lambda: av_mp3()[: len(av_mp3()) // 2],
        1.75,
        "breaks off after 1.75 s: its last frame is cut",
    ),
    "flac, cut": (
        lambda: encoded("FLAC")[: len(encoded("FLAC")) // 2],
        1.54,
        "breaks off after 1.54 s: its header announces more",
    ),
    "flac, from a pipe, cut": (
        lambda: flac_with(0)[: len(flac_with(0)) // 2],
        1.54,
        f"breaks off after 1.54 s: {NO_END}",
    ),
    "w64, cut": (
        lambda: encoded("W64")[: len(encoded("W64")) - 56_000],
        1.75,
        "breaks off after 1.75 s: its header announces more",
    ),
    "rf64, cut": (
        lambda: encoded("RF64")[: len(encoded("RF64")) - 56_000],
        1.75,
        "breaks off after 1.75 s: its header announces more",
    ),
    "wav, cut": (
        lambda: encoded("WAV")[:56_044],
        1.75,
        "breaks off after 1.75 s: its header announces more",
    ),
    "wav of size 0": (lambda: wav_with_sizes(encoded("WAV"), 0, 0), 3.5, NO_SAMPLES_TOLD),
    "wav of size 0, begun": (
        lambda: wav_with_sizes(encoded("WAV"), 36, 0),
        3.5,
        NO_SAMPLES_TOLD,
    ),
    "wav of size 0, riff 8": (
        lambda: wav_with_sizes(encoded("WAV"), 8, 0),
        3.5,
        NO_SAMPLES_TOLD,
    ),
    "wav, data size 0": (lambda: wav_with_sizes(encoded("WAV"), None, 0), 3.5, NO_SAMPLES_TOLD),
    "wav of a size too small": (
        lambda: wav_with_sizes(encoded("WAV"), 20_036, 20_000),
        0.625,
        "2.88 s behind what its header announces are not read",
    ),
    "m4a, cut": (
        lambda: m4a(movflags="+faststart")[:-6000],
        0.0,
        "breaks off after ",
    ),
    "m4a, appended": (lambda: m4a() + m4a(other()), 5.7, JOINED),
    "m4a in fragments, appended": (
        lambda: m4a(movflags="frag_keyframe+empty_moov") * 2,
        7.17,
        JOINED,
    ),
    "webm, appended": (lambda: webm() + webm(sound(2.0, 48_000)), 5.5, JOINED),
    "webm, cut": (lambda: part_of(webm()), 2.13, f"breaks off after 2.13 s: {NO_END_OF_FILE}"),
    "webm, from a pipe, appended": (lambda: webm(live="1") * 2, 7.0, JOINED),
    "webm, from a pipe, cut": (
        lambda: part_of(webm(live="1")),
        2.13,
        f"breaks off after 2.13 s: {NO_END_OF_FILE}",
    ),
    "amr, appended": (lambda: amr() + amr(sound(2.0, 8_000)), 5.54, JOINED),
    "amr, cut": (lambda: part_of(amr()), 2.1, f"breaks off after 2.10 s: {NO_END_OF_FILE}"),
    "wma, appended": (lambda: wma() + wma(sound(2.0, 44_100)), 5.48, JOINED),
    "wma, cut": (lambda: part_of(wma()), 2.14, f"breaks off after 2.14 s: {NO_END_OF_FILE}"),
    "aac, cut": (
        lambda: part_of(aac()),
        2.11,
        "breaks off after 2.11 s: its last packet is damaged",
    ),
    "avi, cut": (
        lambda: part_of(encoded_by_av("avi", "pcm_s16le")),
        2.03,
        f"breaks off after 2.03 s: {NO_END_OF_FILE}",
    ),
    "avi, cut between packets": (
        lambda: encoded_by_av("avi", "pcm_s16le")[: -1000 - 2 * 4096],
        0.0,
        "breaks off after ",
    ),
    "mpeg-ts, cut": (
        lambda: part_of(encoded_by_av("mpegts", "aac"), 0.6)[:-40],
        0.0,
        "breaks off after ",
    ),
    "caf, cut": (
        lambda: part_of(encoded("CAF")),
        2.05,
        "breaks off after ",
    ),
    "mp4 in fragments, cut": (
        lambda: encoded_by_av("mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"})[
            :-6000
        ],
        0.0,
        "breaks off after ",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_lost_or_joined_is_said(name: str, tmp_path: Path) -> None:
    make, seconds, note = SAID[name]
    read, notes = told_on(make(), tmp_path)
    assert len(notes) == 1 and notes[0].startswith(note)
    if seconds:
        assert read == pytest.approx(seconds, abs=0.02)


@pytest.mark.parametrize("container", ["WAV", "OGG", "FLAC", "AIFF", "CAF", "AU"])
def test_a_tag_before_another_format_than_mp3_is_skipped(
    container: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert told_on(id3v2() + encoded(container), tmp_path) == (3.5, ())
    assert capfd.readouterr().err == ""


def test_a_recording_that_is_silent_as_far_as_it_is_read_is_too_long(tmp_path: Path) -> None:
    silence = np.zeros(31 * SAMPLE_RATE, np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([silence, sound()]), SAMPLE_RATE)
    with pytest.raises(UnreadableAudioError) as raised:
        decode(tmp_path / "a.wav")
    assert str(raised.value) == "is 34 s long; its first 30 s are silent, and no more is read"
    assert raised.value.kind == "too_long"
    assert raised.value.cure == "cut the silence before the speech"
    assert decode(tmp_path / "a.wav", kept_seconds=60.0).notes == ()


def test_integers_written_as_floating_point_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound() * 30_000, SAMPLE_RATE, "FLOAT")
    with pytest.raises(UnreadableAudioError, match=r"^has integers of 16 bits as") as raised:
        decode(tmp_path / "a.wav")
    assert raised.value.cure == "divide its samples by 32768"


def test_a_wav_without_samples_is_empty(tmp_path: Path) -> None:
    for content in (encoded("WAV", None, np.zeros(0)), wav_with_sizes(encoded("WAV"), 36, 0)[:44]):
        (tmp_path / "a.wav").write_bytes(content)
        with pytest.raises(UnreadableAudioError, match=r"^is empty: no samples$"):
            decode(tmp_path / "a.wav")


def test_an_ogg_without_its_sound_breaks_off(tmp_path: Path) -> None:
    (tmp_path / "a.ogg").write_bytes(encoded("OGG", "VORBIS")[:4000])
    with pytest.raises(UnreadableAudioError, match=f"^has no samples: {NO_END}$") as raised:
        decode(tmp_path / "a.ogg")
    assert raised.value.kind == "unreadable"
    assert "copy it again" in str(raised.value.cure)


def test_chunks_behind_an_empty_or_a_short_wav_are_no_samples(tmp_path: Path) -> None:
    text = b"ICMT" + (5000).to_bytes(4, "little") + b"a" * 5000
    chunk = b"LIST" + (len(text) + 4).to_bytes(4, "little") + b"INFO" + text
    assert told_on(encoded("WAV") + chunk, tmp_path) == (3.5, ())
    (tmp_path / "a.wav").write_bytes(encoded("WAV", None, np.zeros(0)) + chunk)
    with pytest.raises(UnreadableAudioError, match="no samples"):
        decode(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis", "flac", "wav"])
def test_joined_recordings_have_the_samples_of_each(name: str, tmp_path: Path) -> None:
    first, second = WHOLE[name](), WHOLE[name]()
    (tmp_path / "one").write_bytes(first)
    (tmp_path / "both").write_bytes(first + second)
    one, both = decode(tmp_path / "one").waveform, decode(tmp_path / "both").waveform
    assert np.array_equal(both, np.concatenate([one, one]))


def test_a_mended_header_changes_no_samples(tmp_path: Path) -> None:
    wav = encoded("WAV")
    mended = {
        wav: (wav_with_sizes(wav, 0, 0), wav_with_sizes(wav, 0xFFFF_FFFF, 0xFFFF_FFFF)),
        encoded("FLAC"): (flac_with(0), flac_with(2**36 - 1)),
    }
    for plain, changed in mended.items():
        (tmp_path / "a.bin").write_bytes(plain)
        expected = decode(tmp_path / "a.bin").waveform
        for content in changed:
            (tmp_path / "b.bin").write_bytes(content)
            assert np.array_equal(decode(tmp_path / "b.bin").waveform, expected)


def test_a_long_recording_without_a_xing_frame_is_cut(tmp_path: Path) -> None:
    long = without_xing(mp3(np.tile(sound(3.5), 12)))
    seconds, (note,) = told_on(long, tmp_path)
    assert seconds == 30.0
    assert note.endswith(" s long, only the first 30 s are kept")
    assert int(note.split()[0]) == pytest.approx(42, abs=4)


@pytest.mark.parametrize("name", ["vorbis", "mp3", "wav"])
def test_many_appended_recordings_are_cut(name: str, tmp_path: Path) -> None:
    seconds, notes = told_on(WHOLE[name]() * 20, tmp_path)
    assert seconds == 30.0
    assert "only the first 30 s are kept" in notes[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoded_by_av("ipod", "aac", np.tile(sound(3.5), 12)),
        lambda: b"".join([encoded_by_av("adts", "aac", np.tile(sound(3.5), 12))]),
    ],
)
def test_long_recordings_of_other_formats_are_cut(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    seconds, (note,) = told_on(make(), tmp_path)
    assert seconds == 30.0
    assert note in (
        "42 s long, only the first 30 s are kept",
        "more than 30 s long, only the first 30 s are kept",
    )


def test_no_library_writes_to_stderr(tmp_path: Path) -> None:
    """libmpg123 writes lines without a name."""
    contents = [mp3() + mp3(other()), without_xing(mp3()), mp3()[:-3000], id3v2() + mp3() + id3v1()]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.mp3").write_bytes(content)
    code = (
        "import sys; from pathlib import Path; from hearback.engine.audio.decode import decode\n"
        "for name in sys.argv[1:]: decode(Path(name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment_of_scripts(),
    )
    assert done.stderr == ""


# Channels


def stereo(left: np.ndarray, right: np.ndarray, tmp_path: Path) -> decode_module.Recording:
    (tmp_path / "a.wav").write_bytes(encoded("WAV", "FLOAT", np.stack([left, right], axis=1)))
    return decode(tmp_path / "a.wav")


@pytest.mark.parametrize("part", [-0.95, -0.999, -0.5])
def test_of_channels_that_cancel_the_louder_is_used(part: float, tmp_path: Path) -> None:
    left = sound()
    recording = stereo(left * part, left, tmp_path)
    assert recording.notes == ("2 channels that cancel each other, only channel 2 is used",)
    assert np.array_equal(recording.waveform, left)


def test_channels_that_cancel_in_a_part_of_the_recording_are_noticed(tmp_path: Path) -> None:
    left = np.concatenate([sound(), sound()])
    right = np.float32(0.9) * left
    right[len(left) // 2 :] *= -1
    recording = stereo(left, right, tmp_path)
    assert recording.notes == ("2 channels that cancel each other, only channel 1 is used",)
    assert np.array_equal(recording.waveform, left)


@pytest.mark.parametrize("part", [1.0, 0.3, 0.0])
def test_channels_in_phase_are_averaged(part: float, tmp_path: Path) -> None:
    left = sound()
    recording = stereo(left, left * np.float32(part), tmp_path)
    silent = "" if part else " (1 of them silent)"
    assert recording.notes == (f"2 channels, averaged{silent}",)
    mean = np.stack([left, left * np.float32(part)], axis=1).mean(axis=1)
    assert np.array_equal(recording.waveform, mean)


def test_offsets_and_other_sounds_do_not_cancel(tmp_path: Path) -> None:
    left = sound()
    offset = np.float32(0.3)
    assert stereo(left + offset, left - offset, tmp_path).notes == ("2 channels, averaged",)
    assert stereo(left, other(3.5), tmp_path).notes == ("2 channels, averaged",)


def test_cancelling_channels_of_a_phone_are_noticed(tmp_path: Path) -> None:
    """Also where PyAV decodes."""
    import av

    pcm = np.round(np.stack([sound(), -sound()]) * 32_767).astype(np.int16)
    with av.open(str(tmp_path / "a.m4a"), "w", format="ipod") as file:
        stream = file.add_stream("alac", rate=SAMPLE_RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(pcm.T.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    recording = decode(tmp_path / "a.m4a")
    assert recording.notes == ("2 channels that cancel each other, only channel 1 is used",)
    assert np.abs(recording.waveform[: len(sound())] - sound()).max() < 1e-4


# Without PyAV, and what is no recording


@pytest.fixture
def no_av(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the machine without PyAV and ffmpeg."""
    monkeypatch.setattr(decode_module, "load_av", lambda: None)
    monkeypatch.setattr(decode_module, "find_ffmpeg", lambda: None)


@pytest.mark.parametrize(
    ("name", "suffix", "kind"),
    [
        ("webm, Opus", ".webm", "a WebM or Matroska file"),
        ("webm, Opus", ".wav", "a WebM or Matroska file"),
        ("m4a", ".m4a", r"an M4A file \(MPEG-4\)"),
        ("mp4", ".mp4", "an MP4 file"),
        ("mov", ".mov", "a QuickTime file"),
        ("3gp", ".3gp", "a 3GP file"),
        ("aac", ".aac", r"an AAC file \(ADTS\)"),
        ("aac, tagged", ".mp3", r"an AAC file \(ADTS\)"),
        ("aac, LOAS", "", r"an AAC file \(LOAS\)"),
        ("amr", ".amr", "an AMR file"),
        ("wma", ".wma", r"a WMA file \(Windows Media\)"),
        ("wav, WMA inside", ".wav", "a WAV file"),
        ("avi", ".avi", "an AVI video"),
        ("wavpack", ".wv", "a WavPack file"),
    ],
)
def test_other_formats_are_named_with_the_command_that_converts(
    name: str, suffix: str, kind: str, tmp_path: Path, no_av: None
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(WHOLE[name]())
    with pytest.raises(UnreadableAudioError, match=rf"^is {kind}, which needs PyAV or ff") as error:
        decode(path)
    # The same for all of them, so that a report says it once; PyAV 19 opens files in another way.
    pinned = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["formats"]
    assert error.value.cure == (
        f"install PyAV (`pip install '{pinned[0]}'`) or ffmpeg here; or convert it, "
        "`ffmpeg -i FILE -ar 16000 -ac 1 NEW.wav`, and use NEW.wav in its place"
    )


def test_what_libsndfile_reads_needs_no_pyav(tmp_path: Path, no_av: None) -> None:
    for name in ("wav", "flac", "mp3, without Xing", "opus", "caf", "wav, MP3 inside"):
        assert told_on(WHOLE[name](), tmp_path)[1] == ()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def zip_file() -> bytes:
    import io

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", encoded("WAV"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "cure"),
    [
        (POINTER.encode(), "a Git LFS pointer, not the recording", "git lfs pull"),
        (b"../.git/annex/objects/Xk/SHA256E-s1.wav\n", "a git-annex pointer", "git annex get"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", r"a web page \(HTML\)", "again"),
        (b"<html>\n<h1>Sign in</h1></html>", r"a web page \(HTML\)", "again"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML file", "again"),
        (b'{"error": "not found"}', "a JSON file", "again"),
        (b"Not Found", "a text, not a recording: it begins 'Not Found'", "again"),
        (zip_file(), "a ZIP archive", "unpack it"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive", "unpack it"),
        (b"data:audio/wav;base64,UklGRiQAAABXQVZF", "a recording as base64 text", "base64 -d"),
        (b"UklGRiQAAABXQVZFZm10IBAAAAABAAEA", "a recording as base64 text", "base64 -d"),
        (b"#EXTM3U\nhttp://example.com/a.ts\n", "a playlist", "as one file"),
        (b"\0\x05\x16\x07" + bytes(100), "a Mac's metadata file", "'._'"),
        (bytes(5000), "no recording: its first bytes are zeros", "copy it again"),
    ],
)
def test_what_is_no_recording_is_named(
    content: bytes, kind: str, cure: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(UnreadableAudioError, match=f"^is {kind}") as error:
        decode(path)
    assert error.value.cure is not None and cure in error.value.cure


def test_the_report_has_the_cure_of_the_kind(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text(POINTER)
    report = Report()
    build_store(
        pd.DataFrame({"filename": ["a.wav"], "line": [2]}),
        tmp_path,
        Path("metadata.csv"),
        tmp_path / "store",
        "train",
        report=report,
        progress=False,
    )
    (problem,) = report.errors
    assert problem.what == "the file is a Git LFS pointer, not the recording"
    assert problem.cure == "run `git lfs pull` in the folder of the data, or remove the row"


def test_damaged_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    for name in ("webm, Opus", "m4a", "wma"):
        content = WHOLE[name]()
        (tmp_path / "a.bin").write_bytes(content[:40])
        with pytest.raises(UnreadableAudioError, match=r"^is .* unreadable: ") as error:
            decode(tmp_path / "a.bin")
        assert error.value.cure is not None and "copy it again" in error.value.cure


# The command ffmpeg, where there is no PyAV


FAKE_FFMPEG = """#!{python}
import sys, shutil
source, target = sys.argv[sys.argv.index("-i") + 1], sys.argv[-1]
assert sys.argv[sys.argv.index("-f") + 1] == "mov"
assert source == "file:{source}"
{action}
"""


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a command with an action in ffmpeg's place, without PyAV."""
    (tmp_path / "a.m4a").write_bytes(WHOLE["m4a"]())
    (tmp_path / "result.wav").write_bytes(encoded("WAV"))
    program = tmp_path / "ffmpeg"

    def put(action: str) -> None:
        program.write_text(
            FAKE_FFMPEG.format(python=sys.executable, source=tmp_path / "a.m4a", action=action)
        )
        program.chmod(0o755)
        monkeypatch.setattr(decode_module, "load_av", lambda: None)
        monkeypatch.setattr(decode_module, "find_ffmpeg", lambda: str(program))

    return put


def test_ffmpeg_decodes_where_there_is_no_pyav(
    tmp_path: Path, fake_ffmpeg: Callable[[str], None]
) -> None:
    copy = f"shutil.copy({str(tmp_path / 'result.wav')!r}, target.removeprefix('file:'))"
    fake_ffmpeg(copy)
    recording = decode(tmp_path / "a.m4a")
    assert recording.notes == () and len(recording.waveform) == 56_000
    fake_ffmpeg(f"{copy}; print('stream 0: partial file', file=sys.stderr)")
    assert decode(tmp_path / "a.m4a").notes == ("damaged, as ffmpeg reports",)


def test_what_ffmpeg_refuses_is_refused(
    tmp_path: Path, fake_ffmpeg: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ffmpeg("sys.exit('moov atom not found')")
    with pytest.raises(UnreadableAudioError, match=r"unreadable: ffmpeg does not decode it$"):
        decode(tmp_path / "a.m4a")
    fake_ffmpeg("import time; time.sleep(60)")
    monkeypatch.setattr(other_decoders, "_MOST_SECONDS", 0.2)
    with pytest.raises(UnreadableAudioError, match=r"unreadable: ffmpeg took over 0\.2 s$"):
        decode(tmp_path / "a.m4a")


def test_a_pyav_that_does_not_load_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(other_decoders.load_av(), ModuleType)
    monkeypatch.setitem(sys.modules, "av", None)  # an import then raises ImportError
    assert other_decoders.load_av() is None


# Any bytes


def test_damaged_streams_are_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contents = [
        *(mp3() + mp3(other()), id3v2() + without_xing(mp3())),
        *(encoded("OGG", "VORBIS") * 2, flac_with(0), wav_with_sizes(encoded("WAV"), 0, 0)),
    ]
    path = tmp_path / "a.bin"
    for content in contents:
        for _ in range(30):
            damaged = bytearray(content)
            for position in rng.integers(0, len(damaged), 10):
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(20, len(damaged))])
            try:
                assert len(decode(path).waveform) > 0
            except UnreadableAudioError as error:
                assert str(error)


def test_a_file_of_sync_bytes_ends(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(mp3() + b"\xff" * 3_000_000 + mp3(other()))
    seconds, _ = told_on((tmp_path / "a.mp3").read_bytes(), tmp_path)
    assert seconds >= 3.5


def test_corpus_tones_stay_at_their_level(tmp_path: Path) -> None:
    """What PyAV decodes has the level of what libsndfile decodes."""
    for name, make in (
        ("alac", lambda: encoded_by_av("ipod", "alac", tone(seconds=1.0))),
        ("8 bit", lambda: encoded_by_av("matroska", "pcm_u8", tone(seconds=1.0))),
        ("float", lambda: encoded_by_av("matroska", "pcm_f32le", tone(seconds=1.0))),
        ("32 bit", lambda: encoded_by_av("matroska", "pcm_s32le", tone(seconds=1.0))),
        ("aac", lambda: encoded_by_av("adts", "aac", tone(seconds=1.0), bit_rate=96_000)),
    ):
        (tmp_path / name).write_bytes(make())
        waveform = decode(tmp_path / name).waveform
        assert np.abs(waveform[4000:12_000]).max() == pytest.approx(0.5, abs=0.03), name
