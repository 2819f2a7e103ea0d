"""The page of new snippets without labels, from the tables of the step infer."""

from collections.abc import Sequence

from hearback.engine.page.content import DataSummary, ModelResult, Page, Recordings
from hearback.engine.page.distributions import length_distribution, value_distributions
from hearback.engine.page.predictions import listed
from hearback.engine.page.results import ENSEMBLE
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.report import verdict
from hearback.songs.report.competition import SONGS
from hearback.songs.report.out_of_fold import likeliest_classes
from hearback.songs.report.tables import ClassifiedSnippets
from hearback.songs.report.verdict import CLASS
from hearback.songs.tables import CLASSES

UNSCORED = "unreadable"  # status of a snippet without a prediction whose problem states none


def build_page(
    found: ClassifiedSnippets, config: SongEnsemble, lengths: Sequence[float | None]
) -> Page:
    """Return the page of classified snippets, without sound.

    `config` is their ensemble, `lengths` are theirs in seconds; None where unknown.
    """
    values = listed(found.probabilities.max(axis=1))
    classes = likeliest_classes(found.probabilities)
    problems = {each.filename: each for each in reversed(found.problems) if each.filename}
    errors = {name: each for name, each in problems.items() if each.severity == "error"}
    statuses = [
        verdict.status_of(value)
        if value is not None
        else (errors[name].status if name in errors else "") or UNSCORED
        for name, value in zip(found.filenames, values, strict=True)
    ]
    notes = {name: f"{each.what}; {each.cure}" for name, each in problems.items()}
    fields = {
        CLASS: ["" if label is None else CLASSES[label] for label in classes],
        "status": statuses,
    }
    weights = [(model.name, f"{model.weight:.2f}") for model in config.models_to_run]
    recordings = Recordings(
        filenames=found.filenames,
        texts=[""] * len(found.filenames),
        fields=fields,
        labels=None,
        predictions={ENSEMBLE: values},
        predicted_classes={ENSEMBLE: classes},
        seconds=lengths,
        notes=[notes.get(name, "") for name in found.filenames],
    )
    return SONGS.page_of_new_recordings(
        ModelResult(ENSEMBLE, is_ensemble=True, n=len(values) - values.count(None)),
        recordings,
        DataSummary(
            [("snippets", str(len(found.filenames)))],
            [*value_distributions(fields, SONGS.order), *length_distribution(lengths)],
        ),
        sentences=verdict.of_new_snippets(classes, values, verdict.describe_limits(config)),
        card=[("ensemble", ", ".join(f"{name} ({weight})" for name, weight in weights))],
        problems=found.problems,
    )
