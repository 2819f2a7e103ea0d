"""What a page tells of models whose recordings have labels: losses, groups, bins, confusions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from hearback.engine.evaluation.bootstrap import bootstrap_auc_interval
from hearback.engine.evaluation.metrics import area_under_curve
from hearback.engine.page.content import NO_ESTIMATE, Bin, Estimate, GroupResult, ModelResult
from hearback.engine.page.distributions import in_order
from hearback.engine.page.estimates import MeanTable

ENSEMBLE = "ensemble"
THRESHOLD = 0.5
N_BINS = 10  # of equal width
ALL = "all"
_EDGES = np.linspace(0, 1, N_BINS + 1).round(10)


@dataclass(frozen=True)
class Labelled:
    """Recordings with labels, and by what columns results are shown.

    Attributes:
        labels: (rows,) int.
        clusters: (rows,), what intervals resample: speakers, or filenames.
        by: columns of text by name, (rows,) each; "" where unknown.
        bins_by: the name of the column that reliability is shown by, if it is there.
        order: values of columns in the order to show them in; others are sorted.
        causes_by: the name of the column that says why a label is 0, if it is there.
    """

    labels: np.ndarray
    clusters: np.ndarray
    by: Mapping[str, np.ndarray]
    bins_by: str = ""
    order: Mapping[str, Sequence[str]] = field(default_factory=dict)
    causes_by: str = ""

    @cached_property
    def groups(self) -> list[tuple[str, str, np.ndarray]]:
        """Column, value, and rows, (rows,) bool, of every group."""
        return [
            (column, value, values == value)
            for column, values in self.by.items()
            for value in in_order(set(values.tolist()) - {""}, self.order.get(column, ()))
        ]


@dataclass(frozen=True)
class Predicted:
    """The predictions of one model.

    Attributes:
        losses: log losses in nats, (rows,); NaN for rows that it did not predict.
        probabilities: of label 1, (rows,); for classes, of every class, (rows, classes).
        weight: in the ensemble.
    """

    losses: np.ndarray
    probabilities: np.ndarray
    weight: float | None = None

    @cached_property
    def known(self) -> np.ndarray:
        """The mask of the rows that it predicted, (rows,) bool."""
        return ~np.isnan(self.losses)


def binary_results(rows: Labelled, models: Mapping[str, Predicted]) -> list[ModelResult]:
    """Return the results of models that predict the probability of label 1, in their order."""
    table = MeanTable(rows.clusters)
    for name, model in models.items():
        _add_losses(table, rows, name, model)
        said = model.probabilities >= THRESHOLD
        for kind, wrong, label in (("false alarms", ~said, 1), ("misses", said, 0)):
            of_label = model.known & (rows.labels == label)
            table.add((name, ALL, kind), wrong, of_label)
            for column, value, members in rows.groups:
                table.add((name, column, value, kind), wrong, of_label & members)
        for group, members in _bin_groups(rows).items():
            for number, inside in enumerate(_bins(model.probabilities)):
                table.add((name, group, number), rows.labels, inside & members & model.known)
    found = table.estimate(np.random.default_rng(0))
    return [
        replace(
            _result(rows, name, model, found),
            metrics={
                "AUC": _area(rows, model, np.full(len(rows.labels), True)),
                "false alarms": found[name, ALL, "false alarms"],
                "misses": found[name, ALL, "misses"],
            },
            reliability=_reliability(rows, name, model, found),
        )
        for name, model in models.items()
    ]


def class_results(rows: Labelled, models: Mapping[str, Predicted]) -> list[ModelResult]:
    """Return the results of models that predict probabilities of classes, in their order."""
    table = MeanTable(rows.clusters)
    for name, model in models.items():
        _add_losses(table, rows, name, model)
        wrong = _is_wrong(rows, model)
        table.add((name, ALL, "accuracy"), ~wrong, model.known)
        for column, value, members in rows.groups:
            table.add((name, column, value, "errors"), wrong, model.known & members)
    found = table.estimate(np.random.default_rng(0))
    return [
        replace(
            _result(rows, name, model, found),
            metrics={"accuracy": found[name, ALL, "accuracy"]},
            confusion=_confusion(rows, model),
        )
        for name, model in models.items()
    ]


def _add_losses(table: MeanTable, rows: Labelled, name: str, model: Predicted) -> None:
    table.add((name, ALL), model.losses, model.known)
    for column, value, members in rows.groups:
        table.add((name, column, value), model.losses, model.known & members)


def _result(
    rows: Labelled, name: str, model: Predicted, found: Mapping[object, Estimate]
) -> ModelResult:
    """Return what binary models and those of classes have in common."""
    return ModelResult(
        name,
        is_ensemble=name == ENSEMBLE,
        weight=model.weight,
        n=int(np.count_nonzero(model.known)),
        log_loss=found[name, ALL],
        groups=_groups(rows, name, model, found),
    )


def _groups(
    rows: Labelled, name: str, model: Predicted, found: Mapping[object, Estimate]
) -> list[GroupResult]:
    groups = [
        GroupResult(
            column,
            value,
            n=int(np.count_nonzero(members & model.known)),
            log_loss=found[name, column, value],
            false_alarms=found.get((name, column, value, "false alarms"), NO_ESTIMATE),
            misses=found.get((name, column, value, "misses"), NO_ESTIMATE),
            errors=found.get((name, column, value, "errors"), NO_ESTIMATE),
            auc=(
                _area(rows, model, (rows.labels == 1) | members)
                if column == rows.causes_by
                else NO_ESTIMATE
            ),
        )
        for column, value, members in rows.groups
        if (members & model.known).any()
    ]
    if rows.causes_by in rows.by:
        groups.append(
            GroupResult(
                rows.causes_by,
                ALL,
                n=int(np.count_nonzero(model.known)),
                log_loss=found[name, ALL],
                false_alarms=found[name, ALL, "false alarms"],
                misses=found[name, ALL, "misses"],
                auc=_area(rows, model, np.full(len(rows.labels), True)),
            )
        )
    return groups


def _reliability(
    rows: Labelled, name: str, model: Predicted, found: Mapping[object, Estimate]
) -> dict[str, Sequence[Bin]]:
    by_group: dict[str, Sequence[Bin]] = {}
    for group, members in _bin_groups(rows).items():
        bins = []
        for number, inside in enumerate(_bins(model.probabilities)):
            chosen = inside & members & model.known
            mean = float(model.probabilities[chosen].mean()) if chosen.any() else None
            low, high = _EDGES[number : number + 2].tolist()
            n, share = int(chosen.sum()), found[name, group, number]
            bins.append(Bin(low, high, n, mean, share))
        by_group[group] = bins
    return by_group


def _bin_groups(rows: Labelled) -> dict[str, np.ndarray]:
    """Return all rows and those of each value of `bins_by`, (rows,) bool each."""
    groups = {ALL: np.full(len(rows.labels), True)}
    for column, value, members in rows.groups:
        if column == rows.bins_by:
            groups[value] = members
    return groups


def _bins(probabilities: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each bin, (rows,) bool; the last bin has those at 1, too."""
    lows, highs = _EDGES[:-1], [*_EDGES[1:-1], np.inf]
    return [
        (probabilities >= low) & (probabilities < high)
        for low, high in zip(lows, highs, strict=True)
    ]


def _area(rows: Labelled, model: Predicted, chosen: np.ndarray) -> Estimate:
    """Return the AUC of the rows `chosen`, (rows,) bool, as far as they are predicted."""
    known = model.known & chosen
    labels, predictions = rows.labels[known], model.probabilities[known]
    area = area_under_curve(labels, predictions)
    if np.isnan(area):
        return NO_ESTIMATE
    rng = np.random.default_rng(0)
    low, high = bootstrap_auc_interval(labels, predictions, rows.clusters[known], rng)
    return Estimate(area, *(None if np.isnan(edge) else edge for edge in (low, high)))


def _is_wrong(rows: Labelled, model: Predicted) -> np.ndarray:
    return model.probabilities.argmax(axis=1) != rows.labels


def _confusion(rows: Labelled, model: Predicted) -> list[list[int]]:
    known = model.known
    n_classes = model.probabilities.shape[1]
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (rows.labels[known], model.probabilities.argmax(axis=1)[known]), 1)
    return counts.tolist()
