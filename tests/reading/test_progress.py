"""The estimate of the time left."""

import pytest

from hearback.reading.inference.progress import Progress, estimate


class Clock:
    """A clock that advances only when a test sets it."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_the_estimate_is_printed_once_after_a_minute_and_is_based_on_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with Progress(1000, 200.0, "ensemble", clock) as progress:
        clock.seconds += 50
        progress.advance(1, 20.0)  # one clip of a long window: a tenth of the work
        assert "to go" not in capsys.readouterr().out
        clock.seconds += 10
        progress.advance(1, 4.0)
        assert "after 1 min 0 s: 12 % done, about 7 min to go" in capsys.readouterr().out
        clock.seconds += 60
        progress.advance(1, 20.0)
    assert "to go" not in capsys.readouterr().out


def test_nothing_is_printed_at_the_end_or_without_a_description(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    for description, done in (("ensemble", 10.0), (None, 1.0)):
        with Progress(10, 10.0, description, clock) as progress:
            clock.seconds += 100
            progress.advance(10, done)
            progress.write("") if description is None else None
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "share", "expected"),
    [
        (61, 0.5, "after 1 min 1 s: 50 % done, about 61 s to go"),
        (60, 0.1, "after 1 min 0 s: 10 % done, about 9 min to go"),
        (75.4, 0.01, "after 1 min 15 s: 1 % done, about 2.1 h to go"),
    ],
)
def test_estimates_have_a_suitable_unit(seconds: float, share: float, expected: str) -> None:
    assert estimate(seconds, share) == expected
