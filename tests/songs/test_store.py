"""The stores of the snippets: separated audio, and features computed from it."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearback.engine.audio.decode import decode
from hearback.engine.audio.store import Store
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.problems import Report
from hearback.songs.features import FEATURES, N_SAMPLES
from hearback.songs.store import build_features, fit_length
from hearback.songs.tables import list_snippets, read_snippets
from tests.songs.songs_data import Halved


def noise(seed: int, seconds: float = 3.0, sample_rate: int = 24_000) -> np.ndarray:
    n_samples = round(seconds * sample_rate)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder of three good snippets and no manifest."""
    data = tmp_path / "data"
    for seed, name in enumerate("abc"):
        write_wav(data / "train" / f"{name}.wav", noise(seed), 24_000)
    (data / "train_label.txt").write_text("a.wav,0\nb.wav,1\nc.wav,3\n")
    return data


@pytest.fixture
def build(tmp_path: Path, data: Path) -> Callable[..., Store]:
    def build(features: str = "waveform", report: Report | None = None, **settings: Any) -> Store:
        return build_features(
            read_snippets(data, Report()),
            data,
            tmp_path / "store",
            "train",
            features,
            separation=settings.pop("separation", "none"),
            report=Report() if report is None else report,
            progress=False,
            **settings,
        )

    return build


@pytest.mark.parametrize("features", FEATURES)
def test_the_store_has_the_features_of_the_separated_audio(
    data: Path, build: Callable[..., Store], features: str
) -> None:
    store = build(features, separation=Halved())
    assert len(store) == 3
    for name in ("train/a.wav", "train/b.wav", "train/c.wav"):
        values = store.get(name)
        assert values.dtype == np.float32
        # The sound is kept in 16 bits.
        sound = np.rint(0.5 * decode(data / name, 24_000).waveform * 32_768) / 32_768
        expected = FEATURES[features].compute(sound.astype(np.float32))
        assert np.allclose(values, expected, atol=1e-4)


def test_a_snippet_is_separated_once_for_all_features(
    data: Path, build: Callable[..., Store]
) -> None:
    separation = Halved()
    for features in FEATURES:
        build(features, separation=separation)
    build("waveform", separation=separation)
    assert separation.n_snippets == 3
    write_wav(data / "train" / "b.wav", noise(9), 24_000)
    os.utime(data / "train" / "b.wav", ns=(1, 1))
    before = build("waveform", separation="none").get("train/b.wav")
    after = build("waveform", separation=separation).get("train/b.wav")
    assert separation.n_snippets == 4
    assert np.allclose(after, before / 2, atol=1e-4)


def test_another_version_of_a_separation_is_stored_again(build: Callable[..., Store]) -> None:
    previous = build(separation=Halved())
    assert build(separation=Halved(factor=0.25)).fingerprint() == previous.fingerprint()
    newer = build(separation=Halved(version=2, factor=0.25))
    assert np.allclose(newer.get("train/a.wav"), previous.get("train/a.wav") / 2, atol=1e-4)


def test_each_separation_has_its_own_store(tmp_path: Path, build: Callable[..., Store]) -> None:
    mixed, separated = build(), build(separation=Halved())
    assert np.allclose(separated.get("train/a.wav"), mixed.get("train/a.wav") / 2, atol=1e-4)
    assert mixed.fingerprint() != separated.fingerprint()
    assert sorted(path.name for path in (tmp_path / "store").glob("*.json")) == [
        "train_halved.json",
        "train_halved_waveform.json",
        "train_none.json",
        "train_none_waveform.json",
    ]


def test_snippets_with_errors_have_no_features(data: Path, build: Callable[..., Store]) -> None:
    write_wav(data / "train" / "a.wav", np.zeros(N_SAMPLES), 24_000)
    (data / "train" / "b.wav").unlink()
    report = Report()
    store = build(report=report)
    assert [(problem.row, problem.filename) for problem in report.problems] == [
        (1, "train/a.wav"),
        (2, "train/b.wav"),
    ]
    assert {problem.file for problem in report.errors} == {str(data / "train_label.txt")}
    assert [name for name in ("a", "b", "c") if f"train/{name}.wav" in store] == ["c"]


def test_without_usable_snippets_the_store_is_empty(
    data: Path, build: Callable[..., Store]
) -> None:
    (data / "train_label.txt").write_text("")
    assert len(build()) == 0


def test_a_silent_voice_is_not_an_error(build: Callable[..., Store]) -> None:
    report = Report()
    store = build("log_mel_40", report, separation=Halved(factor=0.0))
    assert len(store) == 3
    assert report.problems == []


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (2.5, "2.50 s long instead of 3 s: zero-padded"),
        (4.0, "4.00 s long instead of 3 s: cut"),
    ],
)
def test_other_lengths_become_3_s_with_a_warning(
    data: Path, build: Callable[..., Store], seconds: float, message: str
) -> None:
    write_wav(data / "train" / "a.wav", noise(0, seconds), 24_000)
    for _ in range(2):  # a second build reports it again
        report = Report()
        waveform = build(report=report).get("train/a.wav")
        (warning,) = report.warnings
        assert (warning.row, warning.what) == (1, message)
        assert warning.cure.endswith("24 kHz mono original of 3 s, use that")
        assert waveform.shape == (48_000,)
        assert waveform[: round(2.4 * 16_000)].std() > 0.1
        assert (np.abs(waveform[round(2.6 * 16_000) :]).max() > 0.1) == (seconds > 3)


def test_rounding_of_a_resampled_length_is_not_reported() -> None:
    for n_samples in (N_SAMPLES - 1, N_SAMPLES, N_SAMPLES + 1):
        waveform, notes = fit_length(np.ones(n_samples, np.float32))
        assert waveform.shape == (N_SAMPLES,)
        assert notes == ()
    assert fit_length(np.ones(N_SAMPLES - 2, np.float32))[0].sum() == N_SAMPLES - 2


def test_another_rate_is_a_warning(data: Path, build: Callable[..., Store]) -> None:
    write_wav(data / "train" / "a.wav", noise(0, sample_rate=44_100), 44_100)
    report = Report()
    assert "train/a.wav" in build(report=report)
    assert [problem.what for problem in report.problems] == ["44.1 kHz, resampled to 24 kHz"]


def test_a_folder_of_snippets_without_labels_is_stored_too(tmp_path: Path, data: Path) -> None:
    (data / "train" / "d.wav").write_text("no audio")
    report = Report()
    store = build_features(
        list_snippets(data),
        data,
        tmp_path / "store",
        "unseen",
        "waveform",
        separation="none",
        report=report,
        progress=False,
    )
    assert len(store) == 3
    (error,) = report.errors
    assert (error.file, error.row, error.filename) == (str(data), None, "train/d.wav")


def test_a_feature_store_can_be_pickled(build: Callable[..., Store]) -> None:
    store = build("mel_db_128")
    travelled = pickle.loads(pickle.dumps(store))
    assert np.array_equal(travelled.get("train/c.wav"), store.get("train/c.wav"))
