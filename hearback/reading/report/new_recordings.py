"""The page of new recordings without labels, from the tables of `score.py` or `infer.py`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hearback.engine.data.problems import Problem
from hearback.engine.page.content import (
    DataSummary,
    ModelResult,
    Page,
    Recordings,
    Refused,
    Words,
)
from hearback.engine.page.distributions import (
    count_distribution,
    length_distribution,
    value_distributions,
)
from hearback.reading.report import verdict
from hearback.reading.report.competition import PEOPLE, READING

SCORE = "score"  # the name of the only model
_COLUMNS = ("grade", "task", PEOPLE)


def build_page(
    scores: pd.DataFrame,
    words: dict[str, Words],
    *,
    scorer: str,
    known_limits: str,
    problems: Sequence[Problem] = (),
    card: Sequence[tuple[str, str]] = (),
) -> Page:
    """Return the page of scored recordings, without sound.

    Args:
        scores: filename, text, score (NaN without one), status, and perhaps seconds, note, grade,
            task, speaker; "" or NaN where unknown.
        words: of the recordings, by index of the row, as text.
        scorer: what scored them.
        known_limits: a sentence on how good it was where labels were known.
        problems: of the input.
        card: facts of the model card.
    """
    values, lengths = _numbers(scores, "score"), _numbers(scores, "seconds")
    fields = {name: scores[name].tolist() for name in _COLUMNS if name in scores}
    fields = {name: found for name, found in fields.items() if any(found)}
    statuses = scores["status"].tolist()
    shown = {"status": statuses, **{k: x for k, x in fields.items() if k != PEOPLE}}
    distributions = [
        *value_distributions(shown, READING.order),
        *count_distribution("recordings of a speaker", fields.get(PEOPLE, ())),
        *length_distribution(lengths),
    ]
    recordings = Recordings(
        filenames=scores["filename"].tolist(),
        texts=scores["text"].tolist(),
        fields={**fields, "status": statuses},
        labels=None,
        predictions={SCORE: values},
        seconds=lengths,
        notes=scores["note"].tolist() if "note" in scores else (),
        words=words,
    )
    return READING.page_of_new_recordings(
        ModelResult(SCORE, n=sum(value is not None for value in values)),
        recordings,
        DataSummary(_facts(scores, lengths), distributions),
        sentences=verdict.of_new_recordings(values, statuses, scorer, known_limits),
        card=card,
        problems=problems,
        further=_unscored(scores, problems),
    )


def _unscored(scores: pd.DataFrame, problems: Sequence[Problem]) -> list[Refused]:
    """Return the recordings without a score of which the problems say nothing."""
    known = {each.filename for each in problems if each.severity == "error"}
    return [
        Refused(row["filename"], None, row.get("note") or row["status"], "")
        for row in scores[scores["score"].isna()].to_dict("records")
        if row["filename"] not in known
    ]


def _numbers(scores: pd.DataFrame, column: str) -> list[float | None]:
    """Return the numbers of a column, None where there is none."""
    values = scores[column] if column in scores else [np.nan] * len(scores)
    return [None if np.isnan(value) else float(value) for value in values]


def _facts(scores: pd.DataFrame, lengths: Sequence[float | None]) -> list[tuple[str, str]]:
    facts = [("recordings", str(len(scores))), ("texts", str(scores["text"].nunique()))]
    if PEOPLE in scores and (scores[PEOPLE] != "").any():
        facts.append(("speakers", str(scores[PEOPLE].nunique())))
    known = [value for value in lengths if value is not None]
    if known:
        facts.append(("length together", f"{sum(known) / 60:.1f} min"))
    return facts
