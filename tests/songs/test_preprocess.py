"""Step 1 of the songs."""

from pathlib import Path

import numpy as np
import pytest

from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.songs.steps import preprocess
from tests.helpers import run_main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder of two good snippets."""
    data = tmp_path / "data"
    for seed, name in enumerate("ab"):
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 72_000)
        write_wav(data / "train" / f"{name}.wav", samples, 24_000)
    (data / "train_label.txt").write_text("a.wav,0\nb.wav,1\n")
    (data / "manifest.csv").write_text("file,singers,music\na.wav,,x\nb.wav,ann,x\n")
    return data


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    return run_main(preprocess.main, monkeypatch, folder, ("data", "store"), *flags)


def indices(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "store").glob("*.json"))


def test_by_default_all_features_without_separation(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path, monkeypatch) == 0
    names = ["train_none"] + [f"train_none_{name}" for name in sorted(preprocess.FEATURES)]
    assert indices(tmp_path) == names
    printed = capsys.readouterr().out
    assert "1 no voice, 1 male, 0 female, 0 several" in printed
    assert "none, mel_db_128: 2 snippets" in printed


def test_several_separations_and_one_kind_of_features(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--separate", "none", "repet", "--features", "log_mel_40", "--jobs", "1")
    assert run(tmp_path, monkeypatch, *flags) == 0
    names = ["train_none", "train_none_log_mel_40", "train_repet", "train_repet_log_mel_40"]
    assert indices(tmp_path) == names
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.*")}
    assert run(tmp_path, monkeypatch, *flags) == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.*")}
    assert before == after


def test_every_problem_is_reported_once_with_status_2(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (data / "train_label.txt").write_text("a.wav,0\nb.wav,7\nc.wav,1\n")
    assert run(tmp_path, monkeypatch) == 2
    printed = capsys.readouterr().err
    assert "3 errors" in printed
    assert printed.count("the class is '7'") == 1
    assert printed.count("the recording is missing") == 1
    assert printed.count("no row for the snippet in the manifest") == 1


def test_warnings_fail_only_with_strict(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(data / "train" / "a.wav", np.full(60_000, 0.5) * (-1) ** np.arange(60_000), 24_000)
    assert run(tmp_path, monkeypatch, "--features", "waveform") == 0
    assert run(tmp_path, monkeypatch, "--features", "waveform", "--strict") == 2


def test_without_data_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HearbackError, match=r"train_label\.txt"):
        run(tmp_path, monkeypatch)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "flags", [("--separate", "spleeter"), ("--features", "mfcc"), ("--jobs", "0")]
)
def test_invalid_flags_exit_with_status_2(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, monkeypatch, *flags)
    assert ended.value.code == 2
