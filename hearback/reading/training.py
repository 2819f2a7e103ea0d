"""One fold of one model, from pretrained weights to out-of-fold predictions."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import Tensor
from tqdm import tqdm

from hearback.engine.data.batching import load_in_turn
from hearback.engine.errors import HearbackError
from hearback.engine.training import fold_files, trainer
from hearback.engine.training.fold_files import FoldFiles, FoldMetadata
from hearback.engine.training.trainer import FoldTraining
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.backbone import learning_rate_groups
from hearback.reading.dataset import TrainingData
from hearback.reading.inference.predict import Predictions, collect, predict
from hearback.reading.models import load
from hearback.reading.models.scorers import Scorer, build
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import WITH_TEXT_EMBEDDING, PairDataset
from hearback.reading.recipe import Recipe
from hearback.reading.sampler import EpochSampler
from hearback.reading.window_batches import Batch, batched
from hearback.reading.words import to_table

N_INIT_ROWS = 1000  # clips that a start is fitted on, if there are as many


def main(recipe: Recipe) -> None:
    """Run a `train_model*.py`: train the fold that the command line asks for."""
    trainer.main(ReadingTraining, recipe)


def train_fold(
    recipe: Recipe,
    fold: int,
    options: TrainingOptions,
    data: TrainingData,
    attempt: int = 1,
    *,
    program: Sequence[str] | None = None,
) -> FoldMetadata:
    """Train one fold of `recipe`: `fold_training.train_fold`."""
    return trainer.train_fold(
        ReadingTraining, recipe, fold, options, data, attempt=attempt, program=program
    )


class ReadingTraining(FoldTraining[Recipe, TrainingData, Scorer, Batch, Predictions]):
    """Training of a model that says how likely a learner said a text."""

    OPTIONS = TrainingOptions

    @classmethod
    def program_of(cls, recipe: Recipe) -> tuple[str, ...]:
        """Return the model's own script."""
        return (f"train_{recipe.name}.py",)

    def build_model(self) -> Scorer:
        """Build the recipe's model from its backbone."""
        recipe, assets = self.recipe, self.options.assets
        backbone = pretrained.resolve(recipe.backbone, assets)
        self.tokenizer = backbone / "tokenizer.json"
        embedder = None
        if recipe.pair in WITH_TEXT_EMBEDDING and recipe.text_embedder is not None:
            embedder = TextEmbedder(pretrained.resolve(recipe.text_embedder, assets))
        self.text_embedder = embedder and load.name_embedder(embedder, assets)
        model = build(recipe, pretrained.read_config(backbone), self.tokenizer, embedder)
        model.load_pretrained(
            {part: pretrained.read_tensors(backbone, part) for part in model.parts}
        )
        if recipe.warm_start is not None:
            self._load_encoder(model, FoldFiles(assets, recipe.warm_start, self.fold))
        self.sampler = EpochSampler(recipe, self.data, self.train_rows)
        return model

    def make_optimizer(self) -> torch.optim.AdamW:
        """Return AdamW over what is not frozen."""
        return make_optimizer(self.model, self.recipe)

    def learning_rate_factor(self, epochs_done: float) -> float:
        """Return the share of the peak learning rates after `epochs_done` epochs."""
        return learning_rate_factor(self.recipe, epochs_done)

    def start(self) -> None:
        """Begin with what the untrained backbone knows, where the model can: that is epoch 0."""
        if not self.recipe.has_pretrained_init:
            return
        started = time.monotonic()
        rng = np.random.default_rng((self.recipe.data_seed, self.attempt))
        rows = rng.permutation(self.train_rows)[:N_INIT_ROWS]

        def measure(model: Scorer, batch: Batch) -> Tensor:
            features = model.pretrained_features(batch)
            assert features is not None  # the recipe says that there is a start
            return features

        features = collect(
            self.model,
            self.data.source,
            rows,
            measure,
            device=self.device,
            dtype=self.dtype,
            n_workers=self.workers,
            progress=f"{self.recipe.name} fold {self.fold} start",
        )
        self.model.init_from_pretrained(features, self.data.labels[rows])
        if self.average is not None:
            self.average.module.load_state_dict(self.model.state_dict())
        record = self._validate({"epoch": 0, "train_seconds": round(time.monotonic() - started, 2)})
        tqdm.write(
            f"{self.recipe.name} fold {self.fold} start: "
            f"validation {record['validation_log_loss']:.4f}"
        )

    def load_epochs(self, epochs: range) -> Iterator[tuple[int, Iterator[Batch]]]:
        """Give the number of examples and the batches of each of these epochs, counted from 0."""
        recipe = self.recipe
        datasets = [self._dataset(epoch) for epoch in epochs]
        for n_examples, pairs in load_in_turn(datasets, self.workers):
            yield (
                n_examples,
                batched(
                    pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds, fill=True
                ),
            )

    def _dataset(self, epoch: int) -> PairDataset:
        """Return an epoch's pairs, the same whenever it is asked for."""
        recipe = self.recipe
        seeds = (recipe.data_seed, self.attempt, epoch)
        return PairDataset(
            self.data.source,
            self.sampler.draw(np.random.default_rng(seeds)),
            recipe.pair,
            reader=self.model.reader,
            embedder=self.model.embedder,
            augmentations=(recipe.augment_reference, recipe.augment_learner),
            seeds=seeds,
        )

    def compute_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (batch,) logits to be judged by the labels, and () what else there is to lose."""
        return self.model.training_step(batch)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the sum over the batch of the log losses."""
        return F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="sum")

    def predict(self, model: Scorer) -> Predictions:
        """Predict the validation rows."""
        return predict(
            model,
            self.data.source,
            self.validation_rows,
            device=self.device,
            dtype=self.dtype,
            n_workers=self.workers,
        )

    def restore_predictions(self, tensors: Mapping[str, Tensor]) -> Predictions | None:
        """Return the predictions among a checkpoint's tensors, None where there are none."""
        return Predictions.from_tensors(tensors) if "predictions.clips" in tensors else None

    def measure(self, predictions: Predictions) -> dict[str, float]:
        """Return the log loss."""
        return {"validation_log_loss": self._log_loss(predictions.clips)}

    def base_rate(self) -> float:
        """Return the share of the training rows that say their text."""
        return float(self.data.labels[self.train_rows].mean())

    def base_rate_log_loss(self) -> float:
        """Return the log loss of that on the validation rows."""
        return self._log_loss(np.full(len(self.validation_rows), self.base_rate()))

    def _log_loss(self, predictions: np.ndarray) -> float:
        labels = self.data.labels[self.validation_rows]
        return float(log_loss(labels, predictions, labels=[0, 1]))

    def describe(self) -> dict[str, Any]:
        """Return what a metadata says of the model and its inputs."""
        return {
            "voice": self.data.source.references.voice,
            "shape": self.model.shape(),
            "tokenizer": (
                load.keep_tokenizer(self.tokenizer, self.files.assets)
                if self.model.reader
                else None
            ),
            "text_embedder": self.text_embedder,
        }

    def out_of_fold(self, predictions: Predictions) -> pd.DataFrame:
        """Return the validation rows with their label and prediction."""
        rows, data = self.validation_rows, self.data
        filenames = [data.filenames[row] for row in rows]
        return pd.DataFrame(
            {"filename": filenames, "score": data.labels[rows], "pred": predictions.clips}
        )

    def words(self, predictions: Predictions) -> pd.DataFrame | None:
        """Return the table of the validation rows' words, where the model scores them."""
        if predictions.words is None:
            return None
        source = self.data.source
        filenames = [source.filenames[row] for row in self.validation_rows]
        texts = [source.texts[row] for row in self.validation_rows]
        return to_table(filenames, texts, predictions.words)

    def _load_encoder(self, model: Scorer, files: FoldFiles) -> None:
        """Take over the encoder that another model trained on this very fold's training rows."""
        fold_metadata = fold_files.read_fold_metadata(files)
        keys = ("n_folds", "group_by", "limit", "data_fingerprint")
        differing = [key for key in keys if fold_metadata[key] != self.run_key[key]]
        if fold_metadata["recipe"]["backbone"] != self.recipe.backbone:
            differing.append("backbone")
        if differing:  # a validation row of this fold could have been in its training
            raise HearbackError(
                f"{files.metadata}: {self.recipe.name} cannot start from it, it was trained with "
                f"another {', '.join(differing)}; train {files.model} again first"
            )
        encoder = load.load_scorer(files, fold_metadata).encoder
        model.encoder.load_state_dict(encoder.state_dict())


def learning_rate_factor(recipe: Recipe, epochs_done: float) -> float:
    """Return the share of the peak learning rate after `epochs_done` epochs.

    A linear warm-up, then a cosine of `cycles` periods over `schedule_epochs`: 0.5 ends at zero,
    0.25 at a half (`transformers.get_cosine_schedule_with_warmup`'s `num_cycles`).
    """
    progress = epochs_done / recipe.schedule_epochs
    if progress < recipe.warmup_share:
        # Never zero: the first step would be lost.
        return max(progress / recipe.warmup_share, 0.01)
    after = (progress - recipe.warmup_share) / (1 - recipe.warmup_share)
    return 0.5 * (1 + math.cos(2 * math.pi * recipe.cycles * after))


def make_optimizer(model: Scorer, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over what is not frozen; the head may have a learning rate of its own."""
    return torch.optim.AdamW(
        learning_rate_groups(model, recipe.learning_rate, recipe.head_learning_rate),
        betas=recipe.adam_betas,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
