"""The submission.zip of every competition: only what is needed, checked before it is written."""

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.project import ROOT
from hearback.engine.submission import archive
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.submission import pack as reading_pack
from hearback.songs.submission import pack as songs_pack
from tests.reading.inference_data import write_submission_data
from tests.songs.inference_data import packing_options


@dataclass(frozen=True)
class Packing:
    """A competition's packing of three folds.

    Attributes:
        folds: names of the packed folds.
        needed, not_needed: names of modules in the competition's room.
        others: entries of the archive that only this competition has.
        train_command: the command to train the first of `folds`.
    """

    name: str
    options: Any
    pack: Callable[[Any], Path]
    folds: tuple[str, str, str]
    needed: tuple[str, ...]
    not_needed: tuple[str, ...]
    others: tuple[str, ...]
    train_command: str

    def files(self, number: int) -> FoldFiles:
        """Return the files of one of `folds`."""
        model, _, fold = self.folds[number].rpartition("_")
        return FoldFiles(self.options.assets, model, int(fold))

    def packed(self) -> set[str]:
        """Pack, and return the names in the archive."""
        with zipfile.ZipFile(self.pack(self.options)) as file:
            names = file.namelist()
        assert len(names) == len(set(names))
        return set(names)


@pytest.fixture
def reading(make_corpus: Callable[..., Path], tokenizer: Path) -> Packing:
    """Models with random weights."""
    return Packing(
        name="reading",
        options=write_submission_data(make_corpus(n_train=6), tokenizer),
        pack=reading_pack.pack,
        folds=("modeltok_0", "model2ds_1", "modeltok_1"),
        needed=("steps/infer", "inference/submission", "voices/hibari"),
        not_needed=(
            "training",
            "sampler",
            "hard_negatives/generator",
            "submission/pack",
            "steps/train",
        ),
        others=("infer_flags.json", "tts_data", "packages"),
        train_command="python train_modeltok.py --fold 0",
    )


@pytest.fixture
def songs(trained: Path, tmp_path: Path) -> Packing:
    """Trained folds, copied because the tests damage them."""
    options = packing_options(tmp_path, trained)
    shutil.copytree(options.assets, tmp_path / "assets")
    return Packing(
        name="songs",
        options=replace(options, assets=tmp_path / "assets"),
        pack=songs_pack.pack,
        folds=("cnn4_0", "cnn4_1", "cnn4_repet_0"),
        needed=("steps/infer", "separation/methods"),
        not_needed=("training", "submission/pack", "submission/dry_run", "corpora/sample"),
        others=(),
        train_command="python -m hearback.songs train",
    )


@pytest.fixture(params=["reading", "songs"])
def packing(request: pytest.FixtureRequest) -> Packing:
    """Each competition's."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Packing)
    return found


def test_only_the_code_that_infer_needs_is_packed(packing: Packing) -> None:
    code = {name for name in packing.packed() if re.fullmatch(r"hearback/.*\.py", name)}
    # No module of another competition.
    assert {name.split("/")[1] for name in code} == {"__init__.py", "engine", packing.name}
    room = f"hearback/{packing.name}"
    needed = {f"{room}/{name}.py" for name in packing.needed}
    assert {"hearback/__init__.py", "hearback/engine/submission/runtime.py", *needed} < code
    not_needed = {f"{room}/{name}.py" for name in packing.not_needed}
    assert all((ROOT / path).is_file() for path in not_needed)
    for name in ("submission/archive", "training/trainer", "whisper/faster_whisper"):
        not_needed.add(f"hearback/engine/{name}.py")
    assert not not_needed & code


def test_the_chosen_folds_and_nothing_else_of_the_assets_are_packed(packing: Packing) -> None:
    for name in ("evil.pth", "modeltok_0.pkl", "pytorch_model.bin", f"{packing.folds[0]}.pt"):
        (packing.options.assets / name).write_bytes(b"pickle")
    (packing.options.assets / f"{packing.folds[0]}.checkpoint").write_bytes(b"under way")
    packed = packing.packed()
    folds = {name for name in packed if name.startswith("assets/") and "tokenizer" not in name}
    assert folds == {
        f"assets/{fold}.{suffix}" for fold in packing.folds for suffix in ("json", "safetensors")
    }
    entries = {"hearback", "assets", "main.py", "model_configs.json", "VERSION", *packing.others}
    assert {name.split("/")[0] for name in packed} == entries


def test_equal_inputs_give_equal_bytes(packing: Packing) -> None:
    first = sha256_of(packing.pack(packing.options))
    for path in packing.options.assets.iterdir():
        path.chmod(0o600)
        os.utime(path, (0, 0))
    again = packing.options.submission.with_name("again.zip")
    assert sha256_of(packing.pack(replace(packing.options, submission=again))) == first


def test_all_faults_are_reported_at_once(packing: Packing) -> None:
    packing.files(0).metadata.unlink()
    packing.files(1).weights.unlink()
    with packing.files(2).weights.open("ab") as file:
        file.write(b"more")
    with pytest.raises(HearbackError) as raised:
        packing.pack(packing.options)
    message = str(raised.value)
    first, second, third = packing.folds
    assert f"{first}.json: missing; train it with {packing.train_command}" in message
    assert f"{second}.safetensors: not there; copy it here, or train it with python" in message
    assert f"{third}.safetensors: its digest differs from the one in {third}.json" in message
    assert not packing.options.submission.exists()


def test_a_zip_above_the_limit_is_not_written(packing: Packing) -> None:
    packing.options.submission.write_bytes(b"an earlier one")
    limit = r"more than --limit_gb 1e-06: not written. Run fewer (models|folds): python"
    with pytest.raises(HearbackError, match=limit):
        packing.pack(replace(packing.options, limit_gb=1e-6))
    assert packing.options.submission.read_bytes() == b"an earlier one"


def test_packing_fails_where_the_runtime_lacks_an_import(
    packing: Packing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = archive.RUNTIME.read_text().replace("soxr==", "not-soxr==")
    (tmp_path / "runtime.txt").write_text(pins)
    module = {"reading": reading_pack, "songs": songs_pack}[packing.name]
    monkeypatch.setattr(module, "RUNTIME", tmp_path / "runtime.txt")
    with pytest.raises(HearbackError, match=r"hearback\.engine.*: imports soxr, which is neither"):
        packing.pack(packing.options)
    assert not packing.options.submission.exists()
