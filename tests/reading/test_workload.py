"""What --plan assumes of a fold's batches: their number and their windows are those of training."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from hearback.engine.plan import estimate
from hearback.engine.plan.estimate import Request, plan_models
from hearback.engine.plan.memory import fold_bytes
from hearback.engine.plan.show import show, size
from hearback.engine.training.backbone_files import share_unchanged
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.reading import encoded
from hearback.reading.augment import Augmentation
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe
from hearback.reading.steps import train, train_model
from hearback.reading.training import ReadingTask
from hearback.reading.window_batches import Encoding
from hearback.reading.workload import ReadingWorkload
from tests.reading.families import FAMILIES, make_trainer
from tests.reading.quick_recipes import QUICK_LOW, QUICK_TOKENS


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment; pronounce texts letter by letter, so that no voice is needed."""
    monkeypatch.setattr(estimate, "SECONDS", 0.02)
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )


def make_workload(
    recipe: Recipe, options: TrainingOptions, folds: Sequence[int] = (0, 1)
) -> ReadingWorkload:
    data = options.load_data([recipe])
    return ReadingWorkload(FoldRun(options.adapt(recipe), 0, options, data), folds)


@pytest.mark.parametrize(
    "family", ["joined", "aligned", "tokens", "updates of tokens", "phones", "segments"]
)
def test_a_plan_of_each_family_writes_nothing(
    family: str, options: TrainingOptions, phones: Path
) -> None:
    recipe = FAMILIES[family]
    make_trainer(QUICK_TOKENS, options, phones)  # puts the backbones there, and fills the store
    before = sorted(path for path in options.data.parent.rglob("*"))
    data = options.load_data([recipe])
    request = Request(options.adapt(recipe), options, [0, 1], data, data_seconds=1.0)
    (plan,) = plan_models([request], ReadingWorkload)
    assert sorted(path for path in options.data.parent.rglob("*")) == before
    passes = {each.name: each for each in plan.passes}
    assert {"training", "validation"} <= passes.keys()
    assert ("initialization" in passes) == recipe.has_pretrained_init
    assert ("encoder outputs" in passes) == (recipe.n_augmented > 0)
    assert all(each.flops > 0 and each.seconds > 0 for each in plan.passes)
    assert (plan.shared_bytes > 0) == (recipe.n_augmented > 0)
    assert 0 < plan.files.n_trained <= plan.files.n_parameters
    assert plan.activations > 0


@pytest.mark.parametrize("family", ["joined", "aligned", "tokens"])
def test_the_planned_batches_are_those_of_training(
    family: str, options: TrainingOptions, phones: Path
) -> None:
    none = Augmentation()
    recipe = replace(FAMILIES[family], augment_learner=none, augment_reference=none)
    make_trainer(recipe, options, phones)
    workload = make_workload(recipe, options)
    run = workload.run
    model = ReadingTask(run).build_model()
    planned = workload.passes(model)[0]
    n_examples, batches = next(workload.task.epoch_batches(model, range(1)))
    true = [(len(batch), batch.waveforms.shape[1]) for batch in batches]
    windows = {"aligned": 2}.get(recipe.pair, 1)
    assert planned.n_examples == n_examples
    assert sorted(
        (each.n_examples, each.size / each.n_examples / windows) for each in planned.batches
    ) == sorted(true)


def test_features_of_clips_are_planned_once_for_all_folds(
    options: TrainingOptions, phones: Path
) -> None:
    make_trainer(QUICK_TOKENS, options, phones)
    workload = make_workload(QUICK_TOKENS, options)
    model = ReadingTask(workload.run).build_model()
    passes = {each.name: each for each in workload.passes(model)}
    n_rows = len(np.union1d(*(workload.data.training_rows(fold) for fold in (0, 1))))
    assert passes["initialization"].n_examples == n_rows
    assert passes["initialization"].shared and not passes["validation"].shared
    assert passes["validation"].n_times == QUICK_TOKENS.epochs + 1  # once initialized, too


ENCODED = pytest.mark.parametrize("family", ["updates of tokens", "segments"])


@ENCODED
def test_what_the_store_has_is_not_planned(
    family: str, options: TrainingOptions, phones: Path
) -> None:
    recipe = replace(FAMILIES[family], augment_learner=Augmentation())
    trainer = make_trainer(recipe, options, phones)  # encodes the recordings
    trainer.initialize()
    planned = make_workload(recipe, options, [0])
    model = Trainer(planned.task, planned.run, callbacks=[]).model  # seeded as in training
    assert [each.name for each in planned.passes(model)] == ["training", "validation"]
    assert planned.shared_bytes(model) == 0

    (version,) = (options.store / "encoded").rglob("version_1.f16")
    version.with_suffix(".json").unlink()
    planned = make_workload(recipe, options, [0, 1])
    passes = {each.name: each for each in planned.passes(model)}
    assert passes["encoder outputs"].n_times == 1
    assert planned.shared_bytes(model) == version.stat().st_size
    first, both = planned.data.training_rows(0), planned.data.training_rows(1)
    assert passes["initialization"].n_examples == len(np.setdiff1d(both, first))

    # Whether another model's encoder or updates are there is not known.
    other = replace(recipe, name="modelother", warm_start="modelany")
    passes = {each.name: each for each in make_workload(other, options, [0]).passes(model)}
    assert passes["encoder outputs"].n_times == 1 + recipe.n_augmented
    assert "initialization" in passes
    again = make_workload(replace(recipe, name="modelagain", seed=9), options, [0]).passes(model)
    assert ("initialization" in {each.name for each in again}) == (recipe.adapter_rank > 0)


@ENCODED
@pytest.mark.parametrize("epochs", [2, 9])
def test_the_encoder_outputs_that_a_fold_maps_are_those_that_it_reads(
    family: str,
    epochs: int,
    options: TrainingOptions,
    phones: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(FAMILIES[family], augment_learner=Augmentation(), schedule_epochs=9)
    recipe = replace(recipe, epochs=epochs)
    planned = make_workload(recipe, options, [0])
    trainer = make_trainer(recipe, options, phones)
    expected = planned.mapped_bytes(ReadingTask(planned.run).build_model())

    read: dict[tuple[Path, int], int] = {}
    get = encoded._Version.get

    def noting(self: encoded._Version, index: int) -> Encoding:
        found = get(self, index)
        read[self.path, index] = found.frames.nbytes
        return found

    monkeypatch.setattr(encoded._Version, "get", noting)
    trainer.initialize()
    for _, batches in trainer.task.epoch_batches(trainer.model, range(epochs)):
        list(batches)
    assert expected == pytest.approx(sum(read.values()), rel=0.05)


def test_the_files_of_each_backbone_are_planned_once(
    options: TrainingOptions, phones: Path, backbone: Path, tmp_path: Path
) -> None:
    same, other = (shutil.copytree(backbone, tmp_path / name) for name in ("same", "other"))
    weights = load_file(other / "model.safetensors")
    changed = {name: tensor + 0.01 for name, tensor in weights.items()}
    save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    recipe, parts = replace(QUICK_LOW, n_augmented=0), []
    for directory in (backbone, same, other):
        trainer = make_trainer(recipe, replace(options, backbone=str(directory)), phones)
        parts.append(fold_bytes(trainer).parts)
    assert parts[0] == parts[1] and parts[0].keys().isdisjoint(parts[2])
    # No name or size tells one Whisper from another.
    assert sorted(parts[0].values()) == sorted(parts[2].values())
    share_unchanged(trainer.model.half().state_dict(), trainer.task.backbone_tensors(), tmp_path)
    written = {path.name: path.stat().st_size for path in tmp_path.glob("*.safetensors")}
    assert written == parts[2]
    request = Request(options.adapt(recipe), options, [0], options.load_data([recipe]), 0.0)
    (plan,) = plan_models([request], ReadingWorkload)
    plans = [replace(plan, files=replace(plan.files, parts=each)) for each in parts]
    n_bytes = sum(parts[0].values()) + sum(parts[2].values())
    assert f"(of that {size(n_bytes)} of unchanged backbones)" in show(plans, n_jobs=1)


def test_the_recordings_that_a_fold_maps_are_counted(
    options: TrainingOptions, phones: Path
) -> None:
    make_trainer(QUICK_TOKENS, options, phones)
    planned = make_workload(QUICK_TOKENS, options)
    (recordings,) = options.store.glob("train.*.pcm")
    model = ReadingTask(planned.run).build_model()
    assert planned.mapped_bytes(model) == recordings.stat().st_size
    encodes = make_workload(QUICK_LOW, options)
    assert encodes.mapped_bytes(ReadingTask(encodes.run).build_model()) > recordings.stat().st_size


def test_models_with_another_encoder_are_another_kind(
    options: TrainingOptions, phones: Path
) -> None:
    make_trainer(QUICK_TOKENS, options, phones)
    other = replace(QUICK_TOKENS, frozen_share=1.0)
    longer = replace(QUICK_TOKENS, name="modellonger", epochs=2, schedule_epochs=2)
    kinds = [make_workload(each, options).kind for each in (QUICK_TOKENS, other, longer, QUICK_LOW)]
    assert kinds[0] == kinds[2] and len(set(kinds)) == 3


def test_the_command_plans_what_is_not_trained(
    options: TrainingOptions,
    phones: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(estimate, "SECONDS_OF_SEVERAL", 0.02)
    make_trainer(QUICK_TOKENS, options, phones)
    before = sorted(options.data.parent.rglob("*"))
    models = ["--models", "modeltokb", "modeltokzero", "--folds", "0"]
    monkeypatch.setattr(sys, "argv", ["train", "--plan", *models, *options.as_flags()])
    assert train.main() == 0
    text = capsys.readouterr().out
    assert "modeltokb" in text and "modeltokzero" in text and "2 folds" in text
    assert sorted(options.data.parent.rglob("*")) == before


def test_a_recipe_plans_its_fold(
    options: TrainingOptions,
    phones: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_trainer(QUICK_TOKENS, options, phones)
    monkeypatch.setattr(sys, "argv", ["x", "--plan", "--fold", "0", *options.as_flags()])
    with pytest.raises(SystemExit) as ended:
        train_model.main(QUICK_TOKENS)
    assert ended.value.code in (None, 0)
    assert "Time: " in capsys.readouterr().out
