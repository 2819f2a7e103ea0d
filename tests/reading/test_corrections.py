"""Corrections of the reading competition's training table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.corrections import Corrections
from hearback.engine.data.problems import BadInputError, Report
from hearback.engine.errors import HearbackError
from hearback.reading import evaluation
from hearback.reading.baselines import train as baselines
from hearback.reading.options import TrainingOptions
from hearback.reading.tables import read_corrections, read_labelled
from tests.reading.fabricated_folds import (
    make_causes,
    make_metadata,
    make_predictions,
    write_data,
    write_folds,
)
from tests.reading.test_baselines import make_options

HEADER = "filename,verdict,score,note\n"


def test_corrected_labels_give_the_fingerprint_of_the_corrected_table(
    options: TrainingOptions, tmp_path: Path
) -> None:
    table = pd.read_csv(options.data / "train_labels.csv", dtype={"filename": str})
    path = tmp_path / "corrections.csv"
    rows = [f"{row.filename},wrong_label,{1 - row.score:g},\n" for row in table[:4].itertuples()]
    path.write_text(HEADER + "".join(rows))
    corrected = replace(options, corrections=path).load_data()
    table.loc[:3, "score"] = 1 - table.loc[:3, "score"]
    table.to_csv(options.data / "train_labels.csv", index=False)
    edited = options.load_data()
    assert corrected.fingerprint == edited.fingerprint
    assert np.array_equal(corrected.labels, edited.labels)
    # The split of the edited table may be another one: the folds must not be taken for the same.
    assert corrected.corrections.record() != edited.corrections.record()


@pytest.mark.parametrize(
    ("written", "label"), [("1", 1), ("1,0", 1), ("TRUE", 1), ("said", 1), ("Not said", 0)]
)
def test_labels_as_spreadsheets_and_pages_write_them(
    tmp_path: Path, written: str, label: int
) -> None:
    write_data(tmp_path / "data")
    report = Report()
    metadata, labels = read_labelled(tmp_path / "data", report)
    name = metadata["filename"][int(np.flatnonzero(labels != label)[0])]
    path = tmp_path / "corrections.csv"
    path.write_text(f'{HEADER}{name},wrong_label,"{written}",\n')
    found = read_corrections(path, tmp_path / "data", metadata, labels, report)
    assert not report.problems
    assert found.labels == {name: label}


def test_a_row_without_a_label_may_be_left_out(options: TrainingOptions, tmp_path: Path) -> None:
    labels = options.data / "train_labels.csv"
    labels.write_text(labels.read_text().replace("train004.wav,0.0", "train004.wav,?"))
    with pytest.raises(BadInputError, match="the label is"):
        options.load_data()
    path = tmp_path / "corrections.csv"
    path.write_text(f"{HEADER}train004.wav,unscorable,,\n")
    data = replace(options, corrections=path).load_data()
    assert "train004.wav" not in data.filenames and np.isfinite(data.labels).all()


def test_warnings_of_the_corrections_are_printed(
    options: TrainingOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text(f"{HEADER}train000.wav,wrong_label,0,\n")
    replace(options, corrections=path).load_data()
    printed = capsys.readouterr().out
    assert "warning: wrong_label, but the label is 0 already" in printed
    assert printed.endswith("corrections.csv: nothing is changed\n")


def test_the_cause_of_a_corrected_score_is_the_correction(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    causes = make_causes()
    causes.loc[causes["why"] == "correct", "why"] = ""  # only wrong rows need one
    causes.to_csv(tmp_path / "causes.csv", index=False)
    path = tmp_path / "corrections.csv"
    path.write_text(f"{HEADER}000.wav,wrong_label,0,\n001.wav,unscorable,,\n")
    metadata, why, corrections = evaluation.read_corrected_metadata(
        tmp_path / "data", tmp_path / "causes.csv", path
    )
    assert why is not None and len(why) == len(metadata) == len(make_metadata()) - 1
    assert metadata["score"][0] == 0 and why[0] == evaluation.CORRECTED
    assert why.tolist()[1:] == causes["why"].tolist()[2:]
    assert corrections.record() is not None


def test_a_reader_without_the_corrections_hears_of_them(tmp_path: Path) -> None:
    corrections = Corrections(None, {"000.wav": 1.0})
    write_folds(tmp_path, "model1m", make_predictions(1), corrections=corrections.record())
    (table,) = evaluation.read_out_of_fold(tmp_path)
    metadata = make_metadata()
    metadata.loc[0, "score"] = 0
    with pytest.raises(HearbackError, match="model1m was trained with --corrections, which"):
        table.rows_with(metadata)


def test_baselines_are_of_the_corrected_table(options: TrainingOptions, tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text(f"{HEADER}train000.wav,unscorable,,\n")
    data = replace(options, corrections=path).load_data()
    baseline = make_options(tmp_path, corrections=path)
    folds = baselines.score_baseline("base", data, baseline)
    assert {str(fold["corrections"]) for fold in folds} == {str(data.corrections.record())}
    assert f"--corrections {path}" in folds[0]["retrain_command"]
    assert sum(fold["n_validation"] for fold in folds) == len(data.filenames)
