"""The tables of a page as they are without JavaScript: those of the first model."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from hearback.engine.page.content import Estimate, GroupResult, ModelResult, Page

N_RECORDINGS = 500  # shown without JavaScript
N_ENOUGH = 30  # recordings; results of fewer are greyed
SHARES = ("false alarms", "misses", "errors", "accuracy")  # metrics that are shown in percent
NOTHING = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as it is shown, "–" for None."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share, 0 to 1, as e.g. "12.3 %"; "–" for None."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def position(value: float, low: float, high: float) -> str:
    """Return where a value is between two others, in percent, for an attribute of an SVG."""
    return f"{100 * min(max((value - low) / ((high - low) or 1), 0), 1):.2f}"


def breakable(text: str) -> Markup:
    """Return a text that may be broken after each "_", such as a status, for HTML."""
    return escape(text).replace("_", Markup("_<wbr>"))


def prediction_title(page: Page) -> str:
    """Return what a page calls a prediction: of new recordings, it is the score of their table."""
    return "Score" if page.kind == "binary" and not page.labelled else "Prediction"


def count_unscored(page: Page) -> int:
    """Return how many recordings the first model has no prediction of."""
    return list(page.recordings.predictions.get(page.models[0].name, [])).count(None)


def loss_range(page: Page) -> tuple[float, float]:
    """Return the ends of the axis that the models' log losses are drawn on, in nats."""
    values = [x for model in page.models for x in model.log_loss if x is not None]
    if page.base_rate_log_loss is not None:
        values.append(page.base_rate_log_loss)
    if not values:
        return 0.0, 1.0
    margin = 0.05 * (max(values) - min(values)) or 0.01
    return min(values) - margin, max(values) + margin


def metric_names(page: Page) -> list[str]:
    """Return the names of the further metrics of any model."""
    return list(dict.fromkeys(name for model in page.models for name in model.metrics))


def metric(model: ModelResult, name: str) -> Estimate:
    """Return a metric of a model; empty if it has none of that name."""
    return model.metrics.get(name, Estimate(None))


def groups_by(page: Page, model: ModelResult) -> dict[str, list[GroupResult]]:
    """Return the results by groups, by the column that makes the groups; the worst people first."""
    found: dict[str, list[GroupResult]] = {}
    for group in model.groups:
        found.setdefault(group.by, []).append(group)
    for by, groups in found.items():
        if by == page.people:
            groups.sort(key=lambda group: -(group.log_loss.value or 0))
    return found


def has_areas(groups: Sequence[GroupResult]) -> bool:
    """Return whether any of the groups has an AUC, as those by cause do."""
    return any(group.auc.value is not None for group in groups)


class ThresholdRow(NamedTuple):
    """What happens at a threshold: counts, and shares of 0 to 1, None where there are no labels."""

    threshold: float
    n_below: int
    n_from: int
    false_alarms: float | None
    misses: float | None
    errors: float | None


def thresholds(page: Page) -> list[ThresholdRow]:
    """Return the results of the first model at thresholds 0.1, 0.2, …, 0.9."""
    predictions = page.recordings.predictions.get(page.models[0].name, [])
    labels: Sequence[int | None] = page.recordings.labels or [None] * len(predictions)
    known = [pair for pair in zip(predictions, labels, strict=True) if pair[0] is not None]
    return [_threshold_row(known, step / 10, page.labelled) for step in range(1, 10)]


def _threshold_row(
    known: Sequence[tuple[float | None, int | None]], threshold: float, labelled: bool
) -> ThresholdRow:
    below = [label for prediction, label in known if (prediction or 0) < threshold]
    above = [label for prediction, label in known if (prediction or 0) >= threshold]
    if not labelled:
        return ThresholdRow(threshold, len(below), len(above), None, None, None)
    false_alarms, misses = below.count(1), above.count(0)
    return ThresholdRow(
        threshold,
        len(below),
        len(above),
        _share(false_alarms, false_alarms + above.count(1)),
        _share(misses, misses + below.count(0)),
        _share(false_alarms + misses, len(known)),
    )


def _share(count: int, n: int) -> float | None:
    return count / n if n else None


class RecordingRow(NamedTuple):
    """A recording as the list without JavaScript shows it."""

    filename: str
    text: str
    label: str
    prediction: str
    loss: str
    fields: list[str]


def recordings(page: Page) -> Iterator[RecordingRow]:
    """Yield the first `N_RECORDINGS` by loss of the first model, or by nearness to 0.5."""
    rows, model = page.recordings, page.models[0].name
    n = len(rows)
    predictions = rows.predictions.get(model, [None] * n)
    losses = rows.losses.get(model, [None] * n)
    for index in sorted(range(n), key=_sort_keys(page, predictions, losses).__getitem__)[
        :N_RECORDINGS
    ]:
        yield RecordingRow(
            rows.filenames[index],
            rows.texts[index] if rows.texts else "",
            "" if rows.labels is None else page.label_names[rows.labels[index]],
            number(predictions[index]),
            number(losses[index]),
            [values[index] for values in rows.fields.values()],
        )


def _sort_keys(
    page: Page, predictions: Sequence[float | None], losses: Sequence[float | None]
) -> list[float]:
    """Return keys, small first; recordings without a value are the last."""
    if page.labelled:
        return [float("inf") if loss is None else -loss for loss in losses]
    if page.kind == "binary":
        return [float("inf") if p is None else abs(p - 0.5) for p in predictions]
    return [float("inf") if p is None else p for p in predictions]
