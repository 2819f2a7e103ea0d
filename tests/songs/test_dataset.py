"""The training set of the songs: folds, fingerprint, refused data."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine.data.problems import BadInputError
from hearback.engine.errors import HearbackError
from hearback.songs.dataset import SongData, load_song_data
from hearback.songs.separation.methods import open_separation
from tests.songs.songs_data import N_SNIPPETS, Halved, write_songs

N_FOLDS = 3


def load(folder: Path, **changes: Any) -> SongData:
    return load_song_data(folder / "data", folder / "store", **{"n_folds": N_FOLDS, **changes})


@pytest.fixture
def folder(songs_folder: Path, tmp_path: Path) -> Path:
    """A copy of the shared folder that a test may change."""
    load(songs_folder)
    for part in ("data", "store"):
        shutil.copytree(songs_folder / part, tmp_path / part)
    return tmp_path


def singers_of(data: SongData, rows: np.ndarray) -> set[str]:
    return {
        name
        for singers in data.snippets["singers"].iloc[rows]
        for name in singers.split(";")
        if name
    }


def test_every_row_is_held_out_once(songs_folder: Path) -> None:
    data = load(songs_folder)
    assert len(data.filenames) == len(data.labels) == N_SNIPPETS
    held_out = np.concatenate([data.validation_rows(fold) for fold in range(N_FOLDS)])
    assert sorted(held_out) == list(range(N_SNIPPETS))


def test_a_fold_is_trained_without_its_own_singers(songs_folder: Path) -> None:
    data = load(songs_folder)
    groups = data.snippets["group"]
    left_out = 0
    for fold in range(N_FOLDS):
        rows, held_out = data.training_rows(fold), data.validation_rows(fold)
        own = set(groups.iloc[held_out])
        assert not own & set(groups.iloc[rows])
        assert not own & singers_of(data, rows)  # nor as the second of several
        others = np.setdiff1d(np.arange(N_SNIPPETS), np.concatenate([rows, held_out]))
        for row in others:  # only rows with a held-out singer are left out
            assert own & singers_of(data, np.array([row]))
        left_out += len(others)
    assert left_out > 0


def test_without_groups_a_fold_trains_on_all_other_folds(songs_folder: Path) -> None:
    data = load(songs_folder, group_by="none")
    for fold in range(N_FOLDS):
        together = np.concatenate([data.training_rows(fold), data.validation_rows(fold)])
        assert sorted(together) == list(range(N_SNIPPETS))
    shared = singers_of(data, data.training_rows(0)) & singers_of(data, data.validation_rows(0))
    assert shared
    by_class = [np.bincount(data.labels[data.validation_rows(fold)]) for fold in range(N_FOLDS)]
    assert np.ptp(by_class, axis=0).max() <= 1


def test_without_a_manifest_each_snippet_is_a_group(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data" / "manifest.csv").unlink()
    data = load(folder)
    assert "no manifest: a singer may be in training and validation" in capsys.readouterr().out
    for fold in range(N_FOLDS):
        assert len(data.training_rows(fold)) + len(data.validation_rows(fold)) == N_SNIPPETS


def test_folds_do_not_depend_on_the_order_of_the_labels(folder: Path) -> None:
    before = load(folder)
    labels = folder / "data" / "train_label.txt"
    labels.write_text("\n".join(labels.read_text().split()[::-1]))
    after = load(folder)
    assert before.filenames == after.filenames[::-1]
    assert before.folds.tolist() == after.folds.tolist()[::-1]
    assert before.fingerprint == after.fingerprint


def other_label(data: Path) -> None:
    labels = data / "train_label.txt"
    labels.write_text(labels.read_text().replace("08.wav,1", "08.wav,2"))


def other_singer(data: Path) -> None:
    table = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    row = int(np.flatnonzero(table["singers"] == "m0;f0")[0])
    table.loc[row, "singers"] = "m0;f1"
    table.to_csv(data / "manifest.csv", index=False)


def other_recording(data: Path) -> None:
    shutil.copy(data / "train" / "01.wav", data / "train" / "00.wav")


@pytest.mark.parametrize("change", [other_label, other_singer, other_recording])
def test_the_fingerprint_changes_with_the_training_set(folder: Path, change: Any) -> None:
    before = load(folder).fingerprint
    assert load(folder).fingerprint == before
    change(folder / "data")
    assert load(folder).fingerprint != before


def test_the_fingerprint_is_independent_of_separation_and_folds(songs_folder: Path) -> None:
    plain = load(songs_folder)
    others = [
        load(songs_folder, separate="repet"),
        load(songs_folder, n_folds=2),
        load(songs_folder, group_by="none"),
    ]
    assert {data.fingerprint for data in others} == {plain.fingerprint}
    assert others[0].separation["backend"] == "repet"
    assert plain.separation["backend"] == "none"


def test_a_limit_takes_the_first_rows_and_keeps_complete_stores(folder: Path) -> None:
    whole = load(folder)
    assert len(whole.features("log_mel_40")) == N_SNIPPETS
    stored = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*.npy")}
    few = load(folder, limit=30, n_folds=2)
    assert few.filenames == whole.filenames[:30]
    assert few.labels.tolist() == whole.labels[:30].tolist()
    assert len(few.folds) == 30
    assert few.fingerprint != whole.fingerprint  # other rows are another training set
    assert len(few.features("log_mel_40")) == N_SNIPPETS
    assert len(load(folder).features("log_mel_40")) == N_SNIPPETS
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    assert load(folder, limit=N_SNIPPETS).fingerprint == whole.fingerprint


def test_features_are_computed_from_the_separated_voices(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, opened = load(folder), []

    def open_halved(name: str) -> Any:
        opened.append(name)
        return Halved(backend="demucs") if name == "demucs" else open_separation(name)

    for module in ("hearback.songs.dataset", "hearback.songs.store"):
        monkeypatch.setattr(f"{module}.open_separation", open_halved)
    separated = load(folder, separate="demucs")
    name = plain.filenames[10]
    features = plain.features("log_mel_40").get(name)
    assert features.shape == (299, 40) and features.dtype == np.float32
    halved = separated.features("log_mel_40").get(name)
    # A quarter of the power, up to the rounding of 16 bits.
    np.testing.assert_allclose(features - halved, np.log(4), atol=0.3)
    assert separated.separation == Halved(backend="demucs").describe()


def test_every_problem_is_reported_at_once(folder: Path) -> None:
    data = folder / "data"
    (data / "train" / "03.wav").write_bytes(b"no audio")
    (data / "train" / "05.wav").unlink()
    labels = data / "train_label.txt"
    labels.write_text(labels.read_text().replace("07.wav,0", "07.wav,4"))
    manifest = data / "manifest.csv"
    rows = [row for row in manifest.read_text().splitlines() if not row.startswith("09.wav")]
    manifest.write_text("\n".join(rows))
    with pytest.raises(BadInputError) as refusal:
        load(folder)
    for message in ("03.wav", "05.wav", "07.wav", "the class is '4'", "09.wav", "no row for the"):
        assert message in str(refusal.value)


def test_strict_refuses_converted_recordings(folder: Path) -> None:
    path = folder / "data" / "train" / "00.wav"
    sound, rate = soundfile.read(path)
    soundfile.write(path, np.stack([sound, sound], axis=1), rate)
    load(folder)
    with pytest.raises(BadInputError, match=r"2 channels, averaged\n *line 1 \('train/00\.wav'\)"):
        load(folder, strict=True)


def test_fewer_groups_than_folds_are_an_error(tmp_path: Path) -> None:
    write_songs(tmp_path / "data")
    with pytest.raises(HearbackError, match="singers cannot make 40 folds"):
        load(tmp_path, n_folds=40)
