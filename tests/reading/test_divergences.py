"""Where the learner diverges from the reference: the table, and what infer.py writes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store_builder import build_store
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.problems import Report
from hearback.engine.data.tables import PROBLEMS
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.engine.whisper.weights import read_tensors
from hearback.reading.augment import Augmentation
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.divergences import align_clips, divergence_table
from hearback.reading.inference.submission import InferenceOptions, write_submission
from hearback.reading.models import scorers
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.references import References
from hearback.reading.tables import read_metadata
from tests.conftest import CONFIG, inference_options, spoken
from tests.reading.random_models import write_fold
from train_model2ds import RECIPE as MEAN

RECIPE = Recipe(
    name="modelali",
    backbone="none",
    pair="aligned",
    dropout=0.0,
    learning_rate=1e-3,
    epochs=1,
    schedule_epochs=1,
    cycles=0.5,
    weight_decay=0.0,
    seed=1,
    data_seed=1,
    augment_learner=Augmentation(),
)
TEXT = "the dog ran home"


def make_model(backbone: Path) -> scorers.AlignedScorer:
    model = scorers.build(RECIPE, CONFIG)
    model.load_pretrained({"encoder": read_tensors(backbone, "encoder")})
    assert isinstance(model, scorers.AlignedScorer)
    return model


def make_source(folder: Path) -> PairSource:
    path = folder / "data" / "test_metadata.csv"
    metadata = read_metadata(path, Report())
    store = build_store(metadata, folder / "data", path, folder / "store", "test", report=Report())
    return PairSource(metadata, References(folder / "tts_data"), store)


def replace_recording(folder: Path, said: str) -> int:
    """Replace the first recording of `TEXT` by one of `said`; return its row."""
    metadata = pd.read_csv(folder / "data" / "test_metadata.csv")
    row = int(np.flatnonzero(metadata["expected_text"] == TEXT)[0])
    write_wav(folder / "data" / metadata["filename"][row], spoken(said), SAMPLE_RATE)
    return row


@pytest.mark.parametrize(("said", "wrong"), [("the fox ran home", 1), ("the dog ran zyxw", 3)])
def test_the_wrong_word_is_where_they_diverge(
    make_corpus: Callable[..., Path], backbone: Path, said: str, wrong: int
) -> None:
    folder = make_corpus()
    row = replace_recording(folder, said)
    source = make_source(folder)
    paths = align_clips(make_model(backbone), source, [row], device=torch.device("cpu"))
    table = divergence_table(source, paths)
    assert list(table["word"]) == TEXT.split() and list(table["position"]) == [0, 1, 2, 3]
    assert list(np.flatnonzero(table["diverges"])) == [wrong]
    assert table["cost"].idxmax() == wrong
    # Learner and reference take equally long here, so the words are where they are in the text.
    letters = np.cumsum([0, *(len(word) + 1 for word in TEXT.split())]) * 0.06
    np.testing.assert_allclose(table["start"], letters[:-1], atol=0.12)
    assert (table["end"] > table["start"]).all()


def test_times_refer_to_the_recording_at_any_speed(
    make_corpus: Callable[..., Path], backbone: Path
) -> None:
    source = make_source(make_corpus())
    model = make_model(backbone)
    tables = []
    for speed in (1.0, 0.8):
        played = source.with_speeds([speed] * 4)
        paths = align_clips(model, played, [0], device=torch.device("cpu"))
        tables.append(divergence_table(played, paths))
    seconds = source.n_samples(0, "tokens") / SAMPLE_RATE
    for table in tables:
        assert table["start"].iloc[0] == pytest.approx(0, abs=0.1)
        assert table["end"].iloc[-1] == pytest.approx(seconds, abs=0.1)


@pytest.fixture
def options(make_corpus: Callable[..., Path], backbone: Path) -> InferenceOptions:
    folder = make_corpus()
    model, voice = make_model(backbone), References(folder / "tts_data").voice
    fold_metadata = {
        "recipe": RECIPE.as_dict(),
        "shape": model.backbone_config(),
        "tokenizer": None,
        "voice": voice,
    }
    oof = pd.DataFrame({"filename": [], "score": [], "pred": []})
    save_fold(FoldFiles(folder / "assets", "modelali", 0), model.state_dict(), oof, fold_metadata)
    losses, rates = {"cross_fitted": 0.5}, {"all": 0.5}
    config = EnsembleConfig((ModelConfig("modelali", (0,), 1.0),), voice, rates, losses, n_rows=36)
    config.save(folder / "model_configs.json")
    return inference_options(folder, divergences=folder / "divergences.csv")


def test_infer_writes_every_word_in_the_submissions_order(options: InferenceOptions) -> None:
    write_submission(options)
    assert options.divergences is not None
    table = pd.read_csv(options.divergences)
    order = pd.read_csv(options.data / "submission_format.csv")["filename"]
    texts = pd.read_csv(options.data / "test_metadata.csv").set_index("filename")["expected_text"]
    assert list(zip(table["filename"], table["word"], strict=True)) == [
        (name, word) for name in order for word in texts[name].split()
    ]
    assert (table.groupby("filename")["diverges"].sum() == 1).all()


def test_without_an_aligned_model_all_but_the_divergences_is_written(
    options: InferenceOptions, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EnsembleConfig.load(options.config)
    write_fold(options.assets, MEAN, 0, config.voice, tokenizer)
    # A model without a weight that is not there, as in a submission's zip.
    models = (ModelConfig(MEAN.name, (0,), 1.0), ModelConfig("modelali2", (0,), 0.0))
    replace(config, models=models).save(options.config)
    assert options.divergences is not None
    options.divergences.write_text("of an earlier run")
    write_submission(options)
    assert len(pd.read_csv(options.submission)) == 6
    assert not options.divergences.exists()
    printed = capsys.readouterr().out
    assert f"{options.divergences} is NOT WRITTEN: the ensemble has no aligned model" in printed
    listed = pd.read_csv(options.submission.with_name(PROBLEMS))
    assert listed["severity"].tolist() == ["warning"]
    assert "train.py --models modelali" in listed["cure"][0]
