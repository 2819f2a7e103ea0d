"""Read a Whisper's configuration and weights from a directory in Transformers' layout."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json

if TYPE_CHECKING:
    import torch


def read_config(directory: Path) -> dict[str, Any]:
    """Read a Whisper's `config.json`.

    Raises:
        HearbackError: the directory holds no model, or not a Whisper.
    """
    check_layout(directory)
    config = _read_object(directory / "config.json")
    if config.get("model_type") != "whisper":
        raise HearbackError(f"{directory} holds a {config.get('model_type')} model, not a Whisper")
    return config


def read_tensors(directory: Path, part: Literal["encoder", "decoder"]) -> "dict[str, torch.Tensor]":
    """Read the tensors of one part of a Whisper.

    Returns:
        float32 tensors by their names within the part ("conv1.weight",
        "layers.0.self_attn.q_proj.weight", …).

    Raises:
        HearbackError: files are missing or damaged, the weights are stored as a pickle only, or
            they do not contain the part.
    """
    import torch  # noqa: PLC0415  (slow to import, and downloading does not need it)
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    check_layout(directory)
    tensors: dict[str, torch.Tensor] = {}
    for path in _weight_files(directory):
        try:
            with safe_open(path, framework="pt") as weights:
                names = weights.keys()
                for name in names:
                    inner = name.removeprefix("model.")
                    if inner.startswith(f"{part}."):
                        values = weights.get_tensor(name).to(torch.float32)
                        tensors[inner.removeprefix(f"{part}.")] = values
        except (SafetensorError, OSError) as error:
            raise HearbackError(f"{path} cannot be read ({error}). Download it again.") from error
    if not tensors:
        raise HearbackError(
            f"{directory} has no tensors of {'an' if part == 'encoder' else 'a'} {part}"
        )
    return tensors


def check_layout(directory: Path) -> None:
    """Raise HearbackError unless the directory has a config.json and safetensors weights."""
    if (directory / "model.bin").is_file() and not (directory / "model.safetensors").is_file():
        raise HearbackError(
            f"{directory} is a faster-whisper directory. Convert it first: "
            f"python -m hearback.engine.whisper.pretrained {directory} --name NAME"
        )
    if not (directory / "config.json").is_file():
        raise HearbackError(f"{directory} has no config.json: not a model in Transformers' layout")
    _weight_files(directory)


def _weight_files(directory: Path) -> list[Path]:
    """List the safetensors files of a model: a single file or all shards."""
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
    """Return the file names in an index of sharded weights."""
    weight_map = _read_object(index).get("weight_map")
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    # Plain file names only: a path could lead out of the directory.
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise HearbackError(f"{index} does not map tensors to files beside it. Download it again.")
    return sorted(set(names))


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; HearbackError if the file is not one."""
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise HearbackError(f"{path} cannot be read ({error}). Download it again.") from None
    if not isinstance(value, dict):
        raise HearbackError(f"{path} holds no JSON object. Download it again.")
    return value
