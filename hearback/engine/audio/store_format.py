"""The format of a store: what it keeps of each recording, and the fields of its index."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hearback.engine.audio.decode import SAMPLE_RATE, VERSION
from hearback.engine.audio.notes import Kind, kinds_of, original_length
from hearback.engine.audio.wav import FULL_SCALE, INT16, to_int16

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True)
class StoreFormat:
    """The arrays in a store: audio, or features computed from it.

    A store whose index has another `header` is refused, and built again. Increase `version` or
    change `parameters` (JSON types) whenever the same recording would give other values.
    """

    version: int
    sample_rate: int  # Hz, of the audio that is stored or that the features were computed from
    is_audio: bool = True  # stored as int16 with full scale 1.0; otherwise as float32
    shape: tuple[int, ...] | None = None  # of each array; None: (n,), n differs by recording
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the computation

    @property
    def dtype(self) -> np.dtype:
        """The type of the values in the data file, little-endian."""
        return INT16 if self.is_audio else _FLOAT32

    @property
    def header(self) -> dict[str, Any]:
        """The fields of index and journal that describe this format, as read back from JSON."""
        header = {"version": self.version, "dtype": self.dtype.str, "sample_rate": self.sample_rate}
        if self.shape is not None:
            header["shape"] = self.shape
        return json.loads(json.dumps({**header, **self.parameters}))

    @property
    def original(self) -> str:
        """Description of a recording that needs no conversion, for messages."""
        description = f"{self.sample_rate / 1000:g} kHz mono original"
        if self.is_audio and self.shape is not None:
            description += f" of {self.shape[0] / self.sample_rate:g} s"
        return description

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Convert an array to the data file's type. Raises ValueError for a wrong shape or NaN."""
        if self.shape is not None and values.shape != self.shape:
            raise ValueError(f"an array of {values.shape} where the store keeps {self.shape}")
        if self.is_audio:
            return to_int16(values)
        if not np.isfinite(values).all():
            raise ValueError("NaN or infinite values")
        return np.ascontiguousarray(values, _FLOAT32)

    def unpack(self, stored: np.ndarray) -> np.ndarray:
        """Convert a recording's values in the data file, (n,), to its float32 array."""
        values = stored.astype(np.float32)
        if self.is_audio:
            values /= FULL_SCALE
        return values if self.shape is None else values.reshape(self.shape)


SPEECH = StoreFormat(VERSION, SAMPLE_RATE)  # Whisper's input


@dataclass(frozen=True)
class StoreEntry:
    """The index entry of one recording."""

    offset: int  # number of samples before it
    n_samples: int
    source_size: int  # bytes
    source_mtime_ns: int
    sha256: str  # of its samples
    notes: Sequence[str]
    kinds: Sequence[str] = ()  # of the notes, `notes.Kind`
    original: str = ""  # how long it was, if only its beginning is kept: "40 s"

    @classmethod
    def of(
        cls, samples: np.ndarray, sha256: str, notes: Sequence[str], **where: int
    ) -> "StoreEntry":
        """Return the entry of samples and notes of `decode`; `where` are the first fields."""
        texts, kinds = tuple(map(str, notes)), kinds_of(notes)
        fields = {"offset": 0, "source_size": 0, "source_mtime_ns": 0, **where}
        original = original_length(notes)
        return cls(
            n_samples=samples.size,
            sha256=sha256,
            notes=texts,
            kinds=kinds,
            original=original,
            **fields,
        )

    def __post_init__(self) -> None:
        """Raise ValueError for values that no build writes."""
        counts = (self.offset, self.n_samples)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"invalid offset and length: {counts}")
        texts = (*self.notes, *self.kinds, self.original)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"invalid notes: {texts}")
        if len(self.kinds) != len(self.notes):
            raise ValueError(f"{len(self.kinds)} kinds of {len(self.notes)} notes")

    def notes_of(self, kind: Kind) -> tuple[str, ...]:
        """Return the notes of a kind."""
        return tuple(n for n, own in zip(self.notes, self.kinds, strict=True) if own == kind)

    @property
    def end(self) -> int:
        """The number of samples up to and including its last one."""
        return self.offset + self.n_samples
