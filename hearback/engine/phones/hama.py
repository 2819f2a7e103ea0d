"""Convert the files of the PyPI wheel `hama`, and CMU's dictionary, to those of `layout`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_directory, read_json, sha256_of, write_json
from hearback.engine.phones.ctc import PhoneCTCConfig
from hearback.engine.phones.g2p import G2PConfig
from hearback.engine.phones.layout import CONFIG, MODEL, ORIGIN, PRONUNCIATIONS
from hearback.engine.phones.package import read_package
from hearback.engine.phones.tokenizer import pronunciations, read_dictionary
from hearback.engine.phones.vocabulary import BLANK, WORD_BOUNDARY, PhoneVocabulary

Source = tuple[str, Callable[[Tensor], Tensor]]


def convert(source: Path, target: Path, origin: Mapping[str, Any]) -> None:
    """Write a directory of the models from the files of the wheels.

    Args:
        source: the folder of the files.
        target: the new directory; it must not exist.
        origin: recorded in its origin.json.

    Raises:
        HearbackError: `target` exists, or a file is damaged or lacks a tensor.
    """
    ctc = convert_ctc(read_package(source / "asr_waveform.hama"))
    spoken = _pronunciations(source)
    with atomic_directory(target) as folder:
        (folder / MODEL).write_bytes(save(ctc))  # `save_file` hides it from other users
        (folder / PRONUNCIATIONS).write_bytes(spoken)
        write_json(folder / CONFIG, _ctc_config(ctc).as_dict())
        files = {name: sha256_of(folder / name) for name in (MODEL, PRONUNCIATIONS, CONFIG)}
        write_json(folder / ORIGIN, {**origin, "files": files})


def _pronunciations(source: Path) -> bytes:
    """Return the file of a `PhoneTokenizer`."""
    g2p = convert_g2p(
        read_package(source / "encoder.hama"), read_package(source / "decoder_step.hama")
    )
    try:
        tokens = read_json(source / "g2p_vocab.json")
        vocabulary = PhoneVocabulary.from_lists(
            [*tokens["decoder"], WORD_BOUNDARY, BLANK], tokens["encoder"]
        )
        lines = (source / "cmudict.dict").read_text(encoding="utf-8").splitlines()
        dictionary = read_dictionary(lines, vocabulary)
    except (ValueError, KeyError, TypeError) as error:
        raise HearbackError(
            f"the vocabulary of hama and cmudict.dict: {error}; not hama 1.7.0's"
        ) from None
    return pronunciations(dictionary, g2p, _g2p_config(g2p), vocabulary)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.t()


def _pointwise(tensor: Tensor) -> Tensor:
    """A convolution of one frame, (out, in, 1), is a linear layer, (out, in)."""
    return tensor[..., 0]


def _gates(tensor: Tensor) -> Tensor:
    """Reorder a GRU's gates, (3 * hidden, …): ONNX has update, reset, new; torch reset first."""
    update, reset, new = tensor.chunk(3)
    return torch.cat([reset, update, new])


def convert_ctc(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a `PhoneCTC` from the tensors of asr_waveform.hama.

    Raises HearbackError if one is missing.
    """
    prefix = "acoustic_model.model"
    sources: dict[str, Source] = {
        "mel_filters": ("mel_fb", _same),
        "stem.weight": ("onnx::Conv_801", _same),
        "stem.bias": ("onnx::Conv_802", _same),
        "proj.weight": (f"{prefix}.proj.weight", _pointwise),
        "proj.bias": (f"{prefix}.proj.bias", _same),
    }
    n_blocks = sum(name.endswith(".attn.in_proj_bias") for name in tensors)
    for block in range(n_blocks):
        ours, theirs = f"blocks.{block}", f"{prefix}.blocks.{block}"
        # The exporter numbered the products and convolutions in the order of their computation.
        product, conv = 829 + 9 * block, 804 + 3 * block
        products = ("ffn1.fc1", "ffn1.fc2", "attention.qkv", None, None, None, "attention.out")
        names = (*products, "ffn2.fc1", "ffn2.fc2")
        for offset, name in enumerate(names):
            if name is not None:
                sources[f"{ours}.{name}.weight"] = (f"onnx::MatMul_{product + offset}", _transposed)
        sources[f"{ours}.attention.qkv.bias"] = (f"{theirs}.attn.in_proj_bias", _same)
        sources[f"{ours}.attention.out.bias"] = (f"{theirs}.attn.out_proj.bias", _same)
        sources[f"{ours}.conv.depthwise.weight"] = (f"onnx::Conv_{conv}", _same)
        sources[f"{ours}.conv.depthwise.bias"] = (f"onnx::Conv_{conv + 1}", _same)
        for name in ("pointwise1", "pointwise2"):
            sources[f"{ours}.conv.{name}.weight"] = (f"{theirs}.conv.{name}.weight", _pointwise)
            sources[f"{ours}.conv.{name}.bias"] = (f"{theirs}.conv.{name}.bias", _same)
        for ffn in ("ffn1", "ffn2"):
            for layer in ("fc1", "fc2"):
                sources[f"{ours}.{ffn}.{layer}.bias"] = (f"{theirs}.{ffn}.{layer}.bias", _same)
        norms = {"ffn1": "ffn1.norm", "attention": "attn_norm", "conv": "conv.norm"}
        for part, norm in {**norms, "ffn2": "ffn2.norm"}.items():
            _add_norm(sources, f"{ours}.{part}.norm", f"{theirs}.{norm}")
        _add_norm(sources, f"{ours}.norm", f"{theirs}.norm")
    return _take(tensors, sources)


def convert_g2p(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a `G2PNetwork` from the tensors of both packages.

    Args:
        encoder: the tensors of encoder.hama.
        decoder: the tensors of decoder_step.hama.

    Raises HearbackError if one is missing.
    """
    sources: dict[str, Source] = {
        "letters.weight": ("model.encoder_embedding.weight", _same),
        "depthwise.weight": ("model.frontend.depthwise.weight", _same),
        "pointwise.weight": ("model.frontend.pointwise.weight", _pointwise),
        "encoder_residual.weight": ("onnx::MatMul_532", _transposed),
        "keys.weight": ("onnx::MatMul_539", _transposed),
        "bridge.weight": ("model.bridge.weight", _same),
        "bridge.bias": ("model.bridge.bias", _same),
    }
    _add_norm(sources, "frontend_norm", "model.frontend.norm")
    _add_norm(sources, "encoder_norm", "model.encoder_out_norm")
    state = _take(encoder, sources)
    for name, first in (("encoder1", 483), ("encoder2", 526)):
        names = (f"onnx::GRU_{first + 1}", f"onnx::GRU_{first + 2}", f"onnx::GRU_{first}")
        for direction, suffix in enumerate(("_l0", "_l0_reverse")):
            state |= _gru(encoder, names, direction, name, suffix)
    sources = {
        "phones.weight": ("model.decoder_embedding.weight", _same),
        "residual.weight": ("onnx::MatMul_302", _transposed),
        "location_conv.weight": ("model.attention.location_conv.weight", _same),
        "location.weight": ("onnx::MatMul_304", _transposed),
        "query.weight": ("onnx::MatMul_303", _transposed),
        "energy.weight": ("onnx::MatMul_305", _transposed),
        "fusion.weight": ("model.context_proj.weight", _same),
        "fusion.bias": ("model.context_proj.bias", _same),
        "output_in.weight": ("model.output_in_proj.weight", _same),
        "output_in.bias": ("model.output_in_proj.bias", _same),
        "output.weight": ("onnx::MatMul_306", _transposed),
    }
    _add_norm(sources, "state_norm", "model.decoder_state_norm")
    _add_norm(sources, "context_norm", "model.context_norm")
    _add_norm(sources, "fusion_norm", "model.fusion_norm")
    state |= {f"decoder.{name}": tensor for name, tensor in _take(decoder, sources).items()}
    for name, first in (("gru1", 279), ("gru2", 299)):
        names = (f"onnx::GRU_{first}", f"onnx::GRU_{first + 1}", f"onnx::GRU_{first + 2}")
        state |= _gru(decoder, names, 0, f"decoder.{name}", "")
    return state


def _add_norm(sources: dict[str, Source], ours: str, theirs: str) -> None:
    for name in ("weight", "bias"):
        sources[f"{ours}.{name}"] = (f"{theirs}.{name}", _same)


def _gru(
    tensors: Mapping[str, Tensor],
    names: tuple[str, str, str],
    direction: int,
    ours: str,
    suffix: str,
) -> dict[str, Tensor]:
    """Return the tensors of one direction of a GRU.

    Args:
        tensors: the tensors of a package.
        names: of the input's weights, the state's weights and the biases.
        direction: 0 forward, 1 backward.
        ours: the module's name.
        suffix: of its parameters' names.
    """
    found = _take(tensors, {name: (name, _same) for name in names})
    weight, recurrent, biases = (found[name][direction] for name in names)
    bias, recurrent_bias = biases.chunk(2)
    gates = {
        "weight_ih": weight,
        "weight_hh": recurrent,
        "bias_ih": bias,
        "bias_hh": recurrent_bias,
    }
    return {f"{ours}.{name}{suffix}": _gates(values) for name, values in gates.items()}


def _take(tensors: Mapping[str, Tensor], sources: Mapping[str, Source]) -> dict[str, Tensor]:
    """Return tensors under our names; HearbackError for a missing one."""
    taken = {}
    for ours, (theirs, change) in sources.items():
        if theirs not in tensors:
            raise HearbackError(f"the weights of hama have no tensor {theirs}: not hama 1.7.0's")
        taken[ours] = change(tensors[theirs]).contiguous()
    return taken


def _ctc_config(state: Mapping[str, Tensor]) -> PhoneCTCConfig:
    """Return the sizes of a state dict; the number of heads, not in it, is as published."""
    ffn_width, width = state["blocks.0.ffn1.fc1.weight"].shape
    return PhoneCTCConfig(
        n_tokens=len(state["proj.weight"]),
        n_mels=state["mel_filters"].shape[1],
        width=width,
        n_blocks=sum(name.endswith(".attention.qkv.weight") for name in state),
        ffn_width=ffn_width,
        kernel=state["blocks.0.conv.depthwise.weight"].shape[-1],
    )


def _g2p_config(state: Mapping[str, Tensor]) -> G2PConfig:
    """Return the sizes of a state dict; the longest word, not in it, is as published."""
    n_letters, width = state["letters.weight"].shape
    location_width, _, location_kernel = state["decoder.location_conv.weight"].shape
    return G2PConfig(
        n_letters=n_letters,
        n_phones=len(state["decoder.output.weight"]),
        embedding=width,
        hidden=len(state["keys.weight"]),
        frontend_kernel=state["depthwise.weight"].shape[-1],
        location_width=location_width,
        location_kernel=location_kernel,
    )
