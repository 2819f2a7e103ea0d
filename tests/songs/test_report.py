"""The songs' page: of trained models out of fold, and of new snippets without labels."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from hearback.engine.audio.wav import write_wav
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.report.tables import read_classified
from hearback.songs.separation.methods import SOUND_RATE
from hearback.songs.steps import check_models, get_config, infer, report
from hearback.songs.tables import CLASSES, probabilities_path
from tests.engine.page.page_reader import read_page
from tests.helpers import run_step
from tests.songs.fabricated_folds import make_probabilities, make_snippets, write_data, write_folds
from tests.songs.inference_data import SHARES, write_unseen
from tests.songs.songs_data import snippet

MODELS = {"cnn4": make_probabilities(1, 0), "resnet34_repet": make_probabilities(1.5, 1)}
LABELS = make_snippets()["label"].to_numpy()
EPOCHS = [{"epoch": n, "validation_log_loss": 1.3 / n, "train_log_loss": 1 / n} for n in (1, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and their ensemble; three of the snippets are there to listen to."""
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder / "data")
    for model, probabilities in MODELS.items():
        write_folds(folder / "assets", model, probabilities, epochs=EPOCHS, best_epoch=2)
    for number, name in enumerate(make_snippets()["filename"][:3]):
        write_wav(folder / "data" / name, snippet(number), SOUND_RATE)
    status, _, errors = run_step(get_config, folder)
    assert status is None, errors
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> dict[str, Any]:
    """The page of the models and their ensemble."""
    return write(folder)


def write(folder: Path, *flags: str) -> dict[str, Any]:
    out = folder / "report.html"
    status, output, errors = run_step(report, folder, "--out", str(out), *flags)
    assert status is None, errors
    assert output.splitlines()[-1].startswith(f"wrote {out}: ")
    return read_page(out)


def test_models_have_the_scores_of_check_models_and_the_ensemble_those_of_get_config(
    folder: Path, page: dict[str, Any]
) -> None:
    config = SongEnsemble.load(folder / "assets" / "model_configs.json")
    first, *others = page["models"]
    assert first["is_ensemble"] and page["kind"] == "classes"
    assert first["log_loss"][0] == pytest.approx(config.log_losses["cross_fitted"], abs=1e-4)
    accuracy = first["metrics"]["accuracy"][0]
    assert accuracy == pytest.approx(config.accuracies["cross_fitted"], abs=1e-4)
    assert [model["name"] for model in others] == ["resnet34_repet", "cnn4"]
    _, output, _ = run_step(check_models, folder, "--no_page")
    for model in others:
        line = next(x for x in output.splitlines() if re.match(rf"{model['name']} +192 ", x))
        numbers = [float(x) for x in re.findall(r"\d\.\d{4}", line)]
        assert numbers[:3] == pytest.approx(model["metrics"]["accuracy"])
        assert numbers[6:9] == pytest.approx(model["log_loss"])
        probabilities = MODELS[model["name"]]
        assert model["log_loss"][0] == pytest.approx(log_loss(LABELS, probabilities), abs=1e-4)
        expected = confusion_matrix(LABELS, probabilities.argmax(axis=1)).tolist()
        assert model["confusion"] == expected
    weights = {model.name: model.weight for model in config.models}
    shown = {model["name"]: model["weight"] for model in others}
    assert shown == pytest.approx(weights, abs=1e-4)
    assert page["base_rate_log_loss"] == pytest.approx(np.log(4), abs=1e-4)


def test_groups_are_counted_by_class_singer_and_whether_one_is_known(
    page: dict[str, Any],
) -> None:
    (model,) = (each for each in page["models"] if each["name"] == "cnn4")
    is_wrong = MODELS["cnn4"].argmax(axis=1) != LABELS
    snippets = make_snippets()
    found = {(each["by"], each["value"]): each for each in model["groups"]}
    for label, name in enumerate(CLASSES):
        group = found["class", name]
        assert group["n"] == 48
        assert group["errors"][0] == pytest.approx(is_wrong[label == LABELS].mean(), abs=1e-4)
    # In half of the snippets of several the second singer is of another fold (`make_snippets`).
    known = [found["several singers", f"{n} in training"]["n"] for n in ("none", "one")]
    assert known == [24, 24]
    alone = snippets["singers"] == "s3"
    assert found["singers", "s3"]["n"] == alone.sum() == 8
    assert found["singers", "s3"]["errors"][0] == pytest.approx(is_wrong[alone].mean(), abs=1e-4)
    assert not [value for by, value in found if by == "singers" and ";" in value]


def test_every_snippet_has_its_predictions(page: dict[str, Any]) -> None:
    recordings = page["recordings"]
    assert recordings["filenames"] == make_snippets()["filename"].tolist()
    assert recordings["labels"] == LABELS.tolist()
    probabilities = MODELS["cnn4"]
    assert recordings["predicted_classes"]["cnn4"] == probabilities.argmax(axis=1).tolist()
    likeliest = probabilities.max(axis=1)
    assert recordings["predictions"]["cnn4"] == pytest.approx(likeliest, abs=1e-4)
    losses = -np.log(probabilities[np.arange(192), LABELS])
    assert recordings["losses"]["cnn4"] == pytest.approx(losses, abs=1e-4)
    first = np.array(recordings["predictions"]["ensemble"])
    statuses = np.where(first < 0.5, "unsure", "ok").tolist()
    assert recordings["fields"]["status"] == statuses
    assert recordings["fields"]["singers"] == make_snippets()["singers"].tolist()
    assert page["label_names"] == list(CLASSES)
    assert (page["people"], page["train_command"]) == ("singers", "python -m hearback.songs train")


def test_the_data_the_card_and_the_curves_are_there(page: dict[str, Any]) -> None:
    assert page["data"]["facts"] == [["snippets", "192"], ["singers", "12"], ["folds", "3"]]
    by_class, known, by_singer, lengths = page["data"]["distributions"]
    # Three of the snippets are there.
    assert (lengths["title"], lengths["values"], lengths["counts"]) == ("length", ["3–4"], [3])
    assert page["recordings"]["seconds"] == [3.0] * 3 + [None] * 189
    assert dict(zip(by_class["values"], by_class["counts"], strict=True)) == dict.fromkeys(
        CLASSES, 48
    )
    assert known["counts"] == [24, 24]
    assert sum(by_singer["counts"]) == 12
    card = dict(page["verdict"]["card"])
    assert set(card) == {"ensemble", "cnn4", "resnet34_repet"}
    assert len(page["curves"]) == 6
    assert page["curves"][0]["validation"] == [None, 1.3, 0.65]


def test_sound_is_played_where_the_snippets_are(page: dict[str, Any]) -> None:
    assert sorted(page["recordings"]["clips"]) == ["0", "1", "2"]
    assert page["recordings"]["clips"]["0"]["learner"]
    assert page["recordings"]["clips"]["0"]["reference"] == ""


def test_the_verdict_names_the_worst_class_and_its_most_frequent_mistake(
    page: dict[str, Any],
) -> None:
    good, for_what_not, to_do = page["verdict"]["sentences"]
    first = page["models"][0]
    assert good.startswith("Out of fold and cross-fitted, the ensemble has an accuracy of ")
    numbers = [float(x) for x in re.findall(r"\d\.\d{3}", good)]
    stated = [*first["metrics"]["accuracy"], *first["log_loss"], page["base_rate_log_loss"]]
    assert numbers == pytest.approx(stated, abs=6e-4)
    assert good.endswith(" on 192 snippets (always predicting the base rates: 1.386).")
    confusion = np.array(first["confusion"])
    errors = 1 - np.diag(confusion) / confusion.sum(axis=1)
    worst = int(errors.argmax())
    mistakes = confusion[worst].copy()
    mistakes[worst] = 0
    name = CLASSES[worst]
    assert f"The worst class is “{name}”: {100 * errors[worst]:.0f} % [" in for_what_not
    mistaken = f"{mistakes.max()} of its 48 snippets are taken for “{CLASSES[mistakes.argmax()]}”"
    assert mistaken in for_what_not
    assert to_do.startswith(f"Listen to the mistakes, first to those of “{CLASSES[worst]}” that ")


def test_an_anonymous_page_knows_no_file_and_no_singer(folder: Path) -> None:
    page = write(folder, "--anonymous")
    assert page["recordings"]["filenames"][:2] == ["recording 1", "recording 2"]
    assert page["recordings"]["clips"] == {}
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "train_0" not in html
    assert not re.search(r"\bs\d+(;s\d+)?\b", json.dumps(page))
    assert set(page["recordings"]["fields"]) == {"several singers", "status"}


def test_some_models_are_shown_without_the_ensemble_and_the_page_says_why(folder: Path) -> None:
    page = write(folder, "--models", "cnn4")
    assert [model["name"] for model in page["models"]] == ["cnn4"]
    (warning,) = page["verdict"]["warnings"]
    assert warning == (
        "The ensemble of model_configs.json is not shown: the predictions of resnet34_repet are "
        "not among these."
    )
    assert page["verdict"]["sentences"][0].startswith("Out of fold, cnn4 has an accuracy of ")


def test_a_missing_fold_is_listed_and_so_are_the_warnings(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    (tmp_path / "data" / "manifest.csv").unlink()
    (tmp_path / "data" / "train" / "unknown.wav").touch()
    write_folds(tmp_path / "assets", "cnn4", MODELS["cnn4"], folds=[0, 2])
    page = write(tmp_path)
    assert page["data"]["facts"][0] == ["snippets", "128"]
    assert page["data"]["notes"] == [
        "Not scored yet: 64 rows of fold 1. python -m hearback.songs train trains it."
    ]
    (unknown,) = page["data"]["refused"]
    assert unknown["filename"] == "unknown.wav"
    assert unknown["what"] == "a snippet without a label, left out"
    (warning,) = page["verdict"]["warnings"]
    assert warning.startswith("no manifest: ")
    # Without singers there is nothing to tell by them.
    assert list(page["recordings"]["fields"]) == ["status"]
    assert {group["by"] for group in page["models"][0]["groups"]} == {"class"}


def test_corrections_must_be_those_of_the_folds(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_folds(tmp_path / "assets", "cnn4", MODELS["cnn4"])
    path = tmp_path / "corrections.csv"
    path.write_text("filename,verdict,score,note\ntrain_0001.ogg,wrong_label,several,\n")
    status, _, errors = run_step(report, tmp_path, "--corrections", str(path))
    assert status == 2
    assert "the folds were trained without corrections.csv: 1 label changed" in errors


def test_check_models_ends_with_its_page_in_the_assets(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_folds(tmp_path / "assets", "cnn4", MODELS["cnn4"])
    status, output, _ = run_step(check_models, tmp_path)
    assert status in (0, 1)
    out = tmp_path / "assets" / "check_models.html"
    said, how = output.splitlines()[-2:]
    assert said.startswith(f"wrote {out}: 192 recordings, without sound (")
    again = f"--data {tmp_path / 'data'} --assets {tmp_path / 'assets'}"
    assert how == (
        f"python -m hearback.songs report {again} writes it with the ensemble and with sound"
    )
    assert [model["name"] for model in read_page(out)["models"]] == ["cnn4"]
    out.unlink()
    other = tmp_path / "page.html"
    assert run_step(check_models, tmp_path, "--page", str(other))[0] == status
    assert other.exists() and not out.exists()
    assert run_step(check_models, tmp_path, "--no_page")[0] == status
    status, _, errors = run_step(check_models, tmp_path, "--no_page", "--page", str(other))
    assert (status, errors) == (2, f"--page {other} and --no_page: leave one of them out\n")


def run_infer(tmp_path: Path, trained: Path, *flags: str) -> tuple[Any, str, str]:
    options = write_unseen(tmp_path, trained)
    places = asdict(replace(options, separations={}))
    del places["separations"]
    written = [part for name, value in places.items() for part in (f"--{name}", str(value))]
    return run_step(infer, tmp_path, *written, *flags)


def test_infer_ends_with_a_page_of_the_new_snippets(tmp_path: Path, trained: Path) -> None:
    status, output, errors = run_infer(tmp_path, trained)
    assert status is None, errors
    out = tmp_path / "submission.html"
    assert output.splitlines()[-1].startswith(
        f"wrote {out}: 7 recordings, 5 of them to listen to ("
    )
    page = read_page(out)
    recordings = page["recordings"]
    submission = pd.read_csv(tmp_path / "submission.csv").set_index("filename")
    table = pd.read_csv(tmp_path / "submission_probabilities.csv").set_index("filename")
    for index, filename in enumerate(recordings["filenames"]):
        label = recordings["predicted_classes"]["ensemble"][index]
        likely = recordings["predictions"]["ensemble"][index]
        status = recordings["fields"]["status"][index]
        if filename in ("broken.ogg", "silent.wav"):  # their rows are the class shares
            assert (label, likely) == (None, None)
            assert recordings["fields"]["class"][index] == ""
            assert status == {"broken.ogg": "unreadable", "silent.wav": "silent"}[filename]
        else:
            assert label == submission["label"][filename]
            assert likely == pytest.approx(table.loc[filename].max(), abs=1e-4)
            assert recordings["fields"]["class"][index] == CLASSES[label]
            assert status == ("ok" if table.loc[filename].max() >= 0.5 else "unsure")
    seconds = dict(zip(recordings["filenames"], recordings["seconds"], strict=True))
    assert (seconds["long.flac.wav"], seconds["broken.ogg"]) == (6.0, None)
    lengths = next(x for x in page["data"]["distributions"] if x["title"] == "length")
    assert sum(lengths["counts"]) == 6
    notes = dict(zip(recordings["filenames"], recordings["notes"], strict=True))
    assert "6.00 s long instead of 3 s" in notes["long.flac.wav"]
    assert "is silent" in notes["silent.wav"]
    assert recordings["labels"] is None
    assert {each["filename"] for each in page["data"]["refused"]} == {"broken.ogg", "silent.wav"}
    good, limits, to_do = page["verdict"]["sentences"]
    assert good.startswith("7 snippets: ") and good.endswith(", 2 without a prediction.")
    assert limits.startswith("There are no labels here, and the ensemble does not state how good")
    assert "2 without a prediction" in to_do


def test_the_page_of_infer_can_be_made_again_without_its_folders(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, errors = run_infer(tmp_path, trained)
    assert status is None, errors
    out = tmp_path / "submission.html"
    first = read_page(out)
    table = tmp_path / "submission.csv"
    assert first["report_command"] == f"python -m hearback.songs report --scores {table}"
    out.unlink()
    monkeypatch.setattr("sys.argv", ["report", "--scores", str(table)])
    report.main()
    again = read_page(out)
    assert again["recordings"] == first["recordings"]
    assert again["verdict"] == first["verdict"]


@pytest.mark.parametrize("flag", ["models", "corrections"])
def test_flags_of_trained_models_are_no_flags_of_new_snippets(tmp_path: Path, flag: str) -> None:
    status, _, errors = run_step(report, tmp_path, "--scores", "s.csv", f"--{flag}", "x.csv")
    assert status == 2
    assert f"--{flag} is for trained models, not for --scores: leave it out" in errors


def test_infer_writes_no_page_if_told_so(tmp_path: Path, trained: Path) -> None:
    status, _, errors = run_infer(tmp_path, trained, "--no_page")
    assert status is None, errors
    assert not list(tmp_path.glob("*.html"))


def write_submission(folder: Path, probabilities: list[list[float]]) -> Path:
    """Write tables as infer does; return the submission's path."""
    path = folder / "submission.csv"
    names = [f"{number}.wav" for number in range(len(probabilities))]
    table = pd.DataFrame(probabilities, columns=["p0", "p1", "p2", "p3"])
    labels = table.to_numpy().argmax(axis=1)
    pd.DataFrame({"filename": names, "label": labels}).to_csv(path, index=False)
    table.insert(0, "filename", names)
    table.to_csv(probabilities_path(path), index=False)
    return path


ROWS = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.45, 0.25, 0.2], [0.1, 0.1, 0.1, 0.7]]


def write_config(folder: Path, weight: float = 0.8) -> Path:
    path = folder / "ensemble.json"
    models = (ModelConfig("cnn4", (0, 1), weight),)
    losses, accuracies = {"cross_fitted": 0.61}, {"cross_fitted": 0.8125}
    SongEnsemble(models, "logits", SHARES, losses, accuracies, 40).save(path)
    return path


def test_a_page_of_a_submission_tells_what_its_ensemble_could(tmp_path: Path) -> None:
    path = write_submission(tmp_path, ROWS)
    flags = ("--scores", str(path), "--config", str(write_config(tmp_path)), "--audio", "none")
    assert run_step(report, tmp_path, *flags)[0] is None
    page = read_page(tmp_path / "submission.html")
    good, limits, to_do = page["verdict"]["sentences"]
    assert good == "3 snippets: 1 no voice, 1 male, 1 several."
    assert limits == (
        "There are no labels here: on the 40 snippets that it learned from, out of fold, the "
        "accuracy of the ensemble was 0.812 and its log loss 0.610 (the class shares: 1.280), and "
        "snippets unlike these may score worse."
    )
    assert to_do == (
        "Listen to the 1 snippet of which no class has a probability of at least 0.5, then to the "
        "least sure ones."
    )
    assert page["verdict"]["card"] == [["ensemble", "cnn4 (0.80)"]]
    assert page["recordings"]["fields"]["class"] == ["no voice", "male", "several"]
    statuses = next(x for x in page["data"]["distributions"] if x["title"] == "status")
    assert (statuses["values"], statuses["counts"]) == (["ok", "unsure"], [2, 1])


def test_snippets_of_models_that_could_not_run_have_no_prediction(tmp_path: Path) -> None:
    path = write_submission(tmp_path, [list(SHARES)] * 2)
    problems = "file,row,what,cure,severity,filename,status\nc.json,,no model,train,error,,\n"
    (tmp_path / "submission_problems.csv").write_text(problems)
    found = read_classified(path)
    assert np.isnan(found.probabilities).all()
    flags = ("--scores", str(path), "--config", str(write_config(tmp_path)), "--audio", "none")
    assert run_step(report, tmp_path, *flags)[0] is None
    page = read_page(tmp_path / "submission.html")
    assert page["verdict"]["sentences"][0] == "2 snippets: 2 without a prediction."
    assert page["verdict"]["warnings"] == ["no model"]


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = write_submission(tmp_path, ROWS)
    beside = probabilities_path(path)
    again = "python -m hearback.songs infer"
    path.write_text(path.read_text().replace("2.wav,3", "2.wav,1"))
    with pytest.raises(HearbackError, match=r"is not that of submission\.csv") as raised:
        read_classified(path)
    assert str(raised.value).startswith(f"{beside}: ") and again in str(raised.value)
    write_submission(tmp_path, ROWS)
    beside.write_text(beside.read_text().replace("0.45", "much"))
    with pytest.raises(HearbackError, match=r"the probabilities of 1\.wav are not four numbers"):
        read_classified(path)
    beside.unlink()
    with pytest.raises(HearbackError, match=r"not there; it belongs to submission\.csv"):
        read_classified(path)


def test_accuracy_is_that_of_the_first_row(page: dict[str, Any]) -> None:
    classes = np.array(page["recordings"]["predicted_classes"]["ensemble"])
    accuracy = page["models"][0]["metrics"]["accuracy"][0]
    assert accuracy == pytest.approx(accuracy_score(LABELS, classes), abs=1e-4)
