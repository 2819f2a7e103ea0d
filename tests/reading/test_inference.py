import os
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine import devices
from hearback.engine.audio.effects import change_speed
from hearback.engine.data import tables
from hearback.engine.data.problems import BadInputError
from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.training import fold_files
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.whisper.encoder import EncoderLayer
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference import batch_plan, model_group, submission
from hearback.reading.inference import folds as folds_module
from hearback.reading.inference.ensemble_run import predict_ensemble
from hearback.reading.inference.folds import read_folds
from hearback.reading.inference.outputs import check_outputs
from hearback.reading.inference.predict import Predictions, collect, predict
from hearback.reading.inference.submission import InferenceOptions, write_submission
from hearback.reading.models import base, load
from hearback.reading.models.base import Scorer
from hearback.reading.pairs import PairDataset, PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.scoring import decoder_evidence
from hearback.reading.steps import infer
from hearback.reading.window_batches import Batch
from hearback.reading.word_calibration import WordCalibration
from tests.conftest import inference_options
from tests.helpers import environment_of_scripts, make_read_only
from tests.reading.inference_data import CPU, write_ensemble
from tests.reading.random_models import BASE_RATES, make_model, write_fold
from train_model2ds import RECIPE as MEAN
from train_model3mapd import RECIPE as ATTENTION
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS
from train_modeltokown import RECIPE as OWN


@pytest.fixture
def options(make_corpus: Callable[..., Path], tokenizer: Path) -> InferenceOptions:
    """Options to run models of two folds, with random weights, on a test set of six clips."""
    return write_ensemble(make_corpus(), tokenizer)


def scores(options: InferenceOptions) -> pd.Series:
    return pd.read_csv(options.submission).set_index("filename")["score"]


def problems(options: InferenceOptions) -> pd.DataFrame:
    return pd.read_csv(options.submission.with_name(tables.PROBLEMS))


def test_the_submission_has_the_formats_rows_in_its_order(options: InferenceOptions) -> None:
    write_submission(options)
    expected = pd.read_csv(options.data / "submission_format.csv")
    submission = pd.read_csv(options.submission)
    assert list(submission.columns) == ["filename", "score"]
    assert list(submission["filename"]) == list(expected["filename"])
    assert submission["score"].between(0, 1, inclusive="neither").all()
    assert submission["score"].nunique() == len(submission)
    assert not options.submission.with_name(tables.PROBLEMS).exists()


def test_an_output_that_nothing_reads_costs_neither_scores_nor_problems(
    options: InferenceOptions,
) -> None:
    broken = pd.read_csv(options.data / "test_metadata.csv")["filename"][0]
    (options.data / broken).write_bytes(b"broken")
    places = vars(options)
    names = ("data", "tts_data", "store", "assets", "config", "submission", "device")
    flags = [part for name in names for part in (f"--{name}", str(places[name]))]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, ROOT / "infer.py", *flags, "--no_page"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment_of_scripts(),
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 141, done.stderr
    assert b"FAILED" not in done.stderr
    assert scores(options).nunique() == len(scores(options))
    listed = problems(options)
    assert listed.loc[listed["severity"] == "error", "filename"].tolist() == [broken]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": "submission.csv"}, "would be written twice"),
        ({"divergences": "submission_problems.csv"}, "would be written twice"),
        ({"words": "submission_origin.json"}, "would be written twice"),
        ({"submission": "x.html", "page": "x.html"}, "would be written twice"),
        ({"submission": "data/test_metadata.csv"}, "is read, and would be replaced"),
        ({"words": "data/submission_format.csv"}, "is read, and would be replaced"),
        ({"submission": "model_configs.json"}, "is read, and would be replaced"),
        # It is deleted without a time limit.
        ({"config": "submission_folds.json"}, "is read, and would be replaced"),
    ],
)
def test_no_output_replaces_another_or_an_input(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    (tmp_path / "data").mkdir()
    names = ("model_configs.json", "submission_folds.json")
    for name in (*names, "data/test_metadata.csv", "data/submission_format.csv"):
        (tmp_path / name).write_text("{}")
    options = inference_options(tmp_path)
    check_outputs(options)
    paths: dict[str, Any] = {name: tmp_path / path for name, path in changes.items()}
    with pytest.raises(HearbackError, match=f"{message}.*; choose another file with --submission"):
        check_outputs(replace(options, **paths))


def test_the_page_of_a_run_replaces_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["infer.py", "--submission", "scores.html"])
    with pytest.raises(HearbackError, match=r"scores\.html: would be written twice"):
        infer.main()
    assert not (tmp_path / "scores.html").exists()


def test_a_store_that_cannot_be_written_to_is_replaced_by_a_temporary_one(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    before = options.submission.read_bytes()
    for recording in options.data.rglob("*.wav"):  # a copy has new times
        os.utime(recording, (1, 1))
    with monkeypatch.context() as patch:
        make_read_only(patch, options.store)
        write_submission(options)
    assert options.submission.read_bytes() == before
    assert "Decoded into a temporary folder instead" in capsys.readouterr().out


def test_without_a_format_the_order_is_the_metadatas(options: InferenceOptions) -> None:
    (options.data / "submission_format.csv").unlink()
    write_submission(options)
    metadata = pd.read_csv(options.data / "test_metadata.csv")
    assert list(scores(options).index) == list(metadata["filename"])


def test_a_clips_score_does_not_depend_on_its_place_in_the_table(options: InferenceOptions) -> None:
    write_submission(options)
    before = scores(options)
    path = options.data / "test_metadata.csv"
    pd.read_csv(path, dtype=str)[::-1].to_csv(path, index=False)
    write_submission(options)
    pd.testing.assert_series_equal(scores(options), before, atol=1e-5, rtol=0)


def test_rows_that_cannot_be_scored_get_their_tasks_base_rate_and_are_listed(
    options: InferenceOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    before = scores(options)
    (options.data / "test000.wav").write_bytes(b"broken")  # deletion
    (options.data / "test001.wav").unlink()  # blending, of which training had none
    table = options.data / "test_metadata.csv"
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("koovnorb", "")  # nonword_repetition
    lines[4] = lines[4].replace("sentence_repetition", "singing")
    table.write_text("\n".join(lines))
    write_submission(options)
    after = scores(options)
    assert after["test000.wav"] == 0.1
    assert after["test001.wav"] == 0.4
    assert after["test002.wav"] == 0.25
    assert after["test003.wav"] == 0.4
    untouched = ["test004.wav", "test005.wav"]
    pd.testing.assert_series_equal(after[untouched], before[untouched], atol=1e-5, rtol=0)
    listed = problems(options)
    # In the order of the rows, each with its status.
    assert listed["filename"].tolist() == [f"test00{n}.wav" for n in range(4)]
    assert set(listed["status"]) == {"unreadable"}
    printed = capsys.readouterr().out
    assert "WARNING" in printed and "test001.wav" in printed
    assert "4 of them at the base rate" in printed


def test_a_row_of_the_format_that_the_metadata_lacks_is_not_lost(options: InferenceOptions) -> None:
    path = options.data / "submission_format.csv"
    path.write_text(path.read_text() + "stranger.wav,0.0\n")
    write_submission(options)
    assert scores(options)["stranger.wav"] == 0.4
    assert "stranger.wav" in set(problems(options)["filename"])


def test_a_format_with_other_spellings_is_scored_and_kept_as_written(
    options: InferenceOptions,
) -> None:
    write_submission(options)
    before = scores(options)
    path = options.data / "submission_format.csv"
    path.write_text(path.read_text().replace(".wav", ".WAV").replace("test000.WAV", "test000"))
    write_submission(options)
    after = scores(options)
    written = [
        name.replace(".wav", ".WAV").replace("test000.WAV", "test000") for name in before.index
    ]
    assert after.index.tolist() == written
    np.testing.assert_allclose(after.to_numpy(), before.to_numpy(), atol=1e-5)
    (warning,) = problems(options).to_dict("records")
    assert warning["severity"] == "warning"
    assert "spelled otherwise than in the metadata: 'test" in warning["what"]


def test_a_format_that_cannot_be_read_does_not_lose_the_submission(
    options: InferenceOptions,
) -> None:
    write_submission(options)
    before = scores(options)
    path = options.data / "submission_format.csv"
    path.write_text(path.read_text().replace("filename", "path"))
    write_submission(options)
    pd.testing.assert_series_equal(scores(options).sort_index(), before.sort_index())
    assert problems(options)["what"].tolist() == ["the column 'filename' is missing"]


def test_a_stereo_recording_is_scored_and_listed(options: InferenceOptions) -> None:
    import soundfile

    samples, rate = soundfile.read(options.data / "test000.wav")
    soundfile.write(options.data / "test000.wav", np.stack([samples, samples], axis=1), rate)
    write_submission(options)
    assert scores(options)["test000.wav"] not in BASE_RATES.values()
    assert list(problems(options)["severity"]) == ["warning"]


def test_what_is_no_english_is_listed_and_keeps_its_score(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EnsembleConfig.load(options.config)
    said = WordCalibration((TOKENS.name,), Line(), Line())
    replace(config, words=said).save(options.config)
    options = replace(options, words=options.submission.with_name("words.csv"))
    write_submission(options)
    before = scores(options)
    monkeypatch.setattr(decoder_evidence, "SURPRISE", -np.inf)
    monkeypatch.setattr(decoder_evidence, "CONFIDENCE", np.inf)
    write_submission(options)
    pd.testing.assert_series_equal(scores(options), before)
    assert options.words is not None
    texts = pd.read_csv(options.data / "test_metadata.csv").set_index("filename")["expected_text"]
    is_long = texts[before.index].str.split().str.len() >= decoder_evidence.MIN_WORDS
    unheard = set(before.index[(before < 0.5) & is_long])
    assert unheard and unheard < set(before.index)
    listed = problems(options).set_index("filename").loc[sorted(unheard)]
    assert set(listed["severity"]) == {"warning"}
    assert listed["what"].str.startswith("no English words are recognised, but another").all()
    assert set(listed["cure"]) == {"listen to it; the score stays"}
    words = pd.read_csv(options.words, keep_default_na=False)
    assert set(words["filename"][words["status"] == "another_language_or_noise"]) == unheard
    assert (words["score"] == words["score"].round(4)).all()  # as score.py has them


def test_a_text_that_cannot_be_rendered_does_not_lose_the_submission(
    options: InferenceOptions,
) -> None:
    table = options.data / "test_metadata.csv"
    table.write_text(table.read_text().replace("koovnorb", "a text never rendered"))
    write_submission(options)  # no engine of the product has the tests' voice
    assert scores(options)["test002.wav"] == 0.25
    assert "a text never rendered" in problems(options)["what"][0]


def test_a_missing_column_is_an_error(options: InferenceOptions) -> None:
    table = options.data / "test_metadata.csv"
    pd.read_csv(table).drop(columns="grade").to_csv(table, index=False)
    with pytest.raises(BadInputError, match="'grade' is missing"):
        write_submission(options)
    assert not options.submission.exists()


def test_another_voice_than_in_training_is_refused(options: InferenceOptions) -> None:
    config = EnsembleConfig.load(options.config)
    replace(config, voice={**(config.voice or {}), "speed": 1.0}).save(options.config)
    with pytest.raises(HearbackError, match="voice"):
        write_submission(options)


def test_weights_of_another_model_are_an_error(options: InferenceOptions) -> None:
    wrong = FoldFiles(options.assets, MEAN.name, 0).weights.read_bytes()
    FoldFiles(options.assets, ATTENTION.name, 0).weights.write_bytes(wrong)
    with pytest.raises(HearbackError, match="not this model's weights"):
        write_submission(options)


def test_each_folds_metadata_is_read_once(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    read = folds_module.read_runnable_metadata

    def counted(files: FoldFiles, *arguments: Any) -> Any:
        found.append(files.metadata.name)
        return read(files, *arguments)

    monkeypatch.setattr(folds_module, "read_runnable_metadata", counted)
    write_submission(options)
    assert len(found) == len(set(found)) == 6  # two folds of three models


def test_a_missing_tokenizer_is_an_error_that_names_it(options: InferenceOptions) -> None:
    (kept,) = options.assets.glob("tokenizer_*.json")
    kept.unlink()
    with pytest.raises(HearbackError, match=kept.name):
        write_submission(options)
    assert len(scores(options)) == 6  # base rates


@pytest.fixture
def source(make_source: Callable[[int], PairSource]) -> PairSource:
    return make_source(12)


FAMILIES = (ATTENTION, ALIGNED, TOKENS, OWN)


@pytest.mark.parametrize("recipe", FAMILIES, ids=lambda recipe: recipe.name)
def test_predictions_are_in_the_order_of_the_rows(
    recipe: Recipe, source: PairSource, tokenizer: Path
) -> None:
    model = make_model(recipe, tokenizer)
    in_order = predict(model, source, np.arange(12), **CPU).clips
    assert in_order.shape == (12,)
    assert in_order.dtype == np.float64
    assert len(set(in_order)) == 12
    rows = np.random.default_rng(0).permutation(12)[:7]
    np.testing.assert_allclose(predict(model, source, rows, **CPU).clips, in_order[rows], atol=1e-5)


@pytest.mark.parametrize("recipe", FAMILIES, ids=lambda recipe: recipe.name)
def test_a_clip_is_predicted_alone_as_in_any_batch(
    recipe: Recipe, source: PairSource, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = predict(make_model(recipe, tokenizer), source, range(12), **CPU)
    monkeypatch.setitem(batch_plan.BATCH_SECONDS, "cpu", 0.1)
    one_by_one = predict(make_model(recipe, tokenizer), source, range(12), **CPU)
    np.testing.assert_allclose(one_by_one.clips, together.clips, atol=1e-5)
    alone = predict(make_model(recipe, tokenizer), source, [5], **CPU)
    np.testing.assert_allclose(alone.clips, together.clips[[5]], atol=1e-5)
    assert (together.words is None) == (recipe is not TOKENS)
    if together.words is not None and one_by_one.words is not None:
        np.testing.assert_allclose(one_by_one.words, together.words, atol=1e-4)


def test_words_are_scored_where_a_text_has_them(source: PairSource, tokenizer: Path) -> None:
    rows = [3, 0, 4]  # four words, one and three
    words = predict(make_model(TOKENS, tokenizer), source, rows, **CPU).words
    assert words is not None
    n_words = [len(source.texts[row].split()) for row in rows]
    assert n_words == [4, 1, 3]
    places = np.arange(5)
    for line, n in enumerate(n_words):
        np.testing.assert_array_equal(np.isfinite(words[line, :, 0]), places < n)
        np.testing.assert_array_equal(np.isfinite(words[line, :, 1]), places <= n)


def test_no_rows_have_no_predictions(source: PairSource, tokenizer: Path) -> None:
    assert predict(make_model(TOKENS, tokenizer), source, [], **CPU).clips.shape == (0,)


def test_collected_values_are_of_each_row_with_its_own_text(
    source: PairSource, tokenizer: Path
) -> None:
    model = make_model(TOKENS, tokenizer).train()

    def label_and_tokens(model: Scorer, batch: Batch) -> torch.Tensor:
        assert not model.training
        assert batch.texts is not None and len(batch.texts.clips) == len(batch)
        assert not batch.is_negative.any()
        return torch.stack([batch.labels, batch.texts.n_targets.float()], dim=1)

    rows = [3, 11, 0, 7]
    collected = collect(model, source, rows, label_and_tokens, **CPU)
    assert model.text_tokenizer is not None
    n_tokens = [len(model.text_tokenizer.encode(source.texts[row]).word_ids) for row in rows]
    np.testing.assert_array_equal(collected, np.stack([source.labels[rows], n_tokens], axis=1))


@pytest.mark.parametrize("recipe", FAMILIES, ids=lambda recipe: recipe.name)
def test_workers_change_no_prediction(recipe: Recipe, source: PairSource, tokenizer: Path) -> None:
    model = make_model(recipe, tokenizer)
    alone, helped = (predict(model, source, range(6), n_workers=n, **CPU) for n in (0, 2))
    np.testing.assert_array_equal(alone.clips, helped.clips)


def test_an_unknown_device_is_an_error() -> None:
    with pytest.raises(HearbackError, match="--device abacus"):
        devices.choose_device("abacus")


# One pass for all of the ensemble

ENSEMBLE = (MEAN, ATTENTION, ALIGNED, TOKENS, OWN)


@pytest.fixture
def ensemble(source: PairSource, tokenizer: Path, tmp_path: Path) -> EnsembleConfig:
    """Models of all families, of two folds each, with random weights; two score words."""
    other_tokens = replace(TOKENS, name="modeltok2", seed=9)
    weights = {**dict.fromkeys(ENSEMBLE, 0.15), other_tokens: 0.25}
    for recipe in weights:
        for fold in (0, 1):
            write_fold(tmp_path / "assets", recipe, fold, source.references.voice, tokenizer)
    return EnsembleConfig(
        tuple(ModelConfig(recipe.name, (0, 1), weight) for recipe, weight in weights.items()),
        source.references.voice,
        BASE_RATES,
        {"cross_fitted": 0.5},
        n_rows=36,
        words=WordCalibration(("modeltok", "modeltok2"), Line(), Line(), (0.15, 0.25)),
    )


def run_ensemble(
    config: EnsembleConfig, source: PairSource, assets: Path, **changed: Any
) -> Predictions:
    grades = np.repeat("1", len(source))
    folds = read_folds(config, assets)
    return predict_ensemble(config, source, grades, folds, **{**CPU, **changed}).predictions


def one_by_one(config: EnsembleConfig, source: PairSource, assets: Path) -> Predictions:
    clips, words, weights = [], [], []
    for model in config.models:
        of_model = []
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            scorer = load.load_scorer(files, fold_files.read_fold_metadata(files))
            alone = predict(scorer, source, range(len(source)), **CPU)
            of_model.append(alone.clips)
            if alone.words is not None:
                words.append(alone.words)
                weights.append(model.weight / len(model.folds))
        clips.append(np.mean(of_model, axis=0))
    mixed = config.predict(np.array(clips), np.repeat("1", len(source)))
    return Predictions(mixed, np.average(words, axis=0, weights=weights))


def assert_same(predictions: Predictions, expected: Predictions, atol: float) -> None:
    np.testing.assert_allclose(predictions.clips, expected.clips, atol=atol)
    assert predictions.words is not None and expected.words is not None
    np.testing.assert_allclose(predictions.words, expected.words, atol=10 * atol)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    return tmp_path / "assets"


def test_an_ensemble_s_scores_are_the_mean_of_its_folds_run_alone(
    ensemble: EnsembleConfig, source: PairSource, assets: Path
) -> None:
    expected = one_by_one(ensemble, source, assets)
    assert np.ptp(expected.clips) > 0.01
    assert_same(run_ensemble(ensemble, source, assets), expected, 1e-5)


def test_each_model_gets_recordings_at_its_own_speed(
    source: PairSource, tokenizer: Path, assets: Path
) -> None:
    voice = source.references.voice
    slow = replace(TOKENS, name="modeltok2", speed_by_grade=(0.8,) * 4)
    for recipe in (TOKENS, slow):
        write_fold(assets, recipe, 0, voice, tokenizer)
    models_of_it = tuple(ModelConfig(name, (0,), 0.5) for name in ("modeltok", "modeltok2"))
    config = EnsembleConfig(
        models_of_it,
        voice,
        BASE_RATES,
        {"cross_fitted": 0.5},
        n_rows=36,
        words=WordCalibration(("modeltok", "modeltok2"), Line(), Line()),
    )
    together = run_ensemble(config, source, assets)
    assert_same(together, one_by_one(config, source, assets), 1e-6)

    as_it_is, played_slowly = (
        predict(make_model(recipe, tokenizer), source, range(12), **CPU)
        for recipe in (TOKENS, slow)
    )
    by_hand = copy(source)
    slowed = {n: change_speed(source.store.get(n), 0.8) for n in source.filenames}
    by_hand.store = cast(Any, SimpleNamespace(get=slowed.get, n_samples=lambda n: len(slowed[n])))
    expected = predict(make_model(TOKENS, tokenizer), by_hand, range(12), **CPU)
    np.testing.assert_allclose(played_slowly.clips, expected.clips, atol=1e-6)
    assert np.abs(played_slowly.clips - as_it_is.clips).max() > 1e-4


def count(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Return a list that gets the arguments of every call of `owner.name`."""
    calls: list[Any] = []
    function = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_inputs_are_prepared_once_for_all_folds_of_a_format(
    ensemble: EnsembleConfig,
    source: PairSource,
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = count(monkeypatch, PairDataset, "__getitem__")
    batched = count(monkeypatch, model_group, "collate")
    features = count(monkeypatch, model_group, "log_mel")
    again = count(monkeypatch, base, "log_mel")
    run_ensemble(ensemble, source, assets)
    # Twelve clips in three formats (joined, aligned, tokens), of four, two and six folds.
    assert len(fetched) == 12 * 3
    assert len(features) == len(batched) and not again


def test_models_that_do_not_fit_in_memory_together_run_in_sequence_with_the_same_scores(
    ensemble: EnsembleConfig,
    source: PairSource,
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    together = run_ensemble(ensemble, source, assets)
    printed = capsys.readouterr().out
    assert "modeltok folds 0 1, modeltokown folds 0 1, modeltok2 folds 0 1" in printed
    fetched = count(monkeypatch, PairDataset, "__getitem__")
    n_parameters = sum(p.numel() for p in make_model(MEAN, source_tokenizer(assets)).parameters())
    in_sequence = run_ensemble(ensemble, source, assets, memory_gb=2.5 * 4 * n_parameters / 1e9)
    assert_same(in_sequence, together, 1e-12)
    assert len(fetched) == 12 * (2 + 2 + 6)  # two joined models at a time; the rest are larger
    assert "modeltok fold 0:" in capsys.readouterr().out
    one_at_a_time = run_ensemble(ensemble, source, assets, memory_gb=1e-9)
    assert_same(one_at_a_time, together, 1e-12)


def source_tokenizer(assets: Path) -> Path:
    return next(assets.glob("tokenizer_*.json"))


def test_layers_that_folds_share_are_computed_once(
    source: PairSource, tokenizer: Path, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = source.references.voice
    recipe = replace(MEAN, frozen_share=0.5)
    for fold in (0, 1):
        model = make_model(recipe, tokenizer)
        with torch.no_grad():
            model.encoder.layers[1].get_parameter("fc2.weight").mul_(1 + fold)
        files = FoldFiles(assets, MEAN.name, fold)
        fold_metadata = {
            "recipe": recipe.as_dict(),
            "shape": model.backbone_config(),
            "tokenizer": None,
        }
        oof = pd.DataFrame({"filename": [], "score": [], "pred": []})
        fold_files.save_fold(files, model.state_dict(), oof, {**fold_metadata, "voice": voice})
    config = EnsembleConfig(
        (ModelConfig(MEAN.name, (0, 1), 1.0),), voice, BASE_RATES, {"cross_fitted": 0.5}, n_rows=36
    )
    alone = [
        run_ensemble(
            replace(config, models=(ModelConfig(MEAN.name, (fold,), 1.0),)), source, assets
        )
        for fold in (0, 1)
    ]
    layers = count(monkeypatch, EncoderLayer, "forward")
    batches = count(monkeypatch, model_group, "collate")
    together = run_ensemble(config, source, assets)
    assert len(layers) == 3 * len(batches)
    assert not np.allclose(alone[0].clips, alone[1].clips, atol=1e-4)
    mean = (alone[0].clips + alone[1].clips) / 2
    np.testing.assert_allclose(together.clips, mean, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_scores_in_fewer_bits_are_near_those_in_float32(
    dtype: torch.dtype, ensemble: EnsembleConfig, source: PairSource, assets: Path
) -> None:
    exact = run_ensemble(ensemble, source, assets).clips
    near = run_ensemble(ensemble, source, assets, dtype=dtype).clips
    assert not np.array_equal(near, exact)
    np.testing.assert_allclose(near, exact, atol=0.02)


def test_infer_computes_in_the_given_precision(options: InferenceOptions) -> None:
    write_submission(replace(options, precision="float32"))
    exact = scores(options)
    for precision in ("bfloat16", "int8"):
        write_submission(replace(options, precision=precision))
        assert not scores(options).equals(exact)
        pd.testing.assert_series_equal(scores(options), exact, atol=0.02, rtol=0)


def test_the_command_line_sets_precision_memory_and_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[InferenceOptions] = []
    monkeypatch.setattr(submission, "write_submission", received.append)
    monkeypatch.setattr(
        "sys.argv", ["infer.py", "--no_page", "--precision", "int8", "--memory_gb", "1.5"]
    )
    infer.main()
    assert (received[0].precision, received[0].memory_gb) == ("int8", 1.5)
    monkeypatch.setattr("sys.argv", ["infer.py", "--no_page"])
    infer.main()
    assert (received[1].precision, received[1].memory_gb) == ("auto", None)
    assert received[1].time_limit is None
    for flag in ("--time-limit", "--time_limit"):
        monkeypatch.setattr("sys.argv", ["infer.py", flag, "1h30m"])
        infer.main()
        assert received[-1].time_limit == 5400


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_scores_are_those_of_the_cpu(options: InferenceOptions) -> None:
    write_submission(options)
    on_cpu = scores(options)
    write_submission(replace(options, device="cuda"))
    pd.testing.assert_series_equal(scores(options), on_cpu, atol=5e-3, rtol=0)
