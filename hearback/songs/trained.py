"""The trained models of the songs, with the table that they were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hearback.engine.data.corrections import Corrections
from hearback.engine.data.problems import Problem, Report
from hearback.engine.evaluation.oof import read_tables
from hearback.songs.evaluation import ClassOutOfFold
from hearback.songs.tables import read_corrected_snippets


@dataclass(frozen=True)
class TrainedModels:
    """Models and their training table.

    Attributes:
        snippets: the training table, corrected.
        corrected: what the corrections changed.
        problems: warnings about the table.
        tables: the out-of-fold predictions of each model.
    """

    snippets: pd.DataFrame
    corrected: Corrections
    problems: Sequence[Problem]
    tables: Sequence[ClassOutOfFold]


def read_trained(
    data: Path,
    assets: Path,
    models: Sequence[str] | None = None,
    *,
    corrections: Path | None = None,
) -> TrainedModels:
    """Read the training table in `data`, and the predictions of `models` in `assets`, or of all.

    `corrections` is a CSV file. Raises BadInputError, which lists all problems of the tables, and
    HearbackError for predictions that are invalid or of other corrections.
    """
    report = Report()
    snippets, corrected = read_corrected_snippets(data, corrections, report)
    tables = read_tables(ClassOutOfFold, assets, models, corrected)
    return TrainedModels(snippets, corrected, report.problems, tables)
