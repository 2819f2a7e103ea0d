"""From trained folds to the classes of a folder of new snippets."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.songs.inference import InferenceOptions, write_submission
from tests.helpers import make_read_only
from tests.songs.inference_data import SHARES, write_config, write_unseen

COLUMNS = ["p0", "p1", "p2", "p3"]


@pytest.fixture
def options(trained: Path, tmp_path: Path) -> InferenceOptions:
    """Options of two folds on a folder with good and bad snippets."""
    return write_unseen(tmp_path, trained)


def read(options: InferenceOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    beside = options.submission.with_name("submission_probabilities.csv")
    return pd.read_csv(options.submission), pd.read_csv(beside).set_index("filename")


def test_every_snippet_of_a_folder_gets_a_class(options: InferenceOptions) -> None:
    write_submission(options)
    submission, probabilities = read(options)
    album = [f"album/{number}.wav" for number in ("11", "22", "3", "33")]
    expected = [*album, "broken.ogg", "long.flac.wav", "silent.wav"]
    assert submission.columns.tolist() == ["filename", "label"]
    assert submission["filename"].tolist() == expected
    assert submission["label"].tolist() == probabilities[COLUMNS].to_numpy().argmax(1).tolist()
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1)


def test_unscorable_snippets_get_the_class_shares_and_are_reported(
    options: InferenceOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    _, probabilities = read(options)
    for filename in ("broken.ogg", "silent.wav"):
        assert probabilities.loc[filename].tolist() == pytest.approx(SHARES)
    problems = pd.read_csv(options.submission.with_name("submission_problems.csv"))
    by_name = problems.groupby("filename")["what"].first()
    assert "that is unreadable" in by_name["broken.ogg"] and "is silent" in by_name["silent.wav"]
    cures = problems.set_index("filename")["cure"]
    assert cures["broken.ogg"].endswith(", or remove it")  # a folder has no rows
    assert "6.00 s long instead of 3 s" in by_name["long.flac.wav"]
    assert "7 snippets, 2 of them at the class shares" in capsys.readouterr().out


def test_every_file_that_may_be_a_recording_has_a_row_and_the_others_are_named(
    options: InferenceOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    before = read(options)[1]
    capsys.readouterr()
    odd = ["a.m4a", "album/no suffix", "b.webm", "c.wma", "d.mp4", "Émile.XYZ"]
    for name in odd:
        (options.data / name).write_bytes(b"\x01 no audio that any decoder reads")
    good = options.data / "album/3.wav"
    (options.data / "album/3").write_bytes(good.read_bytes())
    (options.data / "album/3.WAV").write_bytes(good.read_bytes())
    for name in ("notes.txt", ".DS_Store"):
        (options.data / name).touch()
    write_submission(options)
    submission, probabilities = read(options)
    added = [*odd, "album/3", "album/3.WAV"]
    assert submission["filename"].tolist() == sorted([*before.index, *added])
    for name in odd:
        assert probabilities.loc[name].tolist() == pytest.approx(SHARES)
    for name in ("album/3", "album/3.WAV"):
        assert probabilities.loc[name].tolist() == before.loc["album/3.wav"].tolist()
    problems = pd.read_csv(options.submission.with_name("submission_problems.csv"))
    assert set(odd) < set(problems["filename"][problems["severity"] == "error"])
    printed = capsys.readouterr().out
    assert printed.count("skipped, for they are no recordings: '.DS_Store', 'notes.txt'\n") == 1


def test_a_store_that_cannot_be_written_to_is_replaced_by_a_temporary_one(
    options: InferenceOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_submission(options)
    before = options.submission.read_bytes()
    there = sorted(options.store.rglob("*"))
    for snippet in options.data.rglob("*.*"):  # a copy has new times
        os.utime(snippet, (1, 1))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        make_read_only(patch, options.store)
        write_submission(options)
    assert options.submission.read_bytes() == before
    assert capsys.readouterr().out.count("Decoded into a temporary folder instead\n") == 1
    assert sorted(options.store.rglob("*")) == there
    assert list(scratch.iterdir()) == []


def test_another_separation_than_in_training_is_refused(
    options: InferenceOptions, tmp_path: Path
) -> None:
    config = write_config(tmp_path, [ModelConfig("cnn4_repet", (0,), 1.0)])
    other = replace(options, config=config, separations={"repet": {"margin": 3.0}})
    with pytest.raises(HearbackError, match="trained on voices separated by"):
        write_submission(other)


def test_weights_of_another_model_are_refused(
    options: InferenceOptions, trained: Path, tmp_path: Path
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    fold_metadata = json.loads((trained / "assets/cnn4_0.json").read_text())
    fold_metadata["recipe"]["architecture"], fold_metadata["recipe"]["dropout"] = "resnet34", 0.0
    (assets / "cnn4_0.json").write_text(json.dumps(fold_metadata))
    weights = trained / "assets/cnn4_0.safetensors"
    (assets / weights.name).write_bytes(weights.read_bytes())
    config = write_config(tmp_path, [ModelConfig("cnn4", (0,), 1.0)])
    with pytest.raises(HearbackError, match="not this model's weights"):
        write_submission(replace(options, config=config, assets=assets))


def test_a_folder_without_snippets_is_an_error(options: InferenceOptions, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HearbackError, match="no audio files"):
        write_submission(replace(options, data=tmp_path / "empty"))


def test_the_features_of_a_folder_are_computed_once(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_submission(options)
    first = read(options)[1]
    for name in ("broken.ogg", "silent.wav"):  # these are tried again each time
        (options.data / name).unlink()
    monkeypatch.setattr("hearback.engine.audio.store_builder._Decoder.decode_all", only_nothing)
    write_submission(options)
    again = read(options)[1]
    pd.testing.assert_frame_equal(again, first.loc[again.index])


def only_nothing(_decoder: Any, sources: Any, *_: Any, **__: Any) -> Any:
    assert not sources
    return iter(())


def test_inference_loads_nothing_that_a_runtime_lacks() -> None:
    lacking = ["matplotlib", "tensorboard", "demucs", "rapidfuzz", "hibari_tts", "ray", "pyworld"]
    check = (
        f"import sys, hearback.songs.steps.infer; print([m for m in {lacking} if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "[]"


def test_the_command_writes_the_submission(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hearback.songs.steps import infer

    places = ("data", "store", "assets", "config", "submission")
    flags = [part for name in places for part in (f"--{name}", str(getattr(options, name)))]
    argv = ["infer", *flags, "--device", "cpu", "--precision", "float32"]
    monkeypatch.setattr(sys, "argv", argv)
    infer.main()
    by_command = options.submission.read_bytes()
    write_submission(options)
    assert options.submission.read_bytes() == by_command
