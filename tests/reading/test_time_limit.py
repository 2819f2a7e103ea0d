"""Inference within a time limit, by a simulated clock: no test but one depends on real time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine.data import tables
from hearback.engine.ensemble.calibration import Calibration, Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.training import fold_files
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.ensemble import EnsembleConfig, Fallback
from hearback.reading.inference import batch_plan, ensemble_run, model_group, time_limit
from hearback.reading.inference import submission as submission_module
from hearback.reading.inference.batch_plan import PlannedBatch
from hearback.reading.inference.ensemble_run import EnsembleRun, predict_ensemble
from hearback.reading.inference.folds import read_folds
from hearback.reading.inference.predict import Predictions, predict
from hearback.reading.inference.schedule import FoldSchedule
from hearback.reading.inference.submission import InferenceOptions, write_submission
from hearback.reading.inference.time_limit import MARGIN_SECONDS, MARGIN_SHARE, Deadline
from hearback.reading.models import load as load_module
from hearback.reading.models.base import Scorer
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.window_batches import Batch
from hearback.reading.word_calibration import WordCalibration
from tests.conftest import inference_options
from tests.reading.inference_data import CPU
from tests.reading.random_models import BASE_RATES, write_fold
from train_model2ds import RECIPE as JOINED
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS

RECIPES = (TOKENS, JOINED, ALIGNED)  # of three input formats; the best first
NAMES = tuple(recipe.name for recipe in RECIPES)
N_CLIPS, N_FOLDS = 12, 3
LINE = Line(1.0, 0.0)
LINES = {name: Calibration("platt", {"all": Line(1.0, 0.1 * n)}) for n, name in enumerate(NAMES)}


class Clock:
    """A simulated clock, which advances only when a model scores clips."""

    def __init__(self, **seconds_per_clip: float) -> None:
        self.now = 0.0
        self.seconds_per_clip = dict.fromkeys(NAMES, 1.0) | seconds_per_clip
        self.n_scored = 0
        self.slow_after: float = np.inf  # clips scored by all models; then each takes ten times

    def __call__(self) -> float:
        return self.now

    def score(self, model: Scorer, n_clips: int) -> None:
        self.n_scored += n_clips
        slow = 10 if self.n_scored > self.slow_after else 1
        self.now += slow * n_clips * self.seconds_per_clip[model.recipe.name]


def limit_of(seconds: float) -> float:
    """Return the time limit that leaves so many seconds for scoring."""
    return (seconds + MARGIN_SECONDS) / (1 - MARGIN_SHARE)


@pytest.fixture
def source(make_source: Callable[[int], PairSource]) -> PairSource:
    return make_source(N_CLIPS)


def make_config(
    voice: dict[str, Any] | None, seconds: dict[str, float] | None = None
) -> EnsembleConfig:
    """Three models of three folds, the most valuable first.

    By training's measurements a fold takes one second per clip, except for models in `seconds`.
    """
    seconds_per_clip = dict.fromkeys(NAMES, 1.0) | (seconds or {})
    word_calibration = WordCalibration(("modeltok",), Line(2.0, 0.0), LINE)

    def fallback(loss: float, *names: str) -> Fallback:
        weights = {name: 1 / len(names) for name in names}
        words = word_calibration if TOKENS.name in names else None
        return Fallback(weights, LINES[names[-1]], loss, words)

    return EnsembleConfig(
        tuple(
            ModelConfig(name, tuple(range(N_FOLDS)), weight, seconds_per_clip[name])
            for name, weight in zip(NAMES, (0.5, 0.3, 0.2), strict=True)
        ),
        voice,
        BASE_RATES,
        {"cross_fitted": 0.3},
        n_rows=36,
        combine="logits",
        words=WordCalibration(("modeltok",), LINE, LINE),
        fallbacks=(
            fallback(0.6, NAMES[2]),
            fallback(0.5, NAMES[1]),
            fallback(0.4, NAMES[0]),
            fallback(0.35, NAMES[0], NAMES[1]),
        ),
    )


@pytest.fixture
def config(source: PairSource, tokenizer: Path, tmp_path: Path) -> EnsembleConfig:
    for recipe in RECIPES:
        for fold in range(N_FOLDS):
            write_fold(tmp_path / "assets", recipe, fold, source.references.voice, tokenizer)
    return make_config(source.references.voice)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    return tmp_path / "assets"


GRADES = np.repeat("1", N_CLIPS)


@pytest.fixture
def run_within(
    config: EnsembleConfig, source: PairSource, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., EnsembleRun]:
    """Run the ensemble by a simulated clock, in many batches of one or two clips."""
    monkeypatch.setitem(batch_plan.BATCH_SECONDS, "cpu", 2.0)
    # The simulated clock takes the same time for every clip.
    monkeypatch.setattr(PlannedBatch, "cost", lambda batch, shape: float(len(batch.indices)))
    score_with_words = ensemble_run.score_with_words

    def run(clock: Clock, limit: float, **changed: Any) -> EnsembleRun:
        def timed(n_positions: int) -> Callable[[Scorer, Batch], torch.Tensor]:
            score = score_with_words(n_positions)

            def score_and_wait(model: Scorer, batch: Batch) -> torch.Tensor:
                clock.score(model, len(batch))
                return score(model, batch)

            return score_and_wait

        settings = {"config": config, "deadline": Deadline(limit, clock), **CPU, **changed}
        with monkeypatch.context() as patched:
            patched.setattr(ensemble_run, "score_with_words", timed)
            settings["folds"] = read_folds(settings["config"], assets)
            return predict_ensemble(source=source, grades=GRADES, **settings)

    return run


def folds_run(run: EnsembleRun) -> dict[str, int]:
    assert run.config is not None
    return {model.name: len(model.folds) for model in run.config.models}


def run_again(run: EnsembleRun, source: PairSource, assets: Path) -> Predictions:
    """Return the predictions of the folds that were run, without a limit."""
    assert run.config is not None
    folds = read_folds(run.config, assets)
    return predict_ensemble(run.config, source, GRADES, folds, **CPU).predictions


def assert_same(predictions: Predictions, expected: Predictions, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(predictions.clips, expected.clips, atol=atol)
    assert (predictions.words is None) == (expected.words is None)
    if predictions.words is not None and expected.words is not None:
        np.testing.assert_allclose(predictions.words, expected.words, atol=10 * atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_with_time_for_all_the_scores_are_those_without_a_limit(
    dtype: torch.dtype, run_within: Any, config: EnsembleConfig, source: PairSource, assets: Path
) -> None:
    run = run_within(Clock(), 1e6, dtype=dtype)
    assert folds_run(run) == dict.fromkeys(NAMES, 3) and not run.left_out
    assert run.is_scored.all()
    folds = read_folds(config, assets)
    expected = predict_ensemble(config, source, GRADES, folds, **{**CPU, "dtype": dtype})
    assert_same(run.predictions, expected.predictions)


def test_the_fold_that_gains_most_per_second_is_run_first(
    run_within: Any, config: EnsembleConfig
) -> None:
    scored: list[str] = []

    class Recording(Clock):
        def score(self, model: Scorer, n_clips: int) -> None:
            scored.append(model.recipe.name)
            super().score(model, n_clips)

    run_within(Recording(), 1e6)
    assert list(dict.fromkeys(scored)) == list(NAMES)  # then by their weights
    scored.clear()
    fast = {"modelali": 0.1}
    run = run_within(Recording(**fast), limit_of(4), config=make_config(config.voice, fast))
    assert set(scored) == {"modelali"} and folds_run(run) == {"modelali": 3}


def test_time_is_spent_on_models_first_and_then_on_folds(
    run_within: Any, source: PairSource, assets: Path
) -> None:
    # A fold takes 12 s. The best ensemble of those that fit, then as many of their folds as fit.
    for seconds, expected in (
        (14, {"modeltok": 1}),
        (28, {"modeltok": 1, "model2ds": 1}),
        (44, {"modeltok": 1, "model2ds": 1, "modelali": 1}),
        (70, {"modeltok": 2, "model2ds": 2, "modelali": 1}),
    ):
        clock = Clock()
        run = run_within(clock, limit_of(seconds))
        assert folds_run(run) == expected
        assert clock.now <= seconds and run.is_scored.all()
        assert_same(run.predictions, run_again(run, source, assets))


def test_left_out_folds_are_listed_with_the_reason(run_within: Any) -> None:
    run = run_within(Clock(), limit_of(28))
    assert run.left_out == (
        "modeltok folds 1 2: not run, for lack of time; a fold takes about 0:00:12 here",
        "model2ds folds 1 2: not run, for lack of time; a fold takes about 0:00:12 here",
        "modelali folds 0 1 2: not run, for lack of time; a fold takes about 0:00:12 here",
    )


def test_without_some_models_the_weights_and_calibration_are_those_of_the_fallback(
    run_within: Any, config: EnsembleConfig, source: PairSource, assets: Path
) -> None:
    run = run_within(Clock(), limit_of(28))
    alone = []
    for name in NAMES[:2]:
        files = FoldFiles(assets, name, 0)
        model = load_module.load_scorer(files, fold_files.read_fold_metadata(files))
        alone.append(predict(model, source, range(N_CLIPS), **CPU).clips)
    logits = np.mean(np.log(alone) - np.log1p(-np.array(alone)), axis=0) + 0.1
    np.testing.assert_allclose(run.predictions.clips, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert run.config is not None
    assert run.config.words == config.fallbacks[-1].words != config.words
    assert run.config.log_losses == {"cross_fitted": 0.35}


def test_a_machine_slower_than_training_s_runs_less(run_within: Any) -> None:
    slow = Clock(modeltok=3.0, model2ds=3.0, modelali=3.0)
    run = run_within(slow, limit_of(100))
    assert folds_run(run) == {"modeltok": 1, "model2ds": 1}
    assert slow.now <= 100
    fast = Clock(modeltok=0.3, model2ds=0.3, modelali=0.3)
    run = run_within(fast, limit_of(60))
    assert folds_run(run) == dict.fromkeys(NAMES, 3)


def test_one_slow_model_does_not_use_up_the_time(
    run_within: Any, source: PairSource, assets: Path
) -> None:
    clock = Clock(model2ds=50.0)  # one second in training
    run = run_within(clock, limit_of(100))
    assert folds_run(run)["modeltok"] == 3 and "model2ds" not in folds_run(run)
    assert any(line.startswith("model2ds fold 0: stopped at") for line in run.left_out)
    assert clock.now <= 100 + 2 * 50  # the batch that it was found out by
    assert_same(run.predictions, run_again(run, source, assets))


@pytest.mark.parametrize("scored_before", [12, 13, 20, 36, 40, 60])
def test_on_a_machine_that_slows_down_whole_folds_stop(
    scored_before: int, run_within: Any, source: PairSource, assets: Path
) -> None:
    clock = Clock()
    clock.slow_after = scored_before
    run = run_within(clock, limit_of(130))  # for all but slowness
    assert sum(folds_run(run).values()) < 9
    assert clock.now <= 130 + 2 * 10 * 6  # at most a batch of all that ran side by side
    assert run.is_scored.all()
    assert_same(run.predictions, run_again(run, source, assets))
    assert run.left_out


def test_within_a_pass_the_least_valuable_folds_stop_and_the_rest_continue(
    run_within: Any, source: PairSource, assets: Path
) -> None:
    clock = Clock(model2ds=1e-3, modelali=1e-3)
    clock.slow_after = 3 * 12 + 1  # in the pass of modeltok's other folds
    run = run_within(clock, limit_of(12 + 170))
    assert folds_run(run)["modeltok"] == 2
    assert any(line.startswith("modeltok fold 2: stopped at") for line in run.left_out)
    assert_same(run.predictions, run_again(run, source, assets))


def test_without_time_for_a_single_fold_the_scored_clips_have_its_scores(
    run_within: Any, source: PairSource, assets: Path
) -> None:
    clock = Clock()
    run = run_within(clock, limit_of(6))
    assert run.config is None and run.predictions.words is None
    assert 0 < run.is_scored.sum() < N_CLIPS
    assert clock.now <= 6
    files = FoldFiles(assets, "modeltok", 0)
    model = load_module.load_scorer(files, fold_files.read_fold_metadata(files))
    alone = predict(model, source, range(N_CLIPS), **CPU).clips
    scores = run.predictions.clips
    np.testing.assert_allclose(scores[run.is_scored], alone[run.is_scored], atol=1e-6)
    assert any("modeltok fold 0: stopped at" in line for line in run.left_out)


def test_without_any_time_nothing_is_run(run_within: Any) -> None:
    clock = Clock()
    clock.now = 50.0  # decoding took it
    run = run_within(clock, 40.0)
    assert run.config is None and not run.is_scored.any()
    assert clock.n_scored == 0 and len(run.left_out) == 3


def test_models_that_do_not_fit_in_memory_together_run_in_sequence(
    run_within: Any, source: PairSource, assets: Path
) -> None:
    run = run_within(Clock(), limit_of(90), memory_gb=1e-9)
    assert folds_run(run) == {"modeltok": 3, "model2ds": 2, "modelali": 2}
    assert_same(run.predictions, run_again(run, source, assets))


def test_slow_loading_leaves_folds_out(run_within: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, load = Clock(), model_group.load_scorer

    def load_slowly(*args: Any) -> Scorer:
        clock.now += 15
        return load(*args)

    monkeypatch.setattr(model_group, "load_scorer", load_slowly)
    run = run_within(clock, limit_of(120))
    assert clock.now <= 120 + 15 + 12
    assert 2 <= sum(folds_run(run).values()) <= 4


def test_the_folds_that_ran_can_be_run_again_without_a_limit(
    run_within: Any, source: PairSource, assets: Path, tmp_path: Path
) -> None:
    run = run_within(Clock(), limit_of(70))
    run.config.save(tmp_path / "folds.json")
    again = EnsembleConfig.load(tmp_path / "folds.json")
    assert again == run.config
    assert_same(run.predictions, run_again(run, source, assets))


def test_a_configuration_without_durations_or_fallbacks_is_refused(
    run_within: Any, config: EnsembleConfig
) -> None:
    untimed = tuple(replace(model, seconds_per_clip=None) for model in config.models)
    for older in (replace(config, fallbacks=()), replace(config, models=untimed)):
        with pytest.raises(HearbackError, match=r"--time_limit.*python get_config\.py"):
            run_within(Clock(), 1e6, config=older)


def test_a_model_alone_needs_no_fallback(config: EnsembleConfig) -> None:
    FoldSchedule(replace(config, models=config.models[:1], fallbacks=()), [], 1, Deadline(1.0))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_process_begins_before_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "_imported", time.monotonic())
    assert time_limit.seconds_since_start() > 0  # this one has run tests before
    monkeypatch.setattr(time_limit, "_STAT", Path("nowhere"))
    assert time_limit.seconds_since_start() < 60 * 60


# The whole of infer.py


@pytest.fixture
def options(
    make_corpus: Callable[..., Path], tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> InferenceOptions:
    """Options to run the three models on a test set of six clips, and a clock that stands still."""
    folder = make_corpus()
    voice = References(folder / "tts_data").voice
    for recipe in RECIPES:
        for fold in range(N_FOLDS):
            write_fold(folder / "assets", recipe, fold, voice, tokenizer)
    make_config(voice).save(folder / "model_configs.json")
    return inference_options(folder, words=folder / "words.csv")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock by which every batch takes five seconds, however many models score it."""
    clock, collate = Clock(), model_group.collate

    def collate_slowly(*args: Any) -> Batch:
        clock.now += 5
        return collate(*args)

    monkeypatch.setattr(model_group, "collate", collate_slowly)
    monkeypatch.setattr(submission_module, "Deadline", lambda limit: Deadline(limit, clock))
    return clock


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def test_a_long_limit_changes_no_score(
    options: InferenceOptions, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(replace(options, time_limit=7200.0))
    folds = options.submission.with_name(submission_module.FOLDS)
    assert EnsembleConfig.load(folds).models == EnsembleConfig.load(options.config).models
    assert "folds run within 2:00:00: modeltok 0 1 2, " in capsys.readouterr().out
    assert options.words is not None
    limited = [read(options.submission), read(options.words)]
    write_submission(options)
    assert not folds.exists()  # it would describe another run
    for before, path in zip(limited, (options.submission, options.words), strict=True):
        pd.testing.assert_frame_equal(read(path), before, atol=1e-6, rtol=0)


def test_a_limit_shorter_than_a_fold_loses_no_row(
    options: InferenceOptions, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    order = list(read(options.submission)["filename"])
    clock.now = 20.0
    write_submission(replace(options, time_limit=20.0))
    submission = read(options.submission)
    assert list(submission["filename"]) == order
    assert set(submission["score"]) == {0.1, 0.25, 0.4}
    printed = capsys.readouterr().out
    assert "NO FOLD was finished" in printed and "6 of them at the base rate" in printed
    problems = read(options.submission.with_name(tables.PROBLEMS))
    assert set(problems["filename"][problems["severity"] == "error"]) == set(order)
    assert "words.csv lacks 6 rows" in printed


def test_left_out_folds_are_listed_as_problems(options: InferenceOptions, clock: Clock) -> None:
    write_submission(replace(options, time_limit=limit_of(40)))
    assert read(options.submission)["score"].between(0, 1, inclusive="neither").all()
    problems = read(options.submission.with_name(tables.PROBLEMS))
    assert set(problems["severity"]) == {"warning"}
    assert problems["what"].str.contains("not run, for lack of time").any()


def test_word_scores_of_an_earlier_run_do_not_stay(
    options: InferenceOptions, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    config = EnsembleConfig.load(options.config)
    fallbacks = tuple(f for f in config.fallbacks if TOKENS.name not in f.weights)
    models = [replace(config.models[0], seconds_per_clip=1e6), *config.models[1:]]
    replace(config, models=tuple(models), fallbacks=fallbacks).save(options.config)
    (options.data / read(options.data / "test_metadata.csv")["filename"][0]).write_bytes(b"broken")
    write_submission(replace(options, time_limit=limit_of(clock.now + 60)))
    assert options.words is not None and not options.words.exists()
    printed = capsys.readouterr().out
    assert "words.csv is NOT WRITTEN" in printed and "words.csv lacks" not in printed


@pytest.mark.slow
def test_the_real_script_by_the_real_clock_writes_every_row(options: InferenceOptions) -> None:
    folder = options.data.parent
    done = subprocess.run(
        [sys.executable, str(ROOT / "infer.py"), "--device", "cpu", "--time-limit", "6s"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    submission, order = read(options.submission), read(options.data / "submission_format.csv")
    assert list(submission["filename"]) == list(order["filename"])
    assert submission["score"].between(0, 1).all()
    folds = options.submission.with_name(submission_module.FOLDS)
    assert folds.exists() == ("folds run within" in done.stdout)
    assert ("NO FOLD was finished" in done.stdout) == (not folds.exists())


def test_divergences_and_a_time_limit_exclude_each_other(options: InferenceOptions) -> None:
    with pytest.raises(HearbackError, match="--divergences needs another pass"):
        write_submission(replace(options, divergences=Path("divergences.csv"), time_limit=60.0))
