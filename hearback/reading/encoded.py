"""Encoder outputs of all recordings, computed once: for models whose encoder is frozen.

Each recording is encoded as it is and in a few augmented versions. A training draws one of the
versions for each example, so that its epochs differ, and no epoch, fold or seed encodes again. The
files are in the store's folder, a pair for each version, and are found by a digest of everything
that they depend on; a build that was stopped goes on with the next version.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.log_mel import log_mel
from hearback.engine.devices import mixed_precision
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, open_file, read_json, write_json
from hearback.engine.locks import write_lock
from hearback.engine.whisper.encoder import SAMPLES_PER_FRAME, WhisperEncoder
from hearback.reading.augment import Augmentation
from hearback.reading.pairs import ORIGINAL, PairSource
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import WINDOW_SAMPLES, Encoding, pad_waveforms, window_samples

BATCH_SECONDS = 128.0  # of recordings that are encoded together
_SEED = 2311


@dataclass(frozen=True)
class _Version:
    """One version of all recordings.

    Attributes:
        frames: (all frames, width) float16, memory-mapped.
        spans: (rows, 2) int64, each row's window: index of its first frame, and one past its last.
        n_frames: (rows,) int64, frames of each row before its padding.
    """

    frames: np.ndarray
    spans: np.ndarray
    n_frames: np.ndarray


class EncodedClips:
    """The encoder outputs of a source's rows; `ORIGINAL` and `n_augmented` further versions."""

    def __init__(self, versions: Sequence[_Version]) -> None:
        self._versions = versions

    @property
    def n_augmented(self) -> int:
        """Number of augmented versions; they are numbered from 1."""
        return len(self._versions) - 1

    def get(self, row: int, version: int = ORIGINAL) -> Encoding:
        """Return the frames of a row's recording, with those of its window's padding."""
        of = self._versions[version]
        return Encoding(of.frames[slice(*of.spans[row])], int(of.n_frames[row]))

    @classmethod
    def open_or_build(
        cls,
        encoder: WhisperEncoder,
        source: PairSource,
        recipe: Recipe,
        store: Path,
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: str,
    ) -> "EncodedClips":
        """Read the encoder outputs from the folder `store`; compute those that are not there.

        `encoder` has the backbone's weights. `progress` is the title of the progress bars.
        """
        folder = store / "encoded" / _digest(encoder, source, recipe, dtype)
        folder.mkdir(parents=True, exist_ok=True)
        cure = "encoder outputs are kept there: choose a writable folder with --store"
        versions = []
        for number in range(recipe.n_augmented + 1):
            path = folder / f"version_{number}.f16"
            if not path.with_suffix(".json").exists():
                with write_lock(folder / ".lock", cure):
                    if not path.with_suffix(".json").exists():  # another fold may have written it
                        waveforms = _Waveforms(source, recipe, number)
                        title = f"{progress}, version {number} of {recipe.n_augmented}"
                        _build(encoder, waveforms, path, device=device, dtype=dtype, title=title)
            versions.append(_open(path))
        return cls(versions)


def _digest(encoder: WhisperEncoder, source: PairSource, recipe: Recipe, dtype: torch.dtype) -> str:
    """Return 16 hexadecimal digits that change with whatever the encoder outputs depend on."""
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
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
    digest.update(json.dumps(inputs, sort_keys=True).encode())
    return digest.hexdigest()[:16]


class _Waveforms:
    """The recordings of a version, in rows; each is augmented by its own random numbers."""

    def __init__(self, source: PairSource, recipe: Recipe, version: int) -> None:
        self.source = source.with_speeds(recipe.speed_by_grade) if version == ORIGINAL else source
        self.recipe, self.version = recipe, version
        self.augmentation = Augmentation() if version == ORIGINAL else recipe.augment_learner

    def __len__(self) -> int:
        return len(self.source)

    def get(self, row: int) -> np.ndarray:
        """Return a row's samples, at most those of a window."""
        rng = np.random.default_rng((_SEED, self.version, row))
        return self.augmentation.apply(self.source.learner(row), rng)[:WINDOW_SAMPLES]

    def window(self, waveform: np.ndarray) -> int:
        """Return the number of samples of a recording's window."""
        return window_samples(len(waveform), self.recipe.window, self.recipe.window_step_seconds)

    def batches(self) -> Iterator[tuple[int, list[int], list[np.ndarray]]]:
        """Yield window, rows and recordings of each batch, as soon as it is full."""
        waiting: dict[int, list[tuple[int, np.ndarray]]] = {}
        for row in range(len(self)):
            waveform = self.get(row)
            window = self.window(waveform)
            members = waiting.setdefault(window, [])
            members.append((row, waveform))
            if len(members) * window >= BATCH_SECONDS * SAMPLE_RATE:
                yield window, *_unzip(waiting.pop(window))
        for window, members in waiting.items():
            yield window, *_unzip(members)


def _unzip(members: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], list[np.ndarray]]:
    return [row for row, _ in members], [waveform for _, waveform in members]


@torch.inference_mode()
def _build(
    encoder: WhisperEncoder,
    waveforms: _Waveforms,
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    title: str,
) -> None:
    """Encode all recordings of a version; write the frames, then the JSON that marks them done."""
    encoder = encoder.to(device).eval()
    n_bins, width = encoder.config.num_mel_bins, encoder.config.d_model
    spans = np.zeros((len(waveforms), 2), dtype=np.int64)
    n_frames = np.zeros(len(waveforms), dtype=np.int64)
    n_written = 0
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
        tqdm(total=len(waveforms), desc=title, unit="clip") as bar,
    ):
        for window, rows, recordings in waveforms.batches():
            batch = pad_waveforms(recordings, window).to(device)
            with mixed_precision(device, dtype):
                frames = encoder(log_mel(batch, n_bins))
            file.write(_half(frames, path).tobytes())
            for row, recording in zip(rows, recordings, strict=True):
                spans[row] = n_written, n_written + frames.shape[1]
                n_frames[row] = -(-len(recording) // SAMPLES_PER_FRAME)
                n_written += frames.shape[1]
            bar.update(len(rows))
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
    return _Version(frames, spans, n_frames)
