"""What a page says first, in three sentences: how good, for whom not, and what to do."""

from collections.abc import Sequence

import numpy as np

from hearback.engine.data.problems import count_noun
from hearback.engine.evaluation.metrics import entropy
from hearback.engine.page.content import ModelResult
from hearback.engine.page.results import THRESHOLD
from hearback.engine.page.tables import N_ENOUGH
from hearback.engine.page.wording import describe_model, show
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.scoring.status import UNSURE, UNSURE_ABOVE, UNSURE_BELOW

_NAMED_BY = ("grade", "task")  # columns whose groups it names


def of_models(
    first: ModelResult, labels: np.ndarray, probabilities: np.ndarray, base_rate_loss: float
) -> list[str]:
    """Return the verdict on trained models, three sentences.

    Args:
        first: the ensemble, or the best model.
        labels: (rows,) of the recordings that it predicted.
        probabilities: (rows,), its predictions.
        base_rate_loss: log loss of the base rate, in nats.
    """
    wrong = (probabilities >= THRESHOLD) != (labels > 0.5)
    good = (
        f"{describe_model(first)} has a log loss of {show(first.log_loss)} on "
        f"{count_noun(first.n, 'recording')} (always predicting the base rate: "
        f"{base_rate_loss:.3f}), and is on the wrong side of 0.5 for {wrong.mean():.1%} of them."
    )
    return [good, _for_whom_not(first), _what_to_do(probabilities, wrong)]


def _what_to_do(probabilities: np.ndarray, wrong: np.ndarray) -> str:
    """Return a sentence about the recordings that a person should check."""
    unsure = (probabilities > UNSURE_ABOVE) & (probabilities < UNSURE_BELOW)
    between = f"between {UNSURE_ABOVE} and {UNSURE_BELOW}"
    if not unsure.any():
        return f"No recording scores {between}: listen to those with the largest loss."
    if unsure.all():
        return f"All recordings score {between}: these models cannot decide anything."
    return (
        f"Let a person check the {unsure.mean():.0%} of the recordings that score {between}: of "
        f"the others, {wrong[~unsure].mean():.1%} are wrong, not {wrong.mean():.1%}."
    )


def _for_whom_not(first: ModelResult) -> str:
    """Return a sentence about the grades and tasks that are clearly worse than all recordings.

    In log loss, false alarms or misses: the whole interval is above the value of all.
    """
    overall = {
        "log loss": first.log_loss.value,
        "false alarms": first.metrics["false alarms"].value,
        "misses": first.metrics["misses"].value,
    }
    worse, few = [], []
    for group in first.groups:
        if group.by not in _NAMED_BY:
            continue
        if group.n < N_ENOUGH:
            few.append(f"{group.by} {group.value}")
            continue
        found = {
            "log loss": group.log_loss,
            "false alarms": group.false_alarms,
            "misses": group.misses,
        }
        for what, estimate in found.items():
            whole = overall[what]
            if whole is not None and estimate.low is not None and estimate.low > whole:
                digits = 3 if what == "log loss" else 2
                worse.append(
                    f"{group.by} {group.value} ({what} {show(estimate, digits)}, of all "
                    f"{whole:.{digits}f})"
                )
    unknown = f" Too few recordings to tell: {', '.join(few)}." if few else ""
    if worse:
        return f"It is clearly worse for {', '.join(worse)}.{unknown}"
    return f"No grade or task is clearly worse than all recordings.{unknown}"


def of_new_recordings(
    probabilities: Sequence[float | None],
    statuses: Sequence[str],
    scorer: str,
    known_limits: str,
) -> list[str]:
    """Return the verdict on recordings without labels, three sentences.

    Args:
        probabilities: None for recordings without a score.
        statuses: of the recordings; a low score of a passage is unsure, too.
        scorer: what scored them.
        known_limits: a sentence on how good it was where labels were known.
    """
    has_score = np.array([value is not None for value in probabilities], bool)
    known = np.array([value for value in probabilities if value is not None])
    is_marked = (np.array(statuses) == UNSURE)[has_score]
    unsure = (known < UNSURE_BELOW) & ((known > UNSURE_ABOVE) | is_marked)
    n, n_unsure, n_without = len(probabilities), int(unsure.sum()), len(probabilities) - len(known)
    counts = [
        (int((known >= UNSURE_BELOW).sum()), "probably says the text", "probably say the text"),
        (int(((known <= UNSURE_ABOVE) & ~unsure).sum()), "probably does not", "probably do not"),
        (n_unsure, "is unsure", "are unsure"),
        (n_without, "has no score", "have no score"),
    ]
    listed = ", ".join(
        f"{'it' if n == 1 else each} {one if each == 1 else several}"
        for each, one, several in counts
        if each
    )
    good = f"{count_noun(n, 'recording')}, scored by {scorer}: {listed}."
    return [good, known_limits, _what_to_listen_to(n, n_unsure, n_without)]


def _what_to_listen_to(n: int, n_unsure: int, n_without: int) -> str:
    """Return a sentence on which of `n` recordings a person should hear first.

    `n_unsure` of them are unsure, and `n_without` have no score.
    """
    if n == 1:
        return "Listen to it."
    n_check = n_unsure + n_without
    if not n_check:
        return "Listen to the recordings nearest to 0.5 first."
    one = n_check == 1
    reasons = [
        *(["is unsure" if one else "are unsure"] if n_unsure else []),
        *(["has no score" if one else "have no score"] if n_without else []),
    ]
    which = f"the {'one' if one else n_check} that {' or '.join(reasons)}"
    others = "" if n_check == n else ", then to those nearest to 0.5"
    return f"Listen to {which}{others}."


def describe_limits(config: EnsembleConfig | None) -> str:
    """Return a sentence on how good an ensemble was on recordings with labels."""
    loss = None if config is None else config.log_losses.get("cross_fitted")
    if config is None or loss is None:
        return (
            "There are no labels here, and no ensemble to tell how good its scores were elsewhere: "
            "check some by ear."
        )
    rate = config.base_rates["all"]
    base = entropy([rate, 1 - rate])
    return (
        f"There are no labels here: on the {config.n_rows} recordings that it learned from, out of "
        f"fold, its log loss was {loss:.3f} (base rate: {base:.3f}), and recordings unlike these "
        "may score worse."
    )
