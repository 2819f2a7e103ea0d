"""Batches of one window length for inference."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.reading.inference.batch_plan import PlannedBatch, plan_batches
from hearback.reading.pairs import PairSource
from tests.conftest import TINY
from train_model2ds import RECIPE as JOINED
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS


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
    source = source.with_speeds(recipe.speed_by_grade)
    assert sorted(index for batch in planned for index in batch.indices) == list(range(24))
    step = recipe.window_step_seconds * SAMPLE_RATE
    for batch in planned:
        assert batch.n_samples % step == 0
        for index in batch.indices:
            n_samples = source.n_samples(ROWS[index], recipe.pair)
            assert n_samples <= batch.n_samples < n_samples + step


def test_windows_fit_recordings_at_the_recipe_s_speed(source: PairSource) -> None:
    slow = replace(TOKENS, speed_by_grade=(0.5,) * 4)
    windows = {
        index: batch.n_samples
        for batch in plan_batches(source, ROWS, slow, 3.0)
        for index in batch.indices
    }
    assert sorted(windows) == list(range(24))
    for index, window in windows.items():
        assert window >= 2 * source.n_samples(ROWS[index], "tokens")


def test_long_windows_come_first_and_in_small_batches(source: PairSource) -> None:
    planned = plan_batches(source, ROWS, JOINED, 3.0)
    windows = [batch.n_samples for batch in planned]
    assert windows == sorted(windows, reverse=True)
    assert len(set(windows)) > 1
    assert all(len(batch.indices) * batch.n_samples <= 3.0 * SAMPLE_RATE for batch in planned)
    largest = {batch.n_samples: len(batch.indices) for batch in planned}
    assert largest[min(largest)] > largest[max(largest)]
    # A window longer than a whole batch may be is still scored.
    assert all(len(batch.indices) == 1 for batch in plan_batches(source, ROWS, JOINED, 0.1))


def test_clips_of_one_text_are_adjacent_and_its_reference_counts_once(source: PairSource) -> None:
    (batch, *rest) = plan_batches(source, ROWS, replace(ALIGNED, window="fixed"), 12 * 16.0)
    assert len(rest) == 1 and len(batch.indices) == 12
    texts = [source.texts[ROWS[index]] for index in batch.indices]
    assert Counter(texts) == dict.fromkeys(texts, 4)  # whole texts: three of them
    assert batch.n_windows == 12 + 3
    (alone, *_) = plan_batches(source, ROWS, replace(JOINED, window="fixed"), 12 * 16.0)
    assert alone.n_windows == 12


def test_a_longer_window_costs_more_than_in_proportion() -> None:
    short, long = (PlannedBatch([0], seconds * SAMPLE_RATE, 1).cost(TINY) for seconds in (2, 16))
    assert long > 8 * short
