"""The page of recordings without labels, from the tables of score.py and infer.py."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine import cli
from hearback.engine.data.problems import BadInputError, Problem
from hearback.engine.data.tables import PROBLEMS
from hearback.engine.errors import HearbackError
from hearback.engine.page.origin import Origin
from hearback.engine.page.writing import PageOptions
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import DIVERGENCES
from hearback.reading.inference import submission
from hearback.reading.inference.submission import InferenceOptions
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import PairSource
from hearback.reading.report import annotation, verdict
from hearback.reading.report.tables import read_scored
from hearback.reading.report.write import ScoredBy, write_new_recordings
from hearback.reading.scoring import status
from hearback.reading.steps import infer, report
from hearback.reading.words import TABLE, words_path
from tests.engine.page.page_reader import read_page
from tests.helpers import run_step, tone
from tests.reading.test_ensemble import CONFIG

WORDS = words_path(Path("scores.csv")).name
SCORES = pd.DataFrame(
    {
        "filename": ["a.wav", "b.wav", "c.wav", "sub/d.wav"],
        "score": [0.91, 0.42, np.nan, 0.03],
        "status": ["ok", "unsure", "silent", "ok"],
        "seconds": [1.5, 2.0, np.nan, 1.0],
        "text": ["The cat sat.", "a “dog”", "<b>pig</b>", "it's 5 o'clock"],
        "speaker": ["s1", "s1", "s2", ""],
        "note": ["", "", "is silent; record it again", ""],
    }
)
WORD_SCORES = pd.DataFrame(
    {
        "filename": ["a.wav"] * 3,
        "position": [2, 0, 1],
        "word": ["sat", "the", "cat"],
        "score": [0.3, 0.9, np.nan],
        "start": [0.9, 0.1, 0.5],
        "end": [1.2, 0.4, 0.8],
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tables of score.py, and two of the four recordings."""
    SCORES.to_csv(tmp_path / "scores.csv", index=False)
    WORD_SCORES.to_csv(tmp_path / WORDS, index=False)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, tone(seconds=1.0), 16000)
    return tmp_path


def write(folder: Path, scores: str = "scores.csv", **options: object) -> dict:
    out = folder / "report.html"
    write_new_recordings(
        PageOptions(out, **options),  # type: ignore[arg-type]
        folder / scores,
        folder,
        ScoredBy(None, folder / "assets"),
        tts_data=folder / "none",
    )
    return read_page(out)


def test_scores_statuses_and_texts_are_those_of_the_table(folder: Path) -> None:
    page = write(folder)
    recordings = page["recordings"]
    assert recordings["filenames"] == SCORES["filename"].tolist()
    assert recordings["texts"] == SCORES["text"].tolist()
    assert recordings["predictions"] == {"score": [0.91, 0.42, None, 0.03]}
    assert recordings["fields"]["status"] == SCORES["status"].tolist()
    assert recordings["labels"] is None
    assert recordings["notes"][2] == "is silent; record it again"
    assert page["unsure"] == [0.3, 0.7]


def test_the_verdict_counts(folder: Path) -> None:
    good, limits, to_do = write(folder)["verdict"]["sentences"]
    assert good == (
        "4 recordings, scored by scores.csv: 1 probably says the text, 1 probably does not, 1 is "
        "unsure, 1 has no score."
    )
    assert "There are no labels here" in limits
    assert to_do.startswith("Listen to the 2 that are unsure or have no score")


@pytest.mark.parametrize(
    ("scores", "counts", "to_do"),
    [
        ([0.9], "1 recording, scored by s: it probably says the text.", "Listen to it."),
        ([None], "1 recording, scored by s: it has no score.", "Listen to it."),
        (
            [0.9, 0.8],
            "2 recordings, scored by s: 2 probably say the text.",
            "Listen to the recordings nearest to 0.5 first.",
        ),
        (
            [0.9, 0.5, 0.4],
            "3 recordings, scored by s: 1 probably says the text, 2 are unsure.",
            "Listen to the 2 that are unsure, then to those nearest to 0.5.",
        ),
        (
            [0.1, None],
            "2 recordings, scored by s: 1 probably does not, 1 has no score.",
            "Listen to the one that has no score, then to those nearest to 0.5.",
        ),
        (
            [None, 0.5],
            "2 recordings, scored by s: 1 is unsure, 1 has no score.",
            "Listen to the 2 that are unsure or have no score.",
        ),
    ],
)
def test_the_verdict_says_only_what_there_is(
    scores: list[float | None], counts: str, to_do: str
) -> None:
    statuses = ["silent" if score is None else status.of_probability(score) for score in scores]
    assert verdict.of_new_recordings(scores, statuses, "s", "limits") == [counts, "limits", to_do]


def test_the_verdict_counts_a_low_passage_as_unsure() -> None:
    counts, *_ = verdict.of_new_recordings([0.1, 0.1], ["ok", "unsure"], "s", "limits")
    assert counts == "2 recordings, scored by s: 1 probably does not, 1 is unsure."


def test_words_are_in_the_order_of_the_text(folder: Path) -> None:
    words = write(folder)["recordings"]["words"]
    assert list(words) == ["0"]
    assert words["0"]["words"] == ["the", "cat", "sat"]
    assert words["0"]["scores"] == [0.9, None, 0.3]
    assert words["0"]["starts"] == [0.1, 0.5, 0.9]


def test_recordings_that_are_there_are_played(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(write(folder)["recordings"]["clips"]) == ["0", "1"]
    assert "4 recordings, 2 of them to listen to" in capsys.readouterr().out
    assert write(folder, audio="none")["recordings"]["clips"] == {}


def test_a_page_without_names_has_no_sound(folder: Path) -> None:
    page = write(folder, is_anonymous=True)
    assert page["recordings"]["filenames"][0] == "recording 1"
    assert page["recordings"]["clips"] == {}
    html = (folder / "report.html").read_text()
    assert "a.wav" not in html
    assert "speaker" not in page["recordings"]["fields"]


def test_a_submission_has_the_texts_of_the_test_table(tmp_path: Path) -> None:
    rows = [("x.wav", "sentence_repetition", "The cat", "1"), ("y.wav", "deletion", "cow", "KG")]
    columns = ["filename", "task", "expected_text", "grade"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "test_metadata.csv", index=False)
    scores = pd.DataFrame({"filename": ["y.wav", "x.wav"], "score": [0.47, 0.97]})
    scores.to_csv(tmp_path / "submission.csv", index=False)
    problem = Problem("t", 3, "is silent", "record it", "error", "y.wav", "silent")
    unlike = Problem("t", None, "they are noisier", "check some", "warning")
    frame = pd.DataFrame([vars(problem), vars(unlike)]).astype({"row": "Int64"})
    frame.to_csv(tmp_path / PROBLEMS, index=False)
    aligned = WORD_SCORES.assign(filename="x.wav", cost=0.5, diverges=[1, 0, 0]).head(2)
    aligned = aligned.assign(word=["cat", "the"], position=[1, 0])
    aligned.to_csv(tmp_path / DIVERGENCES, index=False)

    page = write(tmp_path, "submission.csv")
    recordings = page["recordings"]
    assert recordings["texts"] == ["cow", "The cat"]
    assert recordings["fields"]["grade"] == ["KG", "1"]
    # A base rate is no score of the recording.
    assert recordings["predictions"]["score"] == [None, 0.97]
    assert recordings["fields"]["status"] == ["silent", "ok"]
    assert page["verdict"]["warnings"] == ["they are noisier"]
    assert [each["filename"] for each in page["data"]["refused"]] == ["y.wav"]
    assert recordings["words"]["1"]["diverges"] == [0, 1]
    assert recordings["words"]["1"]["starts"] == [0.1, 0.9]


def test_a_submission_without_its_test_table_is_an_error(tmp_path: Path) -> None:
    SCORES[["filename", "score"]].dropna().to_csv(tmp_path / "submission.csv", index=False)
    with pytest.raises(BadInputError, match=r"has no texts[^$]*--data"):
        read_scored(tmp_path / "submission.csv", tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("score", "high", "score is 'high'"),
        ("score", "1.7", "score is '1.7'"),
        ("score", "inf", "score is 'inf'"),
        ("seconds", "-3", "seconds is '-3'"),
        ("status", "fine", "unknown status"),
    ],
)
def test_invalid_values_are_reported_with_their_row(
    folder: Path, column: str, value: str, what: str
) -> None:
    SCORES.astype(object).assign(**{column: value}).to_csv(folder / "scores.csv", index=False)
    with pytest.raises(BadInputError, match=what) as error:
        read_scored(folder / "scores.csv", folder)
    assert "row 2 (a.wav)" in str(error.value) or "a.wav" in str(error.value)


def test_a_broken_table_of_words_is_an_error(folder: Path) -> None:
    (folder / WORDS).write_text("filename,word\na.wav,the\n")
    with pytest.raises(HearbackError, match=rf"{WORDS}: has no column position, score"):
        read_scored(folder / "scores.csv", folder)


def test_recordings_without_a_score_are_listed(folder: Path) -> None:
    assert [each["filename"] for each in write(folder)["data"]["refused"]] == ["c.wav"]


def test_a_warning_of_a_row_is_its_status_and_its_note(tmp_path: Path) -> None:
    pd.DataFrame(
        [("x.wav", "deletion", "cow", "KG")],
        columns=["filename", "task", "expected_text", "grade"],
    ).to_csv(tmp_path / "test_metadata.csv", index=False)
    pd.DataFrame({"filename": ["x.wav"], "score": [0.2]}).to_csv(
        tmp_path / "submission.csv", index=False
    )
    what = Problem("t", 2, "no speech", "listen", "warning", "x.wav", "another_language_or_noise")
    pd.DataFrame([vars(what)]).to_csv(tmp_path / PROBLEMS, index=False)
    recordings = write(tmp_path, "submission.csv")["recordings"]
    assert recordings["fields"]["status"] == ["another_language_or_noise"]
    assert recordings["predictions"]["score"] == [0.2]  # it stays in the submission
    assert recordings["notes"] == ["no speech; listen"]


def test_a_position_that_is_no_number_is_an_error(folder: Path) -> None:
    WORD_SCORES.astype({"position": object}).assign(position="x").to_csv(
        folder / WORDS, index=False
    )
    with pytest.raises(HearbackError, match="a position is not a number"):
        read_scored(folder / "scores.csv", folder)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--models", "modeltok"], "--models is for trained models"),
        (["--out", "scores.csv"], "is the table of --scores"),
        (["--scorer", "tiny.en", "--config", "c.json"], "--scorer is for --scores, without"),
        (["--out", "."], "is a folder"),
    ],
)
def test_contradictory_flags_are_errors(
    folder: Path,
    flags: list[str],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["report.py", "--scores", "scores.csv", *flags])
    with pytest.raises(SystemExit) as ended:
        cli.run(report.main)
    assert ended.value.code == 2
    assert what in capsys.readouterr().err


def test_a_scorer_gives_its_card(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    flags = ["--scores", "scores.csv", "--scorer", "tiny.en", "--data", "."]
    monkeypatch.setattr("sys.argv", ["report.py", *flags])
    report.main()
    verdict = read_page(folder / "scores.html")["verdict"]
    assert "scored by tiny.en" in verdict["sentences"][0]
    assert dict(verdict["card"])["licence of the recordings"] == "CC BY 4.0"


def test_a_submission_and_scores_in_one_folder_have_their_own_words(folder: Path) -> None:
    rows = pd.DataFrame({"filename": ["a.wav"], "expected_text": ["the cat sat"]})
    rows.assign(task="deletion", grade="1").to_csv(folder / "test_metadata.csv", index=False)
    SCORES[["filename", "score"]].head(1).to_csv(folder / "submission.csv", index=False)
    other = WORD_SCORES.drop(columns=["start", "end"]).assign(score=0.5)
    other.to_csv(folder / TABLE, index=False)
    aligned = WORD_SCORES.assign(cost=0.1, diverges=[1, 0, 0], start=5.0, end=6.0)
    aligned.to_csv(folder / DIVERGENCES, index=False)
    of_score = write(folder)["recordings"]["words"]["0"]
    assert (of_score["scores"], of_score["diverges"]) == ([0.9, None, 0.3], [])
    assert of_score["starts"] == [0.1, 0.5, 0.9]
    of_infer = write(folder, "submission.csv")["recordings"]["words"]["0"]
    assert (of_infer["scores"], of_infer["diverges"]) == ([0.5] * 3, [0, 0, 1])
    assert of_infer["starts"] == [5.0] * 3


def test_words_have_times_in_the_reference_of_a_submission(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus()
    rows = pd.read_csv(corpus / "data" / "test_metadata.csv")
    scores = corpus / "submission.csv"
    rows[["filename"]].assign(score=0.4).to_csv(scores, index=False)
    CONFIG.save(corpus / "config.json")
    asked: list[str] = []

    def open_first(folds: Sequence[FoldFiles], pairing: str) -> TokenScorer | None:
        asked.extend(f"{pairing} {files.model}_{files.fold}" for files in folds)
        return MagicMock(TokenScorer) if folds and pairing == "tokens" else None

    def time_words(_: object, source: PairSource, rows: range, __: object) -> dict[int, Any]:
        return {row: np.full((len(source.texts[row].split()), 2), 0.25) for row in rows}

    monkeypatch.setattr(annotation, "_open_first", open_first)
    monkeypatch.setattr(annotation, "time_words", time_words)
    scored_by = ScoredBy(corpus / "config.json", corpus / "assets")

    def words_with(tts_data: Path) -> dict[str, dict]:
        out = corpus / "page.html"
        folders = (corpus / "data", scored_by)
        write_new_recordings(PageOptions(out), scores, *folders, tts_data=tts_data, device="cpu")
        found: dict[str, dict] = read_page(out)["recordings"]["words"]
        return found

    assert words_with(corpus / "none") == {}
    assert asked == []  # without references, no model is loaded
    words = words_with(corpus / "tts_data")
    assert asked == ["tokens model2ds_0", "tokens model1m_0"]  # by weight
    for index, text in enumerate(rows["expected_text"]):
        assert words[str(index)]["words"] == text.split()
        assert words[str(index)]["starts"] == [0.25] * len(text.split())
        assert words[str(index)]["reference_starts"] == [0.25] * len(text.split())


def run_report(folder: Path, *flags: str) -> tuple[dict, str]:
    """Run report.py on scores.csv in the folder; return the page, and what was said of it."""
    out = folder / "page.html"
    arguments = ("--scores", str(folder / "scores.csv"), "--out", str(out), *flags)
    status, _, errors = run_step(report, folder, *arguments)
    assert status is None, errors
    return read_page(out), errors


def test_an_ensemble_that_lies_about_did_not_score_the_table_of_score(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    CONFIG.save(folder / "model_configs.json")
    page, _ = run_report(folder, "--data", ".")
    good, limits, _ = page["verdict"]["sentences"]
    assert "scored by scores.csv" in good and "no ensemble to tell" in limits
    page, _ = run_report(folder, "--data", ".", "--config", "model_configs.json")
    assert "scored by model_configs.json" in page["verdict"]["sentences"][0]


def test_a_folder_without_any_of_the_recordings_is_said(folder: Path) -> None:
    (folder / "other").mkdir()
    page, said = run_report(folder, "--data", str(folder / "other"))
    assert page["recordings"]["clips"] == {}
    assert f"none of the recordings is in {folder / 'other'}: name their folder with --data" in said
    assert "none of the recordings" not in run_report(folder, "--data", str(folder))[1]
    silent = ("--data", str(folder / "other"), "--audio", "none")
    assert "none of the recordings" not in run_report(folder, *silent)[1]


def test_words_of_another_text_are_left_out_and_that_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SCORES.assign(text="something else").to_csv(folder / "scores.csv", index=False)
    assert write(folder)["recordings"]["words"] == {}
    assert (
        f"{folder / WORDS}: the words of 1 recording are not those of its text, and are not shown; "
        "write it again with the scores\n"
    ) in capsys.readouterr().err


def test_words_are_those_of_the_run_that_wrote_the_scores(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def words(origin: Origin) -> dict[str, Any]:
        return read_scored(folder / "scores.csv", folder, origin).words

    assert words(Origin(tables={})) == {}  # an earlier run's lie there
    assert capsys.readouterr().err == (
        f"{folder / WORDS}: not of the run that wrote scores.csv, or changed since: its words are "
        "not shown\n"
    )
    assert words(Origin(tables={"words": folder / WORDS}))["0"].scores == [0.9, None, 0.3]
    assert capsys.readouterr().err == ""
    other = folder / "other.csv"
    WORD_SCORES.assign(score=0.25).to_csv(other, index=False)
    assert words(Origin(tables={"words": other}))["0"].scores == [0.25] * 3
    # A table that was edited is no longer that of the run: what is beside it may be.
    assert words(Origin(tables={}, is_current=False))["0"].scores == [0.9, None, 0.3]


@pytest.mark.parametrize(("flags", "name"), [([], "scores.csv"), (["--scorer", "tiny.en"], "")])
def test_an_anonymous_page_does_not_name_its_table(
    folder: Path, flags: list[str], name: str
) -> None:
    page, _ = run_report(folder, "--data", str(folder), "--anonymous", *flags)
    sentence = page["verdict"]["sentences"][0]
    assert ("scored by (a file):" if name else "scored by tiny.en:") in sentence
    assert "scores.csv" not in (folder / "page.html").read_text()


def test_infer_shows_the_words_that_it_wrote_wherever_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    rows = pd.DataFrame({"filename": ["a.wav"], "expected_text": ["the cat sat"]})
    rows.assign(task="deletion", grade="1").to_csv(folder / "test_metadata.csv", index=False)
    CONFIG.save(folder / "model_configs.json")

    def infer_with(*flags: str, fills: bool = True) -> tuple[dict, dict]:
        """Run infer.py, then report.py on its submission; return the words of both pages."""

        def write_submission(options: InferenceOptions) -> None:
            SCORES[["filename", "score"]].head(1).to_csv(options.submission, index=False)
            if options.words is not None and fills:
                WORD_SCORES.to_csv(options.words, index=False)

        monkeypatch.setattr(submission, "write_submission", write_submission)
        monkeypatch.setattr("sys.argv", ["infer.py", "--data", ".", *flags])
        infer.main()
        of_infer = read_page(folder / "submission.html")
        monkeypatch.setattr("sys.argv", ["report.py", "--scores", "submission.csv"])
        report.main()
        of_report = read_page(folder / "submission.html")
        assert of_report["verdict"] == of_infer["verdict"]
        return of_infer["recordings"]["words"], of_report["recordings"]["words"]

    for words in infer_with("--words"):
        assert words["0"]["scores"] == [0.9, None, 0.3]
    assert infer_with() == ({}, {})  # the words of the run before are still there
    assert infer_with("--words", fills=False) == ({}, {})
    for words in infer_with("--words", "other.csv"):
        assert words["0"]["scores"] == [0.9, None, 0.3]
