"""Sentence embeddings of expected texts, from a frozen pretrained embedder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json

BATCH_SIZE = 32
POOLINGS: dict[str, Literal["first", "mean"]] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
}


class TextEmbedder:
    """A frozen sentence embedder on the CPU, from a directory in Transformers' layout.

    `modules.json` and the pooling's `config.json`, written by sentence-transformers, specify the
    pooling over tokens, mean (all-MiniLM-L6-v2) or first token (bge-large-en-v1.5), and whether
    vectors are normalised to length 1 (Reimers & Gurevych, "Sentence-BERT", EMNLP 2019, section 3).
    Embeddings are cached by text.
    """

    def __init__(self, directory: Path) -> None:
        """Load the embedder.

        Raises:
            HearbackError: it is missing or incomplete, or its modules are not supported.
        """
        self.directory = directory
        self._pooling, self._normalise = _read_modules(directory)
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  (few models need it)
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()  # loading takes a second
        try:
            # Explicit: by default Transformers asks at the terminal whether to run remote code.
            options = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer = AutoTokenizer.from_pretrained(directory, **options)
            model = AutoModel.from_pretrained(directory, **options, use_safetensors=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise HearbackError(f"{directory}: not a text embedder ({error})") from None
        self._model = model.float().eval().requires_grad_(False)
        self._embeddings: dict[str, np.ndarray] = {}

    def __deepcopy__(self, memo: object) -> Self:
        """Return the embedder itself: it is immutable, so copies of a model share it."""
        return self

    @property
    def width(self) -> int:
        """Width of the vectors."""
        return int(self._model.config.hidden_size)

    @property
    def weights_path(self) -> Path:
        """Path of the weights file; its digest identifies the embedder."""
        return self.directory / "model.safetensors"

    def embed(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the vector of each text, (width,) float32."""
        unique = list(dict.fromkeys(texts))
        # Sorted by length: less padding.
        new = sorted((text for text in unique if text not in self._embeddings), key=len)
        for start in range(0, len(new), BATCH_SIZE):
            batch = new[start : start + BATCH_SIZE]
            vectors = self._embed_batch(batch).numpy()
            self._embeddings |= dict(zip(batch, vectors, strict=True))
        return {text: self._embeddings[text] for text in unique}

    @torch.inference_mode()
    def _embed_batch(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._model.config.max_position_embeddings,
            return_tensors="pt",
        )
        with torch.autocast("cpu", enabled=False):
            hidden = self._model(**tokens).last_hidden_state
        if self._pooling == "first":
            pooled = hidden[:, 0]
        else:
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return F.normalize(pooled, dim=1) if self._normalise else pooled


def _read_modules(directory: Path) -> tuple[Literal["first", "mean"], bool]:
    """Return the pooling over tokens, and whether vectors are normalised to length 1."""
    if not (directory / "modules.json").is_file():
        raise HearbackError(
            f"{directory}: not a text embedder: it has no modules.json. Download one with "
            "`python -m hearback.engine.whisper.pretrained all-MiniLM-L6-v2`, "
            "or copy the one used in training"
        )
    modules = read_json(directory / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise HearbackError(f"{directory}: the modules {', '.join(kinds)} are not supported")
    settings = read_json(directory / modules[1]["path"] / "config.json")
    modes = [name for name, value in settings.items() if name.startswith("pooling_mode") and value]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise HearbackError(f"{directory}: the pooling {', '.join(modes)} is not supported")
    return POOLINGS[modes[0]], kinds[-1] == "Normalize"
