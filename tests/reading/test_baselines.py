"""Peers on tiny, made-up data."""

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
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.project import ROOT
from hearback.reading import evaluation
from hearback.reading.baselines import train, transcripts
from hearback.reading.baselines.train import (
    Inputs,
    Peer,
    PeerOptions,
    acoustic_features,
    edit_features,
)
from hearback.reading.baselines.transcripts import TranscriptCache, transcribe_missing
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.voices import open_voice

N_FOLDS = 3


def make_options(folder: Path, **changes: Any) -> PeerOptions:
    values: dict[str, Any] = {
        **{"data": folder / "data", "tts_data": folder / "tts_data", "store": folder / "store"},
        **{"assets": folder / "assets", "backbone": "none", "baselines": ("base",)},
        **{"n_folds": N_FOLDS, "group_by": None, "limit": None},
        **{"device": "cpu", "precision": "auto", **changes},
    }
    return PeerOptions(**values)


def load(options: PeerOptions) -> TrainingData:
    return load_training_data(
        options.data,
        options.tts_data,
        options.store,
        n_folds=options.n_folds,
        group_by=options.group_by,
        limit=options.limit,
    )


def tone(seconds: float = 1.0, hertz: float = 200.0, level: float = 0.3) -> np.ndarray:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = [np.sin(2 * np.pi * n * hertz * times) / n for n in range(1, 6)]
    return (level * np.sum(harmonics, axis=0)).astype(np.float32)


# Edit distances


def counts(features: dict[str, float], unit: str) -> dict[str, int]:
    kinds = ("wrong", "substituted", "missing", "added", "expected", "heard")
    return {kind: round(float(np.expm1(features[f"{unit} {kind}"]))) for kind in kinds}


def test_edits_of_words_and_letters_by_hand() -> None:
    features = edit_features("the dog ran home", "a dog home again now")
    # the -> a, ran missing, again and now added; as one missing fewer would cost no more edits,
    # only the sum is certain.
    words = counts(features, "words")
    assert (words["wrong"], words["expected"], words["heard"]) == (4, 4, 5)
    assert words["added"] - words["missing"] == 1
    assert features["words wrong, of the longer"] == pytest.approx(4 / 5)
    assert features["words error rate"] == pytest.approx(1)
    assert features["equal"] == 0


@pytest.mark.parametrize(
    ("heard", "kind"),
    [
        ("the cat ran home", "substituted"),
        ("the ran home", "missing"),
        ("the dog ran back home", "added"),
    ],
)
def test_each_sort_of_edit_counts_as_its_own(heard: str, kind: str) -> None:
    words = counts(edit_features("the dog ran home", heard), "words")
    assert [words[k] for k in ("substituted", "missing", "added")] == [
        int(k == kind) for k in ("substituted", "missing", "added")
    ]


def test_an_equal_transcript_has_no_edits() -> None:
    features = edit_features("boy", "boy")
    assert features["equal"] == 1
    assert counts(features, "letters")["wrong"] == 0
    assert features["letters error rate"] == 0


def test_a_nonword_in_two_parts_has_the_right_letters() -> None:
    features = edit_features("koovnorb", "koov norb")
    assert counts(features, "letters")["wrong"] == 0
    assert counts(features, "words")["wrong"] == 2


def test_nothing_heard_is_all_missing() -> None:
    features = edit_features("the dog", "")
    assert counts(features, "words")["missing"] == 2
    assert features["letters wrong, of the longer"] == 1


def test_a_repetition_without_end_stays_bounded() -> None:
    features = edit_features("no", "no " * 100)
    assert features["words error rate"] == 2
    assert max(features.values()) < 10


def test_normalising_makes_writing_alike(tmp_path: Path) -> None:
    normalise = transcripts.make_normaliser(tmp_path)
    assert normalise("I'm TWENTY-one, um, today!") == normalise("i am 21 today")


# Acoustic features


def test_acoustic_features_follow_the_sound() -> None:
    low, high = acoustic_features(tone(hertz=120), "boy"), acoustic_features(tone(hertz=300), "boy")
    assert low["pitch, 50 %"] == pytest.approx(120, rel=0.02)
    assert high["pitch, 50 %"] == pytest.approx(300, rel=0.02)
    assert high["centroid, mean"] > low["centroid, mean"]
    assert high["zero crossings, mean"] > low["zero crossings, mean"]


def test_energy_follows_the_level_and_what_is_relative_does_not() -> None:
    loud, soft = acoustic_features(tone(level=0.3), "boy"), acoustic_features(tone(level=0.03), "b")
    assert loud["energy, mean"] - soft["energy, mean"] == pytest.approx(20, abs=0.5)
    assert loud["centroid, mean"] == pytest.approx(soft["centroid, mean"], rel=1e-3)


def test_a_pause_is_counted_and_the_edges_are_not() -> None:
    gap = np.zeros(SAMPLE_RATE // 2, dtype=np.float32)
    without = acoustic_features(np.concatenate([gap, tone(), gap]), "boy")
    paused = acoustic_features(np.concatenate([gap, tone(0.5), gap, tone(0.5), gap]), "boy")
    assert (without["pauses"], paused["pauses"]) == (0, 1)
    assert without["speech seconds"] == pytest.approx(1, abs=0.1)
    assert paused["span seconds"] - without["span seconds"] == pytest.approx(0.5, abs=0.1)


def test_pace_is_of_the_text() -> None:
    short, long = acoustic_features(tone(2), "boy"), acoustic_features(tone(2), "the dog ran home")
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


def test_transcripts_go_on_where_they_stopped(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcripts, "BATCH_SIZE", 4)
    options = make_options(make_corpus(n_train=18, n_test=0))
    data, path = load(options), options.assets / "transcripts.csv"
    heard: list[int] = []

    def transcribe(waveforms: Sequence[np.ndarray]) -> list[str]:
        if len(heard) == 8:
            raise KeyboardInterrupt
        heard.extend(map(len, waveforms))
        return [f"{len(waveform)} samples" for waveform in waveforms]

    with pytest.raises(KeyboardInterrupt):
        transcribe_missing(data, transcribe, TranscriptCache(path))
    assert len(pd.read_csv(path)) == 8
    heard.append(-1)
    table = transcribe_missing(data, transcribe, TranscriptCache(path))
    assert len(heard) == 18 + 1  # none twice
    lengths = [len(data.source.learner(row)) for row in range(18)]
    assert table["transcript"].tolist() == [f"{length} samples" for length in lengths]


def test_a_changed_recording_is_transcribed_again(make_corpus: Callable[..., Path]) -> None:
    options = make_options(make_corpus(n_train=12, n_test=0))
    path = options.assets / "transcripts.csv"
    transcribe_missing(load(options), lambda batch: ["old"] * len(batch), TranscriptCache(path))
    write_wav(options.data / "train005.wav", tone(0.7), SAMPLE_RATE)
    table = transcribe_missing(
        load(options), lambda batch: ["new"] * len(batch), TranscriptCache(path)
    )
    assert table["transcript"].tolist() == ["old"] * 5 + ["new"] + ["old"] * 6


@pytest.mark.parametrize("text", ["", "NA", 'she said "no", twice', "1"])
def test_a_transcript_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "transcripts.csv"
    TranscriptCache(path).keep([("a.wav", "01")], [text], 0.5)
    assert TranscriptCache(path).rows == {("a.wav", "01"): (text, 0.5)}


def test_another_table_in_the_place_of_transcripts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transcripts.csv"
    path.write_text("filename,score\na.wav,1\n")
    with pytest.raises(HearbackError, match="delete it"):
        TranscriptCache(path)


def test_a_backbone_that_cannot_transcribe_is_said(backbone: Path) -> None:
    with pytest.raises(HearbackError, match="cannot transcribe"):
        transcripts.Transcriber(backbone, train.choose_device("cpu"))


# Peers


@pytest.fixture
def scored(make_corpus: Callable[..., Path]) -> tuple[TrainingData, PeerOptions]:
    """Every baseline that hears no Whisper, on 72 clips."""
    options = make_options(make_corpus(n_train=72, n_test=0))
    data = load(options)
    for name in ("base", "text", "acoustic"):
        train.score_peer(name, data, options)
    return data, options


@pytest.mark.slow
def test_the_tables_read_peers(scored: tuple[TrainingData, PeerOptions]) -> None:
    data, options = scored
    tables = evaluation.read_out_of_fold(options.assets)
    assert [t.model for t in tables] == [
        "model_peer_acoustic",
        "model_peer_base",
        "model_peer_text",
    ]
    for table in tables:
        rows = table.rows.set_index("filename").loc[data.source.filenames]
        assert len(table.rows) == len(data.labels)
        np.testing.assert_array_equal(rows["fold"], data.folds)
        np.testing.assert_array_equal(rows["score"], data.labels)
        assert rows["pred"].between(0, 1).all()
    summary = evaluation.summary(tables, data.metadata.assign(score=data.labels))
    base = summary.loc["model_peer_base"]
    assert base["below base rate"] == pytest.approx(0)
    assert base["blind epoch"] == pytest.approx(base["log loss"])


def known_columns(data: TrainingData, options: PeerOptions) -> Inputs:
    """Return a telling column and a constant one."""
    rng = np.random.default_rng(0)
    telling = data.labels + rng.normal(0, 0.5, len(data.labels))
    return Inputs(pd.DataFrame({"telling": telling, "constant": 1.0}))


@pytest.mark.parametrize("estimator", ["transcript", "acoustic"])
def test_a_peer_learns_what_can_be_learned(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, estimator: str
) -> None:
    options = make_options(make_corpus(n_train=144, n_test=0))
    monkeypatch.setitem(
        train.BASELINES, "known", Peer(known_columns, train.BASELINES[estimator].estimator)
    )
    metadata_by_fold = train.score_peer("known", load(options), options)
    assert all(s["log_loss"] < 0.75 * s["base_rate_log_loss"] for s in metadata_by_fold)


def test_no_peer_learns_from_the_rows_that_it_scores(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(make_corpus(n_train=36, n_test=0))
    data, seen = load(options), []

    class Spy(train.BaseRate):
        def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Any:
            seen.append((set(features.index), set(groups)))
            assert len(labels) == len(features)
            return super().fit(features, labels, groups=groups)

    monkeypatch.setitem(train.BASELINES, "spy", Peer(train.nothing, lambda: Spy(strategy="prior")))
    train.score_peer("spy", data, options)
    speakers = data.metadata["speaker"].to_numpy(dtype=str)
    for fold, (rows, groups) in enumerate(seen):
        assert rows == set(np.flatnonzero(data.folds != fold))
        assert not groups & set(speakers[data.folds == fold])


def test_a_text_that_is_always_said_well_is_known_without_listening() -> None:
    rng = np.random.default_rng(0)
    texts = rng.choice(["boy", "cupcake"], 120)
    metadata = pd.DataFrame({"expected_text": texts, "task": "blending", "grade": "KG"})
    labels = np.where(rng.random(120) < 0.9, texts == "boy", texts != "boy").astype(np.float32)
    features = train.text_features(metadata)
    model = train.on_text_alone().fit(features[:80], labels[:80], groups=np.arange(80) % 10)
    assert log_loss(labels[80:], model.predict_proba(features[80:])[:, 1]) < 0.5


def test_a_story_names_what_the_predictions_depend_on(
    make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make_options(make_corpus(n_train=36, n_test=0))
    data = load(options)

    def fingerprint(backbone: str) -> str:
        inputs = Inputs(pd.DataFrame({"nothing": np.zeros(36)}), settings={"backbone": backbone})
        estimator = train.BASELINES["base"].estimator
        monkeypatch.setitem(train.BASELINES, "base", Peer(lambda data, options: inputs, estimator))
        train.score_peer("base", data, options)
        return read_json(options.assets / "model_peer_base_1.json")["recipe_fingerprint"]

    assert fingerprint("tiny") == fingerprint("tiny")
    assert fingerprint("tiny") != fingerprint("base")


def test_the_command_again_says_what_is_not_the_default() -> None:
    options = make_options(Path("x"), n_folds=6, backbone="assets/whisper-base")
    command = train.retrain_command("transcript", options)
    assert command.startswith("python -m hearback.reading.baselines.train --baselines transcript")
    assert "--backbone assets/whisper-base" in command
    assert "--n_folds" not in command


@pytest.mark.slow
def test_whisper_writes_down_speech() -> None:
    directory = ROOT / "assets" / "whisper-tiny.en"
    transcriber = transcripts.Transcriber(directory, train.choose_device("cpu"))
    voice = open_voice("hibari", 1.0)
    spoken = voice.render("the dog ran home")
    waveform = soxr.resample(spoken, voice.sample_rate, SAMPLE_RATE).astype(np.float32)
    normalise = transcripts.make_normaliser(directory)
    assert normalise(transcriber.transcribe([waveform])[0]) == "the dog ran home"
