"""The training of a fold of the songs: its files, its metadata, and that it can be broken off."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.trainer import train_fold
from hearback.songs.augment import Mixer, SpectrogramAugmentation
from hearback.songs.inference import Member, load_model, predict
from hearback.songs.models.classifiers import build
from hearback.songs.options import SongOptions
from hearback.songs.recipe import SongRecipe
from hearback.songs.recipes.cnn4 import RECIPE as CNN4
from hearback.songs.recipes.resnet34 import RECIPE as RESNET34
from hearback.songs.recipes.whisper import RECIPE as WHISPER
from hearback.songs.steps.check_models import read_command
from hearback.songs.training import SnippetDataset, SongBatch, SongPredictions, SongTraining
from tests.songs.songs_data import read_options, training_flags

QUICK = replace(
    CNN4.with_epochs(2),
    features="log_mel_40",
    batch_size=8,
    mix_up=0.0,
    class_weights=False,
    balanced_draws=False,
    augment=SpectrogramAugmentation(),
)
PLATEAU = replace(
    QUICK,
    optimizer="sgd",
    schedule="plateau",
    milestones=(),
    learning_rate=1e-2,
    keep="best",
    average_decay=0.5,
    augment=CNN4.augment,
)
MIXED = replace(
    QUICK, mix_up=0.4, class_weights=True, balanced_draws=True, augment=CNN4.augment, dropout=0.3
)
RESTARTS = replace(
    MIXED, optimizer="adamw", weight_decay=0.1, schedule="cosine restarts", periods=2, milestones=()
)
RECIPES = {"sgd": PLATEAU, "adam": MIXED, "adamw": RESTARTS}


@pytest.fixture(autouse=True)
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CNN be narrow and so quick, but where a test asks for its own width."""
    if "full_width" not in request.fixturenames:
        monkeypatch.setattr("hearback.songs.models.classifiers.CNN4_WIDTHS", (4, 4, 8, 8))


@pytest.fixture
def full_width() -> None:
    """Leave the CNN as it is."""


@pytest.fixture
def song_options(songs_folder: Path, tmp_path: Path) -> SongOptions:
    """Options of a training on the tones, whose results go to the test's own folder."""
    return read_options(*training_flags(songs_folder, tmp_path))


def train(options: SongOptions, recipe: SongRecipe = QUICK, fold: int = 0) -> Any:
    return train_fold(SongTraining, recipe, fold, options, options.load_data())


def begun(options: SongOptions, recipe: SongRecipe) -> SongTraining:
    return SongTraining(options.adapt(recipe), 0, options, options.load_data(), 1)


def files_of(options: SongOptions, recipe: SongRecipe = QUICK, fold: int = 0) -> FoldFiles:
    return FoldFiles(options.assets, options.adapt(recipe).name, fold)


def results(files: FoldFiles) -> list[bytes]:
    return [path.read_bytes() for path in (files.oof, files.weights)]


@contextmanager
def watched_steps(kill_at: int | None = None) -> Iterator[list[float]]:
    """Give the rates' factors of the steps that are made; before number `kill_at`, be killed."""
    step, factors = SongTraining._step, list[float]()

    def watched(self: SongTraining, batch: SongBatch, factor: float) -> Step:
        if len(factors) == kill_at:
            raise KeyboardInterrupt
        factors.append(factor)
        return step(self, batch, factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SongTraining, "_step", watched)
        yield factors


def test_a_fold_writes_weights_story_and_probabilities(song_options: SongOptions) -> None:
    fold_metadata = train(song_options)
    files, data = files_of(song_options), song_options.load_data()
    assert fold_metadata == {k: v for k, v in read_fold_metadata(files).items() if k != "sha256"}
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
    assert not files.partial.exists()
    assert why_not_done(files, song_options.run_key(song_options.adapt(QUICK), data)) is None


def test_no_mistake_is_surer_than_the_tables_count_it(song_options: SongOptions) -> None:
    training = begun(song_options, QUICK)
    labels = training.data.labels[training.validation_rows]
    certain = np.eye(4)[(labels + 1) % 4]  # of another class
    measured = training.measure(SongPredictions(certain))
    assert measured["validation_log_loss"] == pytest.approx(-np.log(PROBABILITY_MARGIN))
    assert measured["validation_accuracy"] == 0


def test_the_base_rate_is_the_training_rows_classes(song_options: SongOptions) -> None:
    fold_metadata, data = train(replace(song_options, epochs=1)), song_options.load_data()
    shares = np.bincount(data.labels[data.training_rows(0)]) / len(data.training_rows(0))
    np.testing.assert_allclose(fold_metadata["base_rate"], shares)
    given = shares[data.labels[data.validation_rows(0)]]
    assert fold_metadata["base_rate_log_loss"] == pytest.approx(-np.log(given).mean())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_saved_weights_are_half_and_predict_what_was_written(
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
        load_model(Member(0, files, fold_metadata)),
        data.features(recipe.features),
        [data.filenames[row] for row in data.validation_rows(0)],
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    oof = pd.read_csv(files.oof)[["p0", "p1", "p2", "p3"]].to_numpy()
    assert len(np.unique(oof[:, 0])) == len(oof)
    np.testing.assert_allclose(probabilities, oof, atol=2e-3)


def test_statistics_beyond_half_survive(song_options: SongOptions) -> None:
    class Loud(SongTraining):
        def build_model(self) -> Any:
            model = super().build_model()
            with torch.no_grad():
                next(p for p in model.parameters() if p.ndim == 4).mul_(1e4)
            return model

    train_fold(Loud, QUICK, 0, song_options, song_options.load_data())
    tensors = load_file(files_of(song_options).weights)
    variance = tensors["layers.1.running_var"]
    assert variance.max() > torch.finfo(torch.float16).max and variance.isfinite().all()


@pytest.mark.slow
def test_training_learns(song_options: SongOptions) -> None:
    recipe = replace(QUICK.with_epochs(12), learning_rate=1e-2, milestones=(9,))
    fold_metadata = train(song_options, recipe)
    losses = [epoch["train_log_loss"] for epoch in fold_metadata["epochs"]]
    assert losses[-1] < 0.5 * losses[0]
    assert fold_metadata["log_loss"] < fold_metadata["base_rate_log_loss"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_command_gives_the_same_bytes(song_options: SongOptions, name: str) -> None:
    recipe = RECIPES[name]
    train(song_options, recipe)
    first = results(files_of(song_options, recipe))
    torch.manual_seed(77)  # whatever the process has drawn before
    train(song_options, recipe)
    assert results(files_of(song_options, recipe)) == first


def test_another_seed_is_another_model(song_options: SongOptions) -> None:
    train(song_options)
    fold_metadata = train(replace(song_options, seed=2))
    assert fold_metadata["model"] == "cnn4_s2"
    assert (fold_metadata["recipe"]["seed"], fold_metadata["recipe"]["data_seed"]) == (2, 2)
    other = files_of(replace(song_options, seed=2))
    assert other.oof.name == "cnn4_s2_0.oof.csv"
    assert other.oof.read_bytes() != files_of(song_options).oof.read_bytes()


def test_a_story_says_how_to_train_it_again(song_options: SongOptions) -> None:
    again = replace(song_options, seed=3, epochs=1, set=("dropout=0.1",))
    fold_metadata = train(again)
    words = fold_metadata["retrain_command"].split()
    assert words[:3] == ["python", "-m", "hearback.songs.recipes.cnn4"] and words[-2:] == [
        "--attempt",
        "2",
    ]
    command, asked = read_command("cnn4_s3", words)
    assert command == words[1:] and (asked.fold, asked.attempt) == (0, 2)
    assert SongOptions.gather(asked) == again


@pytest.mark.slow
def test_workers_change_nothing_of_a_fold(song_options: SongOptions) -> None:
    train(song_options, MIXED)
    first = results(files_of(song_options, MIXED))
    train(replace(song_options, workers=2), MIXED)
    assert results(files_of(song_options, MIXED)) == first


@pytest.mark.parametrize(
    ("name", "n_steps"),  # of 4 an epoch: in the first, after it, in the second
    [("sgd", 2), ("sgd", 4), ("sgd", 6), ("adam", 6), ("adamw", 2), ("adamw", 6)],
)
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(
    song_options: SongOptions, name: str, n_steps: int
) -> None:
    recipe = RECIPES[name]
    files = files_of(song_options, recipe)
    with watched_steps() as factors:
        train(song_options, recipe)
    undisturbed = results(files)
    for path in (files.metadata, files.oof, files.weights):
        path.unlink()

    keep_each_step = replace(song_options, checkpoint_minutes=0)
    with watched_steps(kill_at=n_steps) as first, pytest.raises(KeyboardInterrupt):
        train(keep_each_step, recipe)
    assert files.partial.exists()
    torch.manual_seed(n_steps)  # another process starts with other random numbers
    with watched_steps() as rest:
        train(keep_each_step, recipe)
    assert [*first, *rest] == factors and (len(first), len(factors)) == (n_steps, 8)
    assert results(files) == undisturbed


def test_what_is_kept_on_the_way_has_the_batch_norms_statistics(song_options: SongOptions) -> None:
    options = replace(song_options, checkpoint_minutes=0)
    with watched_steps(kill_at=2), pytest.raises(KeyboardInterrupt):
        train(options)
    fresh = build(QUICK).state_dict()
    goes_on = begun(options, QUICK).model.state_dict()
    for name, tensor in goes_on.items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 2
        elif "running" in name:
            assert not torch.equal(tensor, fresh[name]), name


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 3)])
def test_which_epoch_is_kept(
    song_options: SongOptions, monkeypatch: pytest.MonkeyPatch, keep: Any, kept: int
) -> None:
    losses, weights = iter([1.0, 0.5, 0.75]), []

    def measure(self: SongTraining, predictions: Any) -> dict[str, float]:
        weights.append(self.model.get_parameter("classifier.weight").detach().half().clone())
        return {"validation_log_loss": next(losses), "validation_accuracy": 0.5}

    monkeypatch.setattr(SongTraining, "measure", measure)
    recipe = replace(QUICK.with_epochs(3), keep=keep)
    fold_metadata = train(song_options, recipe)
    assert fold_metadata["best_epoch"] == kept
    assert fold_metadata["log_loss"] == (0.5, 0.75)[kept - 2]
    tensor = load_file(files_of(song_options, recipe).weights)["classifier.weight"]
    assert [torch.equal(tensor, each) for each in weights].index(True) == kept - 1


def test_a_plateau_lowers_the_rate_also_after_going_on(
    song_options: SongOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"validation_log_loss": 1.0, "validation_accuracy": 0.5}
    monkeypatch.setattr(SongTraining, "measure", lambda self, predictions: same)
    recipe = replace(PLATEAU.with_epochs(5), average_decay=0.0, patience_epochs=1)
    with watched_steps() as factors:
        train(song_options, recipe)
    by_epoch = np.array(factors).reshape(5, -1)
    n_steps = by_epoch.shape[1]
    np.testing.assert_allclose(by_epoch, np.array([[1, 1, 1, 0.1, 0.1]]).T * np.ones(n_steps))
    files_of(song_options, recipe).metadata.unlink()
    with watched_steps(kill_at=3 * n_steps + 1), pytest.raises(KeyboardInterrupt):
        train(song_options, recipe)
    with watched_steps() as rest:
        train(song_options, recipe)
    assert rest == factors[3 * n_steps :]  # the fourth epoch from its beginning


def batches_of(options: SongOptions, recipe: SongRecipe, n_epochs: int = 1) -> list[SongBatch]:
    training = begun(options, recipe)
    return [batch for _, batches in training.load_epochs(range(n_epochs)) for batch in batches]


def test_an_epoch_is_each_training_row_once(song_options: SongOptions) -> None:
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


def test_balanced_draws_make_the_classes_alike(song_options: SongOptions) -> None:
    n_epochs = 20
    labels = song_options.load_data().labels
    counts = {}
    for balanced in (False, True):
        recipe = replace(QUICK, balanced_draws=balanced)
        batches = batches_of(song_options, recipe, n_epochs)
        counts[balanced] = np.bincount(labels[torch.cat([batch.rows for batch in batches])])
    assert counts[True].sum() == counts[False].sum()
    # Of 4 classes alike, three standard deviations.
    n_drawn = counts[True].sum()
    spread = 3 * np.sqrt(n_drawn * 0.25 * 0.75)
    assert np.abs(counts[True] - n_drawn / 4).max() < spread
    assert np.abs(counts[False] - n_drawn / 4).max() > spread


def test_mix_up_mixes_features_and_targets_alike(song_options: SongOptions) -> None:
    plain = batches_of(song_options, QUICK)
    mixed = batches_of(song_options, replace(QUICK, mix_up=5.0))
    for before, after in zip(plain, mixed, strict=True):
        assert torch.equal(before.rows, after.rows)
        torch.testing.assert_close(after.targets.sum(dim=1), torch.ones(len(after)))
        # Both are the same linear map of the batch; find it from the features.
        flat, mixture = before.features.flatten(1), after.features.flatten(1)
        shares = torch.linalg.lstsq(flat.T.double(), mixture.T.double()).solution.T
        torch.testing.assert_close(
            shares.float() @ before.targets, after.targets, atol=1e-3, rtol=0
        )
    targets = torch.cat([batch.targets for batch in mixed])
    assert ((targets > 0.01) & (targets < 0.99)).any()


@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_reach_the_loss(song_options: SongOptions, weighted: bool) -> None:
    training = begun(song_options, replace(QUICK, class_weights=weighted))
    labels = training.data.labels
    counts = np.bincount(labels[training.train_rows])
    weights = counts.sum() / (4 * counts) if weighted else np.ones(4)
    assert not weighted or np.ptp(weights) > 0.1
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.25, 0.75], [0, 0, 0, 1.0]])
    batch = SongBatch(torch.zeros(4, 299, 40), targets, torch.arange(4))
    expected = -(targets * torch.from_numpy(weights) * F.log_softmax(logits, dim=1)).sum()
    assert training.losses(logits, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_class_that_no_training_row_has_cannot_be_weighed(song_options: SongOptions) -> None:
    few = replace(song_options, limit=20, n_folds=2)  # no woman, and never several
    with pytest.raises(HearbackError, match="no training snippet is of class 2, 3"):
        begun(few, MIXED)


def test_the_head_has_a_rate_of_its_own(song_options: SongOptions, backbone: Path) -> None:
    options = replace(song_options, backbone=str(backbone))
    training = begun(options, WHISPER)
    first, rest = training.optimizer.param_groups
    assert (first["peak_lr"], rest["peak_lr"]) == (1e-4, 1e-3)
    ours = {id(parameter) for parameter in training.model.get_submodule("encoder").parameters()}
    assert {id(parameter) for parameter in first["params"]} <= ours
    assert not {id(parameter) for parameter in rest["params"]} & ours
    frozen = begun(options, replace(WHISPER, frozen_share=1.0))
    n_trained = sum(len(group["params"]) for group in frozen.optimizer.param_groups)
    assert n_trained == sum(p.requires_grad for p in frozen.model.parameters())
    assert n_trained < sum(len(g["params"]) for g in training.optimizer.param_groups)


@pytest.fixture
def snippets(songs_folder: Path) -> Callable[..., SnippetDataset]:
    """Return a fold's training snippets, altered in nothing but what is asked for."""
    data = read_options(*training_flags(songs_folder, songs_folder)).load_data()
    store, rows = data.features("waveform"), data.training_rows(0)
    mixer = Mixer(rows, data.labels, data.snippets["singers"].to_numpy(dtype=str))
    recipe = replace(WHISPER, mixtures=0, speed=0, shuffled=0, augment=SpectrogramAugmentation())

    def altered(**changes: Any) -> SnippetDataset:
        asked = replace(recipe, **changes)
        return SnippetDataset(store, data.filenames, rows, asked, mixer=mixer, seeds=(1, 1, 0))

    return altered


def in_pairs(
    snippets: SnippetDataset, others: SnippetDataset
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give each snippet's waveforms in both, of the same rows."""
    assert len(snippets) == len(others)
    for number in range(len(snippets)):
        (row, waveform), (same_row, other) = snippets[number], others[number]
        assert row == same_row
        yield waveform, other


def n_other(snippets: SnippetDataset, others: SnippetDataset) -> int:
    return sum(not np.array_equal(one, other) for one, other in in_pairs(snippets, others))


@pytest.mark.parametrize("alteration", ["mixtures", "speed", "shuffled"])
def test_snippets_are_altered_as_often_as_the_recipe_says(
    snippets: Callable[..., SnippetDataset], alteration: str
) -> None:
    plain, some, every = (snippets(**{alteration: share}) for share in (0.0, 0.5, 1.0))
    for number, row in enumerate(plain.rows):
        np.testing.assert_array_equal(plain[number][1], plain.store.get(plain.filenames[row]))
    assert 0 < n_other(some, plain) < n_other(every, plain) == len(plain)
    assert n_other(every, snippets(**{alteration: 1.0})) == 0
    for sound, altered in in_pairs(plain, every):
        assert altered.shape == sound.shape and altered.dtype == np.float32


def test_sounds_are_played_a_little_faster_or_slower(
    snippets: Callable[..., SnippetDataset],
) -> None:
    def highest_hz(waveform: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(waveform[:24_000]))
        return np.fft.rfftfreq(24_000, 1 / 16_000)[spectrum > 0.5 * spectrum.max()].max()

    pairs = in_pairs(snippets(), snippets(speed=1.0))
    rates = [highest_hz(altered) / highest_hz(plain) for plain, altered in pairs]
    assert 0.88 < min(rates) < 0.97 and 1.03 < max(rates) < 1.12


def test_what_is_mixed_is_played_at_other_speeds_too(
    snippets: Callable[..., SnippetDataset],
) -> None:
    mixed = snippets(mixtures=1.0)
    assert n_other(snippets(mixtures=1.0, speed=1.0), mixed) == len(mixed)


@pytest.mark.slow
def test_a_whisper_is_trained_and_goes_on(song_options: SongOptions, backbone: Path) -> None:
    options = replace(song_options, backbone=str(backbone), checkpoint_minutes=0)
    recipe = replace(WHISPER.with_epochs(2), batch_size=8, mixtures=0.5, frozen_share=0.5)
    files = files_of(options, recipe)
    fold_metadata = train(options, recipe)
    undisturbed = results(files)
    assert fold_metadata["shape"]["d_model"] and fold_metadata["recipe"]["backbone"] == str(
        backbone
    )
    load_model(Member(0, files, fold_metadata))  # without the backbone
    files.metadata.unlink()
    with watched_steps(kill_at=5), pytest.raises(KeyboardInterrupt):
        train(options, recipe)
    train(options, recipe)
    assert results(files) == undisturbed


@pytest.mark.slow
def test_a_resnet_is_trained(song_options: SongOptions) -> None:
    fold_metadata = train(replace(song_options, epochs=1), replace(RESNET34, batch_size=8))
    tensors = load_file(files_of(song_options, RESNET34).weights)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert fold_metadata["epochs"][0]["validation_log_loss"] < 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_folds": 1}, "at least 2 folds"),
        ({"n_folds": 13}, "12 singers cannot make 13 folds"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"set": ("features=waveform",)}, "features is waveform"),
        ({"seed": 0}, "seed is 0"),
    ],
)
def test_what_cannot_be_is_an_error_in_words(
    song_options: SongOptions, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(HearbackError, match=said):
        train(replace(song_options, **change))


def test_a_backbone_that_is_not_there_is_an_error(song_options: SongOptions) -> None:
    with pytest.raises(HearbackError, match="such-backbone"):
        train(replace(song_options, backbone="no/such-backbone"), WHISPER)


def test_what_changes_a_training_is_in_its_identity(song_options: SongOptions) -> None:
    data = song_options.load_data()

    def run_key(**changes: Any) -> dict[str, Any]:
        options = replace(song_options, **changes)
        return options.run_key(options.adapt(CNN4), data)

    for change in ({"seed": 2}, {"group_by": "none"}, {"limit": 30}, {"set": ("mix_up=0",)}):
        assert run_key(**change) != run_key()
    assert run_key(workers=2, runs=Path("elsewhere")) == run_key()
    separated = replace(data, separation={"backend": "repet"})
    assert song_options.run_key(song_options.adapt(CNN4), separated) != run_key()


def test_flags_survive_the_way_to_another_process(song_options: SongOptions) -> None:
    asked = replace(song_options, limit=20, set=("dropout=0.1", "keep=best"), strict=True, seed=4)
    asked = replace(asked, separate="repet", group_by="none", backbone="openai/whisper-base")
    assert read_options(*asked.as_flags()) == asked


def test_a_loss_that_is_not_finite_names_the_snippets(song_options: SongOptions) -> None:
    class Broken(SongTraining):
        def compute_logits(self, batch: SongBatch) -> tuple[Tensor, Tensor]:
            logits, others = super().compute_logits(batch)
            poison = torch.zeros_like(logits)
            poison[batch.rows == self.train_rows[0]] = torch.nan
            return logits + poison, others

    data = song_options.load_data()
    with pytest.raises(HearbackError, match="attempts stalled") as told:
        train_fold(Broken, QUICK, 0, song_options, data)
    assert data.filenames[data.training_rows(0)[0]] in str(told.value)


# (train, validation) log loss of each epoch, as in tests/test_pinned_losses.py.
PINNED: list[tuple[float, float]] = [(1.26138, 1.32395), (1.16121, 1.27599)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order: batch normalisation makes much of the last bits of others."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.usefixtures("full_width", "one_thread")
def test_the_losses_of_a_tiny_training_stay(song_options: SongOptions) -> None:
    # SGD: Adam's first steps are as long where a gradient is rounding alone, which differs between
    # processors, and moved these losses by 2e-4; instruction sets move SGD's by 1e-5.
    recipe = replace(CNN4.with_epochs(2), batch_size=8, optimizer="sgd", learning_rate=1e-2)
    fold_metadata = train(song_options, recipe, fold=1)
    found = [(e["train_log_loss"], e["validation_log_loss"]) for e in fold_metadata["epochs"]]
    for epoch, (losses, pinned) in enumerate(zip(found, PINNED, strict=True)):
        assert losses == pytest.approx(pinned, abs=1e-4), f"epoch {epoch}: {found}"
