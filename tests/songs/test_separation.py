"""`repet` on synthetic mixtures, and `demucs` with a stub of Demucs in its worker."""

import json
import sysconfig
import textwrap
import venv
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.songs.separation.methods import (
    SEPARATIONS,
    SOUND_RATE,
    Demucs,
    Repet,
    SeparationError,
    open_separation,
)

# Stubs of the modules that the worker imports: a model scales its input by a share.
DEMUCS = {
    "hf": """
        import json, types
        from safetensors import safe_open
        print("on import")

        def load_safetensors_model(path):
            with safe_open(str(path), framework="pt") as file:
                share, about = file.get_tensor("share"), json.loads(file.metadata()["kwargs"])
            return types.SimpleNamespace(share=share, **about)
    """,
    "apply": """
        import os, torch

        class BagOfModels:
            def __init__(self, models, weights, segment):
                self.models, self.samplerate, self.audio_channels = models, 44100, 2
                self.sources = models[0].sources

            def eval(self):
                return self

        def apply_model(model, mix, shifts, device):
            assert mix.shape[:2] == (1, 2) and shifts == 0 and device == "cpu"
            if mix.shape[-1] == 2:
                raise RuntimeError("too short")
            if mix.shape[-1] == 4:
                os._exit(3)
            assert abs(float(mix.std()) - 1) < 0.1
            shares = torch.stack([m.share for m in model.models]).mean(0)
            return mix[:, None] * shares[None, :, None, None]
    """,
    "htdemucs": "",
}


@pytest.fixture(scope="module")
def demucs_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with the stub and our torch."""
    folder = tmp_path_factory.mktemp("venv-demucs")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    (packages / "demucs").mkdir()
    for name, source in DEMUCS.items():
        (packages / "demucs" / f"{name}.py").write_text(textwrap.dedent(source))
    (packages / "demucs-4.1.0.dist-info").mkdir()
    (packages / "demucs-4.1.0.dist-info/METADATA").write_text("Name: demucs\nVersion: 4.1.0\n")
    return folder / "bin" / "python"


def write_model(folder: Path, klass: str = "demucs.htdemucs.HTDemucs", **about: str) -> Path:
    """Write a bag of one model: of four sources the voice is a quarter of the mixture."""
    folder.mkdir(exist_ok=True)
    (folder / "htdemucs.yaml").write_text("models: ['955717e8']")
    kwargs = {"sources": ["drums", "bass", "other", "vocals"]}
    save_file(
        {"share": np.array([0.5, 0.25, 0.0, 0.25], np.float32)},
        folder / "955717e8.safetensors",
        {"klass": klass, "args": "[]", "kwargs": json.dumps(kwargs), **about},
    )
    return folder


@pytest.fixture(scope="module")
def demucs(
    demucs_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Demucs, Path]]:
    folder = write_model(tmp_path_factory.mktemp("weights") / "demucs")
    separation = Demucs(python=demucs_python, model_dir=folder)
    yield separation, folder
    separation.close()


def tones(*frequencies: float, seconds: float = 3.0) -> np.ndarray:
    """Return the sum of sines, (n,) float32 at SOUND_RATE."""
    times = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return np.sum([0.1 * np.sin(2 * np.pi * f * times) for f in frequencies], axis=0).astype("f4")


def energy(waveform: np.ndarray) -> float:
    return float(np.sum(np.square(waveform, dtype=float)))


def chirp(seconds: float = 3.0) -> np.ndarray:
    """Return a tone that rises from 300 to 1500 Hz without repeating, (n,) float32."""
    times = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return (0.1 * np.sin(2 * np.pi * (300 * times + 200 * times**2))).astype(np.float32)


def test_repet_removes_repeating_parts() -> None:
    separation = open_separation("repet")
    music, voice = tones(400, 500, 600), chirp()
    assert energy(separation.separate(music)) < 0.01 * energy(music)
    assert energy(separation.separate(voice)) > 0.8 * energy(voice)
    separated = separation.separate(music + voice)
    assert energy(separated - voice) < 0.5 * energy(music)
    assert energy(separated) < energy(music + voice)


def test_repet_depends_on_its_parameters_only() -> None:
    snippet = tones(400, 500) + chirp()
    first = Repet().separate(snippet)
    assert np.array_equal(Repet().separate(snippet), first)
    assert energy(Repet(margin=4).separate(snippet)) < 0.98 * energy(first)
    assert Repet(margin=4).describe() != Repet().describe()


@pytest.mark.parametrize("n", [0, 1, 2047, 2048, 3000, 24_000, 71_999, 72_000, 100_000])
def test_repet_accepts_any_length_and_silence(n: int) -> None:
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for snippet in (np.zeros(n, np.float32), rng.normal(size=n).astype(np.float32)):
            voice = Repet().separate(snippet)
            assert voice.shape == (n,)
            assert voice.dtype == np.float32
            assert np.isfinite(voice).all()


def test_no_separation_changes_nothing() -> None:
    snippet = chirp()
    assert open_separation("none").separate(snippet) is snippet


def test_descriptions_round_trip_as_json() -> None:
    for name in ("none", "repet"):
        described = open_separation(name).describe()
        assert described["backend"] == name
        assert json.loads(json.dumps(described)) == described


def test_an_unknown_separation_is_refused() -> None:
    assert SEPARATIONS == ("none", "repet", "demucs")
    with pytest.raises(HearbackError, match=r"'spleeter'.*none, repet, demucs"):
        open_separation("spleeter")


def test_demucs_returns_the_voice_at_the_snippet_s_rate(demucs: tuple[Demucs, Path]) -> None:
    separation, _ = demucs
    for n in (72_000, 71_999):
        snippet = tones(300, 900)[:n]
        voice = separation.separate(snippet)
        assert voice.shape == (n,)
        assert voice.dtype == np.float32
        middle = slice(1000, -1000)  # resampling has edges
        np.testing.assert_allclose(voice[middle], snippet[middle] / 4, atol=1e-3)


def test_demucs_describes_itself(demucs: tuple[Demucs, Path]) -> None:
    separation, folder = demucs
    assert separation.describe() == {
        "backend": "demucs",
        "version": "demucs 4.1.0",
        "model": "htdemucs",
        "weights": {
            name: sha256_of(folder / name) for name in ("htdemucs.yaml", "955717e8.safetensors")
        },
    }


def test_a_failure_of_demucs_is_an_error(demucs: tuple[Demucs, Path]) -> None:
    separation, _ = demucs
    with pytest.raises(SeparationError, match="RuntimeError: too short"):
        separation.separate(np.zeros(1, np.float32))
    assert separation.separate(chirp()).any()


def test_weights_of_other_classes_are_not_loaded(demucs_python: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "demucs", klass="os.system")
    with pytest.raises(SeparationError, match=r"class os\.system is not one of"):
        Demucs(python=demucs_python, model_dir=folder)
    write_model(folder, structure="{}")
    with pytest.raises(SeparationError, match="quantised"):
        Demucs(python=demucs_python, model_dir=folder)


def test_the_error_without_demucs_environment_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(SeparationError, match="make demucs"):
        open_separation("demucs", python=tmp_path / "bin/python", model_dir=tmp_path)


def test_the_error_without_demucs_weights_names_the_source(
    demucs_python: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        SeparationError, match=r"has 0 \.yaml and 0 .*hf download adefossez/HTDemucs"
    ):
        open_separation("demucs", python=demucs_python, model_dir=tmp_path)


def test_a_worker_that_ends_is_an_error(demucs_python: Path, tmp_path: Path) -> None:
    separation = Demucs(python=demucs_python, model_dir=write_model(tmp_path / "demucs"))
    with pytest.raises(SeparationError, match="Demucs's worker has ended"):
        separation.separate(np.zeros(2, np.float32))
    with pytest.raises(SeparationError, match="Demucs's worker has ended"):
        separation.separate(chirp())
    separation.close()
