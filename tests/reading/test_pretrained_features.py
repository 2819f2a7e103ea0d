"""The features of untrained models: kept, shared by folds, and equal to computed ones."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.training.task import FoldRun
from hearback.reading import pretrained_features, training
from hearback.reading.inference.model_group import ModelGroup
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pretrained_features import collect_features
from hearback.reading.recipe import Recipe
from tests.helpers import make_read_only, results
from tests.reading.quick_recipes import QUICK_TOKENS as TOKENS
from tests.toy import TEXTS
from train_modelali import RECIPE as ALIGNED

QUICK_ALIGNED = replace(ALIGNED, batch_size=4, epochs=1, schedule_epochs=1, hard_negatives=0.0)
BOTH = pytest.mark.parametrize("recipe", [TOKENS, QUICK_ALIGNED], ids=lambda recipe: recipe.name)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows whose features were computed, in order."""
    rows: list[int] = []
    original = ModelGroup.run

    def noting(self: Any, source: Any, of: Any, planned: Any, score_fn: Any, **more: Any) -> Any:
        if score_fn is pretrained_features._features:
            rows.extend(of)
        return original(self, source, of, planned, score_fn, **more)

    monkeypatch.setattr(ModelGroup, "run", noting)
    yield rows


def features_of(
    options: TrainingOptions, recipe: Recipe, rows: list[int], seed: int = 0
) -> np.ndarray:
    data = options.load_data()
    run = FoldRun(options.adapt(recipe), 0, options, data)
    torch.manual_seed(seed)
    model = training.ReadingTask(run).build_model()
    source = data.source
    places: dict[str, Any] = {
        "backbone": Path("X"),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    return collect_features(model, data, source, rows, options.store, **places)


def kept_files(options: TrainingOptions) -> list[Path]:
    return sorted((options.store / "features").glob("*.npz"))


@BOTH
def test_features_are_computed_once(
    options: TrainingOptions,
    recipe: Recipe,
    computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pretrained_features, "CHUNK", 2)
    first = features_of(options, recipe, [3, 0, 7])
    assert computed == [3, 0, 7]
    again = features_of(options, recipe, [0, 5, 3, 9, 7], seed=1)  # another random head
    assert computed == [3, 0, 7, 5, 9]
    np.testing.assert_array_equal(again[[2, 0, 4]], first)
    assert len(kept_files(options)) == 1
    kept_files(options)[0].write_bytes(b"damaged")
    np.testing.assert_array_equal(
        features_of(options, recipe, [9, 5, 7, 3, 0])[[4, 1, 3, 0, 2]], again
    )


@BOTH
def test_folds_are_the_same_with_and_without_kept_features(
    options: TrainingOptions, recipe: Recipe, computed: list[int]
) -> None:
    folds = {}
    for alone in (True, False):
        assets = options.assets.with_name(f"assets_{alone}")
        those = replace(options, assets=assets, epochs=1, store=assets.with_name(f"store_{alone}"))
        for fold in (0, 1):
            if alone:
                for path in kept_files(those):
                    path.unlink()
            training.train_fold(recipe, fold, those, those.load_data())
            folds[alone, fold] = results(FoldFiles(assets, recipe.name, fold))
        if not alone:
            assert len(computed) == 36  # each row once
        computed.clear()
    for fold in (0, 1):
        assert folds[True, fold] == folds[False, fold]


def test_another_input_has_other_features(options: TrainingOptions, computed: list[int]) -> None:
    features_of(options, TOKENS, [0])
    features_of(options, replace(TOKENS, name="other", learning_rate=0.5), [0])
    assert computed == [0]
    features_of(options, replace(TOKENS, window="fixed"), [0])
    features_of(options, replace(TOKENS, speed_by_grade=(0.9, 0.9, 0.9, 0.9)), [0])
    assert computed == [0, 0, 0]
    metadata = options.data / "train_metadata.csv"
    metadata.write_text(metadata.read_text().replace("a red hat", TEXTS[0]))
    features_of(options, TOKENS, [0])
    assert computed == [0, 0, 0, 0]


def test_another_tokenizer_has_other_features(
    options: TrainingOptions, computed: list[int], tmp_path: Path
) -> None:
    assert options.backbone is not None
    features_of(options, TOKENS, [0])
    other = shutil.copytree(options.backbone, tmp_path / "other")
    path = other / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["merges"] = values["model"]["merges"][:-1]  # the last word has two tokens
    path.write_text(json.dumps(values))
    features_of(replace(options, backbone=str(other)), TOKENS, [0])
    assert computed == [0, 0]


def test_features_that_are_not_finite_are_an_error_and_never_kept(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            TokenScorer, "pretrained_features", lambda *_: torch.full((1, 3), float("nan"))
        )
        with pytest.raises(HearbackError, match=r"X/model\.safetensors: .* NaN or infinity"):
            features_of(options, TOKENS, [0])
    assert kept_files(options) == []
    good = features_of(options, TOKENS, [0])
    (kept,) = kept_files(options)  # of an older version, with what is not finite
    np.savez(kept, rows=np.array([0]), features=np.full((1, good.shape[1]), np.nan))
    np.testing.assert_array_equal(features_of(options, TOKENS, [0]), good)


def test_features_are_not_kept_in_a_read_only_store(
    options: TrainingOptions, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    options.load_data()  # decodes
    with monkeypatch.context() as patch:
        make_read_only(patch, options.store)
        first = features_of(options, TOKENS, [1, 2])
    assert computed == [1, 2]
    assert kept_files(options) == []
    np.testing.assert_array_equal(features_of(options, TOKENS, [1, 2]), first)
