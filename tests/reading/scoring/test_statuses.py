"""Each status has a recording that provokes it, with the real weights of tiny.en."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hearback import Scorer
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.notes import UnreadableProblem
from hearback.engine.data.problems import Problem, Report, count_noun
from hearback.reading.scoring import scores, status
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.scoring.faults import find_too_short
from hearback.reading.scoring.results import Score
from hearback.reading.scoring.scores import ADDED, make_score
from tests.reading.scoring.conftest import SENTENCES, render


@pytest.fixture(autouse=True, scope="module")
def toys_are_speech() -> None:
    """With real weights, toys are what they are."""


@pytest.fixture(scope="module")
def score(real_scorer: Path) -> Callable[..., Score]:
    scorer = Scorer.load(real_scorer, device="cpu", precision="float32")

    def run(waveform: np.ndarray, text: str = SENTENCES[0]) -> Score:
        return scorer.score(waveform, text, sample_rate=SAMPLE_RATE)

    return run


def chord(seconds: float = 3.0) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in (262, 330, 392))
    return (0.2 * tones * (1 + np.sin(2 * np.pi * 2 * time))).astype(np.float32)


def tone(seconds: float = 5.0) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 3000 * time)).astype(np.float32)


def noise(seconds: float = 3.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def overdriven(waveform: np.ndarray) -> np.ndarray:
    loud = np.abs(waveform[np.abs(waveform) > 0.1 * np.abs(waveform).max()])
    limit = np.quantile(loud, 0.3)
    return np.clip(waveform, -limit, limit) / limit * 0.9


def test_a_multilingual_decoder_must_be_surer_that_nobody_speaks() -> None:
    evidence = DecoderEvidence(4, -0.5, 6.0, -2.0)
    assert evidence.is_no_speech and evidence.is_not_understood
    evidence = replace(evidence, is_multilingual=True)
    assert not evidence.is_no_speech and not evidence.is_not_understood
    assert replace(evidence, no_speech=-0.3).is_no_speech
    assert replace(evidence, confidence=-2.5).is_not_understood
    assert not replace(evidence, confidence=-2.5, n_words=2).is_not_understood


@pytest.mark.slow
def test_a_sentence_that_was_said_is_ok_and_its_words_have_times(
    score: Callable[..., Score],
) -> None:
    found = score(render(SENTENCES[0]))
    assert (found.status, [word.word for word in found.words]) == ("ok", SENTENCES[0].split())
    assert found.probability is not None and found.probability > 0.7
    assert found.seconds is not None
    starts = [word.start_seconds or 0.0 for word in found.words]
    assert starts == sorted(starts) and 0 < (found.words[-1].end_seconds or 0.0) <= found.seconds


@pytest.mark.slow
def test_a_recording_that_breaks_off_has_a_score_only_if_the_text_is_there(
    real_scorer: Path, tmp_path: Path
) -> None:
    scorer = Scorer.load(real_scorer, device="cpu", precision="float32")
    spoken = render(SENTENCES[0])
    whole = np.concatenate([spoken, np.zeros(SAMPLE_RATE, np.float32)])
    path = tmp_path / "clip.wav"
    soundfile.write(path, whole, SAMPLE_RATE)
    content = path.read_bytes()

    path.write_bytes(content[: len(content) // 4])
    broken = scorer.score(path, SENTENCES[0])
    assert (broken.status, broken.probability) == ("unreadable", None)
    (note,) = [note for note in broken.notes if "breaks off after" in note]
    assert note == broken.notes[-1] and "a part of the text may be missing; copy" in note
    assert broken.seconds is not None

    path.write_bytes(content[:-SAMPLE_RATE])  # half of the silence
    found = scorer.score(path, SENTENCES[0])
    assert found.status == "ok" and found.probability is not None
    assert "breaks off after" in found.notes[0]


@pytest.mark.slow
def test_another_sentence_is_ok_with_a_low_score(score: Callable[..., Score]) -> None:
    found = score(render(SENTENCES[0]), SENTENCES[3])
    assert (found.status, found.probability is not None) == ("ok", True)
    assert found.probability < 0.3  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("make", [noise, chord, tone])
def test_noise_and_music_are_no_speech(
    score: Callable[..., Score], make: Callable[[], np.ndarray]
) -> None:
    found = score(make())
    assert (found.status, found.probability) == ("another_language_or_noise", None)
    assert found.notes[-1].startswith("no speech is recognised")
    assert found.words and found.words[0].probability is None


@pytest.mark.slow
def test_speech_backwards_is_no_english(score: Callable[..., Score]) -> None:
    found = score(render("she put the red book on the table")[::-1].copy())
    assert found.status == "another_language_or_noise"


@pytest.mark.slow
def test_overdriven_speech_is_clipped(score: Callable[..., Score]) -> None:
    found = score(overdriven(render(SENTENCES[0])))
    assert (found.status, found.probability) == ("clipped", None)
    assert "of the speech is cut off at the peak; record it again" in found.notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("waveform", "expected"),
    [
        (np.zeros(SAMPLE_RATE, np.float32), "silent"),
        (np.ones(100, np.float32), "too_short"),
        (np.full(SAMPLE_RATE, np.inf, np.float32), "unreadable"),
    ],
)
def test_what_has_no_speech_has_a_status(
    score: Callable[..., Score], waveform: np.ndarray, expected: str
) -> None:
    assert score(waveform).status == expected


def test_probabilities_near_the_middle_are_unsure() -> None:
    assert [status.of_probability(p) for p in (0.0, 0.3, 0.31, 0.5, 0.69, 0.7, 1.0)] == [
        *("ok", "ok", "unsure", "unsure", "unsure", "ok", "ok")
    ]


def test_a_low_score_of_a_passage_is_never_sure() -> None:
    assert [status.of_probability(p, is_passage=True) for p in (0.0, 0.5, 0.7)] == [
        *("unsure", "unsure", "ok")
    ]


@pytest.mark.parametrize(("seconds", "n_words"), [(0.69, 7), (0.05, 1)])
def test_a_recording_may_be_too_short_for_its_text(seconds: float, n_words: int) -> None:
    fault = find_too_short(seconds, n_words)
    assert fault is not None and fault.status == "too_short"
    assert fault.what.endswith(f"s are too short for {count_noun(n_words, 'word')}")
    assert find_too_short(0.1 * n_words, n_words) is None


def test_a_low_score_without_a_doubtful_word_has_a_note() -> None:
    row = {"filename": "a.wav", "expected_text": "a cat", "written_text": "A cat"}
    row |= {"grade": "", "task": "", "speaker": ""}

    def notes_of(probability: float, *words: float, is_passage: bool = False) -> tuple[str, ...]:
        score = make_score(
            *(row, probability),
            word_probabilities=np.array(words),
            times=None,
            seconds=1.0,
            notes=(),
            is_passage=is_passage,
        )
        return score.notes

    assert notes_of(0.4, 0.9, 0.5) == (ADDED,)
    assert notes_of(0.5, 0.9, 0.5) == notes_of(0.4, 0.9, 0.49) == ()
    assert notes_of(0.1, 0.6, 0.6, is_passage=True) == ()


def test_an_error_without_a_status_makes_a_row_unreadable() -> None:
    problem = Problem("a.csv", 2, "x", "y", filename="a.wav")
    assert status.Fault.of_problem(problem) == status.Fault("unreadable", "x", "y")
    assert status.faults_by_row([problem]) == {(2, "a.wav"): status.Fault("unreadable", "x", "y")}


def test_a_recording_that_was_read_has_its_length_also_without_a_score() -> None:
    problem = UnreadableProblem("a.csv", 2, "is silent", "y", filename="a.wav", seconds=2.5)
    fault = status.Fault.of_problem(problem)
    row = {"filename": "a.wav", "written_text": "Boy", "expected_text": "boy"}
    row |= {"grade": "", "task": "", "speaker": ""}
    assert scores.unscored(row, fault).seconds == 2.5
    both = [Problem("a.csv", 2, "x", "y", filename="a.wav"), problem]
    assert status.faults_by_row(both)[2, "a.wav"].seconds == 2.5


def test_a_row_with_two_errors_says_both() -> None:
    problems = [
        Problem("a.csv", None, "empty text", "fill it in", filename="a.wav"),
        Problem("a.csv", None, "changed", "", "warning", "a.wav"),
        Problem("a.csv", None, "the recording is silent", "remove it", "error", "a.wav", "silent"),
    ]
    ((key, fault),) = status.faults_by_row(problems).items()
    assert (key, fault.status) == ((None, "a.wav"), "unreadable")
    assert fault.note == "empty text; fill it in; the recording is silent; remove it"


def test_problems_tell_the_status_of_their_row() -> None:
    problems = [
        Problem("a.csv", 2, "breaks off", "", "warning", "a.wav"),
        Problem("a.csv", 3, "duplicated", "", "error", "b.wav"),
        Problem("a.csv", 4, "cut", "", "error", "c.wav", "too_long"),
        Problem("a.csv", 5, "no filename", ""),
        Problem("a.csv", None, "texts were changed", "", "warning"),
        Problem("a.csv", 1, "clipped", "", "error", "d.wav", "clipped"),
    ]
    rows: dict[tuple[int | None, str], str] = {
        (2, "a.wav"): "ok",
        (3, "b.wav"): "unreadable",
        (5, ""): "unreadable",
    }
    filled = status.with_row_status(Report(problems), rows)
    assert [(each.row, each.status) for each in filled.problems] == [
        *((None, ""), (1, "clipped"), (2, "ok"), (3, "unreadable"), (4, "too_long")),
        (5, "unreadable"),
    ]


def test_problems_of_a_file_stay_together() -> None:
    problems = [Problem(*where, "x", "") for where in (("b.csv", 3), ("a.csv", 2), ("b.csv", 1))]
    filled = status.with_row_status(Report(problems), {})
    assert [(each.file, each.row) for each in filled.problems] == [
        *(("b.csv", 1), ("b.csv", 3), ("a.csv", 2))
    ]
