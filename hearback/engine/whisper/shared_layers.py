"""Share identical lower encoder layers across models: one copy in memory, one computation.

Models trained with frozen lower layers keep the backbone's weights in them, so models with the same
backbone share these. The recipe gives the number of stages that can be identical; digests of the
weights show which ones are.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from hearback.engine.whisper.encoder import WhisperEncoder

# The stages of an encoder, in order: the stem, each layer, the final norm.
_STEM = ("conv1", "conv2", "embed_positions")
_NORM = ("layer_norm",)


def _stages(encoder: WhisperEncoder) -> list[tuple[str, ...]]:
    """Return the module names of each stage."""
    layers = [(f"layers.{number}",) for number in range(len(encoder.layers))]
    return [_STEM, *layers, _NORM]


def digest_stages(encoder: WhisperEncoder, n_stages: int | None = None) -> list[str]:
    """Return a SHA-256 digest of the weights of each stage (or of the first `n_stages`).

    Stages with equal digests compute the same function.
    """
    heads = encoder.config.encoder_attention_heads  # the only size that no weight's shape shows
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
class _Node:
    """A stage in the trie of encoder stages; encoders with equal first stages share their nodes."""

    encoder: WhisperEncoder  # provides the stage's modules
    depth: int
    children: dict[str, "_Node"] = field(default_factory=dict)  # by digest
    ends: list[int] = field(default_factory=list)  # numbers of the encoders that end here

    def compute(self, x: Tensor) -> Tensor:
        if self.depth == 0:
            return self.encoder.stem(x)
        if self.depth > len(self.encoder.layers):
            return self.encoder.layer_norm(x)
        return self.encoder.layers[self.depth - 1](x)


class SharedLayers:
    """A trie of encoder stages. Encoders are numbered from 0 in the order in which they are added.

    Example:
        digests = digest_stages(encoder)
        shared_layers.share_modules(encoder, digests)
        shared_layers.add(encoder, digests)
    """

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._n_encoders = 0

    def share_modules(self, encoder: WhisperEncoder, digests: Sequence[str]) -> None:
        """Replace the encoder's modules by identical ones in the trie. Call it before `add`.

        `digests` are from `digest_stages`.
        """
        nodes = self._roots
        for names, digest in zip(_stages(encoder), digests, strict=False):
            if digest not in nodes:
                break
            for name in names:
                parent, _, child = name.rpartition(".")
                module = nodes[digest].encoder.get_submodule(name)
                setattr(encoder.get_submodule(parent), child, module)
            nodes = nodes[digest].children

    def add(self, encoder: WhisperEncoder, digests: Sequence[str] = ()) -> None:
        """Add an encoder; stages without a digest are not shared."""
        n_own = len(_stages(encoder)) - len(digests)
        own = [f"{self._n_encoders} {depth}" for depth in range(n_own)]  # unique keys
        nodes = self._roots
        for depth, digest in enumerate([*digests, *own]):
            node = nodes.setdefault(digest, _Node(encoder, depth))
            nodes = node.children
        node.ends.append(self._n_encoders)
        self._n_encoders += 1

    def remove(self, numbers: Collection[int]) -> None:
        """Stop computing these encoders; the other encoders keep their numbers."""
        self._roots = _prune(self._roots, numbers)

    def encode(self, log_mel: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Encode a (batch, mel bins, mel frames) spectrogram with every encoder.

        Yields (encoder number, frames of shape (batch, frames, width)), depth first, so that at
        most one path of intermediate frames is in memory.
        """
        yield from _encode(self._roots, log_mel)

    def count_stages(self) -> tuple[int, int]:
        """Return the number of stages computed per batch, with sharing and without."""
        computed = unshared = 0
        waiting = list(self._roots.values())
        while waiting:
            node = waiting.pop()
            computed += 1
            unshared += len(node.ends) * (node.depth + 1)
            waiting += node.children.values()
        return computed, unshared


def _encode(nodes: dict[str, _Node], x: Tensor) -> Iterator[tuple[int, Tensor]]:
    for node in nodes.values():
        y = node.compute(x)
        for number in node.ends:
            yield number, y
        yield from _encode(node.children, y)


def _prune(nodes: dict[str, _Node], numbers: Collection[int]) -> dict[str, _Node]:
    """Remove encoders, and stages that no other encoder needs."""
    kept = {}
    for digest, node in nodes.items():
        node.ends = [number for number in node.ends if number not in numbers]
        node.children = _prune(node.children, numbers)
        if node.ends or node.children:
            kept[digest] = node
    return kept


def unique_modules(models: Sequence[nn.Module]) -> list[nn.Module]:
    """Return all modules of the models, shared ones once."""
    return list({id(module): module for model in models for module in model.modules()}.values())
