"""Recordings and references that are longer than the models' window."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store_builder import build_store
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import PROBLEMS
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.submission import InferenceOptions, write_submission
from hearback.reading.pairings import Pairing
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.render import render_missing
from hearback.reading.window_coverage import (
    ANY_MODELS,
    Coverage,
    Uncovered,
    coverages_of,
    find_speech,
    find_uncovered,
    report_uncovered,
)
from tests.reading.inference_data import write_ensemble
from tests.reading.random_models import BASE_RATES
from tests.toy import ToneVoice

SLOWER = (0.8, 0.8, 0.9, 1.0)
FASTER = (1.25,) * 4


def hiss(seconds: float, level: float = 0.002) -> np.ndarray:
    """Return noise of a room, (samples,): near-silence, which is not refused as silent."""
    rng = np.random.default_rng(round(1000 * seconds))
    return rng.normal(0, level, round(seconds * SAMPLE_RATE))


def speech(seconds: float) -> np.ndarray:
    """Return syllables of 0.2 s with pauses of 0.1 s, (samples,), over a little noise."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    voiced = times % 0.3 < 0.2
    return voiced * 0.3 * np.sin(2 * np.pi * 200 * times) + hiss(seconds)


def source_of(folder: Path, *recordings: np.ndarray, reference: float = 2.0) -> PairSource:
    """Return a source of recordings of grade KG whose text has a reference of some seconds."""
    names = [f"{number}.wav" for number in range(len(recordings))]
    for name, recording in zip(names, recordings, strict=True):
        write_wav(folder / name, recording, SAMPLE_RATE)
    metadata = pd.DataFrame(
        {"filename": names, "task": "blending", "expected_text": "a text", "grade": "KG"}
    ).assign(line=range(2, 2 + len(names)))
    store = build_store(metadata, folder, folder / "t.csv", folder / "s", "t", report=Report())
    references = SimpleNamespace(n_samples=lambda _text: round(reference * SAMPLE_RATE))
    return PairSource(metadata, cast(Any, references), store)


def uncovered(source: PairSource, *coverages: Coverage) -> list[Uncovered]:
    return list(find_uncovered(source, coverages or [Coverage("tokens")]))


def test_all_of_steady_noise_counts_and_stands_out_nowhere() -> None:
    found, stands_out = find_speech(hiss(3.0, 0.2).astype(np.float32))
    assert found.all() and len(found) == 100
    assert not stands_out
    assert find_speech(np.zeros(10, np.float32))[0].shape == (0,)


@pytest.mark.parametrize("noise", [0.0, 0.0003, 0.02])
def test_speech_is_what_is_louder_than_the_noise(noise: float) -> None:
    waveform = np.concatenate([np.zeros(48_000), speech(1.5), np.zeros(48_000)])
    waveform += noise * np.random.default_rng(0).normal(size=len(waveform))
    found, stands_out = find_speech(waveform.astype(np.float32))
    assert stands_out
    assert not found[:99].any() and not found[151:].any()
    assert 0.6 < found[100:150].mean() < 0.9


def test_a_click_does_not_set_the_level() -> None:
    waveform = np.concatenate([0.05 * speech(2.0), hiss(2.0, 1e-4)]).astype(np.float32)
    expected = find_speech(waveform)[0].sum()
    waveform[-100:-90] = 1.0
    assert find_speech(waveform)[0].sum() - expected <= 1


FITTING = {
    "exactly 16 s": speech(16.0),
    "trailing silence": np.concatenate([speech(15.0), hiss(1.1)]),
    "much trailing silence": np.concatenate([speech(5.0), hiss(20.0)]),
    "less than a word": speech(16.05),
}


@pytest.mark.parametrize("waveform", FITTING.values(), ids=FITTING)
@pytest.mark.parametrize("speeds", [(1.0,) * 4, SLOWER, FASTER])
def test_a_row_is_not_mentioned_if_all_its_speech_is_covered(
    tmp_path: Path, waveform: np.ndarray, speeds: tuple[float, ...]
) -> None:
    source = source_of(tmp_path, waveform)
    assert uncovered(source, Coverage("tokens", speeds), Coverage("aligned", speeds)) == []


def test_speech_after_near_silence_is_not_covered(tmp_path: Path) -> None:
    recordings = (
        np.concatenate([hiss(17.0), speech(3.0)]),
        np.concatenate([hiss(17.0), speech(0.4)]),
        np.concatenate([hiss(17.0), hiss(3.0, 0.2)]),
        np.concatenate([np.zeros(17 * SAMPLE_RATE), speech(3.0)]),
    )
    for row in uncovered(source_of(tmp_path, *recordings)):
        assert not row.is_scorable
        assert " s long; the models hear the first 16 s: 0.0 of " in row.what
    assert [row.row for row in uncovered(source_of(tmp_path, *recordings))] == [0, 1, 2, 3]


def test_more_than_half_of_the_speech_is_enough(tmp_path: Path) -> None:
    more, less = (np.concatenate([hiss(16.0 - n), speech(2 * n + d)]) for n, d in ((3, -1), (3, 1)))
    first, second = uncovered(source_of(tmp_path, more, less))
    assert (first.is_scorable, second.is_scorable) == (True, False)
    assert first.what.startswith("18.0 s long; the models hear the first 16 s: 2.")
    assert first.what.endswith(" s of speech")
    assert first.cure == ("cut the silence before the speech, or split the recording and its text")


def test_white_noise_counts_as_if_it_were_speech(tmp_path: Path) -> None:
    (row,) = uncovered(source_of(tmp_path, hiss(17.0, 0.2)))
    assert row.is_scorable
    assert row.what == "17.0 s long; the models hear the first 16 s: 16.0 of 17.0 s of speech"


def test_what_follows_the_reference_in_its_window_has_less_room(tmp_path: Path) -> None:
    source = source_of(tmp_path, speech(9.0), speech(12.0), reference=6.5)
    assert uncovered(source, Coverage("tokens"), Coverage("aligned")) == []
    (row,) = uncovered(source, Coverage("tokens"), Coverage("joined", subject="model2ds hears"))
    assert row.row == 1
    assert row.is_scorable
    start = "12.0 s long; after its reference of 6.5 s, model2ds hears the first 9.5 s: "
    assert row.what.startswith(start)
    assert "such as modeltok" in row.cure


@pytest.mark.parametrize(
    ("pairing", "is_scorable"),
    [
        ("joined", False),
        ("aligned", True),
        ("speech classifier", True),
        ("tokens", None),
        ("text cosine", None),
    ],
)
def test_a_reference_longer_than_the_window(
    tmp_path: Path, pairing: Pairing, is_scorable: bool | None
) -> None:
    rows = uncovered(source_of(tmp_path, speech(10.0), reference=30.0), Coverage(pairing))
    assert [row.is_scorable for row in rows] == ([] if is_scorable is None else [is_scorable])
    if pairing == "joined":
        what = "10.0 s long; after its reference of 30.0 s, the models hear nothing: 0.0 of "
        assert rows[0].what.startswith(what)
    elif rows:
        what = "the reference of its text lasts 30.0 s; the models hear the first 16 s of it"
        assert rows[0].what == what
        assert "without references" in rows[0].cure


def test_a_long_recording_of_a_text_with_a_long_reference_is_one_message(tmp_path: Path) -> None:
    (row,) = uncovered(source_of(tmp_path, speech(20.0), reference=30.0), Coverage("aligned"))
    assert row.is_scorable
    assert row.what.count(";") == 3
    assert "20.0 s long; the models hear" in row.what and "lasts 30.0 s" in row.what


def test_a_faster_recording_is_covered_to_a_later_end(tmp_path: Path) -> None:
    source = source_of(tmp_path, speech(21.0), speech(20.0))
    (row,) = uncovered(source, Coverage("tokens", FASTER))
    assert row.row == 0
    assert "hear the first 20 s" in row.what


def test_models_are_named_where_their_windows_differ() -> None:
    alone, joined = ("tokens", (1.0,) * 4), ("joined", (1.0,) * 4)
    (only,) = coverages_of({"modeltok": cast(Any, alone), "modeltokb": cast(Any, alone)})
    assert only.subject == "the models hear"
    names = {"modeltok": alone, "model1m": joined, "model2m": joined, "model2ds": joined}
    subjects = [each.subject for each in coverages_of(cast(Any, names))]
    assert subjects == ["modeltok hears", "model1m, model2m and model2ds hear"]


def report_of(source: PairSource, folder: Path, report: Report) -> Report:
    names = source.filenames
    metadata = pd.DataFrame({"filename": names, "line": range(2, 2 + len(names))})
    report_uncovered(source, metadata, str(folder / "t.csv"), ANY_MODELS[:1], report)
    return report


@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_recording_that_the_decoder_cut_has_one_message(tmp_path: Path, n_channels: int) -> None:
    import soundfile

    source = source_of(tmp_path, speech(1.0))
    long = np.concatenate([speech(20.0), hiss(20.0)])
    soundfile.write(tmp_path / "0.wav", np.stack([long] * n_channels, axis=1), SAMPLE_RATE)
    metadata = pd.DataFrame({"filename": ["0.wav"], "line": [2]})
    report = Report()
    table = tmp_path / "t.csv"
    source.store = build_store(metadata, tmp_path, table, tmp_path / "s", "t", report=report)
    assert "only the first 30 s are kept" in report.warnings[0].what
    report_of(source, tmp_path, report)
    cut = [each for each in report.warnings if "hear the first 16 s" in each.what]
    assert len(cut) == 1
    assert cut[0].what.startswith("40 s long; the models hear the first 16 s: ")
    assert "of at least " in cut[0].what
    others = [each.what for each in report.warnings if each not in cut]
    assert others == ([] if n_channels == 1 else ["2 channels, averaged"])


def test_speech_after_what_is_decoded_is_not_taken_for_covered(tmp_path: Path) -> None:
    waveform = np.concatenate([hiss(31.0), speech(3.0)])
    (row,) = uncovered(source_of(tmp_path, waveform))
    assert not row.is_scorable
    assert row.what == (
        "34 s long; no speech stands out in its first 30 s, and the models hear no more"
    )


# infer.py


@pytest.fixture
def options(make_corpus: Callable[..., Path], tokenizer: Path) -> InferenceOptions:
    """Options to run a joined comparison, an attention model and a token scorer on six clips."""
    return write_ensemble(make_corpus(), tokenizer)


def scores(options: InferenceOptions) -> pd.Series:
    write_submission(options)
    return pd.read_csv(options.submission).set_index("filename")["score"]


def listed(options: InferenceOptions) -> pd.DataFrame:
    return pd.read_csv(options.submission.with_name(PROBLEMS)).set_index("filename")


def test_no_score_of_a_window_without_the_learner(options: InferenceOptions) -> None:
    before, config = scores(options), EnsembleConfig.load(options.config)
    waveforms = {
        "test000.wav": np.concatenate([hiss(17.0), speech(2.0)]),  # deletion
        "test001.wav": np.concatenate([hiss(17.0), hiss(2.0, 0.2)]),  # blending
        "test002.wav": speech(18.0),  # nonword_repetition
        "test003.wav": np.concatenate([speech(5.0), hiss(13.0)]),
    }
    for name, waveform in waveforms.items():
        write_wav(options.data / name, waveform, SAMPLE_RATE)
    after, problems = scores(options), listed(options)
    assert after["test000.wav"] == BASE_RATES["deletion"]
    assert after["test001.wav"] == config.base_rate("blending")
    assert after["test002.wav"] not in BASE_RATES.values()
    assert after["test003.wav"] not in BASE_RATES.values()
    untouched = ["test004.wav", "test005.wav"]
    pd.testing.assert_series_equal(after[untouched], before[untouched], atol=1e-5, rtol=0)
    assert problems["severity"].to_dict() == {
        "test000.wav": "error",
        "test001.wav": "error",
        "test002.wav": "warning",
    }
    for name in ("test000.wav", "test001.wav"):
        assert problems["what"][name].startswith("not scored: 19.0 s long; after its reference of ")
        assert problems["row"][name] == 2 + int(name[5:7])


def test_a_reference_that_fills_the_window_leaves_no_score(options: InferenceOptions) -> None:
    table = options.data / "test_metadata.csv"
    text = " ".join(["sunshine"] * 34)  # 60 ms for each letter
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("koovnorb", text)
    table.write_text("\n".join(lines) + "\n")
    render_missing([text], ToneVoice(), options.tts_data, progress=False)
    assert References(options.tts_data).n_samples(text) > 16 * SAMPLE_RATE
    assert scores(options)["test002.wav"] == BASE_RATES["nonword_repetition"]
    problem = listed(options).loc["test002.wav"]
    assert "model2ds and model3mapd hear nothing: 0.0 of" in problem["what"]
    assert "use models that hear the recording alone" in problem["cure"]


def test_rows_that_are_not_covered_alone_still_give_a_submission(options: InferenceOptions) -> None:
    for number in range(6):
        waveform = np.concatenate([hiss(17.0), speech(1.0 + number / 10)])
        write_wav(options.data / f"test{number:03}.wav", waveform, SAMPLE_RATE)
    assert set(scores(options)) <= set(BASE_RATES.values())
    assert len(listed(options)) == 6
