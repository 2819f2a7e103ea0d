"""The worker of the voice `melo`: a script for MeloTTS's own Python environment.

    .venv-melo/bin/python -I hearback/engine/worker/main.py \\
        hearback/reading/voices/melo_worker.py --model_dir assets/tts_model --speed 0.7

`hearback/engine/worker/main.py` calls `start`, and passes it the requests. This script imports
nothing from Hearback and runs on Python 3.9 to 3.12.

    ready   {"sample_rate": 44100, "voice": ..., "package_version": ..., "weights": ...}
    in      {"text": "the cat", "seed": 7}
    out     {"audio": float32 little-endian samples}
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LANGUAGE = "EN_NEWEST"
SPEAKER = "EN-Newest"
HUB_ID = "myshell-ai/MeloTTS-English-v3"  # the repository of MeloTTS's EN_NEWEST
ENGLISH_BERT = "bert-base-uncased"


def skip_other_languages() -> None:
    """Make transformers load only the English tokenizer.

    On import, MeloTTS loads five other tokenizers (Japanese, Korean, Chinese, French, Spanish) that
    English never uses; an offline machine would need a folder for each.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  (slow, and only in MeloTTS's environment)

    load = AutoTokenizer.from_pretrained

    def load_english(name: str, *args: object, **options: object) -> object:
        return load(name, *args, **options) if name == ENGLISH_BERT else None

    AutoTokenizer.from_pretrained = load_english  # type: ignore[method-assign,assignment]


def locate(model_dir: Path, name: str) -> Path:
    """Return the path of MeloTTS's file `name`, in `model_dir` or downloaded from the hub."""
    if (model_dir / name).is_file():
        return model_dir / name
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    return Path(hf_hub_download(repo_id=HUB_ID, filename=name))


def package_version() -> str:
    """Return "melotts VERSION COMMIT", without the parts that pip has not recorded."""
    try:
        package = importlib.metadata.distribution("melotts")
    except importlib.metadata.PackageNotFoundError:
        return "melotts"
    origin = json.loads(package.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    return f"melotts {package.version}" + (f" {commit[:12]}" if commit else "")


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class Speaker:
    """MeloTTS, loaded."""

    def __init__(self, model_dir: Path, speed: float, device: str) -> None:
        skip_other_languages()
        import torch  # noqa: PLC0415
        from melo.api import TTS  # noqa: PLC0415

        config = locate(model_dir, "config.json")
        checkpoint = locate(model_dir, "checkpoint.pth")
        self._torch = torch
        self._speed = speed
        self._model = TTS(
            language=LANGUAGE, device=device, config_path=str(config), ckpt_path=str(checkpoint)
        )
        speakers = dict(self._model.hps.data.spk2id.items())
        if SPEAKER not in speakers:
            raise ValueError(f"{config} has no speaker {SPEAKER}; it has {sorted(speakers)}")
        self._speaker = speakers[SPEAKER]
        # MeloTTS loads BERT with its first text, which draws random numbers after seeding: without
        # a warm-up, the first text would not be reproducible.
        self.render("ready", 0)
        self.description = {
            "sample_rate": int(self._model.hps.data.sampling_rate),
            "voice": f"{LANGUAGE} {SPEAKER}",
            "package_version": package_version(),
            "weights": sha256_of(checkpoint),
        }

    def render(self, text: str, seed: int) -> bytes:
        """Return the text's samples as float32 little-endian bytes.

        torch is seeded first: MeloTTS samples the rhythm and the voice's noise.
        """
        self._torch.manual_seed(seed)
        audio = self._model.tts_to_file(text, self._speaker, None, speed=self._speed, quiet=True)
        return audio.astype("<f4").tobytes()


def start(
    arguments: list[str],
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Load MeloTTS; return its description, and the function that answers requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    speaker = Speaker(args.model_dir, args.speed, args.device)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"audio": speaker.render(request["text"], request["seed"])}

    return speaker.description, answer
