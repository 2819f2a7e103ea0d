"""benchmarks/kept_memory.py: two sides that do the same, each in a process of its own."""

import pytest

from benchmarks import kept_memory

NAMES = ["score, windows of 0.3 s", "train, windows of 0.3 s"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_memory, "TINY", kept_memory.EncoderShape(16, 1, 2, 32, 80))


def test_a_turn_tells_rates_and_memory() -> None:
    turns = kept_memory.turns([16], seconds=0.0, clock="wall")
    assert list(turns) == NAMES
    assert all(rate > 0 and n_gigabytes > 0 for rate, n_gigabytes in turns.values())


def test_the_table_pairs_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"kept": iter([10.0, 20.0, 30.0]), "given back": iter([5.0, 20.0, 10.0])}
    order = []

    def take(side: str, *settings: object) -> dict[str, list[float]]:
        order.append(side)
        return {"train": [next(rates[side]), 0.5 if side == "kept" else 0.25]}

    monkeypatch.setattr(kept_memory, "take_turns_apart", take)
    frame = kept_memory.table([16], 0.0, 3, "wall")
    assert order == ["kept", "given back", "given back", "kept", "kept", "given back"]
    row = frame.loc["train"]
    assert (row["kept"], row["given back"]) == (20, 10)
    assert (row["ratio"], row["low"], row["high"]) == (2, 1, 3)
    assert (row["kept: GB"], row["given back: GB"]) == (0.5, 0.25)


@pytest.mark.slow
def test_the_sides_run_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # it would leave memory as it is
    for side in kept_memory.SIDES:
        turns = kept_memory.take_turns_apart(side, [16], 0.0, "wall")
        assert list(turns) == NAMES
