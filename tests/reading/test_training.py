import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.problems import BadInputError
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import (
    FoldFiles,
    read_fold_metadata,
    why_not_done,
)
from hearback.engine.training.task import FoldRun
from hearback.engine.training.trainer import PendingStep, Trainer
from hearback.reading import training
from hearback.reading.hard_negatives import HardNegative, write_hard_negatives
from hearback.reading.models import load
from hearback.reading.models.scorers import JoinedScorer
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe
from hearback.reading.render import render_missing
from hearback.reading.window_batches import Batch
from tests.conftest import ToneVoice
from tests.reading.quick_recipes import QUICK, QUICK_LOW, QUICK_OWN, QUICK_TOKENS
from tests.soak import stalls
from tests.soak.stalls import injected

pytestmark = pytest.mark.usefixtures("letters_as_sounds")


def files_of(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> FoldFiles:
    return FoldFiles(options.assets, recipe.name, fold)


def train(options: TrainingOptions, recipe: Recipe = QUICK, fold: int = 0) -> Any:
    return training.train_fold(recipe, fold, options, options.load_data())


def make_trainer(options: TrainingOptions, recipe: Recipe) -> Trainer:
    run = FoldRun(options.adapt(recipe), 0, options, options.load_data())
    return Trainer(training.ReadingTask(run), run)


@pytest.mark.parametrize(
    "recipe", [QUICK, QUICK_TOKENS, QUICK_OWN, QUICK_LOW], ids=lambda r: r.name
)
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
    assert files.table("words").exists() == (recipe in (QUICK_TOKENS, QUICK_LOW))


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
    with pytest.raises(BadInputError) as refusal:
        options.load_data()
    for part in ("train003.wav", "train005.wav", "train007.wav", "unknown task"):
        assert part in str(refusal.value)


def test_text_without_reference_is_reported(
    options: TrainingOptions,
) -> None:
    metadata = options.data / "train_metadata.csv"
    metadata.write_text(metadata.read_text().replace("a red hat", "a blue hat"))
    with pytest.raises(BadInputError, match=r"(?s)'a blue hat'.*python preprocess\.py"):
        options.load_data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_folds": 12}, "cannot make 12 folds"),
        ({"backbone": "no/such-backbone"}, "such-backbone"),
    ],
)
def test_invalid_options_are_errors(
    options: TrainingOptions, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        train(replace(options, **change))


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
    assert "other folds at this step had" in first["reason"] and "loss 0.69" in first["reason"]
    assert steps.count(1) < 5 * 24


@pytest.mark.slow
def test_first_fold_that_stops_learning_is_stalled(options: TrainingOptions) -> None:
    with injected(stalls.constant_logits, attempts=[1], after=25):
        first, second = train(options, MANY_STEPS)["attempts"]
    assert "its first 20 steps had" in first["reason"]
    assert second["outcome"] == "finished"


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

    def recorded(self: Trainer, batch: Batch, factor: float) -> PendingStep:
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
    TrainingOptions.declare(parser)
    assert TrainingOptions.gather(parser.parse_args(changed.as_flags())) == changed


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
