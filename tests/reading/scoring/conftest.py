"""Scorers: one with random weights, and one with the real weights of tiny.en and a fitted head."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from hearback.engine.audio.decode import SAMPLE_RATE, Recording
from hearback.engine.audio.store import MemoryStore
from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.project import ROOT
from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.predict import collect
from hearback.reading.models import load
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import build
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch
from hearback.reading.word_calibration import WordCalibration
from tests.reading.random_models import write_fold
from tests.toy import spoken
from train_modeltok import RECIPE as TOKENS

TINY_EN = ROOT / "assets" / "whisper-tiny.en"
WITHOUT_CONTEXT = replace(TOKENS, uses_context=False)
SENTENCES = (
    "the cat sat on the mat",
    "we went to the park today",
    "my little brother likes green apples",
    "she put the red book on the table",
    "the children walked to the river",
    "a big dog ran after the ball",
)


def write_config(folder: Path, recipe: Recipe, folds: tuple[int, ...] = (0,)) -> None:
    """Write the configuration of an ensemble of one model."""
    words = WordCalibration((recipe.name,), Line(), Line())
    EnsembleConfig(
        models=(ModelConfig(recipe.name, folds, 1.0),),
        voice=None,
        base_rates={"all": 0.5},
        log_losses={"cross_fitted": 0.5},
        n_rows=36,
        words=words,
    ).save(folder / "model_configs.json")


@pytest.fixture(scope="session")
def toy_scorer(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A scorer's folder, with random weights: its scores mean nothing."""
    folder = tmp_path_factory.mktemp("toy") / "scorer"
    for fold in (0, 1):
        write_fold(folder, WITHOUT_CONTEXT, fold, {}, tokenizer)
    write_config(folder, WITHOUT_CONTEXT, (0, 1))
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with three toy recordings, each with its text beside it."""
    folder = tmp_path / "recordings"
    for name, text in (("a", "boy"), ("deep/b", "a red hat"), ("c", "the dog ran home")):
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, spoken(text), SAMPLE_RATE)
        path.with_suffix(".lab" if name == "c" else ".txt").write_text(f"{text}\n")
    return folder


def render(text: str, seed: int = 0) -> np.ndarray:
    """Return a text spoken by hibari, (samples,) float32 at 16 kHz."""
    import librosa
    from hibari import SAMPLE_RATE as VOICE_RATE
    from hibari import Hibari

    voice = Hibari(threads=1)(text, speed=0.8, seed=seed).astype(np.float32)
    return librosa.resample(voice, orig_sr=VOICE_RATE, target_sr=SAMPLE_RATE)


def source_of(texts: list[str], waveforms: list[np.ndarray]) -> PairSource:
    names = [str(number) for number in range(len(texts))]
    recordings = {name: Recording(each, ()) for name, each in zip(names, waveforms, strict=True)}
    frame = pd.DataFrame({"filename": names, "expected_text": texts, "task": "", "grade": ""})
    return PairSource(frame, None, MemoryStore(recordings))


@pytest.fixture(scope="session")
def real_scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorer's folder with the weights of tiny.en; its head is fitted to six spoken sentences."""
    folder = tmp_path_factory.mktemp("real") / "scorer"
    folder.mkdir()
    model = build(WITHOUT_CONTEXT, read_config(TINY_EN), TINY_EN / "tokenizer.json")
    model.load_pretrained({part: read_tensors(TINY_EN, part) for part in ("encoder", "decoder")})
    waveforms = [render(text) for text in SENTENCES]
    wrong = [*SENTENCES[1:], SENTENCES[0]]
    # A word is missing from the recording, or is another one.
    near = [text.replace("the", "the old").replace("green", "red") for text in SENTENCES]
    source = source_of([*SENTENCES, *wrong, *near], [*waveforms, *waveforms, *waveforms])

    def features_of(scorer: Scorer, batch: Batch) -> torch.Tensor:
        features = scorer.pretrained_features(batch)
        assert features is not None
        return features

    labels = np.repeat([1.0, 0.0, 0.0], len(SENTENCES))
    features = collect(
        model,
        source,
        range(len(source)),
        features_of,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    model.init_from_pretrained(features, labels)
    fold_metadata = {
        "recipe": WITHOUT_CONTEXT.as_dict(),
        "shape": model.backbone_config(),
        "tokenizer": load.save_tokenizer(TINY_EN / "tokenizer.json", folder),
        "voice": None,
    }
    oof = pd.DataFrame({"filename": [], "score": [], "pred": []})
    files = FoldFiles(folder, WITHOUT_CONTEXT.name, 0)
    save_fold(files, model.state_dict(), oof, fold_metadata)
    write_config(folder, WITHOUT_CONTEXT)
    return folder
