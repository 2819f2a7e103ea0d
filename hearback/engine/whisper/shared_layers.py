"""Encoders that begin alike: what they have in common is held once and computed once.

Folds of a model that were trained with frozen lower layers still have those of the backbone, and so
have other models of the same backbone. A recipe says which stages may be alike, the weights
themselves which are.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from hearback.engine.whisper.encoder import WhisperEncoder

# The stages of an encoder, first to last: what comes before the layers, the layers, the norm.
_STEM = ("conv1", "conv2", "embed_positions")
_NORM = ("layer_norm",)


def _stages(encoder: WhisperEncoder) -> list[tuple[str, ...]]:
    """Return the names of each stage's modules."""
    layers = [(f"layers.{number}",) for number in range(len(encoder.layers))]
    return [_STEM, *layers, _NORM]


def digest_stages(encoder: WhisperEncoder, n_stages: int | None = None) -> list[str]:
    """Return a digest of the weights of each stage, or of the first `n_stages`.

    Stages of equal digests compute the same.
    """
    heads = encoder.shape.encoder_attention_heads  # the one size that no weight's shape tells
    digests = []
    for names in _stages(encoder)[:n_stages]:
        digest = hashlib.sha256(f"{heads}".encode())
        for name in names:
            for key, tensor in encoder.get_submodule(name).state_dict().items():
                digest.update(f"\n{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy())
        digests.append(digest.hexdigest())
    return digests


@dataclass
class _Branch:
    """A stage that the same stages precede, for one encoder or for several."""

    encoder: WhisperEncoder  # whose stage it is
    depth: int
    following: dict[str, "_Branch"] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)  # the encoders whose last stage it is

    def compute(self, x: Tensor) -> Tensor:
        if self.depth == 0:
            return self.encoder.stem(x)
        if self.depth > len(self.encoder.layers):
            return self.encoder.layer_norm(x)
        return self.encoder.layers[self.depth - 1](x)


class SharedLayers:
    """Encoders, numbered as they are added, as trees whose branches part where their weights do."""

    def __init__(self) -> None:
        self._roots: dict[str, _Branch] = {}
        self._n_encoders = 0

    def adopt(self, encoder: WhisperEncoder, digests: Sequence[str]) -> None:
        """Give an encoder that may be added next the modules of the stages that are here already.

        `digests` are those of `digest_stages`, of as many stages as others may have.
        """
        branches = self._roots
        for names, digest in zip(_stages(encoder), digests, strict=False):
            if digest not in branches:
                break
            for name in names:
                parent, _, child = name.rpartition(".")
                module = branches[digest].encoder.get_submodule(name)
                setattr(encoder.get_submodule(parent), child, module)
            branches = branches[digest].following

    def add(self, encoder: WhisperEncoder, digests: Sequence[str] = ()) -> None:
        """Add an encoder, which shares what it has in common with others by its first `digests`."""
        n_own = len(_stages(encoder)) - len(digests)
        own = [f"{self._n_encoders} {depth}" for depth in range(n_own)]  # no other is like them
        branches = self._roots
        for depth, digest in enumerate([*digests, *own]):
            branch = branches.setdefault(digest, _Branch(encoder, depth))
            branches = branch.following
        branch.ends.append(self._n_encoders)
        self._n_encoders += 1

    def drop(self, numbers: Collection[int]) -> None:
        """Compute some encoders no more; the others keep their numbers."""
        self._roots = _without(self._roots, numbers)

    def encode(self, log_mel: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each encoder's number and its (batch, frames, width) of (batch, mel bins, …).

        Branch by branch, so that no more than one path's frames are held at a time.
        """
        yield from _encode(self._roots, log_mel)

    def shares(self) -> tuple[int, int]:
        """Return how many stages are computed for a batch, and how many that would be unshared."""
        computed = unshared = 0
        waiting = list(self._roots.values())
        while waiting:
            branch = waiting.pop()
            computed += 1
            unshared += len(branch.ends) * (branch.depth + 1)
            waiting += branch.following.values()
        return computed, unshared


def _encode(branches: dict[str, _Branch], x: Tensor) -> Iterator[tuple[int, Tensor]]:
    for branch in branches.values():
        y = branch.compute(x)
        for end in branch.ends:
            yield end, y
        yield from _encode(branch.following, y)


def _without(branches: dict[str, _Branch], numbers: Collection[int]) -> dict[str, _Branch]:
    kept = {}
    for digest, branch in branches.items():
        branch.ends = [end for end in branch.ends if end not in numbers]
        branch.following = _without(branch.following, numbers)
        if branch.ends or branch.following:
            kept[digest] = branch
    return kept


def modules_once(models: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the modules of some models, those that they share once."""
    return list({id(module): module for model in models for module in model.modules()}.values())
