"""The page of trained models: every recording as scored by the fold that did not learn from it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hearback.engine.evaluation.metrics import row_log_loss
from hearback.engine.page.content import DataSummary, Page, Recordings, Words
from hearback.engine.page.distributions import (
    count_distribution,
    length_distribution,
    value_distributions,
)
from hearback.engine.page.predictions import listed
from hearback.engine.page.results import Labelled, Predicted, binary_results
from hearback.engine.page.wording import not_predicted, unscored_folds
from hearback.reading import evaluation, step_command
from hearback.reading.report import verdict
from hearback.reading.report.competition import LABEL_NAMES, PEOPLE, READING
from hearback.reading.report.predictions import Predictions, word_models
from hearback.reading.scoring.status import of_probability
from hearback.reading.trained import TrainedModels

CAUSE = "cause"  # the column of the causes of scores
_COLUMNS = ("grade", "task", CAUSE, PEOPLE)  # to show and filter by


def build_page(
    trained: TrainedModels,
    found: Predictions,
    words: Mapping[str, Words],
    seconds: Mapping[str, float],
) -> Page:
    """Return the page of trained models, without sound.

    Args:
        trained: the models.
        found: their predictions.
        words: from `predictions.read_words`.
        seconds: lengths of the recordings by filename, as far as they are known.
    """
    rows = found.rows
    if trained.causes is not None:
        by_name = dict(zip(trained.metadata["filename"], trained.causes, strict=True))
        rows = rows.assign(cause=rows["filename"].map(by_name))
    fields = _fields(rows)
    losses = {
        name: row_log_loss(rows["score"], pd.Series(x)).to_numpy()
        for name, x in found.by_model.items()
    }
    predicted = {
        name: Predicted(losses[name], x, found.weights.get(name))
        for name, x in found.by_model.items()
    }
    results = binary_results(_labelled(rows, fields), predicted)
    first = results[0].name
    labels, values, known = (
        rows["score"].to_numpy(),
        found.by_model[first],
        found.predicted_by(first),
    )
    lengths = [seconds.get(name) for name in rows["filename"]]
    statuses = ["" if np.isnan(value) else of_probability(value) for value in values.tolist()]
    recordings = Recordings(
        filenames=rows["filename"].tolist(),
        texts=rows["written_text"].tolist(),
        fields={**fields, "status": statuses},
        labels=labels.astype(int).tolist(),
        predictions={name: listed(x) for name, x in found.by_model.items()},
        losses={name: listed(x) for name, x in losses.items()},
        seconds=lengths,
        words=words,
        words_by=", ".join(table.model for table in word_models(found)) if words else "",
    )
    return READING.page_of_models(
        found,
        results,
        recordings,
        _summarize(trained, rows, fields, lengths),
        sentences=verdict.of_models(
            results[0], labels[known], values[known], found.base_loss(first)
        ),
        kind_of=lambda table: table.family,
        corrected=trained.corrected,
    )


def _fields(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of text that have any value."""
    fields = {name: rows[name].fillna("").astype(str).tolist() for name in _COLUMNS if name in rows}
    return {name: values for name, values in fields.items() if any(values)}


def _labelled(rows: pd.DataFrame, fields: Mapping[str, Sequence[str]]) -> Labelled:
    return Labelled(
        rows["score"].to_numpy().astype(int),
        rows[evaluation.group_unit(rows)].to_numpy(dtype=str),
        {name: np.array(values, dtype=str) for name, values in fields.items()},
        bins_by=READING.bins_by,
        order=READING.order,
        causes_by=CAUSE,
    )


def _summarize(
    trained: TrainedModels,
    rows: pd.DataFrame,
    fields: Mapping[str, Sequence[str]],
    lengths: Sequence[float | None],
) -> DataSummary:
    """Return what the recordings are, and which rows of the training table no fold scored."""
    facts = [("recordings", str(len(rows)))]
    if PEOPLE in fields:
        facts.append(("speakers", str(rows[PEOPLE].nunique())))
    facts.append(("texts", str(rows["expected_text"].nunique())))
    facts.append(("say the text", f"{rows['score'].to_numpy().mean():.0%}"))
    known = [value for value in lengths if value is not None]
    if known:
        hours = sum(known) / 3600
        shown = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
        facts.append(("length together", shown))
    labels = [LABEL_NAMES[int(score > 0.5)] for score in rows["score"]]
    columns = {"label": labels, **{name: x for name, x in fields.items() if name != PEOPLE}}
    return DataSummary(
        facts,
        [
            *value_distributions(columns, READING.order),
            *count_distribution("recordings of a speaker", fields.get(PEOPLE, ())),
            *length_distribution(lengths),
        ],
        not_predicted(trained.metadata, rows, trained.tables, step_command("train")),
        unscored_folds(trained.metadata, rows, trained.tables, step_command("train")),
    )
