import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of, write_json
from hearback.engine.submission import archive as archive_module
from hearback.engine.submission.archive import Faults, write_zip
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.references import References
from hearback.reading.submission import main
from hearback.reading.submission import pack as pack_module
from hearback.reading.submission.pack import (
    CARRIED,
    PackingOptions,
    files_of_fold,
    files_to_pack,
    find_references,
    get_wheels,
    pack,
    unpack_wheels,
    why_no_wheels,
)
from tests.reading.inference_data import write_submission_data
from tests.reading.random_models import BASE_RATES
from train_model2ds import RECIPE as MEAN
from train_modeltok import RECIPE as TOKENS

HIBARI = {"backend": "hibari", "voice": "heart", "package_version": "hibari-tts 0.2.1"}


@pytest.fixture
def options(make_corpus: Callable[..., Path], tokenizer: Path) -> PackingOptions:
    """Options to pack fold 1 of a comparison, both folds of a token scorer, and six references."""
    return write_submission_data(make_corpus(n_train=6), tokenizer)


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def faults_of(options: PackingOptions) -> list[str]:
    """The faults of the folds."""
    faults = Faults()
    config = EnsembleConfig.load(options.config)
    archive_module.find_folds(
        config.models_to_run, options.assets, lambda files: files_to_pack(files, config), faults
    )
    return faults


def test_the_chosen_folds_and_their_shared_files_are_packed(
    options: PackingOptions,
) -> None:
    class Poison:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, ("touch poisoned",)

    for name in ("evil.pth", "modeltok_0.pkl", "modeltok_0.pt", "pytorch_model.bin"):
        (options.assets / name).write_bytes(pickle.dumps(Poison()))
    (options.assets / "modeltok_2.checkpoint").write_bytes(b"under way")
    (options.tts_data / "hard_negatives.csv").write_text("text,hard_negative\n")
    packed = names(pack(replace(options, time_limit="1h50m")))
    folds = {name for name in packed if name.startswith("assets/")}
    (tokenizer,) = (name for name in folds if "tokenizer" in name)
    assert folds == {
        *("assets/model2ds_1.json", "assets/model2ds_1.safetensors", tokenizer),
        *("assets/modeltok_0.json", "assets/modeltok_0.safetensors"),
        *("assets/modeltok_1.json", "assets/modeltok_1.safetensors"),
    }
    references = {name for name in packed if name.startswith("tts_data/")}
    assert {"tts_data/data_paths.csv", "tts_data/voice.json"} < references
    assert len(references) == 2 + len(References(options.tts_data))
    code = {name for name in packed if name.startswith("hearback/")}
    others = {"main.py", "infer_flags.json", "model_configs.json", "VERSION"}
    packages = {name for name in packed if name.startswith("packages/")}
    assert {f"packages/{name}/__init__.py" for name in CARRIED} < packages
    assert set(packed) == folds | references | code | others | packages
    with zipfile.ZipFile(options.submission) as archive:
        assert json.loads(archive.read("infer_flags.json")) == ["--time_limit", "1h50m"]


def test_missing_references_are_reported_with_the_folds_faults(options: PackingOptions) -> None:
    FoldFiles(options.assets, MEAN.name, 1).weights.unlink()
    (options.tts_data / "voice.json").unlink()
    with pytest.raises(HearbackError) as raised:
        pack(options)
    message = str(raised.value)
    assert "model2ds_1.safetensors: not there; copy it here, or train it" in message
    assert "no references there" in message
    assert not options.submission.exists()


def test_a_missing_tokenizer_and_another_voice_are_reported(options: PackingOptions) -> None:
    for path in options.assets.glob("tokenizer_*.json"):
        path.unlink()
    files = FoldFiles(options.assets, MEAN.name, 1)
    write_json(files.metadata, {**json.loads(files.metadata.read_text()), "voice": HIBARI})
    comparison, *scorers = faults_of(options)
    assert "model2ds_1.json: trained with another voice" in comparison
    assert len(scorers) == 2 and all("tokenizer_" in fault for fault in scorers)


def test_a_pickle_in_the_place_of_weights_is_refused(options: PackingOptions) -> None:
    files = FoldFiles(options.assets, MEAN.name, 1)
    files.weights.write_bytes(pickle.dumps({"weights": 1}))
    fold_metadata = json.loads(files.metadata.read_text())
    # Whoever made the file can write its digest, too.
    fold_metadata["sha256"]["weights"] = sha256_of(files.weights)
    write_json(files.metadata, fold_metadata)
    (fault,) = faults_of(options)
    assert "not this model's weights" in fault


def test_links_may_not_lead_out_of_the_folder(options: PackingOptions, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = FoldFiles(options.assets, TOKENS.name, 0).weights
    inside.rename(options.assets / "kept.bin")
    inside.symlink_to(options.assets / "kept.bin")
    assert faults_of(options) == []
    for path in (FoldFiles(options.assets, MEAN.name, 1).weights, options.tts_data / "voice.json"):
        path.rename(outside / path.name)
        path.symlink_to(outside / path.name)
    (fault,) = faults_of(options)
    assert "model2ds_1.safetensors: leads out of" in fault
    faults = Faults()
    assert find_references(EnsembleConfig.load(options.config), options.tts_data, faults) == {}
    assert "voice.json: leads out of" in faults[0]


def test_a_folder_that_is_itself_a_link_is_one_like_any_other(options: PackingOptions) -> None:
    link = options.assets.with_name("elsewhere")
    link.symlink_to(options.assets)
    assert faults_of(replace(options, assets=link)) == []


def test_no_pickle_of_a_text_embedder_is_packed(
    tmp_path: Path,
) -> None:
    needed = ("1_Pooling/config.json", "config.json", "model.safetensors", "modules.json")
    for name in (*needed, "pytorch_model.bin", "training_args.pt", "model.py", "README.md"):
        path = tmp_path / "embedder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    fold_metadata = {"tokenizer": None, "text_embedder": {"directory": "embedder", "sha256": "…"}}
    _, _, *shared = files_of_fold(FoldFiles(tmp_path, "model", 0), fold_metadata)
    assert [path.relative_to(tmp_path / "embedder").as_posix() for path in shared] == list(needed)


def test_references_of_another_voice_are_refused(options: PackingOptions) -> None:
    config = replace(EnsembleConfig.load(options.config), voice=HIBARI)
    faults = Faults()
    assert find_references(config, options.tts_data, faults) == {}
    assert "in another voice" in faults[0]


def test_an_unusable_time_limit_is_refused(options: PackingOptions) -> None:
    with pytest.raises(HearbackError, match="--time_limit: not a duration"):
        pack(replace(options, time_limit="soon"))
    config = EnsembleConfig.load(options.config)
    replace(config, fallbacks=()).save(options.config)
    with pytest.raises(HearbackError, match="--time_limit cannot choose"):
        pack(replace(options, time_limit="2h"))
    pack(options)


def test_a_voice_that_the_runtime_cannot_render_is_reported(
    options: PackingOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(options)  # in the tests' own voice
    assert (
        "the runtime cannot render texts: rows with a text that is not" in capsys.readouterr().out
    )
    assert why_no_wheels(HIBARI) is None
    for other in ({"backend": "melo"}, {"voice": "emma"}, {"package_version": "hibari-tts 9.9"}):
        assert why_no_wheels({**HIBARI, **other}) is not None


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of one module, in a folder of its own."""
    path = tmp_path / "wheels" / "speech-1-py3-none-any.whl"
    path.parent.mkdir()
    write_zip({"speech/__init__.py": b"", "speech-1.dist-info/METADATA": b"Name: speech\n"}, path)
    return path


def test_wheels_are_recognized_by_their_digest(wheel: Path, tmp_path: Path) -> None:
    (wheel.parent / "other-1-py3-none-any.whl").write_bytes(b"another")
    requirements = tmp_path / "voice.txt"
    requirements.write_text(f"speech==1 --hash=sha256:{sha256_of(wheel)}\n")
    assert get_wheels(requirements, wheel.parent) == [wheel]
    assert unpack_wheels([wheel]) == {
        "packages/speech/__init__.py": b"",
        "packages/speech-1.dist-info/METADATA": b"Name: speech\n",
    }


def test_a_wheel_of_another_digest_is_not_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "voice.txt"
    requirements.write_text(f"speech==1 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(pack_module.sys, "executable", "false")  # in pip's place
    with pytest.raises(HearbackError, match=r"lacks wheels of voice\.txt"):
        get_wheels(requirements, wheel.parent)


def test_before_scoring_every_row_gets_its_tasks_base_rate(
    options: PackingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = options.config.parent
    for name, path in (
        *(("HERE", here), ("DATA", here / "data")),
        ("SUBMISSION", here / "submission.csv"),
    ):
        monkeypatch.setattr(main, name, path)
    main.write_base_rates()
    table = pd.read_csv(here / "submission.csv")
    wanted = pd.read_csv(here / "data" / "submission_format.csv")
    assert list(table["filename"]) == list(wanted["filename"])
    metadata = pd.read_csv(here / "data" / "test_metadata.csv").set_index("filename")
    tasks = metadata.loc[table["filename"], "task"]
    assert list(table["score"]) == [BASE_RATES.get(task, BASE_RATES["all"]) for task in tasks]
