"""How much of a learner's speech the models' windows cover.

Windows end after 16 s, those of `HEARS_30_S` at inference after 30 s (`PairSource.with_longest`).

A recording longer than the window is cut, and so is one that follows a long reference in the same
window. Speech after the cut changes no score. Such rows are found here: a score needs at least
`MIN_SHARE` of the learner's speech, for every model of the ensemble.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import KEPT_SECONDS, SAMPLE_RATE
from hearback.engine.audio.effects import n_samples_at_speed
from hearback.engine.audio.notes import NotesProblem
from hearback.engine.data.problems import Problem, Report
from hearback.engine.whisper.encoder import WINDOW_SECONDS
from hearback.reading.pairings import WITHOUT_REFERENCE, Pairing
from hearback.reading.pairs import PairSource
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


@dataclass(frozen=True)
class Coverage:
    """What part of each recording the windows of some models cover.

    `speed_by_grade` is as in the recipe. `subject` names the models in a message, with the verb:
    "modeltok hears".
    """

    pairing: Pairing
    speed_by_grade: tuple[float, ...] = (1.0,) * len(GRADES)
    subject: str = "the models hear"


# For steps that know no ensemble: windows with the recording alone, and with the recording after
# its reference.
ANY_MODELS = (
    Coverage("tokens"),
    Coverage("joined", subject="models that join the two hear"),
)


@dataclass(frozen=True)
class Uncovered:
    """A row whose speech, or whose reference, does not fit in the window of some models.

    Attributes:
        row: index in the source.
        what: how many seconds are covered, of how many.
        cure: what to do about it.
        is_scorable: every model's window covers at least `MIN_SHARE` of the speech.
    """

    row: int
    what: str
    cure: str
    is_scorable: bool


def coverages_of(models: Mapping[str, tuple[Pairing, tuple[float, ...]]]) -> list[Coverage]:
    """Group models by what their windows cover; `models`: pairing and speed by grade, by name."""
    names: dict[tuple[Pairing, tuple[float, ...]], list[str]] = {}
    for name, key in models.items():
        names.setdefault(key, []).append(name)
    if len(names) == 1:
        return [Coverage(*key) for key in names]
    return [Coverage(*key, subject=_subject(members)) for key, members in names.items()]


def find_uncovered(source: PairSource, coverages: Sequence[Coverage]) -> Iterator[Uncovered]:
    """Yield the rows of which some windows do not cover everything, in their order.

    Only recordings that do not fit in a window are read.
    """
    sources = [source.with_speeds(each.speed_by_grade) for each in coverages]
    for row in range(len(source)):
        cuts = [
            _Cut.of(at_speed, row, coverage)
            for at_speed, coverage in zip(sources, coverages, strict=True)
        ]
        if any(cut.is_cut or cut.is_reference_cut for cut in cuts):
            uncovered = _compare(source, row, cuts)
            if uncovered is not None:
                yield uncovered


def report_uncovered(
    source: PairSource,
    metadata: pd.DataFrame,
    file: str,
    coverages: Sequence[Coverage],
    report: Report,
    *,
    is_scoring: bool = False,
) -> list[int]:
    """Report the rows that some windows do not cover whole; return those that have no score.

    A row without a score is an error when scoring; otherwise all problems are warnings.

    Args:
        source: recordings, texts and references of the rows.
        metadata: the rows of `source`, with their `line` in `file`.
        file: path of the table.
        coverages: the models' windows.
        report: receives the problems, one for each row.
        is_scoring: whether the models' scores are wanted.
    """
    rows = metadata[["line", "filename"]].to_dict("records")
    notes_of = {
        problem.filename: problem
        for problem in report.warnings
        if isinstance(problem, NotesProblem) and problem.file == file
    }
    unscorable = []
    for uncovered in find_uncovered(source, coverages):
        line, filename = rows[uncovered.row]["line"], rows[uncovered.row]["filename"]
        if filename in notes_of:
            _drop_length_note(report, notes_of[filename])
        is_error = is_scoring and not uncovered.is_scorable
        what = f"not scored: {uncovered.what}" if is_error else uncovered.what
        severity: Literal["error", "warning"] = "error" if is_error else "warning"
        report.add(Problem(file, line, what, uncovered.cure, severity, filename, "too_long"))
        if not uncovered.is_scorable:
            unscorable.append(uncovered.row)
    return unscorable


def _drop_length_note(report: Report, notes: NotesProblem) -> None:
    """Remove the decoder's note that it cut a recording: what is added here says more."""
    report.discard(notes)
    if (others := notes.without("cut")) is not None:
        report.add(others)


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
    """Where the models' window ends, in samples of the original recording and reference."""

    coverage: Coverage
    length: str  # of the recording: "17.0 s long"
    n_samples: int  # of the recording, as far as it is kept
    n_covered: int  # of these, in the window
    n_reference: int  # 0: the models use no reference

    @classmethod
    def of(cls, source: PairSource, row: int, coverage: Coverage) -> "_Cut":
        """Return the cut of a row; `source` has the coverage's speeds."""
        n_samples = source.store.n_samples(source.filenames[row])
        has_reference = coverage.pairing not in WITHOUT_REFERENCE
        n_reference = source.references.n_samples(source.texts[row]) if has_reference else 0
        n_room = source.longest_window(row)
        if coverage.pairing == "joined":
            n_room = max(0, WINDOW_SAMPLES - n_reference)
        speed = source.speed_of(row)
        fits = n_samples_at_speed(n_samples, speed) <= n_room
        n_covered = n_samples if fits else int(n_room * speed)
        original = source.store.entries[source.filenames[row]].original
        length = f"{original or f'{n_samples / SAMPLE_RATE:.1f} s'} long"
        return cls(coverage, length, n_samples, n_covered, n_reference)

    @property
    def is_cut(self) -> bool:
        return self.n_covered < self.n_samples

    @property
    def is_reference_cut(self) -> bool:
        return self.n_reference > WINDOW_SAMPLES


def _compare(source: PairSource, row: int, cuts: Sequence[_Cut]) -> Uncovered | None:
    """Describe the window that covers least of a row's speech; None if all cover everything."""
    worst = min(cuts, key=lambda cut: cut.n_covered)
    parts, cure, is_scorable = [], "", True
    if worst.is_cut:
        speech, stands_out = find_speech(source.store.get(source.filenames[row]))
        n_covered = int(speech[: worst.n_covered // FRAME_SAMPLES].sum())
        n_speech = int(speech.sum())
        seconds = FRAME_SAMPLES / SAMPLE_RATE
        if _is_cut_at_decoding(worst.n_samples) and not stands_out:
            # The rest of the recording was not decoded: the speech may be there.
            parts.append(
                f"{worst.length}; no speech stands out in its first {KEPT_SECONDS:g} s, and "
                f"{worst.coverage.subject} no more"
            )
            cure, is_scorable = _cure(worst), False
        elif (n_speech - n_covered) * seconds > TOLERATED_SECONDS:
            parts.append(_describe(worst, n_covered * seconds, n_speech * seconds))
            cure, is_scorable = _cure(worst), n_covered >= MIN_SHARE * n_speech
    if is_scorable:
        for cut in cuts:
            # A joined window has nothing of the recording then, which is said above.
            if cut.is_reference_cut and cut.coverage.pairing != "joined":
                parts.append(_describe_reference(cut))
                cure = cure or "split the text and its recording, or use models without references"
                break
    return Uncovered(row, "; ".join(parts), cure, is_scorable) if parts else None


def _is_cut_at_decoding(n_samples: int) -> bool:
    return n_samples >= round(KEPT_SECONDS * SAMPLE_RATE)


def _describe(cut: _Cut, covered: float, speech: float) -> str:
    """Describe a cut; `covered` and all `speech` are in seconds."""
    after = ""
    if cut.coverage.pairing == "joined":
        after = f"after its reference of {cut.n_reference / SAMPLE_RATE:.1f} s, "
    at_least = "at least " if _is_cut_at_decoding(cut.n_samples) else ""
    part = f"the first {_short(cut.n_covered / SAMPLE_RATE)} s" if cut.n_covered else "nothing"
    return (
        f"{cut.length}; {after}{cut.coverage.subject} {part}: "
        f"{covered:.1f} of {at_least}{speech:.1f} s of speech"
    )


def _describe_reference(cut: _Cut) -> str:
    seconds = cut.n_reference / SAMPLE_RATE
    return (
        f"the reference of its text lasts {seconds:.1f} s; {cut.coverage.subject} the first "
        f"{WINDOW_SECONDS:g} s of it"
    )


def _cure(cut: _Cut) -> str:
    if cut.coverage.pairing == "joined":
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
