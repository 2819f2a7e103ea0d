"""The synthetic sample of song snippets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.songs.corpora import sample
from hearback.songs.corpora.sample import N_SAMPLES, SOUND_RATE, Singer, make_melody, plan, sing
from hearback.songs.tables import read_snippets


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("songs")
    return folder, sample.build(folder, 40)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_sample_can_be_read(built: tuple[Path, pd.DataFrame]) -> None:
    folder, table = built
    report = Report()
    snippets = read_snippets(folder, report)
    assert not report.problems
    train = table[table["half"] == "train"]
    assert snippets["filename"].tolist() == ("train/" + train["file"]).tolist()
    assert snippets["label"].tolist() == train["label"].tolist()
    assert snippets["label"].value_counts().to_dict() == {0: 6, 1: 14, 2: 14, 3: 6}
    assert snippets["group"].str.match(r"train (man|woman) \d$|music: train track \d+$").all()


def test_the_test_half_has_its_own_singers_and_music(built: tuple[Path, pd.DataFrame]) -> None:
    folder, table = built
    test = table[table["half"] == "test"]
    lines = (folder / "test_label.txt").read_text().splitlines()
    assert lines == [f"{row.file},{row.label}" for row in test.itertuples()]
    assert set(test["label"]) == {0, 1, 2, 3}
    for column in ("singers", "music"):
        by_half = [
            {name for names in part[column] for name in names.split(";") if name}
            for _, part in table.groupby("half")
        ]
        assert by_half[0].isdisjoint(by_half[1])


def test_snippets_are_three_seconds_of_sound(built: tuple[Path, pd.DataFrame]) -> None:
    folder, table = built
    for row in table.itertuples():
        waveform, rate = soundfile.read(folder / str(row.half) / str(row.file))
        assert rate == SOUND_RATE == 24_000
        assert waveform.shape == (N_SAMPLES,) == (72_000,)
        assert 0.02 < np.abs(waveform).max() <= 0.701


def test_singers_match_the_label() -> None:
    for half in ("train", "test"):
        for snippet in plan(half, 60, 0):
            sexes = [singer.sex for singer in snippet.singers]
            if snippet.label < 3:
                assert sexes == [[], ["man"], ["woman"]][snippet.label]
            else:
                assert len(set(snippet.singers)) == len(sexes) > 1
            assert snippet.singers or snippet.track


def test_the_same_seed_gives_the_same_bytes(
    built: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    folder, _ = built
    sample.build(tmp_path, 40, seed=1)
    other = digests(tmp_path)
    sample.build(tmp_path, 40)  # replaces the previous one completely
    assert digests(tmp_path) == digests(folder)
    assert other.keys() == digests(folder).keys()
    assert other["train/train_0000.wav"] != digests(folder)["train/train_0000.wav"]


def test_other_snippets_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/train_0000.ogg").write_bytes(b"a song")
    (tmp_path / "train_label.txt").write_text("train_0000.ogg,3\n")
    before = digests(tmp_path)
    with pytest.raises(HearbackError, match=r"other snippets.*train_0000\.ogg"):
        sample.build(tmp_path, 40)
    (tmp_path / "train/train_0000.ogg").unlink()
    with pytest.raises(HearbackError, match="other snippets"):
        sample.build(tmp_path, 40)
    assert digests(tmp_path) == {"train_label.txt": before["train_label.txt"]}


def median_pitch(waveform: np.ndarray) -> float:
    """Return the median pitch of loud frames in Hz, by autocorrelation."""
    pitches = []
    for frame in waveform[: len(waveform) // 2048 * 2048].reshape(-1, 2048):
        if np.mean(frame**2) > 0.3 * np.mean(waveform**2):
            spectrum = np.abs(np.fft.rfft(frame * np.hanning(2048), 4096)) ** 2
            lags = np.fft.irfft(spectrum)[:2048]
            lags /= np.linspace(1, 0.4, 2048)  # less of longer lags is in the frame
            lowest = SOUND_RATE // 600
            pitches.append(SOUND_RATE / (lowest + np.argmax(lags[lowest : SOUND_RATE // 80])))
    return float(np.median(pitches))


def make(sex: str, lowest: float, tract: float) -> Singer:
    return Singer("one", sex, lowest, tract, 5.5, 30, 0.005, 0.6, -25)


def test_the_pitch_is_the_singer_s() -> None:
    melody = (np.array([0]), np.array([0]))
    for lowest in (130.0, 220.0, 300.0):
        voice = sing(make("man", lowest, 1.0), melody, np.random.default_rng(0))
        assert voice.shape == (N_SAMPLES,)
        assert median_pitch(voice) == pytest.approx(lowest, rel=0.05)


def test_a_shorter_vocal_tract_has_higher_formants() -> None:
    melody = make_melody(np.random.default_rng(0))

    def centroid(tract: float) -> float:
        voice = sing(make("man", 150, tract), melody, np.random.default_rng(1))
        spectrum = np.abs(np.fft.rfft(voice)) ** 2
        hertz = np.fft.rfftfreq(N_SAMPLES, 1 / SOUND_RATE)
        return float((hertz * spectrum).sum() / spectrum.sum())

    assert centroid(1.2) > 1.1 * centroid(1.0)


@pytest.mark.parametrize("n", ["39", "-1", "many", "10000"])
def test_invalid_sizes_are_refused(
    n: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        sample.main([str(tmp_path), "--snippets", n])
    assert "40 to 9999 snippets" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main([str(tmp_path), "--snippets", "40", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert "train: 40 snippets (6 no voice, 14 male, 14 female, 6 several)" in printed
