"""The acoustic baseline: boosted trees on the sound of a recording, without its words."""

import time
from typing import Self

import librosa
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from tqdm import tqdm

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.baselines.base import (
    BaselineOptions,
    Inputs,
    context_features,
    inner_folds,
)
from hearback.reading.dataset import TrainingData

FFT_SAMPLES, HOP_SAMPLES = 512, 160  # 32 ms every 10 ms
N_MFCC = 20
PITCH_HERTZ = (65.0, 600.0)  # from a low man's voice to a young child's
SPEECH_DB = 30.0  # frames this far below the clip's loudest are not speech


class EarlyStoppedTrees(BaseEstimator):
    """Gradient-boosted trees with early stopping on other groups' log loss.

    There is one ensemble of trees for each of five grouped splits of the training rows. The rows
    that a split holds out stop its training. The probability is the mean of the five.
    """

    def fit(self, features: pd.DataFrame, labels: np.ndarray, *, groups: np.ndarray) -> Self:
        """Fit the five ensembles."""
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


def acoustic_inputs(data: TrainingData, options: BaselineOptions) -> Inputs:
    """Return the acoustic features of every recording."""
    started, source = time.monotonic(), data.source
    rows = [
        acoustic_features(source.learner(row), source.texts[row])
        for row in tqdm(range(len(source)), desc="acoustic features", unit="clip")
    ]
    features = pd.concat([pd.DataFrame(rows), context_features(data.metadata)], axis=1)
    return Inputs(features, time.monotonic() - started)


def acoustic_features(waveform: np.ndarray, text: str) -> dict[str, float]:
    """Return the acoustic features of a recording, (samples,) float32 at 16 kHz, and its pace.

    Means and standard deviations over 10 ms frames of 20 MFCC, their first and second differences,
    energy, zero crossings and spectral shape; pitch (YIN; de Cheveigné & Kawahara 2002) in speech
    frames; seconds, words and letters, and the latter two per second.
    """
    spectrum = np.abs(librosa.stft(waveform, n_fft=FFT_SAMPLES, hop_length=HOP_SAMPLES))
    decibels = librosa.amplitude_to_db(librosa.feature.rms(S=spectrum, frame_length=FFT_SAMPLES))[0]
    features = {}
    for name, track in _tracks(waveform, spectrum, decibels).items():
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
    return features | _pace(speech, len(waveform) / SAMPLE_RATE, text)


def _tracks(
    waveform: np.ndarray, spectrum: np.ndarray, decibels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the features over time, (frames,) each, of a magnitude spectrum, (bins, frames)."""
    power_db = librosa.power_to_db(
        librosa.feature.melspectrogram(S=spectrum**2, sr=SAMPLE_RATE, n_mels=40)
    )
    mfcc = librosa.feature.mfcc(S=power_db, n_mfcc=N_MFCC)
    contrast = librosa.feature.spectral_contrast(S=spectrum, sr=SAMPLE_RATE, n_bands=5, fmin=200.0)
    return {
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


def _pace(speech: np.ndarray, seconds: float, text: str) -> dict[str, float]:
    """Return durations, pauses and rates, from the mask of speech frames, (frames,)."""
    speech_seconds = speech.sum() * HOP_SAMPLES / SAMPLE_RATE
    n_words, n_letters = len(text.split()), len(text.replace(" ", ""))
    span = np.trim_zeros(speech)  # from the first to the last speech frame: gaps are pauses
    return {
        "seconds": seconds,
        "speech seconds": speech_seconds,
        "span seconds": len(span) * HOP_SAMPLES / SAMPLE_RATE,
        "pauses": float((np.diff(span.astype(int)) == -1).sum()),
        "words": n_words,
        "letters": n_letters,
        "words per second": n_words / seconds,
        "letters per second": n_letters / seconds,
        "words per second of speech": n_words / speech_seconds,
        "letters per second of speech": n_letters / speech_seconds,
    }


def _differences(tracks: np.ndarray, order: int = 1) -> np.ndarray:
    """Return the slopes of (tracks, frames) over nine frames; edge frames are repeated."""
    return librosa.feature.delta(tracks, order=order, width=9, mode="nearest")
