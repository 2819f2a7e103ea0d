import multiprocessing
import re
import shutil
import time
from dataclasses import replace
from multiprocessing.synchronize import Event as EventOfProcesses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.problems import BadInput
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.metrics import row_log_loss
from hearback.engine.training.fold_files import (
    FoldFiles,
    lock_fold,
    read_fold_metadata,
    why_not_done,
)
from hearback.engine.training.stall_detector import Step
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import Trainer
from hearback.reading import training
from hearback.reading.augment import Augmentation
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.models import load
from hearback.reading.models.scorers import JoinedScorer, TokenScorer
from hearback.reading.options import TrainingOptions, add_options, options_from
from hearback.reading.recipe import Recipe
from hearback.reading.render import render_missing
from hearback.reading.window_batches import Batch
from tests.conftest import ToneVoice
from tests.soak import stalls
from tests.soak.stalls import Stall, injected
from train_model3mapd import RECIPE
from train_modeltok import RECIPE as TOKENS
from train_modeltokown import RECIPE as OWN

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
QUICK_TOKENS, QUICK_OWN = (
    replace(
        recipe,
        batch_size=4,
        learning_rate=1e-3,
        head_learning_rate=1e-2,
        dropout=0.0,
        epochs=2,
        schedule_epochs=2,
        frozen_share=0.0,
        augment_learner=Augmentation(gain=0.5, noise=0.5),
        average_decay=0.5,
    )
    for recipe in (TOKENS, OWN)
)


@pytest.fixture(autouse=True)
def letters_as_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pronounce texts letter by letter: fast, and no voice package is needed."""
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )


def files_of(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> FoldFiles:
    return FoldFiles(options.assets, recipe.name, fold)


def train(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> Any:
    return training.train_fold(recipe, fold, options, options.load_data())


def make_trainer(options: TrainingOptions, recipe: Recipe) -> Trainer:
    run = FoldRun(options.adapt(recipe), 0, options, options.load_data())
    return Trainer(training.ReadingTask(run), run)


def test_fold_writes_weights_metadata_and_predictions(options: TrainingOptions) -> None:
    fold_metadata = train(options)
    files, data = files_of(options), options.load_data()
    assert fold_metadata == {k: v for k, v in read_fold_metadata(files).items() if k != "sha256"}
    oof = pd.read_csv(files.oof)
    held_out = data.metadata["filename"][data.folds == 0]
    assert list(oof.columns) == ["filename", "score", "pred"]
    assert sorted(oof["filename"]) == sorted(held_out)
    best = min(epoch["validation_log_loss"] for epoch in fold_metadata["epochs"])
    assert fold_metadata["log_loss"] == best
    assert row_log_loss(oof["score"], oof["pred"]).mean() == pytest.approx(best, abs=1e-6)
    assert [epoch["epoch"] for epoch in fold_metadata["epochs"]] == [1, 2]
    assert all(norm > 0 for epoch in fold_metadata["epochs"] for norm in epoch["gradient_norms"])
    assert not files.checkpoint.exists()
    adapted = options.adapt(QUICK)
    assert why_not_done(files, options.run_key(adapted, data)) is None


def test_another_seed_is_another_model(options: TrainingOptions) -> None:
    own = train(replace(options, seed=QUICK.seed))
    assert own["model"] == QUICK.name and "--seed" not in own["retrain_command"]
    other = train(replace(options, seed=5))
    assert other["model"] == f"{QUICK.name}_s5"
    assert other["retrain_command"].startswith(f"python train_{QUICK.name}.py --fold 0 ")
    assert "--seed 5" in other["retrain_command"]
    assert other["log_loss"] != own["log_loss"]
    assert (
        files_of(options).oof.read_bytes()
        != FoldFiles(options.assets, other["model"], 0).oof.read_bytes()
    )


@pytest.mark.parametrize("recipe", [QUICK, QUICK_TOKENS, QUICK_OWN], ids=lambda r: r.name)
def test_saved_weights_reproduce_the_out_of_fold_predictions(
    options: TrainingOptions, backbone: Path, tmp_path: Path, recipe: Recipe
) -> None:
    copy = tmp_path / "backbone"
    shutil.copytree(backbone, copy)
    fold_metadata = train(replace(options, backbone=str(copy)), recipe)
    shutil.rmtree(copy)  # a trained fold needs only its own files
    files, data = files_of(options, recipe), options.load_data()
    scorer = load.load_scorer(files, fold_metadata)
    rows = np.flatnonzero(data.folds == 0)
    predictions = training.predict(
        scorer, data.source, rows, device=torch.device("cpu"), dtype=torch.float32
    )
    oof = pd.read_csv(files.oof)["pred"]
    assert oof.nunique() == len(rows)
    np.testing.assert_allclose(predictions.clips, oof, atol=2e-3)
    assert files.table("words").exists() == (recipe is QUICK_TOKENS)


def test_training_loss_falls(options: TrainingOptions) -> None:
    recipe = replace(QUICK, epochs=8, schedule_epochs=8)
    losses = [epoch["train_log_loss"] for epoch in train(options, recipe)["epochs"]]
    assert losses[-1] < 0.9 * losses[0]


def test_fixed_window_is_always_16_seconds(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = set()
    forward = JoinedScorer.forward

    def recorded(self: JoinedScorer, batch: Batch) -> torch.Tensor:
        lengths.add(batch.waveforms.shape[1] / SAMPLE_RATE)
        return forward(self, batch)

    monkeypatch.setattr(JoinedScorer, "forward", recorded)
    train(replace(options, epochs=1))
    assert max(lengths) < 4
    lengths.clear()
    train(replace(options, epochs=1, window="fixed"))
    assert lengths == {16}


def test_training_is_deterministic(options: TrainingOptions) -> None:
    train(options)
    first = files_of(options).oof.read_bytes()
    train(options)
    assert files_of(options).oof.read_bytes() == first


@pytest.mark.parametrize("recipe", [QUICK, QUICK_TOKENS], ids=lambda recipe: recipe.name)
def test_predictions_do_not_depend_on_the_number_of_workers(
    options: TrainingOptions, recipe: Recipe
) -> None:
    options = replace(options, epochs=1)
    train(options, recipe)
    first = files_of(options, recipe).oof.read_bytes()
    train(replace(options, workers=2), recipe)
    assert files_of(options, recipe).oof.read_bytes() == first


def test_another_attempt_has_other_random_numbers(options: TrainingOptions) -> None:
    first = train(options)
    second = training.train_fold(QUICK, 0, options, options.load_data(), attempt=2)
    assert first["epochs"][0]["train_log_loss"] != second["epochs"][0]["train_log_loss"]
    assert second["attempt"] == 2


@pytest.mark.parametrize("recipe", [QUICK, QUICK_TOKENS], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize(
    "n_steps", [2, 7, 9]
)  # of 6 per epoch; the last checkpoint is one step earlier
def test_resumed_training_is_bit_exact(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, n_steps: int
) -> None:
    files = files_of(options, recipe)
    recipe = replace(recipe, dropout=0.3)
    train(options, recipe)
    uninterrupted = [path.read_bytes() for path in (files.oof, files.weights)]
    for path in (files.metadata, files.oof, files.weights):
        path.unlink()

    steps: list[float] = []
    training_step = Trainer.training_step

    def killed(self: Trainer, batch: Batch, factor: float) -> Step:
        if len(steps) == n_steps:
            raise KeyboardInterrupt
        steps.append(factor)
        return training_step(self, batch, factor)

    save_each_step = replace(options, checkpoint_minutes=0)
    monkeypatch.setattr(Trainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(save_each_step, recipe)
    assert files.checkpoint.exists()
    torch.manual_seed(n_steps)  # another process starts with other random numbers

    steps_left = []

    def counted(self: Trainer, batch: Batch, factor: float) -> Step:
        steps_left.append(factor)
        return training_step(self, batch, factor)

    monkeypatch.setattr(Trainer, "training_step", counted)
    fold_metadata = train(save_each_step, recipe)
    n_total = sum(len(epoch.get("gradient_norms", ())) for epoch in fold_metadata["epochs"])
    assert len(steps) + len(steps_left) == n_total
    assert [path.read_bytes() for path in (files.oof, files.weights)] == uninterrupted


def test_changed_recipe_is_not_done(
    options: TrainingOptions,
) -> None:
    train(options)
    changed = options.adapt(replace(QUICK, dropout=0.3))
    reason = why_not_done(files_of(options), options.run_key(changed, options.load_data()))
    assert reason == "its recipe changed since (dropout)"


def test_changed_label_changes_the_fingerprint(options: TrainingOptions) -> None:
    before = options.load_data().fingerprint
    labels = options.data / "train_labels.csv"
    table = pd.read_csv(labels)
    table.loc[0, "score"] = 1 - table.loc[0, "score"]
    table.to_csv(labels, index=False)
    assert options.load_data().fingerprint != before


def test_all_bad_rows_are_reported(options: TrainingOptions) -> None:
    (options.data / "train003.wav").write_bytes(b"no audio")
    (options.data / "train005.wav").unlink()
    metadata = options.data / "train_metadata.csv"
    metadata.write_text(metadata.read_text().replace("7.wav,sentence_rep", "7.wav,word_rep"))
    with pytest.raises(BadInput) as refusal:
        options.load_data()
    for part in ("train003.wav", "train005.wav", "train007.wav", "unknown task"):
        assert part in str(refusal.value)


def test_text_without_reference_is_reported(
    options: TrainingOptions,
) -> None:
    metadata = options.data / "train_metadata.csv"
    metadata.write_text(metadata.read_text().replace("a red hat", "a blue hat"))
    with pytest.raises(BadInput, match=r"(?s)'a blue hat'.*python preprocess\.py"):
        options.load_data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_folds": 1}, "at least 2 folds"),
        ({"n_folds": 12}, "cannot make 12 folds"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"backbone": "no/such-backbone"}, "such-backbone"),
    ],
)
def test_invalid_options_are_errors(
    options: TrainingOptions, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        train(replace(options, **change))


def test_fold_beyond_the_last_is_an_error(options: TrainingOptions) -> None:
    with pytest.raises(HearbackError, match="folds are 0 to 2"):
        train(options, fold=3)


@pytest.mark.slow
@pytest.mark.parametrize("stall", stalls.IMMEDIATE.values(), ids=stalls.IMMEDIATE.keys())
def test_next_attempt_follows_a_stalled_one(options: TrainingOptions, stall: Stall) -> None:
    options, recipe = replace(options, precision=stall.precision), QUICK.with_epochs(4)
    training.train_fold(recipe, 0, options, options.load_data(), attempt=2)
    files = files_of(options)
    expected = [path.read_bytes() for path in (files.oof, files.weights)]
    files.metadata.unlink()

    with injected(stall.fault, attempts=[1]) as steps:
        fold_metadata = train(options, recipe)
    n_steps = steps.count(1)
    assert n_steps <= 20
    assert fold_metadata["attempt"] == 2
    assert fold_metadata["retrain_command"].endswith("--attempt 3")
    first, second = fold_metadata["attempts"]
    assert (first["attempt"], first["outcome"]) == (1, "stalled")
    assert re.search(stall.reason, first["reason"])
    assert len(first["losses"]) == len(first["gradient_norms"]) == n_steps
    assert (first["epoch"], first["step"]) == (1 + (n_steps - 1) // 6, 1 + (n_steps - 1) % 6)
    assert (second["attempt"], second["outcome"], second["reason"]) == (2, "finished", None)
    assert (second["epoch"], second["step"]) == (4, 6)
    # The same as with --attempt 2.
    assert [path.read_bytes() for path in (files.oof, files.weights)] == expected
    assert read_fold_metadata(files)["attempts"] == fold_metadata["attempts"]
    assert not files.checkpoint.exists()


@pytest.mark.slow
@pytest.mark.parametrize("stall", stalls.IMMEDIATE.values(), ids=stalls.IMMEDIATE.keys())
def test_three_stalled_attempts_are_an_error(options: TrainingOptions, stall: Stall) -> None:
    options, recipe = replace(options, precision=stall.precision), QUICK.with_epochs(4)
    files = files_of(options)
    with injected(stall.fault, attempts=[1, 2, 3]) as steps:
        with pytest.raises(HearbackError) as error:
            train(options, recipe)
        assert set(steps) == {1, 2, 3}
        n_steps = len(steps)
        with pytest.raises(HearbackError, match="3 attempts stalled"):
            train(options, recipe)
        assert len(steps) == n_steps  # the checkpoint records the stalls, nothing is trained
    message = str(error.value)
    for part in ("model3mapd fold 0: 3 attempts stalled", "--attempt 4", str(files.checkpoint)):
        assert part in message
    for attempt in (1, 2, 3):
        assert re.search(rf"(?m)  attempt {attempt}: epoch \d, step \d+: {stall.reason}", message)
    assert not files.metadata.exists() and not files.weights.exists()

    fold_metadata = training.train_fold(recipe, 0, options, options.load_data(), attempt=4)
    outcomes = [(past["attempt"], past["outcome"]) for past in fold_metadata["attempts"]]
    assert outcomes == [(1, "stalled"), (2, "stalled"), (3, "stalled"), (4, "finished")]


def test_training_resumes_in_its_second_attempt(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(options)
    training.train_fold(QUICK, 0, options, options.load_data(), attempt=2)
    uninterrupted = [path.read_bytes() for path in (files.oof, files.weights)]
    files.metadata.unlink()

    train_epoch = Trainer.train_epoch
    with injected(stalls.zero_gradients, attempts=[1]) as steps:
        for killed_in in (0, 1):  # at the start of the second attempt, and in its second epoch

            def killed(
                self: Trainer, n_examples: int, batches: Any, epoch: int = killed_in
            ) -> None:
                if (self.run.attempt, self.state.epoch) == (2, epoch):
                    raise KeyboardInterrupt
                train_epoch(self, n_examples, batches)

            with monkeypatch.context() as patch:
                patch.setattr(Trainer, "train_epoch", killed)
                with pytest.raises(KeyboardInterrupt):
                    train(options)
        fold_metadata = train(options)
    assert (steps.count(1), steps.count(2)) == (5, 12)
    assert [past["outcome"] for past in fold_metadata["attempts"]] == ["stalled", "finished"]
    assert [path.read_bytes() for path in (files.oof, files.weights)] == uninterrupted


def test_stall_detection_continues_after_a_resume(options: TrainingOptions) -> None:
    def zero_gradients_until_killed(trainer: Trainer, batch: Batch) -> Batch:
        if len(trainer.state.progress.losses) == 3:
            raise KeyboardInterrupt
        return stalls.zero_gradients(trainer, batch)

    options = replace(options, checkpoint_minutes=0.0)
    with injected(zero_gradients_until_killed, attempts=[1]), pytest.raises(KeyboardInterrupt):
        train(options)
    with injected(stalls.zero_gradients, attempts=[1]) as steps:
        fold_metadata = train(options)
    first = fold_metadata["attempts"][0]
    assert first["reason"].startswith("epoch 1, step 5: gradient norm 0 for 5 steps")
    assert len(first["losses"]) == 5
    assert steps.count(1) == 2


def test_stall_detection_does_not_change_a_healthy_training(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(options)
    with monkeypatch.context() as patch:
        patch.setattr(
            "hearback.engine.training.stall_detector.StallDetector.update", lambda self, step: None
        )
        train(options)
    expected = [path.read_bytes() for path in (files.oof, files.weights)]
    for fold in (1, 2):  # as siblings to compare with
        train(options, fold=fold)
    fold_metadata = train(options)
    assert [path.read_bytes() for path in (files.oof, files.weights)] == expected
    assert [past["outcome"] for past in fold_metadata["attempts"]] == ["finished"]


def test_large_sample_that_clipping_handles_is_no_stall(options: TrainingOptions) -> None:
    def large_sample(trainer: Trainer, batch: Batch) -> Batch:
        waveforms = batch.waveforms.clone()
        waveforms[0, 1000] = 1e10
        return replace(batch, waveforms=waveforms)

    with injected(large_sample, attempts=[1]):
        assert train(options)["attempt"] == 1


MANY_STEPS = replace(QUICK, batch_size=1).with_epochs(5)


@pytest.mark.slow
def test_fold_far_worse_than_the_others_is_stalled(
    options: TrainingOptions,
) -> None:
    for fold in (1, 2):
        train(options, MANY_STEPS, fold)
    with injected(stalls.constant_logits, attempts=[1]) as steps:
        first, _ = train(options, MANY_STEPS)["attempts"]
    assert "other folds there had" in first["reason"] and "loss 0.69" in first["reason"]
    assert steps.count(1) < 5 * 24


@pytest.mark.slow
def test_first_fold_that_stops_learning_is_stalled(options: TrainingOptions) -> None:
    with injected(stalls.constant_logits, attempts=[1], after=25):
        first, second = train(options, MANY_STEPS)["attempts"]
    assert "its first 20 steps had" in first["reason"]
    assert second["outcome"] == "finished"


def test_retrained_fold_records_earlier_attempts(options: TrainingOptions) -> None:
    train(options)
    for _ in range(2):
        again = training.train_fold(QUICK, 0, options, options.load_data(), attempt=2)
        assert [past["attempt"] for past in again["attempts"]] == [1, 2]
    other = train(options, replace(QUICK, seed=5))
    assert [past["attempt"] for past in other["attempts"]] == [1]


def test_learning_rate_schedule() -> None:
    recipe = replace(QUICK, epochs=4, schedule_epochs=5, cycles=0.25, warmup_share=0.02)
    rates = [training.learning_rate_factor(recipe, done) for done in (0, 0.05, 0.1, 5)]
    np.testing.assert_allclose(rates, [0.01, 0.5, 1.0, 0.5], atol=1e-9)
    to_zero = replace(recipe, schedule_epochs=4, cycles=0.5)
    assert training.learning_rate_factor(to_zero, 4) == pytest.approx(0, abs=1e-12)


def test_token_scorer_learns_from_hard_negatives_and_words(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    training_step = TokenScorer.training_step

    def recorded(self: TokenScorer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits, auxiliary = training_step(self, batch)
        assert batch.texts is not None
        losses.append((auxiliary.item(), len(batch.texts.clips) - len(batch)))
        return logits, auxiliary

    monkeypatch.setattr(TokenScorer, "training_step", recorded)
    recipe = replace(QUICK_TOKENS, hard_negatives=2.0, hard_negative_weight=0.5, word_loss=0.1)
    fold_metadata = train(options, recipe.with_epochs(6))
    data = options.load_data()
    correct = ((data.folds != 0) & (data.labels == 1)).sum()
    assert sum(n for _, n in losses) == 6 * 2 * correct
    by_epoch = np.split(np.array([loss for loss, _ in losses]), 6)
    (first, *_, last) = (loss.sum() for loss in by_epoch)
    assert last < 0.95 * first
    kept = options.assets / fold_metadata["tokenizer"]["file"]
    assert kept.read_bytes() == (Path(str(options.backbone)) / "tokenizer.json").read_bytes()


def test_token_scorer_is_initialized_from_pretrained_features(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = TokenScorer.init_from_pretrained

    def counted(self: TokenScorer, features: np.ndarray, labels: np.ndarray) -> None:
        calls.append((features, labels))
        original(self, features, labels)

    monkeypatch.setattr(TokenScorer, "init_from_pretrained", counted)
    train(replace(options, epochs=1), QUICK_TOKENS)
    ((features, labels),) = calls
    data = options.load_data()
    assert len(features) == len(labels) == (data.folds != 0).sum()  # training clips only
    assert sorted(labels) == sorted(data.labels[data.folds != 0])
    assert np.isfinite(features).all()


def test_only_token_scorers_need_a_tokenizer(
    options: TrainingOptions, backbone: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "backbone"
    shutil.copytree(backbone, copy)
    (copy / "tokenizer.json").unlink()
    options = replace(options, backbone=str(copy), epochs=1)
    assert train(options)["tokenizer"] is None
    with pytest.raises(HearbackError, match=r"tokenizer\.json: file not found"):
        train(options, QUICK_TOKENS)


def test_missing_rendered_hard_negatives_are_an_error(
    options: TrainingOptions,
) -> None:
    with pytest.raises(HearbackError, match=r"python preprocess\.py .*--hard_negatives"):
        train(options, replace(QUICK, hard_negatives=1.0))


def test_comparison_is_trained_on_rendered_hard_negatives(options: TrainingOptions) -> None:
    recipe = options.adapt(replace(QUICK, hard_negatives=1.0, epochs=1, schedule_epochs=1))
    render_missing(["toy", "a red bat"], ToneVoice(), options.tts_data, progress=False)
    table = {
        "boy": (HardNegative("toy", "neighbour", (0,)),),
        "a red hat": (HardNegative("a red bat", "substitute", (2,)),),
    }
    write_hard_negatives(table, options.tts_data)
    fold_metadata = train(options, recipe)
    data, files = options.load_data(), files_of(options)
    run_key = options.run_key(recipe, data)
    assert why_not_done(files, run_key) is None
    correct = (data.folds != 0) & (data.labels == 1)
    texts = pd.Series(data.source.texts)
    n_examples = (data.folds != 0).sum() + (correct & texts.isin(table)).sum()
    assert len(fold_metadata["epochs"][0]["gradient_norms"]) >= n_examples / recipe.batch_size
    assert not torch.equal(
        load.load_scorer(files, read_fold_metadata(files)).negative_bias, torch.zeros(())
    )
    # Other hard negatives need another training.
    write_hard_negatives({"boy": table["boy"]}, options.tts_data)
    assert (
        why_not_done(files, options.run_key(recipe, data)) == "trained with another hard negatives"
    )


def test_saved_weights_are_the_running_average(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    biases, decay, name = [], 0.9, "head.classifier.bias"
    training_step = Trainer.training_step

    def recorded(self: Trainer, batch: Batch, factor: float) -> Step:
        step = training_step(self, batch, factor)
        biases.append(self.model.get_parameter(name).detach().clone())
        return step

    monkeypatch.setattr(Trainer, "training_step", recorded)
    fold_metadata = train(options, replace(QUICK, average_decay=decay, epochs=1, schedule_epochs=1))
    average = biases[0]
    for bias in biases[1:]:
        average = decay * average + (1 - decay) * bias
    assert (average - biases[-1]).abs() > 1e-3
    kept = load.load_scorer(files_of(options), fold_metadata).get_parameter(name)
    torch.testing.assert_close(kept, average, atol=1e-5, rtol=1e-3)


def test_options_survive_as_flags(options: TrainingOptions) -> None:
    changed = replace(options, limit=20, set=("dropout=0.1", "window=fixed"), strict=True)
    parser = cli.parser(None)
    add_options(parser)
    assert options_from(parser.parse_args(changed.as_flags())) == changed


def test_warm_start_loads_the_encoder_of_the_same_fold(options: TrainingOptions) -> None:
    train(options, QUICK_TOKENS)
    warm = replace(QUICK, warm_start=QUICK_TOKENS.name)
    warm_trainer = make_trainer(options, warm)
    files = files_of(options, QUICK_TOKENS)
    trained = load.load_scorer(files, read_fold_metadata(files)).encoder.state_dict()
    for name, tensor in warm_trainer.model.encoder.state_dict().items():
        torch.testing.assert_close(tensor, trained[name])
    cold_trainer = make_trainer(options, QUICK)
    name = "layers.1.fc1.weight"
    assert not torch.equal(cold_trainer.model.encoder.state_dict()[name], trained[name])


def test_warm_start_from_another_split_is_an_error(options: TrainingOptions) -> None:
    train(options, QUICK_TOKENS)
    other = replace(options, n_folds=4)
    warm = replace(QUICK, warm_start=QUICK_TOKENS.name)
    with pytest.raises(HearbackError, match="trained with another n_folds; train modeltok again"):
        train(other, warm)


def test_fold_is_locked_during_training(options: TrainingOptions) -> None:
    files, processes = files_of(options), multiprocessing.get_context("spawn")
    started = processes.Event()
    holder = processes.Process(target=hold, args=(files, started))
    holder.start()
    try:
        assert started.wait(60)
        with pytest.raises(HearbackError, match=f"another process trains {RECIPE.name} fold 0"):
            train(options)
        assert not files.metadata.exists()
    finally:
        holder.kill()  # the system frees its lock
        holder.join()
    assert train(options)["fold"] == 0


def hold(files: FoldFiles, started: EventOfProcesses) -> None:
    with lock_fold(files):
        started.set()
        time.sleep(600)
