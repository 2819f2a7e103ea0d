"""The page of trained models: every recording as scored by the fold that did not learn from it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hearback.engine.evaluation.metrics import row_log_loss
from hearback.engine.page.content import DataSummary, Page, Recordings, Verdict, Words
from hearback.engine.page.curves import learning_curves
from hearback.engine.page.distributions import (
    count_distribution,
    length_distribution,
    value_distributions,
)
from hearback.engine.page.maker import describe_maker
from hearback.engine.page.predictions import listed
from hearback.engine.page.results import Labelled, Predicted, binary_results
from hearback.engine.page.wording import describe_models, not_predicted
from hearback.reading import evaluation, step_command
from hearback.reading.report import verdict
from hearback.reading.report.predictions import Predictions
from hearback.reading.scoring.status import UNSURE_ABOVE, UNSURE_BELOW, of_probability
from hearback.reading.tables import GRADES, TASKS

LABEL_NAMES = ("not said", "said")
TITLE = "Did they say it?"
_COLUMNS = ("grade", "task", "cause", "speaker")  # to show and filter by
BINS_BY = "grade"  # reliability is shown by it
_ORDER = {"label": LABEL_NAMES, "grade": GRADES, "task": TASKS}


def build_page(
    metadata: pd.DataFrame,
    causes: pd.Series | None,
    found: Predictions,
    words: Mapping[str, Words],
    seconds: Mapping[str, float],
) -> Page:
    """Return the page of trained models, without sound.

    Args:
        metadata: from `evaluation.read_corrected_metadata`, as are the `causes`.
        causes: of the scores, or None.
        found: the predictions.
        words: from `predictions.read_words`, perhaps with times.
        seconds: lengths of the recordings by filename, as far as they are known.
    """
    rows = found.rows
    if causes is not None:
        by_name = dict(zip(metadata["filename"], causes, strict=True))
        rows = rows.assign(cause=rows["filename"].map(by_name))
    fields = _fields(rows)
    results = binary_results(_labelled(rows, fields), _predicted(rows, found))
    labels = rows["score"].to_numpy()
    values = found.by_model[results[0].name]
    known = ~np.isnan(values)
    base_loss = float(found.base_losses[known].mean())
    lengths = [seconds.get(name) for name in rows["filename"]]
    statuses = ["" if np.isnan(value) else of_probability(value) for value in values.tolist()]
    return Page(
        title=TITLE,
        made_by=describe_maker(),
        kind="binary",
        verdict=Verdict(
            verdict.of_models(results[0], labels[known], values[known], base_loss),
            found.warnings,
            describe_models(results, found.tables, lambda table: table.family),
        ),
        data=_summarize(metadata, rows, fields, lengths),
        models=results,
        recordings=Recordings(
            filenames=rows["filename"].tolist(),
            texts=rows["written_text"].tolist(),
            fields={**fields, "status": statuses},
            labels=labels.astype(int).tolist(),
            predictions={name: listed(x) for name, x in found.by_model.items()},
            losses={
                name: listed(row_log_loss(rows["score"], pd.Series(x)).to_numpy())
                for name, x in found.by_model.items()
            },
            seconds=lengths,
            words=words,
        ),
        label_names=LABEL_NAMES,
        base_rate_log_loss=base_loss,
        unsure=(UNSURE_ABOVE, UNSURE_BELOW),
        curves=learning_curves(found.tables),
        bins_by=BINS_BY,
        order=_ORDER,
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
        bins_by=BINS_BY,
        order=_ORDER,
    )


def _predicted(rows: pd.DataFrame, found: Predictions) -> dict[str, Predicted]:
    return {
        name: Predicted(
            row_log_loss(rows["score"], pd.Series(values)).to_numpy(),
            values,
            found.weights.get(name),
        )
        for name, values in found.by_model.items()
    }


def _summarize(
    metadata: pd.DataFrame,
    rows: pd.DataFrame,
    fields: Mapping[str, Sequence[str]],
    lengths: Sequence[float | None],
) -> DataSummary:
    """Return what the recordings are, and which rows of the training table no fold scored."""
    facts = [("recordings", str(len(rows)))]
    if "speaker" in fields:
        facts.append(("speakers", str(rows["speaker"].nunique())))
    facts.append(("texts", str(rows["expected_text"].nunique())))
    facts.append(("say the text", f"{rows['score'].to_numpy().mean():.0%}"))
    known = [value for value in lengths if value is not None]
    if known:
        facts.append(("length together", f"{sum(known) / 3600:.1f} h"))
    labels = [LABEL_NAMES[int(score > 0.5)] for score in rows["score"]]
    shown = {"label": labels, **{name: x for name, x in fields.items() if name != "speaker"}}
    return DataSummary(
        facts,
        [
            *value_distributions(shown, _ORDER),
            *count_distribution("recordings of a speaker", fields.get("speaker", ())),
            *length_distribution(lengths),
        ],
        not_predicted(metadata, rows, step_command("train")),
    )
