"""Classifiers of spectrograms or waveforms, with one logit per class."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.errors import HearbackError
from hearback.engine.whisper.backbone import BackboneModel, Part
from hearback.engine.whisper.encoder import EncoderConfig, WhisperEncoder
from hearback.engine.whisper.heads import Pooler
from hearback.songs.models.convolutions import unroll_small
from hearback.songs.recipe import SongRecipe
from hearback.songs.tables import N_CLASSES

RESNET34_DEPTHS = (3, 4, 6, 3)
RESNET34_WIDTHS = (64, 128, 256, 512)
CNN4_WIDTHS = (32, 64, 128, 256)


class SongModel(BackboneModel, ABC):
    """Maps a batch of features to float32 logits, (batch, N_CLASSES).

    `parts` names the parts of the backbone; models trained from scratch have none.
    """

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, *shape of the features) to (batch, N_CLASSES) float32 logits."""

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the backbone's parts; raise HearbackError if `tensors` has other parts."""
        if set(tensors) != set(self.parts):
            raise HearbackError(
                f"a {type(self).__name__} needs the pretrained parts {list(self.parts)}, "
                f"not {sorted(tensors)}"
            )

    def backbone_config(self) -> dict[str, int]:
        """Return the backbone's sizes, named as in a Transformers `config.json`."""
        return {}


class SpectrogramModel(SongModel):
    """An image network on spectrograms, (batch, frames, bands), as images of one channel.

    The published systems' input normalisation is unknown. Here inputs are z-scored with one mean
    and standard deviation of the training data, by a batch normalisation without parameters.
    Z-scoring each snippet would remove its level, which is informative: after separation, a snippet
    without a voice is nearly silent.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        # Cumulative average instead of momentum: unlike activations, inputs do not drift.
        self.normalise = nn.BatchNorm2d(1, affine=False, momentum=None)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, N_CLASSES)

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Map (batch, 1, frames, bands) to (batch, width)."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, frames, bands) to (batch, N_CLASSES) float32 logits."""
        embedding = self.embed(self.normalise(features.unsqueeze(1)))
        return self.classifier(self.dropout(embedding)).float()


class ResNet34(SpectrogramModel):
    """ResNet-34, trained from scratch.

    He et al., "Deep Residual Learning for Image Recognition", 2015, table 1 and section 4.1,
    including the initialisation and the strides in the first convolution of a block. The stem
    "3x3 stride 1" replaces the first convolution only; the max-pooling after it stays.
    """

    def __init__(self, recipe: SongRecipe) -> None:
        super().__init__(RESNET34_WIDTHS[-1], recipe.dropout)
        n_stem = RESNET34_WIDTHS[0]
        self.network = ResNetModel(
            ResNetConfig(
                num_channels=1,
                embedding_size=n_stem,
                hidden_sizes=list(RESNET34_WIDTHS),
                depths=list(RESNET34_DEPTHS),
                layer_type="basic",
            )
        )
        if recipe.stem == "3x3 stride 1":
            first = nn.Conv2d(1, n_stem, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
            self.network.embedder.embedder.convolution = first
        unroll_small(self.network)

    def embed(self, images: Tensor) -> Tensor:
        """Map (batch, 1, frames, bands) to (batch, 512)."""
        return self.network(images).pooler_output.flatten(1)


class Cnn4(SpectrogramModel):
    """Four convolution layers, trained from scratch.

    Only the number of layers is published. Here each convolution is 3×3, as in Simonyan and
    Zisserman (2015), followed by batch normalisation, ReLU and 2×2 max-pooling; the width doubles
    with each layer. Global average pooling allows any number of frames.
    """

    def __init__(self, recipe: SongRecipe) -> None:
        super().__init__(CNN4_WIDTHS[-1], recipe.dropout)
        layers: list[nn.Module] = []
        for n_in, n_out in zip((1, *CNN4_WIDTHS), CNN4_WIDTHS, strict=False):
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.layers = nn.Sequential(*layers)

    def embed(self, images: Tensor) -> Tensor:
        """Map (batch, 1, frames, bands), 16 or more of both, to (batch, 256)."""
        return self.layers(images).mean(dim=(2, 3))


class WhisperClassifier(SongModel):
    """A pretrained Whisper encoder on the waveform, with pooling and a linear layer.

    The input is normalised as in Whisper: the log-mel spectrogram is floored 80 dB below its
    maximum.
    """

    parts = ("encoder",)

    def __init__(self, recipe: SongRecipe, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.frozen_share = recipe.frozen_share
        self.encoder = WhisperEncoder(EncoderConfig.from_config(config))
        self.pooler = Pooler(
            self.encoder.config.d_model,
            pooling="attention+mean",
            dropout=recipe.dropout,
            dropout_on="pooled",
        )
        self.classifier = nn.Linear(self.pooler.n_pooled, N_CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, samples) at 16 kHz, a multiple of 320, to (batch, N_CLASSES) logits."""
        frames = self.encoder(log_mel(features, self.encoder.config.num_mel_bins))
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        return self.classifier(self.pooler.pool(frames, mask)).float()

    def load_pretrained(self, tensors: Mapping[Part, Mapping[str, Tensor]]) -> None:
        """Load the encoder, and freeze the recipe's share of its lower layers."""
        super().load_pretrained(tensors)
        self.encoder.load_pretrained(tensors["encoder"])
        n_layers = self.encoder.config.encoder_layers
        self.encoder.freeze_below(round(self.frozen_share * n_layers))

    def backbone_config(self) -> dict[str, int]:
        """Return the encoder's sizes, named as in a Transformers `config.json`."""
        return self.encoder.config.as_dict()


IMAGE_NETWORKS: dict[str, type[ResNet34 | Cnn4]] = {"resnet34": ResNet34, "cnn4": Cnn4}


def build(recipe: SongRecipe, config: Mapping[str, Any] | None = None) -> SongModel:
    """Build a recipe's model with random weights from torch's global generator.

    `config` is the content of the backbone's `config.json`. Raises HearbackError if the recipe has
    a backbone and `config` is None.
    """
    if recipe.architecture in IMAGE_NETWORKS:
        model = IMAGE_NETWORKS[recipe.architecture](recipe)
        # The fastest memory format for cnn4, above all in bf16 (docs/results/songs_speed.md).
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config is None:
        raise HearbackError(f"{recipe.name} needs its backbone's config.json")
    return WhisperClassifier(recipe, config)
