"""submission.zip of any competition: all that its runtime needs, and nothing more.

    main.py              what the runtime runs
    <script>, packages   the modules that it imports, found by following its imports
    model_configs.json   the ensemble
    assets/              the folds that it runs, their metadata, and what they share
    VERSION              the commit, and which of the packed code is not that commit's

and what a competition adds. The same inputs make the same bytes: names in order, one time and mode
for all, weights stored, all else deflated (two machines agree where their zlib does). A file is
packed because the configuration, a metadata or an index names it, never because it lies in a folder.
"""

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from modulefinder import ModuleFinder
from pathlib import Path

from hearback.engine.data.paths import contained
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, sha256_of
from hearback.engine.project import ROOT, SHIPPED
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata

RUNTIME = SHIPPED / "requirements" / "runtime.txt"
# Packages whose modules have another name.
PACKAGE_OF_MODULE = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
STORED = (".safetensors",)  # random bits; deflating them takes minutes and gains nothing
TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
MODE = 0o644
GB = 1e9

Content = Path | bytes
Entries = dict[str, Content]  # by their names in the zip


class Faults(list[str]):
    """What stands in the way of packing, to be said all at once."""

    def raise_if_any(self) -> None:
        """Raise HearbackError with a line for each."""
        if self:
            raise HearbackError("\n".join(["nothing packed:", *(f"  {line}" for line in self)]))


def listed_packages(requirements: Path) -> dict[str, str]:
    """Return name -> version of a requirements file that pins all that it names."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines)
    return {pin[1].lower().replace("_", "-"): pin[2] for pin in pins if pin}


def find_code(
    scripts: Sequence[Path], project: Path, runtime: Iterable[str], faults: Faults
) -> dict[str, Path]:
    """Return the last of `scripts` and the project's modules that they import, by name.

    Imports count wherever they stand in a module. One of what is neither Python's, nor the
    project's, nor of the packages in `runtime` is a fault.
    """
    finder = ModuleFinder(path=[str(project)])
    for script in scripts:
        finder.run_script(str(script))
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    paths = {Path(file) for file in files if file is not None}
    has = set(runtime)
    missing, _ = finder.any_missing_maybe()
    for module in missing:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or PACKAGE_OF_MODULE.get(top, top) in has:
            continue
        importers = ", ".join(sorted(finder.badmodules[module])).replace(
            "__main__", scripts[-1].name
        )
        faults.append(
            f"{importers}: imports {module}, which is neither the project's nor in {RUNTIME.name}"
        )
    return {path.relative_to(project).as_posix(): path for path in sorted(paths)}


def find_folds(
    models: Sequence[ModelConfig],
    assets: Path,
    files_of: Callable[[FoldFiles], Iterable[Path]],
    faults: Faults,
) -> dict[str, Path]:
    """Return the files of the folds of some models, by their names in the zip.

    `files_of` returns those of a fold, and raises HearbackError where the runtime could not run it.
    """
    found: dict[str, Path] = {}
    for model in models:
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            try:
                found |= within(assets, "assets", files_of(files))
            except HearbackError as error:
                faults.append(str(error))
    return found


def check_weights(files: FoldFiles, fold_metadata: FoldMetadata, training_command: str) -> None:
    """Raise HearbackError where a fold's weights are not those that its metadata speaks of."""
    if not files.weights.is_file():
        raise HearbackError(
            f"{files.weights}: not there; copy it here, or train it with {training_command}"
        )
    if sha256_of(files.weights) != fold_metadata.get("sha256", {}).get("weights"):
        raise HearbackError(
            f"{files.weights}: not the file that {files.metadata.name} speaks of; copy both again, or "
            f"train the fold again with {training_command}"
        )


def within(folder: Path, name: str, paths: Iterable[Path]) -> dict[str, Path]:
    """Return paths in `folder` by their names in the zip's folder `name`.

    Raises HearbackError for a link that leads out of `folder`: what is packed is published.
    """
    found = {}
    for path in paths:
        inside = path.relative_to(folder).as_posix()
        if contained(folder, inside) is None:
            raise HearbackError(f"{path}: leads out of {folder}; copy the file there instead")
        found[f"{name}/{inside}"] = path
    return found


def lay_out(main: Path, code: Mapping[str, Path], config: Path) -> Entries:
    """Return what every zip has beside the folds: `main` is what the runtime runs."""
    return {
        "main.py": main,
        "model_configs.json": config,
        "VERSION": describe_commit(ROOT, [main, *code.values()]).encode(),
        **code,
    }


def describe_commit(project: Path, code: Iterable[Path]) -> str:
    """Return the commit, and the files of `code` that are not as it has them."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(project), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:  # there is no git
            return None
        return None if done.returncode else done.stdout.rstrip()

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return "commit unknown: packed outside of a git repository\n"
    names = [path.relative_to(project).as_posix() for path in code]
    changed = git("status", "--porcelain", "--untracked-files=all", "--", *names)
    lines = [f"commit {commit}"]
    if changed:
        lines += ["with changes that are not committed:", *changed.splitlines()]
    return "\n".join(lines) + "\n"


def write_zip(entries: Mapping[str, Content], path: Path) -> None:
    """Write a zip whose bytes follow from its entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries):
            content = entries[name]
            info = zipfile.ZipInfo(name, TIME)
            info.create_system = 3  # Unix, whatever this is
            info.external_attr = MODE << 16
            stored = name.endswith(STORED)
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            if isinstance(content, bytes):
                info.file_size = len(content)
                source = BytesIO(content)
            else:
                info.file_size = content.stat().st_size  # above 2 GiB the entry is laid out larger
                source = content.open("rb")  # type: ignore[assignment]
            with source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def describe_sizes(path: Path) -> str:
    """Return a line for each folder of a zip: its files, and what they take."""
    n_files, n_bytes = Counter[str](), Counter[str]()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            folder, slash, _ = info.filename.partition("/")
            kind = folder + slash if slash else "other files"
            n_files[kind] += 1
            n_bytes[kind] += info.compress_size
    return "\n".join(
        f"{kind:<12} {n_files[kind]:>6} files {n_bytes[kind] / 1e6:>10.1f} MB"
        for kind in sorted(n_files)
    )


def write_submission(
    entries: Mapping[str, Content], path: Path, limit_gb: float | None, cure: str
) -> None:
    """Write the zip and say what it holds; HearbackError, and no zip, where it is above the limit.

    `cure` says how it becomes smaller.
    """
    with atomic_write(path) as temporary:
        write_zip(entries, temporary)
        n_bytes = temporary.stat().st_size
        print(describe_sizes(temporary))
        if limit_gb is not None and n_bytes > limit_gb * GB:
            raise HearbackError(
                f"{path} would have {n_bytes / GB:.3f} GB, more than --limit_gb {limit_gb:g}: not "
                f"written. {cure}"
            )
    print(f"wrote {path}: {n_bytes / GB:.3f} GB")


def declare(parser: argparse.ArgumentParser, subfolder: str = "") -> None:
    """Declare the flags of any competition's packing but for the ensemble's file."""
    add = parser.add_argument
    folder = Path("assets", subfolder)
    add("--assets", type=Path, default=folder, help="folder of the trained folds")
    add("--submission", type=Path, default=Path("submission.zip"), help="to write")
    add("--limit_gb", type=float, help="write no larger zip (default: any size)")
