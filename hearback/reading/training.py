"""The reading competition's training task: scorers trained on pairs of clip and text."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import Tensor

from hearback.engine.data.batching import load_consecutively
from hearback.engine.errors import HearbackError
from hearback.engine.training import command, fold_files
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.engine.training.task import Evaluation, FoldRun, Task
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.backbone import Part, learning_rate_groups
from hearback.reading import text_normalizer
from hearback.reading.dataset import TrainingData
from hearback.reading.encoded import EncodedClips
from hearback.reading.inference.predict import predict
from hearback.reading.joined_clips import draw_fixed
from hearback.reading.models import load
from hearback.reading.models.backbones import open_backbone
from hearback.reading.models.base import Scorer, WhisperScorer
from hearback.reading.models.scorers import build, model_class
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.options import TrainingOptions
from hearback.reading.pairings import WITH_TEXT_EMBEDDING
from hearback.reading.pairs import PairDataset
from hearback.reading.pretrained_features import collect_features
from hearback.reading.recipe import Recipe, program_of
from hearback.reading.sampler import EpochSampler
from hearback.reading.scoring import statistics
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    WINDOW_SAMPLES,
    Batch,
    batch_by_window,
)
from hearback.reading.words import to_table

N_INIT_ROWS = 1000  # maximum number of clips to fit the pretrained initialization on


def train_fold(
    recipe: Recipe,
    fold: int,
    options: TrainingOptions,
    data: TrainingData,
    attempt: int = 1,
    *,
    program: Sequence[str] | None = None,
) -> FoldMetadata:
    """Train one fold of `recipe`; see `hearback.engine.training.command.train_fold`."""
    return command.train_fold(
        ReadingTask,
        recipe,
        fold,
        options,
        data,
        attempt=attempt,
        program=program or program_of(recipe),
    )


class ReadingTask(Task):
    """Trains a `Scorer`: the logit that the learner said the expected text."""

    def __init__(self, run: FoldRun[Recipe, TrainingOptions, TrainingData]) -> None:
        self.run = run
        self.recipe, self.data = run.recipe, run.data
        self.source = run.data.source  # with encoder outputs, if the recipe computes them once
        self.sampler = EpochSampler(run.recipe, run.data, run.train_rows)
        # Not the validation rows': how their words were read must not be known.
        learned = run.train_rows if run.recipe.uses_word_labels else ()
        self.word_labels = run.data.word_labels.kept(run.data.filenames[row] for row in learned)

    def build_model(self) -> Scorer:
        """Build the recipe's model with its backbone's pretrained weights."""
        recipe = self.recipe.with_labels_of_words(bool(self.word_labels))
        assets = self.run.options.assets
        backbone = open_backbone(recipe, assets)
        embedder = None
        if recipe.pair in WITH_TEXT_EMBEDDING and recipe.text_embedder is not None:
            embedder = TextEmbedder(pretrained.resolve(recipe.text_embedder, assets))
            load.describe_embedder(embedder, assets)  # raises if it is outside the assets
        model = build(recipe, backbone.config(), backbone.tokenizer, embedder)
        backbone.load_into(model)
        if recipe.warm_start is not None:
            self._load_encoder(model, FoldFiles(assets, recipe.warm_start, self.run.fold))
        if recipe.n_augmented:
            self.source = self.data.source.with_encoded(self._encode_once(model))
        return model

    def _encode_once(self, model: Scorer) -> EncodedClips:
        run = self.run
        assert isinstance(model, WhisperScorer)  # `Recipe` checks it
        return EncodedClips.open_or_build(
            model,
            self.data.source,
            self.recipe,
            run.options.store,
            draw_fixed(self.recipe, self.data),
            device=run.device,
            dtype=run.dtype,
            progress=f"{run.title} encoder",
        )

    def backbone_tensors(self) -> dict[Part, dict[str, Tensor]]:
        """Return the pretrained tensors of the recipe's parts of its backbone."""
        backbone = open_backbone(self.recipe, self.run.options.assets)
        return {part: backbone.tensors(part) for part in model_class(self.recipe).parts}

    def build_optimizer(self, model: Scorer) -> torch.optim.AdamW:
        """Return AdamW over the parameters that are not frozen."""
        return make_optimizer(model, self.recipe)

    def initialize(self, model: Scorer) -> bool:
        """Initialize the head from pretrained features of training rows, if the recipe does."""
        if not self.recipe.has_pretrained_init:
            return False
        rng = np.random.default_rng((self.recipe.data_seed, self.run.attempt))
        rows = rng.permutation(self.run.train_rows)[:N_INIT_ROWS]
        features = collect_features(
            model,
            self.data,
            self.source,
            rows,
            self.run.options.store,
            backbone=open_backbone(self.recipe, self.run.options.assets).directory,
            device=self.run.device,
            dtype=self.run.dtype,
            n_workers=self.run.n_workers,
            progress=f"{self.run.title} initialization",
        )
        model.init_from_pretrained(features, self.data.labels[rows])
        return True

    def learning_rate_factor(
        self, epochs_done: float, history: Sequence[Mapping[str, Any]]
    ) -> float:
        """Return the share of the peak learning rates."""
        return learning_rate_factor(self.recipe, epochs_done)

    def epoch_batches(self, model: Scorer, epochs: range) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Yield the number of pairs and the batches of each epoch."""
        recipe = self.recipe
        datasets = [self._dataset(model, epoch) for epoch in epochs]
        for n_examples, pairs in load_consecutively(datasets, self.run.n_workers):
            batches = batch_by_window(
                pairs,
                recipe.batch_size,
                recipe.window,
                recipe.window_step_seconds,
                longest=LONGEST_WINDOW_SAMPLES if recipe.joined_clips else WINDOW_SAMPLES,
                fill=True,
            )
            yield n_examples, batches

    def _dataset(self, model: Scorer, epoch: int) -> PairDataset:
        """Return an epoch's pairs; the same for every call."""
        recipe, seeds = self.recipe, self.run.seeds(epoch)
        return PairDataset(
            self.source,
            self.sampler.sample_epoch(np.random.default_rng(seeds)),
            recipe.pair,
            text_tokenizer=model.text_tokenizer,
            embedder=model.embedder,
            augmentations=(recipe.augment_reference, recipe.augment_learner),
            word_labels=self.word_labels,
            seeds=seeds,
        )

    def compute_logits(self, model: Scorer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits and the model's auxiliary loss, ()."""
        return model.training_step(batch)

    def compute_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the sum of the batch's log losses, ()."""
        return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")

    def evaluate(self, model: Scorer) -> Evaluation:
        """Predict the validation rows' clips and words, and compute the log loss of the clips.

        The predictions are `clips`, (rows,), and `words`, (rows, positions, 2), of a model that
        scores words.
        """
        predictions = predict(
            model,
            self.source,
            self.run.validation_rows,
            device=self.run.device,
            dtype=self.run.dtype,
            n_workers=self.run.n_workers,
            progress=f"{self.run.title} validation",
        )
        tensors = {"clips": torch.from_numpy(predictions.clips)}
        if predictions.words is not None:
            tensors["words"] = torch.from_numpy(predictions.words)
        return Evaluation({"validation_log_loss": self._log_loss(predictions.clips)}, tensors)

    def _log_loss(self, predictions: np.ndarray) -> float:
        labels = self.data.labels[self.run.validation_rows]
        return float(log_loss(labels, predictions, labels=[0, 1]))

    def out_of_fold(self, predictions: Mapping[str, Tensor]) -> dict[str, pd.DataFrame]:
        """Return the table `oof` of labels and predictions and, with word scores, `words`."""
        rows, source = self.run.validation_rows, self.data.source
        filenames = [source.filenames[row] for row in rows]
        clips = predictions["clips"].numpy()
        tables = {
            "oof": pd.DataFrame(
                {"filename": filenames, "score": self.data.labels[rows], "pred": clips}
            )
        }
        if "words" in predictions:
            texts = [source.texts[row] for row in rows]
            tables["words"] = to_table(filenames, texts, predictions["words"].numpy())
        return tables

    def describe(self, model: Scorer) -> dict[str, Any]:
        """Return the metadata of the data and of the model, with the shared files that it needs."""
        assets, tokenizer, embedder = self.run.options.assets, model.text_tokenizer, model.embedder
        base_rate = float(self.data.labels[self.run.train_rows].mean())
        constant = np.full(len(self.run.validation_rows), base_rate)
        return {
            "base_rate": base_rate,
            "base_rate_log_loss": self._log_loss(constant),
            "voice": self.data.source.references.voice if self.recipe.hears_reference else None,
            "text_normalizer": text_normalizer.VERSION,
            "recordings": statistics.describe(self.data.source, self.run.train_rows),
            "shape": model.backbone_config(),
            "tokenizer": load.save_tokenizer(tokenizer.path, assets) if tokenizer else None,
            "text_embedder": load.describe_embedder(embedder, assets) if embedder else None,
        }

    def _load_encoder(self, model: Scorer, files: FoldFiles) -> None:
        """Load the encoder of another model, trained on the same fold's training rows."""
        fold_metadata = fold_files.read_fold_metadata(files)
        keys = ("n_folds", "group_by", "limit", "data_fingerprint", "corrections")
        differing = [key for key in keys if fold_metadata.get(key) != self.run.run_key[key]]
        if fold_metadata["recipe"]["backbone"] != self.recipe.backbone:
            differing.append("backbone")
        if differing:  # its training rows might include validation rows of this fold
            raise HearbackError(
                f"{files.metadata}: {self.recipe.name} cannot start from it: it was trained with "
                f"another {', '.join(differing)}; train {files.model} again first"
            )
        trained = load.load_scorer(files, fold_metadata)
        assert isinstance(model, WhisperScorer) and isinstance(trained, WhisperScorer)
        model.encoder.load_state_dict(trained.encoder.state_dict())


def learning_rate_factor(recipe: Recipe, epochs_done: float) -> float:
    """Return the share of the peak learning rate after `epochs_done` epochs.

    A linear warm-up, then a cosine of `cycles` periods over `schedule_epochs`: 0.5 ends at zero,
    0.25 at one half (`transformers.get_cosine_schedule_with_warmup`'s `num_cycles`).
    """
    progress = epochs_done / recipe.schedule_epochs
    if progress < recipe.warmup_share:
        # Never zero: the first step would have no effect.
        return max(progress / recipe.warmup_share, 0.01)
    after = (progress - recipe.warmup_share) / (1 - recipe.warmup_share)
    return 0.5 * (1 + math.cos(2 * math.pi * recipe.cycles * after))


def make_optimizer(model: Scorer, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over the parameters that are not frozen, the head's with its own rate."""
    return torch.optim.AdamW(
        learning_rate_groups(model, recipe.learning_rate, recipe.head_learning_rate),
        betas=recipe.adam_betas,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
