"""How many recordings there are of each kind, as a page shows it."""

import pytest

from hearback.engine.page.distributions import (
    count_distribution,
    in_order,
    length_distribution,
    value_distributions,
)


def test_known_values_come_first_in_their_order() -> None:
    assert in_order(["2", "KG", "x", "1", "KG"], ["KG", "1", "2", "3"]) == ["KG", "1", "2", "x"]


def test_values_are_counted_and_empty_ones_are_unknown() -> None:
    fields = {"grade": ["2", "KG", "", "2"], "task": ["a"] * 4, "name": list("abcd") * 4}
    fields["name"] = [str(number) for number in range(13)]
    (found,) = value_distributions(fields, {"grade": ("KG", "2")})
    assert (found.title, found.unit) == ("grade", "")
    assert list(zip(found.values, found.counts, strict=True)) == [
        ("KG", 1),
        ("2", 2),
        ("unknown", 1),
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([0.2, 1.0, 1.9, 3.5, None], {"0–1": 1, "1–2": 2, "2–3": 0, "3–4": 1}),
        ([1.0, 2.0, 29.0], {"0–3": 2, "3–6": 0, "27–30": 1}),  # in steps of 3 s
    ],
)
def test_lengths_are_in_steps_of_whole_seconds(
    seconds: list[float | None], expected: dict[str, int]
) -> None:
    (found,) = length_distribution(seconds)
    counts = dict(zip(found.values, found.counts, strict=True))
    assert expected.items() <= counts.items()
    assert sum(counts.values()) == sum(expected.values())
    assert found.unit == "s" and len(counts) <= 12


def test_people_are_counted_by_their_number_of_recordings() -> None:
    (found,) = count_distribution("recordings of a speaker", ["a", "a", "a", "b", "c", "", ""])
    assert dict(zip(found.values, found.counts, strict=True)) == {"1": 2, "2": 0, "3": 1}
    (found,) = count_distribution("recordings of a speaker", ["a"] * 30 + ["b"] * 4)
    assert dict(zip(found.values, found.counts, strict=True))["28–30"] == 1


def test_what_is_unknown_or_the_same_for_all_is_not_shown() -> None:
    assert length_distribution([None, None]) == []
    assert count_distribution("recordings of a speaker", ["a", "a", ""]) == []
    assert value_distributions({"grade": ["1", "1"], "task": []}) == []
