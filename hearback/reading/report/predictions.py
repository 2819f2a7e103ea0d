"""Out-of-fold predictions of models and of their ensemble, for the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from hearback.engine.ensemble.stacking import score_ensemble
from hearback.engine.page import predictions
from hearback.engine.page.content import Words
from hearback.engine.page.predictions import Ensemble, collect
from hearback.reading import evaluation, step_command, word_calibration, words
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.ensemble_fitting import OutOfFoldScores, gather
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.trained import TrainedModels
from hearback.reading.word_labels import WordLabels

Predictions: TypeAlias = predictions.Predictions[ReadingOutOfFold]

_PREDICTION = "pred"  # column


def collect_predictions(trained: TrainedModels, assets: Path, config: Path | None) -> Predictions:
    """Return the predictions of trained models, and fit their ensemble again, cross-fitted.

    `assets` has the models' word scores; `config` is the ensemble's file, None for models alone.
    Raises HearbackError if it is invalid.
    """
    tables, metadata = trained.tables, trained.metadata
    if config is None:
        return collect(tables, metadata, _PREDICTION)
    loaded = EnsembleConfig.load(config)

    def cross_fit(members: Sequence[ReadingOutOfFold]) -> tuple[pd.DataFrame, float]:
        joined = evaluation.join(members, metadata)
        scores = OutOfFoldScores.read(assets, members, joined, trained.word_labels)
        return _cross_fit(scores, loaded)

    ensemble = Ensemble(config.name, loaded, cross_fit, step_command("get_config"))
    return collect(tables, metadata, _PREDICTION, ensemble)


def _cross_fit(data: OutOfFoldScores, config: EnsembleConfig) -> tuple[pd.DataFrame, float]:
    """Fit an ensemble on the rows that all of its members predicted, as `get_config.py` does.

    Returns filename and cross-fitted prediction, and their log loss in nats.
    """
    settings = (config.combine, config.calibration.kind)
    scores = score_ensemble(gather(data, *settings).stacking_data, *settings)
    predicted = data.rows[["filename"]].assign(**{_PREDICTION: scores.cross_fitted_predictions})
    return predicted, scores.cross_fitted


def word_models(found: Predictions) -> list[ReadingOutOfFold]:
    """Return the models that the scores of words are of: the ensemble's, or else the best one."""
    scoring = [table for table in found.tables if words.has_word_scores(table)]
    return [table for table in scoring if table.model in found.weights] or scoring[:1]


def read_words(found: Predictions, assets: Path, word_labels: WordLabels) -> dict[str, Words]:
    """Return the words of recordings with their cross-fitted probabilities, by index of the row.

    They are those of the ensemble's models that score words, or else of the best such model; empty
    if there is none, or only one speaker: they cannot be cross-fitted then.
    """
    chosen = word_models(found)
    indices = [
        index
        for index, values in enumerate(np.isnan([found.by_model[t.model] for t in chosen]).T)
        if chosen and not values.any()
    ]
    if not indices:
        return {}
    rows = found.rows.iloc[indices]
    data = OutOfFoldScores.read(assets, chosen, rows, word_labels)
    if len(np.unique(data.groups)) < 2:
        return {}
    weights = {name: found.weights.get(name) or 1.0 for name in data.names}
    probabilities = word_calibration.cross_fit(data.examples(weights), data.groups).words
    said = words.said_probabilities(probabilities)
    return {
        str(index): Words(text.split(), scores=said[at, : len(text.split())].tolist())
        for at, (index, text) in enumerate(zip(indices, rows["expected_text"], strict=True))
    }
