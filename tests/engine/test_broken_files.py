"""Of broken files, each message is our own sentence, with a cure; libraries print nothing."""

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from hearback.engine.audio.c_stderr import silenced
from hearback.engine.audio.decode import UnreadableAudioError, decode
from hearback.engine.audio.level import find_excess
from hearback.engine.audio.mpeg import is_no_mpeg
from hearback.engine.audio.notes import BreakNote
from hearback.engine.audio.other_decoders import open_with_av
from hearback.engine.project import ROOT
from tests.engine.recording_corpus import (
    encoded,
    encoded_by_av,
    id3v1,
    id3v2,
    mp3,
    sound,
    without_xing,
)
from tests.helpers import environment_of_scripts

FORMATS: dict[str, Callable[[], bytes]] = {
    "wav": lambda: encoded("WAV"),
    "aiff": lambda: encoded("AIFF", "PCM_16"),
    "caf": lambda: encoded("CAF", "PCM_16"),
    "flac": lambda: encoded("FLAC"),
    "vorbis": lambda: encoded("OGG", "VORBIS"),
    "opus": lambda: encoded("OGG", "OPUS"),
    "mp3": mp3,
    "mp3, tagged": lambda: id3v2() + mp3(),
    "m4a": lambda: encoded_by_av("ipod", "aac"),
    "mp4, in fragments": lambda: encoded_by_av(
        "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "webm": lambda: encoded_by_av("webm", "libopus", sample_rate=48_000),
    "aac": lambda: encoded_by_av("adts", "aac"),
}

# What may be said of the file, and of a recording that is used.
CUT = r"its header announces more|the end of (its stream|the file) is missing"
REASON = rf"its content is damaged or cut|it has no samples|{CUT}|its encoding is unknown, or .*"
DAMAGE = r"damaged at \d+\.\d\d s( and \d+ other places?)?: about \d+\.\d\d s are missing"
BREAK = (
    rf"(breaks off after \d+\.\d\d s: ({CUT}|its last (packet is damaged|frame is cut))|{DAMAGE})"
)
REFUSED = re.compile(
    r"is empty: 0 bytes|is cut: the file has only \d+ bytes?|has a peak of .* times full scale"
    r"|is of no known format, or its beginning is missing or damaged"
    rf"|is an? [\w ]+file( \([\w-]+\))? that is unreadable: ({REASON})"
    rf"|has no samples: ({CUT})|{BREAK}(; what is there is silent)?"
)
USED = re.compile(
    rf"{BREAK}|[\d.]+ ms are missing at its end: ({CUT})|\d+ damaged packets?"
    r"|[\d.]+ kHz, resampled to .*"
)


def broken(content: bytes) -> list[bytes]:
    """Return a file cut at its end, at its beginning and in its middle, and with other bytes."""
    n_bytes, rng = len(content), np.random.default_rng(0)
    ends = [0, 1, 10, 100, 1024, *(n_bytes * part // 100 for part in (25, 50, 90, 99))]
    heads = [1, 10, 100, 1024, n_bytes // 2]
    noisy = np.frombuffer(content, np.uint8).copy()
    noisy[rng.integers(0, n_bytes, 50)] = rng.integers(0, 256, 50)
    middle = n_bytes * 2 // 5, n_bytes * 3 // 5
    return [
        *(content[:end] for end in ends),
        *(content[head:] for head in heads),
        content[: middle[0]] + content[middle[1] :],
        content[: middle[0]] + rng.bytes(middle[1] - middle[0]) + content[middle[1] :],
        noisy.tobytes(),
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_messages_on_broken_files_are_sentences_with_a_cure(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for content in broken(FORMATS[name]()):
        (tmp_path / "a.bin").write_bytes(content)
        try:
            notes = decode(tmp_path / "a.bin").notes
        except UnreadableAudioError as error:
            assert REFUSED.fullmatch(str(error)), error
            assert error.kind == "unreadable"
            assert error.cure or str(error) == "is empty: 0 bytes" or "peak" in str(error)
        else:
            assert all(USED.fullmatch(note) for note in notes), notes
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "n_bytes"), [("wav", 44), ("wav", 300), ("aiff", 300), ("vorbis", 4000), ("mp3", 100)]
)
def test_a_file_that_is_cut_before_its_sound_is_unreadable(
    name: str, n_bytes: int, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(FORMATS[name]()[:n_bytes])
    with pytest.raises(UnreadableAudioError) as raised:
        decode(tmp_path / "a.bin")
    assert raised.value.kind == "unreadable"
    assert "copy it again" in str(raised.value.cure)


def test_a_short_recording_that_is_whole_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("WAV", None, np.full(100, 0.5)))
    with pytest.raises(UnreadableAudioError, match=r"^is shorter than 0\.05 s$") as raised:
        decode(tmp_path / "a.wav")
    assert raised.value.kind == "too_short"


def test_a_recording_that_breaks_off_in_silence_is_unreadable(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(16_000), np.full(16_000, 0.5)])
    (tmp_path / "a.wav").write_bytes(encoded("WAV", None, sound)[:20_044])
    with pytest.raises(UnreadableAudioError, match=r"what is there is silent$") as raised:
        decode(tmp_path / "a.wav")
    assert raised.value.kind == "unreadable"


def test_bytes_that_begin_like_an_mp3_are_none_by_that() -> None:
    noise = b"\xff\xfb\x90\x00" + np.random.default_rng(0).bytes(20_000)
    assert is_no_mpeg(io.BytesIO(noise), len(noise))
    bare = without_xing(mp3())
    damaged = bare[:500] + noise[4:40] + bare[600:]  # in the second frame
    for content in (bare, damaged, bare[:200], b"\xff\xfb\x00\x00" + noise, noise[1:], b""):
        assert not is_no_mpeg(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    "content",
    [
        b"caff\0\1\0\0desc" + b"\x7f" + b"\xff" * 7 + bytes(40),
        b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67\x01" + b"\xfe" * 7 + b"\xec\x01" + b"\xfe" * 7,
    ],
)
def test_sizes_beyond_any_file_are_damage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(UnreadableAudioError, match=r"file that is unreadable: ") as raised:
        decode(tmp_path / "a.bin")
    assert "copy it again" in str(raised.value.cure)


def test_only_floating_point_may_have_integers() -> None:
    """A damaged MP3 has such peaks too."""
    loud = np.array([-3e4, 3e4], np.float32)
    assert find_excess(loud, is_float=True) == (
        "has integers of 16 bits as floating point (a peak of 30000)",
        "divide its samples by 32768",
    )
    assert find_excess(loud, is_float=False) == ("has a peak of 3e+04 times full scale", None)


def decode_in_another_process(path: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pathlib import Path; from hearback.engine.audio.decode import decode\n"
        "print(*decode(Path(sys.argv[1])).notes, sep='; ')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment_of_scripts(),
    )


def test_eight_channels_do_not_crash_the_process(tmp_path: Path) -> None:
    path, rate = tmp_path / "a.mka", 48_000
    samples = np.tile(np.float32(0.1), (8, 1024))
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("aac", rate=rate, layout="7.1")
        packed = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), "flt", "7.1")
        packed.sample_rate = rate
        resampler = av.AudioResampler("fltp", "7.1", rate, frame_size=1024)
        for _ in range(10):
            for frame in resampler.resample(packed):
                output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    done = decode_in_another_process(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("8 channels, averaged")


# The stderr of C


def damaged_mp3(path: Path) -> Path:
    """Write an MP3 of which libmpg123 complains."""
    content = mp3()
    half = len(content) // 2
    path.write_bytes(content[:half] + content[half + 777 :])
    return path


def test_nothing_is_printed_on_a_damaged_mp3(tmp_path: Path) -> None:
    done = decode_in_another_process(damaged_mp3(tmp_path / "a.mp3"))
    assert (done.returncode, done.stderr) == (0, "")


CHILD = """
import ctypes, os, sys, threading
from hearback.engine.audio.c_stderr import silenced
c = ctypes.CDLL(None)
def say(text):
    c.fputs(text, ctypes.c_void_p.in_dll(c, "stderr"))
say(b"before;")
with silenced():
    say(b"no;")
    with silenced():
        say(b"no;")
    say(b"no;")
    os.write(2, b"python;")
    if not (child := os.fork()):
        say(b"child;")
        os._exit(0)
    os.waitpid(child, 0)
    os.system("echo 'command;' >&2")
say(b"after;")
"""


def test_only_c_code_of_this_process_is_silenced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.replace("\n", "") == "before;python;child;command;after;"


def test_threads_are_silenced_together(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = damaged_mp3(tmp_path / "a.mp3")
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with silenced():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=wait)
    thread.start()
    entered.wait(30)
    first = decode(path).waveform
    leave.set()
    thread.join()
    assert np.array_equal(decode(path).waveform, first)
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_an_mp3_that_lacks_a_few_bytes_is_no_break(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3()[:-10])
    (note,) = [each for each in decode(path).notes if "missing" in each]
    assert re.fullmatch(r"\d\d\.\d ms are missing at its end: its last frame is cut", note)
    # Without a count of its frames nobody knows how much is missing.
    path.write_bytes(without_xing(mp3())[:-10])
    (note,) = [each for each in decode(path).notes if isinstance(each, BreakNote)]
    assert note.startswith("breaks off after")


def notes_on(content: bytes, path: Path) -> list[str]:
    """Return the notes on a file's content, without those on its sample rate and channels."""
    path.write_bytes(content)
    usual = ("resampled", "averaged")
    return [each for each in decode(path).notes if not any(word in each for word in usual)]


@pytest.mark.parametrize("make", [mp3, lambda: id3v2() + without_xing(mp3())])
@pytest.mark.parametrize("damage", [bytes(500), np.random.default_rng(0).bytes(500)])
def test_damage_inside_an_mp3_is_said_with_its_place(
    make: Callable[[], bytes], damage: bytes, tmp_path: Path
) -> None:
    content = make()
    starts = [len(content) // 2, len(content) * 3 // 4]
    once = content[: starts[0]] + damage + content[starts[0] + 500 :]
    (note,) = notes_on(once, tmp_path / "a.mp3")
    said = re.fullmatch(r"damaged at (\d\.\d\d) s: about (0\.\d\d) s are missing", note)
    assert said and isinstance(note, BreakNote)
    (tmp_path / "b.mp3").write_bytes(once[: starts[0]])
    assert float(said[1]) == pytest.approx(
        len(decode(tmp_path / "b.mp3").waveform) / 16_000,
        abs=0.155,  # the encoder's delay
    )
    assert float(said[2]) == pytest.approx(0.15, abs=0.08)
    twice = once[: starts[1]] + damage + once[starts[1] + 500 :]
    (note,) = notes_on(twice, tmp_path / "a.mp3")
    assert note.startswith(f"damaged at {said[1]} s and 1 other place: about 0.")
    (end, inside) = notes_on(twice[:-700], tmp_path / "a.mp3")
    assert end.startswith("breaks off after ") and inside == note


def test_little_damage_inside_an_mp3_is_no_break(tmp_path: Path) -> None:
    content = bytearray(mp3(variable=False))
    at = content.index(content[:2], len(content) // 2)
    content[at : at + 20] = bytes(20)
    (note,) = notes_on(bytes(content), tmp_path / "a.mp3")
    assert note.startswith("damaged at 1.") and not isinstance(note, BreakNote)


def test_damage_behind_what_is_kept_is_not_said(tmp_path: Path) -> None:
    content = bytearray(without_xing(mp3()))
    content[-3000:-2500] = bytes(500)
    (tmp_path / "a.mp3").write_bytes(content)
    (note,) = decode(tmp_path / "a.mp3", kept_seconds=2.0).notes
    assert note.endswith("only the first 2 s are kept")


def ape_tag() -> bytes:
    """Return an APEv2 tag with a footer, without a header."""
    item = b"\x05\0\0\0\0\0\0\0Title\0a \xff\xfb b"
    return item + b"APETAGEX\xd0\x07\0\0" + (len(item) + 32).to_bytes(4, "little") + bytes(16)


def lyrics3() -> bytes:
    """Return a Lyrics3v2 tag, which an ID3v1 tag follows."""
    return b"LYRICSBEGININD0000200LYR00005la la000039LYRICS200" + id3v1()


WHOLE_MP3S: dict[str, Callable[[], bytes]] = {
    "variable bit rate": mp3,
    "one bit rate": lambda: mp3(variable=False),
    "average bit rate": lambda: encoded("MP3", "MPEG_LAYER_III", bitrate_mode="AVERAGE"),
    "stereo": lambda: mp3(np.stack([sound(), sound(pitch=170.0)], axis=1), rate=44_100),
    "MPEG layer 2": lambda: encoded_by_av("mp2", "mp2"),
    "ID3v1": lambda: mp3() + id3v1(),
    "ID3v2": lambda: id3v2() + without_xing(mp3()) + id3v1(),
    "APE": lambda: mp3() + ape_tag() + id3v1(),
    "Lyrics3": lambda: without_xing(mp3()) + lyrics3(),
    "zeros behind it": lambda: mp3() + bytes(3000),
    "beginning in a frame": lambda: id3v2() + without_xing(mp3())[70:],
    "tagged, appended": lambda: (without_xing(mp3()) + ape_tag() + id3v1()) * 2,
    "Lyrics3, appended": lambda: (without_xing(mp3()) + lyrics3()) * 2,
    "zeros between": lambda: without_xing(mp3()) + bytes(3000) + without_xing(mp3()),
}


@pytest.mark.parametrize("name", WHOLE_MP3S)
def test_no_damage_is_said_of_a_whole_mp3(name: str, tmp_path: Path) -> None:
    notes = notes_on(WHOLE_MP3S[name](), tmp_path / "a.mp3")
    assert [note for note in notes if "in the file, joined" not in note] == []


def test_what_a_reader_refuses_is_not_taken_for_damage() -> None:
    content = io.BytesIO(encoded_by_av("adts", "aac"))
    with pytest.raises(UnreadableAudioError, match="has NaN"), open_with_av(av, content, "aac"):
        raise UnreadableAudioError("has NaN or infinite samples")  # as `decode` does there


def test_a_forked_process_can_open_files() -> None:
    program = (
        "import os, sys\n"
        "from hearback.engine.audio import libsndfile\n"
        "libsndfile._opening.acquire()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if libsndfile._opening.acquire(timeout=5) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment_of_scripts(), check=False
    )
    assert done.returncode == 0
