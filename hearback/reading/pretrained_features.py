"""The features of untrained models that heads are initialized from, computed once for all folds.

Folds, attempts and recipes of one backbone need the same features of the same clips. They are kept
in a file of the store's folder, and found by a digest of everything that they depend on. Each clip
is computed by itself: in a batch, the last bits of its features would depend on the other clips,
and a kept value would differ from a computed one.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearback.engine.data.problems import quoted
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, cached_sha256
from hearback.engine.locks import ReadOnlyFolderError, write_lock
from hearback.engine.whisper.tokenizer import serialize_tokenizer
from hearback.reading.dataset import TrainingData
from hearback.reading.inference.batch_plan import plan_batches
from hearback.reading.inference.model_group import ModelGroup
from hearback.reading.inference.progress import Progress
from hearback.reading.models.base import Scorer
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch

CHUNK = 100  # clips between two savings; a fold that runs beside this one skips what it finds

Features = dict[int, np.ndarray]  # by row, (features,) float64


def collect_features(
    model: Scorer,
    data: TrainingData,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    folder: Path,
    *,
    backbone: Path,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Return `model.pretrained_features` of each row's clip, (rows, features) float64.

    Args:
        model: has its backbone's weights, and no trained ones. It is moved to the device and set to
            evaluation mode.
        data: the training set.
        source: its source, perhaps with encoder outputs.
        rows: (rows,), indices into both.
        folder: the store's folder; if it cannot be written to, the features are not kept.
        backbone: the backbone's directory, for the error.
        device: where to compute.
        dtype: of the matrix products.
        n_workers: processes that load recordings.
        progress: title of the progress bar.

    Raises:
        HearbackError: features are NaN or infinite; such features are never kept.
    """
    digest = _digest(model, model.recipe, data, source, device=device, dtype=dtype)
    path = _path(folder, digest)
    kept = _read(path)
    group = ModelGroup(device, dtype)
    group.add(model)
    n_done = 0
    with Progress(len(rows), 0.0, progress) as bar:
        while True:
            missing = [int(row) for row in rows if int(row) not in kept]
            bar.advance(len(rows) - len(missing) - n_done, 0.0)  # kept, also by other folds
            if not missing:
                break
            n_done = len(rows) - len(missing)
            chunk, computed = missing[:CHUNK], Features()
            planned = plan_batches(source, chunk, model.recipe, seconds=0.0)  # of one clip each
            for batch in group.run(source, chunk, planned, _features, n_workers=n_workers):
                row = chunk[batch.indices[0]]
                computed[row] = batch.values[0][0]
                if not np.isfinite(computed[row]).all():
                    raise HearbackError(_not_finite(backbone, source.filenames[row]))
                bar.advance(1, 0.0)
                n_done += 1
            kept = _save(path, computed) or {**kept, **computed}
    return np.array([kept[int(row)] for row in rows])


def kept_rows(
    model: Scorer,
    recipe: Recipe,
    data: TrainingData,
    source: PairSource,
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> set[int]:
    """Return the rows whose features `collect_features` would find in the store's folder.

    `recipe` may differ from the model's in what does not change its pretrained weights.
    """
    digest = _digest(model, recipe, data, source, device=device, dtype=dtype)
    return {*_read(_path(folder, digest))}


def _path(folder: Path, digest: str) -> Path:
    return folder / "features" / f"{digest}.npz"


def _not_finite(backbone: Path, filename: str) -> str:
    return (
        f"{backbone / 'model.safetensors'}: the model computes NaN or infinity from it for the "
        f"recording {quoted(filename)}, so no head can be initialized. Use weights, config.json "
        "and tokenizer.json of one model, downloaded again"
    )


def _features(model: Scorer, batch: Batch) -> Tensor:
    features = model.pretrained_features(batch)
    assert features is not None  # by `Recipe.has_pretrained_init`
    return features


def _digest(
    model: Scorer,
    recipe: Recipe,
    data: TrainingData,
    source: PairSource,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> str:
    """Return 16 hexadecimal digits that change with whatever the features depend on.

    The head is left out: as initialized, its random weights do not change the features.
    """
    inputs: dict[str, Any] = {
        "data": data.fingerprint_with_references if recipe.hears_reference else data.fingerprint,
        "encoded": source.encoded is not None,
        "pairing": (recipe.pair, recipe.token_score, recipe.pooling, recipe.text_embedder),
        "window": (recipe.window, recipe.window_step_seconds, recipe.speed_by_grade),
        "context": recipe.uses_context,
        "sizes": model.backbone_config(),  # the number of heads is in no tensor
        "others": _digests_of_others(model),
        # What can change the last bits of a matrix product.
        "computed": (device.type, str(dtype), torch.get_num_threads(), torch.__version__),
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _digests_of_others(model: Scorer) -> list[str]:
    """Return digests of the tokenizer and of the text embedder, if the model has them."""
    digests = []
    if model.text_tokenizer is not None:
        path = model.text_tokenizer.path
        # A Whisper's differs by where it is from, and encodes alike.
        is_whisper = isinstance(model, TokenScorer)
        content = serialize_tokenizer(path) if is_whisper else path.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
    if model.embedder is not None:
        folder = model.embedder.directory
        digests += [cached_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return digests


def _read(path: Path) -> Features:
    """Return the features that are kept; none if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = dict(zip(arrays["rows"].tolist(), arrays["features"], strict=True))
            return {row: values for row, values in kept.items() if np.isfinite(values).all()}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _save(path: Path, computed: Features) -> Features | None:
    """Add features to those that are kept, and return all; None if they cannot be kept."""
    cure = "features are kept there: choose a writable folder with --store"
    try:
        with write_lock(path.with_suffix(".lock"), cure):
            kept = {**_read(path), **computed}
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez(file, rows=np.array([*kept]), features=np.array([*kept.values()]))
            return kept
    except ReadOnlyFolderError:
        return None
