"""score.py from the command line: its three forms, its outputs, and its errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine import cli
from hearback.engine.audio import decode
from hearback.engine.project import ROOT
from hearback.reading.steps import report
from hearback.reading.steps import score as step
from tests.engine.page.page_reader import read_page
from tests.reading.scoring.conftest import SENTENCES, render


class Run:
    """Runs the step in a folder; has what it printed."""

    def __init__(
        self,
        folder: Path,
        scorer: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.folder, self.scorer, self.capsys, self.monkeypatch = (
            folder,
            scorer,
            capsys,
            monkeypatch,
        )
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        flags = ("--scorer", self.scorer, "--device", "cpu", "--precision", "float32")
        self.monkeypatch.setattr(sys, "argv", ["score.py", *map(str, (*arguments, *flags))])
        self.monkeypatch.chdir(self.folder)
        with pytest.raises(SystemExit) as caught:
            cli.run(step.main)
        self.out, self.err = self.capsys.readouterr()
        return int(caught.value.code or 0)


@pytest.fixture
def run(
    tmp_path: Path,
    toy_scorer: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    return Run(tmp_path, toy_scorer, capsys, monkeypatch)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "recordings"}


def test_one_recording_is_shown_and_writes_nothing_by_itself(run: Run, clips: Path) -> None:
    assert run("recordings/c.wav", "--text", "The dog ran home") == 0
    assert run.out.startswith("score  status") and "1 recording: 1 " in run.out
    assert "c.wav" in run.out
    assert run.err == ""
    assert names_in(run.folder) == set()
    assert run("recordings/c.wav", "--out", "one.csv") == 0
    assert names_in(run.folder) == {"one.csv", "one.html", "one_origin.json", "one_words.csv"}
    assert pd.read_csv(run.folder / "one.csv")["text"].tolist() == ["the dog ran home"]


def test_a_folder_writes_two_tables_and_a_page(run: Run, clips: Path) -> None:
    assert run("recordings") == 0
    tables = {"scores.csv", "scores_origin.json", "scores_words.csv"}
    assert names_in(run.folder) == {*tables, "scores.html"}
    scores = pd.read_csv(run.folder / "scores.csv")
    assert list(scores.columns) == ["filename", "score", "status", "seconds", "text", "note"]
    assert scores["filename"].tolist() == ["a.wav", "c.wav", "deep/b.wav"]
    assert set(scores["status"]) <= {"ok", "unsure"} and scores["score"].notna().all()
    words = pd.read_csv(run.folder / "scores_words.csv")
    assert list(words.columns) == [
        *("filename", "position", "word", "written", "score", "status", "start", "end")
    ]
    assert len(words) == 8 and (words["end"] >= words["start"]).all()


def test_a_table_gives_json_and_textgrids(run: Run, clips: Path) -> None:
    table = clips / "table.csv"
    table.write_text("filename,text,speaker\na.wav,Boy!,s1\nc.wav,the dog ran home,\n")
    flags = ("--out", "o/s.csv", "--json", "o/s.json", "--textgrid", "o/grids")
    assert run("recordings/table.csv", *flags) == 0
    values = json.loads((run.folder / "o" / "s.json").read_text())
    assert values["scorer"] == str(run.scorer)
    first = values["scores"][0]
    assert (first["filename"], first["text"], first["speaker"]) == ("a.wav", "Boy!", "s1")
    assert first["words"][0].keys() == {
        *("word", "written", "probability", "start_seconds", "end_seconds")
    }
    assert names_in(run.folder / "o" / "grids") == {"a.TextGrid", "c.TextGrid"}
    assert "speaker" in pd.read_csv(run.folder / "o" / "s.csv").columns
    assert "s.json: 2 recordings" in run.out and "2 TextGrids" in run.out


def test_a_manifest_and_recordings_without_a_suffix_are_scored(run: Run, clips: Path) -> None:
    (clips / "a.wav").rename(clips / "a")
    (clips / "manifest.json").write_text(
        '{"audio_filepath": "a", "duration": 9.5, "text": "boy"}\n'
        '{"audio_filepath": "c.wav", "text": "the dog ran home"\n'
        '{"audio_filepath": "deep/b.wav", "text": "a red hat"}\n'
    )
    assert run("recordings/manifest.json") == 0
    scores = pd.read_csv(run.folder / "scores.csv")
    assert scores["filename"].fillna("").tolist() == ["a", "", "deep/b.wav"]
    assert scores["score"].notna().tolist() == [True, False, True]
    assert "error: not JSON: expecting ',' delimiter at character 55\n    line 2\n" in run.err
    assert "its duration is 9.5 s, but the recording has " in run.err
    assert run("recordings") == 0
    scores = pd.read_csv(run.folder / "scores.csv")
    assert scores["filename"].tolist() == ["a", "c.wav", "deep/b.wav"]
    assert scores["score"].notna().all()


@pytest.mark.parametrize(
    "arguments",
    [
        ("table.csv", "--out", "table.csv"),
        ("table.csv", "--json", "./table.csv"),
        ("scores.csv",),
        ("table_words.csv", "--out", "table.csv"),
        ("recordings", "--json", "recordings/c.lab"),
        ("recordings", "--json", "recordings/whole.wav.txt"),
        ("recordings/c.wav", "--text", "the dog", "--json", "recordings/c.wav"),
        ("recordings/c.wav", "--text", "the dog", "--out", "x.csv", "--page", "linked.html"),
    ],
)
def test_no_output_replaces_what_is_read(run: Run, clips: Path, arguments: tuple[str, ...]) -> None:
    for name in ("table.csv", "scores.csv", "table_words.csv"):
        (run.folder / name).write_text("filename,text,pupil\nrecordings/c.wav,the dog,7\n")
    (run.folder / "linked.html").symlink_to("recordings/c.wav")
    (clips / "whole.wav").write_bytes((clips / "c.wav").read_bytes())
    (clips / "whole.wav.txt").write_text("the dog ran home")
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert run(*arguments) == 2
    assert "is read, and would be replaced" in run.err
    after = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert after == before


def test_the_page_has_the_scores_words_and_sound(run: Run, clips: Path) -> None:
    assert run("recordings", "--page", "page.html") == 0
    assert "page.html: 3 recordings, 3 of them to listen to" in run.out
    page = read_page(run.folder / "page.html")
    scores = pd.read_csv(run.folder / "scores.csv")
    recordings = page["recordings"]
    assert recordings["filenames"] == scores["filename"].tolist()
    assert recordings["predictions"]["score"] == pytest.approx(scores["score"].tolist(), abs=1e-4)
    words = pd.read_csv(run.folder / "scores_words.csv")
    of_last = words[words["filename"] == "deep/b.wav"]
    assert recordings["words"]["2"]["words"] == of_last["word"].tolist()
    assert recordings["words"]["2"]["ends"] == pytest.approx(of_last["end"].tolist(), abs=0.01)
    assert all(recordings["clips"][index]["learner"] for index in "012")
    assert f"scored by {run.scorer.name}:" in page["verdict"]["sentences"][0]
    assert str(run.scorer) not in (run.folder / "page.html").read_text()  # a path may have names
    assert page["report_command"] == "python report.py --scores scores.csv --out page.html"


def test_report_gives_the_page_back_without_any_further_flag(
    run: Run, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("recordings") == 0
    first = read_page(run.folder / "scores.html")
    (run.folder / "scores.html").unlink()
    monkeypatch.setattr(sys, "argv", ["report.py", "--scores", "scores.csv"])
    report.main()
    again = read_page(run.folder / "scores.html")
    assert again["verdict"] == first["verdict"]
    assert again["recordings"]["clips"] == first["recordings"]["clips"]
    assert again["recordings"]["words"].keys() == first["recordings"]["words"].keys()
    # A flag goes before what is remembered.
    monkeypatch.setattr(sys, "argv", ["report.py", "--scores", "scores.csv", "--scorer", "tiny.en"])
    report.main()
    other = read_page(run.folder / "scores.html")
    assert "scored by tiny.en:" in other["verdict"]["sentences"][0]


def test_no_page_is_written_where_none_is_wanted(run: Run, clips: Path) -> None:
    assert run("recordings", "--no_page") == 0
    assert names_in(run.folder) == {"scores.csv", "scores_origin.json", "scores_words.csv"}
    assert run("recordings", "--no_page", "--page", "p.html") == 2
    assert "leave one of them out" in run.err


def test_json_on_standard_output_is_nothing_but_json(run: Run, clips: Path) -> None:
    assert run("recordings/a.wav", "--json", "-") == 0
    assert len(json.loads(run.out)["scores"]) == 1
    assert run("recordings", "--json", "-", "--textgrid", "grids") == 0
    assert len(json.loads(run.out)["scores"]) == 3


def test_problems_are_printed_before_the_scores(run: Run, clips: Path) -> None:
    (clips / "a.txt").write_text("10/11")
    soundfile.write(clips / "d.wav", np.zeros(16_000), 16_000)
    (clips / "d.txt").write_text("boy")
    assert run("recordings") == 0
    assert "the recording is silent" in run.err and "several" in run.err
    problems = pd.read_csv(run.folder / "scores_problems.csv").set_index("filename")
    assert problems["status"].loc[["a.wav", "d.wav"]].tolist() == ["unreadable", "silent"]
    scores = pd.read_csv(run.folder / "scores.csv").set_index("filename")
    assert scores["status"].loc[["a.wav", "d.wav"]].tolist() == ["unreadable", "silent"]
    assert scores["score"].isna().loc[["a.wav", "d.wav"]].all()
    assert scores["note"].loc["d.wav"].startswith("the recording is silent")
    assert "2 ok" in run.out or "unsure" in run.out


def test_what_the_scorer_finds_is_a_problem_too(run: Run, clips: Path) -> None:
    speech, rate = soundfile.read(clips / "a.wav")
    soundfile.write(clips / "a.wav", np.clip(50 * speech, -1, 1), rate)
    (clips / "c.lab").write_text("10/11")
    assert run("recordings", "--json", "s.json") == 0
    table = pd.read_csv(run.folder / "scores_problems.csv")
    assert table["filename"].tolist()[-2:] == ["a.wav", "c.wav"]
    assert table["status"].tolist()[-2:] == ["clipped", "unreadable"]
    assert "error: " in run.err and "of the speech is cut off at the peak" in run.err
    found = json.loads((run.folder / "s.json").read_text())
    assert [each["what"] for each in found["problems"]] == table["what"].tolist()
    scores = pd.read_csv(run.folder / "scores.csv").set_index("filename")
    # A recording that was read has a length, whatever its text is.
    assert scores["seconds"].notna().all()

    (run.folder / "table.csv").write_text("filename,text\na.wav,boy\nnone.wav,dog\n")
    assert run("table.csv", "--data", "recordings", "--json", "s.json") == 2
    found = json.loads((run.folder / "s.json").read_text())["problems"]
    assert [(each["row"], each["status"]) for each in found if each["row"]] == [
        *((2, "clipped"), (3, "unreadable"))
    ]


def test_a_table_of_another_folder_is_refused(run: Run, clips: Path) -> None:
    (run.folder / "table.csv").write_text("filename,text\na.wav,boy\nc.wav,dog\n")
    assert run("table.csv") == 2
    message = (
        "table.csv: none of its 2 recordings is in .; name the folder that has them with --data"
    )
    assert message in run.err
    assert "scores.csv" not in names_in(run.folder)
    assert run("table.csv", "--data", "recordings") == 0


def test_a_single_recording_without_a_score_has_a_status(run: Run, clips: Path) -> None:
    soundfile.write(clips / "d.wav", np.zeros(16_000), 16_000)
    assert run("recordings/d.wav", "--text", "boy") == 2
    assert "silent  d.wav" in run.out
    assert run.err.endswith("\nthe recording has no score: silent\n")


@pytest.mark.parametrize("is_table", [True, False])
def test_without_any_score_the_status_is_2_and_the_tables_are_written(
    run: Run, is_table: bool
) -> None:
    folder = run.folder / "recordings"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.wav").write_bytes(b"RIFF")
        (folder / f"{name}.txt").write_text("the cat")
    table = folder / "table.csv"
    table.write_text("filename,text\na.wav,the cat\nb.wav,the cat\n")
    assert run(table if is_table else "recordings") == 2
    assert run.err.endswith("\nnone of 2 recordings has a score: 2 unreadable\n")
    scores = pd.read_csv(run.folder / "scores.csv")
    assert scores["status"].tolist() == ["unreadable"] * 2


def test_without_any_word_the_numbers_are_still_said(run: Run, clips: Path) -> None:
    for path in (*clips.rglob("*.txt"), *clips.rglob("*.lab")):
        path.write_text("10/11")  # of several readings
    assert run("recordings", "--textgrid", "grids", "--no_page") == 2
    assert "wrote scores.csv: 3 recordings; scores_words.csv: no words\n" in run.out
    # The recordings were read: their TextGrids have the texts as written.
    assert "wrote grids: 3 TextGrids\n" in run.out
    assert "10/11" in (run.folder / "grids" / "a.TextGrid").read_text()


def test_linked_recordings_and_folders_are_scored(run: Run, clips: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    clips.rename(kept)
    clips.mkdir()
    for name in ("a.wav", "a.txt", "deep"):
        (clips / name).symlink_to(kept / name)
    (clips / "round").symlink_to(clips)
    assert run("recordings") == 0
    assert pd.read_csv(run.folder / "scores.csv")["filename"].tolist() == ["a.wav", "deep/b.wav"]
    (clips / "table.csv").write_text("filename,text\na.wav,boy\n../kept/c.wav,dog\n")
    assert run(clips / "table.csv") == 0
    assert pd.read_csv(run.folder / "scores.csv")["score"].notna().tolist() == [True, False]
    assert "the filename leads out of the data folder" in run.err


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere", "a.wav", "/proc/self/mem"])
def test_links_to_no_recording_are_unreadable(run: Run, clips: Path, target: str) -> None:
    (clips / "a.wav").unlink()
    (clips / "a.wav").symlink_to(target)
    assert run("recordings") == 0
    scores = pd.read_csv(run.folder / "scores.csv").set_index("filename")
    assert scores["status"].loc["a.wav"] == "unreadable"


def test_a_missing_recording_with_an_empty_text_has_both_errors(run: Run, clips: Path) -> None:
    (clips / "a.wav").unlink()
    (clips / "a.wav").symlink_to("nowhere")
    (clips / "a.txt").write_text("")
    assert run("recordings") == 0
    note = pd.read_csv(run.folder / "scores.csv").set_index("filename")["note"].loc["a.wav"]
    assert note.startswith("empty text; fill in ") and "; the recording is missing; " in note
    assert "the recording is missing" in " ".join(run.out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recordings", "--out", "recordings"), "recordings: is a folder; name a file in it"),
        (("recordings", "--out", "."), ".: is a folder; name a file in it"),
        (("recordings", "--out", "-"), "--json - writes to standard output"),
        (("recordings", "--out", "n" * 250 + ".csv"), "use a shorter name"),
        (("n" * 300,), "use a shorter name"),
        (
            ("recordings/c.wav", "--text", "b\udcff"),
            r"--text b\udcff: is no UTF-8, and no table",
        ),
        (
            ("recordings", "--out", "b\udcff.csv"),
            r"--out b\udcff.csv: is no UTF-8, and no table",
        ),
        (("recordings", "--textgrid", "file"), "file: is a file; name a folder"),
        (("recordings", "--json", "file/s.json"), "file/s.json: cannot be written"),
        (("none",), "none: no such file or folder"),
        (("file",), "its first line names no column"),
        (("recordings", "--grade", "9"), "unknown grade '9'"),
        (("recordings", "--page"), "--page"),
    ],
)
def test_mistakes_are_one_message_and_status_2(
    run: Run, clips: Path, arguments: tuple[str, ...], message: str
) -> None:
    (run.folder / "file").write_text("x\ny\n")
    assert run(*arguments) == 2
    assert message in run.err and "Traceback" not in run.err
    assert names_in(run.folder) == {"file"}


def test_an_m4a_without_a_decoder_names_the_cure(
    run: Run, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "load_av", lambda: None)
    monkeypatch.setattr(decode, "find_ffmpeg", lambda: None)
    (clips / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(64))
    assert run("recordings") == 0
    scores = pd.read_csv(run.folder / "scores.csv").set_index("filename")
    assert scores["status"].loc["a.m4a"] == "unreadable"
    assert "install PyAV (`pip install 'av>=14,<19'`) or ffmpeg" in scores["note"].loc["a.m4a"]
    assert "install PyAV (`pip install 'av>=14,<19'`) or ffmpeg" in run.err


@pytest.mark.slow
def test_the_script_scores_a_folder_with_real_weights(real_scorer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number, text in enumerate(SENTENCES[:3]):
        soundfile.write(folder / f"{number}.wav", render(text), 16_000)
        spoken = text if number else SENTENCES[4]
        (folder / f"{number}.txt").write_text(spoken)
    flags = ["--scorer", str(real_scorer), "--device", "cpu", "--textgrid", "grids"]
    for command in ([str(ROOT / "score.py")], ["-m", "hearback", "score"]):
        done = subprocess.run(
            [sys.executable, *command, "recordings", *flags],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        scores = pd.read_csv(tmp_path / "scores.csv")["score"]
        assert scores[0] < 0.3 and (scores[1:] > 0.7).all()
    assert len(list((tmp_path / "grids").iterdir())) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--out", "same.csv", "--json", "same.csv"),
        ("--out", "same.csv", "--json", "same_words.csv"),
        ("--out", "same.html"),
        ("--out", "x.csv", "--json", "same.html", "--page", "same.html"),
    ],
)
def test_no_output_replaces_another(run: Run, clips: Path, arguments: tuple[str, ...]) -> None:
    (clips / "table.csv").write_text("filename,text\nc.wav,the dog\n")
    assert run("recordings/table.csv", *arguments) == 2
    assert "would be written twice" in run.err
    assert not list(run.folder.glob("same*"))
