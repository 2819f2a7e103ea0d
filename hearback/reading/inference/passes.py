"""One pass over the data for many models: batches, who is on the device, how long it takes.

Models that take in the same (`Intake`) are run side by side, so that a clip is fetched, laid in a
batch and made a spectrogram of once for all of them.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.log_mel import log_mel
from hearback.engine.devices import mixed_precision
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import TrainedFold
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, EncoderShape
from hearback.engine.whisper.quantize import hold_weights
from hearback.engine.whisper.shared_layers import SharedLayers, digest_stages, modules_once
from hearback.reading.inference.progress import Progress
from hearback.reading.models.load import load_scorer
from hearback.reading.models.scorers import Scorer
from hearback.reading.pairs import WITHOUT_REFERENCE, Example, PairDataset, PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import Batch, Pair, collate, share_references, window_samples

# What a batch holds, in seconds of windows: a CPU is fastest while a batch's frames stay in its
# cache, a GPU where there are enough of them to keep it busy.
BATCH_SECONDS = {"cpu": 32.0, "cuda": 512.0}
SHARE_FOR_MODELS = 0.5  # of the free memory; the rest is for what they compute
_GB = 1e9
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
_MEMORY = Path("/proc/meminfo")


Measure = Callable[[Scorer, Batch], Tensor]
Take = Callable[[list[int], dict[int, np.ndarray]], None]


@dataclass(frozen=True)
class PlannedBatch:
    """Clips that are heard together: their places among the rows asked for, and their window.

    `n_sounds` is how many windows are encoded: clips, and their references where those are apart.
    """

    places: list[int]
    n_samples: int
    n_sounds: int

    def cost(self, shape: EncoderShape) -> float:
        """Return what it takes to encode them, in multiply-adds."""
        frames, width = self.n_samples / SAMPLES_PER_FRAME, shape.d_model
        stem = 3 * frames * width * (2 * shape.num_mel_bins + width)
        layer = frames * width * (4 * width + 2 * shape.encoder_ffn_dim + 2 * frames)
        return self.n_sounds * (stem + shape.encoder_layers * layer)


def batch_seconds(device: torch.device) -> float:
    """Return how many seconds of windows a batch holds on a device."""
    return BATCH_SECONDS.get(device.type, BATCH_SECONDS["cpu"])


def plan_batches(
    source: PairSource, rows: Sequence[int] | np.ndarray, recipe: Recipe, seconds: float
) -> list[PlannedBatch]:
    """Return batches of at most `seconds` of windows, of at least a clip each; longest first.

    What does not fit in memory fails at once then, and the last batches are quick. Clips of a text
    are together, as their reference need not be encoded twice in a batch.
    """
    source = source.at_speeds(recipe.speed_by_grade)
    by_window: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        window = window_samples(
            source.n_samples(int(row), recipe.pair), recipe.window, recipe.window_step_seconds
        )
        by_window.setdefault(window, []).append(place)
    apart = recipe.pair not in (*WITHOUT_REFERENCE, "joined")
    planned = []
    for window in sorted(by_window, reverse=True):
        # Texts of a length together as well: less padding where they are read.
        texts = {place: source.texts[rows[place]] for place in by_window[window]}
        ordered = sorted(texts, key=lambda place: (len(texts[place]), texts[place], place))
        most = max(1, int(seconds * SAMPLE_RATE) // window)
        n_batches = -(-len(ordered) // most)
        for places in np.array_split(ordered, n_batches):
            of_batch = places.tolist()
            n_references = len({texts[place] for place in of_batch}) if apart else 0
            planned.append(PlannedBatch(of_batch, window, len(of_batch) + n_references))
    return planned


class ModelGroup:
    """Models of the same intake, side by side on a device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.models: list[Scorer] = []
        self.shared_layers = SharedLayers()

    def add(self, model: Scorer, digests: Sequence[str] = ()) -> None:
        """Move a model to the device; `digests` are those of encoder stages that it may share."""
        self.models.append(model.to(self.device).eval())
        self.shared_layers.add(model.encoder, digests)

    def clear(self) -> None:
        """Let the models go."""
        self.models.clear()
        self.shared_layers = SharedLayers()

    def n_bytes(self, more: Scorer | None = None) -> int:
        """Return the bytes of the models' weights, shared ones once, and of one more model's."""
        return _n_bytes([*self.models, *([more] if more else [])])

    @torch.inference_mode()
    def run(
        self,
        source: PairSource,
        rows: Sequence[int] | np.ndarray,
        planned: Sequence[PlannedBatch],
        measure: Measure,
        take: Take,
        *,
        n_workers: int,
        progress: Progress,
        give_up: Callable[[float], Collection[int]] | None = None,
    ) -> None:
        """Hand every batch to `measure` for each model, and to `take` what that returned.

        `measure` maps a batch to (clips, …). `take` has the clips' places in `rows`, and the
        values by the models' numbers, float64. After each batch but the last, `give_up` is told
        which share of the work is done, and returns the numbers of models to go on without.
        """
        first = self.models[0]
        source = source.at_speeds(first.recipe.speed_by_grade)
        examples = [Example(int(row), source.texts[row], float(source.labels[row])) for row in rows]
        dataset = PairDataset(
            source, examples, first.recipe.pair, reader=first.reader, embedder=first.embedder
        )
        loader = DataLoader(
            dataset,
            batch_sampler=[batch.places for batch in planned],
            collate_fn=_as_they_are,  # arrays: shared memory, which tensors take, may be scarce
            num_workers=n_workers,
        )
        shape = first.encoder.shape
        numbers = set(range(len(self.models)))
        total, done = sum(batch.cost(shape) for batch in planned), 0.0
        with mixed_precision(self.device, self.dtype):
            for plan, pairs in zip(planned, loader, strict=True):
                batch = collate(pairs, plan.n_samples)
                batch = share_references(batch, [source.texts[pair.row] for pair in pairs])
                if self.device.type == "cuda":
                    batch = batch.pin_memory()
                batch = batch.to(self.device)
                spectrograms = log_mel(batch.sounds, shape.num_mel_bins)
                values: dict[int, Tensor] = {}
                for number, frames in self.shared_layers.encode(spectrograms):
                    values[number] = measure(self.models[number], replace(batch, frames=frames))
                # Only now, so that a GPU need not wait between two models.
                take(plan.places, {n: value.double().cpu().numpy() for n, value in values.items()})
                costs = [plan.cost(self.models[number].encoder.shape) for number in numbers]
                progress.advance(len(costs) * len(pairs), sum(costs))
                done += plan.cost(shape)
                if give_up is not None and plan is not planned[-1]:
                    dropped = give_up(done / total)
                    self.shared_layers.drop(dropped)
                    numbers.difference_update(dropped)
                    if not numbers:
                        return


def _as_they_are(pairs: list[Pair]) -> list[Pair]:
    return pairs


def _n_bytes(models: Sequence[Scorer]) -> int:
    n_bytes = 0
    for module in modules_once(models):
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        n_bytes += sum(tensor.nbytes for tensor in tensors)
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):  # holds no such tensors
            n_bytes += module.in_features * module.out_features
    return n_bytes


class Member(TrainedFold):
    """A fold of one of the ensemble's models, and what it takes in."""

    @property
    def recipe(self) -> Recipe:
        """Its recipe."""
        return Recipe.from_dict(self.metadata["recipe"])

    @property
    def shape(self) -> EncoderShape:
        """The sizes of its encoder."""
        return EncoderShape.from_config(self.metadata["shape"])

    @property
    def n_shareable(self) -> int:
        """How many of its encoder's stages, from the first, training left as the backbone's are.

        Others were trained, and nothing is like them: to look for it would take a digest of all of
        a large encoder's weights, seconds for each.
        """
        n_layers = self.shape.encoder_layers
        n_frozen = round(self.recipe.frozen_share * n_layers)
        if n_frozen == 0:
            return 0
        return 1 + n_frozen + (n_frozen == n_layers)  # the convolutions; the norm where all are

    def intake(self) -> tuple[Any, ...]:
        """Return what tells its input from another's."""
        recipe = self.recipe
        tokenizer, embedder = self.metadata["tokenizer"], self.metadata.get("text_embedder")
        return (
            recipe.pair,
            recipe.window,
            recipe.window_step_seconds,
            recipe.speed_by_grade,
            self.shape.num_mel_bins,
            tokenizer and tokenizer["sha256"],
            embedder and embedder["sha256"],
        )


def group_members(members: Sequence[Member]) -> list[list[Member]]:
    """Return members that take in the same together."""
    groups: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        groups.setdefault(member.intake(), []).append(member)
    return list(groups.values())


def load_model_groups(
    members: Iterable[Member], device: torch.device, dtype: torch.dtype, most_bytes: float
) -> Iterator[tuple[ModelGroup, list[Member]]]:
    """Load members of the same intake, as many at a time as fit in `most_bytes`, at least one.

    Only one crew is there at a time: what was given is emptied when the next is asked for. Members
    are asked for one by one, as they are loaded.
    """
    model_group, in_group = ModelGroup(device, dtype), list[Member]()
    for member in members:
        model = load_scorer(member.files, member.metadata)
        # Before their weights are held in fewer bits: then others would look like them.
        digests = digest_stages(model.encoder, member.n_shareable)
        model_group.shared_layers.adopt(model.encoder, digests)
        hold_weights(model, dtype)
        if in_group and model_group.n_bytes(model) > most_bytes:
            yield model_group, in_group
            model_group.clear()  # whoever took it may hold it still
            model_group, in_group = ModelGroup(device, dtype), list[Member]()
        if in_group:
            model.embedder = model_group.models[0].embedder
        model_group.add(model, digests)
        in_group.append(member)
    if in_group:
        yield model_group, in_group


def describe_group(model_group: ModelGroup, members: Sequence[Member], most_bytes: float) -> str:
    """Say who runs together, and how much memory that was decided by."""
    folds: dict[str, list[str]] = {}
    for member in members:
        folds.setdefault(member.files.model, []).append(str(member.files.fold))
    who = ", ".join(f"{model} fold {' '.join(of_model)}" for model, of_model in folds.items())
    computed, unshared = model_group.shared_layers.shares()
    shared = f", {computed} encoder stages of {unshared}" if computed < unshared else ""
    return f"{who}: {model_group.n_bytes() / _GB:.2g} of at most {most_bytes / _GB:.2g} GB{shared}"


def memory_for_models(device: torch.device, memory_gb: float | None) -> float:
    """Return how many bytes models may take at a time, by default half of what is free.

    Raises HearbackError where that is not to be found out, or is not above zero.
    """
    if memory_gb is not None:
        if not memory_gb > 0:
            raise HearbackError(f"--memory_gb {memory_gb:g}: models need more than that")
        return memory_gb * _GB
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return SHARE_FOR_MODELS * free
    return SHARE_FOR_MODELS * _free_memory()


def _free_memory() -> float:
    """Return the bytes of main memory that are free, or all of it where only that is known."""
    if not _MEMORY.exists():  # not Linux
        if not hasattr(os, "sysconf"):
            raise HearbackError("how much memory there is is not known here: say --memory_gb")
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":") for line in _MEMORY.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    return available if limit == "max" else min(available, int(limit))
