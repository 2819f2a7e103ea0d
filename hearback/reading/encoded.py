"""Encoder outputs of all recordings, computed once: for models whose encoder is frozen.

Each recording is encoded as it is and in a few augmented versions. A training draws one of the
versions for each example, so that its epochs differ, and no epoch, fold or seed encodes again. The
files are in the store's folder, a pair for each version, and are found by a digest of everything
that they depend on; a build that was stopped goes on with the next version. Joined clips are
encoded as one recording each, in the augmented versions only, with files of their own: 50 frames a
second of float16, 38 kB a second for token scorers on whisper-tiny.en, 70 kB for segment scorers on
base, which have the recogniser's outputs too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.devices import mixed_precision
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, open_file, read_json, write_json
from hearback.engine.locks import write_lock
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME
from hearback.reading import joined_clips
from hearback.reading.augment import Augmentation
from hearback.reading.joined_clips import JoinedClips
from hearback.reading.models.base import WhisperScorer
from hearback.reading.pairs import ORIGINAL, PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import (
    LONGEST_WINDOW_SAMPLES,
    WINDOW_SAMPLES,
    Encoding,
    pad_waveforms,
    window_samples,
)

FOLDER = "encoded"  # in the store's folder
BATCH_SECONDS = 128.0  # of recordings that are encoded together
_SEED = 2311


@dataclass(frozen=True)
class _Version:
    """One version of all recordings.

    Attributes:
        path: its file.
        frames: (all frames, width) float16, memory-mapped.
        spans: (recordings, 2) int64, each one's window: index of its first frame, and one past its
            last.
        n_frames: (recordings,) int64, frames of each before its padding.
    """

    path: Path
    frames: np.ndarray
    spans: np.ndarray
    n_frames: np.ndarray

    def __reduce__(self) -> tuple[Callable[[Path], "_Version"], tuple[Path]]:
        """Pickle the path alone: processes that load examples map the file themselves."""
        return _open, (self.path,)

    def get(self, index: int) -> Encoding:
        """Return the frames of a recording, with those of its window's padding."""
        return Encoding(self.frames[slice(*self.spans[index])], int(self.n_frames[index]))


class EncodedClips:
    """The encoder outputs of a source's rows, and of clips that are joined.

    There are `n_augmented` augmented versions of each, numbered from 1; of the rows also
    `ORIGINAL`.
    """

    def __init__(
        self,
        rows: Sequence[_Version],
        joined: Sequence[JoinedClips] = (),
        joined_versions: Sequence[_Version] = (),
    ) -> None:
        self._rows, self._joined_versions = rows, joined_versions
        self._index_of = {clips: index for index, clips in enumerate(joined)}

    @property
    def n_augmented(self) -> int:
        """Number of augmented versions."""
        return len(self._rows) - 1

    def get(self, clip: int | JoinedClips, version: int = ORIGINAL) -> Encoding:
        """Return the frames of a row or of joined clips, with those of the window's padding."""
        if isinstance(clip, JoinedClips):
            return self._joined_versions[version - 1].get(self._index_of[clip])
        return self._rows[version].get(clip)

    @classmethod
    def open_or_build(
        cls,
        model: WhisperScorer,
        source: PairSource,
        recipe: Recipe,
        store: Path,
        joined: Sequence[JoinedClips] = (),
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: str,
    ) -> "EncodedClips":
        """Read the encoder outputs from the folder `store`; compute those that are not there.

        `model` has the backbone's weights; `joined` are clips of the source that are encoded
        together. `progress` is the title of the progress bars.
        """
        # Here, not in the inference mode of `_build`: parameters moved there could not be trained.
        model.to(device).eval()
        folder, digest = store / FOLDER, partial(_digest, model, source, recipe, dtype)
        build = partial(_build, model, device=device, dtype=dtype)
        rows = [_Waveforms(source, recipe, number) for number in range(recipe.n_augmented + 1)]
        opened = _open_or_build(folder / digest(), rows, build, progress)
        if not joined:
            return cls(opened)
        long = [_JoinedWaveforms(source, recipe, each.version, joined) for each in rows[1:]]
        title = f"{progress}, joined clips"
        return cls(opened, joined, _open_or_build(folder / digest(joined), long, build, title))


def missing_versions(
    model: WhisperScorer, source: PairSource, recipe: Recipe, store: Path, dtype: torch.dtype
) -> list[int]:
    """Return the numbers of the versions of the rows that `open_or_build` would compute.

    `model` has the backbone's weights. Joined clips are not looked for.
    """
    folder = store / FOLDER / _digest(model, source, recipe, dtype)
    return [each for each in range(recipe.n_augmented + 1) if not _is_built(_path(folder, each))]


def _open_or_build(
    folder: Path, versions: Sequence["_Waveforms"], build: Callable[..., None], progress: str
) -> list[_Version]:
    """Open the versions in `folder`, after building those that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    cure = "encoder outputs are kept there: choose a writable folder with --store"
    opened = []
    for waveforms in versions:
        path = _path(folder, waveforms.version)
        if not _is_built(path):
            with write_lock(folder / ".lock", cure):
                if not _is_built(path):  # another fold may have written it
                    title = f"{progress}, version {waveforms.version} of {versions[-1].version}"
                    build(waveforms, path, title=title)
        opened.append(_open(path))
    return opened


def _path(folder: Path, version: int) -> Path:
    return folder / f"version_{version}.f16"


def _is_built(path: Path) -> bool:
    return path.with_suffix(".json").exists()


def _digest(
    model: WhisperScorer,
    source: PairSource,
    recipe: Recipe,
    dtype: torch.dtype,
    joined: Sequence[JoinedClips] = (),
) -> str:
    """Return 16 hexadecimal digits that change with whatever the encoder outputs depend on.

    Those of the rows do not depend on the joined clips, which have a digest of their own.
    """
    digest = hashlib.sha256()
    for part in model.encoding_parts:
        for name, tensor in model.get_submodule(part).state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().half().cpu().contiguous().numpy())
    inputs = {
        "recordings": source.store.fingerprint(),
        "rows": list(zip(source.filenames, source.grades, strict=True)),
        "augmentation": asdict(recipe.augment_learner),
        "speeds": recipe.speed_by_grade,
        "window": (recipe.window, recipe.window_step_seconds),
        "dtype": str(dtype),
    }
    if joined:
        inputs["joined"] = [(each.rows, each.pauses) for each in joined]
    digest.update(json.dumps(inputs, sort_keys=True).encode())
    return digest.hexdigest()[:16]


class _Waveforms:
    """The recordings of a version, in rows; each is augmented by its own random numbers."""

    longest = WINDOW_SAMPLES

    def __init__(self, source: PairSource, recipe: Recipe, version: int) -> None:
        self.source = source.with_speeds(recipe.speed_by_grade) if version == ORIGINAL else source
        self.recipe, self.version = recipe, version
        self.augmentation = Augmentation() if version == ORIGINAL else recipe.augment_learner

    def __len__(self) -> int:
        return len(self.source)

    def get(self, index: int) -> np.ndarray:
        """Return a recording's samples, at most those of the longest window."""
        rng = np.random.default_rng((_SEED, self.version, index))
        return self.augmentation.apply(self.source.learner(index), rng)[: self.longest]

    def window(self, waveform: np.ndarray) -> int:
        """Return the number of samples of a recording's window."""
        recipe = self.recipe
        return window_samples(
            len(waveform), recipe.window, recipe.window_step_seconds, self.longest
        )

    def batches(self) -> Iterator[tuple[int, list[int], list[np.ndarray]]]:
        """Yield window, indices and recordings of each batch, as soon as it is full."""
        waiting: dict[int, list[tuple[int, np.ndarray]]] = {}
        for index in range(len(self)):
            waveform = self.get(index)
            window = self.window(waveform)
            members = waiting.setdefault(window, [])
            members.append((index, waveform))
            if len(members) * window >= BATCH_SECONDS * SAMPLE_RATE:
                yield window, *_unzip(waiting.pop(window))
        for window, members in waiting.items():
            yield window, *_unzip(members)


class _JoinedWaveforms(_Waveforms):
    """The joined clips of an augmented version."""

    longest = LONGEST_WINDOW_SAMPLES

    def __init__(
        self, source: PairSource, recipe: Recipe, version: int, joined: Sequence[JoinedClips]
    ) -> None:
        super().__init__(source, recipe, version)
        self.joined = joined

    def __len__(self) -> int:
        return len(self.joined)

    def get(self, index: int) -> np.ndarray:
        """Return the samples of joined clips, which are augmented as one recording."""
        rng = np.random.default_rng((_SEED, self.version, index))
        waveform = self.joined[index].waveform(self.source.learner)
        return joined_clips.augment(self.augmentation, waveform, rng)


def _unzip(members: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], list[np.ndarray]]:
    return [index for index, _ in members], [waveform for _, waveform in members]


@torch.inference_mode()
def _build(
    model: WhisperScorer,
    waveforms: _Waveforms,
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    title: str,
) -> None:
    """Encode all recordings of a version; write the frames, then the JSON that marks them done."""
    width = 0
    spans = np.zeros((len(waveforms), 2), dtype=np.int64)
    n_frames = np.zeros(len(waveforms), dtype=np.int64)
    n_written = 0
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
        tqdm(total=len(waveforms), desc=title, unit="clip") as bar,
    ):
        for window, indices, recordings in waveforms.batches():
            batch = pad_waveforms(recordings, window).to(device)
            # In whole frames, as at inference.
            lengths = [-(-len(each) // SAMPLES_PER_FRAME) for each in recordings]
            n_samples = torch.tensor(lengths, device=device) * SAMPLES_PER_FRAME
            with mixed_precision(device, dtype):
                frames = model.encode_recordings(batch, n_samples)
            width = frames.shape[2]
            file.write(_half(frames, path).tobytes())
            for index, length in zip(indices, lengths, strict=True):
                spans[index] = n_written, n_written + frames.shape[1]
                n_frames[index] = length
                n_written += frames.shape[1]
            bar.update(len(indices))
    description = {"width": width, "spans": spans.tolist(), "n_frames": n_frames.tolist()}
    write_json(path.with_suffix(".json"), description)


def _half(frames: Tensor, path: Path) -> np.ndarray:
    half = frames.half().cpu().numpy()
    if not np.isfinite(half).all():
        raise HearbackError(f"{path}: an encoder output does not fit fp16; use another backbone")
    return half


def _open(path: Path) -> _Version:
    """Map a version's frames into memory; HearbackError if its files do not fit each other."""
    try:
        described: Mapping[str, Any] = read_json(path.with_suffix(".json"))
        spans = np.array(described["spans"], dtype=np.int64).reshape(-1, 2)
        n_frames = np.array(described["n_frames"], dtype=np.int64)
        open_file(path).close()  # refuses a pipe, which would block
        shape = (int(spans.max(initial=0)), int(described["width"]))
        frames = np.memmap(path, dtype=np.float16, mode="r", shape=shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HearbackError(
            f"{path}: not the encoder outputs that {path.stem}.json describes ({error}); delete "
            f"{path.parent} to compute them again"
        ) from None
    return _Version(path, frames, spans, n_frames)
