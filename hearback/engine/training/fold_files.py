"""A fold's weights and their metadata, to disk and back.

A fold that is done is three files: `<model>_<fold>.safetensors` (weights, fp16), `.oof.csv`
(filename, score, pred) and `.json` (the metadata), written in this order; of a model that scores words
four, with `.words.csv` (`hearback.reading.words`) before the metadata. The metadata holds the digests of the
others, so a fold is done when its metadata is there and they fit it. A fold under way has one file,
`.partial`, replaced after every epoch and in between. Models that read texts share one more, their
backbone's `tokenizer_<digest>.json`. None of them can run code when it is read.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.io import open_file, read_json, sha256_of, write_json
from hearback.engine.training.checkpoint import _save_tensors, in_half, read_notes

FoldMetadata = dict[str, Any]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class FoldFiles:
    """Where one fold of one model lies."""

    assets: Path
    model: str
    fold: int

    def _path(self, suffix: str) -> Path:
        return self.assets / f"{self.model}_{self.fold}{suffix}"

    @property
    def weights(self) -> Path:
        """The fp16 weights of the best epoch."""
        return self._path(".safetensors")

    @property
    def metadata(self) -> Path:
        """The recipe, the history and the fingerprints."""
        return self._path(".json")

    @property
    def oof(self) -> Path:
        """The out-of-fold predictions of the best epoch."""
        return self._path(".oof.csv")

    @property
    def words(self) -> Path:
        """The out-of-fold word scores of the best epoch, where the model has them."""
        return self._path(".words.csv")

    @property
    def partial(self) -> Path:
        """The state of a training under way."""
        return self._path(".partial")


@dataclass(frozen=True)
class TrainedFold:
    """A fold of one of an ensemble's models, the `model`-th, and the files and metadata it is in."""

    model: int
    files: FoldFiles
    metadata: FoldMetadata


@contextmanager
def only_trainer(files: FoldFiles) -> Iterator[None]:
    """Let no other process train the same fold meanwhile: the two would overwrite each other.

    The system releases the lock of a process that is killed. Raises HearbackError where there is
    such another process.
    """
    files.assets.mkdir(parents=True, exist_ok=True)
    path = files.assets / f".{files.model}_{files.fold}.lock"
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise HearbackError(
            f"{path}: another process trains {files.model} fold {files.fold}; wait for it, or stop "
            "it: what it has done is kept"
        ) from None
    with lock:
        yield


def save_fold(
    files: FoldFiles,
    weights: Mapping[str, Tensor],
    oof: pd.DataFrame,
    fold_metadata: Mapping[str, Any],
    words: pd.DataFrame | None = None,
) -> None:
    """Write a finished fold, the metadata last, and remove what was kept of its way there.

    `oof` are the out-of-fold predictions, `words` the word scores of a model that has them.
    """
    half = {name: tensor.contiguous() for name, tensor in in_half(weights).items()}
    # Until the new metadata stands, the old one must not vouch for the new files.
    files.metadata.unlink(missing_ok=True)
    _save_tensors(files.weights, half)
    write_table(oof, files.oof)
    digests = {"weights": sha256_of(files.weights), "oof": sha256_of(files.oof)}
    files.words.unlink(missing_ok=True)  # an earlier training's, which may have had some
    if words is not None:
        write_table(words, files.words)
        digests["words"] = sha256_of(files.words)
    write_json(files.metadata, {**fold_metadata, "sha256": digests})
    files.partial.unlink(missing_ok=True)


def read_fold_metadata(files: FoldFiles) -> FoldMetadata:
    """Read a finished fold's metadata, or raise HearbackError saying how to make one."""
    try:
        fold_metadata = read_json(files.metadata)
    except FileNotFoundError:
        raise HearbackError(
            f"{files.metadata}: not there; train {files.model} fold {files.fold}"
        ) from None
    except (OSError, ValueError) as error:
        raise HearbackError(
            f"{files.metadata}: not readable JSON ({error}); delete it and train the fold again"
        ) from None
    if fault := _fault(fold_metadata):
        raise HearbackError(f"{files.metadata}: {fault}; delete it and train the fold again")
    return fold_metadata


def _fault(fold_metadata: Any) -> str | None:  # noqa: ANN401  (whatever a file holds)
    """Return what no training would write in a metadata, or None."""
    if not isinstance(fold_metadata, dict):
        return "not a metadata"
    for name in ("recipe", "shape", "tokenizer", "text_embedder", "sha256"):
        if not isinstance(fold_metadata.get(name) or {}, dict):
            return f"its {name} is {str(fold_metadata[name])[:80]!r}"
    # What it names lies beside it: a path would lead out of the assets.
    for name, place in (("tokenizer", "file"), ("text_embedder", "directory")):
        if kept := fold_metadata.get(name):
            named, digest = kept.get(place), kept.get("sha256")
            texts = isinstance(named, str) and isinstance(digest, str)
            if not texts or Path(named).name != named or named == "..":
                return f"it names no {name} beside it"
    if not set(fold_metadata.get("sha256") or {}) <= {"weights", "oof", "words"}:
        return "it has digests of files that no fold has"
    return None


def sibling_metadata(files: FoldFiles, run_key: Mapping[str, Any]) -> dict[int, FoldMetadata]:
    """Return the metadata of the model's other finished folds that are of the same training.

    `run_key` is `why_not_done`'s. The files that the metadata speak of are not looked at.
    """
    metadata_by_fold = {}
    for fold in range(run_key["n_folds"]):
        other = FoldFiles(files.assets, files.model, fold)
        if fold == files.fold or not other.metadata.exists():
            continue
        fold_metadata = read_fold_metadata(other)
        if _is_of(fold_metadata, run_key):
            metadata_by_fold[fold] = fold_metadata
    return metadata_by_fold


def attempts_under_way(files: FoldFiles, run_key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the earlier attempts that a training under way remembers; none of another training.

    Raises HearbackError where its file is not whole.
    """
    notes = read_notes(files.partial) if files.partial.exists() else {}
    return notes.get("attempts", []) if _is_of(notes.get("run_key", {}), run_key) else []


def finished_attempts(files: FoldFiles, run_key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the attempts that the finished fold was; none of another training."""
    fold_metadata = read_fold_metadata(files) if files.metadata.exists() else {}
    return fold_metadata.get("attempts", []) if _is_of(fold_metadata, run_key) else []


def _is_of(values: Mapping[str, Any], run_key: Mapping[str, Any]) -> bool:
    return all(values.get(name) == value for name, value in run_key.items())


def why_not_done(
    files: FoldFiles,
    run_key: Mapping[str, Any],
    digest_of: Callable[[Path], str] = sha256_of,
) -> str | None:
    """Say why the fold has to be trained, or None where it is done.

    `run_key` is what must not have changed since: the recipe, the split, the data's fingerprint.
    `digest_of` gives a file's SHA-256 (`digests.KnownDigests.of` does not read all files again).
    """
    if not files.metadata.exists():
        return "under way" if files.partial.exists() else "not trained"
    try:
        fold_metadata = read_fold_metadata(files)
    except HearbackError as error:
        return str(error)
    changed = [name for name, value in run_key.items() if fold_metadata.get(name) != value]
    if "recipe" in changed:
        old, new = fold_metadata.get("recipe", {}), run_key["recipe"]
        fields = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return f"its recipe changed since ({', '.join(fields)})"
    if changed:
        return f"trained with another {', '.join(changed).replace('_', ' ')}"
    return _what_does_not_fit(files, fold_metadata, digest_of)


def _what_does_not_fit(
    files: FoldFiles, fold_metadata: FoldMetadata, digest_of: Callable[[Path], str]
) -> str | None:
    paths = {"weights": files.weights, "oof": files.oof, "words": files.words}
    digests = fold_metadata.get("sha256") or {}
    if "oof" not in digests:
        return "its metadata has no digests of its files"
    expected = [(paths[name], digest) for name, digest in digests.items()]
    if kept := fold_metadata.get("tokenizer"):
        expected.append((files.assets / kept["file"], kept["sha256"]))
    for path, digest in expected:
        if not path.exists():
            return f"{path.name} is missing"
        if digest_of(path) != digest:
            return f"{path.name} is not the file that its metadata speaks of"
    return None


def check_version(files: FoldFiles, fold_metadata: FoldMetadata) -> None:
    """Raise HearbackError where a metadata lacks what a model is built from."""
    if lacking := [key for key in ("recipe", "shape", "tokenizer") if key not in fold_metadata]:
        raise HearbackError(
            f"{files.metadata}: an older version's, lacks {', '.join(lacking)}; train the fold again"
        )


def build_and_load(
    files: FoldFiles, fold_metadata: FoldMetadata, build_model: Callable[[], M]
) -> M:
    """Build a finished fold's model and give it its weights; return it in evaluation mode.

    Raises HearbackError where no model can be built, or the weights are not this model's.
    """
    n_bytes = files.weights.stat().st_size if files.weights.exists() else 0
    if n_bytes < _least_bytes(fold_metadata["shape"]):
        what = f"{n_bytes} bytes, too few for the sizes that {files.metadata.name} tells"
        raise HearbackError(f"{files.weights}: not this model's weights ({what})")
    try:
        model = build_model()
    except (*_NO_MODEL, HearbackError) as error:
        raise HearbackError(f"{files.metadata}: no model can be built from it ({error})") from None
    try:
        open_file(files.weights).close()  # a pipe, which never ends, is an error here
        tensors = load_file(files.weights)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise HearbackError(f"{files.weights}: not this model's weights ({error})") from None
    return model.eval()


# What sizes and recipes raise that no training would write.
_NO_MODEL = (
    OSError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)


def _least_bytes(shape: Mapping[str, Any]) -> int:
    """Return how many bytes of fp16 a model of these sizes has at least: its largest matrix."""
    try:
        return 2 * int(shape["d_model"]) * max(map(int, shape.values()))
    except (KeyError, TypeError, ValueError):
        return 0  # building it says what is wrong
