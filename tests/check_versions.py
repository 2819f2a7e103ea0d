"""Check the project in another environment: another Python, another torch. Prints a row of a table.

    python -m tests.check_versions --environment .venv-runtime
    python -m tests.check_versions --python python3.13 --torch 2.15.0
    python -m tests.check_versions --python python3.11 --torch 2.4.0 --packages oldest

With --python, an environment is built in a temporary folder and deleted at the end; its packages
are the newest that pyproject.toml allows (newest), its lower bounds (oldest), or those of
requirements.txt (pinned). Outside of macOS and Windows, PyPI's torch brings gigabytes of CUDA;
--index names PyTorch's index of builds for CPUs, where it can be reached.

In the environment, `check_imports` imports every module, `score.py` scores the embedded sample with
the shipped scorer, whose probabilities are compared with those of the environment that runs this
script, and pytest runs TESTS. Needs only the standard library, so that any python can run it;
without our packages, --sample names the folder of an earlier run.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEWEST = "newest"
N_CLIPS = 12
LARGEST_DIFFERENCE = 0.001  # of probabilities: kernels and resamplers differ in their last digits
# What depends on versions: tensors, audio, files, processes; then the same in whole steps. Not
# test_decode.py, whose recordings are written by newer libraries than the oldest we read with.
TESTS = (
    "tests/engine/test_audio_store.py",
    "tests/engine/test_checkpoint.py",
    "tests/engine/test_ctranslate2.py",
    "tests/engine/test_decoder.py",
    "tests/engine/test_devices.py",
    "tests/engine/test_encoder.py",
    "tests/engine/test_io.py",
    "tests/engine/test_locks.py",
    "tests/engine/test_log_mel.py",
    "tests/engine/test_precision.py",
    "tests/engine/test_token_logprobs.py",
    "tests/engine/phones/test_ctc.py",
    "tests/engine/phones/test_edits.py",
    "tests/reading/test_inference.py::test_the_submission_has_the_formats_rows_in_its_order",
    "tests/reading/test_inference.py::test_workers_change_no_prediction",
)
EXTRAS = ("voices", "formats")  # of pyproject.toml, which the tests need
STEPS = "tests/reading/test_scripts.py::test_the_five_steps_in_order"


def main() -> int:
    """Build or open the environment, run the checks, and print the row; return 1 on a failure."""
    arguments = _parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hearback-versions-"))
    try:
        python = _open_environment(arguments, folder)
        results = check(python, arguments.sample or folder / "sample", folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(as_row(results))
    return 0 if results["passed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--environment",
        type=Path,
        help="an environment, which is not changed: what it lacks is installed beside it",
    )
    which.add_argument("--python", help="the interpreter of a new environment")
    parser.add_argument("--torch", default=NEWEST, help="its version in a new environment")
    parser.add_argument("--packages", choices=(NEWEST, "oldest", "pinned"), default=NEWEST)
    parser.add_argument("--index", help="index of torch's builds, instead of PyPI")
    parser.add_argument("--sample", type=Path, help="keep the sample and its scores in this folder")
    return parser


def _open_environment(arguments: argparse.Namespace, folder: Path) -> Path:
    """Return the interpreter of a new environment, or of one on top of the given one."""
    if arguments.environment is None:
        torch = "torch" if arguments.torch == NEWEST else f"torch=={arguments.torch}"
        return build(arguments.python, torch, arguments.packages, arguments.index, folder)
    python = (arguments.environment / "bin" / "python").absolute()
    if not python.exists():
        raise SystemExit(f"{arguments.environment}: no environment, as there is no {python}")
    return build_on_top(python, folder)


def build_on_top(python: Path, folder: Path) -> Path:
    """Create an environment that has the packages of another one, and those that it lacks."""
    packages = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    inside = _create(str(python), folder)
    ours = _run([str(inside), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    Path(ours.strip(), "on_top.pth").write_text(packages, encoding="utf-8")
    versions = _run([str(inside), "-m", "pip", "freeze", "--exclude", "pip"]).splitlines()
    kept = "\n".join(line for line in versions if "==" in line)  # others are of a file
    _install(inside, ["pytest", *_dependencies()], kept, folder)
    return inside


def _create(python: str, folder: Path) -> Path:
    environment = folder / "environment"
    _run([python, "-m", "venv", str(environment)])
    return environment / "bin" / "python"


def _install(
    python: Path, packages: Sequence[str], constraints: str, folder: Path, *flags: str
) -> None:
    """Install packages; the constraints replace those of the machine's configuration."""
    path = folder / "constraints.txt"
    path.write_text(constraints, encoding="utf-8")
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", *flags]
    _run([*command, *packages], {"PIP_CONSTRAINT": str(path)})


def build(python: str, torch: str, packages: str, index: str | None, folder: Path) -> Path:
    """Create an environment in `folder` with our packages; return its interpreter."""
    inside = _create(python, folder)
    constraints = _constraints(packages)
    if index is not None:
        _install(inside, [torch], constraints, folder, "--index-url", index)
    _install(inside, [torch, "pytest", *_dependencies()], constraints, folder)
    return inside


def _dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]


def _constraints(packages: str) -> str:
    """Return pip's constraints; torch's version is chosen apart."""
    if packages == NEWEST:
        return ""
    if packages == "oldest":
        lines = [re.sub(r"(,.*)", "", each).replace(">=", "==") for each in _dependencies()]
    else:
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("torch=="))


def check(python: Path, sample: Path, folder: Path) -> dict[str, object]:
    """Run all checks; return their results by name, and whether all `passed`."""
    # Its status is 1 where a module cannot be imported: the row says which.
    facts = json.loads(_run([str(python), "-m", "tests.check_imports"], allowed=(0, 1)))
    _make_sample(sample)
    scores = folder / "scores.csv"
    _score(python, sample, scores)
    ours, theirs = _probabilities(sample / "scores.csv"), _probabilities(scores)
    if ours.keys() != theirs.keys():
        raise SystemExit(f"{python}: other recordings have a score than in {sample}/scores.csv")
    difference = max(abs(ours[name] - theirs[name]) for name in ours)
    n_passed, n_failed = _test(python, [*TESTS, STEPS])
    return {
        **facts,
        "n_scored": len(theirs),
        "difference": difference,
        "n_passed": n_passed,
        "n_failed": n_failed,
        "passed": difference <= LARGEST_DIFFERENCE and not n_failed and not facts["failed"],
    }


def _make_sample(folder: Path) -> None:
    """Write the sample, and its scores in this environment, unless they are there."""
    if (folder / "scores.csv").exists():
        return
    module = "hearback.reading.corpora.sample"
    sizes = ["--n_train", "4", "--n_test", str(N_CLIPS), "--speakers", "4"]
    _run([sys.executable, "-m", module, str(folder), *sizes])
    _score(Path(sys.executable), folder, folder / "scores.csv")


def _score(python: Path, sample: Path, out: Path) -> None:
    flags = ["--device", "cpu", "--precision", "float32", "--no_page", "--out", str(out)]
    _run([str(python), "score.py", str(sample / "test_metadata.csv"), *flags])


def _probabilities(path: Path) -> dict[str, float]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["filename"]: float(row["score"]) for row in csv.DictReader(file)}


def _test(python: Path, tests: Sequence[str]) -> tuple[int, int]:
    """Run tests; return how many passed, and how many failed or had an error."""
    flags = ["-m", "not gpu", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(
        [str(python), "-m", "pytest", *flags, *tests],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    n_failed = counts.get("failed", 0) + counts.get("error", 0)
    if done.returncode or n_failed:
        print(done.stdout, file=sys.stderr)
        n_failed = max(1, n_failed)
    return counts.get("passed", 0), n_failed


def _environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}


def _run(
    command: Sequence[str],
    settings: Mapping[str, str] | None = None,
    allowed: Sequence[int] = (0,),
) -> str:
    """Run a command in the project's folder; return its output, or end with its error."""
    done = subprocess.run(
        list(command),
        cwd=ROOT,
        env={**_environment(), **(settings or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in allowed:
        raise SystemExit(f"{' '.join(command)}: ended with status {done.returncode}\n{done.stdout}")
    return done.stdout


def as_row(results: Mapping[str, object]) -> str:
    """Return the results as a row of the table in docs/guide/where_it_runs.md."""
    packages = results["packages"]
    assert isinstance(packages, dict)
    others = ("numpy", "pandas", "scikit-learn", "transformers", "librosa")
    failed = results["failed"]
    modules = f"{results['n_modules']}"
    if failed:
        modules += f", **failed: {failed}**"
    tests = f"{results['n_passed']} passed"
    if results["n_failed"]:
        tests += f", **{results['n_failed']} failed**"
    cells = (
        str(results["python"]),
        str(packages["torch"]),
        ", ".join(str(packages[name]) for name in others),
        modules,
        f"{results['n_scored']}, {results['difference']:.4f}",
        tests,
        f"{datetime.now().date()}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
