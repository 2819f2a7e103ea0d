"""Read a Whisper's configuration and weights from a directory in Transformers' layout."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.decoder import DecoderConfig
from hearback.engine.whisper.encoder import N_POSITIONS, WINDOW_SECONDS
from hearback.engine.whisper.layout import check_layout, shown_tensors, weight_files

# What wrappers put before a Whisper's own names: DDP, torch.compile, PEFT, Transformers' models.
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "whisper.", "model.")
# In the names of an adapter that is not merged: LoRA, DoRA, IA3, and layers that they wrap.
_ADAPTER_MARKS = (".lora_", ".ia3_", ".base_layer.", ".modules_to_save.", ".original_module.")
_FLOATS = ("F16", "BF16", "F32", "F64")
_SIZES = (  # in config.json
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "num_mel_bins",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "vocab_size",
    "max_target_positions",
)


class _Model(Protocol):
    """A model with a pretrained backbone."""

    @property
    def parts(self) -> Sequence[Part]: ...

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, torch.Tensor]]) -> None: ...


def load_backbone(model: _Model, directory: Path) -> None:
    """Load a Whisper's weights into the model that its `config.json` describes.

    Raises:
        HearbackError: see `read_tensors`; or the weights do not fit the `config.json`.
    """
    tensors = {part: read_tensors(directory, part) for part in model.parts}
    try:
        model.load_pretrained(tensors)
    except (RuntimeError, KeyError) as error:  # a shape or a name; no positions
        _check_depth(directory, model, tensors)
        reason = " ".join(str(error).split())[:300]
        raise HearbackError(
            f"{directory}: its weights do not fit its config.json ({reason}). Download both again."
        ) from None


def _check_depth(
    directory: Path, model: _Model, tensors: Mapping[Part, Mapping[str, torch.Tensor]]
) -> None:
    """Raise HearbackError if the decoder's weights have another depth than its `config.json`."""
    names = [name for name in tensors.get("decoder", {}) if name.startswith("layers.")]
    n_layers = len({name.split(".")[1] for name in names})
    decoder = getattr(model, "decoder", None)
    if decoder is not None and n_layers != len(decoder.layers):
        raise HearbackError(
            f"{directory}: its decoder's weights have {n_layers} layers, and its config.json says "
            f"{len(decoder.layers)}. Any depth will do (distil-small.en has 4, distil-medium.en 2)"
            ", but both must be of one model: download both again."
        )


def read_config(directory: Path) -> dict[str, Any]:
    """Read a Whisper's `config.json`.

    Raises:
        HearbackError: the directory holds no model, or not a Whisper; a size is missing or no
            whole number; its positions are too few for a window.
    """
    check_layout(directory)
    path = directory / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise HearbackError(f"{path} cannot be read ({error}). Download it again.") from None
    if not isinstance(config, dict):
        raise HearbackError(f"{path} holds no JSON object. Download it again.")
    if config.get("model_type") != "whisper":
        raise HearbackError(f"{directory} holds a {config.get('model_type')} model, not a Whisper")
    for name in _SIZES:
        if name in config or name not in DecoderConfig.__dataclass_fields__ or name == "d_model":
            _check_size(path, name, config.get(name))
    for part in ("encoder", "decoder"):  # an encoder that was saved alone may have no decoder's
        heads = config.get(f"{part}_attention_heads", 1)
        if config["d_model"] % heads:
            raise HearbackError(
                f"{path}: its d_model of {config['d_model']} is no multiple of its {heads} "
                f"{part}_attention_heads. Download it again."
            )
    # Whispers of openai have 1500, and old files do not name them.
    n_positions = config.get("max_source_positions", N_POSITIONS)
    _check_size(path, "max_source_positions", n_positions)
    if n_positions < N_POSITIONS:
        raise HearbackError(
            f"{path}: its max_source_positions is {n_positions}, and windows of {WINDOW_SECONDS} s "
            f"need {N_POSITIONS} (one for each 20 ms). Use a Whisper with {N_POSITIONS} positions "
            "or more; openai's have 1500"
        )
    return config


def _check_size(path: Path, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        what = "missing" if value is None else f"{str(value)[:40]!r}, not a whole number from 1"
        raise HearbackError(f"{path}: its {name} is {what}. Download it again.")


def read_tensors(directory: Path, part: Part) -> dict[str, torch.Tensor]:
    """Read the tensors of one part of a Whisper.

    Names may have the prefixes of Transformers' models and of wrappers (PEFT's merged models, DDP,
    torch.compile); an encoder that was saved alone has none.

    Returns:
        Finite float32 tensors by their names within the part ("conv1.weight",
        "layers.0.self_attn.q_proj.weight", …).

    Raises:
        HearbackError: files are missing or damaged, the weights are stored as a pickle only, are
            quantized, hold NaN or infinity, have an adapter that is not merged, or do not contain
            the part.
    """
    check_layout(directory)
    tensors: dict[str, torch.Tensor] = {}
    all_names: list[str] = []
    for path in weight_files(directory):
        try:
            with safe_open(path, framework="pt") as weights:
                names = list(weights.keys())
                all_names += names
                _check_merged(path, names)
                for name in names:
                    inner = _name_within(name, part)
                    if inner is None:
                        continue
                    if inner in tensors:
                        raise HearbackError(f"{path}: two tensors are the {part}'s {inner}")
                    _check_dtype(path, name, weights.get_slice(name).get_dtype())
                    tensors[inner] = _finite(path, name, weights.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise HearbackError(f"{path} cannot be read ({error}). Download it again.") from error
    if not tensors:
        raise HearbackError(f"{directory} {_missing_part(part, all_names)}")
    positions = tensors.get("embed_positions.weight") if part == "encoder" else None
    if positions is not None and len(positions) < N_POSITIONS:
        raise HearbackError(
            f"{directory}: its weights have {len(positions)} positions, and windows of "
            f"{WINDOW_SECONDS} s need {N_POSITIONS}. Use a Whisper with more"
        )
    return tensors


def _own_name(name: str) -> str:
    """Return a tensor's name without the prefixes of wrappers."""
    while True:
        for prefix in _WRAPPERS:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        else:
            return name


def _name_within(name: str, part: Part) -> str | None:
    """Return a tensor's name within the part, or None if it is not the part's."""
    name = _own_name(name)
    if name.startswith(f"{part}."):
        return name.removeprefix(f"{part}.")
    # An encoder saved alone; a decoder alone has no convolutions and is of no use.
    bare = ("conv1.", "conv2.", "embed_positions.", "layers.", "layer_norm.")
    return name if part == "encoder" and name.startswith(bare) else None


def _check_merged(path: Path, names: Iterable[str]) -> None:
    """Raise HearbackError if some tensors are an adapter's."""
    adapter = [name for name in names if any(mark in name for mark in _ADAPTER_MARKS)]
    if adapter:
        raise HearbackError(
            f"{path} holds a PEFT adapter that is not merged ({shown_tensors(adapter)}). Merge it "
            "first: model.merge_and_unload().save_pretrained(…)"
        )


def _check_dtype(path: Path, name: str, dtype: str) -> None:
    if dtype not in _FLOATS:
        raise HearbackError(
            f"{path}: {name} is stored as {dtype}: quantized weights are not read. Save the model "
            "in float16, bfloat16 or float32"
        )


def _finite(path: Path, name: str, stored: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32; HearbackError if it has NaN or infinity."""
    values = stored.to(torch.float32)
    # The sum needs no memory; it is infinite for large numbers, too.
    if not values.sum().isfinite():
        n_wrong = int((~values.isfinite()).sum())
        if n_wrong:
            raise HearbackError(
                f"{path}: {name} holds NaN or infinity in {n_wrong} of {values.numel()} values: "
                "its training failed, or the file is damaged. Use another checkpoint"
            )
    return values


def _missing_part(part: Part, names: list[str]) -> str:
    """Return what is wrong with weights without the part, after the directory's name."""
    a_part = f"{'an' if part == 'encoder' else 'a'} {part}"
    has_encoder = any(_name_within(name, "encoder") is not None for name in names)
    if part == "decoder" and has_encoder:
        return (
            "has no tensors of a decoder: it holds an encoder only, and this model needs both. Use "
            "the whole Whisper (WhisperForConditionalGeneration), or a recipe without a decoder"
        )
    marks = [name for name in names if f".{part}." in name]
    if marks:
        prefix = marks[0].partition(f"{part}.")[0]
        return (
            f"has no tensors of {a_part} under a known prefix: theirs start with {prefix!r} "
            f"({shown_tensors(marks)}). Save the Whisper inside: "
            f"model.{prefix.rstrip('.')}.save_pretrained(…)"
        )
    return (
        f"has no tensors of {a_part}: it holds {shown_tensors(names)}. Names should start with "
        f"model.{part}. as in WhisperForConditionalGeneration.save_pretrained(…)"
    )
