"""Statistics of recordings, and what is said about those that are unlike a scorer's."""

import json
from pathlib import Path

import numpy as np
import pytest

from hearback import Scorer
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.reading.scoring import statistics
from hearback.reading.scoring.acoustics import Acoustics, clipped_share
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from tests.reading.scoring.conftest import source_of

RATE = 16_000


def speech(
    seconds: float = 2.0, noise: float = 1e-3, level: float = 0.2, seed: int = 0
) -> np.ndarray:
    """Return bursts with pauses, (samples,) float32, in noise."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    envelope = np.sin(2 * np.pi * 2 * np.arange(n) / RATE) > 0
    waveform = envelope * rng.normal(0, level, n) + rng.normal(0, noise, n)
    return waveform.astype(np.float32)


def describe(waveforms: list[np.ndarray]) -> statistics.Statistics:
    return statistics.describe(source_of(["the red hat"] * len(waveforms), waveforms))


def test_acoustics_measure_what_they_say() -> None:
    found = Acoustics.of(speech(seconds=2.0, noise=1e-3, level=0.1))
    assert found.seconds == 2.0
    assert found.speech_seconds == pytest.approx(1.0, abs=0.15)
    assert found.level_db == pytest.approx(-20, abs=1)
    assert found.contrast_db == pytest.approx(40, abs=3)
    assert found.treble_db == pytest.approx(0, abs=1)  # white
    assert found.clipped_share == 0


def test_the_clipped_share_counts_runs_at_the_peak() -> None:
    assert clipped_share(speech()) == 0
    time = np.arange(2 * RATE) / RATE
    voice = (np.sin(2 * np.pi * 150 * time) * np.minimum(time, 1)).astype(np.float32)
    assert clipped_share(voice) < 0.05  # the tops of its waves
    assert 0.3 < clipped_share(np.clip(voice, -0.5, 0.5)) < 0.8
    assert clipped_share(np.minimum(voice, 0.5)) < 0.05  # the peak is on the other side
    assert clipped_share(np.zeros(RATE, np.float32)) == 0


def test_statistics_are_json_with_percentiles() -> None:
    found = describe([speech(seed=seed) for seed in range(12)])
    assert json.loads(json.dumps(found)) == found
    assert statistics.is_valid(found)
    assert found["n_recordings"] == 12 and found["synthetic"] is False
    assert set(found["percentiles"]) == set(statistics.QUANTITIES) - {"surprise", "no_speech"}
    for values in found["percentiles"].values():
        assert len(values) == 21 and values == sorted(values)


def test_what_a_decoder_hears_is_a_quantity_too() -> None:
    source = source_of(["a b"] * 3, [speech()] * 3)
    evidence = {row: DecoderEvidence(2, -3.0, 1.0, -0.5) for row in range(3)}
    found = statistics.describe(source, evidence=evidence)
    assert found["percentiles"]["no_speech"] == [-3.0] * 21
    # A decoder that cannot tell has no value.
    evidence = {row: DecoderEvidence(2, -np.inf, 1.0, -0.5) for row in range(3)}
    assert "no_speech" not in statistics.describe(source, evidence=evidence)["percentiles"]


def test_a_large_set_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "N_MEASURED", 4)
    waveforms = [speech(seconds=1 + number / 10) for number in range(9)]
    found = describe(waveforms)
    assert found["n_recordings"] == 4
    assert found["percentiles"]["seconds"][0] == 1.0
    assert found["percentiles"]["seconds"][-1] == pytest.approx(1.8)


def test_recordings_like_the_training_s_are_not_mentioned() -> None:
    learned = describe([speech(seed=seed, seconds=1.5 + seed % 5 / 4) for seed in range(20)])
    own = describe([speech(seed=99 + seed, seconds=1.6 + seed % 4 / 4) for seed in range(10)])
    assert statistics.warnings(own, learned) == []
    assert statistics.warnings(own, None) == []


def test_noisier_and_longer_recordings_are_named() -> None:
    learned = describe([speech(seed=seed) for seed in range(20)])
    own = describe([speech(seed=seed, seconds=4.0, noise=0.02) for seed in range(10)])
    (line,) = statistics.warnings(own, learned)
    assert line.startswith("these recordings are unlike what the scorer learned from: ")
    assert "2.0 s longer" in line and "dB noisier" in line
    assert line.endswith("(medians), so the scores may be off")


def test_equal_values_are_no_difference() -> None:
    same = describe([speech()] * 12)
    assert statistics.compare(same, same) == []
    half = describe([speech()] * 6 + [speech(seconds=4.0)] * 6)
    assert statistics.compare(half, half) == []


def seconds_statistics(values: list[float], contrasts: list[float]) -> statistics.Statistics:
    pairs = zip(values, contrasts, strict=True)
    return statistics.summarize([{"seconds": each, "contrast_db": db} for each, db in pairs])


def test_a_set_is_unlike_if_more_than_60_percent_are_outside_and_50_are_named() -> None:
    learned = seconds_statistics([*range(101)], [*range(101)])
    inside = [50.0] * 100

    def outside(n: int) -> list[float]:
        return [50.0] * (100 - n) + [200.0] * n

    differences = statistics.compare(seconds_statistics(outside(68), outside(55)), learned)
    assert [each.quantity for each in differences] == ["seconds", "contrast_db"]
    differences = statistics.compare(seconds_statistics(outside(68), outside(45)), learned)
    assert [each.quantity for each in differences] == ["seconds"]
    assert statistics.compare(seconds_statistics(outside(55), inside), learned) == []


def test_the_level_alone_does_not_matter() -> None:
    learned = describe([speech(seed=seed) for seed in range(20)])
    own = describe([0.1 * speech(seed=seed) for seed in range(10)])
    assert statistics.warnings(own, learned) == []


def test_few_recordings_are_not_compared() -> None:
    learned = describe([speech(seed=seed) for seed in range(20)])
    own = describe([speech(seed=seed, seconds=9.0) for seed in range(9)])
    assert statistics.warnings(own, learned) == []


def test_synthetic_voices_are_known_by_the_sample_s_names() -> None:
    assert statistics.is_synthetic(["sample_00001.wav", "data\\sample_00002.wav"])
    assert not statistics.is_synthetic(["sample_00001.wav", "a.wav"])
    assert not statistics.is_synthetic([])
    learned = {**describe([speech()] * 12), "synthetic": True}
    own = {**learned, "synthetic": False}
    assert statistics.warnings(own, learned) == [statistics.SYNTHETIC]
    assert statistics.warnings(learned, learned) == []


def test_the_scorer_compares_a_table_with_its_statistics(
    toy_scorer: Path, tmp_path: Path, clips: Path
) -> None:
    folder = tmp_path / "scorer"
    folder.mkdir()
    for path in toy_scorer.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    learned = describe([speech(seed=seed, seconds=5.0) for seed in range(20)])
    (folder / "statistics.json").write_text(json.dumps(learned))
    for number in range(10):
        (clips / f"more{number}.wav").write_bytes((clips / "a.wav").read_bytes())
        (clips / f"more{number}.txt").write_text("boy")
    report = Report()
    Scorer.load(folder, device="cpu").score_table(clips, report)
    (problem,) = report.warnings
    assert "s shorter" in problem.what and problem.cure == statistics.CURE
    (folder / "statistics.json").write_text("{}")
    with pytest.raises(HearbackError, match=r"statistics\.json: damaged statistics"):
        Scorer.load(folder, device="cpu")
