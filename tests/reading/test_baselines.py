"""Baselines on tiny synthetic data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soxr
from sklearn.metrics import log_loss

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.devices import choose_device
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.project import ROOT
from hearback.reading import evaluation
from hearback.reading.baselines import train, transcripts
from hearback.reading.baselines.acoustic import acoustic_features
from hearback.reading.baselines.base import Baseline, BaselineOptions, BaseRate, Inputs, no_inputs
from hearback.reading.baselines.text import text_estimator, text_features
from hearback.reading.baselines.transcript_edits import edit_features
from hearback.reading.baselines.transcripts import TranscriptCache, transcribe_missing
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.voices import open_voice
from tests.helpers import tone

N_FOLDS = 3


def make_options(folder: Path, **changes: Any) -> BaselineOptions:
    values: dict[str, Any] = {
        **{"data": folder / "data", "tts_data": folder / "tts_data", "store": folder / "store"},
        **{"assets": folder / "assets", "backbone": "none", "baselines": ("base",)},
        **{"n_folds": N_FOLDS, "group_by": None, "limit": None},
        **{"device": "cpu", "precision": "auto", **changes},
    }
    return BaselineOptions(**values)


def load(options: BaselineOptions) -> TrainingData:
    return load_training_data(
        options.data,
        options.tts_data,
        options.store,
        n_folds=options.n_folds,
        group_by=options.group_by,
        limit=options.limit,
    )


def voiced(seconds: float = 1.0, hertz: float = 200.0, level: float = 0.3) -> np.ndarray:
    return tone(hertz, seconds, peak=level, n_harmonics=5)


# Edit distances


def counts(features: dict[str, float], unit: str) -> dict[str, int]:
    kinds = ("edits", "substituted", "missing", "added", "expected", "transcribed")
    return {kind: round(float(np.expm1(features[f"{unit} {kind}"]))) for kind in kinds}


def test_edits_of_words_and_letters_by_hand() -> None:
    features = edit_features("the dog ran home", "a dog home again now")
    # the -> a, ran missing, again and now added; as one missing fewer would cost no more edits,
    # only the sum is certain.
    words = counts(features, "words")
    assert (words["edits"], words["expected"], words["transcribed"]) == (4, 4, 5)
    assert words["added"] - words["missing"] == 1
    assert features["words edits / longer"] == pytest.approx(4 / 5)
    assert features["words error rate"] == pytest.approx(1)
    assert features["equal"] == 0


@pytest.mark.parametrize(
    ("transcript", "kind"),
    [
        ("the cat ran home", "substituted"),
        ("the ran home", "missing"),
        ("the dog ran back home", "added"),
    ],
)
def test_each_kind_of_edit_is_counted_separately(transcript: str, kind: str) -> None:
    words = counts(edit_features("the dog ran home", transcript), "words")
    assert [words[k] for k in ("substituted", "missing", "added")] == [
        int(k == kind) for k in ("substituted", "missing", "added")
    ]


def test_an_equal_transcript_has_no_edits() -> None:
    features = edit_features("boy", "boy")
    assert features["equal"] == 1
    assert counts(features, "letters")["edits"] == 0
    assert features["letters error rate"] == 0


def test_a_nonword_in_two_parts_has_the_right_letters() -> None:
    features = edit_features("koovnorb", "koov norb")
    assert counts(features, "letters")["edits"] == 0
    assert counts(features, "words")["edits"] == 2


def test_in_an_empty_transcript_all_words_are_missing() -> None:
    features = edit_features("the dog", "")
    assert counts(features, "words")["missing"] == 2
    assert features["letters edits / longer"] == 1


def test_features_of_an_endless_repetition_are_bounded() -> None:
    features = edit_features("no", "no " * 100)
    assert features["words error rate"] == 2
    assert max(features.values()) < 10


def test_normalising_unifies_spelling(tmp_path: Path) -> None:
    normalise = transcripts.make_normaliser(tmp_path)
    assert normalise("I'm TWENTY-one, um, today!") == normalise("i am 21 today")


# Acoustic features


def test_acoustic_features_follow_the_sound() -> None:
    low, high = (
        acoustic_features(voiced(hertz=120), "boy"),
        acoustic_features(voiced(hertz=300), "boy"),
    )
    assert low["pitch, 50 %"] == pytest.approx(120, rel=0.02)
    assert high["pitch, 50 %"] == pytest.approx(300, rel=0.02)
    assert high["centroid, mean"] > low["centroid, mean"]
    assert high["zero crossings, mean"] > low["zero crossings, mean"]


def test_only_energy_depends_on_the_level() -> None:
    loud, soft = (
        acoustic_features(voiced(level=0.3), "boy"),
        acoustic_features(voiced(level=0.03), "b"),
    )
    assert loud["energy, mean"] - soft["energy, mean"] == pytest.approx(20, abs=0.5)
    assert loud["centroid, mean"] == pytest.approx(soft["centroid, mean"], rel=1e-3)


def test_a_pause_is_counted_and_the_edges_are_not() -> None:
    gap = np.zeros(SAMPLE_RATE // 2, dtype=np.float32)
    without = acoustic_features(np.concatenate([gap, voiced(), gap]), "boy")
    paused = acoustic_features(np.concatenate([gap, voiced(0.5), gap, voiced(0.5), gap]), "boy")
    assert (without["pauses"], paused["pauses"]) == (0, 1)
    assert without["speech seconds"] == pytest.approx(1, abs=0.1)
    assert paused["span seconds"] - without["span seconds"] == pytest.approx(0.5, abs=0.1)


def test_pace_depends_on_the_text() -> None:
    short, long = (
        acoustic_features(voiced(2), "boy"),
        acoustic_features(voiced(2), "the dog ran home"),
    )
    assert short["words per second"] == pytest.approx(0.5)
    assert long["words per second"] == pytest.approx(2)
    assert long["letters per second"] == pytest.approx(13 / 2)
    differing = {name for name in short if short[name] != long[name]}
    assert all("words" in name or "letters" in name for name in differing)


@pytest.mark.parametrize("seconds", [0.05, 0.08, 3])
def test_every_length_has_finite_features(seconds: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE))
    features = acoustic_features(noise.astype(np.float32), "boy")
    assert np.isfinite(list(features.values())).all()


# Transcripts


def test_an_interrupted_transcription_resumes(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcripts, "BATCH_SIZE", 4)
    options = make_options(make_corpus(n_train=18, n_test=0))
    data, path = load(options), options.assets / "transcripts.csv"
    lengths_seen: list[int] = []

    def transcribe(waveforms: Sequence[np.ndarray]) -> list[str]:
        if len(lengths_seen) == 8:
            raise KeyboardInterrupt
        lengths_seen.extend(map(len, waveforms))
        return [f"{len(waveform)} samples" for waveform in waveforms]

    with pytest.raises(KeyboardInterrupt):
        transcribe_missing(data, transcribe, TranscriptCache(path))
    assert len(pd.read_csv(path)) == 8
    lengths_seen.append(-1)
    table = transcribe_missing(data, transcribe, TranscriptCache(path))
    assert len(lengths_seen) == 18 + 1  # none twice
    lengths = [len(data.source.learner(row)) for row in range(18)]
    assert table["transcript"].tolist() == [f"{length} samples" for length in lengths]


def test_a_changed_recording_is_transcribed_again(make_corpus: Callable[..., Path]) -> None:
    options = make_options(make_corpus(n_train=12, n_test=0))
    path = options.assets / "transcripts.csv"
    transcribe_missing(load(options), lambda batch: ["old"] * len(batch), TranscriptCache(path))
    write_wav(options.data / "train005.wav", voiced(0.7), SAMPLE_RATE)
    table = transcribe_missing(
        load(options), lambda batch: ["new"] * len(batch), TranscriptCache(path)
    )
    assert table["transcript"].tolist() == ["old"] * 5 + ["new"] + ["old"] * 6


@pytest.mark.parametrize("text", ["", "NA", 'she said "no", twice', "1"])
def test_a_transcript_is_read_back_exactly(tmp_path: Path, text: str) -> None:
    path = tmp_path / "transcripts.csv"
    TranscriptCache(path).add([("a.wav", "01")], [text], 0.5)
    assert TranscriptCache(path).rows == {("a.wav", "01"): (text, 0.5)}


def test_another_table_at_the_cache_path_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.csv"
    path.write_text("filename,score\na.wav,1\n")
    with pytest.raises(HearbackError, match="delete it"):
        TranscriptCache(path)


def test_a_backbone_that_cannot_transcribe_is_an_error(backbone: Path) -> None:
    with pytest.raises(HearbackError, match="cannot transcribe"):
        transcripts.Transcriber(backbone, choose_device("cpu"))


# Baselines


@pytest.fixture
def scored(make_corpus: Callable[..., Path]) -> tuple[TrainingData, BaselineOptions]:
    """Every baseline without Whisper, scored on 72 clips."""
    options = make_options(make_corpus(n_train=72, n_test=0))
    data = load(options)
    for name in ("base", "text", "acoustic"):
        train.score_baseline(name, data, options)
    return data, options


@pytest.mark.slow
def test_the_tables_read_baselines(scored: tuple[TrainingData, BaselineOptions]) -> None:
    data, options = scored
    tables = evaluation.read_out_of_fold(options.assets)
    assert [t.model for t in tables] == [
        "model_baseline_acoustic",
        "model_baseline_base",
        "model_baseline_text",
    ]
    for table in tables:
        rows = table.rows.set_index("filename").loc[data.source.filenames]
        assert len(table.rows) == len(data.labels)
        np.testing.assert_array_equal(rows["fold"], data.folds)
        np.testing.assert_array_equal(rows["score"], data.labels)
        assert rows["pred"].between(0, 1).all()
    summary = evaluation.summary(tables, data.metadata.assign(score=data.labels))
    base = summary.loc["model_baseline_base"]
    assert base["below base rate"] == pytest.approx(0)
    assert base["cross-fitted epoch"] == pytest.approx(base["log loss"])


def known_columns(data: TrainingData, options: BaselineOptions) -> Inputs:
    """Return an informative column and a constant one."""
    rng = np.random.default_rng(0)
    informative = data.labels + rng.normal(0, 0.5, len(data.labels))
    return Inputs(pd.DataFrame({"informative": informative, "constant": 1.0}))


@pytest.mark.parametrize("estimator", ["transcript", "acoustic"])
def test_a_baseline_learns_an_informative_feature(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, estimator: str
) -> None:
    options = make_options(make_corpus(n_train=144, n_test=0))
    monkeypatch.setitem(
        train.BASELINES, "known", Baseline(known_columns, train.BASELINES[estimator].estimator)
    )
    folds = train.score_baseline("known", load(options), options)
    assert all(fold["log_loss"] < 0.75 * fold["base_rate_log_loss"] for fold in folds)


def test_no_baseline_is_fitted_on_the_rows_that_it_scores(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(make_corpus(n_train=36, n_test=0))
    data, seen = load(options), []

    class Spy(BaseRate):
        def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Any:
            seen.append((set(features.index), set(groups)))
            assert len(labels) == len(features)
            return super().fit(features, labels, groups=groups)

    monkeypatch.setitem(train.BASELINES, "spy", Baseline(no_inputs, lambda: Spy(strategy="prior")))
    train.score_baseline("spy", data, options)
    speakers = data.metadata["speaker"].to_numpy(dtype=str)
    for fold, (rows, groups) in enumerate(seen):
        assert rows == set(np.flatnonzero(data.folds != fold))
        assert not groups & set(speakers[data.folds == fold])


def test_the_text_baseline_learns_easy_texts() -> None:
    rng = np.random.default_rng(0)
    texts = rng.choice(["boy", "cupcake"], 120)
    metadata = pd.DataFrame({"expected_text": texts, "task": "blending", "grade": "KG"})
    labels = np.where(rng.random(120) < 0.9, texts == "boy", texts != "boy").astype(np.float32)
    features = text_features(metadata)
    model = text_estimator().fit(features[:80], labels[:80], groups=np.arange(80) % 10)
    assert log_loss(labels[80:], model.predict_proba(features[80:])[:, 1]) < 0.5


def test_the_fingerprint_depends_on_the_settings(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(make_corpus(n_train=36, n_test=0))
    data = load(options)

    def fingerprint(backbone: str) -> str:
        inputs = Inputs(pd.DataFrame({"nothing": np.zeros(36)}), settings={"backbone": backbone})
        estimator = train.BASELINES["base"].estimator
        monkeypatch.setitem(
            train.BASELINES, "base", Baseline(lambda data, options: inputs, estimator)
        )
        train.score_baseline("base", data, options)
        return read_json(options.assets / "model_baseline_base_1.json")["recipe_fingerprint"]

    assert fingerprint("tiny") == fingerprint("tiny")
    assert fingerprint("tiny") != fingerprint("base")


def test_the_retrain_command_has_the_options_that_differ_from_defaults() -> None:
    options = make_options(Path("x"), n_folds=6, backbone="assets/whisper-base")
    command = train.retrain_command("transcript", options)
    assert command.startswith("python -m hearback.reading.baselines.train --baselines transcript")
    assert "--backbone assets/whisper-base" in command
    assert "--n_folds" not in command


@pytest.mark.slow
def test_whisper_transcribes_speech() -> None:
    directory = ROOT / "assets" / "whisper-tiny.en"
    transcriber = transcripts.Transcriber(directory, choose_device("cpu"))
    voice = open_voice("hibari", 1.0)
    spoken = voice.render("the dog ran home")
    waveform = soxr.resample(spoken, voice.sample_rate, SAMPLE_RATE).astype(np.float32)
    normalise = transcripts.make_normaliser(directory)
    assert normalise(transcriber.transcribe([waveform])[0]) == "the dog ran home"
