"""MeloTTS's half of the voice `melo`: a script for the Python that has MeloTTS, and no other.

    .venv-melo/bin/python -I hearback/worker_main.py hearback/voices/melo_worker.py \\
        --model_dir assets/tts_model --speed 0.7

It is served by `worker_main.py`, imports nothing of Hearback and runs on Python 3.9 to 3.12.

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
HUB_ID = "myshell-ai/MeloTTS-English-v3"  # what MeloTTS's own EN_NEWEST stands for
ENGLISH_BERT = "bert-base-uncased"


def skip_other_languages() -> None:
    """Load no tokenizer but English's.

    MeloTTS loads five others when it is imported (Japanese, Korean, Chinese, French, Spanish) that
    English never uses. Without this each would be one more folder to bring to an offline machine.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  (slow, and only in MeloTTS's environment)

    load = AutoTokenizer.from_pretrained

    def load_english(name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return load(name, *args, **options) if name == ENGLISH_BERT else None

    AutoTokenizer.from_pretrained = load_english  # type: ignore[method-assign,assignment]


def locate(model_dir: Path, name: str) -> Path:
    """Return the path of MeloTTS's file `name`: in `model_dir`, else from the hub."""
    if (model_dir / name).is_file():
        return model_dir / name
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    return Path(hf_hub_download(repo_id=HUB_ID, filename=name))


def package_version() -> str:
    """Return "melotts VERSION COMMIT", without what pip has not recorded."""
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
        # MeloTTS loads BERT with its first text, which draws random numbers after the seed: without
        # a text before all others, the first one would sound different the next time.
        self.say("ready", 0)
        self.told = {
            "sample_rate": int(self._model.hps.data.sampling_rate),
            "voice": f"{LANGUAGE} {SPEAKER}",
            "package_version": package_version(),
            "weights": sha256_of(checkpoint),
        }

    def say(self, text: str, seed: int) -> bytes:
        """Return the text's samples as float32 little-endian bytes.

        torch is seeded first: MeloTTS draws the rhythm and the voice's noise at random.
        """
        self._torch.manual_seed(seed)
        audio = self._model.tts_to_file(text, self._speaker, None, speed=self._speed, quiet=True)
        return audio.astype("<f4").tobytes()


def start(
    arguments: list[str],
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Load MeloTTS; return what it is, and the function that says texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    speaker = Speaker(args.model_dir, args.speed, args.device)
    return speaker.told, lambda request: {"audio": speaker.say(request["text"], request["seed"])}
