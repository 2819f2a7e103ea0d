"""--corrections in every competition: the training set, the folds, and the steps that read them."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hearback.engine.data.corrections import Corrections
from hearback.engine.data.problems import BadInputError
from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.check_models import retrain_arguments
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.training.fold_files import read_fold_metadata, why_not_done
from hearback.reading.steps import check_models as reading_check_models
from hearback.songs.steps import check_models as songs_check
from tests.contract.competitions import Competition
from tests.contract.fabricated import READING, SONGS, Fabricated, name_of
from tests.engine.page.page_reader import read_page
from tests.helpers import run_step

HEADER = "filename,verdict,score,note\n"
BOTH = pytest.mark.parametrize("competition", ["reading", "songs"], indirect=True)


@pytest.fixture
def each(request: pytest.FixtureRequest) -> Fabricated:
    """Each competition's fabricated folds."""
    found: Fabricated = request.param
    return found


EACH = pytest.mark.parametrize("each", [READING, SONGS], indirect=True, ids=name_of)


def write(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def corrected(options: Any, path: Path) -> Any:
    """Return options with --corrections, which not every competition has."""
    return replace(options, corrections=path)


def flipped(data: Any, *rows: int) -> list[str]:
    """Return rows that give some recordings another label."""
    names, labels = data.filenames, data.labels
    return [f"{names[row]},wrong_label,{1 if labels[row] != 1 else 0}," for row in rows]


def left_out(data: Any, *rows: int) -> list[str]:
    return [f"{data.filenames[row]},unscorable,," for row in rows]


def labels_by_name(data: Any) -> dict[str, float]:
    return dict(zip(data.filenames, data.labels.tolist(), strict=True))


def folds_by_name(data: Any) -> dict[str, int]:
    return dict(zip(data.filenames, data.folds.tolist(), strict=True))


@BOTH
def test_only_the_corrected_rows_differ(
    competition: Competition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = competition.options
    before = options.load_data()
    rows = [*flipped(before, 0, 5, 9), *left_out(before, 3, 7), f"{before.filenames[4]},agree,,"]
    path = write(tmp_path / "corrections.csv", *rows)
    capsys.readouterr()
    after = corrected(options, path).load_data()
    line = "corrections.csv: 3 labels changed, 2 recordings left out\n"
    assert capsys.readouterr().out.count(line) == 1
    gone = {before.filenames[3], before.filenames[7]}
    assert after.filenames == [name for name in before.filenames if name not in gone]
    old, new = labels_by_name(before), labels_by_name(after)
    assert {name for name in new if new[name] != old[name]} == {
        before.filenames[row] for row in (0, 5, 9)
    }
    assert before.fingerprint != after.fingerprint


@BOTH
@pytest.mark.parametrize("group_by", ["default", "none"])
@pytest.mark.parametrize("limit", [None, 30])
def test_no_row_is_in_another_fold(
    competition: Competition, tmp_path: Path, group_by: str, limit: int | None
) -> None:
    grouping = None if group_by == "default" else group_by
    options = replace(competition.options, group_by=grouping, limit=limit)
    before = options.load_data()
    rows = [*flipped(before, *range(0, 12, 2)), *left_out(before, *range(13, 24, 2))]
    path = write(tmp_path / "corrections.csv", *rows)
    after = corrected(options, path).load_data()
    folds = folds_by_name(after)
    assert len(folds) == len(before.filenames) - 6
    assert folds.items() <= folds_by_name(before).items()
    for fold in range(options.n_folds):
        names = {before.filenames[row] for row in before.training_rows(fold)}
        assert {after.filenames[row] for row in after.training_rows(fold)} == names & folds.keys()


@BOTH
def test_verdicts_that_change_nothing_leave_everything_as_it_is(
    competition: Competition, tmp_path: Path
) -> None:
    options, recipe = competition.options, competition.recipe
    before = options.load_data()
    rows = [f"{name},agree,," for name in before.filenames[:5]]
    with_corrections = corrected(options, write(tmp_path / "corrections.csv", *rows))
    after = with_corrections.load_data()
    assert before.fingerprint == after.fingerprint
    assert options.run_key(recipe, before) == with_corrections.run_key(recipe, after)
    assert options.run_key(recipe, before)["corrections"] is None


@BOTH
def test_a_recording_that_is_left_out_may_be_broken(
    competition: Competition, tmp_path: Path
) -> None:
    copy = tmp_path / "copied"
    shutil.copytree(competition.options.data, copy)
    options = replace(competition.options, data=copy, store=tmp_path / "other_store")
    name = options.load_data().filenames[2]
    (copy / name).write_bytes(b"no audio at all, but long enough to be looked at")
    with pytest.raises(BadInputError, match=Path(name).name):
        options.load_data()
    path = write(tmp_path / "corrections.csv", f"{name},unscorable,,")
    data = corrected(options, path).load_data()
    assert name not in data.filenames
    if hasattr(data, "features"):  # the songs' store is built later
        data.features(vars(competition.recipe)["features"])


@BOTH
def test_an_unknown_recording_is_an_error(competition: Competition, tmp_path: Path) -> None:
    path = write(tmp_path / "corrections.csv", "nobody.wav,agree,,")
    with pytest.raises(BadInputError, match=r"(?s)corrections\.csv.*has no such recording"):
        corrected(competition.options, path).load_data()


@BOTH
def test_the_metadata_records_the_corrections(competition: Competition, tmp_path: Path) -> None:
    data = competition.options.load_data()
    path = write(tmp_path / "my corrections.csv", *flipped(data, 0), *left_out(data, 3, 7))
    metadata = competition.train(corrections=path)
    with_corrections = corrected(competition.options, path)
    record = with_corrections.load_data().corrections.record()
    assert metadata["corrections"] == record
    assert (record["labels_changed"], record["left_out"]) == (1, 2)
    assert f"--corrections '{path}'" in metadata["retrain_command"]
    assert metadata["n_train"] + metadata["n_validation"] <= len(data.filenames) - 2

    recipe = competition.options.adapt(competition.recipe)
    assert (
        why_not_done(
            competition.files(), with_corrections.run_key(recipe, with_corrections.load_data())
        )
        is None
    )
    key = competition.options.run_key(recipe, data)
    reason = why_not_done(competition.files(), key)
    assert str(reason).startswith("trained with another data fingerprint, corrections")
    competition.train()
    assert read_fold_metadata(competition.files())["corrections"] is None


def spoil(each: Fabricated, folder: Path) -> tuple[Path, Corrections]:
    """Give one recording a wrong label and add an unscorable one; return their corrections."""
    data = folder / "data"
    if each is READING:
        first, label, added = "000.wav", 1.0, "999.wav"
        labels = data / "train_labels.csv"
        assert "000.wav,1.0" in labels.read_text()
        labels.write_text(labels.read_text().replace("000.wav,1.0", "000.wav,0") + "999.wav,1\n")
        with (data / "train_metadata.csv").open("a") as file:
            file.write("999.wav,deletion,text a,KG,s1\n")
    else:
        first, label, added = "train/train_0001.ogg", 1.0, "train/train_9999.ogg"
        labels = data / "train_label.txt"
        labels.write_text(
            labels.read_text().replace("0001.ogg,1", "0001.ogg,2") + "train_9999.ogg,1\n"
        )
        with (data / "manifest.csv").open("a") as file:
            file.write("s1,band 1,train_9999.ogg\n")
    path = folder / "corrections.csv"
    write(path, f"{first},wrong_label,{label:g},", f"{added},unscorable,,")
    return path, Corrections(path, {first: label}, frozenset({added}))


@EACH
def test_check_models_and_get_config_read_the_corrected_table(
    each: Fabricated, tmp_path: Path
) -> None:
    each.write_models(tmp_path)
    plain = run_step(each.check_models, tmp_path, "--no_page")[1]
    configs = [tmp_path / "plain.json", tmp_path / "corrected.json"]
    run_step(each.get_config, tmp_path, "--config", str(configs[0]))
    path, corrections = spoil(each, tmp_path)
    for model, predictions in each.models.items():
        each.write_folds(tmp_path / "assets", model, predictions, corrections=corrections.record())

    status, printed, errors = run_step(
        each.check_models, tmp_path, "--no_page", "--corrections", str(path)
    )
    assert status is not None, errors
    line = "corrections.csv: 1 label changed, 1 recording left out\n"
    assert printed == line + plain
    arguments = ("--config", str(configs[1]), "--corrections", str(path))
    status, printed, errors = run_step(each.get_config, tmp_path, *arguments)
    assert status is None, errors
    assert printed.count(line) == 1
    assert configs[0].read_text() == configs[1].read_text()


@EACH
def test_the_steps_refuse_other_corrections_than_the_folds(
    each: Fabricated, tmp_path: Path
) -> None:
    each.write_models(tmp_path)
    path, corrections = spoil(each, tmp_path)
    flags = ("--corrections", str(path))
    described = "1 label changed, 1 recording left out"
    for step in (each.check_models, each.get_config):
        status, _, errors = run_step(step, tmp_path, *flags)
        assert status == 2
        assert f"the folds were trained without corrections.csv: {described}; " in errors
        assert f"{each.train_command} --corrections {path} retrains them" in errors
    for model, predictions in each.models.items():
        each.write_folds(tmp_path / "assets", model, predictions, corrections=corrections.record())
    for step in (each.check_models, each.get_config):
        status, _, errors = run_step(step, tmp_path)
        assert status == 2
        assert f"trained with corrections ({described}); name the same file with" in errors
    path.write_text(path.read_text().replace("unscorable", "agree"))
    status, _, errors = run_step(each.check_models, tmp_path, "--no_page", *flags)
    assert status == 2
    assert f"with corrections ({described}), not with corrections.csv: 1 label changed; " in errors


@EACH
def test_folds_of_different_corrections_are_refused(each: Fabricated, tmp_path: Path) -> None:
    each.write_models(tmp_path)
    _, corrections = spoil(each, tmp_path)
    each.write_alone(tmp_path, each.steady, corrections=corrections.record())
    status, _, errors = run_step(each.check_models, tmp_path, "--no_page")
    assert status == 2 and "the trained folds differ in corrections" in errors


@EACH
def test_retrain_runs_with_the_same_corrections_only(each: Fabricated, tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    command = each.command(tmp_path, "--corrections", str(path))
    outlier = Outlier(each.model, 1, "", command)
    folders = (tmp_path / "data", tmp_path / "assets")
    read_command = each.check_models.read_command
    arguments = retrain_arguments(outlier, *folders, read_command, path)
    assert arguments[1:] == command.split()[1:] or arguments[2:] == command.split()[2:]
    for given in (None, tmp_path / "others.csv"):
        with pytest.raises(HearbackError, match="its --corrections, relative to this folder, is"):
            retrain_arguments(outlier, *folders, read_command, given)


@BOTH
def test_train_passes_the_corrections_to_the_scores(
    competition: Competition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = reading_check_models if "ReadingTask" in str(competition.make_task) else songs_check
    path = write(tmp_path / "c.csv", *left_out(competition.options.load_data(), 3))
    reading: list[dict[str, Any]] = []

    def read(*_: Any, **named: Any) -> SimpleNamespace:
        reading.append(named)
        return SimpleNamespace(corrected=Corrections(path, {}, frozenset({"x.wav"})))

    monkeypatch.setattr(module, "read_trained", read)
    monkeypatch.setattr(module, "show", lambda *_: [])
    capsys.readouterr()
    module.show_trained(corrected(competition.options, path), [])
    assert reading == [{"corrections": path}]
    assert capsys.readouterr().out == "c.csv: 1 recording left out\n"


@EACH
def test_a_page_carries_the_corrections_that_it_was_made_with(
    each: Fabricated, tmp_path: Path
) -> None:
    each.write_models(tmp_path)
    path, corrections = spoil(each, tmp_path)
    for model, predictions in each.models.items():
        each.write_folds(tmp_path / "assets", model, predictions, corrections=corrections.record())
    out = tmp_path / "page.html"
    flags = ("--corrections", str(path), "--page", str(out))
    assert run_step(each.check_models, tmp_path, *flags)[0] in (0, 1)
    page = read_page(out)
    ((changed, label),) = corrections.labels.items()
    (left,) = corrections.left_out
    expected = [[changed, "wrong_label", f"{label:g}", ""], [left, "unscorable", "", ""]]
    assert page["corrections"] == expected
    facts = dict(page["data"]["facts"])
    assert facts["corrections"] == "corrections.csv: 1 label changed, 1 recording left out"
    recordings = page["recordings"]
    notes = dict(zip(recordings["filenames"], recordings["notes"], strict=True))
    assert notes.pop(changed) == "label corrected by corrections.csv"
    assert set(notes.values()) == {""} and left not in notes
    # Read again, they change the same.
    rows = "".join(f"{','.join(row)},\n" for row in page["corrections"])
    path.write_text(HEADER + rows)
    assert run_step(each.check_models, tmp_path, "--no_page", *flags[:2])[0] in (0, 1)
