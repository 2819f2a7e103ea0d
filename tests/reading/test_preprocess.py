"""Step 1 of the reading competition."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hearback.engine.audio.store import FileStore
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.reading import preprocessing
from hearback.reading.hard_negatives import read_hard_negatives
from hearback.reading.references import BadReferencesError, References
from hearback.reading.render import VoiceMismatchError, render_missing
from hearback.reading.steps import preprocess
from hearback.reading.voices import RenderError, VoiceError
from tests.helpers import run_main, run_script, tone

HEADER = "filename,task,expected_text,grade\n"


class Tones:
    """A voice with the same tone for every text, except "hush", which it refuses."""

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


@pytest.fixture(autouse=True)
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        preprocessing, "open_voice", lambda _backend, speed, **_options: Tones(speed)
    )


def make_split(data: Path, name: str, texts: list[str]) -> None:
    """Write a split of good recordings: `<name>0.wav`, `<name>1.wav`, ..."""
    data.mkdir(exist_ok=True)
    rows = []
    for n, text in enumerate(texts):
        write_wav(data / f"{name}{n}.wav", tone(), 16_000)
        rows.append(f"{name}{n}.wav,blending,{text},KG\n")
    (data / f"{name}_metadata.csv").write_text(HEADER + "".join(rows))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    if "--hard_negatives" not in flags:
        flags = (*flags, "--hard_negatives", "0")
    return run_main(preprocess.main, monkeypatch, folder, ("data", "tts_data", "store"), *flags)


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
    assert len(FileStore(tmp_path / "store", "train")) == 3
    assert len(FileStore(tmp_path / "store", "test")) == 2
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


def test_no_split_is_an_error_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HearbackError, match=r"python -m hearback\.reading\.corpora\.sample"):
        run(tmp_path, monkeypatch)


def test_all_problems_are_reported_and_good_texts_are_rendered(
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
    for message in (
        "no reference for 'hush': a cold",
        "empty expected_text",
        "train3.wav",
        "'?!'",
        "unknown task 'singing'",
        "missing",
        "the label is '0.5'",
    ):
        assert message in report
    assert report.count("hush") == 1
    assert References(tmp_path / "tts_data").texts == ["the cat", "the dog", "the hen"]


def test_labels_of_words_are_checked_with_the_other_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", ["the cat", "a dog", ""])
    (data / "train_labels.csv").write_text(
        "filename,score\ntrain0.wav,1\ntrain1.wav,0\ntrain2.wav,0.5\n"
    )
    words = data / "train_words.csv"
    header, good = "filename,position,word,share\n", "train0.wav,0,the,1\ntrain0.wav,1,cat,1\n"
    words.write_text(f"{header}{good}train1.wav,0,a,1\ntrain1.wav,2,dog,7\n")
    assert run(tmp_path, monkeypatch) == 2
    report = capsys.readouterr().err
    for message in (
        "no word at position 1",
        "the word's label is share '7'",
        "empty expected_text",
        "the label is '0.5'",
    ):
        assert message in report
    make_split(data, "train", ["the cat", "a dog"])
    (data / "train_labels.csv").write_text("filename,score\ntrain0.wav,1\ntrain1.wav,0\n")
    words.write_text(header + good)
    assert run(tmp_path, monkeypatch) == 0
    assert "train_words.csv" not in capsys.readouterr().err
    words.write_text(header + good.replace("cat", "hat"))
    assert run(tmp_path, monkeypatch) == 0
    assert "1 recording labelled 1, where other words were read" in capsys.readouterr().err


def test_a_table_of_words_without_a_column_is_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat"])
    (tmp_path / "data/train_words.csv").write_text("filename,position,word\ntrain0.wav,0,the\n")
    assert run(tmp_path, monkeypatch) == 2
    assert "no column share or accuracy" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_doubled_rows_of_words_are_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the"])
    words, row = tmp_path / "data/train_words.csv", "train0.wav,0,the,1\n"
    words.write_text(f"filename,position,word,share\n{2 * row}")
    assert run(tmp_path, monkeypatch) == 2
    assert "remove the doubled rows" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_bad_rows_of_words_are_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the", ""])
    words = tmp_path / "data/train_words.csv"
    words.write_text("filename,position,word,share\ntrain0.wav,0,the,7\n")
    assert run(tmp_path, monkeypatch) == 2
    report = capsys.readouterr().err
    assert "the word's label is share '7'" in report and "empty expected_text" in report
    assert not (tmp_path / "store").exists()


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
    for message in ("'test0.wav'", "'hush'", "empty expected_text"):
        assert message in report
    assert set(References(tmp_path / "tts_data").texts) == {"the cat", "the dog"}
    assert run(tmp_path, monkeypatch, "--strict") == 2


def test_recordings_that_the_models_do_not_hear_whole_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", ["the cat", "the hen", "hush"])
    make_split(data, "test", ["the dog", "the pig", "the fox"])
    late = np.concatenate([1e-3 * tone(seconds=17.0), tone(seconds=2.0)])
    for name in ("train0", "train2", "test0"):
        write_wav(data / f"{name}.wav", late, 16_000)
    write_wav(data / "test1.wav", np.concatenate([tone(), 1e-3 * tone(seconds=20.0)]), 16_000)
    write_wav(data / "test2.wav", tone(seconds=15.9), 16_000)  # a reference has 0.3 s
    (data / "train_labels.csv").write_text("filename,score\ntrain0.wav,1\ntrain1.wav,1\n")
    assert run(tmp_path, monkeypatch) == 2  # for "hush"
    report = capsys.readouterr().err
    assert "no reference for 'hush'" in report
    line = (
        "  warning: 19.0 s long; after its reference of 0.3 s, models that join the two hear the "
    )
    assert report.count(f"{line}first 15.7 s: 0.0 of 2.0 s of speech") == 2
    assert "line 2 ('train0.wav')" in report and "line 2 ('test0.wav')" in report
    assert "test1.wav" not in report
    assert "15.9 s long; after its reference of 0.3 s, models that join the two hear" in report
    assert len(FileStore(tmp_path / "store", "train")) == 3


def test_an_invalid_test_table_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_split(tmp_path / "data", "train", ["the cat"])
    (tmp_path / "data/test_metadata.csv").write_text("filename,task,grade\na.wav,blending,KG\n")
    assert run(tmp_path, monkeypatch) == 2


def test_a_missing_column_is_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat"])
    make_split(tmp_path / "data", "test", ["the dog"])
    table = tmp_path / "data" / "test_metadata.csv"
    table.write_text(table.read_text().replace("expected_text", "sentence"))
    assert run(tmp_path, monkeypatch) == 2
    report = capsys.readouterr().err
    assert "the column 'expected_text' is missing" in report
    assert "'sentence' is there: rename it to expected_text" in report
    assert not (tmp_path / "store").exists()


def test_another_voice_is_refused_after_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_split(tmp_path / "data", "train", ["the cat", ""])
    run(tmp_path, monkeypatch)
    capsys.readouterr()
    with pytest.raises(VoiceMismatchError, match="speed"):
        run(tmp_path, monkeypatch, "--speed", "1.0")
    assert "empty expected_text" in capsys.readouterr().err


def test_an_unavailable_voice_is_an_error_after_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_args: object, **_options: object) -> None:
        raise VoiceError("not installed")

    monkeypatch.setattr(preprocessing, "open_voice", absent)
    make_split(tmp_path / "data", "train", ["the cat", ""])
    with pytest.raises(VoiceError):
        run(tmp_path, monkeypatch)
    assert "empty expected_text" in capsys.readouterr().err
    assert len(FileStore(tmp_path / "store", "train")) == 2
    with pytest.raises(BadReferencesError):
        References(tmp_path / "tts_data")


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.wav")}


def test_hard_negatives_are_rendered_and_listed(
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


def test_more_hard_negatives_extend_the_earlier_ones(
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


def test_hard_negatives_depend_on_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat on the mat", "koovnorb"])
    tables = []
    for seed in ("42", "43", "42"):
        run(tmp_path, monkeypatch, "--hard_negatives", "3", "--seed", seed)
        tables.append(read_hard_negatives(tmp_path / "tts_data"))
    assert tables[0] == tables[2] != tables[1]


def test_a_killed_run_gives_the_same_hard_negatives(
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


def test_unrendered_hard_negatives_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Tones, "render", lambda _self, text: tone() if text == "hat" else silent())
    make_split(tmp_path / "data", "train", ["hat"])
    assert run(tmp_path, monkeypatch, "--hard_negatives", "2") == 0
    assert read_hard_negatives(tmp_path / "tts_data") == {}
    assert "2 without a reference left out" in capsys.readouterr().out


def silent() -> NDArray[np.float32]:
    return np.zeros(8_000, dtype=np.float32)


def test_hard_negatives_need_training_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "data", "test", ["the cat"])
    with pytest.raises(HearbackError, match=r"no train_metadata\.csv"):
        run(tmp_path, monkeypatch, "--hard_negatives", "1")
    make_split(tmp_path / "data", "train", ["the cat"])
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, "--hard_negatives", "-1")


@pytest.mark.slow
def test_the_script_with_the_default_voice(tmp_path: Path) -> None:
    make_split(tmp_path / "data", "train", ["the cat", "koovnorb"])
    command = ("preprocess.py", "--tts-data", "spoken")
    printed = run_script(*command, "--speed=0.8", folder=tmp_path)
    # Two texts, and two hard negatives of each.
    assert "6 references in spoken, 6 of them new" in printed
    assert "4 hard negatives of 2 texts" in printed
    assert "rendering: 100%" in printed
    voice = json.loads((tmp_path / "spoken/voice.json").read_text())
    assert (voice["backend"], voice["voice"], voice["speed"]) == ("hibari", "heart", 0.8)
    references = References(tmp_path / "spoken")
    assert all(np.abs(references.waveform(text)).max() > 0.01 for text in references.texts)
    wrong = run_script(*command, "--speed=0.7", folder=tmp_path, status=2)
    assert "are by another voice" in wrong
    assert "Traceback" not in wrong
    assert "--tts" in run_script(*command, "--speed=0.8", "--tts", folder=tmp_path, status=2)


def test_the_number_of_processes_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int | None] = []

    def noting(*args: Any, jobs: int | None) -> int:
        passed.append(jobs)
        return render_missing(*args, jobs=jobs)

    monkeypatch.setattr(preprocessing, "render_missing", noting)
    make_split(tmp_path / "data", "train", ["the cat"])
    run(tmp_path, monkeypatch)
    run(tmp_path, monkeypatch, "--jobs", "3")
    assert passed == [None, 3]
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, "--jobs", "0")


def test_two_hard_negatives_per_text_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "data", "train", ["the cat sat", "a dog ran"])
    folders = ("data", "tts_data", "store")
    assert run_main(preprocess.main, monkeypatch, tmp_path, folders) == 0
    made = read_hard_negatives(tmp_path / "tts_data")
    assert {text: len(several) for text, several in made.items()} == {
        "the cat sat": 2,
        "a dog ran": 2,
    }


def test_nothing_is_rendered_for_models_that_hear_no_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_args: object, **_options: object) -> None:
        raise VoiceError("not installed")

    monkeypatch.setattr(preprocessing, "open_voice", absent)
    make_split(tmp_path / "data", "train", ["the cat", "hush"])
    late = np.concatenate([1e-3 * tone(seconds=17.0), tone(seconds=2.0)])
    write_wav(tmp_path / "data" / "train0.wav", late, 16_000)
    folders = ("data", "tts_data", "store")
    flags = ("--models", "modeltok", "modeltokzero")
    assert run_main(preprocess.main, monkeypatch, tmp_path, folders, *flags) == 0
    printed = capsys.readouterr()
    assert (
        "no reference speech rendered: modeltok, modeltokzero hear none (--models)" in printed.out
    )
    assert "19.0 s long; the models hear the first 16 s: 0.0 of 2.0 s of speech" in printed.err
    assert "join the two" not in printed.err
    assert not (tmp_path / "tts_data").exists()
    assert len(FileStore(tmp_path / "store", "train")) == 2
    with pytest.raises(VoiceError):  # modelali hears them
        run_main(preprocess.main, monkeypatch, tmp_path, folders, *flags, "modelali")


def test_hard_negatives_for_models_that_need_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_split(tmp_path / "data", "train", ["the cat"])
    with pytest.raises(HearbackError, match="modeltok need no rendered ones; omit one"):
        run(tmp_path, monkeypatch, "--hard_negatives", "1", "--models", "modeltok")
    assert not (tmp_path / "store").exists()
