"""The backbone's tensors that training left unchanged: kept once in the assets, for all folds.

`encoder_<digest>.safetensors` and `decoder_<digest>.safetensors` hold all tensors of a part of a
pretrained Whisper, in fp16. A fold's weights file has only those that differ; its metadata names
the part's file and its digest (`fold_files.SharedFile`), so no other backbone can take its place.
A part of which training changed nearly everything is kept whole in the fold's own file.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from hearback.engine.io import atomic_write, open_file
from hearback.engine.training.checkpoint import to_fp16
from hearback.engine.whisper.backbone import PARTS, Part

# A fold uses a part's file if it left at least this share of the part's numbers unchanged.
MIN_UNCHANGED = 0.1
# Models keep only the first rows of this table.
_POSITIONS = "embed_positions.weight"

PartTensors = Mapping[Part, Mapping[str, Tensor]]


def serialize_part(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a part's file: its tensors in fp16, by name. The same weights give the same bytes."""
    half = to_fp16(dict(sorted(tensors.items())))
    return save({name: tensor.contiguous() for name, tensor in half.items()})


def share_unchanged(
    weights: Mapping[str, Tensor], backbone: PartTensors, assets: Path
) -> tuple[dict[str, Tensor], dict[str, dict[str, str]]]:
    """Separate a fold's own weights from those of its backbone.

    Args:
        weights: the fold's weights in fp16; the names of a part's tensors start with the part.
        backbone: the pretrained tensors of each part.
        assets: gets a file of each part that the fold can use, unless it is there.

    Returns:
        The weights to keep for the fold, and the metadata's entries of the parts' files, by part.
    """
    own, entries = dict(weights), dict[str, dict[str, str]]()
    for part, tensors in backbone.items():
        half = to_fp16(tensors)
        of_part = {name for name in own if name.startswith(f"{part}.")}
        unchanged = {
            name
            for name in of_part
            if (tensor := half.get(name.removeprefix(f"{part}."))) is not None
            and own[name].equal(_fitted(name, tensor, own[name]))
        }
        n_unchanged = sum(own[name].numel() for name in unchanged)
        if n_unchanged < MIN_UNCHANGED * sum(own[name].numel() for name in of_part):
            continue
        entries[part] = _keep_part(part, tensors, assets)
        own = {name: tensor for name, tensor in own.items() if name not in unchanged}
    return own, entries


def _keep_part(part: Part, tensors: Mapping[str, Tensor], assets: Path) -> dict[str, str]:
    """Write a part's file unless it is there; return its name and digest."""
    name, content = part_file(part, tensors)
    path = assets / name
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def part_file(part: Part, tensors: Mapping[str, Tensor]) -> tuple[str, bytes]:
    """Return the name and content of a part's file."""
    content = serialize_part(tensors)
    return part_name(part, hashlib.sha256(content).hexdigest()), content


def part_name(part: Part, digest: str) -> str:
    """Return the name of a part's file."""
    return f"{part}_{digest[:16]}.safetensors"


def read_unchanged(
    files: Mapping[Part, Path], own: Mapping[str, Tensor], shapes: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors that a fold does not have itself, from its parts' files.

    Args:
        files: the file of each part.
        own: the fold's own weights.
        shapes: the model's state dict.

    Raises:
        OSError, SafetensorError: a file is missing or damaged.
    """
    tensors = {}
    for part, path in files.items():
        open_file(path).close()  # refuses a pipe, which would block safe_open forever
        with safe_open(path, framework="pt") as weights:
            names = weights.keys()
            for name in names:
                full = f"{part}.{name}"
                if full in shapes and full not in own:
                    tensors[full] = _fitted(name, weights.get_tensor(name), shapes[full])
    return tensors


def _fitted(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """Return a backbone's tensor cut to a model's size: position tables lose their last rows."""
    return tensor[: len(like)] if name.endswith(_POSITIONS) else tensor


def shared_parts(names: Mapping[str, object]) -> list[Part]:
    """Return those keys of shared files, as in fold metadata, that are parts of a backbone."""
    return [part for part in PARTS if part in names]
