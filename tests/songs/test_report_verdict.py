"""The first sentences of the songs' page, from counts that are known."""

import numpy as np

from hearback.engine.page.content import Estimate, GroupResult, ModelResult
from hearback.songs.report import verdict
from hearback.songs.tables import CLASSES


def result(confusion: list[list[int]]) -> ModelResult:
    """Return a model with these counts."""
    counts = np.array(confusion)
    groups = [
        GroupResult(
            "class", name, int(row.sum()), Estimate(0.5), errors=Estimate(1 - row[at] / row.sum())
        )
        for at, (name, row) in enumerate(zip(CLASSES, counts, strict=True))
    ]
    accuracy = Estimate(np.trace(counts) / counts.sum())
    return ModelResult(
        "cnn4",
        n=int(counts.sum()),
        log_loss=Estimate(0.5),
        metrics={"accuracy": accuracy},
        groups=groups,
        confusion=confusion,
    )


def sentences(confusion: list[list[int]], likely: float = 0.9) -> list[str]:
    counts = np.array(confusion)
    pairs = [(a, b) for a in range(4) for b in range(4) for _ in range(counts[a, b])]
    labels, says = np.array(pairs).T
    probabilities = np.full((len(pairs), 4), (1 - likely) / 3)
    probabilities[np.arange(len(pairs)), says] = likely
    return verdict.of_models(result(confusion), labels, probabilities, 1.3)


def test_a_class_of_few_snippets_is_not_called_the_worst() -> None:
    confusion = [[40, 0, 0, 0], [0, 38, 2, 0], [0, 10, 30, 0], [5, 4, 0, 0]]
    _, for_what_not, to_do = sentences(confusion)
    assert for_what_not == (
        "The worst class is “female”: 25 % are wrong, and 10 of its 40 snippets are taken for "
        "“male”, the most frequent mistake. Too few snippets to tell: “several”."
    )
    assert to_do == "Listen to the mistakes, first to those of “female” that are taken for “male”."


def test_mistakes_that_are_as_frequent_are_both_named() -> None:
    confusion = [[40, 0, 0, 0], [20, 20, 20, 0], [0, 2, 38, 0], [0, 0, 0, 40]]
    assert sentences(confusion)[1] == (
        "The worst class is “male”: 67 % are wrong, and 20 of its 60 snippets are taken for “no "
        "voice”, as many as for “female”."
    )


def test_a_check_is_named_only_where_it_helps() -> None:
    confusion = [[40, 0, 0, 0], [0, 38, 2, 0], [0, 10, 30, 0], [0, 0, 0, 40]]
    assert "person" not in sentences(confusion, likely=0.9)[2]  # all are sure
    counts = np.array(confusion)
    pairs = [(a, b) for a in range(4) for b in range(4) for _ in range(counts[a, b])]
    labels, says = np.array(pairs).T
    unsure = labels == says  # only right ones
    unsure[np.flatnonzero(unsure)[2:]] = False
    probabilities = np.full((len(pairs), 4), 0.1 / 3)
    probabilities[np.arange(len(pairs)), says] = 0.9
    probabilities[unsure] = 0.3 - 1e-3 * np.arange(4)
    to_do = verdict.of_models(result(confusion), labels, probabilities, 1.3)[2]
    assert "person" not in to_do


def test_verdicts_without_mistakes_or_enough_snippets() -> None:
    right = np.diag([40, 40, 40, 40]).tolist()
    assert sentences(right)[1:] == ["None is wrong.", "Listen to the least sure snippets."]
    few = np.diag([40, 40, 40, 4]).tolist()
    assert sentences(few)[1] == (
        "No snippet of the other classes is wrong. Too few snippets to tell: “several”."
    )
    all_few = np.diag([4, 4, 4, 4]).tolist()
    expected = ", ".join(f"“{name}”" for name in CLASSES)
    assert sentences(all_few)[1] == f"Too few snippets to tell: {expected}."
