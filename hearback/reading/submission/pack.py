"""Pack submission.zip: everything that the competition's runtime needs to score data/.

    python -m hearback.reading.submission.pack --time_limit 2h

`hearback.engine.submission.archive` describes the layout: main.py (a copy of
hearback/reading/submission/main.py), the modules that infer.py imports, the ensemble and its folds
with the tokenizers that they share. It also contains

    infer_flags.json     flags that main.py passes to infer.py
    packages/            packages for normalizing texts, as unpacked wheels (compiled modules cannot
                         be imported from a zip)

and, if a model of the ensemble hears reference speech,

    tts_data/            the reference speech and its voice
    packages/            also packages for rendering unknown texts
"""

import fnmatch
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hearback.engine import cli
from hearback.engine.ensemble.budget import parse_duration
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.project import SHIPPED
from hearback.engine.submission.archive import (
    RUNTIME,
    Entries,
    Faults,
    add_arguments,
    check_weights,
    common_entries,
    find_code,
    find_folds,
    listed_packages,
    within,
    write_submission,
)
from hearback.engine.submission.carried import carried_packages
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata, shared_files
from hearback.engine.whisper.pretrained import HUB_FILES
from hearback.reading import FOLDERS, step_command
from hearback.reading.ensemble import EnsembleConfig, training_command
from hearback.reading.inference.time_limit import check_can_schedule
from hearback.reading.references import INDEX, References
from hearback.reading.references import VOICE as VOICE_FILE
from hearback.reading.voices.hibari import VOICE

MAIN = Path(__file__).with_name("main.py")
VOICE_WHEELS = SHIPPED / "requirements" / "voice.txt"
# What `hearback.reading.text_normalizer` needs; ftfy imports wcwidth.
CARRIED = ("ftfy", "num2words", "wcwidth")
PYTHON = "3.12"
PLATFORM = "manylinux_2_28_x86_64"


@dataclass(frozen=True)
class PackingOptions:
    """The command line's options."""

    assets: Path
    config: Path
    tts_data: Path
    wheels: Path
    submission: Path
    time_limit: str | None = None
    limit_gb: float | None = None


def pack(options: PackingOptions) -> Path:
    """Write the zip and return its path; HearbackError lists everything missing or wrong."""
    config = EnsembleConfig.load(options.config)
    faults = Faults()
    code = find_code(MAIN, (*listed_packages(RUNTIME), *CARRIED), faults)
    folds = find_folds(
        config.models_to_run,
        options.assets,
        lambda files: files_to_pack(files, config),
        faults,
    )
    hears = hears_reference(config, options.assets)
    references = find_references(config, options.tts_data, faults) if hears else {}
    flags = check_time_limit(config, options, faults)
    packages = carried_packages(CARRIED, faults)
    if not hears:
        print("no model hears reference speech: none is packed")
    elif why_not := why_no_wheels(config.voice or {}):
        print(
            f"WARNING: {why_not}, so the runtime cannot render texts: rows with a text that is not "
            f"in {options.tts_data} will get the base rate of their task"
        )
    elif not faults:  # a download may take a while
        packages |= unpack_wheels(get_wheels(VOICE_WHEELS, options.wheels))
    faults.raise_if_any()
    entries: Entries = {
        **common_entries(MAIN, code, options.config),
        "infer_flags.json": json.dumps(flags).encode(),
        **folds,
        **references,
        **packages,
    }
    command = f"{step_command('get_config')} --time_limit"
    cure = f"Run fewer folds: {command} chooses the most valuable ones"
    write_submission(entries, options.submission, options.limit_gb, cure)
    return options.submission


def hears_reference(config: EnsembleConfig, assets: Path) -> bool:
    """Return whether a model that the ensemble runs hears reference speech."""
    from hearback.reading.inference.folds import read_folds  # noqa: PLC0415  (imports torch)

    try:
        return any(fold.recipe.hears_reference for fold in read_folds(config, assets))
    except HearbackError:  # reported with the other faults of the folds
        return config.voice is not None


def check_time_limit(config: EnsembleConfig, options: PackingOptions, faults: Faults) -> list[str]:
    """Return infer.py's flags for the time limit; none without a limit."""
    if options.time_limit is None:
        return []
    try:
        parse_duration(options.time_limit)
        check_can_schedule(config)
    except ValueError as error:
        faults.append(f"--time_limit: {error}")
    except HearbackError as error:
        faults.append(f"{options.config}: {error}")
    return ["--time_limit", options.time_limit]


def files_to_pack(files: FoldFiles, config: EnsembleConfig) -> Iterator[Path]:
    """Return the files of a fold that infer.py reads, after loading it as the runtime will.

    Raises HearbackError if it cannot be loaded.
    """
    # Not for --help: it imports torch.
    from hearback.reading.models.load import load_scorer, read_runnable_metadata  # noqa: PLC0415

    fold_metadata = read_runnable_metadata(files, config.voice)
    check_weights(files, fold_metadata, training_command(files))
    load_scorer(files, fold_metadata)
    return files_of_fold(files, fold_metadata)


def files_of_fold(files: FoldFiles, fold_metadata: FoldMetadata) -> Iterator[Path]:
    """Yield the files of a fold that infer.py reads: weights, metadata, and shared files."""
    yield from (files.weights, files.metadata)
    for shared in shared_files(fold_metadata).values():
        place = files.assets / shared.name
        if not shared.is_directory:
            yield place
            continue
        for path in sorted(place.rglob("*")):
            name = path.relative_to(place).as_posix()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in HUB_FILES):
                yield path


def find_references(config: EnsembleConfig, folder: Path, faults: Faults) -> dict[str, Path]:
    """Return the paths of the references, their index and their voice, by name in the zip."""
    try:
        references = References(folder)
        if references.voice != config.voice:
            raise HearbackError(
                f"{folder}: its references are in another voice than the ensemble was trained "
                "with; set --tts_data to the folder that training used"
            )
        root = folder.resolve()
        recordings = (references.path(text) for text in references.texts)
        paths = [root / INDEX, root / VOICE_FILE, *recordings]
        return within(root, "tts_data", paths)
    except HearbackError as error:
        faults.append(str(error))
        return {}


def why_no_wheels(voice: Mapping[str, str | float | int]) -> str | None:
    """Return why the runtime cannot render this voice, or None if it can."""
    pinned = f"hibari-tts {listed_packages(VOICE_WHEELS)['hibari-tts']}"
    if voice.get("backend") != "hibari":
        return f"the voice is {voice.get('backend')}, which needs an environment of its own"
    if voice.get("voice") != VOICE:
        return f"hibari's wheel has no voice {voice.get('voice')}"
    if voice.get("package_version") != pinned:
        return (
            f"the references were rendered by {voice.get('package_version')}, but "
            f"requirements/{VOICE_WHEELS.name} has {pinned}"
        )
    return None


def get_wheels(requirements: Path, folder: Path) -> list[Path]:
    """Return the wheels that a requirements file pins by version and digest.

    Wheels missing from `folder` are downloaded into it. Raises HearbackError if that fails.
    """
    digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", requirements.read_text(encoding="utf-8"))
    if (wheels := _find_by_digest(folder, digests)) is None:
        pip = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--python-version", PYTHON, "--implementation", "cp", "--platform", PLATFORM),
            *("--only-binary", ":all:", "--no-deps", "--require-hashes"),
            *("--dest", str(folder), "--requirement", str(requirements)),
        ]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        wheels = _find_by_digest(folder, digests)
        if wheels is None:
            raise HearbackError(
                f"{folder} lacks wheels of {requirements.name}, and pip did not download them:\n"
                f"{done.stderr.strip()[-1000:]}\nWhere there is a network, run "
                f"`{' '.join(pip)}`, then copy {folder} here"
            )
    return wheels


def _find_by_digest(folder: Path, digests: list[str]) -> list[Path] | None:
    """Return the wheels in `folder` with these digests, or None if one is missing."""
    found = {sha256_of(path): path for path in sorted(folder.glob("*.whl"))}
    return [found[digest] for digest in digests] if found.keys() >= set(digests) else None


def unpack_wheels(wheels: Iterable[Path]) -> Entries:
    """Return the files in the wheels by their names in the zip."""
    files: Entries = {}
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            files |= {f"packages/{name}": wheel.read(name) for name in wheel.namelist()}
    return {name: content for name, content in files.items() if not name.endswith("/")}


def main() -> None:
    """Parse the command line and pack."""
    parser = cli.parser(__doc__)
    add_arguments(parser)
    add = parser.add_argument
    add("--config", type=Path, default=Path("model_configs.json"), help="the ensemble")
    cli.add_folders(parser, {"tts_data": FOLDERS["tts_data"]})
    add("--wheels", type=Path, default=Path("assets/wheels"), help="folder of downloaded wheels")
    add("--time_limit", metavar="DURATION", help="limit of infer.py, such as 1h50m (default: none)")
    pack(PackingOptions(**vars(parser.parse_args())))


if __name__ == "__main__":
    cli.run(main)
