"""Models of one input format that run side by side: one pass over the data for all of them.

Each clip is loaded, batched and turned into a spectrogram once. Identical lower encoder layers are
also stored and computed once.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.devices import mixed_precision, to_host
from hearback.engine.whisper.quantize import convert_weights
from hearback.engine.whisper.shared_layers import SharedLayers, digest_stages, unique_modules
from hearback.reading.inference.batch_plan import PlannedBatch
from hearback.reading.inference.folds import EnsembleFold, name_folds
from hearback.reading.inference.memory import GB
from hearback.reading.models.base import Scorer, WhisperScorer
from hearback.reading.models.load import joint_key, load_scorer
from hearback.reading.models.segment_scorer import SegmentScorer
from hearback.reading.models.token_scorer import TokenScorer, decode_jointly
from hearback.reading.pairs import Example, PairDataset, PairSource
from hearback.reading.window_batches import Batch, Pair, collate, deduplicate_references

# Maps a model and a batch to values of shape (clips, …).
ScoreFn = Callable[[Scorer, Batch], Tensor]


@dataclass(frozen=True)
class BatchValues:
    """The scores of a batch, as `ModelGroup.run` yields them.

    `indices` are the clips' positions among the rows, `values` map a model's number to (clips, …)
    float64. `cost` is the encoders' work for the batch, in multiply-adds; `share_done` is the share
    of the pass that is done after this batch, exactly 1 at the end.
    """

    indices: list[int]
    values: dict[int, np.ndarray]
    cost: float
    share_done: float


class ModelGroup:
    """Models of one input format on a device, numbered in the order in which they are added."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.models: list[Scorer] = []
        self.shared_layers = SharedLayers()
        self._active: set[int] = set()
        self._joint_keys: list[str] = []

    def add(self, model: Scorer, digests: Sequence[str] = (), joint_key: str = "") -> None:
        """Move a model to the device; encoder stages of equal `digests` are shared.

        Models with the same `joint_key` (`load.joint_key`) are scored together.
        """
        for other, key in zip(self.models, self._joint_keys, strict=True):
            is_same = key and key == joint_key
            if is_same and isinstance(model, SegmentScorer) and isinstance(other, SegmentScorer):
                model.recogniser = other.recogniser  # one copy in memory
        self._active.add(len(self.models))
        self._joint_keys.append(joint_key)
        self.models.append(model.to(self.device).eval())
        if isinstance(model, WhisperScorer):
            self.shared_layers.add(model.encoder, digests)

    def drop(self, numbers: Collection[int]) -> None:
        """Skip some models from the next batch on; the numbers of the remaining ones stay."""
        self.shared_layers.remove(numbers)
        self._active.difference_update(numbers)

    def clear(self) -> None:
        """Release all models."""
        self.models.clear()
        self.shared_layers = SharedLayers()
        self._active.clear()
        self._joint_keys.clear()

    def n_bytes(self, extra: Scorer | None = None) -> int:
        """Return the bytes of all weights, also of an `extra` model; shared ones count once."""
        return _n_bytes([*self.models, *([extra] if extra else [])])

    def run(
        self,
        source: PairSource,
        rows: Sequence[int] | np.ndarray,
        planned: Sequence[PlannedBatch],
        score_fn: ScoreFn,
        *,
        n_workers: int = 0,
    ) -> Iterator[BatchValues]:
        """Yield what `score_fn` returns for each active model, batch by batch.

        Between two batches the caller may `drop` models; the pass ends early when none is left.
        """
        config = self.models[0].encoder_sizes
        costs = np.cumsum([batch.cost(config) for batch in planned])
        pairs_by_batch = self._load_pairs(source, rows, planned, n_workers)
        for plan, pairs, cost in zip(planned, pairs_by_batch, costs, strict=True):
            values = self._score(pairs, plan.n_samples, source, score_fn)
            yield BatchValues(
                plan.indices,
                values,
                cost=sum(plan.cost(self.models[n].encoder_sizes) for n in self._active),
                share_done=float(cost / costs[-1]),
            )
            if not self._active:
                return

    def _load_pairs(
        self,
        source: PairSource,
        rows: Sequence[int] | np.ndarray,
        planned: Sequence[PlannedBatch],
        n_workers: int,
    ) -> Iterable[list[Pair]]:
        """Return the pairs of each planned batch, loaded by `n_workers` processes."""
        first = self.models[0]
        source = source.with_speeds(first.recipe.speed_by_grade)
        examples = [Example(int(row), source.texts[row], float(source.labels[row])) for row in rows]
        dataset = PairDataset(
            source,
            examples,
            first.recipe.pair,
            text_tokenizer=first.text_tokenizer,
            embedder=first.embedder,
        )
        return DataLoader(
            dataset,
            batch_sampler=[batch.indices for batch in planned],
            collate_fn=_keep_pairs,  # as arrays: tensors would need shared memory, often scarce
            num_workers=n_workers,
        )

    @torch.inference_mode()
    def _score(
        self, pairs: list[Pair], n_samples: int, source: PairSource, score_fn: ScoreFn
    ) -> dict[int, np.ndarray]:
        """Return the values of a batch's clips by model number, (clips, …) float64."""
        batch = collate(pairs, n_samples)
        batch = deduplicate_references(batch, [source.texts[pair.row] for pair in pairs])
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        batch = batch.to(self.device)
        # Not around the loop of `run`: there, inference mode would end autocast at the first yield.
        with mixed_precision(self.device, self.dtype):
            values = {
                number: score_fn(self.models[number], prepared)
                for numbers, frames in self._encode(batch)
                for number, prepared in self._decode(numbers, replace(batch, frames=frames))
            }
        # Copied only after the last model, so that a GPU does not wait between models.
        on_host = to_host(*values.values())
        return {
            number: value.double().numpy() for number, value in zip(values, on_host, strict=True)
        }

    def _encode(self, batch: Batch) -> Iterator[tuple[list[int], Tensor | None]]:
        """Yield the encoder output of each active model, and the models that share it.

        None for models that share nothing: they encode the batch themselves.
        """
        first = self.models[0]
        if not isinstance(first, WhisperScorer):
            yield from (([number], None) for number in sorted(self._active))
            return
        if isinstance(first, SegmentScorer):  # its frames are not the encoder's alone
            yield sorted(self._active), batch.frames
            return
        if batch.frames is not None:  # computed before, for the only model
            yield sorted(self._active), batch.frames
            return
        spectrograms = log_mel(batch.encoder_waveforms, first.encoder.config.num_mel_bins)
        encoded = self.shared_layers.encode(spectrograms)
        for _, group in groupby(encoded, key=lambda item: id(item[1])):
            numbers, frames = zip(*group, strict=True)
            yield list(numbers), frames[0]

    def _decode(self, numbers: Sequence[int], batch: Batch) -> Iterator[tuple[int, Batch]]:
        """Yield each model with its batch; what models have in common is computed once."""
        together = defaultdict[str, list[int]](list)
        for number in numbers:
            if key := self._joint_keys[number]:
                together[key].append(number)
            else:
                yield number, batch
        for members in together.values():
            models = [self.models[number] for number in members]
            if isinstance(models[0], SegmentScorer):
                prepared = replace(batch, evidence=models[0].evidence(batch))
                yield from ((number, prepared) for number in members)
                continue
            outputs = decode_jointly([m for m in models if isinstance(m, TokenScorer)], batch)
            for number, decoded in zip(members, outputs, strict=True):
                yield number, replace(batch, decoded=decoded)


def _keep_pairs(pairs: list[Pair]) -> list[Pair]:
    return pairs


def _n_bytes(models: Sequence[Scorer]) -> int:
    n_bytes = 0
    for module in unique_modules(models):
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        n_bytes += sum(tensor.nbytes for tensor in tensors)
        # A quantized layer's packed weights are neither parameters nor buffers.
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            n_bytes += module.in_features * module.out_features
    return n_bytes


def load_model_groups(
    folds: Iterable[EnsembleFold], device: torch.device, dtype: torch.dtype, max_bytes: float
) -> Iterator[tuple[ModelGroup, list[EnsembleFold]]]:
    """Yield groups of loaded folds, as many at a time as fit in `max_bytes`, at least one.

    `folds` have one input format and are consumed one by one, as they are loaded. Only one group is
    in memory at a time: it is cleared when the next one is requested.
    """
    group, loaded = ModelGroup(device, dtype), list[EnsembleFold]()
    for fold in folds:
        model = load_scorer(fold.files, fold.metadata)
        # Digests first: after conversion, weights that differ could look equal.
        digests: list[str] = []
        if isinstance(model, WhisperScorer):
            digests = digest_stages(model.encoder, fold.n_shareable)
            group.shared_layers.share_modules(model.encoder, digests)
            convert_weights(model, dtype)
        if loaded and group.n_bytes(model) > max_bytes:
            yield group, loaded
            group.clear()  # the caller may still hold a reference to the group
            group, loaded = ModelGroup(device, dtype), list[EnsembleFold]()
        if loaded:
            model.embedder = group.models[0].embedder
        group.add(model, digests, joint_key(model, fold.metadata))
        loaded.append(fold)
    if loaded:
        yield group, loaded


def describe_group(group: ModelGroup, folds: Sequence[EnsembleFold], max_bytes: float) -> str:
    """Return a line with the folds of a group, their memory, and how much they share."""
    computed, unshared = group.shared_layers.count_stages()
    shared = (
        f"; {computed} of {unshared} encoder stages computed, the others shared"
        if computed < unshared
        else ""
    )
    used, available = group.n_bytes() / GB, max_bytes / GB
    return f"{name_folds(folds)}: weights of {used:.2g} GB, limit {available:.2g} GB{shared}"
