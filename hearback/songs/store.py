"""Snippets brought to 3 s, their voices separated, and features: computed once, memory-mapped.

Two layers of `hearback.engine.audio.store.Store`, resumable and checked against the snippets' files: the sound
after separation, 24 kHz int16, because a separation may take seconds a snippet; and the features
made from it, float32. In the store folder, the sounds of the snippets "train" without separation
are `train_none`, and their features "log_mel_40" are `train_none_log_mel_40`.
"""

import contextlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import decode
from hearback.engine.audio.store import Contents, Store
from hearback.engine.data.problems import Report
from hearback.songs.features import FEATURES, N_SAMPLES
from hearback.songs.separation.methods import SOUND_RATE, Separation, open_separation
from hearback.songs.tables import SECONDS, labels_path

# A store whose arrays have the features' shape: get(filename), `in`, fingerprint(), picklable.
FeatureStore: TypeAlias = Store

# Go up when the same snippet gives other sound, or other features: stores from before are then
# built again.
_SOUND_VERSION = 1
_FEATURES_VERSION = 1


def build_features(
    snippets: pd.DataFrame,
    data: Path,
    store: Path,
    name: str,
    features: str,
    *,
    separation: Separation | str,
    report: Report,
    progress: bool = True,
    workers: int | None = None,
) -> FeatureStore:
    """Bring the features of some snippets up to date, and open them.

    `snippets` come from `hearback.songs.tables.read_snippets(data, ...)`, or `list_snippets(data)`, and
    `name` is what they are called in the folder `store`; `features` is one of FEATURES. A
    separation given by its name is opened and closed here. Problems go into `report`; a snippet
    with an error, also one that is silent, has no features.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(separation, str):
            separation = open_separation(separation)
            stack.callback(separation.close)
        sounds = build_sounds(
            snippets,
            data,
            store,
            name,
            separation=separation,
            report=report,
            progress=progress,
            workers=workers,
        )
        made_by = separation.describe()
    kind = FEATURES[features]
    contents = Contents(
        _FEATURES_VERSION,
        kind.sample_rate,
        is_sound=False,
        shape=kind.shape,
        made_by={"features": features, "separation": made_by},
    )
    usable = snippets[snippets["filename"].map(sounds.__contains__).astype(bool)]
    return Store.build(
        usable,
        data,
        _table(snippets, data),
        store,
        f"{name}_{made_by['backend']}_{features}",
        report=report,
        progress=progress,
        workers=workers,
        contents=contents,
        load=lambda filename, _: (kind.compute(sounds.get(filename)), ()),
        doing=features,
    )


def build_sounds(
    snippets: pd.DataFrame,
    data: Path,
    store: Path,
    name: str,
    *,
    separation: Separation,
    report: Report,
    progress: bool = True,
    workers: int | None = None,
) -> Store:
    """Bring the separated sound of some snippets, (72000,) at 24 kHz, up to date, and open it.

    The arguments are those of `build_features`. A snippet that is not 3 s long is cut at its end,
    or filled up with silence there, and a warning says so.
    """
    made_by = separation.describe()
    contents = Contents(
        _SOUND_VERSION, SOUND_RATE, shape=(N_SAMPLES,), made_by={"separation": made_by}
    )

    def load(_filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
        snippet = decode(path, SOUND_RATE)
        waveform, notes = fit(snippet.waveform)
        return separation.separate(waveform), (*snippet.notes, *notes)

    return Store.build(
        snippets,
        data,
        _table(snippets, data),
        store,
        f"{name}_{made_by['backend']}",
        report=report,
        progress=progress,
        workers=workers,
        contents=contents,
        load=load,
        doing=f"separation {made_by['backend']}",
    )


def fit(waveform: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a waveform at 24 kHz cut or filled up to (72000,), and what to say about that."""
    n_samples = len(waveform)
    fitted = np.zeros(N_SAMPLES, np.float32)
    fitted[:n_samples] = waveform[:N_SAMPLES]
    if abs(n_samples - N_SAMPLES) <= 1:  # resampling rounds the length
        return fitted, ()
    done = "the rest is cut off" if n_samples > N_SAMPLES else "filled up with silence"
    return fitted, (f"{n_samples / SOUND_RATE:.2f} s long instead of {SECONDS:g} s: {done}",)


def _table(snippets: pd.DataFrame, data: Path) -> Path:
    """Return what the line numbers of the snippets are of: the labels, or a listed folder."""
    return labels_path(data) if "label" in snippets else data
