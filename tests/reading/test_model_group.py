"""Models that run side by side, and their memory budget."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hearback.engine import machine
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.inference.batch_plan import plan_batches
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.memory import memory_for_models
from hearback.reading.inference.model_group import ModelGroup
from hearback.reading.models.scorers import build
from hearback.reading.pairs import PairSource
from tests.conftest import CONFIG, TINY
from train_model2ds import RECIPE as JOINED

CPU = torch.device("cpu")
ROWS = np.arange(24)[::-1]


@pytest.fixture
def source(make_source: Callable[[int], PairSource]) -> PairSource:
    return make_source(24)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_group_continues_without_dropped_models(
    n_workers: int, source: PairSource, tokenizer: Path
) -> None:
    group = ModelGroup(CPU, torch.float32)
    for seed in range(3):
        torch.manual_seed(seed)
        group.add(build(JOINED, CONFIG, tokenizer))
    planned = plan_batches(source, ROWS, JOINED, 3.0)
    assert len(planned) > 4
    scored: list[set[int]] = []
    shares: list[float] = []
    drops = {2: [1], 4: [0, 2]}  # after so many batches
    for batch in group.run(
        source, ROWS, planned, lambda model, batch: model(batch), n_workers=n_workers
    ):
        assert all(len(values) == len(batch.indices) for values in batch.values.values())
        assert batch.cost == pytest.approx(len(batch.values) * planned[len(scored)].cost(TINY))
        scored.append(set(batch.values))
        shares.append(batch.share_done)
        group.drop(drops.get(len(scored), []))
    assert scored == [{0, 1, 2}] * 2 + [{0, 2}] * 2
    assert shares == sorted(shares) and 0 < shares[0] < shares[-1] < 1


def test_the_last_batch_completes_the_pass(source: PairSource, tokenizer: Path) -> None:
    group = ModelGroup(CPU, torch.float32)
    group.add(build(JOINED, CONFIG, tokenizer))
    planned = plan_batches(source, ROWS, JOINED, 3.0)
    *_, last = group.run(source, ROWS, planned, lambda model, batch: model(batch))
    assert last.share_done == 1


@pytest.mark.parametrize(("frozen_share", "n_shareable"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_only_untrained_stages_are_compared_with_other_models(
    frozen_share: float, n_shareable: int, tmp_path: Path
) -> None:
    recipe = replace(JOINED, frozen_share=frozen_share)
    fold_metadata = {"recipe": recipe.as_dict(), "shape": TINY.as_dict(), "tokenizer": None}
    assert (
        EnsembleFold(0, FoldFiles(tmp_path, "model2ds", 0), fold_metadata).n_shareable
        == n_shareable
    )


def test_the_memory_budget_can_be_set() -> None:
    assert memory_for_models(CPU, 1.5) == 1.5e9
    with pytest.raises(HearbackError, match="--memory_gb 0"):
        memory_for_models(CPU, 0)


def test_the_default_memory_budget_is_half_of_what_is_free_in_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP_LIMIT", tmp_path / "memory.max")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert memory_for_models(CPU, None) == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_for_models(CPU, None) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_for_models(CPU, None) == 500_000
