"""Long rows are scored in windows, and their scores are put together."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.engine.project import ROOT
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.inference.predict import Predictions, predict
from hearback.reading.models.scorers import build
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import PairSource
from hearback.reading.passages.jumps import WordRange
from hearback.reading.passages.length import LENGTH_SLOPE, MOST_WORDS_CORRECTED, USUAL_WORDS
from hearback.reading.passages.likelihood import SegmentLikelihood
from hearback.reading.passages.rows import (
    Passages,
    PassageWindow,
    SegmentStore,
    combine,
    split_recording,
    split_rows,
    whole_rows,
)
from hearback.reading.passages.segments import Segment
from hearback.reading.scoring.rows import _describe_unread
from hearback.reading.window_batches import WINDOW_SAMPLES
from tests.reading.quick_recipes import QUICK_TOKENS
from tests.reading.random_models import make_model
from tests.toy import spoken

TINY_EN = ROOT / "assets" / "whisper-tiny.en"
CPU = torch.device("cpu")


def source_of(rows: dict[str, np.ndarray], grade: str = "3") -> PairSource:
    """Return a source with a row for each text."""
    names = [str(number) for number in range(len(rows))]
    metadata = pd.DataFrame({"filename": names, "task": "sentence_repetition", "grade": grade})
    recordings = {
        name: Recording(each, ()) for name, each in zip(names, rows.values(), strict=True)
    }
    return PairSource(metadata.assign(expected_text=list(rows)), None, MemoryStore(recordings))


def silence(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.fixture
def model(tokenizer: Path) -> TokenScorer:
    made = make_model(QUICK_TOKENS, tokenizer).eval()
    assert isinstance(made, TokenScorer)
    return made


def test_one_bad_part_lowers_a_passage_by_its_share() -> None:
    equal = np.array([10, 10, 10])
    assert combine(np.array([0.9]), np.array([5])) == 0.9
    # Log-odds are divided by the square root of the number of parts, at most by 2.
    assert combine(np.array([0.8, 0.8, 0.8]), equal) == pytest.approx(1 / (1 + 4 ** -(3**-0.5)))
    assert combine(np.full(9, 0.8), np.ones(9)) == pytest.approx(2 / 3)
    low = combine(np.array([0.95, 0.01, 0.95]), equal)
    assert 0.1 < low < 0.2
    assert combine(np.array([0.95, 0.01, 0.95]), np.array([10, 1, 10])) > low
    assert combine(np.array([0.0, 1.0]), np.array([1, 1])) < 1e-6


def test_short_rows_are_one_window_and_keep_their_scores(model: TokenScorer) -> None:
    source = source_of({"the dog ran home": spoken("the dog ran home"), "boy": spoken("boy")})
    passages = split_rows(source, model, device=CPU, dtype=torch.float32)
    assert [window.row for window in passages.windows] == [0, 1]
    rows = np.arange(2)
    expected = predict(model, source, rows, device=CPU, dtype=torch.float32)
    found = passages.merge(predict(model, passages.source, rows, device=CPU, dtype=torch.float32))
    np.testing.assert_array_equal(found.clips, expected.clips)
    np.testing.assert_array_equal(found.words, expected.words)


def test_rows_of_16_to_30_s_are_heard_whole(model: TokenScorer) -> None:
    said = np.concatenate([spoken("boy"), silence(17), spoken("cupcake")])
    changed = said.copy()
    changed[-SAMPLE_RATE // 4 :] = 0
    scores = []
    for waveform in (said, changed):
        source = source_of({"boy cupcake": waveform})
        passages = split_rows(source, model, device=CPU, dtype=torch.float32)
        assert len(passages.windows) == 1
        scores.append(predict(model, passages.source, [0], device=CPU, dtype=torch.float32).clips)
    assert scores[0] != scores[1]


def test_windows_have_the_recording_and_the_words_in_order(model: TokenScorer) -> None:
    texts = ["the dog ran home", "a red hat", "boy"] * 2
    parts = [part for text in texts for part in (spoken(text), silence(7))]
    source = source_of({" ".join(texts): np.concatenate(parts), "boy": spoken("boy")})
    passages = split_rows(source, model, device=CPU, dtype=torch.float32)
    of_long = [window for window in passages.windows if window.row == 0]
    assert len(of_long) + len(passages.unmatched) > 1
    n_words = len(source.texts[0].split())
    runs = [run for each in of_long for run in each.runs]
    assert [word for run in runs for word in range(run.start, run.stop)] == list(range(n_words))
    assert passages.source.texts[-1] == "boy"
    assert " ".join(passages.source.texts[:-1]) == source.texts[0]
    again = pickle.loads(pickle.dumps(passages.source))  # as a worker process gets it
    np.testing.assert_array_equal(again.learner(0), passages.source.learner(0))
    rows = np.arange(len(passages.windows))
    found = passages.merge(predict(model, passages.source, rows, device=CPU, dtype=torch.float32))
    assert found.words is not None and found.words.shape == (2, n_words + 1, 2)
    assert np.isfinite(found.words[0, :n_words]).all()
    assert np.isfinite(found.clips).all()


def test_parts_of_a_store_are_a_store() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 1000).astype(np.float32)
    store = source_of({"boy": silence(1), "girl": noise}).store
    name = list(store.entries)[1]
    parts = SegmentStore(store, {"x": (name, Segment(0, 400)), "y": (name, Segment(400, 1000))})
    for opened in (parts, pickle.loads(pickle.dumps(parts))):
        assert "x" in opened and name not in opened and len(opened) == 2
        assert (opened.n_samples("x"), opened.n_samples("y")) == (400, 600)
        joined = np.concatenate([opened.get("x"), opened.get("y")])
        np.testing.assert_array_equal(joined, store.get(name))
    others = SegmentStore(store, {"x": (name, Segment(0, 401)), "y": (name, Segment(401, 1000))})
    assert parts.fingerprint() != others.fingerprint()


def two_windows() -> Passages:
    """A row of five words in two windows of 20 s, and one of a word."""
    source = source_of({"a b c d e": silence(45), "boy": spoken("boy")})
    windows = (
        PassageWindow(0, Segment(0, 320_000), (WordRange(0, 3),)),
        PassageWindow(0, Segment(336_000, 656_000), (WordRange(3, 5),)),
        PassageWindow(1, Segment(0, 100), (WordRange(0, 1),)),
    )
    return Passages(source, windows, (), source)


def test_word_scores_of_windows_are_put_together() -> None:
    words = np.full((3, 4, 2), np.nan)
    words[0, :3, 0], words[0, :, 1] = [1, 2, 3], [1, 2, 3, -4]
    words[1, :2, 0], words[1, :3, 1] = [4, 5], [6, 7, 8]
    words[2, :1, 0], words[2, :2, 1] = [9], [9, 9]
    merged = two_windows().merge(Predictions(np.array([0.9, 0.9, 0.5]), words)).words
    assert merged is not None and merged.shape == (2, 6, 2)
    assert merged[0, :5, 0].tolist() == [1, 2, 3, 4, 5]
    assert np.isnan(merged[0, 5, 0]) and np.isnan(merged[1, 2:]).all()
    # Where the windows meet, the lower one counts.
    assert merged[0, :, 1].tolist() == [1, 2, 3, -4, 7, 8]


def test_word_times_count_from_the_start_of_the_recording() -> None:
    times = two_windows().merge_times(
        {
            0: np.array([[0.5, 1], [1, 2], [3, 4.0]]),
            1: np.array([[0.5, 1], [2, 3.0]]),
            2: np.array([[0, 0.1]]),
        }
    )
    assert times[0][:, 0].tolist() == [0.5, 1, 3, 21.5, 23]
    assert times[1].tolist() == [[0, 0.1]]


def test_words_in_no_window_have_the_end_of_the_word_before() -> None:
    passages = two_windows()
    first, second, third = passages.windows
    runs = (WordRange(0, 2),), (WordRange(3, 4),)
    windows = (replace(first, runs=runs[0]), replace(second, runs=runs[1]), third)
    times = {0: np.array([[0.5, 1], [1, 2.0]]), 1: np.array([[0.5, 1.5]]), 2: np.zeros((1, 2))}
    found = replace(passages, windows=windows).merge_times(times)[0]
    assert found.tolist() == [[0.5, 1], [1, 2], [2, 2], [21.5, 22.5], [22.5, 22.5]]


def with_skips() -> Passages:
    """A row of eight words; two are skipped inside its first window, one after it."""
    source = source_of({"a b c d e f g h": silence(45)})
    windows = (
        PassageWindow(0, Segment(0, 320_000), (WordRange(0, 2), WordRange(4, 6))),
        PassageWindow(0, Segment(336_000, 656_000), (WordRange(7, 8),)),
    )
    return Passages(source, windows, (), source)


def test_words_skipped_inside_a_window_have_no_score_but_the_words_around_them() -> None:
    words = np.full((2, 5, 2), np.nan)
    words[0, :4, 0], words[0, :, 1] = [1, 2, 3, 4], [1, 2, -3, 4, 5]
    words[1, :1, 0], words[1, :2, 1] = [5], [6, 7]
    passages = with_skips()
    merged = passages.merge(Predictions(np.array([0.9, 0.9]), words))
    assert merged.words is not None and merged.clips[0] < 1e-6
    assert merged.words[0, :8, 0].tolist() == [1, 2, -15, -15, 3, 4, -15, 5]
    assert merged.words[0, :, 1].tolist() == [1, 2, -3, -15, -3, 4, 5, 6, 7]
    times = np.arange(8.0).reshape(4, 2)
    merged_times = passages.merge_times({0: times, 1: np.array([[0.5, 1]])})[0]
    assert merged_times[:, 0].tolist() == [0, 2, 3, 3, 4, 6, 7, 21.5]
    assert _describe_unread(passages, 0, [0, 1]) == [
        "words 3 to 4 of 8 of the text are not recognised",
        "word 7 of 8 of the text is not recognised",
    ]


def test_words_without_room_in_any_window_are_not_said(model: TokenScorer) -> None:
    text = " ".join(["sunshine"] * 120)  # more tokens than the decoder has positions
    passages = split_rows(source_of({text: spoken("boy")}), model, device=CPU, dtype=torch.float32)
    rows = np.arange(len(passages.windows))
    found = passages.merge(predict(model, passages.source, rows, device=CPU, dtype=torch.float32))
    assert found.clips[0] < 1e-6
    assert found.words is not None and (found.words[0, -2] == -15).all()


def test_windows_of_over_8_s_are_corrected_as_the_ensemble_needs() -> None:
    text = " ".join(["boy"] * 48)
    source = source_of({text: silence(20), f"{text} boy": silence(7)})
    windows = tuple(
        PassageWindow(row, Segment(0, n), (WordRange(0, 48 + row),))
        for row, n in enumerate((320_000, 112_000))
    )
    predictions = Predictions(np.array([0.5, 0.5]), None)
    for most_words, counted in ((np.inf, 48), (MOST_WORDS_CORRECTED, MOST_WORDS_CORRECTED)):
        passages = Passages(source, windows, (), source, most_words=most_words)
        long, short = passages.merge(predictions).clips
        assert long == pytest.approx(expit(LENGTH_SLOPE * np.log(counted / USUAL_WORDS)))
        assert short == pytest.approx(0.5)


def test_whole_rows_are_cut_at_16_s_and_not_corrected() -> None:
    passages = whole_rows(source_of({" ".join(["boy"] * 40): silence(20)}))
    assert passages.source.longest_window(0) == WINDOW_SAMPLES
    assert passages.merge(Predictions(np.array([0.2]), None)).clips[0] == pytest.approx(0.2)


def test_likelihoods_are_those_of_the_texts_alone(model: TokenScorer) -> None:
    words, waveform = ["the", "dog", "ran", "home"], spoken("the dog")
    likelihood = SegmentLikelihood(model, words, lambda _: waveform, CPU)
    found = likelihood(0, [0, 2], 3)
    for values in (found.begins, found.whole):
        assert values.shape == (2, 4)
        assert np.isfinite(values[0]).all()
        assert np.isfinite(values[1, :3]).all() and values[1, 3] == -np.inf  # two words are left
    assert (found.begins[:, 0] == 0).all() and (found.whole < found.begins)[0].all()
    # A text's own end has the value that longer texts give for stopping there.
    np.testing.assert_allclose(likelihood(0, [0], 2).whole[0], found.whole[0, :3], atol=1e-4)
    # Words after others are conditional on them.
    later = likelihood(0, [1, 2], 2, (WordRange(0, 1),))
    for values, all_words in ((later.begins, found.begins), (later.whole, found.whole)):
        np.testing.assert_allclose(values[0], all_words[0, 1:] - found.begins[0, 1], atol=1e-4)
        assert np.isfinite(values[1]).all()


SENTENCES = (
    "the children walked to the river",
    "she put the red book on the table",
    "we had bread and cheese for lunch",
    "my brother plays football after school",
    "the old man told us a funny story",
    "it rained all day so we stayed at home",
)
SKIPPED = (
    "seven green parrots borrowed a ladder from the sleepy baker",
    "under the bridge a violin hummed while tulips counted clouds",
    "no engineer has ever painted such a square and noisy melon",
    "perhaps tomorrow your uncle sells both of his wooden whales",
)


def rendered(sentences: Sequence[str], pause_seconds: float) -> list[np.ndarray]:
    """Return speech of each sentence, with a pause after it."""
    import librosa
    from hibari import SAMPLE_RATE as VOICE_RATE
    from hibari import Hibari

    voice, pause = Hibari(threads=1), silence(pause_seconds)
    spoken_sentences = [voice(sentence, seed=0).astype(np.float32) for sentence in sentences]
    return [
        np.concatenate([librosa.resample(each, orig_sr=VOICE_RATE, target_sr=SAMPLE_RATE), pause])
        for each in spoken_sentences
    ]


def pretrained() -> TokenScorer:
    model = build(QUICK_TOKENS, read_config(TINY_EN), TINY_EN / "tokenizer.json").eval()
    assert isinstance(model, TokenScorer)
    model.load_pretrained({part: read_tensors(TINY_EN, part) for part in ("encoder", "decoder")})
    return model


@pytest.mark.slow
def test_sentences_are_found_in_a_long_recording_with_real_weights() -> None:
    parts = rendered(SENTENCES, 4)
    starts = np.cumsum([0, *map(len, parts)])
    source = source_of({" ".join(SENTENCES): np.concatenate(parts)})
    windows = split_recording(source, 0, pretrained(), CPU)
    assert len(windows) > 1
    firsts = np.cumsum([0, *(len(sentence.split()) for sentence in SENTENCES)])
    for window in windows:
        (words,) = window.runs
        assert words.start in firsts  # pauses are between sentences only
        number = int(np.searchsorted(firsts, words.start))
        assert abs(starts[number] - window.segment.start) < SAMPLE_RATE


@pytest.mark.slow
@pytest.mark.parametrize("n_before", [2, 3, 4])
def test_lines_that_were_skipped_are_in_no_window_with_real_weights(n_before: int) -> None:
    text = " ".join([*SENTENCES[:n_before], *SKIPPED, *SENTENCES[n_before:]])
    # One pause is long: elsewhere, a window has words before and after the skipped ones.
    parts = [*rendered(SENTENCES[:3], 0.3), silence(12), *rendered(SENTENCES[3:], 0.3)]
    windows = split_recording(source_of({text: np.concatenate(parts)}), 0, pretrained(), CPU)
    first = len(" ".join(SENTENCES[:n_before]).split())
    skipped = range(first, first + len(" ".join(SKIPPED).split()))
    runs = [run for window in windows for run in window.runs]
    said = [word for run in runs for word in range(run.start, run.stop)]
    assert said == [word for word in range(len(text.split())) if word not in skipped]
