"""Converting CTranslate2 models, written by these tests in its format."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hearback.engine.errors import HearbackError
from hearback.engine.whisper import ctranslate2
from hearback.engine.whisper.ctranslate2_reader import read_variables

D_MODEL, FFN, HEADS, MELS, POSITIONS, ENGLISH = 4, 8, 2, 3, 6, 51_864
TYPE_IDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}

Stored = tuple[str, np.ndarray]  # type, values in the type that has these bytes


def pack_text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write_model_bin(
    path: Path,
    variables: dict[str, Stored],
    aliases: dict[str, str],
    version: int = 6,
    spec: tuple[str, int] = ("WhisperSpec", 3),
) -> None:
    """Write CTranslate2's format, as its model_spec.py does."""
    parts = [struct.pack("<I", version), pack_text(spec[0]), struct.pack("<I", spec[1])]
    parts.append(struct.pack("<I", len(variables)))
    for name, (kind, values) in variables.items():
        parts += [pack_text(name), struct.pack("<B", values.ndim)]
        parts += [struct.pack("<I", size) for size in values.shape]
        parts += [struct.pack("<BI", TYPE_IDS[kind], values.nbytes), values.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [pack_text(text) for pair in aliases.items() for text in pair]
    path.write_bytes(b"".join(parts))


def whisper(n_layers: int = 2) -> dict[str, np.ndarray]:
    """Make the tensors of a tiny Whisper under CTranslate2's names, all different."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tensors: dict[str, np.ndarray] = {
        "encoder/conv1/weight": random(D_MODEL, MELS, 3),
        "encoder/conv1/bias": random(D_MODEL),
        "encoder/conv2/weight": random(D_MODEL, D_MODEL, 3),
        "encoder/conv2/bias": random(D_MODEL),
        "decoder/embeddings/weight": random(ENGLISH, D_MODEL),
    }

    def norm(name: str) -> None:
        tensors[f"{name}/gamma"], tensors[f"{name}/beta"] = random(D_MODEL), random(D_MODEL)

    def linear(name: str, rows: int, columns: int = D_MODEL) -> None:
        tensors[f"{name}/weight"], tensors[f"{name}/bias"] = random(rows, columns), random(rows)

    for side in ("encoder", "decoder"):
        tensors[f"{side}/position_encodings/encodings"] = random(POSITIONS, D_MODEL)
        norm(f"{side}/layer_norm")
        for layer in (f"{side}/layer_{index}" for index in range(n_layers)):
            norm(f"{layer}/self_attention/layer_norm")
            linear(f"{layer}/self_attention/linear_0", 3 * D_MODEL)
            tensors[f"{layer}/self_attention/linear_0/bias"][D_MODEL : 2 * D_MODEL] = 0
            linear(f"{layer}/self_attention/linear_1", D_MODEL)
            norm(f"{layer}/ffn/layer_norm")
            linear(f"{layer}/ffn/linear_0", FFN)
            linear(f"{layer}/ffn/linear_1", D_MODEL, FFN)
            if side == "decoder":
                norm(f"{layer}/attention/layer_norm")
                linear(f"{layer}/attention/linear_0", D_MODEL)
                linear(f"{layer}/attention/linear_1", 2 * D_MODEL)
                tensors[f"{layer}/attention/linear_1/bias"][:D_MODEL] = 0
                linear(f"{layer}/attention/linear_2", D_MODEL)
    return tensors


def as_float32(values: np.ndarray) -> Stored:
    return "float32", values.astype("<f4")


def as_float16(values: np.ndarray) -> Stored:
    return "float16", values.astype("<f2")


def as_bfloat16(values: np.ndarray) -> Stored:
    return "bfloat16", (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def stored_as(
    tensors: dict[str, np.ndarray], convert: Callable[[np.ndarray], Stored]
) -> dict[str, Stored]:
    return {name: convert(values) for name, values in tensors.items()}


def quantised(tensors: dict[str, np.ndarray], bits: int) -> dict[str, Stored]:
    """Quantise weights as CTranslate2 does: int8 a scale per row, int16 one scale."""
    stored: dict[str, Stored] = {}
    for name, values in tensors.items():
        if not name.endswith("/weight"):
            stored[name] = as_float32(values)
        elif bits == 8:
            rows = values.reshape(len(values), -1)
            scale = (127 / np.abs(rows).max(axis=1)).astype("<f4")
            whole = np.rint(rows * scale[:, None]).astype("<i1").reshape(values.shape)
            stored[name], stored[f"{name}_scale"] = ("int8", whole), ("float32", scale)
        else:
            scale = np.asarray(1024 / np.abs(values).max(), "<f4")
            stored[name] = ("int16", np.rint(values * scale).astype("<i2"))
            stored[f"{name}_scale"] = ("float32", scale)
    return stored


SETTINGS: dict[str, Stored] = {
    "encoder/num_heads": ("int16", np.asarray(HEADS, "<i2")),
    "decoder/num_heads": ("int16", np.asarray(HEADS, "<i2")),
    "decoder/pre_norm": ("int8", np.asarray(1, "<i1")),
}
TIED = {"decoder/projection/weight": "decoder/embeddings/weight"}


def write_faster_whisper(folder: Path, variables: dict[str, Stored]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_model_bin(folder / "model.bin", variables | SETTINGS, TIED)
    settings = {"suppress_ids": [1, 2], "suppress_ids_begin": [220], "alignment_heads": [[0, 1]]}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def convert(folder: Path, variables: dict[str, Stored]) -> Path:
    target = folder / "converted"
    target.mkdir()
    ctranslate2.convert(write_faster_whisper(folder / "source", variables), target)
    return target


def test_tensors_have_the_names_and_shapes_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    target = convert(tmp_path, stored_as(whisper(), as_float32))
    config = WhisperConfig.from_pretrained(target)
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    expected = {n: tuple(p.shape) for n, p in model.state_dict().items() if n != "proj_out.weight"}
    state = load_file(target / "model.safetensors")
    assert {name: values.shape for name, values in state.items()} == expected
    assert config.encoder_attention_heads == HEADS
    assert (config.decoder_start_token_id, config.eos_token_id) == (50_257, 50_256)


def test_fused_projections_are_split_in_order(tmp_path: Path) -> None:
    tensors = whisper()
    target = convert(tmp_path, stored_as(tensors, as_float32))
    state = load_file(target / "model.safetensors")
    fused = tensors["decoder/layer_1/self_attention/linear_0/weight"]
    for index, part in enumerate("qkv"):
        np.testing.assert_array_equal(
            state[f"model.decoder.layers.1.self_attn.{part}_proj.weight"],
            fused[index * D_MODEL : (index + 1) * D_MODEL],
        )
    fused, bias = (tensors[f"decoder/layer_0/attention/linear_1/{n}"] for n in ("weight", "bias"))
    cross = "model.decoder.layers.0.encoder_attn"
    np.testing.assert_array_equal(state[f"{cross}.k_proj.weight"], fused[:D_MODEL])
    np.testing.assert_array_equal(state[f"{cross}.v_proj.weight"], fused[D_MODEL:])
    np.testing.assert_array_equal(state[f"{cross}.v_proj.bias"], bias[D_MODEL:])
    np.testing.assert_array_equal(
        state[f"{cross}.q_proj.weight"], tensors["decoder/layer_0/attention/linear_0/weight"]
    )


@pytest.mark.parametrize(
    ("store", "tolerance"),
    [
        (lambda tensors: stored_as(tensors, as_float32), 0),
        (lambda tensors: stored_as(tensors, as_float16), 2e-3),
        (lambda tensors: stored_as(tensors, as_bfloat16), 4e-2),
        (lambda tensors: quantised(tensors, 8), 2e-2),
        (lambda tensors: quantised(tensors, 16), 4e-3),
    ],
    ids=["float32", "float16", "bfloat16", "int8", "int16"],
)
def test_every_type_gives_the_same_model(
    tmp_path: Path, store: Callable[[dict], dict[str, Stored]], tolerance: float
) -> None:
    tensors = whisper(n_layers=1)
    target = convert(tmp_path, store(tensors))
    state = load_file(target / "model.safetensors")
    for name, expected in {
        "model.encoder.conv1.weight": tensors["encoder/conv1/weight"],
        "model.encoder.layers.0.fc2.weight": tensors["encoder/layer_0/ffn/linear_1/weight"],
        "model.encoder.layer_norm.bias": tensors["encoder/layer_norm/beta"],
        "model.decoder.embed_tokens.weight": tensors["decoder/embeddings/weight"],
    }.items():
        assert state[name].dtype == np.float32
        np.testing.assert_allclose(state[name], expected, atol=tolerance)


def test_an_alias_has_the_values_of_its_variable(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    write_model_bin(path, {"a": ("float32", values)}, {"b": "a"})
    np.testing.assert_array_equal(read_variables(path)["b"], values)


def test_an_alias_of_a_missing_variable_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_model_bin(path, {}, {"b": "a"})
    with pytest.raises(HearbackError, match="b is an alias of missing a"):
        read_variables(path)


def test_a_file_cut_anywhere_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    variables = {"a/weight": as_float32(np.ones((2, 3))), "b": as_float16(np.ones(4))}
    write_model_bin(path, variables, {"c": "b"})
    whole = path.read_bytes()
    read_variables(path)
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(HearbackError, match="truncated"):
            read_variables(path)


def test_an_empty_or_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with pytest.raises(HearbackError, match="missing"):
        read_variables(path)
    path.touch()
    with pytest.raises(HearbackError, match="empty"):
        read_variables(path)


def test_other_versions_and_models_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_model_bin(path, {}, {}, version=5)
    with pytest.raises(HearbackError, match="binary version 5"):
        read_variables(path)
    write_model_bin(path, {}, {}, spec=("TransformerSpec", 7))
    with pytest.raises(HearbackError, match="TransformerSpec revision 7"):
        read_variables(path)


def test_an_unknown_type_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bin"
    monkeypatch.setitem(TYPE_IDS, "float32", 9)
    write_model_bin(path, {"a": as_float32(np.ones(2))}, {})
    with pytest.raises(HearbackError, match="a has unknown type 9"):
        read_variables(path)


def test_a_size_that_does_not_match_the_shape_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_model_bin(path, {"a": ("float32", np.ones(2, "<f8"))}, {})
    with pytest.raises(HearbackError, match="16 bytes"):
        read_variables(path)


def spoil_key_bias(variables: dict[str, Stored]) -> None:
    variables["encoder/layer_0/self_attention/linear_0/bias"][1][D_MODEL] = 1


def drop_norm(variables: dict[str, Stored]) -> None:
    del variables["encoder/layer_norm/beta"]


def add_tensor(variables: dict[str, Stored]) -> None:
    variables["encoder/layer_0/ffn/linear_2/weight"] = as_float32(np.ones(2))


def quantise_without_scale(variables: dict[str, Stored]) -> None:
    variables["encoder/conv1/weight"] = ("int8", np.ones((D_MODEL, MELS, 3), "<i1"))


def scale_wrongly(variables: dict[str, Stored]) -> None:
    quantise_without_scale(variables)
    variables["encoder/conv1/weight_scale"] = as_float32(np.ones(D_MODEL + 1))


def quantise_by_awq(variables: dict[str, Stored]) -> None:
    variables["encoder/layer_0/ffn/linear_0/weight_zero"] = as_float32(np.ones(2))


def break_fusion(variables: dict[str, Stored]) -> None:
    variables["encoder/layer_0/self_attention/linear_0/weight"] = as_float32(np.ones((7, D_MODEL)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_key_bias, "keys have a bias"),
        (drop_norm, "no tensor encoder/layer_norm/beta"),
        (add_tensor, "does not have: encoder/layer_0/ffn/linear_2/weight"),
        (quantise_without_scale, "int8 without a scale"),
        (scale_wrongly, "scales of shape"),
        (quantise_by_awq, "AWQ"),
        (break_fusion, "not qkv fused"),
    ],
)
def test_tensors_of_another_architecture_are_rejected(
    tmp_path: Path, spoil: Callable[[dict[str, Stored]], None], message: str
) -> None:
    variables = stored_as(whisper(n_layers=1), as_float32)
    spoil(variables)
    with pytest.raises(HearbackError, match=message) as caught:
        convert(tmp_path, variables)
    assert str(tmp_path / "source") in str(caught.value)


def test_an_untied_projection_is_rejected() -> None:
    tensors = whisper(n_layers=1)
    tensors["decoder/projection/weight"] = tensors["decoder/embeddings/weight"] + 1
    with pytest.raises(HearbackError, match="projection"):
        ctranslate2.to_transformers(tensors)


def test_special_ids_are_openais() -> None:
    # Published values: tiny.en, base, large-v3.
    for vocab_size, end, transcribe, no_timestamps in [
        (51_864, 50_256, 50_358, 50_362),
        (51_865, 50_257, 50_359, 50_363),
        (51_866, 50_257, 50_360, 50_364),
    ]:
        ids = ctranslate2.special_ids(vocab_size)
        assert ids["<|endoftext|>"] == end
        assert ids["<|startoftranscript|>"] == end + 1
        assert ids["<|transcribe|>"] == transcribe
        assert ids["<|notimestamps|>"] == no_timestamps


def tokenizer(ids: dict[str, int]) -> dict:
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    added = [
        {"id": token_id, "content": text, **dict.fromkeys(flags, False), "special": True}
        for text, token_id in ids.items()
    ]
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    return {"version": "1.0", "added_tokens": added, "model": model}


def test_a_tokenizer_is_converted_with_the_model(tmp_path: Path) -> None:
    source = write_faster_whisper(tmp_path / "source", stored_as(whisper(1), as_float32))
    text = json.dumps(tokenizer(ctranslate2.special_ids(ENGLISH)))
    (source / "tokenizer.json").write_text(text)
    target = tmp_path / "target"
    target.mkdir()
    assert ctranslate2.convert(source, target)
    assert (target / "tokenizer.json").read_text() == text
    assert (target / "merges.txt").read_text().splitlines()[1] == "a b"
    assert json.loads((target / "vocab.json").read_text())["ab"] == 2
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [1, 2]
    assert generation["is_multilingual"] is False


def test_a_tokenizer_of_another_model_is_rejected(tmp_path: Path) -> None:
    source = write_faster_whisper(tmp_path / "source", stored_as(whisper(1), as_float32))
    text = json.dumps(tokenizer(ctranslate2.special_ids(51_865)))
    (source / "tokenizer.json").write_text(text)
    with pytest.raises(HearbackError, match="do not match"):
        ctranslate2.convert(source, tmp_path)


def test_damaged_json_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    source = write_faster_whisper(tmp_path / "source", stored_as(whisper(1), as_float32))
    (source / "config.json").write_text("{")
    with pytest.raises(HearbackError, match="source: a JSON file"):
        ctranslate2.convert(source, tmp_path)
