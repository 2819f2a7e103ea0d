"""benchmarks/check_sizes.py: every stage of each family on a tiny backbone; one true size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import check_sizes
from hearback.engine.errors import HearbackError
from hearback.engine.phones import layout
from hearback.engine.project import ROOT
from tests.helpers import environment_of_scripts
from tests.toy import write_tokenizer

PAGE = ROOT / "docs" / "results" / "sizes.md"
TIMEOUT_SECONDS = 600  # of a command that hangs; it takes about one minute


@pytest.fixture(autouse=True)
def small_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, phones: Path
) -> None:
    """A toy tokenizer, a toy recogniser of phones, and letters as sounds."""
    folder = tmp_path_factory.mktemp("parts")
    write_tokenizer(folder / "tokenizer.json")
    monkeypatch.setattr(check_sizes, "TOKENIZER", folder / "tokenizer.json")
    monkeypatch.setattr(check_sizes, "PHONES", phones)
    assert phones.name == layout.NAME
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )


@pytest.mark.parametrize("name", ["model2ds", "modelali", "modeltok", "modeltoklow", "modelgop"])
def test_a_recipe_is_trained_saved_loaded_and_packed(tmp_path: Path, name: str) -> None:
    arguments = check_sizes.parse(["--small", "--seconds", "1"])
    (recipe,) = check_sizes.choose_recipes([name])
    stages = (check_sizes.prepare, check_sizes.train, check_sizes.infer)
    figures: check_sizes.Figures = {}
    for stage in stages:
        figures |= stage(recipe, tmp_path, arguments)
    assert figures["n_parameters"] >= figures["n_trained"] > 0
    assert figures["fold_mb"] > 0 and figures["training_peak_gb"] > 0
    cells = check_sizes.row(recipe, figures).strip("| ").split(" | ")
    assert cells[0] == name and len(cells) == len(check_sizes.HEADER.splitlines()[0].split(" | "))


def test_the_documented_table_has_the_columns_of_the_printed_one() -> None:
    assert f"\n{check_sizes.HEADER}\n" in PAGE.read_text(encoding="utf-8")


def test_the_needed_memory_is_about_the_documented_one() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| model")]
    column = check_sizes.HEADER.splitlines()[0].strip("| ").split(" | ").index("Training, GB")
    measured = {cells[0]: float(cells[column]) for cells in rows}
    assert measured.pop("modelgop") < 1  # on no Whisper, and not checked
    assert len(measured) >= 7
    for recipe in check_sizes.choose_recipes(list(measured)):
        assert check_sizes.needed_gb(recipe) == pytest.approx(measured[recipe.name], abs=0.6)


def test_a_recipe_without_a_step_has_a_dash() -> None:
    (recipe,) = check_sizes.choose_recipes(["modeltokzero"])
    names = ("n_parameters", "n_trained", "built_gb", "training_peak_gb", "fold_mb", "shared_mb")
    figures = dict.fromkeys((*names, "inference_peak_gb", "zip_mb"), 1e6)
    cells = check_sizes.row(recipe, figures).strip("| ").split(" | ")
    columns = check_sizes.HEADER.splitlines()[0].strip("| ").split(" | ")
    assert dict(zip(columns, cells, strict=True))["Step, GB"] == "–"


def test_an_error_of_a_stage_names_recipe_and_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_sizes, "make_noise", lambda *_: 1 / 0)
    (recipe,) = check_sizes.choose_recipes(["modeltok"])
    with pytest.raises(HearbackError, match="modeltok, prepare: ZeroDivisionError: division by"):
        check_sizes.check(recipe, tmp_path, check_sizes.parse(["--small"]))


def test_an_unknown_recipe_is_an_error() -> None:
    with pytest.raises(HearbackError, match="no recipe model9x; there are model1m"):
        check_sizes.choose_recipes(["model9x"])


def test_too_little_memory_is_an_error_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_sizes, "available_gb", lambda: 6.0)
    monkeypatch.setattr(sys, "argv", ["check_sizes", "--recipes", "model1m"])
    assert check_sizes.main() == 1
    assert "model1m: it needs about 8 GB of memory, and 6 GB are free" in capsys.readouterr().err


@pytest.mark.slow
def test_distil_small_at_its_true_size(tmp_path: Path) -> None:
    out = tmp_path / "sizes.json"
    flags = ["--recipes", "model2ds", "--seconds", "1", "--folder", str(tmp_path)]
    # In a process of its own: the command forks, and this one has computed with torch.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.check_sizes", *flags, "--out", str(out)],
        cwd=tmp_path,
        env=environment_of_scripts(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())["model2ds"]
    assert 87e6 < figures["n_parameters"] < 89e6  # the encoder of Whisper small
    assert 170 < figures["fold_mb"] < 180  # in half precision
    assert "| model2ds | distil-small.en | 87." in done.stdout
