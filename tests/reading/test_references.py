"""references.py and render.py: each text is rendered once, completely, by one voice per folder."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from hearback.engine.errors import HearbackError
from hearback.engine.locks import ReadOnlyFolderError
from hearback.engine.project import ROOT
from hearback.reading import render as render_module
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.references import (
    BadReferencesError,
    MissingReferenceError,
    References,
    missing_texts,
    reference_id,
)
from hearback.reading.render import (
    UnrenderedTextsError,
    VoiceMismatchError,
    render_missing,
    trim_edges,
    voice_record,
)
from hearback.reading.voices import RenderError, VoiceError
from tests.helpers import make_read_only

TEXTS = ["the cat sat", "koovnorb", "a"]


class Tones:
    """A voice that renders each text as a tone of its own."""

    sample_rate = 24_000

    def __init__(self, speed: float = 0.7, fail: Iterable[str] = (), die_at: str = "") -> None:
        self.speed = speed
        self.fail = set(fail)
        self.die_at = die_at
        self.said: list[str] = []

    def describe(self) -> dict[str, str | float | int]:
        return {"backend": "tones", "voice": "sine", "speed": self.speed, "sample_rate": 24_000}

    def render(self, text: str) -> NDArray[np.float32]:
        if text in self.fail:
            raise RenderError("a cold")
        if text == self.die_at:
            raise VoiceError("the worker has ended")
        self.said.append(text)
        return tone(text, self.sample_rate)

    def close(self) -> None:
        pass


def tone(text: str, sample_rate: int) -> NDArray[np.float32]:
    frequency = 200 + 50 * (len(text) % 40)  # Hz
    time = np.arange(sample_rate * (1 + len(text) % 3) // 4) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def render(
    texts: Iterable[str], folder: Path, voice: Tones | None = None, jobs: int | None = None
) -> int:
    return render_missing(texts, voice or Tones(), folder, progress=False, jobs=jobs)


def test_references_are_the_voice_at_16_khz(tmp_path: Path) -> None:
    assert render(TEXTS, tmp_path) == 3
    references = References(tmp_path)
    assert references.texts == TEXTS
    for text in TEXTS:
        waveform = references.waveform(text)
        assert waveform.dtype == np.float32
        expected = tone(text, 16_000)
        assert waveform.shape == expected.shape == (references.n_samples(text),)
        middle = slice(1000, -1000)  # resampling rings at the ends
        assert np.abs(waveform - expected)[middle].max() < 0.01
        assert text in references
    assert "the dog" not in references
    assert len(references) == 3


def test_silence_is_trimmed_at_the_edges_only() -> None:
    word = tone("word", 16_000)
    silence = np.full(16_000, 1e-4, dtype=np.float32)  # as faint as a voice's own noise
    spoken = np.concatenate([silence, word, silence, word, silence])
    trimmed = trim_edges(spoken)
    edge = 1_600  # 0.1 s
    assert abs(len(trimmed) - (2 * len(word) + 16_000 + 2 * edge)) < 10
    np.testing.assert_array_equal(trim_edges(word), word)


def test_the_layout_of_the_folder(tmp_path: Path) -> None:
    render(TEXTS, tmp_path)
    index = pd.read_csv(tmp_path / "data_paths.csv")
    assert index["text"].tolist() == TEXTS
    assert index["path"].tolist() == [f"{reference_id(text)}.wav" for text in TEXTS]
    assert json.loads((tmp_path / "voice.json").read_text()) == voice_record(Tones())
    info = soundfile.info(tmp_path / f"{reference_id('a')}.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")


def test_only_missing_texts_are_rendered(tmp_path: Path) -> None:
    voice = Tones()
    assert render(["the cat sat", "a", "the cat sat"], tmp_path, voice) == 2
    assert missing_texts(["a", *TEXTS, "koovnorb"], tmp_path) == ["koovnorb"]
    assert render(TEXTS, tmp_path, voice) == 1
    assert render(TEXTS, tmp_path, voice) == 0
    assert voice.said == ["the cat sat", "a", "koovnorb"]
    assert set(References(tmp_path).texts) == set(TEXTS)


def test_earlier_texts_are_kept(tmp_path: Path) -> None:
    render(["the cat sat"], tmp_path)
    render(["a"], tmp_path)
    assert sorted(References(tmp_path).texts) == ["a", "the cat sat"]


def test_the_index_does_not_depend_on_the_number_of_runs(tmp_path: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    render(["the cat sat", "a", "b"], once)
    render(["b"], again)
    render(["the cat sat", "a", "b"], again)
    assert (again / "data_paths.csv").read_bytes() == (once / "data_paths.csv").read_bytes()


def test_rendering_no_texts_gives_an_empty_folder(tmp_path: Path) -> None:
    assert render([], tmp_path) == 0
    assert References(tmp_path).texts == []


@pytest.mark.parametrize("n_bytes", [0, 20, 44, 1000])
def test_a_truncated_file_is_incomplete(tmp_path: Path, n_bytes: int) -> None:
    render(TEXTS, tmp_path)
    path = tmp_path / f"{reference_id('a')}.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:n_bytes])
    with pytest.raises(BadReferencesError, match=r"1 of 3 .*'a'; run `python preprocess\.py"):
        References(tmp_path)
    assert render(TEXTS, tmp_path) == 1
    assert path.read_bytes() == whole


def test_a_file_at_another_sample_rate_is_rendered_again(tmp_path: Path) -> None:
    render(TEXTS, tmp_path)
    soundfile.write(tmp_path / f"{reference_id('a')}.wav", np.ones(800) / 2, 8_000, "PCM_16")
    assert render(TEXTS, tmp_path) == 1


def test_recordings_of_a_killed_run_are_kept(tmp_path: Path) -> None:
    script = f"""
        import itertools, os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_references import Tones, render
        from pathlib import Path

        class Doomed(Tones):
            def render(self, text):
                if len(self.said) == 12:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().render(text)

        render([f"text {{n}}" for n in range(40)], Path({str(tmp_path)!r}), Doomed(), jobs=1)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.wav"))) == 12
    texts = [f"text {n}" for n in range(40)]
    voice = Tones()
    assert render(texts, tmp_path, voice, jobs=1) == 28
    assert voice.said == texts[12:]
    assert References(tmp_path).texts == texts


# Several processes


class Logging(Tones):
    """A voice that logs each text with its process id; the text "kill" kills the process."""

    def __init__(self, log: Path, fail: Iterable[str] = (), die_at: str = "") -> None:
        super().__init__(fail=fail, die_at=die_at)
        self.log = log

    def render(self, text: str) -> NDArray[np.float32]:
        if text == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        waveform = super().render(text)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {text}\n")
        return waveform

    def processes_by_text(self) -> dict[str, str]:
        """Return text -> process id; no text is rendered twice."""
        lines = [line.split(" ", 1) for line in self.log.read_text().splitlines()]
        said = {text: process for process, text in lines}
        assert len(said) == len(lines)
        return said


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_module, "MIN_TEXTS_PER_PROCESS", 1)


MANY = [f"text {'o' * n}" for n in range(20)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.usefixtures("two_processes")
def test_the_number_of_processes_does_not_change_files_or_report(tmp_path: Path) -> None:
    texts = ["hush", *MANY, "shh"]
    failures = []
    for jobs in (1, 2):
        voice = Logging(tmp_path / f"log{jobs}", fail=["hush", "shh"])
        with pytest.raises(UnrenderedTextsError) as caught:
            render(texts, tmp_path / str(jobs), voice, jobs)
        assert caught.value.n_rendered == len(MANY)
        failures.append(list(caught.value.failures.items()))
        said = voice.processes_by_text()
        assert set(said) == set(MANY)
        assert (str(os.getpid()) in said.values()) == (jobs == 1)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert failures[0] == failures[1] == [("hush", "a cold"), ("shh", "a cold")]


@pytest.mark.slow
@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("last", ["kill", "die"])
def test_a_killed_process_or_voice_is_an_error_and_finished_texts_are_kept(
    tmp_path: Path, last: str
) -> None:
    log = tmp_path / "log"
    why = "was killed.*to resume" if last == "kill" else "the worker has ended"
    with pytest.raises(VoiceError, match=why):
        render([*MANY, last], tmp_path / "tts_data", Logging(log, die_at="die"), jobs=2)
    kept = References(tmp_path / "tts_data").texts
    assert set(kept) <= set(Logging(log).processes_by_text())
    assert len(kept) >= len(MANY) - 2
    render(MANY, tmp_path / "tts_data", Logging(log), jobs=1)
    assert len(References(tmp_path / "tts_data")) == len(MANY)


# Slow enough to be killed half-way.
SLOW = """
import sys, time
from pathlib import Path
from test_references import MANY, Logging, render
from hearback.reading import render as render_module

class Slow(Logging):
    def render(self, text):
        time.sleep(0.05)
        return super().render(text)

if __name__ == "__main__":
    render_module.MIN_TEXTS_PER_PROCESS = 1
    render(MANY, Path("tts_data"), Slow(Path("log")), jobs=2)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    here = Path(__file__).parent
    running = subprocess.Popen(
        [sys.executable, "slow.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{here}:{ROOT}"},
    )
    log = tmp_path / "log"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= 6)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    voice = Logging(log)
    processes = set(voice.processes_by_text().values())
    wait_until(lambda: not any(Path("/proc", process).exists() for process in processes))
    n_whole = len(MANY) - len(missing_texts_on_disk(tmp_path / "tts_data"))
    assert 6 - len(processes) <= n_whole < len(MANY)

    log.unlink()
    assert render(MANY, tmp_path / "tts_data", voice, jobs=1) == len(MANY) - n_whole
    assert len(voice.processes_by_text()) == len(MANY) - n_whole
    render(MANY, tmp_path / "undisturbed", jobs=1)
    assert contents(tmp_path / "tts_data") == contents(tmp_path / "undisturbed")


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(2400):
        if done():
            return
        time.sleep(0.05)
    pytest.fail("timeout")


def missing_texts_on_disk(folder: Path) -> list[str]:
    """Return the texts without a file, listed or not."""
    return [text for text in MANY if not (folder / f"{reference_id(text)}.wav").exists()]


@pytest.mark.slow
@pytest.mark.usefixtures("two_processes")
def test_a_voice_that_cannot_be_opened_in_another_process_says_why(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="not on that machine"):
        render(MANY, tmp_path, Homebound(), jobs=2)


class Homebound(Tones):
    """A voice that cannot be opened in another process."""

    def __reduce__(self) -> tuple[Callable[[], Tones], tuple[()]]:
        return not_there, ()


def not_there() -> Tones:
    raise VoiceError("not on that machine")


def test_few_texts_need_no_other_process(tmp_path: Path) -> None:
    voice = Tones()
    assert render(TEXTS, tmp_path, voice, jobs=8) == 3
    assert voice.said == TEXTS  # said here


def test_an_interrupted_write_leaves_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: Path, _data: object) -> None:
        with file.open("wb") as begun:
            begun.write(b"RIFF half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render(TEXTS, tmp_path)
    assert not list(tmp_path.glob("*.wav"))


def test_the_voice_is_recorded_before_its_first_recording(tmp_path: Path) -> None:
    class Watching(Tones):
        def render(self, text: str) -> NDArray[np.float32]:
            assert (tmp_path / "voice.json").is_file()
            return super().render(text)

    assert render(TEXTS, tmp_path, Watching()) == 3


def test_another_voice_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    render(TEXTS, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = Tones(speed=1.0)
    with pytest.raises(VoiceMismatchError, match=r"speed: 0\.7 there, 1\.0 requested") as caught:
        render(["the dog"], tmp_path, other)
    assert "another folder" in str(caught.value)
    assert "backend" not in str(caught.value)
    assert other.said == []
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_references_without_a_voice_file_are_refused(tmp_path: Path) -> None:
    render(TEXTS, tmp_path)
    (tmp_path / "voice.json").unlink()
    with pytest.raises(BadReferencesError, match=r"voice\.json"):
        render(TEXTS, tmp_path)
    with pytest.raises(BadReferencesError, match=r"preprocess\.py"):
        References(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"backend": '])
def test_a_damaged_voice_is_refused(tmp_path: Path, content: str) -> None:
    render(TEXTS, tmp_path)
    (tmp_path / "voice.json").write_text(content)
    with pytest.raises(BadReferencesError, match="damaged"):
        References(tmp_path)
    with pytest.raises(BadReferencesError, match="damaged"):
        render(TEXTS, tmp_path)


def test_unspeakable_texts_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(UnrenderedTextsError) as caught:
        render(["hush", *TEXTS, "?!", "shh"], tmp_path, Tones(fail=["hush", "shh"]))
    assert caught.value.failures == {
        "hush": "a cold",
        "?!": "it has no letter and no digit",
        "shh": "a cold",
    }
    assert caught.value.n_rendered == 3
    assert all(f"{text!r}" in str(caught.value) for text in caught.value.failures)
    assert References(tmp_path).texts == TEXTS


@pytest.mark.parametrize(
    ("samples", "why"),
    [([], "no audio"), ([0.0] * 500, "silence"), ([0.5, float("nan")] * 500, "NaN")],
)
def test_empty_silent_or_invalid_audio_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: list[float], why: str
) -> None:
    monkeypatch.setattr(Tones, "render", lambda *_: np.array(samples, dtype=np.float32))
    with pytest.raises(UnrenderedTextsError, match=why):
        render(["a"], tmp_path)
    assert not list(tmp_path.glob("*.wav"))


def test_texts_rendered_before_the_voice_died_are_kept(tmp_path: Path) -> None:
    with pytest.raises(VoiceError):
        render(TEXTS, tmp_path, Tones(die_at="a"))
    assert References(tmp_path).texts == TEXTS[:2]


def test_odd_texts_are_read_back_exactly(tmp_path: Path) -> None:
    texts = ["null", "NA", "nan", "1", "1.0", 'say "hi", ok', "a\nb", "a\r\nb", "a\rb", "été", "’t"]
    assert render(texts, tmp_path) == len(texts)
    assert References(tmp_path).texts == texts
    assert render(texts, tmp_path) == 0


def test_loud_audio_clips_and_does_not_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tones, "render", lambda *_: 1.5 * np.ones(24_000, dtype=np.float32))
    render(["a"], tmp_path)
    assert References(tmp_path).waveform("a")[1000:-1000].min() > 0.99


def test_a_missing_text_is_named_with_the_command_that_renders_it(tmp_path: Path) -> None:
    render(TEXTS, tmp_path)
    references = References(tmp_path)
    command = f"`python preprocess.py --tts_data {tmp_path} --voice tones --speed 0.7`"
    for ask in (references.waveform, references.n_samples):
        with pytest.raises(MissingReferenceError) as caught:
            ask("the dog")
        assert "'the dog'" in str(caught.value)
        assert command in str(caught.value)
    with pytest.raises(MissingReferenceError):
        references.fingerprint(["the dog"])


def test_a_missing_folder_is_reported_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(BadReferencesError, match=r"run `python preprocess\.py`"):
        References(tmp_path / "tts_data")


def test_a_fingerprint_depends_on_its_texts_only(tmp_path: Path) -> None:
    render(TEXTS, tmp_path / "a")
    before = References(tmp_path / "a").fingerprint(TEXTS)
    assert before == References(tmp_path / "a").fingerprint()
    render(["the dog"], tmp_path / "a")
    more = References(tmp_path / "a")
    assert more.fingerprint(reversed(TEXTS)) == before
    assert more.fingerprint() != before
    assert more.fingerprint(TEXTS[:2]) != before


def test_a_fingerprint_depends_on_audio_and_voice(tmp_path: Path) -> None:
    render(TEXTS, tmp_path)
    before = References(tmp_path).fingerprint()
    path = tmp_path / f"{reference_id('a')}.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + b"\x01\x02")
    assert References(tmp_path).fingerprint() != before
    path.write_bytes(whole)
    assert References(tmp_path).fingerprint() == before
    (tmp_path / "voice.json").write_text(json.dumps(voice_record(Tones(speed=1.0))))
    assert References(tmp_path).fingerprint() != before


def test_texts_with_the_same_id_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_module, "reference_id", lambda _text: "0" * 16)
    with pytest.raises(HearbackError, match="'koovnorb' and 'the cat sat' have the same id"):
        render(TEXTS, tmp_path)


def test_ids_are_pinned() -> None:
    assert reference_id("the cat sat") == "77255f02a3435d1f"


@pytest.mark.parametrize("row", ["../a.wav,a", "/etc/passwd,a", "a.wav,", ",a"])
def test_an_index_with_paths_outside_the_folder_is_refused(tmp_path: Path, row: str) -> None:
    render([], tmp_path)
    (tmp_path / "data_paths.csv").write_text(f"path,text\n{row}\n")
    with pytest.raises(BadReferencesError, match="line 2"):
        References(tmp_path)


def test_an_index_without_its_columns_is_refused(tmp_path: Path) -> None:
    render([], tmp_path)
    (tmp_path / "data_paths.csv").write_text("file,words\na.wav,a\n")
    with pytest.raises(BadReferencesError, match="no columns path and text"):
        References(tmp_path)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b'"' + b"x" * 200_000 + b'"'])
def test_a_damaged_index_is_reported_with_its_cure(tmp_path: Path, damage: bytes) -> None:
    render(TEXTS, tmp_path)
    index = tmp_path / "data_paths.csv"
    index.write_bytes(index.read_bytes() + damage)
    with pytest.raises(
        BadReferencesError, match=r"data_paths\.csv: damaged .* delete it and render"
    ):
        References(tmp_path)


def test_complete_references_are_used_on_a_read_only_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(TEXTS, tmp_path)
    (tmp_path / ".lock").unlink(missing_ok=True)
    before = contents(tmp_path)
    make_read_only(monkeypatch, tmp_path)
    voice = Tones()
    assert render(TEXTS, tmp_path, voice) == 0
    assert not voice.said and contents(tmp_path) == before
    with pytest.raises(ReadOnlyFolderError) as refusal:
        render([*TEXTS, "one more"], tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path}: cannot be written to (Read-only file system); some texts have no complete "
        "reference there: choose a writable folder with --tts_data"
    )


def test_an_unchanged_table_of_hard_negatives_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    negatives = {"the cat": [HardNegative("the bat", "substitute", (1,))]}
    write_hard_negatives(negatives, tmp_path)
    make_read_only(monkeypatch, tmp_path)
    write_hard_negatives(negatives, tmp_path)
    with pytest.raises(OSError, match="Read-only"):
        write_hard_negatives({}, tmp_path)
