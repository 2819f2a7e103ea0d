"""Out-of-fold predictions of models and of their ensemble, on the rows that a page shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import pandas as pd

from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.evaluation.oof import OutOfFold
from hearback.engine.page.results import ENSEMBLE

_SAME_LOSS = 1e-4  # nats

Table = TypeVar("Table", bound=OutOfFold)


class EnsembleConfig(Protocol):
    """What a page reads of an ensemble's configuration."""

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The models that it was fitted on."""

    @property
    def models_to_run(self) -> tuple[ModelConfig, ...]:
        """The models with a weight."""

    @property
    def log_losses(self) -> Mapping[str, float]:
        """In nats; "cross_fitted" is the one that a page compares."""


@dataclass(frozen=True)
class Ensemble(Generic[Table]):
    """An ensemble that is fitted again.

    Attributes:
        name: of its file.
        config: its configuration.
        cross_fit: maps the tables of the ensemble's models, in their order, to filename and the
            cross-fitted predictions in the columns of `collect`, and to their log loss.
        command: fits it.
    """

    name: str
    config: EnsembleConfig
    cross_fit: Callable[[Sequence[Table]], tuple[pd.DataFrame, float]]
    command: str


@dataclass(frozen=True)
class Predictions(Generic[Table]):
    """Out-of-fold predictions of models and of their ensemble on the training rows.

    Attributes:
        rows: of the training table that any model predicted, and the column fold.
        by_model: (rows,) probabilities of label 1, or (rows, classes); the ensemble first, then by
            log loss; NaN where there is none.
        base_losses: (rows,), log losses of the base rates of the folds that held out the rows.
        weights: of the models in the ensemble; empty without one.
        tables: the models, without the ensemble.
        warnings: why there is no ensemble, or another one than was fitted.
    """

    rows: pd.DataFrame
    by_model: Mapping[str, np.ndarray]
    base_losses: np.ndarray
    weights: Mapping[str, float]
    tables: Sequence[Table]
    warnings: Sequence[str] = ()

    def predicted_by(self, model: str) -> np.ndarray:
        """Return the mask of the rows that a model predicted, (rows,) bool."""
        values = self.by_model[model]
        return ~np.isnan(values.reshape(len(values), -1)).any(axis=1)

    def base_loss(self, model: str) -> float:
        """Return the log loss of the base rate on the rows that a model predicted, in nats."""
        return float(self.base_losses[self.predicted_by(model)].mean())


def collect(
    tables: Sequence[Table],
    training_table: pd.DataFrame,
    columns: str | Sequence[str],
    ensemble: Ensemble[Table] | None = None,
) -> Predictions[Table]:
    """Collect the predictions of models, and fit their ensemble again, cross-fitted.

    Args:
        tables: of the models.
        training_table: with a filename in each row.
        columns: of the predictions; a list of them for classes.
        ensemble: None for models alone.

    Raises HearbackError if the training table has changed since the training.
    """
    for table in tables:
        table.rows_with(training_table)  # raises if it has changed
    tables = sorted(tables, key=lambda table: float(table.row_losses().mean()))
    predicted = pd.concat(
        [table.rows.assign(base_loss=table.base_losses()) for table in tables]
    ).drop_duplicates("filename")
    is_shown = training_table["filename"].isin(predicted["filename"])
    rows = training_table[is_shown].reset_index(drop=True)
    rows = rows.assign(fold=_on_rows(rows, predicted, "fold").astype(int))
    by_model = {table.model: _on_rows(rows, table.rows, columns) for table in tables}
    weights: Mapping[str, float] = {}
    warnings: list[str] = []
    if ensemble is not None:
        fitted, warnings = _fit_again(ensemble, {table.model: table for table in tables})
        if fitted is not None:
            weights = {model.name: model.weight for model in ensemble.config.models_to_run}
            by_model = {ENSEMBLE: _on_rows(rows, fitted, columns), **by_model}
    base_losses = _on_rows(rows, predicted, "base_loss")
    return Predictions(rows, by_model, base_losses, weights, tables, tuple(warnings))


def _fit_again(
    ensemble: Ensemble[Table], tables: Mapping[str, Table]
) -> tuple[pd.DataFrame | None, list[str]]:
    """Return an ensemble's cross-fitted predictions, None if it cannot be fitted, and warnings."""
    config = ensemble.config
    names = [model.name for model in config.models]  # one without a weight was fitted, too
    if missing := sorted(set(names) - tables.keys()):
        return None, [
            f"The ensemble of {ensemble.name} is not shown: the predictions of "
            f"{', '.join(missing)} are not among these."
        ]
    if not config.models_to_run:
        return None, []
    predicted, log_loss = ensemble.cross_fit([tables[name] for name in names])
    if abs(config.log_losses.get("cross_fitted", log_loss) - log_loss) < _SAME_LOSS:
        return predicted, []
    return predicted, [
        f"{ensemble.name} was fitted on other predictions; {ensemble.command} fits it again."
    ]


def _on_rows(rows: pd.DataFrame, values: pd.DataFrame, columns: str | Sequence[str]) -> np.ndarray:
    """Return columns of `values` for each of `rows`, by filename; NaN where there is none."""
    chosen = columns if isinstance(columns, str) else list(columns)
    return values.set_index("filename")[chosen].reindex(rows["filename"]).to_numpy(float)


def listed(values: np.ndarray) -> list[float | None]:
    """Return numbers, (rows,), as a page holds them: None for NaN."""
    return [None if np.isnan(value) else value for value in values.tolist()]
