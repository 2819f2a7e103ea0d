"""What a recipe's model starts from: a Whisper, the recogniser of phones, or both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from hearback.engine.phones import layout as phones
from hearback.engine.phones.weights import load_ctc
from hearback.engine.whisper import pretrained as whisper
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.weights import load_backbone, read_config, read_tensors
from hearback.reading.models.base import Scorer
from hearback.reading.recipe import Recipe


class Backbone(Protocol):
    """The files of a pretrained model in `directory`."""

    @property
    def directory(self) -> Path:
        """The directory."""

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file, which exists where a model needs it; HearbackError if damaged."""

    def config(self) -> Mapping[str, Any]:
        """Return the sizes to build a model from."""

    def tensors(self, part: Part) -> dict[str, Tensor]:
        """Return the tensors of one part."""

    def load_into(self, model: Scorer) -> None:
        """Load the weights into a model of these sizes."""


@dataclass(frozen=True)
class WhisperBackbone:
    """A Whisper in Transformers' layout."""

    directory: Path

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.directory / "tokenizer.json"

    def config(self) -> Mapping[str, Any]:
        """Return its `config.json`."""
        return read_config(self.directory)

    def tensors(self, part: Part) -> dict[str, Tensor]:
        """Return the tensors of its encoder or decoder."""
        return read_tensors(self.directory, part)

    def load_into(self, model: Scorer) -> None:
        """Load the weights of the model's parts."""
        load_backbone(model, self.directory)


@dataclass(frozen=True)
class PhoneBackbone:
    """The recogniser of phones, with its pronunciations."""

    directory: Path

    @property
    def tokenizer(self) -> Path:
        """The file of pronunciations."""
        return phones.checked(self.directory, phones.PRONUNCIATIONS)

    def config(self) -> Mapping[str, Any]:
        """Return the recogniser's sizes."""
        return load_ctc(self.directory).config.as_dict()

    def tensors(self, part: Part) -> dict[str, Tensor]:
        """Return the recogniser's tensors: it has an encoder only."""
        return load_ctc(self.directory).state_dict()

    def load_into(self, model: Scorer) -> None:
        """Load the recogniser's weights."""
        model.load_pretrained({"encoder": self.tensors("encoder")})


@dataclass(frozen=True)
class SegmentBackbone:
    """A Whisper's encoder, and the recogniser of phones with its pronunciations."""

    whisper: WhisperBackbone
    phones: PhoneBackbone

    @property
    def directory(self) -> Path:
        """The Whisper's directory."""
        return self.whisper.directory

    @property
    def tokenizer(self) -> Path:
        """The file of pronunciations."""
        return self.phones.tokenizer

    def config(self) -> Mapping[str, Any]:
        """Return the Whisper's `config.json`, with the recogniser's sizes."""
        return {**self.whisper.config(), "recogniser": self.phones.config()}

    def tensors(self, part: Part) -> dict[str, Tensor]:
        """Return the tensors of the encoder or the recogniser."""
        if part == "recogniser":
            return self.phones.tensors("encoder")
        return self.whisper.tensors(part)

    def load_into(self, model: Scorer) -> None:
        """Load the weights of both."""
        model.load_pretrained({part: self.tensors(part) for part in model.parts})


def open_backbone(recipe: Recipe, assets: Path) -> Backbone:
    """Return a recipe's backbone.

    A Whisper of the hub is downloaded if necessary. Raises HearbackError if it cannot be had.
    """
    if recipe.pair == "phones":
        return PhoneBackbone(phones.resolve(assets))
    of_whisper = WhisperBackbone(whisper.resolve(recipe.backbone, assets))
    if recipe.pair == "segments":
        return SegmentBackbone(of_whisper, PhoneBackbone(phones.resolve(assets)))
    return of_whisper
