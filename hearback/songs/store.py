"""Stores of the snippets: separated audio, and features computed from it.

Both are `hearback.engine.audio.store.Store`s. Separated audio is 24 kHz int16; it is stored because
a separation may take seconds per snippet. Features are float32. In the store folder, `train_none`
is the audio of the training snippets without separation, and `train_none_log_mel_40` its features
"log_mel_40".
"""

import contextlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import decode
from hearback.engine.audio.store import Store
from hearback.engine.audio.store_builder import build_store
from hearback.engine.audio.store_format import StoreFormat
from hearback.engine.data.problems import Report
from hearback.songs.features import FEATURES, N_SAMPLES
from hearback.songs.separation.methods import SOUND_RATE, Separation, open_separation
from hearback.songs.tables import SECONDS, labels_path

# A store of arrays in the shape of the features.
FeatureStore: TypeAlias = Store

# Increase a version when the same snippet gives other audio or features: existing stores are then
# rebuilt.
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
    """Compute missing features of snippets, and open their store.

    Args:
        snippets: from `tables.read_snippets(data, ...)` or `tables.list_snippets(data)`.
        data, store: folders of the snippets and of the stores.
        name: name of the snippets in `store`.
        features: a name in FEATURES.
        separation: an open separation, or a name; then it is opened and closed here.
        report: receives the problems; a snippet with an error, or a silent one, has no features.
        progress, workers: whether to show a progress bar; number of threads.
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
        settings = separation.describe()
    kind = FEATURES[features]
    store_format = StoreFormat(
        _FEATURES_VERSION,
        kind.sample_rate,
        is_audio=False,
        shape=kind.shape,
        parameters={"features": features, "separation": settings},
    )
    usable = snippets[snippets["filename"].map(sounds.__contains__).astype(bool)]
    return build_store(
        usable,
        data,
        _table(snippets, data),
        store,
        f"{name}_{settings['backend']}_{features}",
        report=report,
        progress=progress,
        workers=workers,
        store_format=store_format,
        load=lambda filename, _: (kind.compute(sounds.get(filename)), ()),
        description=features,
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
    """Separate snippets that are not stored yet, and open the store of their audio.

    A stored snippet is (72000,) at 24 kHz. Arguments are those of `build_features`. A snippet that
    is not 3 s long is cut or zero-padded at its end, with a warning.
    """
    settings = separation.describe()
    store_format = StoreFormat(
        _SOUND_VERSION, SOUND_RATE, shape=(N_SAMPLES,), parameters={"separation": settings}
    )

    def load(_filename: str, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
        snippet = decode(path, SOUND_RATE)
        waveform, notes = fit_length(snippet.waveform)
        return separation.separate(waveform), (*snippet.notes, *notes)

    return build_store(
        snippets,
        data,
        _table(snippets, data),
        store,
        f"{name}_{settings['backend']}",
        report=report,
        progress=progress,
        workers=workers,
        store_format=store_format,
        load=load,
        description=f"separation {settings['backend']}",
    )


def fit_length(waveform: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Cut or zero-pad a waveform at 24 kHz to (72000,); return it with notes on the change."""
    n_samples = len(waveform)
    fitted = np.zeros(N_SAMPLES, np.float32)
    fitted[:n_samples] = waveform[:N_SAMPLES]
    if abs(n_samples - N_SAMPLES) <= 1:  # resampling rounds the length
        return fitted, ()
    done = "cut" if n_samples > N_SAMPLES else "zero-padded"
    return fitted, (f"{n_samples / SOUND_RATE:.2f} s long instead of {SECONDS:g} s: {done}",)


def _table(snippets: pd.DataFrame, data: Path) -> Path:
    """Return the path that problems name: the table of labels, or a folder without labels."""
    return labels_path(data) if "label" in snippets else data
