"""Scores of long texts are corrected for their length."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.engine.ensemble.config import ModelConfig
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.predict import Predictions
from hearback.reading.pairs import PairSource
from hearback.reading.passages.length import (
    MOST_WORDS_CORRECTED,
    correct_length,
    correct_longer,
    most_words_corrected,
)
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES

ENSEMBLE = EnsembleConfig(
    models=(ModelConfig("modeltok", (0,), 1.0),),
    voice=None,
    base_rates={"all": 0.5},
    log_losses={},
    n_rows=10,
)


def source_of(seconds_by_text: dict[str, float]) -> PairSource:
    """Return a source of silent recordings."""
    names = [str(number) for number in range(len(seconds_by_text))]
    metadata = pd.DataFrame({"filename": names, "task": "sentence_repetition", "grade": "3"})
    recordings = {
        name: Recording(np.zeros(round(each * SAMPLE_RATE), np.float32), ())
        for name, each in zip(names, seconds_by_text.values(), strict=True)
    }
    texts = list(seconds_by_text)
    return PairSource(metadata.assign(expected_text=texts), None, MemoryStore(recordings))


def test_a_score_is_corrected_for_more_words_than_usual_only() -> None:
    probabilities = np.array([0.2, 0.2, 0.2])
    corrected = correct_length(probabilities, np.array([3, 12, 48]))
    assert corrected[:2].tolist() == pytest.approx([0.2, 0.2])
    assert corrected[2] > 0.7


def test_texts_of_more_words_count_as_the_most() -> None:
    probabilities = np.array([0.2, 0.2, 0.2])
    n_words = np.array([24, 32, 60])
    at_most = correct_length(probabilities, n_words, 32)
    assert at_most[0] < at_most[1] == at_most[2]
    np.testing.assert_array_equal(at_most[:2], correct_length(probabilities, n_words)[:2])


def test_ensembles_with_their_words_as_a_member_are_corrected_less() -> None:
    assert most_words_corrected(ENSEMBLE) == np.inf
    assert most_words_corrected(replace(ENSEMBLE, words_weight=0.5)) == MOST_WORDS_CORRECTED


def test_infer_corrects_rows_of_more_than_16_s_only() -> None:
    text = " ".join(["boy"] * 40)
    source = source_of({text: 20, f"{text} boy": 10})
    predictions = Predictions(np.array([0.2, 0.2]), None)
    assert correct_longer(predictions, source, np.inf) is predictions
    source = source.with_longest(LONGEST_WINDOW_SAMPLES)
    corrected = correct_longer(predictions, source, np.inf).clips
    assert corrected[0] > 0.5 and corrected[1] == 0.2
    with_words = correct_longer(predictions, source, MOST_WORDS_CORRECTED).clips
    assert 0.2 < with_words[0] < corrected[0] and with_words[1] == 0.2
