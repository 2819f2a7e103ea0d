"""submission.zip: all that the competition's runtime needs to score data/, and nothing more.

    python -m hearback.submission --time_limit 2h

    main.py              what the runtime runs (hearback/submission_main.py)
    infer.py, hearback/  the modules that infer.py imports, found by following its imports
    infer_flags.json     flags that main.py passes to infer.py
    model_configs.json   the ensemble
    assets/              the folds that it runs, their stories, and the tokenizers they share
    tts_data/            the references, and whose voice they are
    packages/            what rendering an unknown text needs: wheels, unpacked, as compiled parts
                         cannot be imported from a zip
    VERSION              the commit, and which of the packed code is not that commit's

The same inputs make the same bytes: names in order, one time and mode for all, weights stored, all
else deflated (two machines agree where their zlib does). A file is packed because the
configuration, a story or an index names it, never because it lies in a folder.
"""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from modulefinder import ModuleFinder
from pathlib import Path

from hearback import cli
from hearback.backbones import HUB_FILES
from hearback.budget import parse_duration
from hearback.checkpoint import (
    FoldFiles,
    Story,
    load_scorer,
    read_runnable_story,
    training_command,
)
from hearback.deadline import check_can_choose
from hearback.ensemble import EnsembleConfig
from hearback.errors import HearbackError
from hearback.files import sha256_of, whole_file
from hearback.references import INDEX, References
from hearback.references import VOICE as VOICE_FILE
from hearback.tables import contained
from hearback.voices.hibari import VOICE

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = "infer.py"
MAIN = Path(__file__).with_name("submission_main.py")
RUNTIME = PROJECT / "requirements-runtime.txt"
VOICE_WHEELS = PROJECT / "requirements-voice.txt"
PYTHON = "3.12"
PLATFORM = "manylinux_2_28_x86_64"
# Packages whose modules have another name.
PACKAGE_OF_MODULE = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
STORED = (".safetensors",)  # random bits; deflating them takes minutes and gains nothing
TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
MODE = 0o644
GB = 1e9

Content = Path | bytes
Entries = dict[str, Content]  # by their names in the zip


@dataclass(frozen=True)
class PackingOptions:
    """What the command line says."""

    assets: Path
    config: Path
    tts_data: Path
    wheels: Path
    submission: Path
    time_limit: str | None = None
    limit_gb: float | None = None


class Faults(list[str]):
    """What stands in the way of packing, to be said all at once."""

    def raise_if_any(self) -> None:
        """Raise HearbackError with a line for each."""
        if self:
            raise HearbackError("\n".join(["nothing packed:", *(f"  {line}" for line in self)]))


def pack(options: PackingOptions) -> Path:
    """Write the zip and return its path; HearbackError says all that is missing or wrong."""
    config = EnsembleConfig.load(options.config)
    faults = Faults()
    code = find_code(PROJECT / SCRIPT, PROJECT, listed_packages(RUNTIME), faults)
    folds = find_folds(config, options.assets, faults)
    references = find_references(config, options.tts_data, faults)
    flags = check_time_limit(config, options, faults)
    packages: Entries = {}
    if why_not := why_no_wheels(config.voice):
        print(
            f"WARNING: {why_not}, so the runtime can render no text: rows whose text is not among "
            f"those of {options.tts_data} will get the base rate of their task"
        )
    elif not faults:  # bringing wheels may take a while
        packages = unpack_wheels(bring_wheels(VOICE_WHEELS, options.wheels))
    faults.raise_if_any()
    entries: Entries = {
        "main.py": MAIN,
        "infer_flags.json": json.dumps(flags).encode(),
        "model_configs.json": options.config,
        "VERSION": describe_commit(PROJECT, [MAIN, *code.values()]).encode(),
        **code,
        **folds,
        **references,
        **packages,
    }
    with whole_file(options.submission) as temporary:
        write_zip(entries, temporary)
        n_bytes = temporary.stat().st_size
        print(describe_sizes(temporary))
        if options.limit_gb is not None and n_bytes > options.limit_gb * GB:
            raise HearbackError(
                f"{options.submission} would have {n_bytes / GB:.3f} GB, more than --limit_gb "
                f"{options.limit_gb:g}: not written. Run fewer folds: python get_config.py "
                "--time_limit chooses those that are worth most"
            )
    print(f"wrote {options.submission}: {n_bytes / GB:.3f} GB")
    return options.submission


def check_time_limit(config: EnsembleConfig, options: PackingOptions, faults: Faults) -> list[str]:
    """Return infer.py's flags for the time limit; none where there is no limit."""
    if options.time_limit is None:
        return []
    try:
        parse_duration(options.time_limit)
        check_can_choose(config)
    except ValueError as error:
        faults.append(f"--time_limit: {error}")
    except HearbackError as error:
        faults.append(f"{options.config}: {error}")
    return ["--time_limit", options.time_limit]


def listed_packages(requirements: Path) -> dict[str, str]:
    """Return name -> version of a requirements file that pins all that it names."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    pins = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines)
    return {pin[1].lower().replace("_", "-"): pin[2] for pin in pins if pin}


def find_code(
    script: Path, project: Path, runtime: Iterable[str], faults: Faults
) -> dict[str, Path]:
    """Return the script and the project's modules that it imports, anywhere in them, by name.

    An import of what is neither Python's, nor the project's, nor of the packages in `runtime` is a
    fault.
    """
    finder = ModuleFinder(path=[str(project)])
    finder.run_script(str(script))
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    paths = {Path(file) for file in files if file is not None}
    has = set(runtime)
    missing, _ = finder.any_missing_maybe()
    for module in missing:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or PACKAGE_OF_MODULE.get(top, top) in has:
            continue
        importers = ", ".join(sorted(finder.badmodules[module])).replace("__main__", script.name)
        faults.append(
            f"{importers}: imports {module}, which is neither the project's nor in {RUNTIME.name}"
        )
    return {path.relative_to(project).as_posix(): path for path in sorted(paths)}


def find_folds(config: EnsembleConfig, assets: Path, faults: Faults) -> dict[str, Path]:
    """Return the files of the folds that the ensemble runs, by their names in the zip.

    Every fold is loaded as the runtime will load it.
    """
    found: dict[str, Path] = {}
    for model in config.models_to_run:
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            try:
                story = _checked_story(files, config)
                found |= _within(assets, "assets", files_of_fold(files, story))
            except HearbackError as error:
                faults.append(str(error))
    return found


def _checked_story(files: FoldFiles, config: EnsembleConfig) -> Story:
    story = read_runnable_story(files, config.voice)
    if not files.weights.is_file():
        raise HearbackError(
            f"{files.weights}: not there; copy it here, or train it with {training_command(files)}"
        )
    if sha256_of(files.weights) != story.get("sha256", {}).get("weights"):
        raise HearbackError(
            f"{files.weights}: not the file that {files.story.name} speaks of; copy both again, or "
            f"train the fold again with {training_command(files)}"
        )
    load_scorer(files, story)
    return story


def files_of_fold(files: FoldFiles, story: Story) -> Iterator[Path]:
    """Yield what infer.py reads of a fold: weights, story, and what it shares with others."""
    yield from (files.weights, files.story)
    if tokenizer := story["tokenizer"]:
        yield files.assets / tokenizer["file"]
    if embedder := story.get("text_embedder"):
        folder = files.assets / embedder["directory"]
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in HUB_FILES):
                yield path


def _within(folder: Path, name: str, paths: Iterable[Path]) -> dict[str, Path]:
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


def find_references(config: EnsembleConfig, folder: Path, faults: Faults) -> dict[str, Path]:
    """Return the references, their index and their voice, by their names in the zip."""
    try:
        references = References(folder)
        if references.voice != config.voice:
            raise HearbackError(
                f"{folder}: another voice's references than the ensemble was trained with; give "
                "the folder of the training, --tts_data"
            )
        root = folder.resolve()
        recordings = (references.path(text) for text in references.texts)
        paths = [root / INDEX, root / VOICE_FILE, *recordings]
        return _within(root, "tts_data", paths)
    except HearbackError as error:
        faults.append(str(error))
        return {}


def why_no_wheels(voice: Mapping[str, str | float | int]) -> str | None:
    """Return why no wheels make this voice speak in the runtime, or None where they do."""
    pinned = f"hibari-tts {listed_packages(VOICE_WHEELS)['hibari-tts']}"
    if voice.get("backend") != "hibari":
        return f"the voice is {voice.get('backend')}, which needs an environment of its own"
    if voice.get("voice") != VOICE:
        return f"hibari's wheel has no voice {voice.get('voice')}"
    if voice.get("package_version") != pinned:
        return (
            f"the references are {voice.get('package_version')}'s, and the wheel in "
            f"{VOICE_WHEELS.name} is {pinned}'s"
        )
    return None


def bring_wheels(requirements: Path, folder: Path) -> list[Path]:
    """Return the wheels that a requirements file names by version and digest.

    Those that do not lie in `folder` yet are downloaded to it. Raises HearbackError where pip does
    not give one.
    """
    digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", requirements.read_text(encoding="utf-8"))
    if (there := _by_digest(folder, digests)) is None:
        pip = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--python-version", PYTHON, "--implementation", "cp", "--platform", PLATFORM),
            *("--only-binary", ":all:", "--no-deps", "--require-hashes"),
            *("--dest", str(folder), "--requirement", str(requirements)),
        ]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        there = _by_digest(folder, digests)
        if there is None:
            raise HearbackError(
                f"{folder} lacks wheels of {requirements.name}, and pip did not bring them:\n"
                f"{done.stderr.strip()[-1000:]}\nWhere there is a network, run "
                f"`{' '.join(pip)}`, then copy {folder} here"
            )
    return there


def _by_digest(folder: Path, digests: list[str]) -> list[Path] | None:
    """Return the wheels in `folder` with these digests, or None where one is not there."""
    there = {sha256_of(path): path for path in sorted(folder.glob("*.whl"))}
    return [there[digest] for digest in digests] if there.keys() >= set(digests) else None


def unpack_wheels(wheels: Iterable[Path]) -> Entries:
    """Return the wheels' files by their names in the zip."""
    files: Entries = {}
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            files |= {f"packages/{name}": wheel.read(name) for name in wheel.namelist()}
    return {name: content for name, content in files.items() if not name.endswith("/")}


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


def main() -> None:
    """Parse and pack."""
    parser = cli.parser("Pack submission.zip, which scores data/ in the competition's runtime.")
    add = parser.add_argument
    add("--assets", type=Path, default=Path("assets"), help="folder of the trained folds")
    add("--config", type=Path, default=Path("model_configs.json"), help="the ensemble")
    add("--tts_data", type=Path, default=Path("tts_data"), help="folder of the reference speech")
    add("--wheels", type=Path, default=Path("assets/wheels"), help="folder of downloaded wheels")
    add("--submission", type=Path, default=Path("submission.zip"), help="to write")
    add("--time_limit", metavar="DURATION", help="infer.py's there, such as 1h50m (default: none)")
    add("--limit_gb", type=float, help="write no larger zip (default: any size)")
    pack(PackingOptions(**vars(parser.parse_args())))


if __name__ == "__main__":
    cli.run(main)
