"""The embedded sample: its plan, tables and recordings."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pyworld

from hearback.engine.audio import decode, wav
from hearback.engine.data import problems
from hearback.engine.errors import HearbackError
from hearback.reading import tables
from hearback.reading.corpora import sample
from hearback.reading.corpora.sample import plan
from hearback.reading.corpora.sample_audio import Speech, add_noise, reverberate
from hearback.reading.corpora.sample_items import make_items


class Hummer:
    """A voice that hums: each text has its own pitch, longer texts last longer."""

    sample_rate = 24_000
    rendered: list[tuple[float, str]]

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def render(self, text: str) -> np.ndarray:
        Hummer.rendered.append((self.speed, text))
        n = int(self.sample_rate * (0.1 + 0.01 * len(text)) / self.speed)
        return hum(n, 150 + sum(map(ord, text)) % 100, self.sample_rate).astype(np.float32)

    def close(self) -> None:
        pass


def hum(n: int, f0: float, sample_rate: int) -> np.ndarray:
    """Return a vowel-like sound, (n,): harmonics of `f0` Hz under one peak at 1 kHz."""
    harmonics = np.arange(f0, sample_rate / 2, f0)
    times = np.arange(n) / sample_rate
    loud = 1 / (1 + ((harmonics - 1000) / 300) ** 2)
    return 0.1 * (loud[:, None] * np.sin(2 * np.pi * harmonics[:, None] * times)).sum(axis=0)


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hummer]]:
    Hummer.rendered = []
    monkeypatch.setattr(sample, "open_voice", lambda backend, speed: Hummer(speed))
    yield Hummer


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_plan_has_the_share_of_correct_clips() -> None:
    clips = plan(360, 60, 24, seed=0)
    assert Counter(clip.half for clip in clips) == {"train": 360, "test": 60}
    for half in ("train", "test"):
        of_half = [clip for clip in clips if clip.half == half]
        assert {clip.item.task for clip in of_half} == set(tables.TASKS)
        assert {clip.learner.grade for clip in of_half} == set(tables.GRADES)
        assert np.mean([clip.how == "correct" for clip in of_half]) == pytest.approx(0.47, abs=0.03)
        for task, share in sample.SHARE_CORRECT.items():
            right = [clip.how == "correct" for clip in of_half if clip.item.task == task]
            assert sum(right) == round(share * len(right))


def test_the_halves_share_texts_and_no_learners() -> None:
    clips = plan(360, 60, 24, seed=0)
    learners = {h: {c.learner.name for c in clips if c.half == h} for h in ("train", "test")}
    texts = {h: {c.item.text for c in clips if c.half == h} for h in ("train", "test")}
    assert not learners["train"] & learners["test"]
    assert len(learners["train"] | learners["test"]) == 24
    assert texts["test"] <= texts["train"]
    assert len(texts["train"]) >= 32


@pytest.mark.parametrize("sizes", [(1, 0, 1), (1, 1, 2), (5, 100, 2), (48, 8, 4), (3, 0, 7)])
def test_any_valid_size_can_be_planned(sizes: tuple[int, int, int]) -> None:
    n_train, n_test, n_speakers = sizes
    clips = plan(*sizes, seed=0)
    assert Counter(clip.half for clip in clips)["train"] == n_train
    assert len(clips) == n_train + n_test
    assert len({clip.learner.name for clip in clips}) <= n_speakers


@pytest.mark.parametrize("sizes", [(0, 5, 4), (5, -1, 4), (5, 1, 1), (5, 0, 0)])
def test_an_invalid_size_is_refused(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    with pytest.raises(HearbackError, match="--n_train"):
        sample.build(tmp_path / "data", *sizes)
    assert not (tmp_path / "data").exists()


def test_correct_clips_contain_the_text_and_wrong_ones_a_mistake() -> None:
    for clip in plan(600, 100, 24, seed=1):
        assert (clip.said == clip.item.text) == (clip.how == "correct")
        if clip.how != "correct":
            assert clip.said in clip.item.mistakes[clip.how]


def test_mistakes_match_their_kind() -> None:
    for item in make_items(np.random.default_rng(0)):
        words = item.text.split()
        for said in item.mistakes.get("omit", ()):
            if item.task == "sentence_repetition":
                dropped = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
                assert said in dropped
            else:
                assert len(said) < len(item.text)
        for said in item.mistakes["swap"]:
            assert len(said.split()) == len(words)
            assert sum(a != b for a, b in zip(said.split(), words, strict=True)) == 1


def test_younger_learners_have_higher_pitch_and_fewer_correct_clips() -> None:
    clips = plan(2000, 0, 200, seed=0)
    pitch = {
        grade: np.mean([clip.learner.pitch for clip in clips if clip.learner.grade == grade])
        for grade in tables.GRADES
    }
    right = {
        grade: np.mean([clip.how == "correct" for clip in clips if clip.learner.grade == grade])
        for grade in tables.GRADES
    }
    assert pitch["KG"] > pitch["3"]
    assert right["KG"] < right["3"]


def test_the_tables_and_recordings_are_valid(tmp_path: Path, voice: type[Hummer]) -> None:
    rows = sample.build(tmp_path, 24, 8, 4)
    report = problems.Report()
    for half, n in (("train", 24), ("test", 8)):
        metadata = tables.read_metadata(tmp_path / f"{half}_metadata.csv", report)
        labels = tables.read_labels(tmp_path / f"{half}_labels.csv", metadata, report)
        for filename in metadata["filename"]:
            assert not decode.decode(tmp_path / filename).notes, "16 kHz and mono as it is"
        assert len(metadata) == n
        known = rows.set_index("filename")["score"]
        assert (labels.to_numpy() == known[metadata["filename"]].to_numpy()).all()
    order = tables.read_submission_format(tmp_path / "submission_format.csv", metadata, report)
    assert order == list(metadata["filename"])
    assert not report.problems, report
    provenance = pd.read_csv(tmp_path / "provenance.csv").set_index("filename")
    said_it = provenance["said"] == rows.set_index("filename")["expected_text"]
    assert (said_it == (provenance["how"] == "correct")).all()
    assert (said_it == (rows.set_index("filename")["score"] == 1)).all()


def test_each_text_is_rendered_once_at_each_speed(
    tmp_path: Path, voice: type[Hummer], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = dict.fromkeys(("pitch", "formants", "pace", "snr_db"), 1.0)
    monkeypatch.setattr(sample.Speech, "of", lambda waveform, sample_rate: waveform)
    monkeypatch.setattr(sample, "record", lambda speech, learner, rng: (speech, figures))
    sample.build(tmp_path, 60, 0, 2)
    assert len(voice.rendered) == len(set(voice.rendered)) < 60
    assert not list(tmp_path.glob("test_*.csv")), "without a test half there is none to score"


def test_same_seed_same_bytes(tmp_path: Path, voice: type[Hummer]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sample.build(tmp_path / name, 6, 2, 3, seed)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    assert content_of(tmp_path / "a") != content_of(tmp_path / "c")


def test_a_killed_build_leaves_no_tables_and_the_next_one_is_complete(
    tmp_path: Path, voice: type[Hummer], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.build(tmp_path / "whole", 6, 2, 3)
    data = tmp_path / "data"
    sample.build(data, 6, 2, 3, seed=1)
    written: list[Path] = []

    def write(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        wav.write_wav(path, waveform, sample_rate)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "write_wav", write)
        with pytest.raises(KeyboardInterrupt):
            sample.build(data, 6, 2, 3)
    assert not list(data.glob("*.csv")), "tables must not list another sample's recordings"
    sample.build(data, 6, 2, 3)
    assert content_of(data) == content_of(tmp_path / "whole")


def test_another_corpus_is_not_overwritten(tmp_path: Path, voice: type[Hummer]) -> None:
    sample.build(tmp_path, 6, 2, 3)
    sample.build(tmp_path, 4, 2, 3, seed=1)  # its own tables may be replaced
    for name, text in (
        ("train_metadata.csv", "filename,task,expected_text,grade\nabcdef.wav,deletion,boy,KG\n"),
        ("train_labels.csv", "filename,score\nsample_00001.wav,1.0\nabcdef.wav,1.0\n"),
        ("submission_format.csv", "not,a,table\n1,2,3\n"),
        ("test_metadata.csv", ""),
    ):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text(text)
        content = content_of(tmp_path)
        with pytest.raises(HearbackError, match="another corpus") as caught:
            sample.build(tmp_path, 6, 2, 3)
        assert name in str(caught.value)
        assert content_of(tmp_path) == content
        (tmp_path / name).write_bytes(before)


def test_the_command_accepts_dashes_and_prints_a_summary(
    tmp_path: Path, voice: type[Hummer], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--n-train", "4", "--n_test", "2", "--speakers", "3", "--seed", "7"]
    assert sample.main([str(tmp_path), *sizes]) == 0
    assert "train: 4 clips" in capsys.readouterr().out


def test_a_voice_is_transformed_as_specified() -> None:
    speech = Speech.of(hum(24_000, 200, 24_000), 24_000)
    same, changed = speech.transform(1, 1, 1), speech.transform(1.5, 1.2, 0.8)
    assert len(changed) == pytest.approx(0.8 * len(same), rel=0.02)
    assert pitch_of(same) == pytest.approx(200, rel=0.02)
    assert pitch_of(changed) == pytest.approx(300, rel=0.02)
    assert formant_of(same) == pytest.approx(1000, rel=0.05)
    assert formant_of(changed) == pytest.approx(1200, rel=0.05)


def pitch_of(waveform: np.ndarray) -> float:
    f0, _ = pyworld.dio(waveform, decode.SAMPLE_RATE)
    return float(np.median(f0[f0 > 0]))


def formant_of(waveform: np.ndarray) -> float:
    """Return the frequency of the spectral envelope's maximum, in Hz."""
    envelope = Speech.of(waveform, decode.SAMPLE_RATE).envelope
    mean = np.log(envelope[len(envelope) // 4 : -len(envelope) // 4]).mean(axis=0)
    return float(mean.argmax() * decode.SAMPLE_RATE / 2 / (len(mean) - 1))


@pytest.mark.parametrize("pink", [False, True])
def test_noise_has_the_specified_level(pink: bool) -> None:
    speech = hum(16_000, 200, 16_000)
    padded = np.concatenate([speech, np.zeros(8_000)])
    noise = add_noise(padded, 20, pink, np.random.default_rng(0)) - padded
    assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(20, abs=3)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[10 : len(power) // 2].mean(), power[len(power) // 2 :].mean()
    assert (low > 2 * high) == pink


def test_reverberation_follows_the_sound_and_decays() -> None:
    click = np.zeros(16_000)
    click[1000] = 1.0
    wet = reverberate(click, 0.3, 10, np.random.default_rng(0))
    assert len(wet) == len(click)
    assert np.abs(wet[:1000]).max() < 1e-9
    assert wet[1000] == pytest.approx(1.0)
    echo = wet[1001:]
    assert 10 * np.log10(np.sum(echo**2)) == pytest.approx(-10, abs=0.1)
    energy = np.sum(echo[: 16_000 // 20] ** 2)
    assert energy > 10 * np.sum(echo[3 * 16_000 // 20 : 4 * 16_000 // 20] ** 2)


@pytest.mark.slow
def test_every_mistake_sounds_different_from_the_text() -> None:
    """In the voice's own phonemes, without stress and with the flap of "latter" taken for a d."""
    hibari = pytest.importorskip("hibari")
    voice = hibari.Hibari()

    def sounds(text: str) -> str:
        return " ".join(voice.phonemize(text)).translate(str.maketrans("T", "d", "ˈˌ"))

    for seed in range(5):
        for item in make_items(np.random.default_rng(seed)):
            for mistakes in item.mistakes.values():
                for said in mistakes:
                    assert sounds(said) != sounds(item.text), f"{said} sounds like {item.text}"


@pytest.mark.slow
def test_the_real_voice_is_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        sample.build(tmp_path / name, 8, 2, 3)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
