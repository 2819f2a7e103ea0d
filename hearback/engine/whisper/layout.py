"""The files of a model in Transformers' layout, and how other layouts are converted to it."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hearback.engine.data.other_files import identify
from hearback.engine.errors import HearbackError
from hearback.engine.io import open_file, read_json

# Names of openai-whisper's own checkpoints, also on the hub.
_OPENAI_NAMES = frozenset(
    {
        *(
            f"{size}{language}"
            for size in ("tiny", "base", "small", "medium")
            for language in ("", ".en")
        ),
        *("large", "large-v2", "large-v3", "large-v3-turbo"),
    }
)
_N_SHOWN = 3  # tensors or files in an error message
_SAVE = "WhisperForConditionalGeneration.from_pretrained(…).save_pretrained(…)"


def check_layout(directory: Path) -> None:
    """Raise HearbackError unless the directory has a config.json and safetensors weights."""
    has_weights = (directory / "model.safetensors").is_file()
    if (directory / "model.bin").is_file() and not has_weights:
        raise HearbackError(
            f"{directory} is a faster-whisper directory. Convert it first: "
            f"python -m hearback.engine.whisper.pretrained {directory} --name NAME"
        )
    adapter = next(directory.glob("adapter_model.*"), None)
    if adapter is not None and not has_weights:
        raise HearbackError(
            f"{directory} holds a PEFT adapter only ({adapter.name}). Merge it into its base "
            "first: PeftModel.from_pretrained(base, …).merge_and_unload().save_pretrained(…)"
        )
    snapshots = sorted(directory.glob("snapshots/*/config.json"))
    if snapshots:
        raise HearbackError(
            f"{directory} is a folder of the hub's cache: use {snapshots[-1].parent}"
        )
    if not (directory / "config.json").is_file():
        checkpoint = next(directory.glob("*.pt"), None)
        if checkpoint is not None:
            raise HearbackError(openai_checkpoint(checkpoint))
        raise HearbackError(
            f"{directory} has no config.json: not a model in Transformers' layout. Copy that of "
            f"the model which it was fine-tuned from, or save it again: {_SAVE}"
        )
    for path in (directory / "config.json", *weight_files(directory)):
        check_fetched(path)


def check_hub_files(hub_id: str, names: Collection[str]) -> None:
    """Raise HearbackError unless a model on the hub has files that `check_layout` accepts."""
    if "config.json" in names and any(name.startswith("model.safetensors") for name in names):
        return
    if "model.bin" in names:
        raise HearbackError(
            f"{hub_id} is a faster-whisper model. Download and convert it: `hf download {hub_id} "
            "--local-dir FOLDER`, then python -m hearback.engine.whisper.pretrained FOLDER "
            "--name NAME"
        )
    if any(name.startswith("adapter_model.") for name in names):
        raise HearbackError(
            f"{hub_id} holds a PEFT adapter only. Merge it into its base first: "
            "PeftModel.from_pretrained(base, …).merge_and_unload().save_pretrained(…)"
        )
    if any(name.startswith("pytorch_model") for name in names):
        raise HearbackError(
            f"{hub_id} has its weights as a pickle only (pytorch_model.bin), which can run code. "
            "If a pull request on its page adds model.safetensors, take that (--revision "
            f"refs/pr/NUMBER); else save it on a machine where you trust it: {_SAVE}"
        )
    raise HearbackError(
        f"{hub_id} has no config.json and model.safetensors: not a model in Transformers' layout. "
        f"It has {shown_tensors(sorted(names))}. Choose another one"
    )


def check_fetched(path: Path) -> None:
    """Raise HearbackError if a file is a pointer that Git LFS has not replaced by the file."""
    try:
        with open_file(path) as file:
            head = file.read(1024)
    except OSError:
        return  # reading it tells
    other = identify(head)
    if other is not None and other.group == "pointer":
        raise HearbackError(
            f"{path} is {other.name}, not the file itself. Get it with `{other.command}` in "
            f"{path.parent}"
        )


def openai_checkpoint(path: Path) -> str:
    """Return the message that a file is no directory of a model, with the cure."""
    if path.suffix == ".pt":
        is_openai = path.stem in _OPENAI_NAMES
        same = f"Take the same model from the hub (openai/whisper-{path.stem}), or convert"
        return (
            f"{path} is a checkpoint as openai-whisper writes it: a pickle, which can run code, "
            f"without a config.json. {same if is_openai else 'Convert'} your own with "
            "Transformers' convert_openai_to_hf.py"
        )
    return f"{path} is a file: a backbone is the folder that has its config.json and weights"


def weight_files(directory: Path) -> list[Path]:
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
            f"code. Save it as safetensors on a machine where you trust it: {_SAVE}"
        )
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    if parts := [name for name in others if re.search(r"-\d+-of-\d+\.safetensors$", name)]:
        raise HearbackError(
            f"{directory} has parts of the weights ({shown_tensors(parts)}), but no {index.name}, "
            f"which lists them. Download that, too, or save the model again: {_SAVE}"
        )
    if others:
        raise HearbackError(
            f"{directory} has no model.safetensors, but {shown_tensors(others)}: rename it, or "
            f"save the model again: {_SAVE}"
        )
    if (checkpoint := next(directory.glob("*.pt"), None)) is not None:
        raise HearbackError(openai_checkpoint(checkpoint))
    raise HearbackError(
        f"{directory} has no model.safetensors. Download it, or save the model there: {_SAVE}"
    )


def _shard_names(index: Path) -> list[str]:
    """Return the file names in an index of sharded weights."""
    try:
        value = read_json(index)
    except (OSError, ValueError) as error:
        raise HearbackError(f"{index} cannot be read ({error}). Download it again.") from None
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    # Plain file names only: a path could lead out of the directory.
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise HearbackError(f"{index} does not map tensors to files beside it. Download it again.")
    return sorted(set(names))


def shown_tensors(names: Sequence[str]) -> str:
    """Return up to three names, and the number of all if there are more."""
    shown = ", ".join(name[:100] for name in names[:_N_SHOWN]) or "nothing"
    return f"{shown}, … ({len(names)} in all)" if len(names) > _N_SHOWN else shown
