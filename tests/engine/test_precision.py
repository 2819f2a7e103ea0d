"""Compute types, autocast and converted weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hearback.engine import devices
from hearback.engine.devices import compute_dtype, has_native_bf16, mixed_precision
from hearback.engine.errors import HearbackError
from hearback.engine.whisper.quantize import convert_weights
from hearback.reading.models.token_scorer import TokenScorer
from tests.reading.random_models import make_model
from train_model3mapd import RECIPE as ATTENTION
from train_modelali import RECIPE as ALIGNED
from train_modeltok import RECIPE as TOKENS

CPU = torch.device("cpu")


@pytest.fixture
def cpu_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fake /proc/cpuinfo of an x86 processor."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(devices, "_CPU_INFO", path)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return path


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_bf16", torch.bfloat16),
        ("fpu avx2 amx_bf16 amx_tile", torch.bfloat16),
        ("fpu avx2 avx512f avx512_vnni", torch.float32),
    ],
)
def test_auto_on_a_cpu_is_bf16_if_it_has_native_bf16(
    flags: str, expected: torch.dtype, cpu_info: Path
) -> None:
    cpu_info.write_text(f"processor\t: 0\nvendor_id\t: any\nflags\t\t: {flags}\n")
    assert compute_dtype(CPU) == expected


def test_auto_is_float32_if_the_processor_s_flags_are_unknown(
    cpu_info: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compute_dtype(CPU) == torch.float32
    cpu_info.write_text("Features : asimd avx512_bf16")
    assert compute_dtype(CPU) == torch.float32
    cpu_info.write_text("flags : avx512_bf16")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert compute_dtype(CPU) == torch.float32


@pytest.mark.skipif(
    not hasattr(torch.cpu, "_is_avx512_bf16_supported"), reason="this torch has no such query"
)
def test_the_processor_s_flags_agree_with_torch() -> None:
    known = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert has_native_bf16() == known


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "int8"])
def test_an_explicit_precision_is_used(name: str) -> None:
    assert compute_dtype(CPU, name) == getattr(torch, name)


def test_int8_is_for_cpus() -> None:
    with pytest.raises(HearbackError, match="--precision int8"):
        compute_dtype(torch.device("cuda"), "int8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_no_autocast_for_float32_and_int8(dtype: torch.dtype) -> None:
    with mixed_precision(CPU, dtype):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize("recipe", [ATTENTION, ALIGNED, TOKENS], ids=lambda recipe: recipe.name)
def test_the_backbone_s_weights_are_converted_and_the_head_s_are_not(
    tokenizer: Path, recipe: object
) -> None:
    model = make_model(recipe, tokenizer)  # type: ignore[arg-type]
    convert_weights(model, torch.bfloat16)
    assert model.encoder.layers[0].get_parameter("fc1.weight").dtype == torch.bfloat16
    assert model.encoder.layer_norm.weight.dtype == torch.float32
    assert model.encoder.embed_positions.weight.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.get_submodule("head").parameters())
    if isinstance(model, TokenScorer):
        assert model.decoder.layers[0].get_parameter("fc1.weight").dtype == torch.bfloat16
        assert model.decoder.embed_tokens.weight.dtype == torch.bfloat16
        assert model.decoder.embed_positions.weight.dtype == torch.float32


def test_int8_results_are_close_to_float32_but_not_equal(tokenizer: Path) -> None:
    model, quantised = make_model(TOKENS, tokenizer), make_model(TOKENS, tokenizer)
    convert_weights(quantised, torch.int8)
    log_mel = torch.randn(2, 80, 64)
    with torch.inference_mode():
        exact, approximate = model.encoder(log_mel), quantised.encoder(log_mel)
    assert not torch.equal(exact, approximate)
    torch.testing.assert_close(approximate, exact, atol=0.1, rtol=0)


def test_converting_to_float32_changes_nothing(tokenizer: Path) -> None:
    model = make_model(replace(ATTENTION, name="any"), tokenizer)
    convert_weights(model, torch.float32)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_a_gpu_that_emulates_bf16_computes_in_fp16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype(torch.device("cuda", 1)) == dtype
