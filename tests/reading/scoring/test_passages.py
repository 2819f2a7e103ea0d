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
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import PairSource
from hearback.reading.passages.length import MOST_WORDS_CORRECTED
from hearback.reading.passages.segments import find_segments
from hearback.reading.scoring import decoder_evidence, recordings
from hearback.reading.window_batches import Batch
from tests.toy import spoken


def passage(texts: list[str], pause_seconds: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1e-4, round(pause_seconds * SAMPLE_RATE))
    return np.concatenate([part for text in texts for part in (spoken(text), noise)])


def times_from_a_quarter_second(_: TokenScorer, batch: Batch) -> list[np.ndarray]:
    """Return times of words of 1/8 s that begin 1/4 s after the start of their window."""
    assert batch.texts is not None
    n_words = batch.texts.n_words[: len(batch)].tolist()
    return [0.25 + np.arange(n)[:, None] / 8 + np.array([[0.0, 0.125]]) for n in n_words]


def test_a_passage_has_a_score_and_its_words_have_times(
    toy_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_evidence, "word_times", times_from_a_quarter_second)
    texts = ["the dog ran home", "a red hat", "boy"] * 2
    waveform = passage(texts, 7.0)
    waveform = np.concatenate([waveform[-SAMPLE_RATE:], waveform])
    path = tmp_path / "passage.wav"
    soundfile.write(path, waveform, SAMPLE_RATE)
    scorer = Scorer.load(toy_scorer, device="cpu", precision="float32")
    score = scorer.score(path, " ".join(texts))
    assert score.status in ("ok", "unsure")
    assert score.seconds == pytest.approx(len(waveform) / SAMPLE_RATE)
    assert score.seconds > 30
    assert [word.word for word in score.words] == " ".join(texts).split()
    starts = [word.start_seconds or 0.0 for word in score.words]
    # None of the words is recognised: the first segment has them all, and does not start at 0.
    first = find_segments(waveform)[0].start / SAMPLE_RATE
    assert first > 0.5 and starts == pytest.approx(first + 0.25 + np.arange(16) / 8)
    ends = [word.end_seconds or 0.0 for word in score.words]
    assert ends == pytest.approx([start + 0.125 for start in starts])
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
