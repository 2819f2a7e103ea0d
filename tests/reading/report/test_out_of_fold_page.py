"""The page of trained models, from fabricated folds: its numbers are those of the steps."""

import re
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn.metrics import log_loss

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.problems import BadInputError
from hearback.engine.errors import HearbackError
from hearback.engine.page.writing import PageOptions
from hearback.reading import evaluation, words
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.report.predictions import Predictions, collect_predictions, read_words
from hearback.reading.report.write import OutOfFoldSources, write_out_of_fold
from hearback.reading.steps import check_models, get_config, report
from hearback.reading.trained import read_trained
from hearback.reading.word_labels import WordLabels
from tests.engine.page.page_reader import read_page
from tests.helpers import run_step, tone
from tests.reading.fabricated_folds import (
    N_ROWS,
    make_causes,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)

MODELS = {"model1m": make_predictions(0.5, 0), "modeltok": make_predictions(1.5, 1)}


def make_words() -> pd.DataFrame:
    """Return word scores of all rows: a word that was said has larger log-odds."""
    metadata = make_metadata()
    signs = 2 * metadata["score"].to_numpy() - 1
    log_odds = np.full((N_ROWS, 3, 2), np.nan)
    log_odds[:, :2, words.SAID] = 2 + signs[:, None]
    log_odds[:, :, words.COMPLETE] = 3
    return words.to_table(
        metadata["filename"].tolist(), metadata["expected_text"].tolist(), log_odds
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one with word scores, their ensemble, and the causes of the scores."""
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder / "data")
    write_folds(folder / "assets", "model1m", MODELS["model1m"])
    write_folds(folder / "assets", "modeltok", MODELS["modeltok"], words=make_words())
    make_causes().to_csv(folder / "causes.csv", index=False)
    config = str(folder / "model_configs.json")
    assert run_step(get_config, folder, "--config", config)[0] is None
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Predictions:
    trained = read_trained(folder / "data", folder / "assets")
    return collect_predictions(trained, folder / "assets", folder / "model_configs.json")


def test_the_ensemble_is_the_one_of_get_config(folder: Path, found: Predictions) -> None:
    config = EnsembleConfig.load(folder / "model_configs.json")
    labels = found.rows["score"]
    loss = log_loss(labels, found.by_model["ensemble"])
    assert loss == pytest.approx(config.log_losses["cross_fitted"])
    assert list(found.by_model) == ["ensemble", "modeltok", "model1m"]
    assert found.weights == {model.name: model.weight for model in config.models_to_run}
    assert not found.warnings


def test_models_are_as_they_predicted(found: Predictions) -> None:
    rows = found.rows.index
    for name, predictions in MODELS.items():
        assert found.by_model[name] == pytest.approx(predictions[rows])


def test_an_ensemble_of_other_predictions_is_said(folder: Path, tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    write_folds(assets, "model1m", make_predictions(2, 5))
    write_folds(assets, "modeltok", MODELS["modeltok"])
    config = folder / "model_configs.json"
    changed = collect_predictions(read_trained(folder / "data", assets), assets, config)
    assert "was fitted on other predictions" in changed.warnings[0]
    alone = read_trained(folder / "data", assets, ["modeltok"])
    without = collect_predictions(alone, assets, config)
    assert "the predictions of model1m are not among these" in without.warnings[0]
    assert list(without.by_model) == ["modeltok"]


def test_the_words_are_cross_fitted(folder: Path, found: Predictions) -> None:
    by_index = read_words(found, folder / "assets", WordLabels())
    assert len(by_index) == N_ROWS
    labels = found.rows["score"].to_numpy()
    said = np.array([by_index[str(index)].scores for index in range(N_ROWS)], float)
    assert said.shape == (N_ROWS, 2)  # of two words each
    assert said[labels == 1].min() > said[labels == 0].max()


def test_models_without_word_scores_have_no_words(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_folds(tmp_path / "assets", "model1m", MODELS["model1m"])
    assets = tmp_path / "assets"
    alone = collect_predictions(read_trained(tmp_path / "data", assets), assets, None)
    assert read_words(alone, assets, WordLabels()) == {}


def write(folder: Path, out: Path, **options: object) -> dict:
    data, assets = folder / "data", folder / "assets"
    trained = read_trained(data, assets, causes=folder / "causes.csv")
    config = folder / "model_configs.json"
    sources = OutOfFoldSources(data, assets, store=folder / "store", config=config)
    write_out_of_fold(PageOptions(out, **options), trained, sources)  # type: ignore[arg-type]
    return read_page(out)


def write_models(data: Path, folder: Path) -> dict:
    """Write the page of the models in the folder's assets, without an ensemble."""
    assets, out = folder / "assets", folder / "report.html"
    write_out_of_fold(PageOptions(out), read_trained(data, assets), OutOfFoldSources(data, assets))
    return read_page(out)


def test_lengths_are_those_of_the_headers_where_there_is_no_store(
    folder: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("store"))
    name = read_trained(copied / "data", copied / "assets").metadata["filename"].iloc[3]
    (copied / "data" / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(copied / "data" / name, np.zeros(32_000, np.float32), 16_000)
    recordings = write(copied, tmp_path / "report.html", audio="none")["recordings"]
    lengths = dict(zip(recordings["filenames"], recordings["seconds"], strict=True))
    assert lengths[name] == 2.0


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write(folder, tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_has_the_numbers_of_check_models(folder: Path, page: dict) -> None:
    _, output, _ = run_step(check_models, folder, "--no_page", f"--causes={folder / 'causes.csv'}")
    for model in page["models"][1:]:
        line = re.search(rf"^{model['name']} .*", output, re.MULTILINE)
        assert line is not None
        numbers = line[0].split()
        assert float(numbers[2]) == pytest.approx(model["log_loss"][0], abs=1e-4)
        assert float(numbers[7]) == pytest.approx(model["metrics"]["AUC"][0], abs=1e-4)
    assert page["base_rate_log_loss"] == pytest.approx(
        log_loss(make_metadata()["score"], np.full(N_ROWS, 0.6)), abs=1e-4
    )


def test_groups_and_bins_count_the_rows(page: dict) -> None:
    first = page["models"][0]
    for by, n_groups in {"grade": 4, "task": 4, "speaker": 24, "cause": 3}.items():
        found = {g["value"]: g for g in first["groups"] if g["by"] == by}
        groups = [group for value, group in found.items() if value != "all"]
        assert len(groups) == n_groups and ("all" in found) == (by == "cause")
        assert sum(group["n"] for group in groups) == N_ROWS
    grades = [group["value"] for group in first["groups"] if group["by"] == "grade"]
    assert grades == ["KG", "1", "2", "3"]
    predictions = np.array(page["recordings"]["predictions"]["ensemble"])
    for one in first["reliability"]["all"]:
        below = predictions <= 1 if one["high"] == 1 else predictions < one["high"]
        inside = (predictions >= one["low"]) & below
        assert one["n"] == inside.sum()
    assert found["all"]["n"] == N_ROWS and found["all"]["log_loss"] == first["log_loss"]
    assert list(first["reliability"]) == ["all", "KG", "1", "2", "3"]


def test_the_verdict_has_three_sentences_with_the_score(page: dict) -> None:
    good, whom_not, to_do = page["verdict"]["sentences"]
    loss = page["models"][0]["log_loss"]
    assert f"{loss[0]:.3f} [{loss[1]:.3f}, {loss[2]:.3f}] on 96 recordings" in good
    assert whom_not.startswith(("It is clearly worse for", "No grade or task is clearly worse"))
    assert to_do.startswith("Let a person check the")


def test_status_and_words_say_whose_they_are(page: dict) -> None:
    assert page["status_range"] == [0.3, 0.7]
    assert page["recordings"]["words_by"] == "modeltok"
    assert "report.py" not in page["report_command"]  # this page was written by no command


def test_rows_of_a_fold_that_is_not_trained_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    write_folds(tmp_path / "assets", "model1m", MODELS["model1m"], folds=[0, 1])
    partial = write_models(folder / "data", tmp_path)
    assert len(partial["recordings"]["filenames"]) == N_ROWS - N_ROWS // 3
    assert partial["data"]["refused"] == []
    assert partial["data"]["notes"] == [
        f"Not scored yet: {N_ROWS // 3} rows of fold 2. python train.py trains it."
    ]


def test_an_anonymous_page_has_no_names(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "report.html", is_anonymous=True)
    html = (tmp_path / "report.html").read_text()
    metadata = make_metadata()
    assert not [name for name in metadata["filename"] if name in html]
    assert not [name for name in metadata["speaker"].unique() if f'"{name}"' in html]


def test_the_step_writes_the_page(folder: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "page.html", folder / "model_configs.json"
    status, output, errors = run_step(report, folder, f"--out={out}", f"--config={config}")
    assert status is None
    assert re.search(r"wrote .*page\.html: 96 recordings, without sound \(0\.\d MB\)", output)
    assert f"none of the recordings is in {folder / 'data'}: name their folder" in errors
    again = f"python report.py --data {folder / 'data'} --assets {folder / 'assets'}"
    assert read_page(out)["report_command"] == f"{again} --config {config} --out {out}"


def test_check_models_ends_with_the_page(folder: Path, tmp_path: Path) -> None:
    status, output, _ = run_step(check_models, folder, f"--page={tmp_path / 'page.html'}")
    assert status in (0, 1)
    again = f"python report.py --data {folder / 'data'} --assets {folder / 'assets'}"
    assert output.splitlines()[-1] == f"{again} writes it with the ensemble and with sound"
    assert read_page(tmp_path / "page.html")["report_command"] == again
    names = [model["name"] for model in read_page(tmp_path / "page.html")["models"]]
    assert names == ["modeltok", "model1m"]


def test_a_missing_configuration_is_an_error(folder: Path, tmp_path: Path) -> None:
    flags = (f"--out={tmp_path / 'page.html'}", f"--config={tmp_path / 'none.json'}")
    status, _, errors = run_step(report, folder, *flags)
    assert status == 2
    assert "none.json: no such file; write it with python get_config.py" in errors
    assert not (tmp_path / "page.html").exists()


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((BadInputError, HearbackError), match="train_metadata"):
        read_trained(tmp_path, tmp_path)


def test_one_speaker_has_a_page_without_intervals(tmp_path: Path) -> None:
    write_data(tmp_path / "data", make_metadata().assign(speaker="only"))
    write_folds(tmp_path / "assets", "modeltok", MODELS["modeltok"], words=make_words())
    page = write_models(tmp_path / "data", tmp_path)
    assert page["models"][0]["log_loss"][1:] == [None, None]
    assert page["recordings"]["words"] == {}  # they cannot be cross-fitted


def test_causes_have_the_auc_of_check_models(folder: Path, page: dict) -> None:
    causes = f"--causes={folder / 'causes.csv'}"
    _, output, _ = run_step(check_models, folder, "--no_page", causes)
    _, _, table = output.partition("AUC of correct rows against each cause")
    names = re.search(r"rows +(\S+) +(\S+)", table)
    assert names is not None
    models = {model["name"]: model for model in page["models"]}
    for cause in ("omit", "substitute", "all"):
        line = re.search(rf"^{cause} +\d+ +(\S+) +(\S+)", table, re.MULTILINE)
        assert line is not None
        for name, number in zip(names.groups(), line.groups(), strict=True):
            groups = models[name]["groups"]
            (group,) = (each for each in groups if (each["by"], each["value"]) == ("cause", cause))
            value, low, high = group["auc"]
            assert value == pytest.approx(float(number), abs=1e-4)
            assert low <= value <= high
    areas = {(each["by"], each["value"]): each["auc"][0] for each in models["modeltok"]["groups"]}
    assert areas["cause", "correct"] is areas["grade", "KG"] is None


def test_check_models_reads_everything_once_for_the_tables_and_the_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read = Counter[str]()

    def counting(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def call(*args: object, **named: object) -> object:
            n_read[name] += 1
            return function(*args, **named)

        monkeypatch.setattr(module, name, call)

    counting(evaluation, "read_corrected_metadata")
    counting(evaluation, "read_out_of_fold")
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("filename,verdict,score\n000.wav,agree,\n")
    flags = (f"--page={tmp_path / 'page.html'}", f"--corrections={corrections}")
    status, output, errors = run_step(check_models, folder, *flags)
    assert status in (0, 1), errors
    assert n_read == {"read_corrected_metadata": 1, "read_out_of_fold": 1}
    assert output.count("corrections.csv: nothing is changed") == 1


def test_a_baseline_is_on_a_page_with_sound(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    fields: dict[str, Any] = {"recipe": None, "baseline": {"name": "gop"}}
    write_folds(tmp_path / "assets", "baseline_gop", MODELS["model1m"], **fields)
    write_wav(tmp_path / "data" / "000.wav", tone(), SAMPLE_RATE)
    page = write_models(tmp_path / "data", tmp_path)
    assert list(page["recordings"]["clips"]) == ["0"]
