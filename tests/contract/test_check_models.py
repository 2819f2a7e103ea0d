"""The step check_models in every competition: outlier folds and their retraining."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation import check_models as engine_step
from hearback.engine.evaluation.outliers import Outlier
from hearback.engine.training.checkpoint import save_checkpoint
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from tests.contract.fabricated import READING, SONGS, Fabricated, name_of, retrain_flags
from tests.helpers import run_step


@pytest.fixture(params=[READING, SONGS], ids=name_of)
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Fabricated:
    """Each competition, with two models in the test's folder."""
    found: Fabricated = request.param
    found.write_models(tmp_path)
    return found


def check(each: Fabricated, folder: Path, *flags: str) -> tuple[Any, str, str]:
    """Run the step on the first model."""
    return run_step(each.check_models, folder, "--no_page", "--models", each.model, *flags)


def write_stalled_fold(each: Fabricated, folder: Path, command: str | None = None) -> None:
    """Write the first model with a fold 1 that stands out."""
    again = command or each.command(folder)
    each.write_alone(folder, each.stalled, retrain_command=again)


def watch_commands(monkeypatch: pytest.MonkeyPatch, *, status: int = 0) -> list[list[str]]:
    """Replace trainings by nothing; return the list to which their commands are added."""
    commands: list[list[str]] = []

    def run_nothing(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        assert "shell" not in settings
        commands.append(command)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", run_nothing)
    return commands


def test_every_model_has_its_log_loss_per_fold(each: Fabricated, tmp_path: Path) -> None:
    _, output, _ = run_step(each.check_models, tmp_path, "--no_page")
    _, _, rest = output.partition("\nLog loss per fold")
    table = rest.partition("\n\n")[0]
    for model in each.models:
        (line,) = re.findall(rf"^{model} +([\d. ]+)$", table, re.MULTILINE)
        expected = [
            read_fold_metadata(FoldFiles(tmp_path / "assets", model, fold))["epochs"][0]
            for fold in range(3)
        ]
        losses = [epoch["validation_log_loss"] for epoch in expected]
        np.testing.assert_allclose([float(cell) for cell in line.split()], losses, atol=1e-4)


def test_the_status_is_1_if_a_fold_stands_out(each: Fabricated, tmp_path: Path) -> None:
    write_stalled_fold(each, tmp_path)
    status, output, _ = check(each, tmp_path)
    assert status == 1
    lines = output.splitlines()
    (place,) = (number for number, line in enumerate(lines) if "stands out" in line)
    assert lines[place].startswith(f"{each.model} fold 1 stands out: log loss ")
    assert lines[place + 1].strip() == each.command(tmp_path)
    each.write_alone(tmp_path, each.steady)
    status, output, _ = check(each, tmp_path)
    assert status == 0
    assert output.endswith("\nNo fold stands out.\n")


def test_folds_that_are_not_trained_are_named(each: Fabricated, tmp_path: Path) -> None:
    model = f"{each.model}_s3"
    each.write_folds(tmp_path / "assets", model, each.steady, folds=[1])
    _, output, _ = run_step(each.check_models, tmp_path, "--no_page")
    assert f"{model}: folds [0, 2] are not trained; {each.train_command}\n" in output


def test_only_the_selected_models_are_printed(each: Fabricated, tmp_path: Path) -> None:
    _, output, _ = check(each, tmp_path)
    _, other = each.models
    assert each.model in output and other not in output


def test_an_unknown_model_is_an_error_with_those_there_are(
    each: Fabricated, tmp_path: Path
) -> None:
    status, _, errors = run_step(each.check_models, tmp_path, "--models", "model2s")
    assert status == 2
    assert f"no finished fold of model2s; there are {', '.join(sorted(each.models))}" in errors


def test_attempts_of_folds_that_needed_several_are_printed(
    each: Fabricated, tmp_path: Path
) -> None:
    assert "Attempts" not in run_step(each.check_models, tmp_path, "--no_page")[1]
    fields = ("attempt", "outcome", "epoch", "step", "seconds", "reason")
    stalled, finished = (
        dict(zip(fields, values, strict=True))
        for values in (
            (1, "stalled", 1, 7, 90.0, "epoch 1, step 7: the loss is nan"),
            (2, "finished", 4, 300, 600.0, None),
        )
    )
    assets, model = tmp_path / "assets", f"{each.model}_s3"
    each.write_folds(assets, model, each.steady, folds=[0], attempts=[stalled, finished])
    each.write_folds(assets, model, each.steady, folds=[1], attempts=[finished])
    save_checkpoint(
        FoldFiles(assets, model, 2).checkpoint,
        {},
        {"run_key": {}, "attempts": [{**stalled, "attempt": 3}]},
    )
    _, output, _ = run_step(each.check_models, tmp_path, "--no_page")
    _, _, table = output.partition("\nAttempts of folds that needed several\n")
    lines = [line.split() for line in table.partition("\n\n")[0].splitlines()[2:]]
    assert [line[:6] for line in lines] == [
        [model, "0", "1", "stalled", "1", "7"],
        [model, "0", "2", "finished", "4", "300"],
        [model, "2", "3", "stalled", "1", "7"],
    ]
    assert lines[0][6] == "1.5000" and " ".join(lines[0][7:]) == "epoch 1, step 7: the loss is nan"
    assert f"{model}: folds [2] are not trained" in output


def test_retrain_runs_the_command_of_the_fold_that_stands_out(
    each: Fabricated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stalled_fold(each, tmp_path)
    commands = watch_commands(monkeypatch)
    status, output, _ = check(each, tmp_path, "--retrain")
    assert status == 1  # nothing was trained
    ((python, first, *rest),) = commands
    words = each.command(tmp_path).split()
    assert python == sys.executable
    assert [Path(first).name, *rest] == words[1:]
    assert first == "-m" or Path(first).is_file()
    assert output.count("Log loss per fold") == 2  # before and after
    assert output.count(f"{each.model} fold 1 stands out") == 2


def test_retrain_ends_with_the_status_after_it(
    each: Fabricated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stalled_fold(each, tmp_path)

    def train_well(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        each.write_alone(tmp_path, each.steady)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", train_well)
    status, output, _ = check(each, tmp_path, "--retrain")
    assert status == 0
    assert output.endswith("\nNo fold stands out.\n")


def test_a_retraining_that_fails_is_named_and_the_fold_still_stands_out(
    each: Fabricated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stalled_fold(each, tmp_path)
    watch_commands(monkeypatch, status=2)
    status, output, _ = check(each, tmp_path, "--retrain")
    assert status == 1
    assert f"FAILED: {each.model} fold 1, status 2" in output


def test_without_outliers_retrain_runs_nothing(
    each: Fabricated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each.write_alone(tmp_path, each.steady)
    commands = watch_commands(monkeypatch)
    assert check(each, tmp_path, "--retrain")[0] == 0
    assert not commands


COMMON_REFUSED = [
    ("rm -rf {home}", "{not_one}"),
    ("{command}; rm -rf {home}", "invalid int value: '2;'"),
    ("{command} && rm -rf {home}", "unrecognized arguments: &&"),
    ("python -c pass {flags}", "{not_one}"),
    ("python -m pip install evil", "{not_one}"),
    ("/tmp/{command}", "{not_one}"),  # another python
    ("python {other} {flags}", "{not_one}"),  # another model
    ("{command} --evil yes", "unrecognized arguments: --evil yes"),
    ("{command} --device", "--device: expected one argument"),
    ("{command} --fold 0", "it trains fold 0"),
    ("{command} --seed 2", "it trains {model}_s2"),
    ("{command} --assets /else", "its --assets, relative to this folder, is not"),
    ("{command} --data /else", "its --data, relative to this folder, is not"),
    ("python {program} --help", "required: --fold, --attempt"),
    ("python {program} '{flags}", "No closing quotation"),
]
NOT_READING = "neither python train_model3mapd.py nor python -m"
NOT_SONGS = "not python -m hearback.songs.recipes.cnn4"
ABLATION = "hearback.reading.baselines.ablation"


@pytest.mark.parametrize(
    ("each", "retrain_command", "reason"),
    [
        *(
            (found, command, reason.format(not_one=not_one, model=found.model))
            for found, not_one in ((READING, NOT_READING), (SONGS, NOT_SONGS))
            for command, reason in COMMON_REFUSED
        ),
        (READING, f"python -m {ABLATION} --variants joined {{flags}}", NOT_READING),
        (READING, "python ../train_model3mapd.py {flags}", NOT_READING),
        (READING, "python /tmp/train_model3mapd.py {flags}", NOT_READING),
        (SONGS, "python songs/train_cnn4.py {flags}", NOT_SONGS),
        (SONGS, "python -m hearback.songs infer {flags}", NOT_SONGS),
        (SONGS, "{command} --separate repet", "it trains cnn4_repet"),
    ],
    indirect=["each"],
    ids=name_of,
)
def test_retrain_runs_only_a_training_of_that_fold(
    each: Fabricated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retrain_command: str,
    reason: str,
) -> None:
    _, other = each.models
    command = retrain_command.format(
        home=tmp_path / "home",
        command=each.command(tmp_path),
        flags=" ".join(retrain_flags(tmp_path)),
        program=each.program(each.model),
        other=each.program(other),
    )
    write_stalled_fold(each, tmp_path, command)
    commands = watch_commands(monkeypatch)
    status, _, errors = check(each, tmp_path, "--retrain")
    assert status == 2
    assert reason in errors
    assert f"{each.model}_1.json: --retrain does not run its command" in errors
    assert not commands


def retrain_arguments(each: Fabricated, model: str, command: str, folder: Path) -> list[str]:
    outlier, read_command = Outlier(model, 1, "", command), each.check_models.read_command
    return engine_step.retrain_arguments(outlier, folder / "data", folder / "assets", read_command)


@pytest.mark.parametrize(
    ("each", "model", "reason"),
    [
        (READING, "model9z", "neither python train_model9z"),
        (READING, "model_baseline_transcript", "neither python train_model_baseline_transcript"),
        (SONGS, "evil", "not python -m hearback[.]songs[.]recipes[.]evil"),
        (SONGS, "../evil", "invalid model name"),
    ],
    ids=name_of,
)
def test_a_model_without_a_program_is_not_retrained(
    tmp_path: Path, each: Fabricated, model: str, reason: str
) -> None:
    message = f"--retrain does not run its command .{reason}"
    command = each.command(tmp_path, model=model)
    with pytest.raises(HearbackError, match=message):
        retrain_arguments(each, model, command, tmp_path)


@pytest.mark.parametrize("each", [READING, SONGS], ids=name_of)
def test_a_model_of_another_seed_is_retrained_by_its_recipe(
    tmp_path: Path, each: Fabricated
) -> None:
    seeded = each.command(tmp_path, "--seed", "5")
    _, first, *rest = retrain_arguments(each, f"{each.model}_s5", seeded, tmp_path)
    assert [Path(first).name, *rest] == seeded.split()[1:]
    for model in (each.model, f"{each.model}_s6"):
        with pytest.raises(HearbackError, match=f"it trains {each.model}_s5"):
            retrain_arguments(each, model, seeded, tmp_path)
    with pytest.raises(HearbackError, match=f"it trains {each.model}"):
        retrain_arguments(each, f"{each.model}_s5", each.command(tmp_path), tmp_path)
