"""How much of a learner's speech the models hear: windows end after 16 s.

A recording longer than the window is cut, and so is one that follows a long reference in the same
window. Speech after the cut changes no score. Such rows are found here: a score needs at least
`MIN_SHARE` of the learner's speech, for every model of the ensemble.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import KEPT_SECONDS, SAMPLE_RATE
from hearback.engine.audio.effects import n_samples_at_speed
from hearback.engine.data.problems import Problem, Report
from hearback.engine.whisper.encoder import WINDOW_SECONDS
from hearback.reading.pairs import WITHOUT_REFERENCE, Pairing, PairSource
from hearback.reading.tables import GRADES
from hearback.reading.window_batches import WINDOW_SAMPLES

MIN_SHARE = 0.5  # of the learner's speech, to score a row

FRAME_SAMPLES = round(0.03 * SAMPLE_RATE)
DYNAMIC_RANGE_DB = 35.0  # of speech: quieter frames are pauses
# The shortest words last some 150 ms: the level of a recording is that of its fifth loudest frame,
# so that a click, which is shorter, does not set it.
N_LOUDEST_FRAMES = 5
NOISE_PERCENTILE = 10
# Speech, with its pauses, varies more than this; steady noise varies by 1 dB.
MIN_CONTRAST_DB = 6.0
TOLERATED_SECONDS = 0.1  # of speech after the cut: less than a word

# The note of `hearback.engine.audio.decode` on a recording that it cut.
_CUT_NOTE = re.compile(r"(?P<length>(more than )?[\d.]+ s long), only the first .* are kept")


@dataclass(frozen=True)
class Listener:
    """Models that hear the same part of each recording.

    `speed_by_grade` is as in the recipe. `subject` names the models in a message, with the verb:
    "modeltok hears".
    """

    pairing: Pairing
    speed_by_grade: tuple[float, ...] = (1.0,) * len(GRADES)
    subject: str = "the models hear"


# For steps that know no ensemble: models that hear the recording alone, and those that hear it
# after its reference.
ANY_MODELS = (
    Listener("tokens"),
    Listener("joined", subject="models that join the two hear"),
)


@dataclass(frozen=True)
class Unheard:
    """A row whose speech, or whose reference, does not fit in the window of some models.

    Attributes:
        row: index in the source.
        what: how many seconds are heard, of how many.
        cure: what to do about it.
        is_scorable: every model hears at least `MIN_SHARE` of the speech.
    """

    row: int
    what: str
    cure: str
    is_scorable: bool


def listeners_of(models: Mapping[str, tuple[Pairing, tuple[float, ...]]]) -> list[Listener]:
    """Group models by what they hear; `models` are pairing and speed by grade, by name."""
    names: dict[tuple[Pairing, tuple[float, ...]], list[str]] = {}
    for name, key in models.items():
        names.setdefault(key, []).append(name)
    if len(names) == 1:
        return [Listener(*key) for key in names]
    return [Listener(*key, subject=_subject(members)) for key, members in names.items()]


def find_unheard(source: PairSource, listeners: Sequence[Listener]) -> Iterator[Unheard]:
    """Yield the rows of which some listener does not hear everything, in their order.

    Only recordings that do not fit in a window are read.
    """
    sources = [source.with_speeds(listener.speed_by_grade) for listener in listeners]
    for row in range(len(source)):
        cuts = [
            _Cut.of(at_speed, row, listener)
            for at_speed, listener in zip(sources, listeners, strict=True)
        ]
        if any(cut.is_cut or cut.is_reference_cut for cut in cuts):
            unheard = _compare(source, row, cuts)
            if unheard is not None:
                yield unheard


def report_unheard(
    source: PairSource,
    metadata: pd.DataFrame,
    file: str,
    listeners: Sequence[Listener],
    report: Report,
    *,
    is_scoring: bool = False,
) -> list[int]:
    """Report the rows that some listener does not hear whole; return those that have no score.

    A row without a score is an error when scoring; otherwise all problems are warnings.

    Args:
        source: recordings, texts and references of the rows.
        metadata: the rows of `source`, with their `line` in `file`.
        file: path of the table.
        listeners: the models.
        report: receives the problems, one for each row.
        is_scoring: whether the models' scores are wanted.
    """
    rows = metadata[["line", "filename"]].to_dict("records")
    unscorable = []
    for unheard in find_unheard(source, listeners):
        line, filename = rows[unheard.row]["line"], rows[unheard.row]["filename"]
        _drop_cut_note(source, filename, file, report)
        is_error = is_scoring and not unheard.is_scorable
        what = f"not scored: {unheard.what}" if is_error else unheard.what
        severity: Literal["error", "warning"] = "error" if is_error else "warning"
        report.add(Problem(file, line, what, unheard.cure, severity, filename))
        if not unheard.is_scorable:
            unscorable.append(unheard.row)
    return unscorable


def _drop_cut_note(source: PairSource, filename: str, file: str, report: Report) -> None:
    """Remove the decoder's note that it cut the recording: what is added here says more."""
    notes = source.store.entries[filename].notes
    kept = [note for note in notes if not _CUT_NOTE.fullmatch(note)]
    if len(kept) == len(notes):
        return
    for problem in report.warnings:
        if (problem.file, problem.filename, problem.what) == (file, filename, "; ".join(notes)):
            report.discard(problem)
            if kept:
                report.add(replace(problem, what="; ".join(kept)))


def find_speech(waveform: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return which frames of 30 ms are speech, (frames,) bool, and whether any stand out.

    Speech is louder than the recording's noise, and not more than 35 dB below its loudest frames.
    If all frames are about as loud, such as those of steady noise, all of them count.

    Args:
        waveform: (samples,) float32 at 16 kHz. Samples after the last whole frame are ignored.
    """
    n_frames = len(waveform) // FRAME_SAMPLES
    if n_frames == 0:
        return np.ones(0, bool), False
    frames = waveform[: n_frames * FRAME_SAMPLES].reshape(n_frames, FRAME_SAMPLES)
    level = 10 * np.log10(frames.var(axis=1, dtype=np.float64) + 1e-12)  # dB
    loudest = np.sort(level)[-min(N_LOUDEST_FRAMES, n_frames)]
    noise = np.percentile(level, NOISE_PERCENTILE)
    if loudest - noise < MIN_CONTRAST_DB:
        return np.ones(n_frames, bool), False
    return level >= max(loudest - DYNAMIC_RANGE_DB, (loudest + noise) / 2), True


@dataclass(frozen=True)
class _Cut:
    """Where a listener's window ends, in samples of the original recording and reference."""

    listener: Listener
    length: str  # of the recording: "17.0 s long"
    n_samples: int  # of the recording, as far as it is kept
    n_heard: int  # of them
    n_reference: int  # 0: the listener hears no reference

    @classmethod
    def of(cls, source: PairSource, row: int, listener: Listener) -> "_Cut":
        """Return the cut of a row; `source` has the listener's speeds."""
        n_samples = source.store.n_samples(source.filenames[row])
        has_reference = listener.pairing not in WITHOUT_REFERENCE
        n_reference = source.references.n_samples(source.texts[row]) if has_reference else 0
        n_room = WINDOW_SAMPLES
        if listener.pairing == "joined":
            n_room = max(0, WINDOW_SAMPLES - n_reference)
        speed = source.speed_of(row)
        fits = n_samples_at_speed(n_samples, speed) <= n_room
        n_heard = n_samples if fits else int(n_room * speed)
        notes = source.store.entries[source.filenames[row]].notes
        cut_notes = [found["length"] for note in notes if (found := _CUT_NOTE.fullmatch(note))]
        length = cut_notes[0] if cut_notes else f"{n_samples / SAMPLE_RATE:.1f} s long"
        return cls(listener, length, n_samples, n_heard, n_reference)

    @property
    def is_cut(self) -> bool:
        return self.n_heard < self.n_samples

    @property
    def is_reference_cut(self) -> bool:
        return self.n_reference > WINDOW_SAMPLES


def _compare(source: PairSource, row: int, cuts: Sequence[_Cut]) -> Unheard | None:
    """Describe the listener that hears least of a row's speech; None if all hear everything."""
    worst = min(cuts, key=lambda cut: cut.n_heard)
    parts, cure, is_scorable = [], "", True
    if worst.is_cut:
        speech, stands_out = find_speech(source.store.get(source.filenames[row]))
        n_heard, n_speech = int(speech[: worst.n_heard // FRAME_SAMPLES].sum()), int(speech.sum())
        seconds = FRAME_SAMPLES / SAMPLE_RATE
        if _is_cut_at_decoding(worst.n_samples) and not stands_out:
            # The rest of the recording was not decoded: the speech may be there.
            parts.append(
                f"{worst.length}; no speech stands out in its first {KEPT_SECONDS:g} s, and "
                f"{worst.listener.subject} no more"
            )
            cure, is_scorable = _cure(worst), False
        elif (n_speech - n_heard) * seconds > TOLERATED_SECONDS:
            parts.append(_describe(worst, n_heard * seconds, n_speech * seconds))
            cure, is_scorable = _cure(worst), n_heard >= MIN_SHARE * n_speech
    if is_scorable:
        for cut in cuts:
            # A joined listener hears nothing of the recording then, which is said above.
            if cut.is_reference_cut and cut.listener.pairing != "joined":
                parts.append(_describe_reference(cut))
                cure = cure or "split the text and its recording, or use models without references"
                break
    return Unheard(row, "; ".join(parts), cure, is_scorable) if parts else None


def _is_cut_at_decoding(n_samples: int) -> bool:
    return n_samples >= round(KEPT_SECONDS * SAMPLE_RATE)


def _describe(cut: _Cut, heard: float, speech: float) -> str:
    """Describe a cut; `heard` and `speech` are in seconds."""
    after = ""
    if cut.listener.pairing == "joined":
        after = f"after its reference of {cut.n_reference / SAMPLE_RATE:.1f} s, "
    at_least = "at least " if _is_cut_at_decoding(cut.n_samples) else ""
    part = f"the first {_short(cut.n_heard / SAMPLE_RATE)} s" if cut.n_heard else "nothing"
    return (
        f"{cut.length}; {after}{cut.listener.subject} {part}: "
        f"{heard:.1f} of {at_least}{speech:.1f} s of speech"
    )


def _describe_reference(cut: _Cut) -> str:
    seconds = cut.n_reference / SAMPLE_RATE
    return (
        f"the reference of its text lasts {seconds:.1f} s; {cut.listener.subject} the first "
        f"{WINDOW_SECONDS:g} s of it"
    )


def _cure(cut: _Cut) -> str:
    if cut.listener.pairing == "joined":
        return (
            "cut the silence before the speech, split the recording and its text, or use models "
            "that hear the recording alone, such as modeltok"
        )
    return "cut the silence before the speech, or split the recording and its text"


def _short(seconds: float) -> str:
    return f"{seconds:.1f}".removesuffix(".0")


def _subject(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} hears"
    return f"{', '.join(names[:-1])} and {names[-1]} hear"
