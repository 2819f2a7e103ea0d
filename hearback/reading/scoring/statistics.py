"""Are recordings like those that a scorer learned from? A few statistics of both, compared.

Those of the training recordings are kept when a scorer is built (`statistics.json` in its folder)
and when a fold is trained (in its metadata); `compare` finds how a set of recordings differs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.training.fold_files import TrainedFold
from hearback.reading.pairs import PairSource
from hearback.reading.scoring.acoustics import Acoustics
from hearback.reading.scoring.decoder_evidence import DecoderEvidence

FILE = "statistics.json"
MIN_RECORDINGS = 10  # of a set that is compared
PERCENTS = tuple(range(0, 101, 5))
N_MEASURED = 200  # recordings of a large set that are measured, evenly spread over its rows

# A set is unlike the training set if more than this share of its recordings lies outside of the
# middle 90 % of the training set's, in any quantity; 10 % are expected. Quantities in which more
# than half of them do are then named. Of 125 single speakers of speechocean762 18 are called unlike
# the whole, of 200 random sets of 20 clips none.
MAX_OUTSIDE, NAMED_OUTSIDE = 0.6, 0.5
SMALLEST_SHOWN = 0.05  # difference of the medians, with one decimal
# The level only adds a constant to the log spectrogram that Whisper gets.
NEUTRAL = frozenset({"level_db"})

# By quantity: what a larger and a smaller value are called, and the unit.
_SHOWN = {
    "seconds": ("longer", "shorter", "s"),
    "level_db": ("louder", "quieter", "dB"),
    "contrast_db": ("less noisy", "noisier", "dB"),
    "treble_db": ("brighter, above 4 kHz", "duller, above 4 kHz", "dB"),
    "letters_per_second": ("faster", "slower", "letters a second"),
    "surprise": ("harder to understand", "easier to understand", "nats"),
    "no_speech": ("less like speech", "more like speech", "nats"),
}
QUANTITIES = tuple(_SHOWN)

# Of the recordings of `hearback.reading.corpora.sample`, whose voices are synthetic. Its module is
# not imported: it needs packages that the runtime of infer.py does not have.
SAMPLE_FILENAME = re.compile(r"sample_[0-9]+\.wav")

SYNTHETIC = (
    "the models learned from the synthetic voices of the sample: their scores of real learners "
    "mean nothing"
)
CURE = "check some scores by ear, or train with recordings like these"

Statistics = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """How a set of recordings differs from those that a scorer learned from.

    `share` of its recordings lie outside of the middle 90 % of the others; `by` is the difference
    of the medians in the quantity's unit.
    """

    quantity: str
    share: float
    by: float

    def __str__(self) -> str:
        """Return e.g. "4.1 dB quieter"."""
        larger, smaller, unit = _SHOWN[self.quantity]
        return f"{abs(self.by):.1f} {unit} {larger if self.by > 0 else smaller}"


def measure(
    acoustics: Acoustics, text: str, evidence: DecoderEvidence | None = None
) -> dict[str, float]:
    """Return the quantities of one recording and its text; those of `evidence` if it is given."""
    n_letters = sum(map(str.isalpha, text))
    values = {
        "seconds": acoustics.seconds,
        "level_db": acoustics.level_db,
        "contrast_db": acoustics.contrast_db,
        "treble_db": acoustics.treble_db,
        "letters_per_second": n_letters / max(acoustics.speech_seconds, 0.1),
    }
    if evidence is not None and np.isfinite(evidence.no_speech):
        values |= {"surprise": evidence.surprise, "no_speech": evidence.no_speech}
    return values


def describe(
    source: PairSource,
    rows: Sequence[int] | np.ndarray | None = None,
    *,
    evidence: Mapping[int, DecoderEvidence] | None = None,
) -> Statistics:
    """Return the statistics of some recordings of `source`, by default all, as JSON types.

    Of many, `N_MEASURED` are measured. `evidence` is by row (`decoder_evidence`);
    without it, the statistics lack its quantities.
    """
    rows = np.arange(len(source)) if rows is None else np.asarray(rows)
    measured = summarize(
        [
            measure(
                Acoustics.of(source.store.get(source.filenames[row])),
                source.texts[row],
                None if evidence is None else evidence.get(int(row)),
            )
            for row in rows[spread_rows(len(rows))].tolist()
        ]
    )
    return {**measured, "synthetic": is_synthetic([source.filenames[row] for row in rows.tolist()])}


def spread_rows(n_rows: int) -> np.ndarray:
    """Return which rows of a set are measured, (n,) int64: all, or `N_MEASURED`, evenly spread."""
    return np.linspace(0, n_rows - 1, min(n_rows, N_MEASURED)).round().astype(int)


def is_synthetic(filenames: Sequence[str]) -> bool:
    """Return whether all recordings are those of the sample, by their names."""
    names = [filename.replace("\\", "/").rpartition("/")[2] for filename in filenames]
    return bool(names) and all(map(SAMPLE_FILENAME.fullmatch, names))


def summarize(measured: Sequence[Mapping[str, float]]) -> Statistics:
    """Return the number of recordings, and the percentiles 0, 5, …, 100 of each quantity."""
    percentiles = {}
    for quantity in QUANTITIES:
        values = [each[quantity] for each in measured if quantity in each]
        if values:
            percentiles[quantity] = np.percentile(values, PERCENTS).round(3).tolist()
    return {"n_recordings": len(measured), "percentiles": percentiles}


def compare(own: Statistics, training: Statistics) -> list[Difference]:
    """Return how a set with the statistics `own` differs from that of `training`, largest first.

    Empty if it is like it, or has fewer than `MIN_RECORDINGS`.
    """
    if own["n_recordings"] < MIN_RECORDINGS:
        return []
    found = []
    for quantity, there in training["percentiles"].items():
        here = own["percentiles"].get(quantity)
        if quantity not in _SHOWN or here is None:
            continue
        low, high = there[PERCENTS.index(5)], there[PERCENTS.index(95)]
        share = _share_below(here, low) + _share_below([-value for value in here[::-1]], -high)
        by = here[PERCENTS.index(50)] - there[PERCENTS.index(50)]
        if share > NAMED_OUTSIDE and abs(by) >= SMALLEST_SHOWN:
            found.append(Difference(quantity, share, by))
    if all(each.share <= MAX_OUTSIDE or each.quantity in NEUTRAL for each in found):
        return []
    return sorted(found, key=lambda difference: -difference.share)


def _share_below(percentiles: Sequence[float], edge: float) -> float:
    """Return the share of the values with these percentiles that is strictly below `edge`."""
    at = int(np.searchsorted(percentiles, edge, side="left"))
    if at in (0, len(PERCENTS)):
        return float(at > 0)
    before, after = percentiles[at - 1], percentiles[at]
    step = PERCENTS[at] - PERCENTS[at - 1]
    return (PERCENTS[at - 1] + step * (edge - before) / (after - before)) / 100


def warnings(own: Statistics, training: Statistics | None) -> list[str]:
    """Return lines about what a scorer learned from, as far as it differs from a set.

    `own` are the set's statistics; `training` is None if unknown.
    """
    if training is None:
        return []
    lines = [SYNTHETIC] if training.get("synthetic") and not own.get("synthetic") else []
    if differences := compare(own, training):
        listed = ", ".join(map(str, differences))
        lines.append(
            f"these recordings are unlike what the scorer learned from: {listed} (medians), so "
            "the scores may be off"
        )
    return lines


def read_training_statistics(folder: Path, folds: Sequence[TrainedFold]) -> Statistics | None:
    """Return the statistics of what a scorer learned from; None if its files do not tell.

    Those of its folder, or else of its first fold's metadata. Raises HearbackError if they are
    damaged.
    """
    path = folder / FILE
    if path.exists():
        try:
            value = read_json(path)
        except (OSError, ValueError):
            value = None
    else:
        path = folds[0].files.metadata
        value = folds[0].metadata.get("recordings")
        if value is None:  # of an older version
            return None
    if not is_valid(value):
        raise HearbackError(f"{path}: damaged statistics of the recordings; build the scorer again")
    return value


def is_valid(value: object) -> bool:
    """Return whether a JSON value has the form of `Statistics`."""
    if not isinstance(value, dict) or not isinstance(value.get("n_recordings"), int):
        return False
    percentiles = value.get("percentiles")
    return isinstance(percentiles, dict) and all(
        isinstance(values, list)
        and len(values) == len(PERCENTS)
        and all(isinstance(number, (int, float)) for number in values)
        for values in percentiles.values()
    )
