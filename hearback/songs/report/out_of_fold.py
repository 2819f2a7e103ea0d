"""The page of trained models: each snippet as classified by the fold that did not learn from it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hearback.engine.page.content import DataSummary, Page, Recordings
from hearback.engine.page.distributions import (
    count_distribution,
    length_distribution,
    value_distributions,
)
from hearback.engine.page.predictions import Predictions, listed
from hearback.engine.page.results import Labelled, Predicted, class_results
from hearback.engine.page.wording import general_warnings, not_predicted, refused, unscored_folds
from hearback.songs import evaluation
from hearback.songs.evaluation import ClassOutOfFold, class_log_loss
from hearback.songs.report import verdict
from hearback.songs.report.competition import KNOWN, KNOWN_VALUES, SINGERS, SONGS
from hearback.songs.report.verdict import CLASS
from hearback.songs.tables import CLASSES, SEVERAL
from hearback.songs.trained import TrainedModels


def build_page(
    trained: TrainedModels,
    found: Predictions[ClassOutOfFold],
    lengths: Sequence[float | None],
) -> Page:
    """Return the page of trained models, without sound.

    Args:
        trained: the models.
        found: their predictions.
        lengths: of the rows of `found`, in seconds; None where unknown.
    """
    rows = found.rows
    labels = rows["label"].to_numpy()
    fields = _fields(rows, trained.snippets, found.tables)
    losses = {name: class_log_loss(labels, x) for name, x in found.by_model.items()}
    predicted = {
        name: Predicted(losses[name], x, found.weights.get(name))
        for name, x in found.by_model.items()
    }
    results = class_results(_labelled(rows, fields), predicted)
    first = results[0].name
    known = found.predicted_by(first)
    likeliest = {name: listed(np.max(x, axis=1)) for name, x in found.by_model.items()}
    statuses = ["" if p is None else verdict.status_of(p) for p in likeliest[first]]
    recordings = Recordings(
        filenames=rows["filename"].tolist(),
        texts=[""] * len(rows),
        fields={**fields, "status": statuses},
        labels=labels.tolist(),
        predictions=likeliest,
        losses={name: listed(x) for name, x in losses.items()},
        predicted_classes={name: likeliest_classes(x) for name, x in found.by_model.items()},
        seconds=lengths,
    )
    return SONGS.page_of_models(
        found,
        results,
        recordings,
        _summarize(trained, rows, fields, lengths),
        sentences=verdict.of_models(
            results[0], labels[known], found.by_model[first][known], found.base_loss(first)
        ),
        kind_of=_kind,
        corrected=trained.corrected,
        warnings=general_warnings(trained.problems),
    )


def _summarize(
    trained: TrainedModels,
    rows: pd.DataFrame,
    fields: Mapping[str, Sequence[str]],
    lengths: Sequence[float | None],
) -> DataSummary:
    """Return what the snippets are, and which of them no fold scored or have a problem."""
    return DataSummary(
        _facts(rows),
        [
            *value_distributions({CLASS: [CLASSES[label] for label in rows["label"]]}, SONGS.order),
            *value_distributions({KNOWN: [x for x in fields.get(KNOWN, ()) if x]}, SONGS.order),
            *count_distribution("snippets of a singer", _singers(rows)),
            *length_distribution(lengths),
        ],
        [
            *not_predicted(trained.snippets, rows, trained.tables, SONGS.train_command),
            *refused(trained.problems, warnings=True),
        ],
        unscored_folds(trained.snippets, rows, trained.tables, SONGS.train_command),
    )


def _fields(
    rows: pd.DataFrame, snippets: pd.DataFrame, tables: Sequence[ClassOutOfFold]
) -> dict[str, list[str]]:
    """Return the columns of text to show and filter by; none without singers."""
    if not rows["singers"].any():
        return {}
    several = (rows["label"] == SEVERAL) & (rows["singers"] != "")
    known = evaluation.has_known_singer(rows, snippets, tables)
    values = np.where(several, np.where(known, KNOWN_VALUES[1], KNOWN_VALUES[0]), "")
    return {SINGERS: rows["singers"].tolist(), KNOWN: values.tolist()}


def _labelled(rows: pd.DataFrame, fields: Mapping[str, Sequence[str]]) -> Labelled:
    """Return what results are shown by: classes, snippets of several singers, single singers."""
    by = {CLASS: np.array([CLASSES[label] for label in rows["label"]])}
    if fields:
        singers = rows["singers"].where(~rows["singers"].str.contains(";"), "")
        by |= {KNOWN: np.array(fields[KNOWN]), SINGERS: singers.to_numpy(dtype=str)}
    groups = rows["group"].to_numpy(dtype=str)
    return Labelled(rows["label"].to_numpy(), groups, by, order=SONGS.order)


def likeliest_classes(probabilities: np.ndarray) -> list[int | None]:
    """Return the likeliest class of each row; None for rows without probabilities."""
    known = ~np.isnan(probabilities).any(axis=1)
    classes = probabilities.argmax(axis=1).tolist()
    return [label if there else None for label, there in zip(classes, known, strict=True)]


def _kind(table: ClassOutOfFold) -> str:
    """Return a model's architecture, and the separation before it."""
    recipe = next(iter(table.metadata_by_fold.values())).get("recipe") or {}
    separation = recipe.get("separate", "none")
    parts = [recipe.get("architecture", ""), "" if separation == "none" else separation]
    return " on voices separated by ".join(filter(None, parts))


def _singers(rows: pd.DataFrame) -> list[str]:
    """Return the singers of all rows, one after the other."""
    return [name for joined in rows["singers"] for name in joined.split(";") if name]


def _facts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    facts = [("snippets", str(len(rows)))]
    if singers := set(_singers(rows)):
        facts.append(("singers", str(len(singers))))
    facts.append(("folds", str(rows["fold"].nunique())))
    return facts
