"""The scorer in Python: files and arrays, one and many."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import hearback
from hearback import Scorer
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import FULL_SCALE
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.reading.inference.submission import write_submission
from hearback.reading.recipe import Recipe
from hearback.reading.scoring import decoder_evidence, ensemble, recordings
from hearback.reading.scoring.inputs import read_folder, read_score_table
from tests.conftest import inference_options
from tests.reading.random_models import write_fold
from tests.reading.scoring.conftest import write_config
from tests.toy import spoken
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS


@pytest.fixture
def scorer(toy_scorer: Path) -> Scorer:
    return Scorer.load(toy_scorer, device="cpu", precision="float32")


def test_the_package_imports_no_torch_before_the_scorer_is_used() -> None:
    code = "import sys, hearback; assert 'torch' not in sys.modules; hearback.Scorer.load"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Scores'"):
        _ = hearback.Scores


def test_a_file_has_a_score_and_its_words_have_times(
    scorer: Scorer, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = np.array([[0.1, 0.25], [0.25, 0.4], [0.5, 0.625], [0.625, 0.75]])
    monkeypatch.setattr(decoder_evidence, "word_times", lambda model, batch: [times])
    score = scorer.score(clips / "c.wav", "The dog ran home.")
    assert score.filename == str(clips / "c.wav")
    assert score.text == "The dog ran home."
    assert score.status in ("ok", "unsure")
    assert score.probability is not None and 0 < score.probability < 1
    assert score.seconds == pytest.approx(16 * 0.06)
    assert [word.word for word in score.words] == ["the", "dog", "ran", "home"]
    assert [word.written for word in score.words] == ["The", "dog", "ran", "home."]
    for word in score.words:
        assert word.probability is not None and 0 <= word.probability <= 1
    found = [(word.start_seconds, word.end_seconds) for word in score.words]
    np.testing.assert_array_equal(np.array(found, dtype=float), times)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int32])
def test_an_array_scores_like_its_file(scorer: Scorer, clips: Path, kind: type) -> None:
    samples, rate = soundfile.read(clips / "c.wav", dtype="int16")
    array = samples.astype(np.float64) / FULL_SCALE
    array = (
        samples
        if kind is np.int16
        else (samples.astype(np.int32) << 16 if kind is np.int32 else array.astype(kind))
    )
    found = scorer.score(array, "the dog ran home", sample_rate=rate)
    expected = scorer.score(clips / "c.wav", "the dog ran home")
    assert found == replace(expected, filename="")


def test_an_array_is_resampled_and_its_channels_are_averaged(scorer: Scorer) -> None:
    waveform = spoken("the dog ran home")
    stereo = np.repeat(np.stack([waveform, waveform], axis=1), 3, axis=0)
    score = scorer.score(stereo, "the dog ran home", sample_rate=48_000)
    assert score.seconds == pytest.approx(len(waveform) / 16_000)
    assert score.notes[:2] == ("2 channels, averaged", "48 kHz, resampled to 16 kHz")


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(16_000, np.float32), None, "needs its sample_rate"),
        (np.zeros((2, 16_000), np.float32), 16_000, "the channels come last"),
        (np.zeros((2, 2, 2), np.float32), 16_000, r"use \(n,\) or \(n, channels\)"),
        (np.zeros((16_000, 65), np.float32), 16_000, "at most 64 channels"),
        (np.zeros(16_000, complex), 16_000, "samples of type complex128"),
        (
            np.full(16_000, 9_000, np.int64),
            16_000,
            "type int64: use float32, or int16, int32 or uint8",
        ),
        (np.zeros(16_000, np.float32), 0, "use a whole number of Hz"),
        (np.zeros(16_000, np.float32), 22_050.5, "use a whole number of Hz"),
        (np.zeros(16_000, np.float32), 16, "sample_rate 16: use a whole number of Hz, from 4000"),
        (np.zeros(16_000, np.float32), True, "sample_rate True: use a whole number of Hz"),
        (np.zeros(16_000, np.float32), 2**31 - 1, "use a whole number of Hz, from 4000 to 384000"),
        (np.zeros(16_000, np.float32), "16k", "sample_rate '16k': use a whole number of Hz"),
    ],
)
def test_arrays_of_another_form_are_refused(
    scorer: Scorer, samples: np.ndarray, rate: int, message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        scorer.score(samples, "boy", sample_rate=rate)


def test_what_cannot_be_scored_is_no_error_but_a_status(scorer: Scorer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFFoh")
    for recording, status in (
        (np.zeros(16_000, np.float32), "silent"),
        (np.ones(10, np.float32), "too_short"),
        (np.empty(0, np.float32), "too_short"),
        (np.full(16_000, np.nan, np.float32), "unreadable"),
        (np.full(16_000, 1e300), "unreadable"),
        (broken, "unreadable"),
    ):
        rate = None if recording is broken else 16_000
        score = scorer.score(recording, "boy", sample_rate=rate)
        assert (score.status, score.probability) == (status, None)
        assert re.fullmatch(r"the recording .*; .+", score.notes[-1])
        assert [word.word for word in score.words] == ["boy"]
    assert scorer.score(spoken("boy"), "word " * 5000, sample_rate=16_000).status == "too_long"


def test_a_text_in_another_language_has_a_note(scorer: Scorer) -> None:
    score = scorer.score(spoken("boy"), "El gato duerme en la silla", sample_rate=16_000)
    assert score.notes[0].startswith("the text looks like another language than English, probably ")
    english = scorer.score(spoken("boy"), "the cat sleeps on the chair", sample_rate=16_000)
    assert not any("language" in note for note in english.notes)


def test_a_recording_that_is_not_read_to_its_end_is_too_long(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "LONGEST_RECORDING", 0.5)
    score = scorer.score(spoken("the dog ran home"), "the dog ran home", sample_rate=16_000)
    assert (score.status, score.probability) == ("too_long", None)
    assert score.notes[-1].endswith("split the recording and its text")
    assert sum(" long" in note for note in score.notes) == 1


def test_wrong_arguments_are_errors(scorer: Scorer, clips: Path) -> None:
    with pytest.raises(HearbackError, match=r"none\.wav: no such file"):
        scorer.score(clips / "none.wav", "boy")
    with pytest.raises(HearbackError, match=r"A\.WAV: no such file; 'a\.wav' is there$"):
        scorer.score(clips / "A.WAV", "boy")
    with pytest.raises(HearbackError, match="is a folder; score its recordings with score_table"):
        scorer.score(clips, "boy")
    with pytest.raises(HearbackError, match="no such file"):
        scorer.score("a" * 5000, "boy")
    with pytest.raises(HearbackError, match="text is no UTF-8"):
        scorer.score(clips / "a.wav", "a \ud800 boy")
    with pytest.raises(HearbackError, match="empty text"):
        scorer.score(clips / "a.wav", "")
    with pytest.raises(HearbackError, match="can be read in several ways; write the words that"):
        scorer.score(clips / "a.wav", "10/11")
    with pytest.raises(HearbackError, match="unknown grade '7': use one of KG, 1, 2, 3"):
        scorer.score(clips / "a.wav", "boy", grade="7")
    with pytest.raises(HearbackError, match="unknown task 'reading'"):
        scorer.score(clips / "a.wav", "boy", task="reading")
    with pytest.raises(HearbackError, match=r"a\.wav: sample_rate is of an array of samples; a"):
        scorer.score(clips / "a.wav", "boy", sample_rate=8000)


def test_arguments_of_another_type_are_errors(scorer: Scorer, clips: Path) -> None:
    calls: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: scorer.score([0.0] * 16_000, "boy"), "the recording is of type list: give a path"),
        (lambda: scorer.score(clips / "a.wav", ["boy"]), "the text is of type list: give a string"),
        (lambda: scorer.score_table(pd.DataFrame()), "the table is of type DataFrame: give"),
        (lambda: Scorer.load(None), "the scorer is of type NoneType: give its name or folder"),
        (lambda: Scorer.load(precision="half"), "precision 'half': use one of auto, float32"),
        (lambda: scorer.score(clips / "a.wav", "boy", grade=0), "unknown grade '0'"),
    )
    for call, message in calls:
        with pytest.raises(HearbackError, match=message):
            call()


def test_a_grade_may_be_a_number(scorer: Scorer, clips: Path) -> None:
    assert scorer.score(clips / "a.wav", "boy", grade=2).grade == "2"


def test_many_are_scored_as_one_by_one(scorer: Scorer, clips: Path) -> None:
    scores = scorer.score_table(clips)
    assert [score.filename for score in scores] == ["a.wav", "c.wav", "deep/b.wav"]
    for score in scores:
        alone = scorer.score(clips / score.filename, score.text)
        assert score.probability == pytest.approx(alone.probability, abs=1e-6)
        assert score.status == alone.status


def test_rows_with_problems_have_a_status_and_the_others_a_score(
    scorer: Scorer, clips: Path
) -> None:
    table = clips / "table.csv"
    table.write_text(
        "filename,text,speaker\na.wav,boy,s1\nmissing.wav,girl,s1\nc.wav,,s2\na.wav,boy,s1\n"
    )
    report = Report()
    scores = scorer.score_table(table, report)
    assert [score.status for score in scores][1:] == ["unreadable"] * 3
    assert scores[0].probability is not None and scores[0].speaker == "s1"
    assert scores[1].notes[0].startswith("the recording is missing; ")
    assert scores[3].notes == ("duplicated filename, first on line 2; keep one row",)
    assert len(report.errors) == 3


def test_a_report_of_another_folder_changes_no_status(
    scorer: Scorer, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent" / "a.txt").write_text("boy")
    soundfile.write(tmp_path / "silent" / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    report = Report()
    assert [each.status for each in scorer.score_table(tmp_path / "silent", report)] == ["silent"]
    assert "silent" not in {each.status for each in scorer.score_table(clips, report)}


def test_a_text_that_is_too_long_keeps_the_name_of_its_file(scorer: Scorer, clips: Path) -> None:
    score = scorer.score(clips / "a.wav", "boy " * 10_000)
    assert (score.status, score.filename) == ("too_long", str(clips / "a.wav"))
    with pytest.raises(HearbackError, match="no such file"):
        scorer.score(clips / "none.wav", "boy " * 10_000)


def test_a_store_keeps_decoded_recordings(
    scorer: Scorer, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = read_folder(clips, Report())
    first = scorer.score_table(inputs, store=tmp_path / "store")
    monkeypatch.setattr("hearback.engine.audio.store_builder.decode", None)
    assert scorer.score_table(inputs, store=tmp_path / "store") == first


def test_the_models_are_loaded_once(
    scorer: Scorer, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scorer.score(clips / "a.wav", "boy")
    monkeypatch.setattr(ensemble, "load_model_groups", None)
    assert scorer.score(clips / "a.wav", "boy") == first


def test_models_that_do_not_fit_in_memory_are_loaded_one_after_the_other(
    toy_scorer: Path, scorer: Scorer, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scorer.score(clips / "c.wav", "the dog ran home")
    monkeypatch.setattr(ensemble, "memory_for_models", lambda device, memory_gb: 1.0)
    found = Scorer.load(toy_scorer, device="cpu", precision="float32").score(
        clips / "c.wav", "the dog ran home"
    )
    assert found.probability == pytest.approx(expected.probability, abs=1e-6)
    assert replace(found, probability=None, words=()) == replace(
        expected, probability=None, words=()
    )
    for word, its_equal in zip(found.words, expected.words, strict=True):
        assert word.start_seconds is not None  # the decoder is asked for times, too
        assert word.end_seconds == its_equal.end_seconds


def test_scores_are_those_of_infer(make_corpus: object, toy_scorer: Path) -> None:
    folder = make_corpus(n_train=6, n_test=6)  # type: ignore[operator]
    options = replace(
        inference_options(folder, precision="float32"),
        assets=toy_scorer,
        config=toy_scorer / "model_configs.json",
    )
    write_submission(options)
    submission = pd.read_csv(options.submission)
    scorer = Scorer.load(toy_scorer, device="cpu", precision="float32")
    inputs = read_score_table(folder / "data" / "test_metadata.csv", Report())
    scores = {score.filename: score.probability for score in scorer.score_table(inputs)}
    expected = dict(zip(submission["filename"], submission["score"], strict=True))
    assert scores == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "no such scorer, and no such folder; use a shipped scorer"),
        ("", "has no model_configs.json"),
    ],
)
def test_a_scorer_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(HearbackError, match=message):
        Scorer.load(tmp_path / name)


def write_scorer(folder: Path, recipe: Recipe, tokenizer: Path) -> Path:
    write_fold(folder, recipe, 0, {}, tokenizer)
    write_config(folder, recipe)
    return folder


def test_a_scorer_with_context_needs_grade_and_task(
    tmp_path: Path, tokenizer: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(TOKENS, speed_by_grade=(0.5, 1.0, 1.0, 1.0))
    scorer = Scorer.load(write_scorer(tmp_path / "scorer", slow, tokenizer), device="cpu")
    times = [np.array([[0.1, 0.25]])]
    monkeypatch.setattr(decoder_evidence, "word_times", lambda model, batch: times * len(batch))
    with pytest.raises(HearbackError, match="needs the grade of each recording"):
        scorer.score(clips / "a.wav", "boy", task="deletion")
    with pytest.raises(HearbackError, match="needs the task of each recording"):
        scorer.score_table(read_folder(clips, Report(), grade="1"))
    score = scorer.score(clips / "a.wav", "boy", grade="KG", task="deletion")
    assert score.probability is not None
    # The model hears it slower; times are those of the recording.
    assert (score.words[0].start_seconds, score.words[0].end_seconds) == (0.05, 0.125)
    table = clips / "table.csv"
    table.write_text("filename,text,grade,task\na.wav,boy,1,deletion\nc.wav,dog,,deletion\n")
    scores = scorer.score_table(table)
    assert [each.probability is None for each in scores] == [False, True]
    assert scores[1].notes == ("no grade, which this scorer needs; fill in the grade",)


def test_a_scorer_that_hears_references_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "scorer"
    write_fold(folder, ALIGNED, 0, None, tokenizer)  # type: ignore[arg-type]
    write_config(folder, ALIGNED)
    with pytest.raises(HearbackError, match="modelali compare with reference speech"):
        Scorer.load(folder)
