"""Words have start and end times in their recordings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.engine.project import ROOT
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.models.scorers import build
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.models.word_times import find_pauses, time_words, trim
from hearback.reading.pairs import PairSource
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES
from tests.reading.quick_recipes import QUICK_TOKENS
from tests.reading.random_models import make_model
from tests.toy import spoken

TINY_EN = ROOT / "assets" / "whisper-tiny.en"
CPU = torch.device("cpu")


def source_of(texts: list[str], waveforms: list[np.ndarray], grade: str = "3") -> PairSource:
    names = [str(number) for number in range(len(texts))]
    metadata = pd.DataFrame({"filename": names, "task": "sentence_repetition", "grade": grade})
    recordings = {name: Recording(each, ()) for name, each in zip(names, waveforms, strict=True)}
    return PairSource(metadata.assign(expected_text=texts), None, MemoryStore(recordings))


def seconds(*parts: tuple[float, float]) -> np.ndarray:
    """Noise of (seconds, loudness) parts."""
    rng = np.random.default_rng(0)
    noises = [rng.normal(0, level, round(length * SAMPLE_RATE)) for length, level in parts]
    return np.concatenate(noises).astype(np.float32)


def test_every_word_has_a_time_within_its_recording(tokenizer: Path) -> None:
    model = make_model(QUICK_TOKENS, tokenizer)
    assert isinstance(model, TokenScorer)
    texts = ["boy", "the dog ran home", "a red hat"]
    source = source_of(texts, [spoken(text) for text in texts], grade="KG")
    times = time_words(model, source, [2, 0, 1], CPU)
    assert sorted(times) == [0, 1, 2]
    for row, text in enumerate(texts):
        assert times[row].shape == (len(text.split()), 2)
        assert (np.diff(times[row], axis=0) >= 0).all()
        assert (times[row][:, 1] >= times[row][:, 0]).all()
        assert 0 <= times[row].min() <= times[row].max() <= 0.06 * len(text) + 0.03


def test_words_of_recordings_up_to_30_s_have_times(tokenizer: Path) -> None:
    model = make_model(QUICK_TOKENS, tokenizer)
    assert isinstance(model, TokenScorer)
    source = source_of(["a red hat", "boy"], [seconds((19.0, 0.1)), seconds((1.0, 0.1))])
    times = time_words(model, source.with_longest(LONGEST_WINDOW_SAMPLES), [0, 1], CPU)
    assert [len(times[row]) for row in (0, 1)] == [3, 1]
    assert times[0].max() <= 19.0


def test_pauses_are_those_of_the_speech() -> None:
    waveform = seconds((0.3, 1e-4), (0.6, 0.1), (0.45, 1e-4), (0.9, 0.1), (0.06, 1e-4), (0.3, 0.1))
    expected = [(0.0, 0.3), (0.9, 1.35)]  # 60 ms are no pause
    np.testing.assert_allclose(find_pauses(waveform), expected, atol=0.031)
    assert find_pauses(seconds((1.0, 0.1))) == []


def test_words_end_before_a_pause_and_start_after_it() -> None:
    waveform = seconds((0.3, 1e-4), (0.6, 0.1), (0.45, 1e-4), (0.9, 0.1), (0.6, 1e-4))
    # The boundaries of an alignment: somewhere near the pause, and early at the end.
    times = trim(np.array([0.0, 1.5, 1.8, 2.0]), waveform)
    np.testing.assert_allclose(times, [[0.3, 0.9], [1.35, 1.8], [1.8, 2.25]], atol=0.031)


def test_a_pause_far_from_every_boundary_is_within_a_word() -> None:
    waveform = seconds((1.2, 0.1), (0.3, 1e-4), (1.2, 0.1))
    times = trim(np.array([0.0, 0.5, 2.7]), waveform)
    np.testing.assert_allclose(times, [[0.0, 0.5], [0.5, 2.7]])


@pytest.mark.slow
def test_joined_sentences_meet_where_they_were_joined() -> None:
    import librosa
    from hibari import SAMPLE_RATE as VOICE_RATE
    from hibari import Hibari

    voice = Hibari(threads=1)

    def render(text: str) -> np.ndarray:
        rendered = voice(text, seed=0).astype(np.float32)
        waveform = librosa.resample(rendered, orig_sr=VOICE_RATE, target_sr=SAMPLE_RATE)
        return librosa.effects.trim(waveform, top_db=35)[0]

    model = build(QUICK_TOKENS, read_config(TINY_EN), TINY_EN / "tokenizer.json")
    assert isinstance(model, TokenScorer)
    model.load_pretrained({part: read_tensors(TINY_EN, part) for part in ("encoder", "decoder")})
    first, second = "the children walked to the river", "she put the red book on the table"
    waveforms = [render(first), render(second)]
    source = source_of([f"{first} {second}"], [np.concatenate(waveforms)])
    times = time_words(model, source, [0], CPU)[0]
    joint = len(waveforms[0]) / SAMPLE_RATE
    n_words = len(first.split())
    assert abs(times[n_words - 1, 1] - joint) < 0.2
    assert abs(times[n_words, 0] - joint) < 0.2
    assert abs(times[-1, 1] - joint - len(waveforms[1]) / SAMPLE_RATE) < 0.2
