"""infer.py: token scorers hear recordings of 16 to 30 s whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.ensemble.config import ModelConfig
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.submission import write_submission
from tests.conftest import inference_options
from tests.reading.random_models import BASE_RATES, write_fold
from tests.toy import spoken
from train_modeltok import RECIPE as TOKENS


def test_speech_after_16_s_counts(
    make_corpus: Callable[..., Path], tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_corpus(n_train=1, n_test=6)
    write_fold(folder / "assets", TOKENS, 0, {}, tokenizer)
    models = (ModelConfig(TOKENS.name, (0,), 1.0),)
    config = EnsembleConfig(models, {}, BASE_RATES, {"cross_fitted": 0.5}, n_rows=36)
    config.save(folder / "model_configs.json")
    noise = np.random.default_rng(0).normal(0, 0.001, 24 * SAMPLE_RATE)
    noise[: 10 * SAMPLE_RATE] += np.resize(spoken("cupcake"), 10 * SAMPLE_RATE)
    scores = []
    for text in ("boy", "sunshine"):
        late = spoken(text)
        waveform = noise.copy()
        waveform[20 * SAMPLE_RATE :][: len(late)] += late
        soundfile.write(folder / "data" / "test000.wav", waveform, SAMPLE_RATE)
        options = inference_options(folder)
        write_submission(options)
        scores.append(pd.read_csv(options.submission).set_index("filename")["score"])
        assert "not scored" not in capsys.readouterr().out
    assert scores[0]["test000.wav"] != scores[1]["test000.wav"]
    pd.testing.assert_series_equal(
        scores[0].drop("test000.wav"), scores[1].drop("test000.wav"), check_exact=True
    )
