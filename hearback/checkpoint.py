"""A fold's weights and their story, to disk and back.

A fold that is done is three files: `<model>_<fold>.safetensors` (weights, fp16), `.oof.csv`
(filename, score, pred) and `.json` (the story), written in this order; the story holds the digests
of the other two, so a fold is done when its story is there and they fit it. A fold under way has
one file, `.partial`, replaced after every epoch. None of them can run code when it is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hearback.encoder import EncoderShape
from hearback.errors import HearbackError
from hearback.files import read_json, sha256_of, whole_file, write_json
from hearback.models import Scorer
from hearback.recipe import Recipe
from hearback.tables import write_table

Story = dict[str, Any]


@dataclass(frozen=True)
class FoldFiles:
    """Where one fold of one model lies."""

    assets: Path
    model: str
    fold: int

    def _path(self, suffix: str) -> Path:
        return self.assets / f"{self.model}_{self.fold}{suffix}"

    @property
    def weights(self) -> Path:
        """The fp16 weights of the best epoch."""
        return self._path(".safetensors")

    @property
    def story(self) -> Path:
        """The recipe, the history and the fingerprints."""
        return self._path(".json")

    @property
    def oof(self) -> Path:
        """The out-of-fold predictions of the best epoch."""
        return self._path(".oof.csv")

    @property
    def partial(self) -> Path:
        """The state of a training under way."""
        return self._path(".partial")


def save_fold(
    files: FoldFiles, weights: Mapping[str, Tensor], oof: pd.DataFrame, story: Mapping[str, Any]
) -> None:
    """Write a finished fold, the story last, and remove what was kept of its way there."""
    half = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in weights.items()}
    # Until the new story stands, the old one must not vouch for the new files.
    files.story.unlink(missing_ok=True)
    with whole_file(files.weights) as temporary:
        save_file(half, temporary)
    write_table(oof, files.oof)
    digests = {"weights": sha256_of(files.weights), "oof": sha256_of(files.oof)}
    write_json(files.story, {**story, "sha256": digests})
    files.partial.unlink(missing_ok=True)


def read_story(files: FoldFiles) -> Story:
    """Read a finished fold's story, or raise HearbackError saying how to make one."""
    try:
        return read_json(files.story)
    except FileNotFoundError:
        raise HearbackError(
            f"{files.story}: not there; train it with python train_{files.model}.py "
            f"--fold {files.fold}"
        ) from None
    except ValueError as error:
        raise HearbackError(
            f"{files.story}: not readable JSON ({error}); delete it and train the fold again"
        ) from None


def why_not_done(files: FoldFiles, identity: Mapping[str, Any]) -> str | None:
    """Say why the fold has to be trained, or None where it is done.

    `identity` is what must not have changed since: the recipe, the split, the data's fingerprint.
    """
    if not files.story.exists():
        return "under way" if files.partial.exists() else "not trained"
    try:
        story = read_story(files)
    except HearbackError as error:
        return str(error)
    changed = [name for name, value in identity.items() if story.get(name) != value]
    if "recipe" in changed:
        old, new = story.get("recipe", {}), identity["recipe"]
        fields = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return f"its recipe changed since ({', '.join(fields)})"
    if changed:
        return f"trained with another {', '.join(changed).replace('_', ' ')}"
    return _what_does_not_fit(files, story)


def _what_does_not_fit(files: FoldFiles, story: Story) -> str | None:
    for name, path in (("weights", files.weights), ("oof", files.oof)):
        if not path.exists():
            return f"{path.name} is missing"
        if sha256_of(path) != story["sha256"][name]:
            return f"{path.name} is not the file that its story speaks of"
    return None


def load_scorer(files: FoldFiles, story: Story) -> Scorer:
    """Load a finished fold's model on the CPU, in float32 and in evaluation mode."""
    scorer = Scorer(
        Recipe.from_dict(story["recipe"]), EncoderShape.from_config(story["encoder_shape"])
    )
    try:
        tensors = load_file(files.weights)
        scorer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise HearbackError(f"{files.weights}: not this model's weights ({error})") from None
    return scorer.eval()


def save_partial(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write the state of a training under way: tensors, and JSON notes in the same file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, metadata={"notes": json.dumps(notes)})


def load_partial(
    path: Path, identity: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read what `save_partial` wrote, or None where there is none of this very training.

    Raises HearbackError where the file is not whole.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["notes"])
            if notes["identity"] != dict(identity):
                return None
            # safe_open's handle has keys() but is no mapping.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise HearbackError(
            f"{path}: not the state of a training ({error!r}); delete it to train from the start"
        ) from None
    return tensors, notes


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an Adam optimizer's moments: `<parameter index>.<moment>` to a tensor."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, moments in state.items()
        for name, value in moments.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an Adam optimizer the moments that `optimizer_tensors` flattened."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
