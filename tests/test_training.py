from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hearback import checkpoint, cli, training
from hearback.audio import SAMPLE_RATE
from hearback.augment import Augmentation
from hearback.checkpoint import FoldFiles, read_story, why_not_done
from hearback.errors import HearbackError
from hearback.evaluation import row_log_loss
from hearback.models import Scorer
from hearback.options import TrainingOptions, add_options, options_from
from hearback.pairs import Batch
from hearback.recipe import Recipe
from hearback.tables import BadInput
from train_model3mapd import RECIPE

QUICK = replace(
    RECIPE,
    batch_size=4,
    learning_rate=1e-2,
    dropout=0.0,
    epochs=2,
    schedule_epochs=2,
    augment_learner=Augmentation(gain=0.5, noise=0.5),
    augment_reference=Augmentation(gain=0.5),
)


@pytest.fixture
def options(make_corpus: Callable[..., Path], backbone: Path) -> TrainingOptions:
    folder = make_corpus()
    parser = cli.parser(None)
    add_options(parser)
    names = ("data", "tts_data", "store", "assets", "runs")
    folders = [part for name in names for part in (f"--{name}", str(folder / name))]
    flags = [*folders, "--n_folds", "3", "--device", "cpu", "--backbone", str(backbone)]
    return options_from(parser.parse_args(flags))


def files_of(options: TrainingOptions, fold: int = 0) -> FoldFiles:
    return FoldFiles(options.assets, QUICK.name, fold)


def train(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> Any:
    return training.train_fold(recipe, fold, options, options.load_data())


def test_a_fold_writes_weights_story_and_predictions(options: TrainingOptions) -> None:
    story = train(options)
    files, data = files_of(options), options.load_data()
    assert story == {k: v for k, v in read_story(files).items() if k != "sha256"}
    oof = pd.read_csv(files.oof)
    held_out = data.metadata["filename"][data.folds == 0]
    assert list(oof.columns) == ["filename", "score", "pred"]
    assert sorted(oof["filename"]) == sorted(held_out)
    best = min(epoch["validation_log_loss"] for epoch in story["epochs"])
    assert story["log_loss"] == best
    assert row_log_loss(oof["score"], oof["pred"]).mean() == pytest.approx(best, abs=1e-6)
    assert [epoch["epoch"] for epoch in story["epochs"]] == [1, 2]
    assert all(norm > 0 for epoch in story["epochs"] for norm in epoch["gradient_norms"])
    assert not files.partial.exists()
    adapted = options.adapt(QUICK)
    assert why_not_done(files, options.identity(adapted, data)) is None


def test_saved_weights_are_half_and_predict_what_was_written(
    options: TrainingOptions,
) -> None:
    story = train(options)
    files, data = files_of(options), options.load_data()
    scorer = checkpoint.load_scorer(files, story)
    rows = np.flatnonzero(data.folds == 0)
    predictions = training.predict(
        scorer,
        data.source,
        rows,
        options.adapt(QUICK),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    np.testing.assert_allclose(predictions, pd.read_csv(files.oof)["pred"], atol=2e-3)


def test_training_learns(options: TrainingOptions) -> None:
    recipe = replace(QUICK, epochs=8, schedule_epochs=8)
    losses = [epoch["train_log_loss"] for epoch in train(options, recipe)["epochs"]]
    assert losses[-1] < 0.9 * losses[0]


def test_a_fixed_window_is_always_16_seconds(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = set()
    forward = Scorer.forward

    def measured(self: Scorer, batch: Batch) -> torch.Tensor:
        lengths.add(batch.waveforms.shape[1] / SAMPLE_RATE)
        return forward(self, batch)

    monkeypatch.setattr("hearback.models.Scorer.forward", measured)
    train(replace(options, epochs=1))
    assert max(lengths) < 4
    lengths.clear()
    train(replace(options, epochs=1, window="fixed"))
    assert lengths == {16}


def test_the_same_command_gives_the_same_predictions(options: TrainingOptions) -> None:
    train(options)
    first = files_of(options).oof.read_bytes()
    train(options)
    assert files_of(options).oof.read_bytes() == first


def test_neither_workers_nor_the_order_of_the_table_change_a_fold(
    options: TrainingOptions,
) -> None:
    train(options)
    first = files_of(options).oof.read_bytes()
    train(replace(options, workers=2))
    assert files_of(options).oof.read_bytes() == first


def test_another_attempt_has_other_random_numbers(options: TrainingOptions) -> None:
    first = train(options)
    second = training.train_fold(QUICK, 0, options, options.load_data(), attempt=2)
    assert first["epochs"][0]["train_log_loss"] != second["epochs"][0]["train_log_loss"]
    assert second["attempt"] == 2


def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(options)
    undisturbed = files_of(options).oof.read_bytes()
    files_of(options).story.unlink()

    run_epoch = training.FoldTraining.run_epoch

    def killed_in_the_second_epoch(self: training.FoldTraining, scalars: Any) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        run_epoch(self, scalars)

    with monkeypatch.context() as patch:
        patch.setattr(training.FoldTraining, "run_epoch", killed_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(options)
    assert files_of(options).partial.exists()

    epochs_run = []

    def counted(self: training.FoldTraining, scalars: Any) -> None:
        epochs_run.append(self.epoch)
        run_epoch(self, scalars)

    monkeypatch.setattr(training.FoldTraining, "run_epoch", counted)
    train(options)
    assert epochs_run == [1]
    assert files_of(options).oof.read_bytes() == undisturbed


def test_a_changed_recipe_is_not_done_and_says_what_changed(
    options: TrainingOptions,
) -> None:
    train(options)
    changed = options.adapt(replace(QUICK, dropout=0.3))
    reason = why_not_done(files_of(options), options.identity(changed, options.load_data()))
    assert reason == "its recipe changed since (dropout)"


def test_a_changed_label_is_another_training_set(options: TrainingOptions) -> None:
    before = options.load_data().fingerprint
    labels = options.data / "train_labels.csv"
    table = pd.read_csv(labels)
    table.loc[0, "score"] = 1 - table.loc[0, "score"]
    table.to_csv(labels, index=False)
    assert options.load_data().fingerprint != before


def test_training_refuses_bad_rows_and_names_them_all(options: TrainingOptions) -> None:
    (options.data / "train003.wav").write_bytes(b"no audio")
    (options.data / "train005.wav").unlink()
    metadata = options.data / "train_metadata.csv"
    metadata.write_text(metadata.read_text().replace("7.wav,sentence_rep", "7.wav,word_rep"))
    with pytest.raises(BadInput) as refusal:
        options.load_data()
    for told in ("train003.wav", "train005.wav", "train007.wav", "unknown task"):
        assert told in str(refusal.value)


def test_a_text_without_reference_is_reported_with_its_row(
    options: TrainingOptions,
) -> None:
    metadata = options.data / "train_metadata.csv"
    metadata.write_text(metadata.read_text().replace("a red hat", "a blue hat"))
    with pytest.raises(BadInput, match=r"(?s)'a blue hat'.*python preprocess\.py"):
        options.load_data()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_folds": 1}, "at least 2 folds"),
        ({"n_folds": 12}, "cannot make 12 folds"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"backbone": "no/such-backbone"}, "such-backbone"),
    ],
)
def test_what_cannot_be_is_an_error_in_words(
    options: TrainingOptions, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(HearbackError, match=said):
        train(replace(options, **change))


def test_a_fold_beyond_the_last_is_refused(options: TrainingOptions) -> None:
    with pytest.raises(HearbackError, match="folds are 0 to 2"):
        train(options, fold=3)


def test_a_poisoned_batch_stops_the_training(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(self: Scorer, batch: Batch) -> torch.Tensor:
        some_weight = next(self.head.parameters())
        return some_weight.sum() * torch.full((len(batch),), float("nan"))

    monkeypatch.setattr("hearback.models.Scorer.forward", poisoned)
    with pytest.raises(HearbackError, match="the loss is nan in epoch 1"):
        train(options)


def test_the_learning_rate_warms_up_and_follows_the_cosine() -> None:
    recipe = replace(QUICK, epochs=4, schedule_epochs=5, cycles=0.25, warmup_share=0.02)
    rates = [training.learning_rate_factor(recipe, done) for done in (0, 0.05, 0.1, 5)]
    np.testing.assert_allclose(rates, [0.01, 0.5, 1.0, 0.5], atol=1e-9)
    to_zero = replace(recipe, schedule_epochs=4, cycles=0.5)
    assert training.learning_rate_factor(to_zero, 4) == pytest.approx(0, abs=1e-12)


def test_negatives_pair_correct_learners_with_other_texts_of_their_task(
    options: TrainingOptions,
) -> None:
    data = options.load_data()
    rows = np.arange(len(data.labels))
    rng = np.random.default_rng(0)
    learners, texts = training.draw_pairs(rows, data, 2.0, rng)
    own = learners == texts
    assert sorted(learners[own]) == list(rows)
    assert (~own).sum() > len(rows) / 4
    assert (data.labels[learners[~own]] == 1).all()
    table = data.metadata
    for learner, text in zip(learners[~own], texts[~own], strict=True):
        assert table["task"][learner] == table["task"][text]
        assert table["expected_text"][learner] != table["expected_text"][text]


def test_flags_survive_the_way_to_another_process(options: TrainingOptions) -> None:
    asked = replace(options, limit=20, set=("dropout=0.1", "window=fixed"), strict=True)
    parser = cli.parser(None)
    add_options(parser)
    assert options_from(parser.parse_args(asked.as_flags())) == asked
