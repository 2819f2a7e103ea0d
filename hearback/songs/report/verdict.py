"""What a page says first, in three sentences: how good, for what not, and what to do."""

from collections.abc import Sequence

import numpy as np

from hearback.engine.data.problems import count_noun
from hearback.engine.evaluation.metrics import entropy
from hearback.engine.page.content import ModelResult
from hearback.engine.page.tables import N_ENOUGH
from hearback.engine.page.wording import describe_model, show, show_share
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.tables import CLASSES

CLASS = "class"  # the column whose groups a verdict compares
OK, UNSURE = "ok", "unsure"
UNSURE_BELOW = 0.5  # no class is as likely as all others together


def status_of(probability: float) -> str:
    """Return the status of a snippet whose predicted class has this probability."""
    return UNSURE if probability < UNSURE_BELOW else OK


def of_models(
    first: ModelResult, labels: np.ndarray, probabilities: np.ndarray, base_rate_loss: float
) -> list[str]:
    """Return the verdict on trained models, three sentences.

    Args:
        first: the ensemble, or the best model.
        labels: (rows,) of the snippets that it predicted.
        probabilities: (rows, classes), its predictions.
        base_rate_loss: log loss of the base rates, in nats.
    """
    good = (
        f"{describe_model(first)} has an accuracy of {show(first.metrics['accuracy'])} and a log "
        f"loss of {show(first.log_loss)} on {count_noun(first.n, 'snippet')} (always predicting "
        f"the base rates: {base_rate_loss:.3f})."
    )
    confusion = np.array(first.confusion)
    worst = _worst_class(first)
    mistakes = None if worst is None else _most_frequent_mistake(confusion, worst)
    return [
        good,
        _for_what_not(first, confusion, worst, mistakes),
        _to_do(labels, probabilities, worst, mistakes),
    ]


def _worst_class(first: ModelResult) -> int | None:
    """Return the class of which the largest share is wrong; None if there are too few of all."""
    shares = {
        CLASSES.index(group.value): group.errors.value or 0.0
        for group in first.groups
        if group.by == CLASS and group.n >= N_ENOUGH
    }
    return max(shares, key=shares.__getitem__) if shares else None


def _most_frequent_mistake(confusion: np.ndarray, label: int) -> int | None:
    """Return the class that a class is taken for most often; None if it never is."""
    wrong = confusion[label].copy()
    wrong[label] = 0
    return int(wrong.argmax()) if wrong.any() else None


def _for_what_not(
    first: ModelResult, confusion: np.ndarray, worst: int | None, mistaken: int | None
) -> str:
    by_class = {group.value: group for group in first.groups if group.by == CLASS}
    few = [_quoted(name) for name, group in by_class.items() if group.n < N_ENOUGH]
    unknown = f" Too few snippets to tell: {', '.join(few)}." if few else ""
    if worst is None:
        return unknown.strip()
    if mistaken is None:
        return f"No snippet of the other classes is wrong.{unknown}" if few else "None is wrong."
    return (
        f"The worst class is {_quoted(CLASSES[worst])}: "
        f"{show_share(by_class[CLASSES[worst]].errors)} are wrong, and "
        f"{confusion[worst, mistaken]} of its "
        f"{count_noun(int(confusion[worst].sum()), 'snippet')} are taken for "
        f"{_quoted(CLASSES[mistaken])}, {_how_frequent(confusion, worst, mistaken)}.{unknown}"
    )


def _how_frequent(confusion: np.ndarray, label: int, mistaken: int) -> str:
    """Return whether a mistake is the most frequent one of its class, or one of them."""
    count = confusion[label, mistaken]
    others = [
        _quoted(CLASSES[each])
        for each in range(len(CLASSES))
        if each not in (label, mistaken) and confusion[label, each] == count
    ]
    return f"as many as for {' and for '.join(others)}" if others else "the most frequent mistake"


def _to_do(
    labels: np.ndarray, probabilities: np.ndarray, worst: int | None, mistaken: int | None
) -> str:
    wrong = probabilities.argmax(axis=1) != labels
    unsure = probabilities.max(axis=1) < UNSURE_BELOW
    if not wrong.any():
        return "Listen to the least sure snippets."
    first = ""
    if worst is not None and mistaken is not None:
        first = (
            f", first to those of {_quoted(CLASSES[worst])} that are taken for "
            f"{_quoted(CLASSES[mistaken])}"
        )
    listen = f"Listen to the mistakes{first}"
    if unsure.all() or wrong[~unsure].mean() > wrong.mean() - 0.0005:  # a check would not help
        return f"{listen}."
    return (
        f"{listen}; and let a person check the {unsure.mean():.0%} of the snippets of which no "
        f"class has a probability of at least {UNSURE_BELOW}: of the others, "
        f"{wrong[~unsure].mean():.1%} are wrong, not {wrong.mean():.1%}."
    )


def of_new_snippets(
    predicted: Sequence[int | None], probabilities: Sequence[float | None], known_limits: str
) -> list[str]:
    """Return the verdict on snippets without labels, three sentences.

    Args:
        predicted: classes; None for snippets without a prediction.
        probabilities: of these classes.
        known_limits: a sentence on how good the ensemble was where labels were known.
    """
    counts = [(predicted.count(label), name) for label, name in enumerate(CLASSES)]
    listed = [f"{n} {name}" for n, name in counts if n]
    n_unscored = predicted.count(None)
    if n_unscored:
        listed.append(f"{n_unscored} without a prediction")
    good = f"{count_noun(len(predicted), 'snippet')}: {', '.join(listed)}."
    n_unsure = sum(value is not None and value < UNSURE_BELOW for value in probabilities)
    reasons = [
        f"{count_noun(n_unsure, 'snippet')} of which no class has a probability of at least "
        f"{UNSURE_BELOW}"
        if n_unsure
        else "",
        f"{n_unscored} without a prediction" if n_unscored else "",
    ]
    to_do = " and the ".join(filter(None, reasons))
    if to_do:
        return [good, known_limits, f"Listen to the {to_do}, then to the least sure ones."]
    return [good, known_limits, "Listen to the least sure ones first."]


def describe_limits(config: SongEnsemble) -> str:
    """Return a sentence on how good an ensemble was on snippets with labels."""
    accuracy = config.accuracies.get("cross_fitted")
    loss = config.log_losses.get("cross_fitted")
    if accuracy is None or loss is None:
        return (
            "There are no labels here, and the ensemble does not state how good it was elsewhere: "
            "check some by ear."
        )
    base = entropy(config.class_shares)
    return (
        f"There are no labels here: on the {config.n_rows} snippets that it learned from, out of "
        f"fold, the accuracy of the ensemble was {accuracy:.3f} and its log loss {loss:.3f} "
        f"(the class shares: {base:.3f}), and snippets unlike these may score worse."
    )


def _quoted(name: str) -> str:
    return f"“{name}”"
