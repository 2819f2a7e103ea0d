"""Peers: other ways to score the same clips, on the same folds, for the same tables.

    python -m hearback.reading.baselines.train --data data --backbone assets/whisper-tiny.en --baselines text transcript

base        the mean label of the training rows
text        no audio: n-grams of the expected text and its length, logistic regression
transcript  Whisper's greedy transcript: edits between it and the text, logistic regression (the
            competition's own example, done well)
acoustic    how the recording sounds (MFCC, energy, pitch, spectrum, pace): boosted trees (the
            competition's benchmark, there about 0.6)

All but the first also know task and grade, as our models do, and none the speaker. What is to be
chosen (a penalty, a number of trees) is chosen inside the training rows, whole speakers held out.
A baseline's fold is two files beside the models': `model_peer_<name>_<fold>.oof.csv` and `.json`, which
check_models.py and get_config.py read. It has no weights: it is there to be compared with, and
infer.py cannot run it.
"""

import hashlib
import json
import platform
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, Self

import librosa
import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.folds import SEED
from hearback.engine.data.tables import write_table
from hearback.engine.devices import TRAINING_PRECISIONS, choose_device
from hearback.engine.io import sha256_of, write_json
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.engine.whisper import pretrained
from hearback.reading.baselines import transcripts
from hearback.reading.dataset import TrainingData, load_training_data
from hearback.reading.evaluation import group_unit
from hearback.reading.tables import GRADES, TASKS

INVERSE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
N_INNER_FOLDS = 5  # of the training rows
PACKAGES = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "librosa", "rapidfuzz")

FFT_SAMPLES, HOP_SAMPLES = 512, 160  # 32 ms every 10 ms
N_MFCC = 20
PITCH_HERTZ = (65.0, 600.0)  # from a low man's voice to a young child's
SPEECH_DB = 30.0  # a frame this far below the clip's loudest is no speech


@dataclass(frozen=True)
class PeerOptions:
    """What the command line says."""

    data: Path
    tts_data: Path
    store: Path
    assets: Path
    backbone: str
    baselines: tuple[str, ...]
    n_folds: int
    group_by: str | None
    limit: int | None
    device: str | None
    precision: str


class Estimator(Protocol):
    """What scikit-learn calls a classifier, of groups that stay together when it chooses."""

    def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Self:
        """Learn from rows of features and their labels, (rows,)."""

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Return the probabilities of 0 and 1, (rows, 2)."""


@dataclass(frozen=True)
class Inputs:
    """What a baseline knows of every row, and how long it took to find that out for all of them.

    `settings` are what else the predictions depend on: a backbone, say.
    """

    features: pd.DataFrame
    seconds: float = 0.0
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Peer:
    """A baseline: what it knows, and how it learns."""

    inputs: Callable[[TrainingData, PeerOptions], Inputs]
    estimator: Callable[[], Estimator]


class BaseRate(DummyClassifier):
    """The mean label, as an estimator that is given groups."""

    def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Self:
        """Learn the mean of `labels`."""
        return super().fit(features, labels)


class StoppedTrees(BaseEstimator):
    """Gradient-boosted trees, stopped where other groups' log loss no longer falls.

    One ensemble of trees for each of five grouped splits of the training rows, each stopped by the
    rows that it does not learn from; the probability is their mean, so that no row goes unused.
    """

    def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Self:
        """Grow the five."""
        self.members = []
        for seed, (rest, stop) in enumerate(inner_folds().split(features, labels, groups)):
            trees = HistGradientBoostingClassifier(
                learning_rate=0.05,
                max_iter=1000,
                max_leaf_nodes=15,
                min_samples_leaf=20,
                l2_regularization=1.0,
                max_features=0.3,
                early_stopping=True,
                n_iter_no_change=30,
                random_state=seed,
            )
            trees.fit(
                features.iloc[rest],
                labels[rest],
                X_val=features.iloc[stop],
                y_val=labels[stop],
            )
            self.members.append(trees)
        return self

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray:
        """Return the members' mean probabilities, (rows, 2)."""
        return np.mean([trees.predict_proba(features) for trees in self.members], axis=0)


def inner_folds() -> StratifiedGroupKFold:
    """Return how training rows are split to choose what is not learned."""
    return StratifiedGroupKFold(N_INNER_FOLDS, shuffle=True, random_state=SEED)


def logistic_regression(features: Any) -> GridSearchCV:  # noqa: ANN401  (scikit-learn has no type)
    """Return a logistic regression on transformed `features`, its penalty chosen by group."""
    pipeline = make_pipeline(features, LogisticRegression(max_iter=5000))
    penalties = {"logisticregression__C": INVERSE_PENALTIES}
    return GridSearchCV(pipeline, penalties, scoring="neg_log_loss", cv=inner_folds())


def on_text_alone() -> GridSearchCV:
    """Return a logistic regression on n-grams of the column `text` and the numbers beside it."""
    numbers = [*context_columns(), "words", "letters"]
    return logistic_regression(
        ColumnTransformer(
            [
                ("letters", TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4)), "text"),
                # A word may be one letter long.
                ("words", TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+"), "text"),
                ("numbers", StandardScaler(), numbers),
            ]
        )
    )


def context_columns() -> list[str]:
    """Return the names of `context_features`' columns."""
    return [*(f"task {task}" for task in TASKS), *(f"grade {grade}" for grade in GRADES)]


def context_features(metadata: pd.DataFrame) -> pd.DataFrame:
    """Return task and grade as columns of 0 and 1."""
    columns = {f"task {task}": metadata["task"] == task for task in TASKS}
    columns |= {f"grade {grade}": metadata["grade"] == grade for grade in GRADES}
    return pd.DataFrame(columns).astype(float).reset_index(drop=True)


def text_features(metadata: pd.DataFrame) -> pd.DataFrame:
    """Return the text, its length in words and letters, task and grade."""
    texts = metadata["expected_text"].reset_index(drop=True)
    lengths = {
        "words": texts.str.split().str.len(),
        "letters": texts.str.replace(" ", "").str.len(),
    }
    return pd.concat([pd.DataFrame({"text": texts, **lengths}), context_features(metadata)], axis=1)


def edit_features(expected: str, heard: str) -> dict[str, float]:
    """Return how far a transcript is from the text, both normalised, in words and in letters.

    Of each: edits, and what sort they are, as log(1 + count), for Whisper may repeat a word a
    hundred times; the share of edits (of the longer one: 0 to 1; of the text: the error rate, at
    most 2); both lengths. Letters are compared without spaces, so that a nonword written in two
    parts is no mistake.
    """
    features = {"equal": float(expected == heard)}
    for unit, text, said in (
        ("words", expected.split(), heard.split()),
        ("letters", list(expected.replace(" ", "")), list(heard.replace(" ", ""))),
    ):
        kinds = [step.tag for step in Levenshtein.editops(text, said)]
        counts = {
            f"{unit} wrong": len(kinds),
            f"{unit} substituted": kinds.count("replace"),
            f"{unit} missing": kinds.count("delete"),
            f"{unit} added": kinds.count("insert"),
            f"{unit} expected": len(text),
            f"{unit} heard": len(said),
        }
        features |= {name: float(np.log1p(count)) for name, count in counts.items()}
        features[f"{unit} wrong, of the longer"] = len(kinds) / max(len(text), len(said), 1)
        features[f"{unit} error rate"] = min(len(kinds) / max(len(text), 1), 2.0)
    return features


def acoustic_features(waveform: np.ndarray, text: str) -> dict[str, float]:
    """Return how a recording, (samples,) float32 at 16 kHz, sounds, and the pace of its text.

    Means and standard deviations over 10 ms frames of 20 MFCC, their first and second differences,
    energy, zero crossings and the spectrum's shape; pitch (YIN; de Cheveigné & Kawahara 2002) where
    there is speech; seconds, words and letters, and these per second.
    """
    spectrum = np.abs(librosa.stft(waveform, n_fft=FFT_SAMPLES, hop_length=HOP_SAMPLES))
    power_db = librosa.power_to_db(
        librosa.feature.melspectrogram(S=spectrum**2, sr=SAMPLE_RATE, n_mels=40)
    )
    mfcc = librosa.feature.mfcc(S=power_db, n_mfcc=N_MFCC)
    decibels = librosa.amplitude_to_db(librosa.feature.rms(S=spectrum, frame_length=FFT_SAMPLES))[0]
    contrast = librosa.feature.spectral_contrast(S=spectrum, sr=SAMPLE_RATE, n_bands=5, fmin=200.0)
    tracks = {
        **{f"mfcc {i}": track for i, track in enumerate(mfcc)},
        **{f"mfcc {i} delta": track for i, track in enumerate(_differences(mfcc))},
        **{f"mfcc {i} delta delta": track for i, track in enumerate(_differences(mfcc, 2))},
        "energy": decibels,
        "zero crossings": librosa.feature.zero_crossing_rate(
            waveform, frame_length=FFT_SAMPLES, hop_length=HOP_SAMPLES
        )[0],
        "centroid": librosa.feature.spectral_centroid(S=spectrum, sr=SAMPLE_RATE)[0],
        "bandwidth": librosa.feature.spectral_bandwidth(S=spectrum, sr=SAMPLE_RATE)[0],
        "rolloff": librosa.feature.spectral_rolloff(S=spectrum, sr=SAMPLE_RATE)[0],
        "flatness": librosa.feature.spectral_flatness(S=spectrum)[0],
        **{f"contrast {i}": track for i, track in enumerate(contrast)},
    }
    features = {}
    for name, track in tracks.items():
        features[f"{name}, mean"] = float(track.mean())
        features[f"{name}, deviation"] = float(track.std())

    speech = decibels > decibels.max() - SPEECH_DB
    pitch = librosa.yin(
        waveform,
        fmin=PITCH_HERTZ[0],
        fmax=PITCH_HERTZ[1],
        sr=SAMPLE_RATE,
        frame_length=2 * FFT_SAMPLES,
        hop_length=HOP_SAMPLES,
    )[speech]
    for share in (10, 50, 90):
        features[f"pitch, {share} %"] = float(np.percentile(pitch, share))
        features[f"energy, {share} %"] = float(np.percentile(decibels, share))
    seconds = len(waveform) / SAMPLE_RATE
    speech_seconds = speech.sum() * HOP_SAMPLES / SAMPLE_RATE
    n_words, n_letters = len(text.split()), len(text.replace(" ", ""))
    heard = np.trim_zeros(speech)  # where speech stops in it, it goes on later: a pause
    features |= {
        "seconds": seconds,
        "speech seconds": speech_seconds,
        "span seconds": len(heard) * HOP_SAMPLES / SAMPLE_RATE,
        "pauses": float((np.diff(heard.astype(int)) == -1).sum()),
        "words": n_words,
        "letters": n_letters,
        "words per second": n_words / seconds,
        "letters per second": n_letters / seconds,
        "words per second of speech": n_words / speech_seconds,
        "letters per second of speech": n_letters / speech_seconds,
    }
    return features


def _differences(tracks: np.ndarray, order: int = 1) -> np.ndarray:
    """Return the slopes of (tracks, frames) over nine frames; a clip's edges are repeated."""
    return librosa.feature.delta(tracks, order=order, width=9, mode="nearest")


def nothing(data: TrainingData, options: PeerOptions) -> Inputs:
    """Return inputs without a column that tells anything."""
    return Inputs(pd.DataFrame({"nothing": np.zeros(len(data.labels))}))


def text_inputs(data: TrainingData, options: PeerOptions) -> Inputs:
    """Return the text and its lengths, task and grade."""
    return Inputs(text_features(data.metadata))


def transcript_inputs(data: TrainingData, options: PeerOptions) -> Inputs:
    """Transcribe what is not in the cache yet, and compare with the text."""
    directory = pretrained.resolve(options.backbone, options.assets)
    transcriber = transcripts.Transcriber(
        directory, choose_device(options.device), options.precision
    )
    path = transcripts.cache_path(options.assets, directory, transcriber.dtype)
    cache = transcripts.TranscriptCache(path)
    table = transcripts.transcribe_missing(data, transcriber.transcribe, cache)
    normalise = transcripts.make_normaliser(directory)
    texts = data.metadata["expected_text"]
    edits = [
        edit_features(normalise(text), normalise(heard))
        for text, heard in zip(texts, table["transcript"], strict=True)
    ]
    features = pd.concat([pd.DataFrame(edits), context_features(data.metadata)], axis=1)
    return Inputs(features, float(table["seconds"].sum()), {"transcripts": path.stem})


def acoustic_inputs(data: TrainingData, options: PeerOptions) -> Inputs:
    """Measure every recording."""
    started, source = time.monotonic(), data.source
    rows = [
        acoustic_features(source.learner(row), source.texts[row])
        for row in tqdm(range(len(source)), desc="acoustic features", unit="clip")
    ]
    features = pd.concat([pd.DataFrame(rows), context_features(data.metadata)], axis=1)
    return Inputs(features, time.monotonic() - started)


BASELINES = {
    "base": Peer(nothing, lambda: BaseRate(strategy="prior")),
    "text": Peer(text_inputs, on_text_alone),
    "transcript": Peer(transcript_inputs, lambda: logistic_regression(StandardScaler())),
    "acoustic": Peer(acoustic_inputs, StoppedTrees),
}


def model_name(name: str) -> str:
    """Return what a baseline is called among the models."""
    return f"model_peer_{name}"


def score_peer(name: str, data: TrainingData, options: PeerOptions) -> list[FoldMetadata]:
    """Score each fold's rows with the baseline trained on the others, and write its files."""
    inputs = BASELINES[name].inputs(data, options)
    groups = data.metadata[inner_group(data.metadata, options)].to_numpy(dtype=str)
    metadata_by_fold = []
    for fold in range(options.n_folds):
        train, held_out = np.flatnonzero(data.folds != fold), np.flatnonzero(data.folds == fold)
        started = time.monotonic()
        estimator = BASELINES[name].estimator()
        estimator.fit(inputs.features.iloc[train], data.labels[train], groups=groups[train])
        predictions = estimator.predict_proba(inputs.features.iloc[held_out])[:, 1]
        share = inputs.seconds * len(held_out) / len(data.labels)
        seconds = round(time.monotonic() - started + share, 2)
        fold_metadata = tell(
            name, fold, data, options, inputs=inputs, predictions=predictions, seconds=seconds
        )
        oof = pd.DataFrame(
            {
                "filename": [data.source.filenames[row] for row in held_out],
                "score": data.labels[held_out],
                "pred": predictions,
            }
        )
        files = FoldFiles(options.assets, model_name(name), fold)
        metadata_by_fold.append(save_peer_fold(files, oof, fold_metadata))
    return metadata_by_fold


def inner_group(metadata: pd.DataFrame, options: PeerOptions) -> str:
    """Return the column whose values stay together inside the training rows as well."""
    if options.group_by in (None, "none"):
        return group_unit(metadata)
    return str(options.group_by)


def tell(
    name: str,
    fold: int,
    data: TrainingData,
    options: PeerOptions,
    *,
    inputs: Inputs,
    predictions: np.ndarray,
    seconds: float,
) -> FoldMetadata:
    """Return a fold's metadata: what the tables read, and what the predictions depend on.

    Its one epoch is the fit itself: no choice was made on the held-out rows. `voice` is that of the
    references in the data's fingerprint; no baseline hears them.
    """
    held_out = data.folds == fold
    labels = data.labels[held_out]
    base_rate = float(data.labels[~held_out].mean())
    loss = float(log_loss(labels, predictions, labels=[0, 1]))
    baseline = {
        "name": name,
        "features": list(inputs.features.columns),
        **(inputs.settings or {}),
    }
    return {
        "baseline": baseline,
        "recipe_fingerprint": hashlib.sha256(json.dumps(baseline).encode()).hexdigest()[:16],
        "n_folds": options.n_folds,
        "group_by": options.group_by,
        "limit": options.limit,
        "data_fingerprint": data.fingerprint,
        "model": model_name(name),
        "fold": fold,
        "base_rate": base_rate,
        "retrain_command": retrain_command(name, options),
        "epochs": [{"epoch": 1, "validation_log_loss": loss}],
        "best_epoch": 1,
        "log_loss": loss,
        "base_rate_log_loss": float(
            log_loss(labels, np.full(len(labels), base_rate), labels=[0, 1])
        ),
        "n_train": int((~held_out).sum()),
        "n_validation": int(held_out.sum()),
        "seconds": seconds,
        "voice": data.source.references.voice,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def save_peer_fold(
    files: FoldFiles, oof: pd.DataFrame, fold_metadata: FoldMetadata
) -> FoldMetadata:
    """Write a fold's predictions, then the metadata that vouches for them, and return that."""
    files.metadata.unlink(missing_ok=True)
    write_table(oof, files.oof)
    fold_metadata = {**fold_metadata, "sha256": {"oof": sha256_of(files.oof)}}
    write_json(files.metadata, fold_metadata)
    return fold_metadata


def retrain_command(name: str, options: PeerOptions) -> str:
    """Return the command that scores this baseline as `options` say."""
    parts = ["python", "-m", "hearback.reading.baselines.train", "--baselines", name]
    defaults = vars(make_parser().parse_args([]))
    for option, value in vars(options).items():
        if option != "baselines" and value != defaults[option]:
            parts += [f"--{option}", str(value)]
    return shlex.join(parts)


def make_parser() -> cli.Parser:
    """Declare the flags of `PeerOptions`."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the tables and recordings")
    add("--tts_data", type=Path, default=Path("tts_data"), help="folder of the reference speech")
    add("--store", type=Path, default=Path("store"), help="folder of the decoded recordings")
    add("--assets", type=Path, default=Path("assets"), help="folder of the folds, to write to")
    add("--backbone", default="assets/whisper-tiny.en", help="the Whisper that transcribes")
    add(
        "--baselines",
        nargs="+",
        choices=tuple(BASELINES),
        default=list(BASELINES),
        help="which of them",
    )
    add("--n_folds", type=int, default=6, help="number of folds that the table is split into")
    add(
        "--group_by",
        choices=("speaker", "expected_text", "none"),
        help="rows that are held out together (default: speaker, where there is that column)",
    )
    add("--limit", type=int, help="use only the first rows of the table, for a quick look")
    add("--device", help="cpu, cuda, … (default: a GPU where there is one)")
    add(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default="auto",
        help="of the transcriber; auto is half on a GPU, float32 on a CPU",
    )
    return parser


def main() -> None:
    """Score the baselines that the command line names, and say how good they are."""
    values = vars(make_parser().parse_args())
    options = PeerOptions(**{**values, "baselines": tuple(values["baselines"])})
    data = load_training_data(
        options.data,
        options.tts_data,
        options.store,
        n_folds=options.n_folds,
        group_by=options.group_by,
        limit=options.limit,
    )
    for name in options.baselines:
        metadata_by_fold = score_peer(name, data, options)
        rows = [fold_metadata["n_validation"] for fold_metadata in metadata_by_fold]
        loss = np.average(
            [fold_metadata["log_loss"] for fold_metadata in metadata_by_fold], weights=rows
        )
        seconds = sum(fold_metadata["seconds"] for fold_metadata in metadata_by_fold)
        print(f"{model_name(name)}: log loss {loss:.4f} out of fold, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    cli.run(main)
