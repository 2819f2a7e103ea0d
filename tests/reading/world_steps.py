"""A folder with good data and an ensemble, and the steps that are run on what is changed in it."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.problems import Problem, Report
from hearback.engine.ensemble.config import ModelConfig
from hearback.reading import preprocessing
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.references import References
from hearback.reading.render import render_missing
from hearback.reading.steps import infer, preprocess, train_model
from hearback.reading.tables import GRADES, TASKS
from tests import world_inputs as world
from tests.engine import recording_corpus as corpus
from tests.reading.quick_recipes import QUICK
from tests.reading.random_models import BASE_RATES, write_fold
from tests.toy import TEXTS, ToneVoice, spoken
from tests.world_inputs import (
    Finished,
    check_no_traceback,
    read_problems,
    run_step,
)
from train_model2ds import RECIPE as MEAN
from train_modeltok import RECIPE as TOKENS

ALL_TEXTS = (*TEXTS, world.PLAIN_TEXT)
TABLES = ("train_metadata.csv", "train_labels.csv", "test_metadata.csv", "submission_format.csv")
FOLDERS = ("data", "tts_data", "store", "assets")
CHANGED = {"train": "train003.wav", "test": "test003.wav"}  # the recording or row that is changed


def write_good(folder: Path, tokenizer: Path) -> Path:
    """Write good data, its references, and an ensemble of a fold of two models; return `folder`."""
    rng = np.random.default_rng(0)
    for split, n_rows in (("train", 18), ("test", 6)):
        rows, scores = [], []
        for number in range(n_rows):
            name, text = f"{split}{number:03}.wav", ALL_TEXTS[number % len(ALL_TEXTS)]
            waveform = spoken(text, rng.uniform(180, 260))
            (folder / "data").mkdir(exist_ok=True)
            content = corpus.encoded("WAV", "PCM_16", waveform + rng.normal(0, 0.01, len(waveform)))
            (folder / "data" / name).write_bytes(content)
            rows.append((name, TASKS[number % 4], text, GRADES[number % 4], f"s{number % 9}"))
            scores.append((name, number // 3 % 2 if split == "train" else 0))
        columns = ["filename", "task", "expected_text", "grade", "speaker"]
        metadata = pd.DataFrame(rows, columns=columns)
        metadata.to_csv(folder / "data" / f"{split}_metadata.csv", index=False)
        table = "train_labels.csv" if split == "train" else "submission_format.csv"
        pd.DataFrame(scores, columns=["filename", "score"]).to_csv(
            folder / "data" / table, index=False
        )
    render_missing(ALL_TEXTS, ToneVoice(), folder / "tts_data", progress=False)
    voice = References(folder / "tts_data").voice
    for recipe in (MEAN, TOKENS):
        write_fold(folder / "assets", recipe, 0, voice, tokenizer)
    models = tuple(ModelConfig(recipe.name, (0,), 0.5) for recipe in (MEAN, TOKENS))
    config = EnsembleConfig(models, voice, BASE_RATES, {"cross_fitted": 0.5}, n_rows=18)
    config.save(folder / "model_configs.json")
    return folder


def flags(folder: Path, *names: str) -> list[object]:
    return [f"--{name}={folder / name}" for name in names]


def run_preprocess(folder: Path) -> tuple[Finished, list[Problem]]:
    """Run preprocess.py; return also the problems that it reports."""
    reports = [Report()]  # the last one is printed
    join = preprocessing.join_reports

    def kept(*tables: Any) -> Report:
        reports.append(join(*tables))
        return reports[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocessing, "open_voice", lambda *_args, **_options: ToneVoice())
        patch.setattr(preprocessing, "join_reports", kept)
        more = ("--hard_negatives", 0, "--jobs", 1)
        finished = run_step(preprocess.main, *flags(folder, *FOLDERS[:3]), *more)
    check_no_traceback(finished)
    return finished, reports[-1].problems


def run_infer(folder: Path, *more: object) -> tuple[Finished, list[Problem], pd.Series]:
    """Run infer.py; return also the problems beside the submission, and its scores."""
    finished = run_step(
        infer.main,
        *flags(folder, *FOLDERS),
        *("--config", folder / "model_configs.json", "--submission", folder / "submission.csv"),
        *("--device", "cpu", *more),
    )
    check_no_traceback(finished)
    assert finished.status == 0, finished.printed[-3000:]
    submission = pd.read_csv(folder / "submission.csv", dtype={"filename": str})
    assert len(submission) == 6
    assert submission["score"].between(0, 1, inclusive="neither").all()
    problems = read_problems(folder / "submission_problems.csv")
    return finished, problems, submission.set_index("filename")["score"]


def run_training(folder: Path, backbone: Path, *more: object) -> Finished:
    """Train a fold of a small model as its script does."""
    finished = run_step(
        lambda: train_model.main(QUICK),
        *flags(folder, *FOLDERS, "runs"),
        *("--fold", 0, "--n_folds", 3, "--backbone", backbone, "--epochs", 1),
        *("--device", "cpu", "--precision", "float32", *more),
    )
    check_no_traceback(finished)
    return finished


def write_text(folder: Path, text: str) -> None:
    """Write another text of the changed rows."""
    for split, name in CHANGED.items():
        path = folder / "data" / f"{split}_metadata.csv"
        rows = list(csv.reader(io.StringIO(path.read_text())))
        rows = [[*row[:2], text, *row[3:]] if row[0] == name else row for row in rows]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def said(problems: list[Problem]) -> str:
    return "\n".join(f"{problem.what} -> {problem.cure}" for problem in problems)


def put_recording(folder: Path, content: bytes) -> None:
    for name in CHANGED.values():
        (folder / "data" / name).write_bytes(content)
