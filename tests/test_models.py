from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

from hearback.models import Scorer
from hearback.pairs import Batch, Pair, collate, window_samples
from hearback.recipe import Recipe
from train_model1m import RECIPE as MEAN
from train_model3mapd import RECIPE as ATTENTION
from train_model3mcp import RECIPE as BOTH


def make_pair(n_samples: int, row: int = 0) -> Pair:
    waveform = np.random.default_rng(row).normal(0, 0.1, n_samples).astype(np.float32)
    return Pair(waveform, np.array([0.25, 0.5], dtype=np.float32), row)


def make_batch(*pairs: Pair) -> Batch:
    return collate(list(pairs), window_samples(len(pairs[0].waveform), "trimmed", 0.64))


@pytest.mark.parametrize("recipe", [MEAN, ATTENTION, BOTH], ids=lambda recipe: recipe.name)
def test_a_clips_score_does_not_depend_on_its_batch_mates(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = Scorer(recipe, TINY).eval()
    pairs = [make_pair(n, row) for row, n in enumerate((9000, 10_240, 7000, 10_000))]
    with torch.no_grad():
        together = model(make_batch(*pairs)).sigmoid()
        alone = torch.cat([model(make_batch(pair)).sigmoid() for pair in pairs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_logits_are_float32_under_autocast() -> None:
    model = Scorer(BOTH, TINY).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(make_batch(make_pair(8000))).dtype == torch.float32


def test_task_and_grade_reach_the_score() -> None:
    torch.manual_seed(0)
    model = Scorer(ATTENTION, TINY).eval()
    pair = make_pair(8000)
    other = replace(pair, context=np.array([0.75, 0.0], dtype=np.float32))
    with torch.no_grad():
        assert model(make_batch(pair)) != model(make_batch(other))


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = Scorer(ATTENTION, TINY)
    batch = make_batch(make_pair(8000))
    assert model.train()(batch) != model(batch)
    assert model.eval()(batch) == model(batch)
