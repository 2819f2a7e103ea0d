"""benchmarks/joined_clips.py: long recordings of known truth, which contain short ones."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from benchmarks import mispronounced
from benchmarks.joined_clips import TOLERANCE, Joiner, as_source
from benchmarks.scorer_lengths import ScoredLength, compare, describe
from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.reading.dataset import TrainingData
from hearback.reading.word_labels import ReadWords, WordLabels

SECONDS = [5.0, 10.0, 20.0, 28.0]
WORDS = [
    "red",
    "green",
    "blue",
    "brown",
    "black",
    "white",
    "pink",
    "grey",
    "gold",
    "teal",
    "lime",
    "plum",
    "rose",
    "sand",
    "wine",
    "navy",
]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    """Clips of 1 to 3 s of two speakers with much speech, and one with little; three are wrong."""
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )
    rng = np.random.default_rng(0)
    speakers = ["a"] * 20 + ["b"] * 20 + ["c"] * 2
    names = [str(number) for number in range(len(speakers))]
    texts = [" ".join(rng.permutation(WORDS)[:5]) for _ in names]
    noise = [rng.normal(0, 0.1, round(rng.uniform(1, 3) * SAMPLE_RATE)) for _ in names]
    recordings = {
        name: Recording(each.astype(np.float32), ())
        for name, each in zip(names, noise, strict=True)
    }
    labels = np.ones(len(names), np.float32)
    labels[[0, 1, 20]] = 0
    # Row 1 has another text than the one that was read.
    read = [texts[0], "red green", *texts[2:]]
    word_labels = WordLabels(
        {
            name: ReadWords.of(text.split(), np.ones(len(text.split())))
            for name, text in zip(names, read, strict=True)
        }
    )
    metadata = {"expected_text": texts, "speaker": speakers, "grade": "3", "task": ""}
    return cast(
        TrainingData,
        SimpleNamespace(
            metadata=pd.DataFrame(metadata),
            labels=labels,
            filenames=names,
            source=SimpleNamespace(store=MemoryStore(recordings), texts=texts),
            word_labels=word_labels,
        ),
    )


def joiner_of(data: TrainingData) -> Joiner:
    return Joiner(data, range(len(data.labels)), None, 0)


def test_long_recordings_contain_the_short_ones(data: TrainingData) -> None:
    draws = joiner_of(data).draw_nested(SECONDS, 6)
    assert len(draws) == 6
    assert [draw[0].speaker for draw in draws].count("a") == 3  # the speakers take turns
    for draw in draws:
        assert len(draw) >= 3
        for seconds, joined in zip(SECONDS, draw, strict=False):
            assert abs(joined.seconds - seconds) <= TOLERANCE * seconds
            right, wrong = joined.text.split(), joined.wrong_text.split()
            assert abs(len(right) - len(wrong)) <= 1 and right != wrong
        for short, long in pairwise(draw):
            assert short.text in long.text and short.wrong_text in long.wrong_text
            assert len(set(long.texts)) == len(long.texts)
            (at,) = (n for n in range(len(long.texts)) if long.texts[n:][:1] == short.texts[:1])
            part = long.waveform[long.edges[at] :][: len(short.waveform)]
            np.testing.assert_array_equal(part, short.waveform)


def test_a_mispronounced_clip_is_among_well_read_ones(data: TrainingData) -> None:
    assert mispronounced.find_mispronounced(data, range(42)) == {"a": [0], "b": [20]}
    draws = mispronounced.draw_mispronounced(joiner_of(data), range(42), 4, 0)
    assert len(draws) == 4
    texts = data.metadata["expected_text"]
    for short, long in draws:
        assert short.seconds < 8 < long.seconds
        assert long.texts[long.changed] in (texts[0], texts[20])
        assert long.wrong_text == long.text
    source = as_source(data, [draw[0] for draw in draws])
    assert len(source) == len(draws)  # one text each


def test_differences_are_of_the_same_draws(data: TrainingData) -> None:
    joined = [draw[0] for draw in joiner_of(data).draw_nested(SECONDS, 2)]
    short = ScoredLength(joined, np.array([0, 1]), np.array([[0.9, 0.1], [0.5, 0.5]]), np.ones(2))
    long = ScoredLength(joined[1:], np.array([1]), np.array([[0.25, 0.75]]), np.ones(1))
    assert f"{np.log(2):+.3f}" in compare([[short, long]], 0, 1)
    assert "1 pairs of 1 speakers" in compare([[short, long]], 0, 1)
    line: dict[str, Any] = describe(short)
    assert line["AUC"] == pytest.approx(0.875)
    assert (line["mean as read"], line["mean wrong"]) == pytest.approx((0.7, 0.3))
