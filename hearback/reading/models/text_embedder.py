"""Expected texts as vectors of meaning, from a pretrained text embedder that stays as it is."""

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
    """A sentence embedder in a directory of Transformers' layout, on the CPU, not trained.

    `modules.json` and the pooling's `config.json`, which sentence-transformers writes beside the
    weights, say how tokens become one vector: their mean (all-MiniLM-L6-v2) or the first of them
    (bge-large-en-v1.5), and whether it is brought to length one. Reimers & Gurevych,
    "Sentence-BERT", EMNLP 2019, section 3. Every text is embedded once.
    """

    def __init__(self, directory: Path) -> None:
        """Load the embedder; HearbackError where it is not there, not whole, or pools otherwise."""
        self.directory = directory
        self._pooling, self._has_length_one = _read_modules(directory)
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  (few models need it)
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()  # it loads in a second
        try:
            # Said, for what is not said is asked at the terminal: code in the directory is not run.
            options = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer = AutoTokenizer.from_pretrained(directory, **options)
            model = AutoModel.from_pretrained(directory, **options, use_safetensors=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise HearbackError(f"{directory}: not a text embedder ({error})") from None
        self._model = model.float().eval().requires_grad_(False)
        self._embeddings: dict[str, np.ndarray] = {}

    def __deepcopy__(self, memo: object) -> Self:
        """Return the embedder itself: it does not change, so a copy of a model shares it."""
        return self

    @property
    def width(self) -> int:
        """The length of the vectors."""
        return int(self._model.config.hidden_size)

    @property
    def weights(self) -> Path:
        """The file whose digest tells this embedder from another."""
        return self.directory / "model.safetensors"

    def embed(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Return each text's vector, (width,) float32."""
        wanted = list(dict.fromkeys(texts))
        # Texts of a length together: less padding.
        new = sorted((text for text in wanted if text not in self._embeddings), key=len)
        for start in range(0, len(new), BATCH_SIZE):
            batch = new[start : start + BATCH_SIZE]
            vectors = self._embed_batch(batch).numpy()
            self._embeddings |= dict(zip(batch, vectors, strict=True))
        return {text: self._embeddings[text] for text in wanted}

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
            of_text = tokens["attention_mask"][..., None].to(hidden.dtype)
            pooled = (hidden * of_text).sum(1) / of_text.sum(1)
        return F.normalize(pooled, dim=1) if self._has_length_one else pooled


def _read_modules(directory: Path) -> tuple[Literal["first", "mean"], bool]:
    """Return how the embedder pools its tokens, and whether its vectors have length one."""
    if not (directory / "modules.json").is_file():
        raise HearbackError(
            f"{directory}: no text embedder, it has no modules.json. Bring one with "
            "`python -m hearback.engine.whisper.pretrained all-MiniLM-L6-v2`, or copy the one of the training"
        )
    modules = read_json(directory / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise HearbackError(f"{directory}: made of {', '.join(kinds)}: that is not supported")
    settings = read_json(directory / modules[1]["path"] / "config.json")
    modes = [name for name, value in settings.items() if name.startswith("pooling_mode") and value]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise HearbackError(f"{directory}: pools by {', '.join(modes)}: that is not supported")
    return POOLINGS[modes[0]], kinds[-1] == "Normalize"
