"""Step 1, run as its script runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hearback.engine.audio.store import Store
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.reading.hard_negatives import read_hard_negatives
from hearback.reading.references import BadReferences, OtherVoice, References, render_missing
from hearback.reading.steps import preprocess
from hearback.reading.voices import RenderError, VoiceError

HEADER = "filename,task,expected_text,grade\n"


class Tones:
    """A voice that sings the same tone for every text, and cannot say "hush"."""

    sample_rate = 16_000
    opened = 0

    def __init__(self, speed: float) -> None:
        self.speed = speed
        type(self).opened += 1

    def describe(self) -> dict[str, str | float | int]:
        return {"backend": "tones", "voice": "sine", "speed": self.speed, "sample_rate": 16_000}

    def render(self, text: str) -> NDArray[np.float32]:
        if text == "hush":
            raise RenderError("a cold")
        return tone()

    def close(self) -> None:
        type(self).opened -= 1


def tone() -> NDArray[np.float32]:
    return (0.5 * np.sin(np.arange(8_000) * 0.3)).astype(np.float32)


@pytest.fixture(autouse=True)
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "open_voice", lambda _backend, speed, **_options: Tones(speed))


def make_split(data: Path, name: str, texts: list[str]) -> None:
    """Write a split of good recordings: `<name>0.wav`, `<name>1.wav`, ..."""
    data.mkdir(exist_ok=True)
    rows = []
    for n, text in enumerate(texts):
        write_wav(data / f"{name}{n}.wav", tone(), 16_000)
        rows.append(f"{name}{n}.wav,blending,{text},KG\n")
    (data / f"{name}_metadata.csv").write_text(HEADER + "".join(rows))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    places = [f"--{name}={folder / name}" for name in ("data", "tts_data", "store")]
    if "--hard_negatives" not in flags:
        flags = (*flags, "--hard_negatives", "0")
    monkeypatch.setattr(sys, "argv", ["preprocess.py", *places, *flags])
    return preprocess.main()


def test_train_and_test_are_stored_and_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat", "koovnorb", "the cat"])
    (tmp_path / "data/train_labels.csv").write_text(
        "filename,score\ntrain1.wav,1.0\ntrain0.wav,0\ntrain2.wav,1\n"
    )
    make_split(tmp_path / "data", "test", ["the dog", "the cat"])
    assert run(tmp_path, monkeypatch) == 0
    assert set(References(tmp_path / "tts_data").texts) == {"the cat", "koovnorb", "the dog"}
    assert len(Store(tmp_path / "store", "train")) == 3
    assert len(Store(tmp_path / "store", "test")) == 2
    shown = capsys.readouterr()
    assert "5 recordings" in shown.out
    assert "3 references" in shown.out
    assert "3 of them new" in shown.out
    assert Tones.opened == 0
    assert run(tmp_path, monkeypatch) == 0
    assert "0 of them new" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "test"])
def test_one_split_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make_split(tmp_path / "data", name, ["the cat"])
    assert run(tmp_path, monkeypatch) == 0
    assert References(tmp_path / "tts_data").texts == ["the cat"]


def test_no_split_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HearbackError, match=r"python -m hearback\.corpora\.sample"):
        run(tmp_path, monkeypatch)


def test_every_problem_is_in_one_report_and_what_is_good_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", ["the cat", "hush", "", "the dog", "?!"])
    (data / "train3.wav").write_bytes(b"not audio")
    with (data / "train_metadata.csv").open("a") as file:
        file.write("train9.wav,singing,the hen,KG\n")
    labels = "".join(f"train{n}.wav,{n % 2}\n" for n in (0, 1, 2, 3, 4))
    (data / "train_labels.csv").write_text(f"filename,score\n{labels}train9.wav,0.5\n")
    assert run(tmp_path, monkeypatch) == 2
    report = capsys.readouterr().err
    for said in (
        "no reference for 'hush': a cold",
        "empty expected_text",
        "train3.wav",
        "'?!'",
        "unknown task 'singing'",
        "missing",
        "the label is '0.5'",
    ):
        assert said in report
    assert report.count("hush") == 1
    assert References(tmp_path / "tts_data").texts == ["the cat", "the dog", "the hen"]


def test_bad_test_rows_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", ["the cat"])
    make_split(data, "test", ["the dog", "hush", ""])
    (data / "test0.wav").unlink()
    assert run(tmp_path, monkeypatch) == 0
    report = capsys.readouterr().err
    assert "error:" not in report
    for said in ("'test0.wav'", "'hush'", "empty expected_text"):
        assert said in report
    assert set(References(tmp_path / "tts_data").texts) == {"the cat", "the dog"}
    assert run(tmp_path, monkeypatch, "--strict") == 2


def test_a_test_table_that_is_no_table_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "data", "train", ["the cat"])
    (tmp_path / "data/test_metadata.csv").write_text("filename,task,grade\na.wav,blending,KG\n")
    assert run(tmp_path, monkeypatch) == 2


def test_another_voice_is_refused_and_the_report_is_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat", ""])
    run(tmp_path, monkeypatch)
    capsys.readouterr()
    with pytest.raises(OtherVoice, match="speed"):
        run(tmp_path, monkeypatch, "--speed", "1.0")
    assert "empty expected_text" in capsys.readouterr().err


def test_a_voice_that_cannot_be_opened_leaves_the_report_and_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_args: object, **_options: object) -> None:
        raise VoiceError("not installed")

    monkeypatch.setattr(preprocess, "open_voice", absent)
    make_split(tmp_path / "data", "train", ["the cat", ""])
    with pytest.raises(VoiceError):
        run(tmp_path, monkeypatch)
    assert "empty expected_text" in capsys.readouterr().err
    assert len(Store(tmp_path / "store", "train")) == 2
    with pytest.raises(BadReferences):
        References(tmp_path / "tts_data")


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.wav")}


def test_near_misses_are_rendered_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat", "koovnorb", "the cat sat", ""])
    make_split(tmp_path / "data", "test", ["where is my dog"])
    assert run(tmp_path, monkeypatch, "--hard_negatives", "2") == 2  # for the empty text
    table = read_hard_negatives(tmp_path / "tts_data")
    assert {text: len(several) for text, several in table.items()} == {
        "the cat sat": 2,
        "koovnorb": 2,
    }
    references = References(tmp_path / "tts_data")
    texts = {"the cat sat", "koovnorb", "where is my dog"}
    assert set(references.texts) == texts | {made.text for row in table.values() for made in row}
    assert "4 hard negatives of 2 texts" in capsys.readouterr().out
    # Nothing of the test data goes into what is trained on.
    known = {"the", "cat", "sat", "koovnorb"}
    assert all(
        set(made.text.split()) <= known for made in table["the cat sat"] if made.kind != "respell"
    )


def test_near_misses_are_made_once_and_more_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat", "koovnorb"])
    run(tmp_path, monkeypatch, "--hard_negatives", "2")
    two, spoken = read_hard_negatives(tmp_path / "tts_data"), modified(tmp_path / "tts_data")
    capsys.readouterr()

    run(tmp_path, monkeypatch, "--hard_negatives", "2")
    assert "0 of them new" in capsys.readouterr().out
    assert read_hard_negatives(tmp_path / "tts_data") == two

    run(tmp_path, monkeypatch, "--hard_negatives", "4")
    four = read_hard_negatives(tmp_path / "tts_data")
    assert {text: several[:2] for text, several in four.items()} == two
    assert all(len(several) == 4 for several in four.values())
    assert modified(tmp_path / "tts_data").items() >= spoken.items()

    run(tmp_path, monkeypatch)
    assert read_hard_negatives(tmp_path / "tts_data") == four


def test_the_seed_decides_the_near_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat on the mat", "koovnorb"])
    tables = []
    for seed in ("42", "43", "42"):
        run(tmp_path, monkeypatch, "--hard_negatives", "3", "--seed", seed)
        tables.append(read_hard_negatives(tmp_path / "tts_data"))
    assert tables[0] == tables[2] != tables[1]


def test_a_killed_run_makes_the_same_near_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat", "koovnorb"])
    run(tmp_path, monkeypatch, "--hard_negatives", "2")
    whole = read_hard_negatives(tmp_path / "tts_data")
    # As a kill in the middle of the rendering leaves it.
    spoken = sorted((tmp_path / "tts_data").glob("*.wav"))
    for name in ("data_paths.csv", "hard_negatives.csv", *(path.name for path in spoken[::2])):
        (tmp_path / "tts_data" / name).unlink()
    left = modified(tmp_path / "tts_data")
    run(tmp_path, monkeypatch, "--hard_negatives", "2")
    assert read_hard_negatives(tmp_path / "tts_data") == whole
    assert modified(tmp_path / "tts_data").items() >= left.items()
    assert len(References(tmp_path / "tts_data")) == len(spoken)


def test_a_near_miss_that_cannot_be_said_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Tones, "render", lambda _self, text: tone() if text == "hat" else silent())
    make_split(tmp_path / "data", "train", ["hat"])
    assert run(tmp_path, monkeypatch, "--hard_negatives", "2") == 0
    assert read_hard_negatives(tmp_path / "tts_data") == {}
    assert "2 that the voice cannot say left out" in capsys.readouterr().out


def silent() -> NDArray[np.float32]:
    return np.zeros(8_000, dtype=np.float32)


def test_near_misses_are_of_training_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_split(tmp_path / "data", "test", ["the cat"])
    with pytest.raises(HearbackError, match=r"no train_metadata\.csv"):
        run(tmp_path, monkeypatch, "--hard_negatives", "1")
    make_split(tmp_path / "data", "train", ["the cat"])
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, "--hard_negatives", "-1")


@pytest.mark.slow
def test_the_script_with_its_own_voice(tmp_path: Path) -> None:
    make_split(tmp_path / "data", "train", ["the cat", "koovnorb"])
    script = str(Path(preprocess.__file__))
    command = [sys.executable, script, "--tts-data", "spoken", "--speed=0.8"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    # Two texts, and two hard negatives of each.
    assert "6 references in spoken, 6 of them new" in done.stdout
    assert "4 hard negatives of 2 texts" in done.stdout
    assert "rendering: 100%" in done.stderr
    voice = json.loads((tmp_path / "spoken/voice.json").read_text())
    assert (voice["backend"], voice["voice"], voice["speed"]) == ("hibari", "heart", 0.8)
    references = References(tmp_path / "spoken")
    assert all(np.abs(references.waveform(text)).max() > 0.01 for text in references.texts)
    wrong = subprocess.run(
        [*command[:-1], "--speed=0.7"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "another voice's" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    unknown = subprocess.run(
        [*command, "--tts"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert unknown.returncode == 2
    assert "--tts" in unknown.stderr


def test_the_number_of_processes_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def noting(*args: Any, jobs: int | None) -> int:
        asked.append(jobs)
        return render_missing(*args, jobs=jobs)

    monkeypatch.setattr(preprocess, "render_missing", noting)
    make_split(tmp_path / "data", "train", ["the cat"])
    run(tmp_path, monkeypatch)
    run(tmp_path, monkeypatch, "--jobs", "3")
    assert asked == [None, 3]
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, "--jobs", "0")


def test_a_new_user_gets_two_near_misses_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat", "a dog ran"])
    places = [f"--{name}={tmp_path / name}" for name in ("data", "tts_data", "store")]
    monkeypatch.setattr(sys, "argv", ["preprocess.py", *places])
    assert preprocess.main() == 0
    made = read_hard_negatives(tmp_path / "tts_data")
    assert {text: len(several) for text, several in made.items()} == {
        "the cat sat": 2,
        "a dog ran": 2,
    }
