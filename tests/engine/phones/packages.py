"""Small weight packages with random values, laid out as those of the wheel `hama`, and words."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hearback.engine.phones.package import ALIGNMENT, MAGIC, VERSION
from hearback.engine.phones.vocabulary import END, PAD, START, UNKNOWN

Arrays = Mapping[str, np.ndarray]
N_MELS, WIDTH, FFN_WIDTH, KERNEL, N_BLOCKS = 6, 8, 12, 5, 2
EMBEDDING, HIDDEN, LOCATION = 6, 4, 3
LETTERS = [PAD, UNKNOWN, "'", *"abcdefg", "é", "ᄀ", "ᅡ", "ᆨ"]
PHONES = [PAD, START, END, UNKNOWN, "a", "b", "d͡ʒ", "eɪ"]
# As CMU's dictionary is written. Of the phones of ARPAbet only B, EY and JH are among PHONES.
DICTIONARY = """\
'bay B EY1
abbey EY1 B EY0
age EY1 JH # a comment
bay B EY1
bay(2) B EY0 B
"""


def pad(n_bytes: int) -> int:
    """Return the next multiple of the alignment."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def pack(arrays: Arrays, version: int = VERSION, n_tensors: int | None = None) -> bytes:
    """Return a package's content."""
    table, data = b"", b""
    for name, array in arrays.items():
        data = data.ljust(pad(len(data)), b"\0")
        encoded = name.encode()
        table += struct.pack("<H", len(encoded)) + encoded
        table += struct.pack("<BB", int(array.dtype == np.float16), array.ndim)
        table += struct.pack(f"<{array.ndim}I", *array.shape)
        table += struct.pack("<QQ", len(data), array.nbytes)
        data += array.tobytes()
    count = len(arrays) if n_tensors is None else n_tensors
    head = MAGIC + struct.pack("<BBI", version, 2, count) + table
    return head.ljust(pad(len(head)), b"\0") + data


def _random(shapes: Mapping[str, tuple[int, ...]], seed: int, deviation: float = 0.3) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, deviation, shape).astype(np.float16)
        + np.float16("norm.weight" in name)  # a norm multiplies by about 1
        for name, shape in shapes.items()
    }


def ctc_arrays() -> Arrays:
    """Return the tensors of a small asr_waveform.hama."""
    prefix = "acoustic_model.model"
    shapes: dict[str, tuple[int, ...]] = {
        "onnx::Conv_801": (WIDTH, N_MELS, 3),
        "onnx::Conv_802": (WIDTH,),
        f"{prefix}.proj.weight": (len(PHONES) + 2, WIDTH, 1),
        f"{prefix}.proj.bias": (len(PHONES) + 2,),
    }
    for block in range(N_BLOCKS):
        start = f"{prefix}.blocks.{block}"
        for norm in ("ffn1.norm", "attn_norm", "conv.norm", "ffn2.norm", "norm"):
            shapes[f"{start}.{norm}.weight"] = shapes[f"{start}.{norm}.bias"] = (WIDTH,)
        for ffn in ("ffn1", "ffn2"):
            shapes[f"{start}.{ffn}.fc1.bias"] = (FFN_WIDTH,)
            shapes[f"{start}.{ffn}.fc2.bias"] = (WIDTH,)
        shapes[f"{start}.attn.in_proj_bias"] = (3 * WIDTH,)
        shapes[f"{start}.attn.out_proj.bias"] = (WIDTH,)
        shapes[f"{start}.conv.pointwise1.weight"] = (2 * WIDTH, WIDTH, 1)
        shapes[f"{start}.conv.pointwise1.bias"] = (2 * WIDTH,)
        shapes[f"{start}.conv.pointwise2.weight"] = (WIDTH, WIDTH, 1)
        shapes[f"{start}.conv.pointwise2.bias"] = (WIDTH,)
        shapes[f"onnx::Conv_{804 + 3 * block}"] = (WIDTH, 1, KERNEL)
        shapes[f"onnx::Conv_{805 + 3 * block}"] = (WIDTH,)
        products = {0: (WIDTH, FFN_WIDTH), 1: (FFN_WIDTH, WIDTH), 2: (WIDTH, 3 * WIDTH)}
        products |= {6: (WIDTH, WIDTH), 7: products[0], 8: products[1]}
        for offset, shape in products.items():
            shapes[f"onnx::MatMul_{829 + 9 * block + offset}"] = shape
    filters = np.random.default_rng(1).uniform(0, 0.1, (201, N_MELS)).astype(np.float32)
    return {"mel_fb": filters, **_random(shapes, 0)}


def encoder_arrays() -> Arrays:
    """Return the tensors of a small encoder.hama."""
    shapes = {
        "model.encoder_embedding.weight": (len(LETTERS), EMBEDDING),
        "model.frontend.depthwise.weight": (EMBEDDING, 1, 5),
        "model.frontend.pointwise.weight": (EMBEDDING, EMBEDDING, 1),
        "model.frontend.norm.weight": (EMBEDDING,),
        "model.frontend.norm.bias": (EMBEDDING,),
        "model.encoder_out_norm.weight": (2 * HIDDEN,),
        "model.encoder_out_norm.bias": (2 * HIDDEN,),
        "model.bridge.weight": (HIDDEN, 2 * HIDDEN),
        "model.bridge.bias": (HIDDEN,),
        "onnx::MatMul_532": (EMBEDDING, 2 * HIDDEN),
        "onnx::MatMul_539": (2 * HIDDEN, HIDDEN),
    }
    for first, width in ((483, EMBEDDING), (526, 2 * HIDDEN)):
        shapes[f"onnx::GRU_{first}"] = (2, 6 * HIDDEN)
        shapes[f"onnx::GRU_{first + 1}"] = (2, 3 * HIDDEN, width)
        shapes[f"onnx::GRU_{first + 2}"] = (2, 3 * HIDDEN, HIDDEN)
    return _random(shapes, 2, 0.7)


def decoder_arrays() -> Arrays:
    """Return the tensors of a small decoder_step.hama."""
    shapes = {
        "model.decoder_embedding.weight": (len(PHONES), EMBEDDING),
        "model.attention.location_conv.weight": (LOCATION, 1, 3),
        "model.context_proj.weight": (HIDDEN, 3 * HIDDEN),
        "model.context_proj.bias": (HIDDEN,),
        "model.output_in_proj.weight": (EMBEDDING, HIDDEN),
        "model.output_in_proj.bias": (EMBEDDING,),
        "onnx::MatMul_302": (EMBEDDING, HIDDEN),
        "onnx::MatMul_303": (HIDDEN, HIDDEN),
        "onnx::MatMul_304": (LOCATION, HIDDEN),
        "onnx::MatMul_305": (HIDDEN, 1),
        "onnx::MatMul_306": (EMBEDDING, len(PHONES)),
    }
    norms = {"decoder_state_norm": HIDDEN, "context_norm": 2 * HIDDEN, "fusion_norm": HIDDEN}
    for norm, width in norms.items():
        shapes[f"model.{norm}.weight"] = shapes[f"model.{norm}.bias"] = (width,)
    for first, width in ((279, EMBEDDING), (299, HIDDEN)):
        shapes[f"onnx::GRU_{first}"] = (1, 3 * HIDDEN, width)
        shapes[f"onnx::GRU_{first + 1}"] = (1, 3 * HIDDEN, HIDDEN)
        shapes[f"onnx::GRU_{first + 2}"] = (1, 6 * HIDDEN)
    return _random(shapes, 3, 0.7)


def write_packages(folder: Path) -> dict[str, str]:
    """Write the files of small wheels and return their digests."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = {"asr_waveform": ctc_arrays(), "encoder": encoder_arrays()}
    for name, arrays in {**packages, "decoder_step": decoder_arrays()}.items():
        (folder / f"{name}.hama").write_bytes(pack(arrays))
    tokens = json.dumps({"encoder": LETTERS, "decoder": PHONES})
    (folder / "g2p_vocab.json").write_text(tokens, encoding="utf-8")
    (folder / "cmudict.dict").write_text(DICTIONARY, encoding="utf-8")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
