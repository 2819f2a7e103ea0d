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
    only_trainer,
    read_fold_metadata,
    why_not_done,
)
from hearback.engine.training.stall_detector import Step
from hearback.reading import training
from hearback.reading.augment import Augmentation
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.models import load
from hearback.reading.models.scorers import JoinedScorer, TokenScorer
from hearback.reading.options import TrainingOptions, add_options, options_from
from hearback.reading.recipe import Recipe
from hearback.reading.references import render_missing
from hearback.reading.window_batches import Batch
from tests.conftest import ToneVoice
from tests.soak import stalls
from tests.soak.stalls import Stall, provoked
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
def spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let letters be sounds: quick, and no voice's package is needed for hard negatives."""
    monkeypatch.setattr("hearback.reading.hard_negatives.hibari_pronounce", lambda: str.lower)


def files_of(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> FoldFiles:
    return FoldFiles(options.assets, recipe.name, fold)


def train(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> Any:
    return training.train_fold(recipe, fold, options, options.load_data())


def test_a_fold_writes_weights_story_and_predictions(options: TrainingOptions) -> None:
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
    assert not files.partial.exists()
    adapted = options.adapt(QUICK)
    assert why_not_done(files, options.run_key(adapted, data)) is None


def test_another_seed_trains_a_model_of_its_own(options: TrainingOptions) -> None:
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
def test_saved_weights_are_half_and_predict_what_was_written(
    options: TrainingOptions, backbone: Path, tmp_path: Path, recipe: Recipe
) -> None:
    copy = tmp_path / "backbone"
    shutil.copytree(backbone, copy)
    fold_metadata = train(replace(options, backbone=str(copy)), recipe)
    shutil.rmtree(copy)  # what was trained needs its own files alone
    files, data = files_of(options, recipe), options.load_data()
    scorer = load.load_scorer(files, fold_metadata)
    rows = np.flatnonzero(data.folds == 0)
    predictions = training.predict(
        scorer, data.source, rows, device=torch.device("cpu"), dtype=torch.float32
    )
    oof = pd.read_csv(files.oof)["pred"]
    assert oof.nunique() == len(rows)
    np.testing.assert_allclose(predictions.clips, oof, atol=2e-3)
    assert files.words.exists() == (recipe is QUICK_TOKENS)


def test_training_learns(options: TrainingOptions) -> None:
    recipe = replace(QUICK, epochs=8, schedule_epochs=8)
    losses = [epoch["train_log_loss"] for epoch in train(options, recipe)["epochs"]]
    assert losses[-1] < 0.9 * losses[0]


def test_a_fixed_window_is_always_16_seconds(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = set()
    forward = JoinedScorer.forward

    def measured(self: JoinedScorer, batch: Batch) -> torch.Tensor:
        lengths.add(batch.waveforms.shape[1] / SAMPLE_RATE)
        return forward(self, batch)

    monkeypatch.setattr(JoinedScorer, "forward", measured)
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


@pytest.mark.parametrize("recipe", [QUICK, QUICK_TOKENS], ids=lambda recipe: recipe.name)
def test_workers_change_nothing_of_a_fold(options: TrainingOptions, recipe: Recipe) -> None:
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
@pytest.mark.parametrize("n_steps", [2, 7, 9])  # of 6 an epoch; what is kept is the last but one
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, n_steps: int
) -> None:
    files = files_of(options, recipe)
    recipe = replace(recipe, dropout=0.3)
    train(options, recipe)
    undisturbed = [path.read_bytes() for path in (files.oof, files.weights)]
    for path in (files.metadata, files.oof, files.weights):
        path.unlink()

    steps: list[float] = []
    step = training.ReadingTraining._step

    def counted(self: training.ReadingTraining, batch: Batch, factor: float) -> Step:
        if len(steps) == n_steps:
            raise KeyboardInterrupt
        steps.append(factor)
        return step(self, batch, factor)

    keep_each_step = replace(options, checkpoint_minutes=0)
    monkeypatch.setattr(training.ReadingTraining, "_step", counted)
    with pytest.raises(KeyboardInterrupt):
        train(keep_each_step, recipe)
    assert files.partial.exists()
    monkeypatch.setattr(training.ReadingTraining, "_step", step)
    torch.manual_seed(n_steps)  # another process starts with other random numbers

    steps_left = []

    def watched(self: training.ReadingTraining, batch: Batch, factor: float) -> Step:
        steps_left.append(factor)
        return step(self, batch, factor)

    monkeypatch.setattr(training.ReadingTraining, "_step", watched)
    fold_metadata = train(keep_each_step, recipe)
    n_in_all = sum(len(epoch.get("gradient_norms", ())) for epoch in fold_metadata["epochs"])
    assert len(steps) + len(steps_left) == n_in_all
    assert [path.read_bytes() for path in (files.oof, files.weights)] == undisturbed


def test_a_changed_recipe_is_not_done_and_says_what_changed(
    options: TrainingOptions,
) -> None:
    train(options)
    changed = options.adapt(replace(QUICK, dropout=0.3))
    reason = why_not_done(files_of(options), options.run_key(changed, options.load_data()))
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


@pytest.mark.slow
@pytest.mark.parametrize("stall", stalls.PLAIN.values(), ids=stalls.PLAIN.keys())
def test_an_attempt_that_stalls_is_given_up_and_the_next_finishes(
    options: TrainingOptions, stall: Stall
) -> None:
    options, recipe = replace(options, precision=stall.precision), QUICK.with_epochs(4)
    training.train_fold(recipe, 0, options, options.load_data(), attempt=2)
    files = files_of(options)
    by_hand = [path.read_bytes() for path in (files.oof, files.weights)]
    files.metadata.unlink()

    with provoked(stall.deed, attempts=[1]) as steps:
        fold_metadata = train(options, recipe)
    n_steps = steps.count(1)
    assert n_steps <= 20
    assert fold_metadata["attempt"] == 2
    assert fold_metadata["retrain_command"].endswith("--attempt 3")
    first, second = fold_metadata["attempts"]
    assert (first["attempt"], first["outcome"]) == (1, "stalled")
    assert re.search(stall.said, first["reason"])
    assert len(first["losses"]) == len(first["gradient_norms"]) == n_steps
    assert (first["epoch"], first["step"]) == (1 + (n_steps - 1) // 6, 1 + (n_steps - 1) % 6)
    assert (second["attempt"], second["outcome"], second["reason"]) == (2, "finished", None)
    assert (second["epoch"], second["step"]) == (4, 6)
    # What a person gets who asks for the second attempt.
    assert [path.read_bytes() for path in (files.oof, files.weights)] == by_hand
    assert read_fold_metadata(files)["attempts"] == fold_metadata["attempts"]  # as JSON has it
    assert not files.partial.exists()


@pytest.mark.slow
@pytest.mark.parametrize("stall", stalls.PLAIN.values(), ids=stalls.PLAIN.keys())
def test_after_three_stalls_a_person_has_to_look(options: TrainingOptions, stall: Stall) -> None:
    options, recipe = replace(options, precision=stall.precision), QUICK.with_epochs(4)
    files = files_of(options)
    with provoked(stall.deed, attempts=[1, 2, 3]) as steps:
        with pytest.raises(HearbackError) as told:
            train(options, recipe)
        assert set(steps) == {1, 2, 3}
        n_steps = len(steps)
        with pytest.raises(HearbackError, match="3 attempts stalled"):
            train(options, recipe)
        assert len(steps) == n_steps  # the second time it is known, and nothing is trained
    message = str(told.value)
    for what in ("model3mapd fold 0: 3 attempts stalled", "--attempt 4", str(files.partial)):
        assert what in message
    for attempt in (1, 2, 3):
        assert re.search(rf"(?m)  attempt {attempt}: epoch \d, step \d+: {stall.said}", message)
    assert not files.metadata.exists() and not files.weights.exists()

    fold_metadata = training.train_fold(recipe, 0, options, options.load_data(), attempt=4)
    outcomes = [(past["attempt"], past["outcome"]) for past in fold_metadata["attempts"]]
    assert outcomes == [(1, "stalled"), (2, "stalled"), (3, "stalled"), (4, "finished")]


def test_a_training_killed_in_its_second_attempt_goes_on_in_it(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(options)
    training.train_fold(QUICK, 0, options, options.load_data(), attempt=2)
    undisturbed = [path.read_bytes() for path in (files.oof, files.weights)]
    files.metadata.unlink()

    run_epoch = training.ReadingTraining.run_epoch
    with provoked(stalls.freeze, attempts=[1]) as steps:
        for killed_in in (0, 1):  # at the start of the second attempt, and in its second epoch

            def killed(
                self: training.ReadingTraining, scalars: Any, epoch: int = killed_in
            ) -> None:
                if (self.attempt, self.epoch) == (2, epoch):
                    raise KeyboardInterrupt
                run_epoch(self, scalars)

            with monkeypatch.context() as patch:
                patch.setattr(training.ReadingTraining, "run_epoch", killed)
                with pytest.raises(KeyboardInterrupt):
                    train(options)
        fold_metadata = train(options)
    assert (steps.count(1), steps.count(2)) == (5, 12)
    assert [past["outcome"] for past in fold_metadata["attempts"]] == ["stalled", "finished"]
    assert [path.read_bytes() for path in (files.oof, files.weights)] == undisturbed


def test_a_training_that_goes_on_knows_the_steps_of_before(options: TrainingOptions) -> None:
    def freeze_until_killed(fold_training: training.ReadingTraining, batch: Batch) -> Batch:
        if len(fold_training.progress.losses) == 3:
            raise KeyboardInterrupt
        return stalls.freeze(fold_training, batch)

    options = replace(options, checkpoint_minutes=0.0)
    with provoked(freeze_until_killed, attempts=[1]), pytest.raises(KeyboardInterrupt):
        train(options)
    with provoked(stalls.freeze, attempts=[1]) as steps:
        fold_metadata = train(options)
    first = fold_metadata["attempts"][0]
    assert first["reason"].startswith("epoch 1, step 5: gradient norm 0 for 5 steps")
    assert len(first["losses"]) == 5
    assert steps.count(1) == 2


def test_the_guard_changes_nothing_of_a_training_that_learns(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(options)
    with monkeypatch.context() as patch:
        patch.setattr(
            "hearback.engine.training.stall_detector.StallGuard.see", lambda self, step: None
        )
        train(options)
    unwatched = [path.read_bytes() for path in (files.oof, files.weights)]
    for fold in (1, 2):  # to be compared with
        train(options, fold=fold)
    fold_metadata = train(options)
    assert [path.read_bytes() for path in (files.oof, files.weights)] == unwatched
    assert [past["outcome"] for past in fold_metadata["attempts"]] == ["finished"]


def test_a_huge_number_that_clipping_copes_with_is_no_stall(options: TrainingOptions) -> None:
    def loud(fold_training: training.ReadingTraining, batch: Batch) -> Batch:
        waveforms = batch.waveforms.clone()
        waveforms[0, 1000] = 1e10
        return replace(batch, waveforms=waveforms)

    with provoked(loud, attempts=[1]):
        assert train(options)["attempt"] == 1


MANY_STEPS = replace(QUICK, batch_size=1).with_epochs(5)


@pytest.mark.slow
def test_a_fold_that_learns_nothing_where_the_others_did_is_given_up(
    options: TrainingOptions,
) -> None:
    for fold in (1, 2):
        train(options, MANY_STEPS, fold)
    with provoked(stalls.dull, attempts=[1]) as steps:
        first, _ = train(options, MANY_STEPS)["attempts"]
    assert "other folds there had" in first["reason"] and "loss 0.69" in first["reason"]
    assert steps.count(1) < 5 * 24


@pytest.mark.slow
def test_a_first_fold_that_stops_learning_is_given_up(options: TrainingOptions) -> None:
    with provoked(stalls.dull, attempts=[1], after=25):
        first, second = train(options, MANY_STEPS)["attempts"]
    assert "its first 20 steps had" in first["reason"]
    assert second["outcome"] == "finished"


def test_a_fold_that_is_trained_again_remembers_what_was_before(options: TrainingOptions) -> None:
    train(options)
    for _ in range(2):
        again = training.train_fold(QUICK, 0, options, options.load_data(), attempt=2)
        assert [past["attempt"] for past in again["attempts"]] == [1, 2]
    other = train(options, replace(QUICK, seed=5))
    assert [past["attempt"] for past in other["attempts"]] == [1]


def test_the_learning_rate_warms_up_and_follows_the_cosine() -> None:
    recipe = replace(QUICK, epochs=4, schedule_epochs=5, cycles=0.25, warmup_share=0.02)
    rates = [training.learning_rate_factor(recipe, done) for done in (0, 0.05, 0.1, 5)]
    np.testing.assert_allclose(rates, [0.01, 0.5, 1.0, 0.5], atol=1e-9)
    to_zero = replace(recipe, schedule_epochs=4, cycles=0.5)
    assert training.learning_rate_factor(to_zero, 4) == pytest.approx(0, abs=1e-12)


def test_a_token_scorer_learns_from_near_misses_and_words(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []
    learn = TokenScorer.training_step

    def watched(self: TokenScorer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits, others = learn(self, batch)
        assert batch.texts is not None
        lost.append((others.item(), len(batch.texts.clips) - len(batch)))
        return logits, others

    monkeypatch.setattr(TokenScorer, "training_step", watched)
    recipe = replace(QUICK_TOKENS, hard_negatives=2.0, hard_negative_weight=0.5, word_loss=0.1)
    fold_metadata = train(options, recipe.with_epochs(6))
    data = options.load_data()
    correct = ((data.folds != 0) & (data.labels == 1)).sum()
    assert sum(n for _, n in lost) == 6 * 2 * correct
    (first, *_, last) = (loss.sum() for loss in np.split(np.array([of for of, _ in lost]), 6))
    assert last < 0.95 * first
    kept = options.assets / fold_metadata["tokenizer"]["file"]
    assert kept.read_bytes() == (Path(str(options.backbone)) / "tokenizer.json").read_bytes()


def test_a_token_scorer_starts_from_what_the_decoder_knows(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    original = TokenScorer.init_from_pretrained

    def counted(self: TokenScorer, features: np.ndarray, labels: np.ndarray) -> None:
        started.append((features, labels))
        original(self, features, labels)

    monkeypatch.setattr(TokenScorer, "init_from_pretrained", counted)
    train(replace(options, epochs=1), QUICK_TOKENS)
    ((features, labels),) = started
    data = options.load_data()
    assert len(features) == len(labels) == (data.folds != 0).sum()  # the fold's own clips alone
    assert sorted(labels) == sorted(data.labels[data.folds != 0])
    assert np.isfinite(features).all()


def test_a_backbone_without_a_tokenizer_can_be_listened_with_but_not_read(
    options: TrainingOptions, backbone: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "backbone"
    shutil.copytree(backbone, copy)
    (copy / "tokenizer.json").unlink()
    options = replace(options, backbone=str(copy), epochs=1)
    assert train(options)["tokenizer"] is None
    with pytest.raises(HearbackError, match=r"tokenizer\.json: not there"):
        train(options, QUICK_TOKENS)


def test_near_misses_that_were_not_rendered_are_an_error_that_says_what_to_run(
    options: TrainingOptions,
) -> None:
    with pytest.raises(HearbackError, match=r"python preprocess\.py .*--hard_negatives"):
        train(options, replace(QUICK, hard_negatives=1.0))


def test_a_model_that_listens_is_trained_on_rendered_near_misses(options: TrainingOptions) -> None:
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
    # Other hard negatives are another training.
    write_hard_negatives({"boy": table["boy"]}, options.tts_data)
    assert (
        why_not_done(files, options.run_key(recipe, data)) == "trained with another hard negatives"
    )


def test_what_is_kept_of_a_training_is_the_running_average_of_its_weights(
    options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    biases, decay, name = [], 0.9, "head.classifier.bias"
    step = training.ReadingTraining._step

    def watched(self: training.ReadingTraining, batch: Batch, factor: float) -> Step:
        result = step(self, batch, factor)
        biases.append(self.model.get_parameter(name).detach().clone())
        return result

    monkeypatch.setattr(training.ReadingTraining, "_step", watched)
    fold_metadata = train(options, replace(QUICK, average_decay=decay, epochs=1, schedule_epochs=1))
    average = biases[0]
    for bias in biases[1:]:
        average = decay * average + (1 - decay) * bias
    assert (average - biases[-1]).abs() > 1e-3
    kept = load.load_scorer(files_of(options), fold_metadata).get_parameter(name)
    torch.testing.assert_close(kept, average, atol=1e-5, rtol=1e-3)


def test_flags_survive_the_way_to_another_process(options: TrainingOptions) -> None:
    asked = replace(options, limit=20, set=("dropout=0.1", "window=fixed"), strict=True)
    parser = cli.parser(None)
    add_options(parser)
    assert options_from(parser.parse_args(asked.as_flags())) == asked


def test_a_warm_start_begins_with_the_same_folds_trained_encoder(options: TrainingOptions) -> None:
    train(options, QUICK_TOKENS)
    warm = replace(QUICK, warm_start=QUICK_TOKENS.name)
    begun = training.ReadingTraining(options.adapt(warm), 0, options, options.load_data(), 1)
    files = files_of(options, QUICK_TOKENS)
    trained = load.load_scorer(files, read_fold_metadata(files)).encoder.state_dict()
    for name, tensor in begun.model.encoder.state_dict().items():
        torch.testing.assert_close(tensor, trained[name])
    cold = training.ReadingTraining(options.adapt(QUICK), 0, options, options.load_data(), 1)
    name = "layers.1.fc1.weight"
    assert not torch.equal(cold.model.encoder.state_dict()[name], trained[name])


def test_a_warm_start_from_another_split_is_refused(options: TrainingOptions) -> None:
    train(options, QUICK_TOKENS)
    other = replace(options, n_folds=4)
    warm = replace(QUICK, warm_start=QUICK_TOKENS.name)
    with pytest.raises(HearbackError, match="trained with another n_folds; train modeltok again"):
        train(other, warm)


def test_two_processes_do_not_train_the_same_fold(options: TrainingOptions) -> None:
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
        holder.kill()  # its lock goes with it
        holder.join()
    assert train(options)["fold"] == 0


def hold(files: FoldFiles, started: EventOfProcesses) -> None:
    with only_trainer(files):
        started.set()
        time.sleep(600)
