"""benchmarks/gpu_check: every section at tiny size, on the CPU or the strict device."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import backbones, clips, flops
from benchmarks.gpu_check import (
    __main__,
    folds,
    inputs,
    missing,
    report,
    scores,
    sections,
    speed,
)
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.sections import SECTIONS, Result, Section, run_all, run_section
from benchmarks.gpu_check.setting import PHONES, SMALL, STRICT, Setting, check_device
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.reading.recipe import find_recipes

SECTION = Section("some", "Something", 30.0, "some:section")
FEW = replace(SMALL, n_noise=8, n_scored=4)


@pytest.fixture
def setting(make_corpus: Callable[..., Path], phones: Path) -> Setting:
    """A setting at small size on a toy corpus, with its backbone."""
    folder = make_corpus(n_train=18, n_test=0)
    made = Setting("cpu", True, (phones.parent,), folder, FEW)
    inputs.make_small_backbone(made)
    inputs.link_phones(made)
    return made


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record.json")


def failed(record: Record) -> list[str]:
    return [f"{check.name}: {check.measured}" for check in record.checks if not check.passed]


def test_sections_exist_and_their_time_is_within_the_limit() -> None:
    assert SECTIONS[0].name == "inputs"
    assert all(callable(section.load()) for section in SECTIONS)
    total = sum(section.seconds for section in SECTIONS)
    assert total <= sections.LIMIT_SECONDS == 8 * 60


def test_a_record_is_kept_as_it_grows(record: Record) -> None:
    record.at_most("small", 0.5, 1.0, "sd")
    record.at_most("large", float("nan"), 1.0)
    record.row(family="joined", gb=None)
    record.note("A sentence.")
    with record.guarded("broken"):
        raise ValueError("two\nlines")
    read = Record.load(record.path)
    assert (read.checks, read.rows, read.notes) == (record.checks, record.rows, record.notes)
    assert failed(read) == ["large: nan", "broken: ValueError: two lines"]
    assert not read.done
    record.finish()
    assert Record.load(record.path).done
    assert Record.load(record.path.with_name("missing.json")).checks == []


def run_code(
    monkeypatch: pytest.MonkeyPatch, folder: Path, code: str, seconds: float = 60.0
) -> Result:
    """Run a section whose process is some code, which may use `Record` and `path`."""
    start = (
        f"import sys; sys.path.insert(0, {str(sections.ROOT)!r})\n"
        "from pathlib import Path; from benchmarks.gpu_check.record import Record\n"
        f"record = Record(Path({str(folder / 'some.json')!r}))\n"
    )

    def command(section: Section, flags: Sequence[str], seconds: float) -> list[str]:
        return [sys.executable, "-c", start + code]

    monkeypatch.setattr(sections, "command_of", command)
    return run_section(SECTION, [], folder, seconds)


def test_a_section_passes_or_fails_by_its_checks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "record.at_most('number', {}, 1.0); record.finish()"
    assert run_code(monkeypatch, tmp_path, code.format(0.5)).outcome == "passed"
    assert run_code(monkeypatch, tmp_path, code.format(1.5)).outcome == "failed"


def test_a_section_that_breaks_off_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "record.at_most('number', 0.5, 1.0); raise SystemExit('out of memory')"
    result = run_code(monkeypatch, tmp_path, code)
    assert result.outcome == "failed"
    assert [check.passed for check in result.record.checks] == [True, False]
    assert "out of memory" in result.record.checks[-1].measured


def test_a_section_whose_time_is_up_is_ended_and_keeps_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = (
        "import subprocess, time\n"
        "sleeper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "record.note(str(sleeper.pid)); time.sleep(600)"
    )
    real = subprocess.Popen.wait

    def wait(process: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        if timeout is None:
            return real(process)
        while not (tmp_path / "some.json").exists() and process.poll() is None:
            time.sleep(0.05)
        raise subprocess.TimeoutExpired("section", timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    result = run_code(monkeypatch, tmp_path, code)
    assert result.outcome == "out of time"
    (sleeper,) = result.record.notes
    for _ in range(600):
        if not is_running(sleeper):
            break
        time.sleep(0.1)
    assert not is_running(sleeper)


def is_running(process: str) -> bool:
    """Return whether a process, by its id, has not ended."""
    try:
        return "Z (zombie)" not in Path("/proc", process, "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sections_run_until_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[float] = []

    def run(section: Section, flags: Any, work: Path, seconds: float) -> Result:
        given.append(seconds)
        outcome: Any = "passed" if seconds > 0 else "out of time"
        return Result(section, outcome, 0.0, seconds, Record(work / "none.json"))

    monkeypatch.setattr(sections, "run_section", run)
    list(run_all(SECTIONS, [], tmp_path))
    own = [section.seconds for section in SECTIONS[:-1]]
    assert given[:-1] == own
    assert given[-1] > SECTIONS[-1].seconds  # what the others did not need
    given.clear()
    list(run_all(SECTIONS, [], tmp_path, limit=240.0))
    assert given[:-1] == [seconds / 2 for seconds in own]


def test_without_time_a_section_is_not_started(tmp_path: Path) -> None:
    assert run_section(SECTION, [], tmp_path, 0.0).outcome == "out of time"


def test_the_tables_hold_all_that_was_found(tmp_path: Path) -> None:
    passed, other = Record(tmp_path / "1.json"), Record(tmp_path / "2.json")
    passed.at_most("scores in float32", 0.001, 0.02, "sd")
    other.at_most("loss | norm", 2.0, 1.0)
    other.row(family="joined", times=10.25, gb=None)
    other.row(family="tokens", share_of_peak=0.4)
    other.note("A note.")
    results = [Result(SECTION, "passed", 10.0, 60.0, passed)]
    assert report.passed(results)
    results.append(Result(SECTION, "failed", 20.0, 60.0, other))
    markdown, values = report.write(tmp_path / "out", {"device": "cpu"}, results)
    text, found = markdown.read_text(), json.loads(values.read_text())
    assert found["passed"] is False and found["seconds"] == 30.0
    assert [section["outcome"] for section in found["sections"]] == ["passed", "failed"]
    assert "| joined | 10.25 |  |  |" in text
    assert "loss \\| norm" in text and "**failed**" in text and "A note." in text
    assert "1 of 1" in text and "Not all passed" in text


def test_a_failed_section_gives_status_1_and_a_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(chosen: Any, flags: Sequence[str], work: Path, limit: float) -> list[Result]:
        assert "--small" in flags and [section.name for section in chosen] == ["fold", "two"]
        bad = Record(work / "bad.json")
        bad.at_most("log loss", 2.0, 1.0)
        good = Result(chosen[1], "passed", 1.0, 2.0, Record(work / "good.json"))
        return [Result(chosen[0], "failed", 1.0, 2.0, bad), good]

    monkeypatch.setattr(__main__, "run_all", run)
    Record(tmp_path / "work" / "small" / "inputs.json").finish()
    flags = ["--device", "cpu", "--small", "--only", "fold", "two"]
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["gpu_check", *flags, *folders])
    assert __main__.main() == 1
    assert "FAILED log loss" in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "gpu_check.json")["size"].startswith("small")


def test_a_missing_gpu_is_an_error_that_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HearbackError, match="DEVICE=strict SMALL=1"):
        check_device("cuda")
    check_device("cpu")
    check_device(STRICT)


def test_all_that_is_missing_is_reported_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(missing, "WHEEL_MODULES", ("numpy", "no_hibari", "no_soxr"))
    monkeypatch.setattr(missing, "MACHINE_MODULES", ("no_onnx",))
    monkeypatch.setattr(__main__, "run_all", None)  # not called
    (tmp_path / "weights").mkdir()
    folders = [f"--{name}={tmp_path / name}" for name in ("weights", "work", "out")]
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--small", *folders])
    assert __main__.main() == 1
    printed = capsys.readouterr()
    assert not printed.out and [path.name for path in tmp_path.iterdir()] == ["weights"]
    title, *lines = printed.err.splitlines()
    assert title.startswith("Nothing was run") and len(lines) == 4
    for line, (what, cure) in zip(
        lines,
        [
            ("no GPU", "DEVICE=strict SMALL=1"),
            ("no package no_onnx:", "install it in this Python"),
            ("no package no_hibari, no_soxr:", "make gpu-files"),
            (
                f"{PHONES} is in no folder of weights ({tmp_path / 'weights'})",
                f"python -m hearback.engine.phones.pretrained --assets {tmp_path / 'weights'}, or "
                "make gpu-files",
            ),
        ],
        strict=True,
    ):
        assert what in line and cure in line


def test_nothing_is_missing_where_all_is_there(setting: Setting) -> None:
    assert missing.find_missing(setting, SECTIONS) == []


def test_sections_that_need_no_phones_and_inputs_of_an_earlier_run(setting: Setting) -> None:
    fold = [section for section in SECTIONS if section.name == "fold"]
    without = replace(setting, weights=())
    (line,) = missing.find_missing(without, fold)
    assert "--only inputs" in line
    Record(setting.work / "inputs.json").finish()
    assert missing.find_missing(without, fold) == []
    assert len(missing.find_missing(without, SECTIONS)) == 1


def packages_of(lines: str) -> set[str]:
    """Return the names of the packages that a file of requirements pins."""
    pins = [line.partition("==")[0] for line in lines.splitlines() if not line.startswith("#")]
    return {name.lower().replace("_", "-") for name in pins}


def test_all_packages_of_the_project_are_looked_for() -> None:
    names = metadata.packages_distributions()

    def packages(modules: Sequence[str]) -> set[str]:
        return {each.lower().replace("_", "-") for module in modules for each in names[module]}

    wheels, own = packages(missing.WHEEL_MODULES), packages(missing.MACHINE_MODULES)
    for_gpu = (sections.ROOT / "requirements" / "gpu.txt").read_text()
    assert wheels == packages_of(for_gpu.partition("# What librosa")[0])
    pinned = packages_of((sections.ROOT / "requirements.txt").read_text())
    assert pinned - {"torch"} == wheels | own


def test_what_may_be_missing_is_not_imported_before_it_is_looked_for() -> None:
    modules = f"{(*missing.WHEEL_MODULES, *missing.MACHINE_MODULES)!r}"
    allowed = {"numpy"}  # torch imports it where it is there
    code = (
        "import sys, torch; before = set(sys.modules); import benchmarks.gpu_check.__main__; "
        f"print(*[name for name in {modules} if name in sys.modules and name not in before])"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=sections.ROOT)
    assert set(printed.stdout.split()) <= allowed


def test_the_sizes_are_those_of_the_recipes_backbones(phones: Path) -> None:
    recipes = find_recipes().values()
    names = {recipe.backbone.rpartition("/")[2] for recipe in recipes}
    assert names - {"hama-phones"} <= backbones.CONFIGS.keys()
    for family in speed.FAMILIES:
        assert find_recipes()[family.recipe].backbone.endswith(family.backbone)


def test_inputs_are_written_once(
    setting: Setting, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs.prepare(setting, record)
    assert not failed(record)
    assert len(inputs.load_noise(setting)) == FEW.n_noise
    monkeypatch.setattr(clips, "make_noise", None)  # not called again
    monkeypatch.setattr(backbones, "save_file", None)
    inputs.prepare(setting, record)
    assert not failed(record)


def test_missing_weights_of_phones_are_a_failed_check(setting: Setting, record: Record) -> None:
    inputs.prepare(replace(setting, weights=(setting.work / "empty",)), record)
    (line, _) = failed(record)
    assert "make gpu-files" in line


def test_pretrained_weights_are_copied(setting: Setting, backbone: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "whisper-tiny.en").symlink_to(backbone)
    true = replace(setting, small=False, weights=(weights,), work=tmp_path / "true")
    assert "have the weights of whisper-tiny.en" in inputs.make_small_backbone(true)
    assert (true.backbone / "model.safetensors").is_file()
    assert [path.name for path in true.assets.iterdir()] == ["whisper-tiny.en"]


def test_a_copy_that_breaks_off_leaves_no_backbone(
    setting: Setting, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "whisper-tiny.en").symlink_to(backbone)
    true = replace(setting, small=False, weights=(weights,), work=tmp_path / "true")

    def copy(_: Path, folder: Path, **__: bool) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("the disk is full")

    monkeypatch.setattr(inputs.shutil, "copytree", copy)
    with pytest.raises(OSError, match="full"):
        inputs.make_small_backbone(true)
    assert not list(true.assets.iterdir())


def test_a_link_to_a_folder_that_is_gone_is_replaced(setting: Setting, phones: Path) -> None:
    link = setting.assets / phones.name
    link.unlink()
    link.symlink_to(setting.work / "gone")
    inputs.link_phones(setting)
    assert link.resolve() == phones.resolve()


def test_scores_and_steps_on_the_strict_device_equal_the_cpus(
    setting: Setting, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"joined": scores.families()["joined, mean"]}
    monkeypatch.setattr(scores, "families", lambda: chosen)
    scores.compare(replace(setting, device=STRICT), record)
    assert len(record.checks) == 9 and not failed(record)
    exact = [check for check in record.checks if "float32" in check.name]
    assert all(check.measured.startswith("0") for check in exact)


@pytest.mark.slow
def test_scores_and_steps_of_all_families(setting: Setting, record: Record) -> None:
    scores.compare(replace(setting, device=STRICT), record)
    assert len(record.checks) == 9 * len(scores.families()) and not failed(record)


def test_another_score_is_found() -> None:
    rng = np.random.default_rng(0)
    expected = np.concatenate([rng.normal(0, 2, (50, 1)), rng.normal(0, 0.1, (50, 3))], axis=1)
    expected[:10, 3] = np.nan  # words that a text does not have
    found = expected.copy()
    assert scores.largest_difference(found, expected) == 0
    found[3, 0] += 0.2
    assert scores.largest_difference(found, expected) == pytest.approx(0.1, rel=0.3)
    found[20, 2] += 0.1
    assert scores.largest_difference(found, expected) == pytest.approx(1, rel=0.3)
    found[30, 3] = np.nan
    assert np.isnan(scores.largest_difference(found, expected))


@pytest.mark.slow
@pytest.mark.parametrize("family", [speed.FAMILIES[0], speed.FAMILIES[4]], ids=lambda f: f.title)
def test_speeds_are_measured_beside_the_competitions(
    setting: Setting, record: Record, family: speed.Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flops, "PRODUCT_SIZE", {"cpu": 64})
    monkeypatch.setattr(speed, "FAMILIES", (family,))
    clips.make_noise(setting.noise, FEW.n_noise, 1.0)
    speed.measure(setting, record)
    assert not failed(record)
    training, inference = record.rows
    assert (training["of"], inference["of"]) == ("training", "inference")
    for row in record.rows:
        assert row["clips_per_s"] > 0 and row["competition"] > 0 and row["share_of_peak"] > 0
        assert row["gb"] is None  # on a CPU
    assert "Goals for whisper-medium" in record.notes[0]


def test_families_that_time_does_not_suffice_for_are_reported(
    setting: Setting, record: Record
) -> None:
    clips.make_noise(setting.noise, FEW.n_noise, 1.0)
    record.ends = time.monotonic() - 1
    speed.measure(setting, record)
    assert len(failed(record)) == len(speed.FAMILIES)


@pytest.mark.slow
def test_folds_are_trained_killed_resumed_and_trained_at_once(
    setting: Setting, record: Record
) -> None:
    on_strict = replace(setting, device=STRICT)
    folds.train_fold(on_strict, record)
    folds.kill_and_resume(on_strict, record)
    folds.train_two_folds(on_strict, record)
    assert not failed(record)
    assert [row["fold"] for row in record.rows] == [0, 1, 2]
    assert "know no strict device" in record.notes[0]


def test_a_training_that_fails_is_reported_with_its_last_line(
    setting: Setting, record: Record
) -> None:
    with pytest.raises(HearbackError, match="status 3: no such luck"):
        folds.run(setting, "fold", ("-c", "print('no such luck'); raise SystemExit(3)"))
    with pytest.raises(HearbackError, match="the section that trains it has failed"):
        folds.kill_and_resume(setting, record)
