"""The standard stack, as the second place of "Goodnight Moon, Hello Early Literacy" used it.

A fair reimplementation with public libraries: the same work on the same clips with the same recipe
as ours, without the original's slow spots (a workaround for a loss in half precision, too many
threads).

- Clips, in every epoch and for every model: `librosa.load` of learner and reference, augmentation
  with librosa's pitch shifting and time stretching and with pyworld, one waveform of 16 s, log-mel
  by `WhisperFeatureExtractor(chunk_length=16)`.
- Model: the encoder of `transformers.WhisperModel` with 800 positions for any clip length, mean
  pooling, a linear head.
- Step: AdamW; on a GPU, fp16 with loss scaling, gradient checkpointing, `empty_cache()`.
- Inference: one model after the other, over all data.
- Weights: a grid search of one model's weight at a time, by scikit-learn's `log_loss`.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pyworld
import torch
from safetensors.torch import load_file
from sklearn.metrics import log_loss
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.clips import Clips
from hearback.reading.augment import Augmentation
from hearback.reading.pairs import encode_context
from hearback.reading.recipe import Recipe

SAMPLE_RATE = 16_000
CHUNK_SECONDS = 16
N_POSITIONS = 800  # of 20 ms
SAMPLES_PER_POSITION = 320
MAX_GRADIENT_NORM = 20_000.0
MIN_POWER = 1e-16  # WORLD's synthesis needs positive powers
GRID = np.linspace(0, 1, 21)


class ClipDataset(Dataset[dict[str, Any]]):
    """The clips, loaded from their files and optionally augmented; (80, 1600) features each."""

    def __init__(
        self, clips: Clips, n_mels: int, augmentation: Augmentation | None = None, seed: int = 0
    ) -> None:
        metadata = clips.data.metadata
        self.recordings = [clips.folder / name for name in metadata["filename"]]
        with (clips.tts_data / "data_paths.csv").open(encoding="utf-8", newline="") as file:
            paths = {line["text"]: clips.tts_data / line["path"] for line in csv.DictReader(file)}
        self.references = [paths[text] for text in metadata["expected_text"]]
        self.contexts = [
            encode_context(task, grade)
            for task, grade in zip(metadata["task"], metadata["grade"], strict=True)
        ]
        self.labels = clips.data.labels
        self.augmentation = augmentation
        self.seed = seed
        self.extractor = WhisperFeatureExtractor(
            feature_size=n_mels, chunk_length=CHUNK_SECONDS, sampling_rate=SAMPLE_RATE
        )

    @cached_property
    def rng(self) -> np.random.Generator:
        """The process's random generator; torch seeds each worker differently."""
        return np.random.default_rng((self.seed, torch.initial_seed() % 2**32))

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.recordings)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Load, augment and transform one clip."""
        learner, _ = librosa.load(self.recordings[row], sr=SAMPLE_RATE)
        reference, _ = librosa.load(self.references[row], sr=SAMPLE_RATE)
        if self.augmentation is not None:
            learner = augment(learner, self.augmentation, self.rng)
        joined = np.concatenate([reference, learner])[: CHUNK_SECONDS * SAMPLE_RATE]
        extracted = self.extractor(joined, sampling_rate=SAMPLE_RATE, return_tensors="np")
        return {
            "features": extracted["input_features"][0],
            "context": self.contexts[row],
            "label": np.float32(self.labels[row]),
            "n_frames": -(-len(joined) // SAMPLES_PER_POSITION),
            "row": row,
        }


def augment(
    waveform: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Return a waveform, (n,) float32, with the random effects of augmentation A."""
    if rng.random() < augmentation.pitch:
        steps = rng.uniform(-augmentation.pitch_semitones, augmentation.pitch_semitones)
        waveform = librosa.effects.pitch_shift(waveform, sr=SAMPLE_RATE, n_steps=steps)
    if rng.random() < augmentation.stretch:
        rate = rng.uniform(augmentation.stretch_low, augmentation.stretch_high)
        waveform = librosa.effects.time_stretch(waveform, rate=rate)
    if rng.random() < augmentation.noise:
        waveform = waveform + rng.normal(0, augmentation.noise_std, len(waveform))
    if rng.random() < augmentation.gain:
        waveform = waveform * rng.uniform(augmentation.gain_low, augmentation.gain_high)
    if rng.random() < augmentation.envelope:
        waveform = warp_envelope(
            waveform, augmentation.envelope_std, augmentation.envelope_mean, rng
        )
    return waveform.astype(np.float32)


def warp_envelope(
    waveform: np.ndarray, std: float, mean: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a waveform, (n,), with noise on the power of WORLD's spectral envelope."""
    f0, envelope, aperiodicity = pyworld.wav2world(waveform.astype(np.float64), SAMPLE_RATE)
    changed = np.maximum(envelope + rng.normal(mean, std, envelope.shape), MIN_POWER)
    return pyworld.synthesize(f0, changed, aperiodicity, SAMPLE_RATE)


class Shares(Sampler[int]):
    """The indices of `n_clips` clips in random order, one share of them per iteration.

    The baseline's cost does not depend on a clip's length, so a share represents the epoch.
    """

    def __init__(self, n_clips: int, n_shares: int, seed: int) -> None:
        self.n_clips, self.n_shares = n_clips, n_shares
        self.rng = np.random.default_rng(seed)
        self.remaining: list[np.ndarray] = []

    def __len__(self) -> int:
        """Return the maximum number of clips in a share."""
        return math.ceil(self.n_clips / self.n_shares)

    def __iter__(self) -> Iterator[int]:
        """Return the next share, in a new order after the last one."""
        if not self.remaining:
            self.remaining = np.array_split(self.rng.permutation(self.n_clips), self.n_shares)
        return iter(self.remaining.pop().tolist())


class Comparison(nn.Module):
    """Encoder, mean over the frames, concatenation with task and grade, linear layer."""

    def __init__(self, config: Mapping[str, Any], dropout: float) -> None:
        super().__init__()
        public = WhisperConfig(**{**config, "max_source_positions": N_POSITIONS})
        self.encoder = WhisperEncoder(public)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(public.d_model + 2, 1)

    def forward(self, features: Tensor, context: Tensor, n_frames: Tensor) -> Tensor:
        """Map (batch, mel bins, 1600), (batch, 2) and (batch,) to (batch,) float32 logits.

        The mean excludes padding, as ours does, so that the scores can be compared.
        """
        frames = self.dropout(self.encoder(features).last_hidden_state)
        mask = torch.arange(N_POSITIONS, device=frames.device) < n_frames[:, None]
        pooled = (frames * mask[..., None]).sum(1) / n_frames[:, None]
        return self.classifier(torch.cat([pooled, context], dim=1)).squeeze(1).float()

    def load_ours(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the weights of our mean-pooled joined comparison, by its names."""
        renamed = {
            name.replace("head.classifier.", "classifier."): tensor.float()
            for name, tensor in tensors.items()
            if name.startswith(("encoder.", "head.classifier."))
        }
        self.load_state_dict(renamed)


class Training:
    """The training of one model, one share of an epoch per turn."""

    def __init__(
        self,
        clips: Clips,
        recipe: Recipe,
        config: Mapping[str, Any],
        encoder: Mapping[str, Tensor],
        *,
        device: torch.device,
        n_workers: int,
        n_shares: int = 1,
    ) -> None:
        self.device = device
        torch.manual_seed(recipe.seed)
        model = Comparison(config, recipe.dropout)
        positions = "embed_positions.weight"
        model.encoder.load_state_dict({**encoder, positions: encoder[positions][:N_POSITIONS]})
        self.half = device.type == "cuda"
        if self.half:  # a CPU has enough memory, and checkpointing costs time
            model.encoder.gradient_checkpointing_enable()
        self.model = model.to(device).train()
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.learning_rate,
            betas=recipe.adam_betas,
            eps=recipe.adam_epsilon,
            weight_decay=recipe.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half)
        self.loss = nn.BCEWithLogitsLoss()
        self.loader = DataLoader(
            ClipDataset(clips, config["num_mel_bins"], recipe.augment_learner, recipe.data_seed),
            batch_size=recipe.batch_size,
            sampler=Shares(len(clips), n_shares, recipe.data_seed),
            num_workers=n_workers,
            pin_memory=self.half,
            persistent_workers=n_workers > 0,
        )

    def run_share(self) -> float:
        """Train on one share; return the number of clips."""
        n_clips = 0
        for batch in self.loader:
            self._step({name: tensor.to(self.device) for name, tensor in batch.items()})
            n_clips += len(batch["row"])
        return float(n_clips)

    def _step(self, batch: Mapping[str, Tensor]) -> float:
        self.optimizer.zero_grad()
        with _half_precision(self.device):
            logits = self.model(batch["features"], batch["context"], batch["n_frames"])
        loss = self.loss(logits, batch["label"])
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.half:
            torch.cuda.empty_cache()
        return loss.item()


def predict(
    clips: Clips,
    models: Mapping[Path, float],
    config: Mapping[str, Any],
    *,
    batch_size: int,
    device: torch.device,
    n_workers: int,
) -> np.ndarray:
    """Return the models' weighted mean probabilities, (clips,), one pass over the clips each.

    `models` maps weight files of our mean-pooled joined comparison to ensemble weights.
    """
    mean = np.zeros(len(clips))
    for path, weight in models.items():
        model = Comparison(config, dropout=0.0)
        model.load_ours(load_file(path))
        mean += weight * predict_with(
            model, clips, batch_size=batch_size, device=device, n_workers=n_workers
        )
    return mean


@torch.inference_mode()
def predict_with(
    model: Comparison, clips: Clips, *, batch_size: int, device: torch.device, n_workers: int
) -> np.ndarray:
    """Return a model's probabilities, (clips,), one pass over the clips, from the files on."""
    model.to(device).eval()
    loader = DataLoader(
        ClipDataset(clips, model.encoder.config.num_mel_bins),
        batch_size=batch_size,
        num_workers=n_workers,
        pin_memory=device.type == "cuda",
    )
    predicted = np.zeros(len(clips))
    for batch in loader:
        features, context, n_frames = (
            batch[name].to(device) for name in ("features", "context", "n_frames")
        )
        with _half_precision(device):
            logits = model(features, context, n_frames)
        predicted[batch["row"].numpy()] = logits.sigmoid().double().cpu().numpy()
    return predicted


def features_of(clips: Clips, recipe: Recipe, n_mels: int) -> list[int]:
    """Load, augment and transform all clips in batches; return the rows of all batches."""
    dataset = ClipDataset(clips, n_mels, recipe.augment_learner, recipe.data_seed)
    loader = DataLoader(dataset, batch_size=recipe.batch_size, shuffle=True)
    return [row for batch in loader for row in batch["row"].tolist()]


def search_weights(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return weights, (models,), that sum to one, by grid search on (models, rows) predictions.

    Sweeps over the models, trying all of `GRID` for one weight at a time (normalised), until a
    sweep finds no improvement.
    """
    weights = np.full(len(predictions), 1 / len(predictions))
    best = log_loss(labels, weights @ predictions)
    improved = True
    while improved:
        improved = False
        for model in range(len(weights)):
            for value in GRID:
                candidate = weights.copy()
                candidate[model] = value
                if not candidate.sum():
                    continue
                candidate /= candidate.sum()
                loss = log_loss(labels, candidate @ predictions)
                if loss < best:
                    best, weights, improved = loss, candidate, True
    return weights


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the compute type: float16 on a GPU, float32 on a CPU."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _half_precision(device: torch.device) -> torch.autocast:
    enabled = device.type == "cuda"
    return torch.autocast(device.type, compute_dtype(device) if enabled else None, enabled=enabled)
