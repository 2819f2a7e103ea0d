"""Out-of-fold predictions of models and of their ensemble, for the page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.ensemble.stacking import score_ensemble
from hearback.engine.evaluation.oof import common_rows
from hearback.engine.page.predictions import Ensemble, Predictions, collect
from hearback.songs.ensemble import COMMAND, NO_CALIBRATION, SongEnsemble, stacking_data
from hearback.songs.evaluation import PROBABILITIES, ClassOutOfFold
from hearback.songs.trained import TrainedModels


def collect_predictions(trained: TrainedModels, config: Path | None) -> Predictions[ClassOutOfFold]:
    """Return the predictions of trained models, and fit their ensemble again, cross-fitted.

    `config` is the ensemble's file, None for models alone. Raises HearbackError if it is invalid.
    """
    tables, snippets = trained.tables, trained.snippets
    if config is None:
        return collect(tables, snippets, PROBABILITIES)
    loaded = SongEnsemble.load(config)

    def cross_fit(members: Sequence[ClassOutOfFold]) -> tuple[pd.DataFrame, float]:
        return _cross_fit(members, snippets, loaded.combine)

    ensemble = Ensemble(config.name, loaded, cross_fit, COMMAND)
    return collect(tables, snippets, PROBABILITIES, ensemble)


def _cross_fit(
    members: Sequence[ClassOutOfFold], snippets: pd.DataFrame, combine: str
) -> tuple[pd.DataFrame, float]:
    """Fit an ensemble on the rows that all of its members predicted, as the step get_config does.

    Returns filename and cross-fitted probabilities, and their log loss in nats.
    """
    joined = common_rows(members, snippets)
    predictions = np.stack([rows[PROBABILITIES].to_numpy() for rows in joined])
    rows = joined[0]
    data = stacking_data(predictions, rows["label"].to_numpy(), rows["group"].to_numpy(dtype=str))
    scores = score_ensemble(data, combine, NO_CALIBRATION)
    columns = dict(zip(PROBABILITIES, scores.cross_fitted_predictions.T, strict=True))
    return rows[["filename"]].assign(**columns), scores.cross_fitted
