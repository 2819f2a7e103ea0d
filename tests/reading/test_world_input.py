"""Every step of the reading competition, on recordings, texts and tables as the world has them.

No step may end with a traceback, infer.py must score every row, nothing may be lost without a word,
and no report may list a row twice for one fault.
"""

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.store import Store
from hearback.engine.data.problems import Problem, Report
from hearback.engine.ensemble.config import ModelConfig
from hearback.reading import training
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.references import References
from hearback.reading.render import render_missing
from hearback.reading.steps import check_models, get_config, infer, preprocess
from hearback.reading.tables import GRADES, TASKS
from tests import world_inputs as world
from tests.engine import recording_corpus as corpus
from tests.helpers import run_script
from tests.reading import fabricated_folds
from tests.reading.quick_recipes import QUICK
from tests.reading.random_models import BASE_RATES, write_fold
from tests.toy import TEXTS, ToneVoice, spoken
from tests.world_inputs import (
    Finished,
    check_no_traceback,
    check_says,
    listed_twice,
    read_problems,
    run_step,
)
from train_model2ds import RECIPE as MEAN
from train_modeltok import RECIPE as TOKENS

ALL_TEXTS = (*TEXTS, world.PLAIN_TEXT)
TABLES = ("train_metadata.csv", "train_labels.csv", "test_metadata.csv", "submission_format.csv")
FOLDERS = ("data", "tts_data", "store", "assets")
CHANGED = {"train": "train003.wav", "test": "test003.wav"}  # the recording or row that is changed


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A folder with good data, its references, and an ensemble of a fold of two models."""
    folder = tmp_path_factory.mktemp("good")
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


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of the good folder, which a test may change."""
    return shutil.copytree(good, tmp_path / "world")


def flags(folder: Path, *names: str) -> list[object]:
    return [f"--{name}={folder / name}" for name in names]


def run_preprocess(folder: Path) -> tuple[Finished, list[Problem]]:
    """Run preprocess.py; return also the problems that it reports."""
    reports = [Report()]  # the last one is printed
    join = preprocess.join_reports

    def kept(*tables: Any) -> Report:
        reports.append(join(*tables))
        return reports[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "open_voice", lambda *_args, **_options: ToneVoice())
        patch.setattr(preprocess, "join_reports", kept)
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
        lambda: training.main(QUICK),
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


@pytest.fixture(scope="module")
def plain(good: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    """The scores with the plain text in the changed row."""
    folder = shutil.copytree(good, tmp_path_factory.mktemp("plain") / "world")
    write_text(folder, world.PLAIN_TEXT)
    finished, problems, scores = run_infer(folder)
    assert not problems, finished.printed
    return scores


@pytest.mark.parametrize("name", world.TEXTS)
def test_a_text_is_scored_as_it_is_said(name: str, folder: Path, plain: pd.Series) -> None:
    write_text(folder, world.TEXTS[name])
    finished, problems, scores = run_infer(folder)
    pd.testing.assert_series_equal(scores, plain, atol=1e-6, rtol=0)
    assert not [problem for problem in problems if problem.severity == "error"]
    # A changed text is said once. Spaces are no change that anyone would look at.
    if name != "two spaces":
        assert finished.printed.count("of 6 expected texts were changed") == 1
        assert len(problems) == 1


def test_changed_texts_are_said_once_by_preprocess(folder: Path) -> None:
    write_text(folder, world.TEXTS["curly apostrophe"])
    finished, problems = run_preprocess(folder)
    assert finished.status == 0
    whats = [problem.what for problem in problems]
    assert len(whats) == 2  # one for each table
    assert all("expected texts were changed" in what for what in whats)


@pytest.mark.parametrize("name", world.UNSPEAKABLE_TEXTS)
def test_an_unspeakable_text_is_refused_once(name: str, folder: Path, backbone: Path) -> None:
    text, says = world.UNSPEAKABLE_TEXTS[name]
    write_text(folder, text)
    finished, problems = run_preprocess(folder)
    assert finished.status == 2
    assert not listed_twice(problems), said(problems)
    check_says(says, said(problems))
    finished = run_training(folder, backbone)
    assert finished.status == 2 and CHANGED["train"] in finished.printed
    _, problems, scores = run_infer(folder)
    assert [problem.filename for problem in problems] == [CHANGED["test"]]
    assert scores[CHANGED["test"]] == BASE_RATES["all"]  # its task has no rate of its own


def put_recording(folder: Path, content: bytes) -> None:
    for name in CHANGED.values():
        (folder / "data" / name).write_bytes(content)


@pytest.mark.parametrize("name", world.RECORDINGS)
def test_a_recording_is_read_whole_or_it_is_said(name: str, folder: Path) -> None:
    recording = world.RECORDINGS[name]
    content = recording.content()
    put_recording(folder, content)
    finished, problems = run_preprocess(folder)
    assert finished.status == (0 if recording.is_read else 2), said(problems)
    assert not listed_twice(problems), said(problems)
    check_said(recording, problems)
    _, problems, scores = run_infer(folder)
    assert not listed_twice(problems), said(problems)
    check_said(recording, problems)
    assert (scores[CHANGED["test"]] != BASE_RATES["all"]) == recording.is_read
    if recording.is_read and recording.says is None:
        stored = Store(folder / "store", "test").n_samples(CHANGED["test"])
        n_streams = 2 if name.startswith("two") else 1
        assert stored == pytest.approx(n_streams * corpus.SECONDS * 16_000, abs=0.1 * 16_000)
    if recording.is_read:
        # Half of the sound at least, where it is cut; in stereo, all of its level.
        level = np.std(Store(folder / "store", "test").get(CHANGED["test"]))
        assert level == pytest.approx(np.std(corpus.sound()), rel=0.2)


def check_said(recording: world.RecordingInput, problems: list[Problem]) -> None:
    if recording.says is None:
        assert not problems, said(problems)
    else:
        check_says(recording.says, said(problems))
        assert {problem.filename for problem in problems} <= {*CHANGED.values()}


@pytest.mark.parametrize("name", world.CONTAINERS)
def test_a_foreign_container_is_read_or_named(name: str, folder: Path) -> None:
    put_recording(folder, world.CONTAINERS[name]())
    finished, problems = run_preprocess(folder)
    assert not listed_twice(problems), said(problems)
    if finished.status:
        assert "Format not recognised" not in said(problems)
        assert "ffmpeg" in said(problems)
    else:
        stored = Store(folder / "store", "test").n_samples(CHANGED["test"])
        assert stored == pytest.approx(corpus.SECONDS * 16_000, abs=0.1 * 16_000)


@pytest.mark.parametrize("name", world.TABLES)
def test_a_table_is_read_as_meant(name: str, folder: Path, good: Path) -> None:
    write_text(folder, world.PLAIN_TEXT)
    before = run_infer(folder)[2]
    for table in TABLES:
        path = folder / "data" / table
        path.write_bytes(world.TABLES[name](path.read_text()))
    finished, problems = run_preprocess(folder)
    assert finished.status == 0, said(problems)
    assert not listed_twice(problems), said(problems)
    _, problems, scores = run_infer(folder)
    assert not listed_twice(problems), said(problems)
    np.testing.assert_allclose(scores.to_numpy(), before.to_numpy(), atol=1e-6)


@pytest.mark.parametrize("name", world.BROKEN_TABLES)
@pytest.mark.parametrize("table", TABLES)
def test_a_broken_table_is_refused_with_its_kind(
    name: str, table: str, folder: Path, backbone: Path
) -> None:
    change, says = world.BROKEN_TABLES[name]
    path = folder / "data" / table
    path.write_bytes(change(path.read_text()))
    _, problems = run_preprocess(folder)
    # One fault of the whole file: its rows, and those of other tables, are not listed.
    assert len({problem.what for problem in problems}) == 1, said(problems)
    assert {problem.file for problem in problems} == {str(path)}
    check_says(says, said(problems))
    if table.startswith("train"):
        assert run_training(folder, backbone).status == 2
    else:
        finished = run_step(
            infer.main,
            *flags(folder, *FOLDERS),
            *("--config", folder / "model_configs.json"),
            *("--submission", folder / "submission.csv", "--device", "cpu"),
        )
        check_no_traceback(finished)
        assert finished.status == 2 or (folder / "submission.csv").exists()


@pytest.fixture
def fabricated(tmp_path: Path) -> Path:
    """A folder with tables, and fabricated folds of two models."""
    folder = tmp_path / "fabricated"
    fabricated_folds.write_data(folder / "data")
    for number, model in enumerate(("model1m", "model2ds")):
        predictions = fabricated_folds.make_predictions(1.5, seed=number)
        fabricated_folds.write_folds(folder / "assets", model, predictions)
    return folder


def run_on_folds(folder: Path) -> tuple[Finished, Finished]:
    """Run check_models.py and get_config.py."""
    checked = run_step(check_models.main, *flags(folder, "data", "assets"))
    config = ("--config", folder / "model_configs.json")
    chosen = run_step(get_config.main, *flags(folder, "data", "assets"), *config)
    for finished in (checked, chosen):
        check_no_traceback(finished)
    return checked, chosen


@pytest.mark.parametrize("name", world.TABLES)
def test_folds_are_evaluated_on_a_table_as_meant(name: str, fabricated: Path) -> None:
    for table in TABLES[:2]:
        path = fabricated / "data" / table
        path.write_bytes(world.TABLES[name](path.read_text()))
    for finished in run_on_folds(fabricated):
        # The folds list other filenames, and there are no recordings that tell which is meant.
        refused = name in world.FILENAMES
        assert finished.status == (2 if refused else 0), finished.printed[-3000:]


@pytest.mark.parametrize("name", world.BROKEN_TABLES)
@pytest.mark.parametrize("table", TABLES[:2])
def test_folds_are_not_evaluated_on_a_broken_table(name: str, table: str, fabricated: Path) -> None:
    change, says = world.BROKEN_TABLES[name]
    path = fabricated / "data" / table
    path.write_bytes(change(path.read_text()))
    for finished in run_on_folds(fabricated):
        assert finished.status == 2
        check_says(says, finished.printed)


def make_labels(folder: Path, ones: Callable[[int], bool]) -> None:
    path = folder / "data" / "train_labels.csv"
    table = pd.read_csv(path)
    table["score"] = [float(ones(number)) for number in range(len(table))]
    table.to_csv(path, index=False)


LOPSIDED: dict[str, Callable[[int], bool]] = {
    "all 1": lambda _: True,
    "all 0": lambda _: False,
    "one 0": lambda number: number > 0,
    "one 1": lambda number: number == 4,
}


@pytest.mark.parametrize("name", LOPSIDED)
def test_lopsided_labels_never_lose_the_submission(name: str, folder: Path, backbone: Path) -> None:
    make_labels(folder, LOPSIDED[name])
    config = folder / "model_configs.json"
    config.unlink()
    shutil.rmtree(folder / "assets")
    run_preprocess(folder)
    statuses = [run_training(folder, backbone, "--fold", fold).status for fold in range(3)]
    assert all(status in (0, 2) for status in statuses)
    checked = run_step(check_models.main, *flags(folder, "data", "assets"))
    check_no_traceback(checked)
    chosen = run_step(get_config.main, *flags(folder, "data", "assets"), "--config", config)
    check_no_traceback(chosen)
    if chosen.status == 0:
        run_infer(folder)
    else:
        assert not config.exists()


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.0, 1.0)])
def test_models_without_weight_never_lose_the_submission(
    weights: tuple[float, float], folder: Path
) -> None:
    path = folder / "model_configs.json"
    config = EnsembleConfig.load(path)
    models = [replace(model, weight=w) for model, w in zip(config.models, weights, strict=True)]
    replace(config, models=tuple(models), combine="logits").save(path)
    scores = run_infer(folder)[2]
    assert (set(scores) <= set(BASE_RATES.values())) == (weights == (0.0, 0.0))


def test_words_and_divergences_that_no_model_has_never_lose_the_submission(folder: Path) -> None:
    run_infer(folder, "--words", "--divergences")


# Each script in a process of its own, where imports, streams and signals are the real ones.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "recordings", "tables"])
def test_no_script_ends_with_a_traceback(kind: str, folder: Path, backbone: Path) -> None:
    if kind == "texts":
        write_text(folder, world.UNSPEAKABLE_TEXTS["markup"][0])
    elif kind == "recordings":
        put_recording(folder, world.RECORDINGS["html"].content())
    else:
        for table in TABLES:
            path = folder / "data" / table
            path.write_bytes(world.TABLES["semicolons"](path.read_text()))
    refused = 0 if kind == "tables" else 2
    training_flags = ("--n_folds", 3, "--backbone", backbone, "--epochs", 1, "--device", "cpu")
    commands: list[tuple[tuple[object, ...], int]] = [
        (("train.py", "--models", "model2ds", *training_flags), refused),
        (("train_model2ds.py", "--fold", 0, *training_flags), refused),
        (("check_models.py",), 2),  # of the ensemble's folds, which have no predictions
        (("get_config.py", "--config", "other.json"), 2),
        (("infer.py", "--device", "cpu"), 0),
    ]
    if kind == "tables":
        commands[2:4] = [(("check_models.py",), 0), (("get_config.py", "--config", "o.json"), 0)]
        shutil.rmtree(folder / "assets")
        commands.pop()
    for command, status in commands:
        printed = run_script(*command, folder=folder, status=status)
        assert "Traceback" not in printed
