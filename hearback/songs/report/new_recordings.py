"""The page of new snippets without labels, from the tables of the step infer."""

from hearback.engine.page.content import (
    DataSummary,
    ModelResult,
    Page,
    Recordings,
    Verdict,
)
from hearback.engine.page.distributions import value_distributions
from hearback.engine.page.maker import describe_maker
from hearback.engine.page.predictions import listed
from hearback.engine.page.results import ENSEMBLE
from hearback.engine.page.wording import general_warnings, refused
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.evaluation import ClassOutOfFold
from hearback.songs.report import verdict
from hearback.songs.report.out_of_fold import COMMAND, SINGERS, TITLE, likeliest_classes
from hearback.songs.report.tables import ClassifiedSnippets
from hearback.songs.report.verdict import CLASS
from hearback.songs.tables import CLASSES

UNSCORED = "unreadable"  # status of a snippet without a prediction whose problem states none
_STATUSES = (verdict.OK, verdict.UNSURE)


def build_page(found: ClassifiedSnippets, config: SongEnsemble) -> Page:
    """Return the page of classified snippets, without sound; `config` is their ensemble."""
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
    return Page(
        title=TITLE,
        made_by=describe_maker(),
        kind="classes",
        verdict=Verdict(
            verdict.of_new_snippets(classes, values, verdict.describe_limits(config)),
            general_warnings(found.problems),
            [("ensemble", ", ".join(f"{name} ({weight})" for name, weight in weights))],
        ),
        data=DataSummary(
            [("snippets", str(len(found.filenames)))],
            value_distributions(fields, {CLASS: CLASSES, "status": _STATUSES}),
            refused(found.problems),
        ),
        models=[ModelResult(ENSEMBLE, is_ensemble=True, n=len(values) - values.count(None))],
        recordings=Recordings(
            filenames=found.filenames,
            texts=[""] * len(found.filenames),
            fields=fields,
            labels=None,
            predictions={ENSEMBLE: values},
            predicted_classes={ENSEMBLE: classes},
            seconds=[None] * len(found.filenames),
            notes=[notes.get(name, "") for name in found.filenames],
        ),
        label_names=CLASSES,
        people=SINGERS,
        train_command=ClassOutOfFold.TRAIN_COMMAND,
        report_command=COMMAND,
    )
