"""The segment scorer: pooling, its evidence, and a fold of it in every step, with small weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.phones import layout
from hearback.engine.training.fold_files import (
    FoldFiles,
    TrainedFold,
    read_fold_metadata,
    shared_files,
)
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.evaluation import read_out_of_fold
from hearback.reading.inference.batch_plan import plan_batches
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.model_group import load_model_groups
from hearback.reading.inference.predict import predict
from hearback.reading.inference.submission import write_submission
from hearback.reading.models import load
from hearback.reading.models.provide import provide_backbones
from hearback.reading.models.segment_head import pool_segments
from hearback.reading.models.segment_scorer import SegmentScorer
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.pretrained import writing
from hearback.reading.pretrained.build import find_small_recipes
from hearback.reading.training import train_fold
from hearback.reading.window_batches import (
    UNKNOWN,
    Batch,
    LabelledText,
    Pair,
    collate,
    window_samples,
)
from hearback.reading.word_calibration import WordCalibration
from tests.conftest import inference_options, training_options
from tests.reading.inference_data import CPU
from tests.reading.quick_recipes import QUICK_SEG, QUICK_TOKENS
from tests.reading.random_models import BASE_RATES, write_fold
from tests.reading.test_phone_scorer import make_world

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
N_FOLDS = 3
NAME = QUICK_SEG.name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, phones: Path, backbone: Path) -> Path:
    """A folder with all folds of a segment scorer."""
    folder = make_world(tmp_path_factory.mktemp("trained"), phones)
    options = training_options(folder, backbone)
    data = options.load_data()
    for fold in range(N_FOLDS):
        train_fold(QUICK_SEG, fold, options, data)
    shutil.rmtree(folder / "assets" / layout.NAME)  # a trained fold needs only its own files
    return folder


@pytest.fixture
def options(trained: Path, backbone: Path) -> TrainingOptions:
    return training_options(trained, backbone)


@pytest.fixture
def scorer(trained: Path) -> SegmentScorer:
    return load_fold(trained, 0)


def load_fold(folder: Path, fold: int) -> SegmentScorer:
    files = FoldFiles(folder / "assets", NAME, fold)
    found = load.load_scorer(files, read_fold_metadata(files))
    assert isinstance(found, SegmentScorer)
    return found


def pairs_of(scorer: SegmentScorer, options: TrainingOptions) -> list[Pair]:
    source = options.load_data().source
    examples = [Example(row, source.texts[row], 1.0) for row in range(8)]
    dataset = PairDataset(source, examples, "segments", text_tokenizer=scorer.text_tokenizer)
    return [dataset[index] for index in range(len(dataset))]


def test_segments_are_pooled_before_in_and_after_the_core() -> None:
    frames = torch.arange(30.0)[None, :, None]  # a frame's value is its index
    occupancy = torch.zeros(1, 30, 3, dtype=torch.float64)
    occupancy[0, 10, 0] = 0.9
    occupancy[0, [13, 14], 1] = 1.0
    occupancy[0, 29, 2] = 0.4  # spread: the core is where it is largest
    occupancy[0, 28, 2] = 0.1
    pooled = pool_segments(frames, occupancy, torch.tensor([3]))[0]
    # Four frames before the first core; the middle between 10 and 13 is 12, exclusive.
    assert pooled[0].tolist() == [(6 + 7 + 8 + 9) / 4, 10, 11.5]
    # At most eight frames after a core; the next one is 15 frames away.
    assert pooled[1].tolist() == pytest.approx([12, 13.5, np.mean(range(15, 23))])
    # Nothing is behind the last frame: it stands for what follows.
    assert pooled[2].tolist() == pytest.approx([np.mean(range(22, 29)), 29, 29], abs=0.51)


def test_pooling_ignores_the_phones_behind_a_text() -> None:
    rng = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 40, 5, generator=rng)
    occupancy = torch.rand(1, 40, 4, generator=rng, dtype=torch.float64)
    alone = pool_segments(frames, occupancy[:, :, :2], torch.tensor([2]))
    padded = pool_segments(frames, occupancy, torch.tensor([2]))
    torch.testing.assert_close(padded[:, :2], alone)


def test_only_the_head_is_kept_and_trained(scorer: SegmentScorer, options: TrainingOptions) -> None:
    logits, loss = scorer.training_step(collate(pairs_of(scorer, options), 5 * SAMPLE_RATE))
    (logits.sum() + loss).backward()
    assert scorer.backbone_parameters() == []
    without = {name for name, each in scorer.head.named_parameters() if each.grad is None}
    assert without == set()
    files = FoldFiles(options.assets, NAME, 0)
    shared = shared_files(read_fold_metadata(files))
    assert {"encoder", "recogniser", "tokenizer"} <= shared.keys()
    n_head = sum(each.numel() for each in scorer.head.parameters())
    assert files.weights.stat().st_size < 2 * n_head + 20_000


def test_the_encoder_is_cut(
    scorer: SegmentScorer, options: TrainingOptions, phones: Path, tmp_path: Path
) -> None:
    assert QUICK_SEG.encoder_layers == len(scorer.encoder.layers) == 1
    norm = scorer.encoder.layer_norm
    assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    too_many = replace(QUICK_SEG, encoder_layers=9)
    options = replace(options, assets=tmp_path)
    shutil.copytree(phones, tmp_path / layout.NAME)
    with pytest.raises(HearbackError, match="9 encoder layers"):
        train_fold(too_many, 0, options, options.load_data())


def test_a_fold_s_files_reproduce_its_predictions_and_words(
    scorer: SegmentScorer, options: TrainingOptions
) -> None:
    data, files = options.load_data(), FoldFiles(options.assets, NAME, 0)
    rows = np.flatnonzero(data.folds == 0)
    predictions = predict(scorer, data.source, rows, **CPU)
    oof = pd.read_csv(files.oof)["pred"]
    assert oof.nunique() == len(rows)
    np.testing.assert_allclose(predictions.clips, oof, atol=2e-3)
    words = pd.read_csv(files.table("words"))
    assert len(words) == sum(len(data.source.texts[row].split()) + 1 for row in rows)


def test_a_batch_gives_what_its_clips_give_alone(
    scorer: SegmentScorer, options: TrainingOptions
) -> None:
    pairs = pairs_of(scorer, options)
    # Whisper hears the window's padding: all have the same window.
    n_samples = max(pair.n_samples for pair in pairs)
    window = window_samples(n_samples, "trimmed", 0.64)
    # Shorter than its phones: prolonged by silence.
    pairs[3] = replace(pairs[3], waveform=pairs[3].waveform[:800])
    pairs[4] = replace(pairs[4], waveform=pairs[4].waveform[:1])
    with torch.inference_mode():
        together = scorer(collate(pairs, window))
        alone = torch.cat([scorer(collate([pair], window)) for pair in pairs])
    assert together.isfinite().all()
    # The recogniser's random weights tell few frames apart: last bits can move a core's end.
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_the_recogniser_and_the_head_stay_in_float32(
    trained: Path, options: TrainingOptions, dtype: torch.dtype
) -> None:
    files = FoldFiles(trained / "assets", NAME, 0)
    fold = EnsembleFold(0, files, read_fold_metadata(files))
    ((group, _),) = load_model_groups([fold], CPU["device"], dtype, 1e9)
    (model,) = group.models
    assert isinstance(model, SegmentScorer)
    for part in (model.recogniser, model.head):
        assert all(each.dtype == torch.float32 for each in part.parameters())
    source, rows = options.load_data().source, list(range(6))
    expected = predict(load.load_scorer(files, fold.metadata), source, rows, **CPU)
    found = predict(model, source, rows, device=CPU["device"], dtype=dtype)
    np.testing.assert_allclose(found.clips, expected.clips, atol=0.3 * expected.clips.std())


def test_folds_share_encoder_recogniser_and_evidence(
    trained: Path, options: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [FoldFiles(trained / "assets", NAME, fold) for fold in range(N_FOLDS)]
    folds = [EnsembleFold(0, files, read_fold_metadata(files)) for files in every]
    ((group, _),) = load_model_groups(folds, CPU["device"], torch.float32, 1e9)
    models = [model for model in group.models if isinstance(model, SegmentScorer)]
    assert len({id(model.recogniser) for model in models}) == 1
    assert len({id(model.encoder.layers[0]) for model in models}) == 1
    calls = []
    encode = SegmentScorer.encode_recordings

    def counted(self: SegmentScorer, *arguments: torch.Tensor) -> torch.Tensor:
        calls.append(len(arguments[0]))
        return encode(self, *arguments)

    monkeypatch.setattr(SegmentScorer, "encode_recordings", counted)
    source, rows = options.load_data().source, list(range(6))
    planned = plan_batches(source, rows, QUICK_SEG, seconds=16.0)
    scores = {number: np.empty(6) for number in range(N_FOLDS)}

    def score(model: load.Scorer, batch: Batch) -> torch.Tensor:
        return model(batch)

    for batch in group.run(source, rows, planned, score):
        for number, values in batch.values.items():  # noqa: PD011
            scores[number][batch.indices] = values
    assert sum(calls) == 6  # each recording once, for all folds
    for number in range(N_FOLDS):
        alone = predict(load_fold(trained, number), source, rows, **CPU)
        logits = np.log(alone.clips) - np.log1p(-alone.clips)
        np.testing.assert_allclose(scores[number], logits, atol=1e-3)


@pytest.mark.parametrize("weight", [0.5, 0.0], ids=["clips", "words alone"])
def test_an_ensemble_with_a_token_scorer_scores_rows_and_words(
    trained: Path, tmp_path: Path, tokenizer: Path, weight: float
) -> None:
    folder = shutil.copytree(trained, tmp_path / "world")
    write_fold(folder / "assets", QUICK_TOKENS, 0, None, tokenizer)
    names = (NAME, QUICK_TOKENS.name)
    EnsembleConfig(
        models=(ModelConfig(NAME, (0,), weight), ModelConfig(QUICK_TOKENS.name, (0,), 0.5)),
        voice=None,
        base_rates=BASE_RATES,
        log_losses={"cross_fitted": 0.5},
        n_rows=36,
        words=WordCalibration(names, Line(), Line()),
        words_weight=0.5 - weight,
    ).save(folder / "model_configs.json")
    options = inference_options(folder, words=folder / "word_scores.csv")
    write_submission(options)
    submission = pd.read_csv(options.submission)
    assert submission["score"].nunique() == 6
    words = pd.read_csv(folder / "word_scores.csv")
    assert words["filename"].nunique() == 6
    assert not (folder / "submission_problems.csv").exists()
    tables = {table.model: table.family for table in read_out_of_fold(folder / "assets", [NAME])}
    assert tables == {NAME: "segment scorer"}


def test_both_backbones_are_needed(options: TrainingOptions, backbone: Path) -> None:
    adapted = options.adapt(QUICK_SEG)
    assert options.pretrained_models(adapted) == {
        (layout.NAME, options.assets),
        (str(backbone), options.assets),
    }


@pytest.fixture
def backbones(tmp_path: Path, phones: Path, backbone: Path) -> Path:
    """A folder of both backbones' directories."""
    folder = tmp_path / "backbones"
    shutil.copytree(phones, folder / layout.NAME)
    shutil.copytree(backbone, folder / backbone.name)
    return folder


def test_both_backbones_are_provided(
    trained: Path,
    tmp_path: Path,
    backbones: Path,
    options: TrainingOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(trained, tmp_path / "world")
    files = FoldFiles(folder / "assets", NAME, 0)
    metadata = read_fold_metadata(files)
    shared = shared_files(metadata)
    for each in shared.values():
        (files.assets / each.name).unlink()
    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "cache"))
    provide_backbones([TrainedFold(0, files, metadata)], lambda _: None, backbones=backbones)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        each.name for each in shared.values()
    }
    rows = np.flatnonzero(options.load_data().folds == 0)
    found = predict(load_fold(folder, 0), options.load_data().source, rows, **CPU).clips
    np.testing.assert_allclose(found, pd.read_csv(files.oof)["pred"], atol=2e-3)


def test_a_text_too_long_for_its_window_does_not_change_the_others(
    scorer: SegmentScorer, options: TrainingOptions
) -> None:
    (pair, *_) = pairs_of(scorer, options)
    window = window_samples(pair.n_samples, "trimmed", 0.64)
    long = " ".join(options.load_data().source.texts)  # needs more frames than the window has
    tokenized = scorer.text_tokenizer.encode(long)
    unknown = np.full(tokenized.n_words + 1, UNKNOWN, np.float32)
    other = replace(pair, texts=(LabelledText(tokenized, unknown[1:], unknown),))
    assert 2 * len(tokenized.word_ids) > window // SAMPLES_PER_FRAME
    with torch.inference_mode():
        alone = scorer(collate([pair], window))
        together = scorer(collate([pair, other], window))
    torch.testing.assert_close(together[:1], alone, atol=2e-3, rtol=0)


def test_a_fold_can_be_shipped(trained: Path) -> None:
    assert set(find_small_recipes()) == {"modeltoklow", "modelseg"}
    files = FoldFiles(trained / "assets", NAME, 0)
    metadata = read_fold_metadata(files)
    kept = writing.slim(files, metadata)
    assert shared_files(kept) == shared_files(metadata)
    assert kept["sha256"].keys() == {"weights"}
    with pytest.raises(HearbackError, match="holds the recogniser itself"):
        writing.slim(files, {k: v for k, v in metadata.items() if k != "recogniser"})
