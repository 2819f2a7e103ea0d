"""The voices; MeloTTS's worker runs with a fake MeloTTS."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.project import ROOT
from hearback.reading.voices import RenderError, VoiceError, open_voice, reopen_voice
from hearback.reading.voices.hibari import HibariVoice
from hearback.reading.voices.melo import FILES, MeloVoice, missing_files

# Fakes of the packages in MeloTTS's environment with the relevant behaviour: they print on stdout,
# request tokenizers that are missing, and draw from torch's generator, with the first text
# also for the weights of BERT, which is loaded then.
TORCH = """
    import random
    generator = random.Random()
    def manual_seed(seed):
        generator.seed(seed)
"""
TRANSFORMERS = """
    class AutoTokenizer:
        @classmethod
        def from_pretrained(cls, name, **options):
            if name != "bert-base-uncased":
                raise OSError(f"offline, and no {name}")
            return name
"""
MELO = """
    import json, os, sys, time
    import numpy as np
    import torch
    from transformers import AutoTokenizer

    print("on import")
    os.write(1, b"from C\\n")
    tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
    AutoTokenizer.from_pretrained("tohoku-nlp/bert-base-japanese-v3")

    class HParams(dict):
        __getattr__ = dict.__getitem__

    class TTS:
        def __init__(self, language, device="auto", use_hf=True, config_path=None, ckpt_path=None):
            assert (language, device, tokenizer) == ("EN_NEWEST", "cpu", "bert-base-uncased")
            assert os.path.getsize(ckpt_path)
            with open(config_path) as file:
                speakers = HParams(json.load(file))
            self.hps = HParams(data=HParams(spk2id=speakers, sampling_rate=44100))
            self.bert = None

        def tts_to_file(self, text, speaker_id, output_path=None, sdp_ratio=0.2, noise_scale=0.6,
                        noise_scale_w=0.8, speed=1.0, pbar=None, format=None, position=None,
                        quiet=False):
            assert speaker_id == 7 and output_path is None
            print("saying", text)
            if self.bert is None:
                self.bert = torch.generator.random()
            if text.startswith("fail"):
                raise AssertionError(text)
            if text == "where":
                names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "NLTK_DATA")
                raise RuntimeError(json.dumps([os.getcwd(), *map(os.environ.get, names)]))
            if text == "die":
                sys.stderr.write("CUDA error: the card fell off\\n")
                sys.stderr.flush()
                os._exit(3)
            if text == "hang":
                time.sleep(60)
            if text == "...":
                return np.zeros(0, dtype=np.float32)
            n = int(700 / speed)
            return np.array([torch.generator.uniform(-1, 1) for _ in range(n)], dtype=np.float32)
"""


@pytest.fixture(scope="module")
def melo_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a separate environment with the fakes, and numpy from ours."""
    folder = tmp_path_factory.mktemp("venv-melo")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "numpy.pth").write_text(str(Path(np.__file__).parents[1]))
    for name, source in (("torch", TORCH), ("transformers", TRANSFORMERS), ("melo/api", MELO)):
        module = packages / f"{name}.py"
        module.parent.mkdir(exist_ok=True)
        module.write_text(textwrap.dedent(source))
    return folder / "bin" / "python"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A folder with every file that an offline machine needs."""
    for names in FILES:
        path = tmp_path / "tts_model" / names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"fake {path.name}")
    (tmp_path / "tts_model/config.json").write_text('{"EN-Newest": 7}')
    return tmp_path / "tts_model"


@pytest.fixture
def melo(melo_python: Path, model_dir: Path) -> Iterator[MeloVoice]:
    voice = MeloVoice(0.7, python=melo_python, model_dir=model_dir)
    yield voice
    voice.close()


def test_melo_is_reproducible_in_any_order(
    melo: MeloVoice, melo_python: Path, model_dir: Path
) -> None:
    first = melo.render("the cat")
    assert first.dtype == np.float32
    assert first.shape == (1000,)  # 700 samples at 0.7 of the pace
    assert not np.array_equal(melo.render("the dog"), first)
    assert np.array_equal(melo.render("the cat"), first)
    another = MeloVoice(0.7, python=melo_python, model_dir=model_dir)
    another.render("the dog")
    assert np.array_equal(another.render("the cat"), first)
    another.close()


def test_melo_describes_itself(melo: MeloVoice, model_dir: Path) -> None:
    assert melo.sample_rate == 44_100
    assert melo.describe() == {
        "backend": "melo",
        "voice": "EN_NEWEST EN-Newest",
        "speed": 0.7,
        "sample_rate": 44_100,
        "package_version": "melotts",  # the fake is not a distribution
        "weights": sha256_of(model_dir / "checkpoint.pth"),
    }


@pytest.mark.parametrize("text", ["fail", "fail: «it's» “ü”, \n 日本"])
def test_a_text_that_melo_fails_on_is_a_render_error(melo: MeloVoice, text: str) -> None:
    with pytest.raises(RenderError) as caught:
        melo.render(text)
    assert f"AssertionError: {text}" in str(caught.value)
    assert melo.render("the cat").size


def test_melo_may_give_no_audio(melo: MeloVoice) -> None:
    assert melo.render("...").size == 0


def test_a_dead_worker_is_an_error_with_its_last_output(melo: MeloVoice) -> None:
    with pytest.raises(VoiceError, match=r"has ended\n(.*\n)*.*the card fell off"):
        melo.render("die")
    with pytest.raises(VoiceError, match="has ended"):
        melo.render("the cat")


def test_a_hanging_worker_is_ended(melo_python: Path, model_dir: Path) -> None:
    voice = MeloVoice(0.7, python=melo_python, model_dir=model_dir, text_seconds=0.2)
    with pytest.raises(VoiceError, match=r"no answer in 0\.2 s"):
        voice.render("hang")
    voice.close()


def where(voice: MeloVoice) -> list[str | None]:
    """Return the worker's folder, hub variables and nltk folder."""
    with pytest.raises(RenderError) as caught:
        voice.render("where")
    return json.loads(str(caught.value).partition("RuntimeError: ")[2])


def test_the_hub_is_off_when_every_file_is_there(melo: MeloVoice, model_dir: Path) -> None:
    assert missing_files(model_dir) == []
    assert where(melo) == [str(model_dir), "1", "1", str(model_dir / "nltk_data")]


@pytest.mark.parametrize("names", [names for names in FILES if names[0].startswith("bert")])
def test_the_hub_is_on_when_a_file_is_missing(
    melo_python: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    (model_dir / names[0]).unlink()
    assert missing_files(model_dir) == [" or ".join(names)]
    voice = MeloVoice(0.7, python=melo_python, model_dir=model_dir)
    assert where(voice)[1:3] == [None, None]
    voice.close()


def test_an_alternative_file_is_accepted(model_dir: Path) -> None:
    for first, *others in FILES:
        for other in others:
            (model_dir / first).unlink()
            (model_dir / other).write_text("x")
            assert missing_files(model_dir) == []
            (model_dir / other).rename(model_dir / first)


def test_a_failed_start_reports_the_reason_and_missing_files(
    melo_python: Path, model_dir: Path
) -> None:
    (model_dir / "config.json").write_text('{"EN-US": 0}')
    (model_dir / "nltk_data/corpora/cmudict.zip").unlink()
    with pytest.raises(VoiceError, match=r"no speaker EN-Newest; it has \['EN-US'\]") as caught:
        MeloVoice(0.7, python=melo_python, model_dir=model_dir)
    assert "tts_model/nltk_data/corpora/cmudict.zip" in str(caught.value)
    assert "checkpoint.pth" not in str(caught.value)


def test_melo_without_its_environment_is_an_error_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="make melo"):
        open_voice("melo", python=tmp_path / "bin/python", model_dir=tmp_path)


def test_the_worker_ignores_pythonpath(
    melo_python: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "melo").mkdir()
    (tmp_path / "melo/__init__.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    voice = MeloVoice(0.7, python=melo_python, model_dir=model_dir)
    assert voice.render("the cat").size
    voice.close()


@pytest.fixture(scope="module")
def hibari() -> HibariVoice:
    return HibariVoice(0.7)


def test_hibari_is_reproducible_in_any_order(
    hibari: HibariVoice,
) -> None:
    texts = ["koovnorb", "the cat sat", "a"]
    other = HibariVoice(0.7)
    waveforms = [hibari.render(text) for text in texts]
    for text, waveform in zip(reversed(texts), reversed(waveforms), strict=True):
        assert np.array_equal(other.render(text), waveform)


@pytest.mark.parametrize("text", ["koovnorb", "brimple dask", "it's 7:30, isn't it?", "I"])
def test_hibari_speaks_words_and_nonwords(hibari: HibariVoice, text: str) -> None:
    waveform = hibari.render(text)
    assert waveform.dtype == np.float32
    assert 0.3 < waveform.size / hibari.sample_rate < 6
    assert 0.01 < np.abs(waveform).max() <= 1.5


def test_hibari_speaks_slower_at_a_lower_speed(hibari: HibariVoice) -> None:
    plain = open_voice("hibari", 1.0)
    assert hibari.render("the cat sat").size > 1.2 * plain.render("the cat sat").size


def test_hibari_describes_itself() -> None:
    described = open_voice("hibari", 0.8).describe()
    assert json.loads(json.dumps(described)) == described
    assert {"backend": "hibari", "voice": "heart", "speed": 0.8, "sample_rate": 24_000}.items() <= (
        described.items()
    )
    assert str(described["package_version"]).startswith("hibari-tts ")
    assert len(str(described["weights"])) == 64


def test_hibari_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIBARI_HOME", str(tmp_path))
    with pytest.raises(VoiceError, match=r"emma.*nothing is downloaded"):
        open_voice("hibari", voice="emma")
    assert not list(tmp_path.iterdir())


def test_hibari_uses_another_cached_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hibari.voices import VOICES, voice_path

    (tmp_path / VOICES["emma"]["file"]).write_bytes(Path(voice_path("heart")).read_bytes())
    monkeypatch.setenv("HIBARI_HOME", str(tmp_path))
    voice = open_voice("hibari", voice="emma")
    assert voice.describe()["voice"] == "emma"
    assert voice.render("the cat").size


def test_hibari_disables_onnxruntime_s_telemetry(tmp_path: Path) -> None:
    code = (
        "from hearback.reading.voices import open_voice; open_voice('hibari').render('the cat sat')"
    )
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**environment, **places}, check=True
    )
    assert list(tmp_path.rglob("*")) == []


def test_hibari_s_unknown_voices_are_refused() -> None:
    with pytest.raises(VoiceError, match=r"no voice 'bob'.*heart"):
        open_voice("hibari", voice="bob")


@pytest.mark.parametrize("package", ["hibari", "onnxruntime"])
def test_a_missing_hibari_is_an_error_with_the_cure(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(VoiceError, match=r"pip install hibari-tts==0\.2\.1"):
        open_voice("hibari")


def test_an_exception_in_hibari_is_a_render_error(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = HibariVoice(0.7)

    def fail(*_args: object, **_options: object) -> None:
        raise IndexError("no such phoneme")

    monkeypatch.setattr(voice, "_hibari", fail)
    with pytest.raises(RenderError, match="IndexError: no such phoneme"):
        voice.render("the cat")


def test_a_voice_is_reopened_from_its_record(hibari: HibariVoice) -> None:
    again = reopen_voice({**hibari.describe(), "stored_sample_rate": 16_000})
    assert again.describe() == hibari.describe()
    slower = reopen_voice({**hibari.describe(), "speed": 0.5})
    assert slower.describe()["speed"] == 0.5
    with pytest.raises(VoiceError, match="'bob'"):
        reopen_voice({**hibari.describe(), "voice": "bob"})


def test_melo_is_reopened_from_its_record(
    melo: MeloVoice, melo_python: Path, model_dir: Path
) -> None:
    again = reopen_voice(melo.describe(), python=melo_python, model_dir=model_dir)
    assert again.describe() == melo.describe()
    again.close()


def test_a_voice_is_opened_anew_in_another_process(hibari: HibariVoice, melo: MeloVoice) -> None:
    for voice in (hibari, melo):
        pickled = pickle.dumps(voice)
        assert len(pickled) < 1000  # no weights
        again = pickle.loads(pickled)
        assert again.describe() == voice.describe()
        assert np.array_equal(again.render("the cat"), voice.render("the cat"))
        again.close()


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_an_invalid_speed_is_refused(speed: float) -> None:
    with pytest.raises(HearbackError, match="speed"):
        open_voice("hibari", speed)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(HearbackError, match=r"'espeak'.*hibari and melo"):
        open_voice("espeak")
