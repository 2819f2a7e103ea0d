"""Decode the recordings to score: files of a folder, or an array of samples."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from hearback.engine.audio.decode import (
    HIGHEST_RATE,
    LOWEST_RATE,
    Recording,
    UnreadableAudioError,
    decode,
)
from hearback.engine.audio.notes import NotesProblem
from hearback.engine.audio.store import Store
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.problems import Problem, Report
from hearback.engine.errors import HearbackError
from hearback.reading.scoring import status
from hearback.reading.scoring.inputs import Inputs
from hearback.reading.scoring.manifest import report_other_lengths
from hearback.reading.scoring.status import Fault

MAX_CHANNELS = 64
LONGEST_RECORDING = 600.0  # seconds; what follows is not read


def open_recordings(
    inputs: Inputs, folder: Path, report: Report, *, progress: bool = False
) -> Store:
    """Decode the recordings of `inputs` into a store in `folder`, and open it.

    Links are followed wherever they lead: the folder is the user's own.
    """
    frame = inputs.frame
    store = build_store(
        *(frame, inputs.folder, inputs.origin, folder, "score"),
        report=report,
        progress=progress,
        load=_load_long,
        follow_links=True,
        verify=True,
    )
    refuse_cut(report)
    drop_conversions(report)
    report_other_lengths(inputs.origin, frame, inputs.durations, store, report)
    return store


def refuse_cut(report: Report) -> None:
    """Report recordings that were cut as errors, in place of all other notes on them."""
    for problem in list(report.problems):
        if not isinstance(problem, NotesProblem):
            continue
        fault = find_cut([text for text, kind in problem.notes if kind == "cut"])
        if fault is None:
            continue
        report.discard(problem)
        where, filename = (problem.file, problem.row), problem.filename
        report.add(Problem(*where, fault.what, fault.cure, filename=filename, status=fault.status))


def drop_conversions(report: Report) -> None:
    """Remove the warnings on recordings that lose nothing by their conversion.

    Phones and browsers record 48 kHz, and nobody has another original: there is nothing to do.
    """
    for problem in list(report.problems):
        if isinstance(problem, NotesProblem):
            kinds = {kind for _, kind in problem.notes}
            if kinds == {"usual"}:
                report.discard(problem)


def find_cut(cut_notes: Sequence[str]) -> Fault | None:
    """Return the fault of a recording that was cut, from its notes of that; None without any."""
    if not cut_notes:
        return None
    what = f"not scored: {cut_notes[0]}"
    return Fault(status.TOO_LONG, what, "split the recording and its text")


def _load_long(_filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a recording's waveform, (n,) float32 at 16 kHz, and notes on its conversion."""
    recording = decode(path, kept_seconds=LONGEST_RECORDING)
    return recording.waveform, recording.notes


def decode_samples(samples: np.ndarray, sample_rate: int | None) -> Recording:
    """Return the recording of an array, mono at 16 kHz, converted as a file's.

    `samples` are (n,) or (n, channels); `sample_rate` is in Hz. Raises UnreadableAudioError for
    content that cannot be speech, and HearbackError for another shape or type.
    """
    if sample_rate is None:
        raise HearbackError("an array of samples needs its sample_rate, in Hz")
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise HearbackError(f"samples of shape {samples.shape}: use (n,) or (n, channels)")
    if samples.ndim == 2 and samples.shape[1] > max(MAX_CHANNELS, samples.shape[0]):
        raise HearbackError(
            f"samples of shape {samples.shape}: the channels come last, (n, channels); transpose it"
        )
    if samples.ndim == 2 and samples.shape[1] > MAX_CHANNELS:
        raise HearbackError(
            f"samples of shape {samples.shape}: at most {MAX_CHANNELS} channels; give one of them"
        )
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 1:
        values = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i" and samples.dtype.itemsize <= 4:
        values = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    elif samples.dtype.kind == "f":
        values = samples
    else:
        # Numbers of 64 bits are mostly those of 16: with their own full scale they were silent.
        raise HearbackError(
            f"samples of type {samples.dtype}: use float32, or int16, int32 or uint8, each with "
            "its own full scale"
        )
    _check_rate(sample_rate)
    if values.size == 0:
        raise UnreadableAudioError("is empty: no samples", kind="too_short")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.wav"
        with np.errstate(over="ignore"):  # infinite as float32: refused below
            converted = values.astype(np.float32)
        soundfile.write(path, converted, int(sample_rate), subtype="FLOAT")
        return decode(path, kept_seconds=LONGEST_RECORDING)


def _check_rate(sample_rate: object) -> None:
    """Raise HearbackError for what is no sample rate of speech, in Hz."""
    rate = 0.0
    numbers = (int, float, np.integer, np.floating)
    if isinstance(sample_rate, numbers) and not isinstance(sample_rate, bool):
        rate = float(sample_rate)
    if not (LOWEST_RATE <= rate <= HIGHEST_RATE and rate.is_integer()):
        raise HearbackError(
            f"sample_rate {sample_rate!r}: use a whole number of Hz, from {LOWEST_RATE} to "
            f"{HIGHEST_RATE}"
        )
