"""Fixtures: tiny data of both competitions, a tiny backbone, and options of trainings on them."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine import cli, failures
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store_builder import build_store
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.problems import Report
from hearback.engine.phones import layout
from hearback.engine.phones.hama import convert
from hearback.reading.inference.submission import InferenceOptions
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import PairSource
from hearback.reading.references import References
from hearback.reading.render import render_missing
from hearback.reading.scoring import acoustics, decoder_evidence
from hearback.reading.tables import GRADES, TASKS, read_labelled
from hearback.songs.options import SongOptions
from hearback.songs.recipe import find_recipes
from hearback.songs.training import train_fold
from tests.engine.phones.packages import write_packages
from tests.songs.songs_data import N_SNIPPETS, read_options, training_flags, write_songs
from tests.toy import DECODER as TINY_DECODER
from tests.toy import ENCODER as TINY
from tests.toy import TEXTS, ToneVoice, make_backbone, spoken

os.environ.setdefault(failures.SHOW_TRACEBACK, "1")  # a bug is shown where it is tested

CONFIG = {"model_type": "whisper", **TINY.as_dict(), **TINY_DECODER.as_dict()}


@pytest.fixture(autouse=True, scope="module")
def toys_are_speech() -> Iterator[None]:
    """Toy recordings are tones, and a decoder with random weights understands nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder_evidence, "SURPRISE", np.inf)
        monkeypatch.setattr(acoustics, "TONE_ENTROPY", -np.inf)
        monkeypatch.setattr(acoustics, "STEADY_ENTROPY", -np.inf)
        yield


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Write data/ (train and test) and tts_data/ into the test's folder, and return the folder."""

    def make(n_train: int = 36, n_test: int = 6, folder: Path = tmp_path) -> Path:
        rng = np.random.default_rng(0)
        for split, n_rows in (("train", n_train), ("test", n_test)):
            rows = []
            for number in range(n_rows):
                text, score = TEXTS[number % len(TEXTS)], number // len(TEXTS) % 2
                name = f"{split}{number:03}.wav"
                spoken_text = text if score else TEXTS[(number + 1) % len(TEXTS)]
                waveform = spoken(spoken_text, 220.0)
                waveform = waveform + rng.normal(0, 0.01, len(waveform))  # in float64
                write_wav(folder / "data" / name, waveform, SAMPLE_RATE)
                task, grade = TASKS[number % 4], GRADES[number // 3 % 4]
                rows.append((name, task, text, grade, f"s{number % 9}", float(score)))
            columns = ["filename", "task", "expected_text", "grade", "speaker", "score"]
            table = pd.DataFrame(rows, columns=columns)
            table.drop(columns="score").to_csv(
                folder / "data" / f"{split}_metadata.csv", index=False
            )
            scores = table[["filename", "score"]]
            if split == "train":
                scores.to_csv(folder / "data" / "train_labels.csv", index=False)
            else:
                placeholder = scores[::-1].assign(score=0.0)
                placeholder.to_csv(folder / "data" / "submission_format.csv", index=False)
        render_missing(TEXTS, ToneVoice(), folder / "tts_data", progress=False)
        return folder

    return make


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in Transformers' layout: a tiny random Whisper and its tokenizer."""
    return make_backbone(tmp_path_factory.mktemp("tiny") / "backbone")


@pytest.fixture(scope="session")
def phones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny recogniser of phones, with random weights and a few words."""
    folder = tmp_path_factory.mktemp("phones")
    write_packages(folder / "wheel")
    convert(folder / "wheel", folder / layout.NAME, {})
    return folder / layout.NAME


@pytest.fixture(scope="session")
def tokenizer(backbone: Path) -> Path:
    """The tiny backbone's tokenizer."""
    return backbone / "tokenizer.json"


@pytest.fixture
def make_source(make_corpus: Callable[..., Path]) -> Callable[[int], PairSource]:
    """Return a function that makes a source of labelled clips of six texts and several lengths."""

    def make(n_clips: int) -> PairSource:
        folder = make_corpus(n_train=n_clips, n_test=0)
        report = Report()
        metadata, labels = read_labelled(folder / "data", report)
        path = folder / "data" / "train_metadata.csv"
        recordings = build_store(
            metadata, folder / "data", path, folder / "store", "train", report=report
        )
        return PairSource(metadata, References(folder / "tts_data"), recordings, labels)

    return make


def training_options(folder: Path, backbone: Path) -> TrainingOptions:
    """Return options of a training on the corpus in `folder`."""
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    names = ("data", "tts_data", "store", "assets", "runs")
    folders = [part for name in names for part in (f"--{name}", str(folder / name))]
    flags = [*folders, "--n_folds", "3", "--device", "cpu", "--backbone", str(backbone)]
    flags += ["--precision", "float32"]  # same results on every machine
    return TrainingOptions.gather(parser.parse_args(flags))


@pytest.fixture
def options(make_corpus: Callable[..., Path], backbone: Path) -> TrainingOptions:
    """Options of a training on the tiny corpus and backbone."""
    return training_options(make_corpus(), backbone)


@contextmanager
def files_no_longer_than(n_bytes: int) -> Iterator[None]:
    """Limit the size of written files: like a full disk, but with another error code."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def inference_options(folder: Path, **changes: Any) -> InferenceOptions:
    """Return the options of infer.py for a test's folder, on a CPU."""
    return InferenceOptions(
        data=folder / "data",
        tts_data=folder / "tts_data",
        store=folder / "store",
        assets=folder / "assets",
        config=folder / "model_configs.json",
        submission=folder / "submission.csv",
        device="cpu",
        workers=0,
        **changes,
    )


@pytest.fixture(scope="session")
def songs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with song snippets in data/, and their stores in store/.

    All tests share it: tests that change the data write their own (`songs_data.write_songs`).
    """
    folder = tmp_path_factory.mktemp("songs")
    write_songs(folder / "data")
    return folder


@pytest.fixture
def song_options(songs_folder: Path, tmp_path: Path) -> SongOptions:
    """Options of a training on the shared snippets that writes to the test's own folder."""
    return read_options(*training_flags(songs_folder, tmp_path))


@pytest.fixture(scope="session")
def trained(songs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two folds of a small model, and one on separated voices, in its assets."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = replace(find_recipes()["cnn4"].with_epochs(1), batch_size=8)
    for fold in (0, 1):
        options = read_options(*training_flags(songs_folder, folder))
        train_fold(recipe, fold, options, options.load_data())
    few = tmp_path_factory.mktemp("few")  # separation takes long
    write_songs(few / "data", numbers=range(0, N_SNIPPETS, 3))
    unweighted = replace(recipe, class_weights=False, balanced_sampling=False)
    options = read_options(*training_flags(few, folder), "--separate", "repet", "--n_folds", 2)
    train_fold(unweighted, 0, options, options.load_data())
    return folder
