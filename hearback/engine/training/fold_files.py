"""The files of a trained fold, and whether they are complete and current.

A finished fold has `<model>_<fold>.safetensors` (the weights that differ from the backbone's, fp16:
see `backbone_files`), `.oof.csv` (out-of-fold predictions), optional further tables such as
`.words.csv`, and `.json` (the fold metadata). The metadata is written last and holds the SHA-256 of
the others: a fold is done when its metadata exists and the digests match. A fold in training has a
`.checkpoint` instead. Folds may share files in the same folder, such as a tokenizer (`SharedFile`).
Reading any of them runs no code.
"""

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
from safetensors import SafetensorError

from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.io import cached_sha256, open_file, parse_json, sha256_of, write_json
from hearback.engine.locks import exclusive_lock
from hearback.engine.project import cache_folder
from hearback.engine.training.fold_archive import read_archive

# Functions that read or write weights import torch themselves: that takes seconds, and most steps
# only read metadata.
if TYPE_CHECKING:
    from torch import Tensor, nn

    from hearback.engine.training.backbone_files import PartTensors

FoldMetadata = dict[str, Any]
M = TypeVar("M", bound="nn.Module")
_COPY_AGAIN = "copy the file again, or train the fold again"


@dataclass(frozen=True)
class FoldFiles:
    """The paths of one fold's files in the folder `assets`."""

    assets: Path
    model: str
    fold: int

    def _path(self, suffix: str) -> Path:
        return self.assets / f"{self.model}_{self.fold}{suffix}"

    @property
    def weights(self) -> Path:
        """The fp16 weights of the best epoch, without those of the backbone's files."""
        return self._path(".safetensors")

    @property
    def metadata(self) -> Path:
        """The fold metadata: recipe, training history, digests."""
        return self._path(".json")

    @property
    def oof(self) -> Path:
        """The out-of-fold predictions of the best epoch."""
        return self.table("oof")

    def table(self, name: str) -> Path:
        """Return the path of a table of the best epoch."""
        return self._path(f".{name}.csv")

    @property
    def checkpoint(self) -> Path:
        """The state of an unfinished training."""
        return self._path(".checkpoint")

    def read(self, path: Path) -> bytes:
        """Read one of these files, from the folder or else from its `fold_archive`.

        Raises OSError if it is in neither.
        """
        try:
            with open_file(path) as file:
                return file.read()
        except FileNotFoundError:
            archived = read_archive(self.assets)
            if path.name not in archived:
                raise
            return archived[path.name]


@dataclass(frozen=True)
class SharedFile:
    """A file or directory in the assets that folds share.

    In the fold metadata it is an object with `file` or `directory`, its name, and `sha256`, the
    digest of the file, or of the directory's main file.
    """

    name: str
    sha256: str
    is_directory: bool


def shared_files(fold_metadata: FoldMetadata) -> dict[str, SharedFile]:
    """Return the shared files that a fold needs, by their keys in the metadata."""
    return {
        key: SharedFile(value[kind], value["sha256"], kind == "directory")
        for key, value in fold_metadata.items()
        for kind in ("file", "directory")
        if isinstance(value, dict) and kind in value
    }


@dataclass(frozen=True)
class TrainedFold:
    """A trained fold; `model` is the index of its model in the ensemble."""

    model: int
    files: FoldFiles
    metadata: FoldMetadata


@contextmanager
def lock_fold(files: FoldFiles) -> Iterator[None]:
    """Lock a fold against training by other processes; the system frees a killed process's lock.

    Raises HearbackError if another process holds the lock.
    """
    path = files.assets / f".{files.model}_{files.fold}.lock"
    cure = "a training writes there: choose a writable folder with --assets"
    busy = (
        f"another process trains {files.model} fold {files.fold}; wait for it, or stop it: its "
        "checkpoint is kept"
    )
    with exclusive_lock(path, cure, busy):
        yield


def save_fold(
    files: FoldFiles,
    weights: "Mapping[str, Tensor]",
    oof: pd.DataFrame,
    fold_metadata: Mapping[str, Any],
    further_tables: Mapping[str, pd.DataFrame] | None = None,
    *,
    backbone: "PartTensors | None" = None,
) -> FoldMetadata:
    """Write a finished fold, the metadata last, and remove its checkpoint; return the metadata.

    `oof` are the out-of-fold predictions, `further_tables` other tables by name, `backbone` the
    pretrained tensors by part: those that the fold did not change are kept in files of their own.
    """
    from hearback.engine.training.backbone_files import share_unchanged  # noqa: PLC0415
    from hearback.engine.training.checkpoint import save_tensors, to_fp16  # noqa: PLC0415

    own, parts = share_unchanged(to_fp16(weights), backbone or {}, files.assets)
    half = {name: tensor.contiguous() for name, tensor in own.items()}
    tables = {"oof": oof, **(further_tables or {})}
    # Delete old metadata first: it must not validate new files.
    files.metadata.unlink(missing_ok=True)
    save_tensors(files.weights, half)
    digests = {"weights": sha256_of(files.weights)}
    for earlier in files.assets.glob(f"{glob.escape(files.weights.stem)}.*.csv"):
        earlier.unlink()
    for name, table in tables.items():
        write_table(table, files.table(name))
        digests[name] = sha256_of(files.table(name))
    complete = {**fold_metadata, **parts, "sha256": digests}
    write_json(files.metadata, complete)
    files.checkpoint.unlink(missing_ok=True)
    return complete


def read_fold_metadata(files: FoldFiles) -> FoldMetadata:
    """Read a finished fold's metadata; raise HearbackError if it is missing or damaged."""
    try:
        fold_metadata = parse_json(files.read(files.metadata))
    except FileNotFoundError:
        raise HearbackError(
            f"{files.metadata}: missing; train {files.model} fold {files.fold}"
        ) from None
    except (OSError, ValueError) as error:
        raise HearbackError(
            f"{files.metadata}: not readable JSON ({error}); delete it and train the fold again"
        ) from None
    if error_found := _find_error(fold_metadata):
        raise HearbackError(f"{files.metadata}: {error_found}; delete it and train the fold again")
    return fold_metadata


def _find_error(fold_metadata: object) -> str | None:
    """Return the error in a JSON value that should be a fold's metadata, or None."""
    if not isinstance(fold_metadata, dict):
        return "not the metadata of a fold"
    for name in ("recipe", "shape", "sha256"):
        if not isinstance(fold_metadata.get(name) or {}, dict):  # null: a baseline has none
            return f"its {name} is {str(fold_metadata[name])[:80]!r}"
    for name, value in fold_metadata.items():
        for kind in ("file", "directory"):
            if isinstance(value, dict) and kind in value:
                shared, digest = value[kind], value.get("sha256")
                are_texts = isinstance(shared, str) and isinstance(digest, str)
                # A bare name is in the assets; a path could lead out of them.
                if not are_texts or Path(shared).name != shared or shared == "..":
                    return f"its {name[:80]} is not a {kind} beside it with a digest"
    for name in fold_metadata.get("sha256") or {}:
        if re.fullmatch(r"[a-z_]+", name) is None:
            return f"it has a digest of {name[:80]!r}, not of a fold's file"
    return None


def sibling_metadata(files: FoldFiles, run_key: Mapping[str, Any]) -> dict[int, FoldMetadata]:
    """Return the metadata of the model's other finished folds with the same `run_key`, by fold.

    Only the metadata is read; the other files are not checked. Raises HearbackError for damaged
    metadata.
    """
    metadata_by_fold = {}
    for fold in range(run_key["n_folds"]):
        sibling = FoldFiles(files.assets, files.model, fold)
        if fold == files.fold or not sibling.metadata.exists():
            continue
        fold_metadata = read_fold_metadata(sibling)
        if _has_run_key(fold_metadata, run_key):
            metadata_by_fold[fold] = fold_metadata
    return metadata_by_fold


def checkpoint_attempts(files: FoldFiles, run_key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the earlier attempts in a checkpoint with the same `run_key`.

    Raises HearbackError for a damaged checkpoint.
    """
    from hearback.engine.training.checkpoint import read_notes  # noqa: PLC0415

    notes = read_notes(files.checkpoint) if files.checkpoint.exists() else {}
    return notes.get("attempts", []) if _has_run_key(notes.get("run_key", {}), run_key) else []


def finished_attempts(files: FoldFiles, run_key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the attempts in the metadata of a finished fold with the same `run_key`."""
    fold_metadata = read_fold_metadata(files) if files.metadata.exists() else {}
    return fold_metadata.get("attempts", []) if _has_run_key(fold_metadata, run_key) else []


def _has_run_key(values: Mapping[str, Any], run_key: Mapping[str, Any]) -> bool:
    return all(values.get(name) == value for name, value in run_key.items())


def why_not_done(
    files: FoldFiles,
    run_key: Mapping[str, Any],
    digest_of: Callable[[Path], str] = sha256_of,
) -> str | None:
    """Return the reason to train the fold, or None if it is done.

    `run_key` is the current one (`FoldOptions.run_key`), to compare with the metadata. `digest_of`
    returns a file's SHA-256 (`DigestCache.sha256` caches it).
    """
    if not files.metadata.exists():
        return "unfinished" if files.checkpoint.exists() else "not trained"
    try:
        fold_metadata = read_fold_metadata(files)
    except HearbackError as error:
        return str(error)
    changed = [name for name, value in run_key.items() if fold_metadata.get(name) != value]
    if "recipe" in changed:
        old, new = fold_metadata.get("recipe") or {}, run_key["recipe"]
        fields = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return f"its recipe changed since ({', '.join(fields)})"
    if changed:
        return f"trained with another {', '.join(changed).replace('_', ' ')}"
    return _find_mismatch(files, fold_metadata, digest_of)


def _find_mismatch(
    files: FoldFiles, fold_metadata: FoldMetadata, digest_of: Callable[[Path], str]
) -> str | None:
    """Return an error if a file is missing or does not match its digest, else None."""
    digests = fold_metadata.get("sha256") or {}
    if "oof" not in digests:
        return "its metadata has no digests of its files"
    expected = [
        (files.weights if name == "weights" else files.table(name), digest)
        for name, digest in digests.items()
    ]
    expected += [
        (files.assets / shared.name, shared.sha256)
        for shared in shared_files(fold_metadata).values()
        if not shared.is_directory
    ]
    for path, digest in expected:
        if not path.exists():
            return f"{path.name} is missing"
        if digest_of(path) != digest:
            return f"{path.name} does not match the digest in its metadata"
    return None


def check_version(
    files: FoldFiles, fold_metadata: FoldMetadata, keys: Sequence[str] = ("recipe", "shape")
) -> None:
    """Raise HearbackError if metadata lacks `keys`, which building the model needs."""
    missing = [key for key in keys if key not in fold_metadata]
    missing += [key for key in ("recipe", "shape") if fold_metadata.get(key, {}) is None]
    if missing:
        raise HearbackError(
            f"{files.metadata}: lacks {', '.join(missing)}, as in older versions; train the fold "
            "again"
        )


def build_and_load(
    files: FoldFiles, fold_metadata: FoldMetadata, build_model: Callable[[], M]
) -> M:
    """Build a finished fold's model and load its weights; return it in evaluation mode.

    Raises HearbackError if no model can be built from the metadata, or the weights do not fit it.
    """
    from safetensors.torch import load_file  # noqa: PLC0415

    from hearback.engine.training.backbone_files import (  # noqa: PLC0415
        read_unchanged,
        shared_parts,
    )

    shared = shared_files(fold_metadata)
    parts = {part: find_shared(files, shared[part]) for part in shared_parts(shared)}
    paths = [files.weights, *parts.values()]
    n_bytes = sum(path.stat().st_size for path in paths if path.exists())
    # Sizes in metadata are never trusted for allocation.
    if n_bytes < _min_bytes(fold_metadata["shape"]):
        what = f"{n_bytes} bytes, too few for the sizes in {files.metadata.name}"
        raise HearbackError(f"{files.weights}: not this model's weights ({what}); {_COPY_AGAIN}")
    try:
        model = build_model()
    except (*_BUILD_ERRORS, HearbackError) as error:
        raise HearbackError(f"{files.metadata}: no model can be built from it ({error})") from None
    try:
        open_file(files.weights).close()  # refuses a pipe, which would block load_file forever
        tensors = load_file(files.weights)
        tensors |= read_unchanged(parts, tensors, model.state_dict())
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise HearbackError(
            f"{files.weights}: not this model's weights ({error}); {_COPY_AGAIN}"
        ) from None
    return model.eval()


def find_shared(files: FoldFiles, shared: SharedFile) -> Path:
    """Return a file that a fold needs: beside the fold, else in the cache folder.

    Raises HearbackError if it is missing, or another file of that name.
    """
    places = (files.assets, cache_folder())
    path = next((p for p in (folder / shared.name for folder in places) if p.is_file()), None)
    if path is None:
        raise HearbackError(
            f"{files.assets / shared.name}: missing; {files.metadata.name} needs it: copy it from "
            "the folder that the fold was trained in"
        )
    if cached_sha256(path) != shared.sha256:
        raise HearbackError(
            f"{path}: not the file that {files.metadata.name} was trained with; copy it from the "
            "folder that the fold was trained in"
        )
    return path


# Errors of building a model from damaged metadata.
_BUILD_ERRORS = (
    OSError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)


def _min_bytes(shape: Mapping[str, Any]) -> int:
    """Return the fp16 size of the largest matrix of a model of this shape, in bytes; 0 if unknown.

    Every model has more weights than that. `d_model` is the width of a transformer.
    """
    try:
        sizes = [size for size in shape.values() if isinstance(size, int)]
        return 2 * int(shape["d_model"]) * max(sizes)
    except (KeyError, TypeError, ValueError):
        return 0  # building the model reports the error
