"""How many recordings there are of each kind, for a page."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hearback.engine.page.content import Distribution

MAX_VALUES = 12  # of a column that is shown by value


def in_order(values: Iterable[str], known: Sequence[str]) -> list[str]:
    """Return values without repeats: the `known` ones in their order, then the others, sorted."""
    there = set(values)
    return [*(each for each in known if each in there), *sorted(there - set(known))]


def value_distributions(
    fields: Mapping[str, Sequence[str]], order: Mapping[str, Sequence[str]] | None = None
) -> list[Distribution]:
    """Return how often each value of each column is there; columns of too many are left out.

    `order` are the values of some columns in their order; others are sorted.
    """
    found = []
    for name, values in fields.items():
        counts = Counter(value or "unknown" for value in values)
        if not 1 < len(counts) <= MAX_VALUES:
            continue
        names = in_order(counts, (order or {}).get(name, ()))
        found.append(Distribution(name, names, [counts[each] for each in names]))
    return found


def length_distribution(seconds: Sequence[float | None]) -> list[Distribution]:
    """Return how long the recordings are, in steps of whole seconds; [] if unknown."""
    known = [value for value in seconds if value is not None]
    if not known:
        return []
    step = max(1, math.ceil(max(known) / MAX_VALUES))
    counts = Counter(int(value // step) for value in known)
    bins = range(min(counts), max(counts) + 1)
    names = [f"{number * step}–{(number + 1) * step}" for number in bins]
    return [Distribution("length", names, [counts[number] for number in bins], "s")]


def count_distribution(title: str, values: Sequence[str]) -> list[Distribution]:
    """Return how many recordings each value has, as a histogram without the values' names.

    For speakers; [] if there are fewer than two.
    """
    of_each = Counter(Counter(value for value in values if value).values())
    if sum(of_each.values()) < 2:
        return []
    step = max(1, math.ceil(max(of_each) / MAX_VALUES))
    counts: Counter[int] = Counter()
    for n, how_many in of_each.items():
        counts[(n - 1) // step] += how_many
    bins = range(min(counts), max(counts) + 1)
    names = [
        str(number + 1) if step == 1 else f"{number * step + 1}–{(number + 1) * step}"
        for number in bins
    ]
    return [Distribution(title, names, [counts[number] for number in bins])]
