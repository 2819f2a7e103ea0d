"""Worker script of the separation `demucs`, run in Demucs' own environment.

    .venv-demucs/bin/python -I hearback/engine/worker/main.py \\
        hearback/songs/separation/demucs_worker.py --model_dir assets/demucs --device cpu

`hearback/engine/worker/main.py` runs it. It imports nothing of Hearback. Messages:

    ready   {"sample_rate": 44100, "model": "htdemucs", "package_version": "demucs 4.1.0"}
    in      {"audio": float32 little-endian mono samples at `sample_rate`, base64}
    out     {"audio": the voice, in the same format and length}
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOICE = "vocals"
# Demucs calls the class named in a weights file, which could be any function of any module. Only
# the classes of Demucs' published models are allowed.
CLASSES = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")


def check(path: Path) -> None:
    """Raise ValueError if a weights file is not that of an unquantised Demucs model."""
    from safetensors import safe_open  # noqa: PLC0415  (only in Demucs' environment, as all below)

    with safe_open(str(path), framework="np") as file:
        about = file.metadata() or {}
    if about.get("klass") not in CLASSES:
        raise ValueError(f"{path}: class {about.get('klass')} is not one of {CLASSES}")
    if "structure" in about:  # names further classes
        raise ValueError(f"{path} is quantised: choose another model, such as htdemucs")


class Separator:
    """A Demucs model, or a bag of models, on a device."""

    def __init__(self, model_dir: Path, device: str) -> None:
        import yaml  # noqa: PLC0415

        (recipe,) = model_dir.glob("*.yaml")
        bag = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        weights = [model_dir / f"{name}.safetensors" for name in bag["models"]]
        for path in weights:
            check(path)

        import torch  # noqa: PLC0415
        from demucs.apply import BagOfModels, apply_model  # noqa: PLC0415
        from demucs.hf import load_safetensors_model  # noqa: PLC0415

        models = [load_safetensors_model(path) for path in weights]
        self._model = BagOfModels(models, bag.get("weights"), bag.get("segment")).eval()
        if VOICE not in self._model.sources:
            raise ValueError(f"{recipe} separates {self._model.sources}, not {VOICE}")
        self._torch, self._apply, self._device = torch, apply_model, device
        self.info = {
            "sample_rate": int(self._model.samplerate),
            "model": recipe.stem,
            "package_version": f"demucs {importlib.metadata.version('demucs')}",
        }

    def separate(self, samples: bytearray) -> bytes:
        """Return the voice as mono float32 samples of the same length.

        Normalised as by the demucs command, but without random shifts, to be reproducible.
        """
        mono = self._torch.frombuffer(samples, dtype=self._torch.float32)
        mean, deviation = mono.mean(), mono.std() + 1e-8
        mix = ((mono - mean) / deviation).expand(1, self._model.audio_channels, -1)
        with self._torch.inference_mode():
            sources = self._apply(self._model, mix, shifts=0, device=self._device)[0]
        voice = sources[self._model.sources.index(VOICE)].mean(0) * deviation
        return voice.cpu().numpy().astype("<f4").tobytes()


def start(
    arguments: list[str],
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Load the model; return its description and the function that answers requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    separator = Separator(args.model_dir, args.device)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"audio": separator.separate(bytearray(base64.b64decode(request["audio"])))}

    return separator.info, answer
