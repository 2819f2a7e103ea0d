from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.inference import passes
from hearback.reading.inference.passes import (
    Member,
    ModelGroup,
    PlannedBatch,
    memory_for_models,
    plan_batches,
)
from hearback.reading.inference.progress import Progress, estimate
from hearback.reading.models.scorers import build
from hearback.reading.pairs import PairSource
from tests.conftest import CONFIG, TINY
from train_model2ds import RECIPE as JOINED
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS

CPU = torch.device("cpu")


@pytest.fixture
def source(make_source: Callable[[int], PairSource]) -> PairSource:
    return make_source(24)


ROWS = np.arange(24)[::-1]


@pytest.mark.parametrize("recipe", [JOINED, ALIGNED, TOKENS], ids=lambda recipe: recipe.name)
def test_every_clip_is_planned_once_in_a_window_of_its_own_length(
    recipe: object, source: PairSource
) -> None:
    assert isinstance(recipe, type(JOINED))
    planned = plan_batches(source, ROWS, recipe, 3.0)
    source = source.at_speeds(recipe.speed_by_grade)
    assert sorted(place for batch in planned for place in batch.places) == list(range(24))
    step = recipe.window_step_seconds * SAMPLE_RATE
    for batch in planned:
        assert batch.n_samples % step == 0
        for place in batch.places:
            n_samples = source.n_samples(ROWS[place], recipe.pair)
            assert n_samples <= batch.n_samples < n_samples + step


def test_windows_hold_recordings_as_the_recipe_plays_them(source: PairSource) -> None:
    slow = replace(TOKENS, speed_by_grade=(0.5,) * 4)
    windows = {
        place: batch.n_samples
        for batch in plan_batches(source, ROWS, slow, 3.0)
        for place in batch.places
    }
    assert sorted(windows) == list(range(24))
    for place, window in windows.items():
        assert window >= 2 * source.n_samples(ROWS[place], "tokens")


def test_long_windows_come_first_and_in_small_batches(source: PairSource) -> None:
    planned = plan_batches(source, ROWS, JOINED, 3.0)
    windows = [batch.n_samples for batch in planned]
    assert windows == sorted(windows, reverse=True)
    assert len(set(windows)) > 1
    assert all(len(batch.places) * batch.n_samples <= 3.0 * SAMPLE_RATE for batch in planned)
    largest = {batch.n_samples: len(batch.places) for batch in planned}
    assert largest[min(largest)] > largest[max(largest)]
    # A window that is longer than all that a batch may hold is still heard.
    assert all(len(batch.places) == 1 for batch in plan_batches(source, ROWS, JOINED, 0.1))


def test_clips_of_a_text_are_together_and_its_reference_counts_once(source: PairSource) -> None:
    (batch, *rest) = plan_batches(source, ROWS, replace(ALIGNED, window="fixed"), 12 * 16.0)
    assert len(rest) == 1 and len(batch.places) == 12
    texts = [source.texts[ROWS[place]] for place in batch.places]
    assert Counter(texts) == dict.fromkeys(texts, 4)  # whole texts: three of them
    assert batch.n_sounds == 12 + 3
    (alone, *_) = plan_batches(source, ROWS, replace(JOINED, window="fixed"), 12 * 16.0)
    assert alone.n_sounds == 12


def test_a_longer_window_costs_more_than_in_proportion() -> None:
    short, long = (PlannedBatch([0], seconds * SAMPLE_RATE, 1).cost(TINY) for seconds in (2, 16))
    assert long > 8 * short


class Clock:
    """A clock that stands still until it is told."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_the_estimate_comes_once_after_a_minute_and_goes_by_cost(
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


def test_there_is_nothing_to_say_at_the_end_or_where_nothing_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    for description, done in (("ensemble", 10.0), (None, 1.0)):
        with Progress(10, 10.0, description, clock) as progress:
            clock.seconds += 100
            progress.advance(10, done)
            progress.say("") if description is None else None
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "share", "said"),
    [
        (61, 0.5, "after 1 min 1 s: 50 % done, about 61 s to go"),
        (60, 0.1, "after 1 min 0 s: 10 % done, about 9 min to go"),
        (75.4, 0.01, "after 1 min 15 s: 1 % done, about 2.1 h to go"),
    ],
)
def test_times_are_said_in_the_unit_that_fits(seconds: float, share: float, said: str) -> None:
    assert estimate(seconds, share) == said


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_crew_goes_on_without_those_that_are_given_up(
    n_workers: int, source: PairSource, tokenizer: Path
) -> None:
    model_group = ModelGroup(CPU, torch.float32)
    for seed in range(3):
        torch.manual_seed(seed)
        model_group.add(build(JOINED, CONFIG, tokenizer))
    planned = plan_batches(source, ROWS, JOINED, 3.0)
    assert len(planned) > 4
    heard: list[set[int]] = []
    shares: list[float] = []

    def take(places: list[int], values: dict[int, np.ndarray]) -> None:
        assert all(len(of_clips) == len(places) for of_clips in values.values())
        heard.append(set(values))

    def give_up(share: float) -> list[int]:
        shares.append(share)
        return {2: [1], 4: [0, 2]}.get(len(shares), [])

    with Progress(72, 1.0, None) as progress:
        model_group.run(
            source,
            ROWS,
            planned,
            lambda model, batch: model(batch),
            take,
            n_workers=n_workers,
            progress=progress,
            give_up=give_up,
        )
    assert heard == [{0, 1, 2}] * 2 + [{0, 2}] * 2
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] < 1


@pytest.mark.parametrize(("frozen_share", "n_shareable"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_only_stages_that_were_not_trained_are_looked_for_among_others(
    frozen_share: float, n_shareable: int, tmp_path: Path
) -> None:
    recipe = replace(JOINED, frozen_share=frozen_share)
    fold_metadata = {"recipe": recipe.as_dict(), "shape": TINY.as_config(), "tokenizer": None}
    assert Member(0, FoldFiles(tmp_path, "model2ds", 0), fold_metadata).n_shareable == n_shareable


def test_models_may_take_what_they_are_told_to() -> None:
    assert memory_for_models(CPU, 1.5) == 1.5e9
    with pytest.raises(HearbackError, match="--memory_gb 0"):
        memory_for_models(CPU, 0)


def test_models_may_take_half_of_what_is_free_in_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(passes, "_CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert memory_for_models(CPU, None) == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_for_models(CPU, None) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_for_models(CPU, None) == 500_000
