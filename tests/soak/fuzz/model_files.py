"""Damaged or malicious model files: weights, metadata, configurations, stores."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import FileStore
from hearback.engine.audio.store_format import SPEECH
from hearback.engine.ensemble.calibration import Calibration
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.engine.training import checkpoint, fold_files
from hearback.engine.training.fold_files import FoldFiles
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.engine.whisper.weights import read_config, read_tensors
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.evaluation import read_out_of_fold
from hearback.reading.models import load
from hearback.reading.models.scorers import build
from hearback.reading.tables import TASKS
from tests.soak.fuzz.audio_files import speech
from tests.soak.fuzz.damage import DAMAGES
from tests.soak.fuzz.outcomes import READ, REFUSED, Outcome, check_message
from tests.soak.fuzz.texts import tokenizer_json
from train_model2ds import RECIPE as MODEL_2DS


class Poison:
    """An object that runs code when it is unpickled: `record_execution`."""

    executed = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """Make pickle call `record_execution`."""
        return record_execution, ()


def record_execution() -> None:
    """Record that a pickle was loaded."""
    Poison.executed = True


RUN_KEY = {"recipe_fingerprint": "0", "n_folds": 2, "data_fingerprint": "0"}
SHAPE = {
    "d_model": 4,
    "encoder_layers": 1,
    "encoder_attention_heads": 1,
    "encoder_ffn_dim": 4,
    "num_mel_bins": 8,
}
RECIPE = replace(MODEL_2DS, name="modelx")
FILES = {
    "metadata": "assets/modelx_0.json",
    "weights": "assets/modelx_0.safetensors",
    "out-of-fold table": "assets/modelx_0.oof.csv",
    "checkpoint": "assets/modelx_0.checkpoint",
    "configuration": "model_configs.json",
    "backbone's configuration": "assets/backbone/config.json",
    "backbone's weights": "assets/backbone/model.safetensors",
    "backbone's index": "assets/backbone/model.safetensors.index.json",
    "tokenizer": "assets/tokenizer.json",
    "store's index": "store/train.json",
    "store's samples": "store/train.0.pcm",
}


def make_assets(folder: Path) -> None:
    """Write one valid file of each kind that belongs to a model."""
    files = FoldFiles(folder / "assets", RECIPE.name, 0)
    torch.manual_seed(0)
    scorer = build(RECIPE, SHAPE)
    oof = pd.DataFrame({"filename": ["a.wav", "b.wav"], "score": [0.0, 1.0], "pred": [0.2, 0.7]})
    fold_metadata = {
        **RUN_KEY,
        "recipe": RECIPE.as_dict(),
        "shape": SHAPE,
        "tokenizer": None,
        "base_rate": 0.5,
        "group_by": None,
        "limit": None,
        "seconds": 1.0,
        "n_validation": 2,
        "retrain_command": "python train_modelx.py",
        "epochs": [{"validation_log_loss": 0.5}],
        "voice": {"backend": "none"},
    }
    fold_files.save_fold(files, scorer.state_dict(), oof, fold_metadata)
    checkpoint.save_checkpoint(files.checkpoint, scorer.state_dict(), {"run_key": RUN_KEY})
    config = EnsembleConfig(
        (ModelConfig(RECIPE.name, (0,), 1.0),), {"backend": "none"}, {"all": 0.5}, {}, 2,
        calibration=Calibration(),
    )  # fmt: skip
    config.save(folder / "model_configs.json")
    backbone = folder / "assets" / "backbone"
    tensors = {f"model.encoder.{n}": t.clone() for n, t in scorer.encoder.state_dict().items()}
    backbone.mkdir()
    save_file(tensors, backbone / "model.safetensors")
    weight_map = dict.fromkeys(tensors, "one.safetensors")
    write_json(backbone / "model.safetensors.index.json", {"weight_map": weight_map})
    write_json(backbone / "config.json", {"model_type": "whisper", **SHAPE})
    (folder / "assets" / "tokenizer.json").write_bytes(tokenizer_json())
    samples = (speech(np.random.default_rng(0)) * 32_767).astype("<i2")
    (folder / FILES["store's samples"]).write_bytes(samples.tobytes())
    entry: dict[str, Any] = {
        "offset": 0,
        "n_samples": len(samples),
        "source_size": 1,
        "source_mtime_ns": 1,
    }
    entry |= {"sha256": "0", "notes": []}
    index: dict[str, Any] = {
        "version": SPEECH.version,
        "dtype": "<i2",
        "sample_rate": SAMPLE_RATE,
        "data": "train.0.pcm",
    }
    index |= {"n_samples": len(samples), "recordings": {"a.wav": entry}}
    write_json(folder / FILES["store's index"], index)


def read_model(target: str, folder: Path) -> None:
    """Load the part of a model that the file belongs to, as the steps do."""
    assets = folder / "assets"
    files = FoldFiles(assets, RECIPE.name, 0)
    if target in ("metadata", "weights"):
        load.load_scorer(files, fold_files.read_fold_metadata(files))
    if target in ("metadata", "out-of-fold table"):
        read_out_of_fold(assets)
        fold_files.why_not_done(files, RUN_KEY)
    if target == "checkpoint":
        checkpoint.load_checkpoint(files.checkpoint, RUN_KEY)
    if target == "configuration":
        config = EnsembleConfig.load(folder / "model_configs.json")
        for model in config.models_to_run:
            for fold in model.folds:
                path = FoldFiles(assets, model.name, fold).metadata
                assert path.parent.resolve() == assets.resolve(), f"{path} is not in the assets"
                fold_files.read_fold_metadata(FoldFiles(assets, model.name, fold))
        config.predict(np.full((len(config.models_to_run), 2), 0.5), np.array(["KG", "1"]))
        config.base_rate(TASKS[0])
    if target.startswith("backbone"):
        if target == "backbone's index":
            (assets / "backbone" / "model.safetensors").rename(
                assets / "backbone" / "one.safetensors"
            )
        read_config(assets / "backbone")
        read_tensors(assets / "backbone", "encoder")
    if target == "tokenizer":
        TextTokenizer(assets / "tokenizer.json").encode("the cat")
    if target.startswith("store"):
        store = FileStore(folder / "store", "train")
        for name in ("a.wav", "b.wav"):
            if name in store:
                store.n_samples(name)
                store.get(name)
        store.fingerprint()


ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 3, 2**40, 10**30, 1.5, float("nan"), float("inf"), "", "x", "0",
    "../../x", "/etc/passwd", "model.safetensors", "\0", [], [[]], ["x"], {}, {"x": 1},
    "x" * 10_000, ".", "..",
)  # fmt: skip


def odd_json_value(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a value of a JSON document, or delete it."""
    document = json.loads(content)
    value = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    if rng.random() < 0.1:
        return json.dumps(value).encode()
    node = document
    while True:
        keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = keys[rng.integers(len(keys))]
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
            if isinstance(node, dict) and rng.random() < 0.2:
                del node[key]
            else:
                node[key] = value
            break
        node = node[key]
    return json.dumps(document).encode()


def deep_json(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return JSON nested deeper than any parser's stack."""
    n = 100_000
    return (b"[" * n + b"]" * n, b'{"a":' * n + b"1" + b"}" * n, b"[" * n)[rng.integers(3)]


Poisoner = Callable[[Path, bytes, np.random.Generator], Any]
POISONS: Mapping[str, Poisoner] = {
    "damaged": lambda path, content, rng: path.write_bytes(
        DAMAGES[rng.integers(len(DAMAGES))](content, rng)
    ),
    "pickle": lambda path, _, rng: path.write_bytes(
        pickle.dumps({"model": Poison()}, protocol=int(rng.integers(6)))
    ),
    "torch.save": lambda path, _, __: torch.save({"model": Poison()}, path),
    "folder": lambda path, _, __: path.mkdir(),
    "pipe": lambda path, _, __: os.mkfifo(path),
    "link to nothing": lambda path, _, __: path.symlink_to("nothing"),
    "empty": lambda path, _, __: path.touch(),
    "gone": lambda _, __, ___: None,
}
JSON_POISONS: Mapping[str, Poisoner] = {
    "odd value": lambda path, content, rng: path.write_bytes(odd_json_value(content, rng)),
    "deep": lambda path, content, rng: path.write_bytes(deep_json(content, rng)),
}

# Files that other projects load and this one never opens.
PICKLES = ("pytorch_model.bin", "modelx_0.pth", "modelx_0.bin", "modelx_0.pt", "modelx_0.ckpt")


def try_model(rng: np.random.Generator, folder: Path) -> Outcome:
    """Damage or replace a file of a model, put pickles beside it, and load it."""
    make_assets(folder)
    target = list(FILES)[rng.integers(len(FILES))]
    path = folder / FILES[target]
    kinds = list(POISONS)
    if path.suffix == ".json" and rng.random() < 0.7:
        kinds = ["odd value"] * 12 + ["deep"]
    kind = kinds[rng.integers(len(kinds))]
    content = path.read_bytes()
    path.unlink()
    {**POISONS, **JSON_POISONS}[kind](path, content, rng)
    for name in PICKLES:
        for directory in (folder / "assets", folder / "assets" / "backbone"):
            torch.save(Poison(), directory / name)
    Poison.executed = False
    try:
        read_model(target, folder)
        result = READ
    except HearbackError as error:
        check_message(error, path)
        result = REFUSED
    assert not Poison.executed, f"the {target} ran code"
    return Outcome(f"models: {kind}", result)
