"""Convert a faster-whisper directory (CTranslate2's `model.bin`) to Transformers' layout.

Variable names and fused projections are those of CTranslate2's `WhisperSpec` revision 3, as its
Transformers converter fills them. `ctranslate2_reader` reads the binary format.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, write_json
from hearback.engine.whisper.ctranslate2_reader import Tensors, dequantise, read_variables

# Settings of Whisper's feature extractor: seconds, Hz, samples, samples.
CHUNK_SECONDS, SAMPLE_RATE, N_FFT, HOP_LENGTH = 30, 16_000, 400, 160


class _Renamer:
    """Moves tensors from CTranslate2's names to Transformers'.

    `remaining` holds the tensors not moved yet, `state` the result.
    """

    def __init__(self, variables: Tensors) -> None:
        self.remaining = dict(variables)
        self.state: Tensors = {}

    def pop(self, name: str) -> np.ndarray:
        """Remove a tensor and return it."""
        if name not in self.remaining:
            raise HearbackError(f"no tensor {name}: not a Whisper, or an unknown layout")
        return self.remaining.pop(name)

    def move(self, source: str, target: str) -> None:
        """Move a tensor, converted to float32."""
        self.state[target] = self.pop(source).astype(np.float32)

    def linear(self, source: str, target: str) -> None:
        """Move a linear or convolution layer."""
        self.move(f"{source}/weight", f"{target}.weight")
        self.move(f"{source}/bias", f"{target}.bias")

    def norm(self, source: str, target: str) -> None:
        """Move a layer norm."""
        self.move(f"{source}/gamma", f"{target}.weight")
        self.move(f"{source}/beta", f"{target}.bias")

    def fused(self, source: str, target: str, parts: str) -> None:
        """Split projections stacked along the rows; `parts` is their order, such as "qkv"."""
        weight, bias = self.pop(f"{source}/weight"), self.pop(f"{source}/bias")
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
        """Move an attention block with its layer norm."""
        self.norm(f"{source}/layer_norm", f"{target}_layer_norm")
        if cross:
            self.linear(f"{source}/linear_0", f"{target}.q_proj")
            self.fused(f"{source}/linear_1", target, "kv")
        else:
            self.fused(f"{source}/linear_0", target, "qkv")
        self.linear(f"{source}/linear_{2 if cross else 1}", f"{target}.out_proj")

    def stack(self, side: str) -> None:
        """Move all layers, the positions and the final norm of `side`, encoder or decoder."""
        for layer in range(_count_layers(self.remaining, side)):
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
    """Count the layers of `side`, numbered from 0. A gap shows later, as a missing tensor."""
    found = (re.match(rf"{side}/layer_(\d+)/", name) for name in variables)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def to_transformers(variables: Tensors) -> Tensors:
    """Convert a Whisper's dequantised variables to a Transformers state dict, float32.

    The output projection is tied to the token embeddings and left out. Variables of rank 0 are
    settings, which `derive_config` reads.

    Raises:
        HearbackError: tensors are missing, unknown or of an unexpected shape.
    """
    renamer = _Renamer({name: values for name, values in variables.items() if values.ndim})
    renamer.linear("encoder/conv1", "model.encoder.conv1")
    renamer.linear("encoder/conv2", "model.encoder.conv2")
    renamer.stack("encoder")
    renamer.move("decoder/embeddings/weight", "model.decoder.embed_tokens.weight")
    renamer.stack("decoder")
    projection = renamer.pop("decoder/projection/weight")
    if not np.array_equal(projection, variables["decoder/embeddings/weight"]):
        raise HearbackError("the output projection is not tied to the token embedding")
    if renamer.remaining:
        unknown = ", ".join(sorted(renamer.remaining))
        raise HearbackError(f"tensors that Whisper does not have: {unknown}")
    return renamer.state


def is_multilingual(vocab_size: int) -> bool:
    """Whether the vocabulary is multilingual: 51,865 tokens or more (English-only: 51,864)."""
    return vocab_size >= 51_865


def special_ids(vocab_size: int) -> dict[str, int]:
    """Return the ids of Whisper's special tokens, derived from the vocabulary's size.

    The order is that of openai/whisper's `tokenizer.py`: text tokens (one more in the multilingual
    vocabulary), end of text, start of transcript, the languages (all ids between
    "<|startoftranscript|>" and "<|translate|>"), the six tokens below, 1501 timestamps.
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
    """Raise HearbackError unless the special tokens (text -> id) match the model's vocabulary."""
    for text, token_id in special_ids(vocab_size).items():
        # Some tokenizers call "<|nospeech|>" "<|nocaptions|>".
        if text != "<|nospeech|>" and added.get(text) != token_id:
            raise HearbackError(
                f"tokenizer.json gives {text} the id {added.get(text)}, but a Whisper with "
                f"{vocab_size:,} tokens has id {token_id}: tokenizer and model do not match"
            )


def derive_config(variables: Tensors, state: Tensors, settings: dict[str, Any]) -> dict[str, Any]:
    """Build Transformers' `config.json`.

    Args:
        variables: CTranslate2's variables.
        state: the converted state dict.
        settings: faster-whisper's own `config.json` (token ids to suppress).
    """
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
            raise HearbackError(f"no tensor {side}/num_heads: not a Whisper, or an unknown layout")
        config[f"{side}_attention_heads"] = int(n_heads)
        config[f"{side}_layers"] = _count_layers(variables, side)
        config[f"{side}_ffn_dim"] = state[f"model.{side}.layers.0.fc1.weight"].shape[0]
    config["num_hidden_layers"] = config["encoder_layers"]
    return config


def _generation_config(
    config: dict[str, Any], settings: dict[str, Any], added: dict[str, int]
) -> dict[str, Any]:
    """Build `generation_config.json`; `added` maps the tokenizer's special tokens to ids."""
    ids = special_ids(config["vocab_size"])
    copied = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    generation: dict[str, Any] = {name: config[name] for name in copied}
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
    """Build `preprocessor_config.json`."""
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
    """Copy `tokenizer.json`; write the other files of Transformers' two Whisper tokenizers."""
    shutil.copyfile(source, target / "tokenizer.json")
    model = tokenizer["model"]
    write_json(target / "vocab.json", model["vocab"])
    # A merge is a pair in newer files and "a b" in older ones.
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
    """Convert the faster-whisper directory `source` into the empty directory `target`.

    Returns:
        Whether `source` has a tokenizer.json. Without one the model can encode, but its output
        cannot be decoded to text.

    Raises:
        HearbackError: `source` is damaged, not a Whisper, or of an unknown layout.
    """
    import torch  # noqa: PLC0415  (the rest of the module needs no torch)
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
