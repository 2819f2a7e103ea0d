"""The transcript baseline: edits between Whisper's transcript and the expected text."""

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from hearback.engine.devices import choose_device
from hearback.engine.whisper import pretrained
from hearback.reading.baselines import transcripts
from hearback.reading.baselines.base import (
    BaselineOptions,
    Inputs,
    context_features,
    logistic_regression,
)
from hearback.reading.dataset import TrainingData


def transcript_inputs(data: TrainingData, options: BaselineOptions) -> Inputs:
    """Transcribe the recordings missing in the cache; return the edit features of all."""
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
        edit_features(normalise(text), normalise(transcript))
        for text, transcript in zip(texts, table["transcript"], strict=True)
    ]
    features = pd.concat([pd.DataFrame(edits), context_features(data.metadata)], axis=1)
    return Inputs(features, float(table["seconds"].sum()), {"transcripts": path.stem})


def edit_features(expected: str, transcript: str) -> dict[str, float]:
    """Return the edits from the text to its transcript, both normalised, by word and by letter.

    For each unit: the number of edits and of each kind, and both lengths, as log(1 + count), since
    Whisper may repeat a word a hundred times; the edits divided by the longer length (0 to 1), and
    by the text's length (the error rate, clipped at 2). Letters are compared without spaces, so a
    nonword transcribed in two parts is no error.
    """
    features = {"equal": float(expected == transcript)}
    for unit, text, transcribed in (
        ("words", expected.split(), transcript.split()),
        ("letters", list(expected.replace(" ", "")), list(transcript.replace(" ", ""))),
    ):
        kinds = [step.tag for step in Levenshtein.editops(text, transcribed)]
        counts = {
            f"{unit} edits": len(kinds),
            f"{unit} substituted": kinds.count("replace"),
            f"{unit} missing": kinds.count("delete"),
            f"{unit} added": kinds.count("insert"),
            f"{unit} expected": len(text),
            f"{unit} transcribed": len(transcribed),
        }
        features |= {name: float(np.log1p(count)) for name, count in counts.items()}
        features[f"{unit} edits / longer"] = len(kinds) / max(len(text), len(transcribed), 1)
        features[f"{unit} error rate"] = min(len(kinds) / max(len(text), 1), 2.0)
    return features


def transcript_estimator() -> GridSearchCV:
    """Return a logistic regression on the standardized edit features."""
    return logistic_regression(StandardScaler())
