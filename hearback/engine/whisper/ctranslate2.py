"""A faster-whisper directory (CTranslate2's `model.bin`), rewritten in Transformers' layout.

The binary format is the one that CTranslate2's `python/ctranslate2/specs/model_spec.py` writes
(binary version 6; little-endian): a header, the variables one after the other (name, shape, type,
bytes), then aliases of variables that are equal. The names and the fused projections are those of
its `WhisperSpec` revision 3, as its Transformers converter fills them.
"""

import json
import mmap
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, write_json

BINARY_VERSION = 6
SPEC = ("WhisperSpec", 3)
# CTranslate2's DataType enum. NumPy has no bfloat16: its 16 bits are the upper half of a float32.
BFLOAT16 = 5
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", BFLOAT16: "<u2"}

# Inputs of the feature extractor, common to all Whispers: seconds, Hz, samples.
CHUNK_SECONDS, SAMPLE_RATE, N_FFT, HOP_LENGTH = 30, 16_000, 400, 160

Tensors = dict[str, np.ndarray]


class _Cursor:
    """Reads little-endian fields from a buffer; running past its end is a HearbackError."""

    def __init__(self, buffer: mmap.mmap, path: Path) -> None:
        self.buffer, self.path, self.position = buffer, path, 0

    def skip(self, n_bytes: int) -> int:
        """Move on by `n_bytes` and return the position before."""
        start, self.position = self.position, self.position + n_bytes
        if self.position > len(self.buffer):
            raise HearbackError(
                f"{self.path} is truncated: {len(self.buffer):,} bytes, at least "
                f"{self.position:,} expected. Copy or download it again."
            )
        return start

    def number(self, code: str) -> int:
        start = self.skip(struct.calcsize(code))
        return struct.unpack_from(f"<{code}", self.buffer, start)[0]

    def text(self) -> str:
        length = self.number("H")  # with the closing zero byte
        start = self.skip(length)
        try:
            return self.buffer[start : start + length - 1].decode()
        except UnicodeDecodeError as error:
            raise HearbackError(f"{self.path} is damaged: a name in it is not text") from error


def read_variables(path: Path) -> Tensors:
    """Read every variable of a CTranslate2 `model.bin`, aliases resolved.

    float16, float32 and integers come as stored (still quantised), bfloat16 as float32.

    Raises:
        HearbackError: the file is missing, truncated, of another version or not a Whisper.
    """
    if not path.is_file():
        raise HearbackError(f"{path} is missing: a faster-whisper directory has a model.bin")
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise HearbackError(f"{path} is empty. Copy or download it again.")
        cursor = _Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), path)
    version = cursor.number("I")
    if version != BINARY_VERSION:
        raise HearbackError(
            f"{path} says CTranslate2 binary version {version}; only {BINARY_VERSION} is read. "
            "Convert the model again with CTranslate2 3 or newer."
        )
    spec = cursor.text(), cursor.number("I")
    if spec != SPEC:
        raise HearbackError(
            f"{path} holds {spec[0]} revision {spec[1]}; only {SPEC[0]} revision {SPEC[1]} is read."
        )
    variables: Tensors = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        shape = tuple(cursor.number("I") for _ in range(cursor.number("B")))
        kind, n_bytes = cursor.number("B"), cursor.number("I")
        if kind not in TYPES:
            raise HearbackError(f"{path}: {name} has unknown type {kind}")
        n_values, itemsize = int(np.prod(shape, dtype=np.int64)), np.dtype(TYPES[kind]).itemsize
        if n_bytes != n_values * itemsize:
            raise HearbackError(f"{path} is damaged: {name} of shape {shape} has {n_bytes:,} bytes")
        start = cursor.skip(n_bytes)
        values = np.frombuffer(cursor.buffer, TYPES[kind], n_values, start).reshape(shape)
        if kind == BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        variables[name] = values
    for _ in range(cursor.number("I")):
        alias, name = cursor.text(), cursor.text()
        if name not in variables:
            raise HearbackError(f"{path} is damaged: {alias} stands for {name}, which is not there")
        variables[alias] = variables[name]
        if f"{name}_scale" in variables:  # aliases are made before weights are quantised
            variables[f"{alias}_scale"] = variables[f"{name}_scale"]
    return variables


def dequantise(variables: Tensors) -> Tensors:
    """Return the variables without `*_scale`, quantised weights as float32.

    CTranslate2 stores round(scale · weight): int8 with a scale per row (a row of a convolution is
    an output channel), int16 with one scale for the whole weight. Its other schemes (AWQ: packed
    4-bit weights with `*_zero` points) are refused.
    """
    plain: Tensors = {}
    for name, values in variables.items():
        if name.endswith("_scale"):
            continue
        if name.endswith("_zero"):
            raise HearbackError(f"{name}: AWQ-quantised models are not read; take a float16 one")
        scale = variables.get(f"{name}_scale")
        if scale is None:
            if values.ndim and np.issubdtype(values.dtype, np.integer):
                raise HearbackError(f"{name} is {values.dtype} without a scale")
            plain[name] = values
            continue
        per_row = values.shape[:1]
        if scale.shape not in ((), (1,), per_row) or np.any(scale == 0):
            raise HearbackError(
                f"{name} of shape {values.shape} has scales of shape {scale.shape}; only one scale "
                "per row or per weight, none of them zero, is read"
            )
        rows = scale.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
        plain[name] = values.astype(np.float32) / rows
    return plain


class _Renamer:
    """Moves tensors from CTranslate2's names to Transformers', keeping account of what is left."""

    def __init__(self, variables: Tensors) -> None:
        self.left = dict(variables)
        self.state: Tensors = {}

    def take(self, name: str) -> np.ndarray:
        if name not in self.left:
            raise HearbackError(f"no tensor {name}: not a Whisper, or one of another layout")
        return self.left.pop(name)

    def move(self, source: str, target: str) -> None:
        self.state[target] = self.take(source).astype(np.float32)

    def linear(self, source: str, target: str) -> None:
        self.move(f"{source}/weight", f"{target}.weight")
        self.move(f"{source}/bias", f"{target}.bias")

    def norm(self, source: str, target: str) -> None:
        self.move(f"{source}/gamma", f"{target}.weight")
        self.move(f"{source}/beta", f"{target}.bias")

    def fused(self, source: str, target: str, parts: str) -> None:
        """Split projections that are stacked along the rows, `parts` saying in which order."""
        weight, bias = self.take(f"{source}/weight"), self.take(f"{source}/bias")
        if weight.shape[0] % len(parts) or bias.shape != weight.shape[:1]:
            raise HearbackError(f"{source}: {weight.shape} and {bias.shape} are not {parts} fused")
        weights, biases = np.split(weight, len(parts)), np.split(bias, len(parts))
        for part, part_weight, part_bias in zip(parts, weights, biases, strict=True):
            name = f"{target}.{part}_proj"
            self.state[f"{name}.weight"] = part_weight.astype(np.float32)
            if part != "k":
                self.state[f"{name}.bias"] = part_bias.astype(np.float32)
            elif np.any(part_bias):
                raise HearbackError(f"{source}: the keys have a bias; Whisper's have none")

    def attention(self, source: str, target: str, *, cross: bool = False) -> None:
        self.norm(f"{source}/layer_norm", f"{target}_layer_norm")
        if cross:
            self.linear(f"{source}/linear_0", f"{target}.q_proj")
            self.fused(f"{source}/linear_1", target, "kv")
        else:
            self.fused(f"{source}/linear_0", target, "qkv")
        self.linear(f"{source}/linear_{2 if cross else 1}", f"{target}.out_proj")

    def stack(self, side: str) -> None:
        """Move all layers, the positions and the last norm of the encoder or the decoder."""
        for layer in range(_count_layers(self.left, side)):
            source, target = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            self.attention(f"{source}/self_attention", f"{target}.self_attn")
            if side == "decoder":
                self.attention(f"{source}/attention", f"{target}.encoder_attn", cross=True)
            self.norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
            self.linear(f"{source}/ffn/linear_0", f"{target}.fc1")
            self.linear(f"{source}/ffn/linear_1", f"{target}.fc2")
        self.move(f"{side}/position_encodings/encodings", f"model.{side}.embed_positions.weight")
        self.norm(f"{side}/layer_norm", f"model.{side}.layer_norm")


def _count_layers(variables: Tensors, side: str) -> int:
    """Count the layers of `side`; they are numbered from 0 (a gap shows as a missing tensor)."""
    found = (re.match(rf"{side}/layer_(\d+)/", name) for name in variables)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def to_transformers(variables: Tensors) -> Tensors:
    """Rename and split a Whisper's tensors (not quantised), as Transformers names them.

    All float32. The output projection is tied to the token embeddings and so not repeated.
    Variables of rank 0 are settings, read by `derive_config`.
    """
    renamer = _Renamer({name: values for name, values in variables.items() if values.ndim})
    renamer.linear("encoder/conv1", "model.encoder.conv1")
    renamer.linear("encoder/conv2", "model.encoder.conv2")
    renamer.stack("encoder")
    renamer.move("decoder/embeddings/weight", "model.decoder.embed_tokens.weight")
    renamer.stack("decoder")
    projection = renamer.take("decoder/projection/weight")
    if not np.array_equal(projection, variables["decoder/embeddings/weight"]):
        raise HearbackError("the output projection is not the token embedding, as Whisper's is")
    if renamer.left:
        raise HearbackError(
            f"tensors that Whisper does not have: {', '.join(sorted(renamer.left))}"
        )
    return renamer.state


def is_multilingual(vocab_size: int) -> bool:
    """Tell the multilingual vocabularies (51,865 tokens or more) from the English one (51,864)."""
    return vocab_size >= 51_865


def special_ids(vocab_size: int) -> dict[str, int]:
    """Return the ids of Whisper's special tokens, which follow from the size of its vocabulary.

    As in openai/whisper's `tokenizer.py`: text tokens (one more in the multilingual vocabulary);
    end of text, start of transcript; the languages, all ids between "<|startoftranscript|>" and
    "<|translate|>"; the six below; 1501 timestamps.
    """
    n_languages = vocab_size - 51_765 - is_multilingual(vocab_size)
    end_of_text = 50_256 + is_multilingual(vocab_size)
    after_languages = end_of_text + 2 + n_languages
    names = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    return {
        "<|endoftext|>": end_of_text,
        "<|startoftranscript|>": end_of_text + 1,
        **{f"<|{name}|>": after_languages + i for i, name in enumerate(names)},
    }


def _check_tokenizer(added: dict[str, int], vocab_size: int) -> None:
    """Raise unless the tokenizer's special tokens (text to id) are those of the model."""
    for text, token_id in special_ids(vocab_size).items():
        # "<|nospeech|>" is called "<|nocaptions|>" in some.
        if text != "<|nospeech|>" and added.get(text) != token_id:
            raise HearbackError(
                f"tokenizer.json gives {text} the id {added.get(text)}, where a Whisper with "
                f"{vocab_size:,} tokens has it at {token_id}: they are not of one model"
            )


def derive_config(variables: Tensors, state: Tensors, settings: dict[str, Any]) -> dict[str, Any]:
    """Derive Transformers' `config.json`; `settings` is faster-whisper's own (ids to suppress)."""
    d_model, n_mels, _ = state["model.encoder.conv1.weight"].shape
    vocab_size = state["model.decoder.embed_tokens.weight"].shape[0]
    ids = special_ids(vocab_size)
    config: dict[str, Any] = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "torch_dtype": "float32",
        "activation_function": "gelu",
        "d_model": d_model,
        "num_mel_bins": n_mels,
        "vocab_size": vocab_size,
        "max_source_positions": state["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": state["model.decoder.embed_positions.weight"].shape[0],
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "init_std": 0.02,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
    }
    for side in ("encoder", "decoder"):
        n_heads = variables.get(f"{side}/num_heads")
        if n_heads is None:
            raise HearbackError(f"no tensor {side}/num_heads: not a Whisper of this layout")
        config[f"{side}_attention_heads"] = int(n_heads)
        config[f"{side}_layers"] = _count_layers(variables, side)
        config[f"{side}_ffn_dim"] = state[f"model.{side}.layers.0.fc1.weight"].shape[0]
    config["num_hidden_layers"] = config["encoder_layers"]
    return config


def _generation_config(
    config: dict[str, Any], settings: dict[str, Any], added: dict[str, int]
) -> dict[str, Any]:
    """Make `generation_config.json`; `added` are the tokenizer's special tokens."""
    ids = special_ids(config["vocab_size"])
    same = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    generation: dict[str, Any] = {name: config[name] for name in same}
    generation |= {
        "suppress_tokens": config["suppress_tokens"],
        "begin_suppress_tokens": config["begin_suppress_tokens"],
        "alignment_heads": settings.get("alignment_heads"),
        "is_multilingual": is_multilingual(config["vocab_size"]),
        "max_initial_timestamp_index": 50,
        "max_length": config["max_target_positions"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
    }
    if generation["is_multilingual"]:
        languages = range(ids["<|startoftranscript|>"] + 1, ids["<|translate|>"])
        generation["lang_to_id"] = {text: i for text, i in added.items() if i in languages}
        generation["task_to_id"] = {
            task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")
        }
    return generation


def _feature_extractor_config(n_mels: int) -> dict[str, Any]:
    """Make `preprocessor_config.json`."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": n_mels,
        "sampling_rate": SAMPLE_RATE,
        "n_fft": N_FFT,
        "hop_length": HOP_LENGTH,
        "chunk_length": CHUNK_SECONDS,
        "n_samples": CHUNK_SECONDS * SAMPLE_RATE,
        "nb_max_frames": CHUNK_SECONDS * SAMPLE_RATE // HOP_LENGTH,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _write_tokenizer(source: Path, target: Path, tokenizer: dict[str, Any]) -> None:
    """Copy `tokenizer.json` and write what Transformers' two Whisper tokenizers want beside it."""
    shutil.copyfile(source, target / "tokenizer.json")
    model = tokenizer["model"]
    write_json(target / "vocab.json", model["vocab"])
    # Newer tokenizers write a merge as a pair, older ones as "a b".
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (target / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
    )
    properties = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    end_of_text = "<|endoftext|>"
    write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            "model_max_length": 1024,
            "errors": "replace",
            "add_prefix_space": False,
            "add_bos_token": False,
            "return_attention_mask": False,
            "clean_up_tokenization_spaces": False,
            "bos_token": end_of_text,
            "eos_token": end_of_text,
            "pad_token": end_of_text,
            "unk_token": end_of_text,
            "added_tokens_decoder": {
                str(token["id"]): {name: token[name] for name in properties}
                for token in tokenizer["added_tokens"]
            },
        },
    )


def convert(source: Path, target: Path) -> bool:
    """Write the faster-whisper directory `source` to the empty directory `target`.

    Returns whether `source` had a tokenizer.json; without one the model still encodes, but nothing
    can read what it generates.

    Raises:
        HearbackError: `source` is damaged, or not a Whisper in a layout that is known here.
    """
    import torch  # noqa: PLC0415  (the reader above is of use without it)
    from safetensors.torch import save_file  # noqa: PLC0415

    stored = read_variables(source / "model.bin")
    try:
        variables = dequantise(stored)
        state = to_transformers(variables)
        settings_path = source / "config.json"
        settings = read_json(settings_path) if settings_path.is_file() else {}
        config = derive_config(variables, state, settings)
        tokenizer_path = source / "tokenizer.json"
        added: dict[str, int] = {}
        if tokenizer_path.is_file():
            tokenizer = read_json(tokenizer_path)
            added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
            _check_tokenizer(added, config["vocab_size"])
            _write_tokenizer(tokenizer_path, target, tokenizer)
    except HearbackError as error:
        raise HearbackError(f"{source}: {error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HearbackError(f"{source}: a JSON file in it is damaged: {error}") from error
    write_json(target / "config.json", config)
    write_json(target / "generation_config.json", _generation_config(config, settings, added))
    write_json(
        target / "preprocessor_config.json", _feature_extractor_config(config["num_mel_bins"])
    )
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in state.items()}
    weights = target / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod((target / "config.json").stat().st_mode)  # newer safetensors writes 0600
    return bool(added)
