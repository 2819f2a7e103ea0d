"""The trained models of the reading competition, with the table that they were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hearback.engine.data.corrections import Corrections
from hearback.reading import evaluation
from hearback.reading.evaluation import ReadingOutOfFold
from hearback.reading.word_label_table import load_word_labels
from hearback.reading.word_labels import WordLabels


@dataclass(frozen=True)
class TrainedModels:
    """Models and their training table.

    Attributes:
        metadata: the training table, corrected, with its labels as `score`.
        causes: why each score is what it is, by the index of `metadata`; None if unknown.
        corrected: what the corrections changed.
        tables: the out-of-fold predictions of each model.
        word_labels: labels of words; none if the table has none.
    """

    metadata: pd.DataFrame
    causes: pd.Series | None
    corrected: Corrections
    tables: Sequence[ReadingOutOfFold]
    word_labels: WordLabels


def read_trained(
    data: Path,
    assets: Path,
    models: Sequence[str] | None = None,
    *,
    causes: Path | None = None,
    corrections: Path | None = None,
) -> TrainedModels:
    """Read the training table in `data`, and the predictions of `models` in `assets`, or of all.

    `causes` and `corrections` are CSV files. Raises BadInputError, which lists all problems of the
    tables, and HearbackError for predictions that are invalid or of other corrections.
    """
    metadata, found_causes, corrected = evaluation.read_corrected_metadata(
        data, causes, corrections
    )
    tables = evaluation.read_out_of_fold(assets, models, corrected)
    word_labels = load_word_labels(data, metadata)
    return TrainedModels(metadata, found_causes, corrected, tables, word_labels)
