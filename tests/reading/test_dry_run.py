import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.submission import sandbox
from hearback.engine.submission.archive import write_zip
from hearback.engine.submission.sandbox import (
    GUARD,
    check_environment,
    listed_problems,
    run_dry_run,
)
from hearback.reading.submission import dry_run
from hearback.reading.submission.dry_run import ReadingDryRun, compare
from hearback.reading.submission.pack import PackingOptions, pack
from tests.helpers import tone
from tests.reading.inference_data import write_submission_data


@pytest.fixture
def options(make_corpus: Callable[..., Path], tokenizer: Path) -> PackingOptions:
    """Options to pack three folds and six references."""
    return write_submission_data(make_corpus(n_train=6), tokenizer)


@pytest.fixture
def guarded(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Run code under the guard; return its output and the log of refusals."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD.read_text())
    log = tmp_path / "refused.txt"

    def run(code: str) -> tuple[str, str]:
        environment = {
            "PYTHONPATH": str(tmp_path / "guard"),
            "HEARBACK_GUARD_LOG": str(log),
            "HEARBACK_GUARD_PROJECT": str(ROOT),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr, log.read_text() if log.exists() else ""

    return run


def test_the_guard_refuses_and_logs_a_connection(
    guarded: Callable[[str], tuple[str, str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        printed, refused = guarded(
            "import socket\n"
            "try:\n"
            f"    socket.create_connection(('127.0.0.1', {port}))\n"
            "except OSError as error: print('and it went on:', error)"
        )
    assert "and it went on: not in the competition's runtime" in printed
    assert refused.startswith("network: socket.")


def test_the_guard_refuses_a_server(
    guarded: Callable[[str], tuple[str, str]],
) -> None:
    printed, refused = guarded("import socket\nsocket.socket().bind(('0.0.0.0', 0))")
    assert "PermissionError" in printed
    assert refused.startswith("network: socket.bind ('0.0.0.0', 0)")


def test_the_guard_refuses_project_files_and_allows_the_rest(
    guarded: Callable[[str], tuple[str, str]],
) -> None:
    printed, refused = guarded(
        "import socket, json\n"
        "socket.socket(socket.AF_UNIX).bind('local')\n"
        "socket.socket().bind(('127.0.0.1', 0))\n"
        "open('mine', 'w').close()\n"
        "print('all well')"
    )
    assert (printed, refused) == ("all well\n", "")
    printed, refused = guarded(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import hearback.engine.errors"
    )
    assert "PermissionError" in printed
    assert refused.startswith(f"project: {ROOT / 'hearback'}")


def write_scores(path: Path, rows: list[tuple[str, object]]) -> Path:
    pd.DataFrame(rows, columns=["filename", "score"]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([("b", 0.2), ("a", 0.5)], None),
        ([("b", 0.20001), ("a", 0.5)], None),
        ([("a", 0.5), ("b", 0.2)], "line 2: ['a', '0.5'], not the score of b"),
        ([("b", 0.2)], "1 rows, not 2"),
        ([("b", 0.2), ("a", 0.5), ("c", 0.5)], "3 rows, not 2"),
        ([("b", 0.201), ("a", 0.5)], "line 2: b 0.201, here 0.2"),
        ([("b", ""), ("a", 0.5)], "line 2: '' is not a probability"),
        ([("b", 1.2), ("a", 0.5)], "line 2: '1.2' is not a probability"),
    ],
)
def test_a_submission_is_compared_row_by_row(
    rows: list[tuple[str, object]], fault: str | None, tmp_path: Path
) -> None:
    submission_format = write_scores(tmp_path / "format.csv", [("b", 0.0), ("a", 0.0)])
    expected = write_scores(tmp_path / "expected.csv", [("a", 0.5), ("b", 0.2)])
    faults, largest = compare(write_scores(tmp_path / "got.csv", rows), submission_format, expected)
    assert faults[:1] == ([fault] if fault else [])
    assert fault or largest < sandbox.TOLERANCE


def test_an_environment_of_other_packages_is_refused() -> None:
    with pytest.raises(HearbackError) as raised:
        check_environment(Path(sys.executable))
    assert "pytest" in str(raised.value)
    assert "where requirements/runtime.txt has none" in str(raised.value)
    with pytest.raises(HearbackError, match="make test-submission") as raised:
        check_environment(Path("no/python"))
    assert "no/python: No such file or directory" in str(raised.value)
    assert "Errno" not in str(raised.value)
    with pytest.raises(HearbackError, match="cannot list its packages: exit status 1"):
        check_environment(Path("/bin/false"))


def test_the_sandbox_has_unknown_texts_and_a_damaged_recording(
    make_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_corpus(n_test=12)
    index = (folder / "tts_data" / "data_paths.csv").read_bytes()
    entries = {"tts_data/data_paths.csv": index, "packages/hibari/__init__.py": b""}
    write_zip(entries, tmp_path / "a.zip")
    set_up = ReadingDryRun(tmp_path / "a.zip", folder / "data", 6).set_up(tmp_path / "sandbox")
    metadata = pd.read_csv(set_up.data / "test_metadata.csv")
    assert len(metadata) == 6
    assert tuple(metadata["expected_text"][:3]) == dry_run.UNKNOWN_TEXTS
    assert tuple(metadata["filename"][:3]) == set_up.unknown
    wanted = pd.read_csv(set_up.data / "submission_format.csv")
    assert list(wanted["filename"]) == list(metadata["filename"])[::-1]
    sizes = {path.name: path.stat().st_size for path in set_up.data.glob("*.wav")}
    assert [name for name, size in sizes.items() if size < 44] == [set_up.damaged]
    assert len(sizes) == 6
    with pytest.raises(HearbackError, match="too few"):
        small = make_corpus(n_test=3, folder=tmp_path / "small")
        ReadingDryRun(tmp_path / "a.zip", small / "data", 6).set_up(tmp_path / "again")


@pytest.mark.slow
def test_a_toy_submission_passes_a_dry_run(
    options: PackingOptions,
    make_corpus: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack(options)
    data = make_corpus(n_train=6, n_test=8) / "data"
    # One is converted, and one is not scored: its speech is after the window.
    write_wav(data / "test002.wav", tone(sample_rate=8_000), 8_000)
    late = np.concatenate([1e-3 * tone(seconds=17.0), tone(seconds=2.0)])
    write_wav(data / "test003.wav", late, 16_000)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    python = Path(sys.executable)
    rows, seconds = run_dry_run(ReadingDryRun(options.submission, data, 8), python, namespace=False)
    assert rows.startswith("8 rows in the order of the format, 0 with texts rendered")
    assert "its scores equal this environment's" in seconds


@pytest.mark.slow
def test_a_failed_scoring_leaves_base_rates_and_is_reported(
    options: PackingOptions,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with zipfile.ZipFile(pack(options)) as archive:
        assert "main.py" in archive.namelist()
    toy = ReadingDryRun(options.submission, options.config.parent / "data", 6)
    set_up = toy.set_up(tmp_path / "sandbox")
    (set_up.runtime / "assets" / "modeltok_1.safetensors").write_bytes(b"cut short")
    with pytest.raises(HearbackError, match=r"main\.py ended with status 2"):
        sandbox.run_main(set_up, Path(sys.executable), namespace=False)
    assert "scoring failed" in capfd.readouterr().err
    table = pd.read_csv(set_up.runtime / "submission.csv")
    wanted = pd.read_csv(set_up.data / "submission_format.csv")
    assert list(table["filename"]) == list(wanted["filename"])
    assert table["score"].between(0.01, 0.99).all()
    assert listed_problems(set_up.runtime / "submission_problems.csv") == set()
