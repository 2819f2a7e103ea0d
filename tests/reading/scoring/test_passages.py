"""Recordings of over 30 s have a score, and their words have times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback import Scorer
from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.reading.pairs import PairSource
from hearback.reading.passages.length import MOST_WORDS_CORRECTED
from hearback.reading.scoring import recordings
from tests.toy import spoken


def passage(texts: list[str], pause_seconds: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1e-4, round(pause_seconds * SAMPLE_RATE))
    return np.concatenate([part for text in texts for part in (spoken(text), noise)])


def test_a_passage_has_a_score_and_its_words_have_times(toy_scorer: Path, tmp_path: Path) -> None:
    texts = ["the dog ran home", "a red hat", "boy"] * 2
    waveform = passage(texts, 7.0)
    path = tmp_path / "passage.wav"
    soundfile.write(path, waveform, SAMPLE_RATE)
    scorer = Scorer.load(toy_scorer, device="cpu", precision="float32")
    score = scorer.score(path, " ".join(texts))
    assert score.status in ("ok", "unsure")
    assert score.seconds == pytest.approx(len(waveform) / SAMPLE_RATE)
    assert score.seconds > 30
    assert [word.word for word in score.words] == " ".join(texts).split()
    starts = [word.start_seconds or 0.0 for word in score.words]
    assert starts == sorted(starts)
    ends = [word.end_seconds or 0.0 for word in score.words]
    assert all(start <= end for start, end in zip(starts, ends, strict=True))
    assert ends[-1] <= score.seconds
    assert all(word.probability is not None for word in score.words)


@pytest.mark.parametrize(
    ("words_weight", "most_words"), [(0.0, np.inf), (0.8, MOST_WORDS_CORRECTED)]
)
def test_long_texts_are_corrected_as_the_ensemble_needs(
    toy_scorer: Path, words_weight: float, most_words: float
) -> None:
    ensemble = Scorer.load(toy_scorer, device="cpu", precision="float32").ensemble
    ensemble.config = replace(ensemble.config, words_weight=words_weight)
    metadata = {"filename": ["a"], "task": [""], "grade": [""], "expected_text": ["boy"]}
    store = MemoryStore({"a": Recording(spoken("boy"), ())})
    passages = ensemble.split(PairSource(pd.DataFrame(metadata), None, store))
    assert passages.most_words == most_words


def test_a_recording_longer_than_is_read_is_too_long(
    toy_scorer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "LONGEST_RECORDING", 40.0)
    scorer = Scorer.load(toy_scorer, device="cpu", precision="float32")
    waveform = passage(["the dog ran home"], 45.0)
    score = scorer.score(waveform, "the dog ran home", sample_rate=SAMPLE_RATE)
    assert (score.status, score.probability) == ("too_long", None)
    assert score.notes[-1] == (
        "not scored: 46 s long, only the first 40 s are kept; split the recording and its text"
    )
