"""Greedy transcripts by Whisper, cached on disk."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
from transformers.utils import logging

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.data.tables import write_table
from hearback.engine.devices import compute_dtype, mixed_precision
from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json, sha256_of
from hearback.reading.dataset import TrainingData

BATCH_SIZE = 16
MAX_TOKENS = 128  # several times the longest text; a longer transcript repeats itself
COLUMNS = ("filename", "audio", "transcript", "seconds")


class Transcriber:
    """A pretrained Whisper that transcribes greedily, in English.

    As in the original: 30 s of input padded with silence, its feature extractor and its prompt
    (Radford et al. 2022, arXiv 2212.04356); no timestamps, temperature fallback or beam search.
    `directory` is in Transformers' layout with all of Whisper's files; `precision` is as for
    `devices.compute_dtype`. Raises HearbackError if a file is missing.
    """

    def __init__(self, directory: Path, device: torch.device, precision: str = "auto") -> None:
        # Suppress warnings about settings of its own generate(), and a progress bar for 150 MB.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.device = device
        self.dtype = compute_dtype(device, precision)
        try:
            self.extractor = WhisperFeatureExtractor.from_pretrained(
                directory, local_files_only=True
            )
            self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            model = WhisperForConditionalGeneration.from_pretrained(
                directory, local_files_only=True, dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise HearbackError(
                f"{directory}: cannot transcribe with it ({error}); get all of its files with "
                "python -m hearback.engine.whisper.pretrained"
            ) from None
        self.model = model.eval()
        self.model.to(device)
        # The checkpoint's own settings define greedy search, suppressed tokens (no speech marks, no
        # sound effects) and the prompt.
        self.model.generation_config.max_length = MAX_TOKENS
        self.prompt: dict[str, str] = {}
        if self.model.generation_config.is_multilingual:  # English-only models take no language
            self.prompt = {"language": "en", "task": "transcribe"}

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Return the transcripts of waveforms, (n,) float32 at 16 kHz each, cut at 30 s."""
        features = self.extractor(
            list(waveforms), sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features.to(self.device)
        with mixed_precision(self.device, self.dtype):
            tokens = self.model.generate(
                features,
                # Whisper attends to the padding, too; without a mask generate() warns.
                attention_mask=torch.ones_like(features[:, 0], dtype=torch.long),
                do_sample=False,
                num_beams=1,
                **self.prompt,
            )
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


class TranscriptCache:
    """Transcripts by recording, in a CSV that is rewritten atomically after every batch.

    Keys are the filename and a digest of the samples, so a changed recording is transcribed again.
    `seconds` is the time that transcribing it took.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, str], tuple[str, float]] = {}
        if path.exists():
            # A transcript may be empty, or "NA".
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            if tuple(table.columns) != COLUMNS:
                raise HearbackError(f"{path}: not a table of transcripts; delete it")
            for filename, audio, transcript, seconds in table.itertuples(index=False):
                self.rows[filename, audio] = (transcript, float(seconds))

    def add(self, keys: Sequence[tuple[str, str]], texts: Sequence[str], seconds: float) -> None:
        """Add the transcripts of a batch, `seconds` each, and write the file."""
        for key, text in zip(keys, texts, strict=True):
            self.rows[key] = (text, seconds)
        lines = [(*key, *row) for key, row in self.rows.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_table(pd.DataFrame(lines, columns=list(COLUMNS)), self.path)


def cache_path(folder: Path, directory: Path, dtype: torch.dtype) -> Path:
    """Return the path of the transcripts by the backbone in `directory`, computed in `dtype`."""
    digest = sha256_of(directory / "model.safetensors")[:8]
    precision = str(dtype).removeprefix("torch.")
    return folder / f"transcripts_{directory.name}_{digest}_{precision}.csv"


def transcribe_missing(
    data: TrainingData,
    transcribe: Callable[[Sequence[np.ndarray]], list[str]],
    cache: TranscriptCache,
) -> pd.DataFrame:
    """Transcribe the recordings missing in `cache`; return transcript and seconds, a row per clip.

    A killed run resumes after its last complete batch.
    """
    source = data.source
    keys = [(name, _digest(source.learner(row))) for row, name in enumerate(source.filenames)]
    missing = [row for row, key in enumerate(keys) if key not in cache.rows]
    with tqdm(total=len(missing), desc="transcribing", unit="clip", disable=not missing) as bar:
        for start in range(0, len(missing), BATCH_SIZE):
            rows, started = missing[start : start + BATCH_SIZE], time.monotonic()
            texts = transcribe([source.learner(row) for row in rows])
            seconds = round((time.monotonic() - started) / len(rows), 3)
            cache.add([keys[row] for row in rows], texts, seconds)
            bar.update(len(rows))
    return pd.DataFrame([cache.rows[key] for key in keys], columns=["transcript", "seconds"])


def make_normaliser(directory: Path) -> EnglishTextNormalizer:
    """Return Whisper's English normaliser: case, punctuation, contractions, numbers, fillers.

    British spellings become American if the backbone has a list of them (`normalizer.json`).
    """
    spellings = directory / "normalizer.json"
    return EnglishTextNormalizer(read_json(spellings) if spellings.exists() else {})


def _digest(waveform: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(waveform).tobytes()).hexdigest()[:16]
