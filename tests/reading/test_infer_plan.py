"""infer.py --plan: times from a sample, nothing written, and what runs within a limit."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hearback.engine.ensemble.calibration import Calibration
from hearback.engine.errors import HearbackError
from hearback.reading.ensemble import EnsembleConfig, Fallback
from hearback.reading.inference import plan
from hearback.reading.inference.folds import read_folds
from hearback.reading.inference.outputs import InferenceOptions
from hearback.reading.inference.plan import ModelTimes, show_plan
from tests.helpers import written
from tests.reading.inference_data import write_ensemble


@pytest.fixture
def options(
    make_corpus: Callable[..., Path], tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> InferenceOptions:
    """An ensemble of three models of two folds each, with fallbacks."""
    monkeypatch.setattr(plan, "SECONDS", 0.01)
    options = write_ensemble(make_corpus(), tokenizer)
    config = EnsembleConfig.load(options.config)
    fallbacks = tuple(
        Fallback({model.name: 1.0}, Calibration(), 0.6) for model in config.models_to_run
    )
    models = tuple(replace(model, seconds_per_clip=None) for model in config.models)
    replace(config, models=models, fallbacks=fallbacks).save(options.config)
    return options


def test_a_plan_scores_and_writes_nothing(
    options: InferenceOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(options.data.parent)
    show_plan(options)
    assert written(options.data.parent) == before
    text = capsys.readouterr().out
    assert "6 rows" in text and "nothing was scored or written" in text
    assert all(model in text for model in ("model2ds", "model3mapd", "modeltok"))


@pytest.mark.parametrize(("limit", "expected"), [(1e6, "nothing is left out"), (1.0, "not enough")])
def test_a_plan_says_what_runs_within_a_limit(
    options: InferenceOptions,
    capsys: pytest.CaptureFixture[str],
    limit: float,
    expected: str,
) -> None:
    show_plan(replace(options, time_limit=limit))
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "limit", "expected"),
    [
        (10.0, 60.0, r"fold 0, \w+ fold 0, done after about 0:01:50, which is over the limit; "),
        (100.0, 60.0, "0:01:00: not enough for a single fold$"),
        (10.0, 600.0, "modeltok folds 0 1, done after about 0:07:00; nothing is left out$"),
    ],
)
def test_a_plan_tells_an_overrun_of_later_folds_from_one_of_the_first(
    options: InferenceOptions, first: float, limit: float, expected: str
) -> None:
    config = EnsembleConfig.load(options.config)
    config = replace(
        config, models=tuple(replace(model, seconds_per_clip=0.1) for model in config.models)
    )
    # The schedule expects what the first fold took; the other models take longer.
    seconds = [first, 100.0, 100.0]
    times = [ModelTimes(0.0, each, each, n_bytes=100, further_bytes=20) for each in seconds]
    folds = read_folds(config, options.assets)
    assert re.search(expected, plan._within(limit, config, folds, times, (6, 0.0)))


def test_a_plan_without_a_usable_row_is_an_error(options: InferenceOptions) -> None:
    for path in options.data.glob("test*.wav"):
        path.unlink()
    with pytest.raises(HearbackError, match="none of 6 rows can be scored"):
        show_plan(options)


def test_folds_beside_each_other_share() -> None:
    times = ModelTimes(load=1.0, first=10.0, further=4.0, n_bytes=100, further_bytes=20)
    assert times.seconds(1) == 11 and times.seconds(3) == 3 + 10 + 8
    assert times.all_bytes(3) == 140
