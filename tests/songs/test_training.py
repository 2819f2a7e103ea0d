"""Training of a fold of the songs competition: its files, its metadata, resuming."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.logistic import PROBABILITY_MARGIN
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata, why_not_done
from hearback.engine.training.task import Evaluation, FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.songs.augment import Augmentation, Mixer
from hearback.songs.inference import EnsembleFold, load_model, predict
from hearback.songs.models.classifiers import build
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe
from hearback.songs.recipes.cnn4 import RECIPE as CNN4
from hearback.songs.recipes.resnet34 import RECIPE as RESNET34
from hearback.songs.recipes.whisper import RECIPE as WHISPER
from hearback.songs.snippets import SnippetDataset, SongBatch
from hearback.songs.training import SongTask, train_fold
from tests.helpers import recorded_steps, results
from tests.songs.quick_recipes import MIXED, NARROW_WIDTHS, PLATEAU, QUICK, RECIPES
from tests.songs.songs_data import read_options, training_flags


@pytest.fixture(autouse=True)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the CNN narrow, and so fast, except with the fixture `full_width`."""
    if "full_width" not in request.fixturenames:
        monkeypatch.setattr("hearback.songs.models.classifiers.CNN4_WIDTHS", NARROW_WIDTHS)


@pytest.fixture
def full_width() -> None:
    """Keep the CNN's width."""


def train(options: SongOptions, recipe: SongRecipe = QUICK, fold: int = 0) -> Any:
    return train_fold(recipe, fold, options, options.load_data())


def make_task(options: SongOptions, recipe: SongRecipe) -> SongTask:
    return SongTask(FoldRun(options.adapt(recipe), 0, options, options.load_data()))


def make_trainer(options: SongOptions, recipe: SongRecipe) -> Trainer:
    task = make_task(options, recipe)
    return Trainer(task, task.run)


def files_of(options: SongOptions, recipe: SongRecipe = QUICK, fold: int = 0) -> FoldFiles:
    return FoldFiles(options.assets, options.adapt(recipe).name, fold)


def test_fold_writes_weights_metadata_and_probabilities(song_options: SongOptions) -> None:
    fold_metadata = train(song_options)
    files, data = files_of(song_options), song_options.load_data()
    assert fold_metadata == read_fold_metadata(files)
    oof = pd.read_csv(files.oof)
    rows = data.validation_rows(0)
    assert list(oof.columns) == ["filename", "label", "p0", "p1", "p2", "p3"]
    assert oof["filename"].tolist() == [data.filenames[row] for row in rows]
    assert oof["label"].tolist() == data.labels[rows].tolist()
    probabilities = oof[["p0", "p1", "p2", "p3"]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)

    last = fold_metadata["epochs"][-1]
    given = probabilities[np.arange(len(oof)), oof["label"]]
    assert fold_metadata["log_loss"] == pytest.approx(-np.log(given).mean(), abs=1e-6)
    assert last["validation_accuracy"] == (probabilities.argmax(axis=1) == oof["label"]).mean()
    assert [epoch["epoch"] for epoch in fold_metadata["epochs"]] == [1, 2]
    assert all(norm > 0 for epoch in fold_metadata["epochs"] for norm in epoch["gradient_norms"])
    assert fold_metadata["n_train"] == len(data.training_rows(0)) and fold_metadata[
        "n_validation"
    ] == len(rows)
    assert not files.checkpoint.exists()
    assert why_not_done(files, song_options.run_key(song_options.adapt(QUICK), data)) is None


def test_log_loss_is_clipped_as_in_the_tables(song_options: SongOptions) -> None:
    task = make_task(song_options, QUICK)
    labels = task.data.labels[task.run.validation_rows]
    certain = np.eye(4)[(labels + 1) % 4]  # of another class
    metrics = task.compute_metrics(certain)
    assert metrics["validation_log_loss"] == pytest.approx(-np.log(PROBABILITY_MARGIN))
    assert metrics["validation_accuracy"] == 0


def test_base_rate_is_the_class_shares_of_training_rows(song_options: SongOptions) -> None:
    fold_metadata, data = train(replace(song_options, epochs=1)), song_options.load_data()
    shares = np.bincount(data.labels[data.training_rows(0)]) / len(data.training_rows(0))
    np.testing.assert_allclose(fold_metadata["base_rate"], shares)
    given = shares[data.labels[data.validation_rows(0)]]
    assert fold_metadata["base_rate_log_loss"] == pytest.approx(-np.log(given).mean())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_saved_weights_reproduce_the_out_of_fold_predictions(
    song_options: SongOptions, name: str
) -> None:
    recipe = RECIPES[name]
    fold_metadata = train(song_options, recipe)
    files, data = files_of(song_options, recipe), song_options.load_data()
    tensors = load_file(files.weights)
    counted = ("running_mean", "running_var")
    for key, tensor in tensors.items():
        if key.endswith("num_batches_tracked"):
            assert tensor.dtype == torch.int64, key
        else:
            assert tensor.dtype == (torch.float32 if key.endswith(counted) else torch.float16), key
    assert sum(key.endswith(counted) for key in tensors) == 2 * 5  # the input's, four layers'

    probabilities = predict(
        load_model(EnsembleFold(0, files, fold_metadata)),
        data.features(recipe.features),
        [data.filenames[row] for row in data.validation_rows(0)],
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    oof = pd.read_csv(files.oof)[["p0", "p1", "p2", "p3"]].to_numpy()
    assert len(np.unique(oof[:, 0])) == len(oof)
    np.testing.assert_allclose(probabilities, oof, atol=2e-3)


def test_batch_norm_statistics_are_saved_in_float32(
    song_options: SongOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_model = SongTask.build_model

    def build_with_large_weights(self: SongTask) -> Any:
        model = build_model(self)
        with torch.no_grad():
            next(p for p in model.parameters() if p.ndim == 4).mul_(1e4)
        return model

    monkeypatch.setattr(SongTask, "build_model", build_with_large_weights)
    train(song_options)
    tensors = load_file(files_of(song_options).weights)
    variance = tensors["layers.1.running_var"]
    assert variance.max() > torch.finfo(torch.float16).max and variance.isfinite().all()


@pytest.mark.slow
def test_training_loss_falls(song_options: SongOptions) -> None:
    recipe = replace(QUICK.with_epochs(12), learning_rate=1e-2, milestones=(9,))
    fold_metadata = train(song_options, recipe)
    losses = [epoch["train_log_loss"] for epoch in fold_metadata["epochs"]]
    assert losses[-1] < 0.5 * losses[0]
    assert fold_metadata["log_loss"] < fold_metadata["base_rate_log_loss"]


def test_checkpoints_have_batch_norm_statistics(song_options: SongOptions) -> None:
    options = replace(song_options, checkpoint_minutes=0)
    with recorded_steps(kill_at=2), pytest.raises(KeyboardInterrupt):
        train(options)
    fresh = build(QUICK).state_dict()
    trainer = make_trainer(options, QUICK)
    trainer.start()
    for name, tensor in trainer.model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 2
        elif "running" in name:
            assert not torch.equal(tensor, fresh[name]), name


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 3)])
def test_best_or_last_epoch_is_saved(
    song_options: SongOptions, monkeypatch: pytest.MonkeyPatch, keep: Any, kept: int
) -> None:
    losses, weights = iter([1.0, 0.5, 0.75]), []

    evaluate = SongTask.evaluate

    def evaluate_with_losses(self: SongTask, model: Any) -> Evaluation:
        weights.append(model.get_parameter("classifier.weight").detach().half().clone())
        metrics = {"validation_log_loss": next(losses), "validation_accuracy": 0.5}
        return replace(evaluate(self, model), metrics=metrics)

    monkeypatch.setattr(SongTask, "evaluate", evaluate_with_losses)
    recipe = replace(QUICK.with_epochs(3), keep=keep)
    fold_metadata = train(song_options, recipe)
    assert fold_metadata["best_epoch"] == kept
    assert fold_metadata["log_loss"] == (0.5, 0.75)[kept - 2]
    tensor = load_file(files_of(song_options, recipe).weights)["classifier.weight"]
    assert [torch.equal(tensor, each) for each in weights].index(True) == kept - 1


def test_plateau_schedule_continues_after_a_resume(
    song_options: SongOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"validation_log_loss": 1.0, "validation_accuracy": 0.5}
    monkeypatch.setattr(SongTask, "compute_metrics", lambda self, probabilities: same)
    recipe = replace(PLATEAU.with_epochs(5), average_decay=0.0, patience_epochs=1)
    with recorded_steps() as factors:
        train(song_options, recipe)
    by_epoch = np.array(factors).reshape(5, -1)
    n_steps = by_epoch.shape[1]
    np.testing.assert_allclose(by_epoch, np.array([[1, 1, 1, 0.1, 0.1]]).T * np.ones(n_steps))
    files_of(song_options, recipe).metadata.unlink()
    with recorded_steps(kill_at=3 * n_steps + 1), pytest.raises(KeyboardInterrupt):
        train(song_options, recipe)
    with recorded_steps() as rest:
        train(song_options, recipe)
    assert rest == factors[3 * n_steps :]  # the fourth epoch from its beginning


def batches_of(options: SongOptions, recipe: SongRecipe, n_epochs: int = 1) -> list[SongBatch]:
    task = make_task(options, recipe)
    epochs = task.epoch_batches(task.build_model(), range(n_epochs))
    return [batch for _, batches in epochs for batch in batches]


def test_epoch_has_each_training_row_once(song_options: SongOptions) -> None:
    batches = batches_of(song_options, QUICK)
    data = song_options.load_data()
    rows = torch.cat([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == data.training_rows(0).tolist()
    assert rows.tolist() != sorted(rows.tolist())
    store = data.features("log_mel_40")
    for batch in batches:
        expected = np.eye(4)[data.labels[batch.rows.numpy()]]
        np.testing.assert_array_equal(batch.targets.numpy(), expected)
        for row, features in zip(batch.rows, batch.features, strict=True):
            np.testing.assert_array_equal(features, store.get(data.filenames[row]))


def test_balanced_sampling_equalizes_the_classes(song_options: SongOptions) -> None:
    n_epochs = 20
    labels = song_options.load_data().labels
    counts = {}
    for balanced in (False, True):
        recipe = replace(QUICK, balanced_sampling=balanced)
        batches = batches_of(song_options, recipe, n_epochs)
        counts[balanced] = np.bincount(labels[torch.cat([batch.rows for batch in batches])])
    assert counts[True].sum() == counts[False].sum()
    # Three standard deviations of the count of a class with the share 1/4.
    n_total = counts[True].sum()
    spread = 3 * np.sqrt(n_total * 0.25 * 0.75)
    assert np.abs(counts[True] - n_total / 4).max() < spread
    assert np.abs(counts[False] - n_total / 4).max() > spread


def test_mix_up_uses_the_same_shares_for_features_and_targets(song_options: SongOptions) -> None:
    plain = batches_of(song_options, QUICK)
    mixed = batches_of(song_options, replace(QUICK, mix_up=5.0))
    for before, after in zip(plain, mixed, strict=True):
        assert torch.equal(before.rows, after.rows)
        torch.testing.assert_close(after.targets.sum(dim=1), torch.ones(len(after)))
        # Both are the same linear map of the batch: recover it from the features.
        flat, mixture = before.features.flatten(1), after.features.flatten(1)
        shares = torch.linalg.lstsq(flat.T.double(), mixture.T.double()).solution.T
        torch.testing.assert_close(
            shares.float() @ before.targets, after.targets, atol=1e-3, rtol=0
        )
    targets = torch.cat([batch.targets for batch in mixed])
    assert ((targets > 0.01) & (targets < 0.99)).any()


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_uses_class_weights(song_options: SongOptions, weighted: bool) -> None:
    task = make_task(song_options, replace(QUICK, class_weights=weighted))
    counts = np.bincount(task.data.labels[task.run.train_rows])
    weights = counts.sum() / (4 * counts) if weighted else np.ones(4)
    assert not weighted or np.ptp(weights) > 0.1
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.25, 0.75], [0, 0, 0, 1.0]])
    batch = SongBatch(torch.zeros(4, 299, 40), targets, torch.arange(4))
    expected = -(targets * torch.from_numpy(weights) * F.log_softmax(logits, dim=1)).sum()
    assert task.compute_loss(logits, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_class_without_training_rows_is_an_error(song_options: SongOptions) -> None:
    few = replace(song_options, limit=20, n_folds=2)  # no woman, and never several
    with pytest.raises(HearbackError, match="no training snippet is of class 2, 3"):
        make_task(few, MIXED)


def test_head_has_its_own_learning_rate(song_options: SongOptions, backbone: Path) -> None:
    options = replace(song_options, backbone=str(backbone))
    trainer = make_trainer(options, WHISPER)
    backbone_group, head_group = trainer.optimizer.param_groups
    assert (backbone_group["peak_lr"], head_group["peak_lr"]) == (1e-4, 1e-3)
    encoder = {id(parameter) for parameter in trainer.model.get_submodule("encoder").parameters()}
    assert {id(parameter) for parameter in backbone_group["params"]} <= encoder
    assert not {id(parameter) for parameter in head_group["params"]} & encoder
    frozen = make_trainer(options, replace(WHISPER, frozen_share=1.0))
    n_trained = sum(len(group["params"]) for group in frozen.optimizer.param_groups)
    assert n_trained == sum(p.requires_grad for p in frozen.model.parameters())
    assert n_trained < sum(len(g["params"]) for g in trainer.optimizer.param_groups)


@pytest.fixture
def snippets(songs_folder: Path) -> Callable[..., SnippetDataset]:
    """Return a function: a fold's training snippets, without augmentation but for its arguments."""
    data = read_options(*training_flags(songs_folder, songs_folder)).load_data()
    store, rows = data.features("waveform"), data.training_rows(0)
    mixer = Mixer(rows, data.labels, data.snippets["singers"].to_numpy(dtype=str))
    recipe = replace(WHISPER, mixtures=0, speed=0, shuffled=0, augment=Augmentation())

    def make_dataset(**changes: Any) -> SnippetDataset:
        changed = replace(recipe, **changes)
        return SnippetDataset(store, data.filenames, rows, changed, mixer=mixer, seeds=(1, 1, 0))

    return make_dataset


def in_pairs(
    snippets: SnippetDataset, others: SnippetDataset
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the waveforms of each snippet in both datasets."""
    assert len(snippets) == len(others)
    for number in range(len(snippets)):
        (row, waveform), (same_row, other) = snippets[number], others[number]
        assert row == same_row
        yield waveform, other


def count_different(snippets: SnippetDataset, others: SnippetDataset) -> int:
    return sum(not np.array_equal(first, second) for first, second in in_pairs(snippets, others))


@pytest.mark.parametrize("alteration", ["mixtures", "speed", "shuffled"])
def test_augmentations_have_the_recipe_s_probabilities(
    snippets: Callable[..., SnippetDataset], alteration: str
) -> None:
    plain, some, every = (snippets(**{alteration: share}) for share in (0.0, 0.5, 1.0))
    for number, row in enumerate(plain.rows):
        np.testing.assert_array_equal(plain[number][1], plain.store.get(plain.filenames[row]))
    assert 0 < count_different(some, plain) < count_different(every, plain) == len(plain)
    assert count_different(every, snippets(**{alteration: 1.0})) == 0
    for sound, altered in in_pairs(plain, every):
        assert altered.shape == sound.shape and altered.dtype == np.float32


def test_speed_factor_is_within_its_range(
    snippets: Callable[..., SnippetDataset],
) -> None:
    def highest_hz(waveform: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(waveform[:24_000]))
        return np.fft.rfftfreq(24_000, 1 / 16_000)[spectrum > 0.5 * spectrum.max()].max()

    pairs = in_pairs(snippets(), snippets(speed=1.0))
    rates = [highest_hz(altered) / highest_hz(plain) for plain, altered in pairs]
    assert 0.88 < min(rates) < 0.97 and 1.03 < max(rates) < 1.12


def test_mixtures_are_played_at_other_speeds_too(
    snippets: Callable[..., SnippetDataset],
) -> None:
    mixed = snippets(mixtures=1.0)
    assert count_different(snippets(mixtures=1.0, speed=1.0), mixed) == len(mixed)


@pytest.mark.slow
def test_whisper_is_trained_and_resumes(song_options: SongOptions, backbone: Path) -> None:
    options = replace(song_options, backbone=str(backbone), checkpoint_minutes=0)
    recipe = replace(WHISPER.with_epochs(2), batch_size=8, mixtures=0.5, frozen_share=0.5)
    files = files_of(options, recipe)
    fold_metadata = train(options, recipe)
    uninterrupted = results(files)
    assert fold_metadata["shape"]["d_model"] and fold_metadata["recipe"]["backbone"] == str(
        backbone
    )
    load_model(EnsembleFold(0, files, fold_metadata))  # without the backbone
    files.metadata.unlink()
    with recorded_steps(kill_at=5), pytest.raises(KeyboardInterrupt):
        train(options, recipe)
    train(options, recipe)
    assert results(files) == uninterrupted


@pytest.mark.slow
def test_resnet_is_trained(song_options: SongOptions) -> None:
    fold_metadata = train(replace(song_options, epochs=1), replace(RESNET34, batch_size=8))
    tensors = load_file(files_of(song_options, RESNET34).weights)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert fold_metadata["epochs"][0]["validation_log_loss"] < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_folds": 13}, "12 singers cannot make 13 folds"),
        ({"set": ("features=waveform",)}, "features is waveform"),
    ],
)
def test_invalid_options_are_errors(
    song_options: SongOptions, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        train(replace(song_options, **change))


def test_missing_backbone_is_an_error(song_options: SongOptions) -> None:
    with pytest.raises(HearbackError, match="such-backbone"):
        train(replace(song_options, backbone="no/such-backbone"), WHISPER)


def test_run_key_has_the_separation_and_the_recipe_s_settings(song_options: SongOptions) -> None:
    data = song_options.load_data()
    run_key = song_options.run_key(song_options.adapt(CNN4), data)
    without_mix_up = replace(song_options, set=("mix_up=0",))
    assert without_mix_up.run_key(without_mix_up.adapt(CNN4), data) != run_key
    separated = replace(data, separation={"backend": "repet"})
    assert song_options.run_key(song_options.adapt(CNN4), separated) != run_key


def test_options_survive_as_flags(song_options: SongOptions) -> None:
    changed = replace(song_options, limit=20, set=("dropout=0.1", "keep=best"), strict=True, seed=4)
    changed = replace(changed, separate="repet", group_by="none", backbone="openai/whisper-base")
    assert read_options(*changed.as_flags()) == changed


def test_non_finite_loss_is_reported_with_its_snippets(
    song_options: SongOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_logits = SongTask.compute_logits

    def with_nan(self: SongTask, model: Any, batch: SongBatch) -> tuple[Tensor, Tensor]:
        logits, auxiliary = compute_logits(self, model, batch)
        nans = torch.zeros_like(logits)
        nans[batch.rows == self.run.train_rows[0]] = torch.nan
        return logits + nans, auxiliary

    monkeypatch.setattr(SongTask, "compute_logits", with_nan)
    data = song_options.load_data()
    with pytest.raises(HearbackError, match="attempts stalled") as error:
        train_fold(QUICK, 0, song_options, data)
    assert data.filenames[data.training_rows(0)[0]] in str(error.value)


# (train, validation) log loss of each epoch, as in tests/reading/test_pinned_losses.py.
PINNED: list[tuple[float, float]] = [(1.26138, 1.32395), (1.16121, 1.27599)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Fix the order of sums: batch normalization amplifies differences in the last bits."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.usefixtures("full_width", "one_thread")
def test_losses_are_unchanged(song_options: SongOptions) -> None:
    # SGD, because Adam's first steps have full length even where a gradient is only rounding error,
    # which differs between processors: that moved these losses by 2e-4, and SGD's by 1e-5.
    recipe = replace(CNN4.with_epochs(2), batch_size=8, optimizer="sgd", learning_rate=1e-2)
    fold_metadata = train(song_options, recipe, fold=1)
    found = [(e["train_log_loss"], e["validation_log_loss"]) for e in fold_metadata["epochs"]]
    for epoch, (losses, pinned) in enumerate(zip(found, PINNED, strict=True)):
        assert losses == pytest.approx(pinned, abs=1e-4), f"epoch {epoch}: {found}"
