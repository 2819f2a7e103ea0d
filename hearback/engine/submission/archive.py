"""submission.zip of any competition: the files that its runtime needs, and no others.

    main.py              the script that the runtime runs
    hearback/            the modules that it imports, found by following its imports
    model_configs.json   the ensemble
    assets/              the folds that it runs, their metadata, and the files that they share
    VERSION              the commit, and the packed modules that differ from it

A competition adds its own entries. Equal inputs give equal bytes with the same version of zlib:
names are sorted, all entries have the same time and mode, weights are stored and the rest is
deflated. A file is packed only if the configuration, metadata or an index names it, never because
it is in a folder.
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
from modulefinder import Module, ModuleFinder
from pathlib import Path
from typing import IO, Any, BinaryIO

from hearback import __version__
from hearback.engine import cli
from hearback.engine.data.paths import contained
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, sha256_of
from hearback.engine.project import PACKAGE, ROOT, SHIPPED
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata

RUNTIME_NAME = "requirements/runtime.txt"
RUNTIME = SHIPPED / RUNTIME_NAME
# Packages with another name than their module.
PACKAGE_OF_MODULE = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
STORED = (".safetensors",)  # incompressible; deflating takes minutes
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can store
MODE = 0o644
GB = 1e9

Content = Path | bytes
Entries = dict[str, Content]  # by their names in the zip


class Faults(list[str]):
    """Reasons not to pack, collected to be reported together."""

    def raise_if_any(self) -> None:
        """Raise HearbackError with a line for each fault, if there is one."""
        if self:
            raise HearbackError("\n".join(["nothing packed:", *(f"  {line}" for line in self)]))


def listed_packages(requirements: Path) -> dict[str, str]:
    """Return the pinned versions of a requirements file, by package name."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines)
    return {pin[1].lower().replace("_", "-"): pin[2] for pin in pins if pin}


class _PackageFinder(ModuleFinder):
    """Follows imports within one package; every other import is recorded as missing.

    An installed package is in the same folder as many other packages. These must not be packed, and
    whether the runtime has them is decided by its list.
    """

    def __init__(self, package: Path) -> None:
        super().__init__(path=[str(package.parent)])
        self._package = package.name

    def find_module(
        self, name: str, path: str | None, parent: Module | None = None
    ) -> tuple[IO[Any] | None, str | None, tuple[str, str, int]]:
        """Find a module of the package; raise ImportError for any other top-level module."""
        if path is None and name != self._package:
            raise ImportError(name)
        return super().find_module(name, path, parent)


def find_code(
    main: Path, runtime: Iterable[str], faults: Faults, package: Path = PACKAGE
) -> dict[str, Path]:
    """Return the modules of `package` that the script `main` imports, by their names in the zip.

    Imports inside functions count too. An import is a fault unless it belongs to the standard
    library, to `package` or to a package in `runtime`.
    """
    finder = _PackageFinder(package)
    finder.run_script(str(main))
    modules = [module for name, module in finder.modules.items() if name != "__main__"]
    files = [getattr(module, "__file__", None) for module in modules]
    available = set(runtime)
    missing, _ = finder.any_missing_maybe()
    for module in missing:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or PACKAGE_OF_MODULE.get(top, top) in available:
            continue
        importers = ", ".join(sorted(finder.badmodules[module])).replace("__main__", main.name)
        faults.append(
            f"{importers}: imports {module}, which is neither in {package.name} nor in "
            f"{RUNTIME_NAME}"
        )
    paths = sorted(Path(file) for file in files if file is not None)
    return {path.relative_to(package.parent).as_posix(): path for path in paths}


def find_folds(
    models: Sequence[ModelConfig],
    assets: Path,
    files_of: Callable[[FoldFiles], Iterable[Path]],
    faults: Faults,
) -> dict[str, Path]:
    """Return the files of the models' folds, by their names in the zip.

    `files_of` returns the files of one fold, and raises HearbackError if the runtime cannot run it.
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
    """Raise HearbackError if a fold's weights are missing or do not match their digest."""
    if not files.weights.is_file():
        raise HearbackError(
            f"{files.weights}: not there; copy it here, or train it with {training_command}"
        )
    if sha256_of(files.weights) != fold_metadata.get("sha256", {}).get("weights"):
        raise HearbackError(
            f"{files.weights}: its digest differs from the one in {files.metadata.name}; copy both "
            f"again, or train the fold again with {training_command}"
        )


def within(folder: Path, name: str, paths: Iterable[Path]) -> dict[str, Path]:
    """Return files of `folder` by their names in the zip, where the folder is called `name`.

    Raises HearbackError for a link that leads out of `folder`: packed files are published.
    """
    found = {}
    for path in paths:
        inside = path.relative_to(folder).as_posix()
        if contained(folder, inside) is None:
            raise HearbackError(f"{path}: leads out of {folder}; copy the file there instead")
        found[f"{name}/{inside}"] = path
    return found


def common_entries(main: Path, code: Mapping[str, Path], config: Path) -> Entries:
    """Return the entries of every zip except folds; `main` becomes main.py."""
    return {
        "main.py": main,
        "model_configs.json": config,
        "VERSION": describe_version([main, *code.values()]).encode(),
        **code,
    }


def describe_version(code: Iterable[Path]) -> str:
    """Return the version of the installed package, or the checkout's commit and changed files."""
    if SHIPPED != ROOT:
        return f"hearback {__version__}, installed\n"
    return describe_commit(ROOT, code)


def describe_commit(project: Path, code: Iterable[Path]) -> str:
    """Return the commit, and the files of `code` that differ from it."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(project), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:  # there is no git
            return None
        return None if done.returncode else done.stdout.rstrip()

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return "commit unknown: packed outside a git repository\n"
    names = [path.relative_to(project).as_posix() for path in code]
    changed = git("status", "--porcelain", "--untracked-files=all", "--", *names)
    lines = [f"commit {commit}"]
    if changed:
        lines += ["with uncommitted changes:", *changed.splitlines()]
    return "\n".join(lines) + "\n"


def write_zip(entries: Mapping[str, Content], path: Path) -> None:
    """Write a zip whose bytes depend only on its entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries):
            content = entries[name]
            info = zipfile.ZipInfo(name, TIME)
            info.create_system = 3  # Unix, on any system
            info.external_attr = MODE << 16
            stored = name.endswith(STORED)
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            # The size is needed in advance: above 2 GiB an entry has a larger header.
            if isinstance(content, bytes):
                info.file_size = len(content)
                source: BinaryIO = BytesIO(content)
            else:
                info.file_size = content.stat().st_size
                source = content.open("rb")
            with source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def describe_sizes(path: Path) -> str:
    """Return a line for each folder of a zip: the number and compressed size of its files."""
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
    """Write the zip and print its contents; above the limit write nothing, raise HearbackError.

    `cure` is advice on how to make it smaller, for the message.
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


def add_arguments(parser: argparse.ArgumentParser, subfolder: str = "") -> None:
    """Add the flags that packing has in every competition."""
    cli.add_folders(parser, {"assets": "folder of the trained folds"}, subfolder)
    add = parser.add_argument
    add("--submission", type=Path, default=Path("submission.zip"), help="zip to write")
    add("--limit_gb", type=float, help="write no zip larger than this (default: any size)")
