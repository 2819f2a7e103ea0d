"""Long recordings are cut at their pauses."""

from itertools import pairwise

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.passages.segments import find_segments


def recording(*parts: tuple[float, float]) -> np.ndarray:
    """Noise of (seconds, loudness) parts."""
    rng = np.random.default_rng(0)
    noises = [rng.normal(0, level, round(length * SAMPLE_RATE)) for length, level in parts]
    return np.concatenate(noises).astype(np.float32)


SPEECH, PAUSE = 0.1, 1e-4


def test_a_short_recording_is_one_segment_without_long_silence() -> None:
    (segment,) = find_segments(recording((2, PAUSE), (5, SPEECH), (3, PAUSE)))
    assert abs(segment.start / SAMPLE_RATE - 1.6) < 0.05
    assert abs(segment.stop / SAMPLE_RATE - 7.4) < 0.05


def test_a_long_recording_is_cut_in_its_longest_pause() -> None:
    waveform = recording((9, SPEECH), (0.3, PAUSE), (6, SPEECH), (0.6, PAUSE), (14, SPEECH))
    first, second = find_segments(waveform)
    assert 15.3 < first.stop / SAMPLE_RATE < 15.9
    assert 15.3 < second.start / SAMPLE_RATE < 15.9
    assert first.start == 0 and len(waveform) - second.stop < 480


def test_segments_are_in_order_and_short_enough() -> None:
    rng = np.random.default_rng(1)
    parts = [
        part
        for _ in range(60)
        for part in ((rng.uniform(0.5, 4), SPEECH), (rng.uniform(0.05, 0.8), PAUSE))
    ]
    waveform = recording(*parts)
    segments = find_segments(waveform, max_seconds=10)
    assert len(segments) > len(waveform) / SAMPLE_RATE / 10
    assert all(0 < each.seconds <= 10 for each in segments)
    assert all(a.stop <= b.start for a, b in pairwise(segments))
    # Nothing but silence is left out.
    heard = sum(each.seconds for each in segments)
    assert heard > sum(length for length, level in parts if level == SPEECH)


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    waveform = recording((13, SPEECH), (0.3, 0.02), (17, SPEECH))
    first, second = find_segments(waveform)
    assert first.stop == second.start
    assert 12.9 < first.stop / SAMPLE_RATE < 13.4


def test_silence_and_noise_are_cut_all_the_same() -> None:
    for level in (0.0, 0.05):
        segments = find_segments(recording((60, level)))
        assert sum(each.seconds for each in segments) > 59.9
        assert max(each.seconds for each in segments) <= 24
