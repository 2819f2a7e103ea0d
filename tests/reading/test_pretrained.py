"""A scorer is built, written, described, and found by its name; its backbone comes by itself."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn, cast

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.launch import command
from hearback.engine.phones import layout as phones
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models import provide
from hearback.reading.pretrained import accuracy, assembling, build, card, listing, show
from hearback.reading.pretrained.folders import find_scorer, read_facts
from hearback.reading.scoring.scorer import Scorer
from tests.toy import make_backbone, make_corpus

BACKBONE = "toy/whisper-toy"
SMALL = [
    *("--models", "modeltoklow", "--n_folds", "2", "--epochs", "1"),
    *("--set", "batch_size=4", "--device", "cpu"),
]
NAMES = ["data", "tts_data", "store", "assets", "runs", "out"]


def flags(folder: Path, *further: str) -> list[str]:
    folders = [part for name in NAMES for part in (f"--{name}", str(folder / name))]
    return ["build", "--name", "toy", "--backbone", BACKBONE, *folders, *SMALL, *further]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a corpus, a backbone in assets/, and the scorer that was built in out/toy/."""
    folder = tmp_path_factory.mktemp("built")
    make_corpus(folder, 36, np.random.default_rng(0))
    make_backbone(folder / "assets" / "whisper-toy")
    labels = pd.read_csv(folder / "data" / "train_labels.csv")
    causes = labels.assign(why=np.where(labels["score"] > 0.5, "correct", "substitute"))
    causes.to_csv(folder / "data" / "provenance.csv", index=False)
    further = ["--causes", str(folder / "data" / "provenance.csv"), "--source", "tones"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEARBACK_CACHE", str(folder / "cache"))
        patch.setattr(sys, "argv", flags(folder, *further, "--keep_folds", "1"))
        assert build.main() == 0
    yield folder


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; the current folder is that of the backbone."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_the_folder_has_the_kept_fold_and_nothing_of_the_backbone(folder: Path) -> None:
    scorer = folder / "out" / "toy"
    assert {path.name for path in scorer.iterdir()} == {
        *("card.md", "model_configs.json", "statistics.json"),
        *("modeltoklow_1.json", "modeltoklow_1.safetensors"),
    }
    assert [path.name for path in scorer.parent.iterdir()] == ["toy"]
    fold_metadata = json.loads((scorer / "modeltoklow_1.json").read_text())
    assert fold_metadata["recipe"]["backbone"] == BACKBONE
    assert not {"epochs", "attempts", "retrain_command", "recordings"} & fold_metadata.keys()
    for path in scorer.glob("*.json"):
        assert ".wav" not in path.read_text() and str(folder) not in path.read_text()
    statistics = json.loads((scorer / "statistics.json").read_text())
    assert statistics["n_recordings"] == 36 and not statistics["synthetic"]
    names = load_file(scorer / "modeltoklow_1.safetensors").keys()
    assert not [name for name in names if name.startswith("encoder.")]


@pytest.mark.slow
def test_a_built_scorer_scores_with_what_it_finds_of_its_backbone(
    folder: Path, cache: Path
) -> None:
    clip = folder / "data" / "train006.wav"
    scorer = Scorer.load(folder / "out" / "toy", device="cpu", precision="float32")
    score = scorer.score(clip, "boy")
    assert score.probability is not None and 0 < score.probability < 1
    parts = sorted(path.name.partition("_")[0] for path in cache.iterdir())
    assert parts == ["decoder", "encoder", "tokenizer"]

    (tokenizer,) = cache.glob("tokenizer_*.json")
    before = tokenizer.read_bytes()
    tokenizer.unlink()
    again = Scorer.load(folder / "out" / "toy", device="cpu", precision="float32")
    assert tokenizer.read_bytes() == before
    assert again.score(clip, "boy").probability == score.probability


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_written_to_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(HearbackError, match=r"cache: the backbone's files .* HEARBACK_CACHE"):
        Scorer.load(folder / "out" / "toy", device="cpu")


@pytest.mark.slow
def test_another_backbone_is_refused(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "assets" / "whisper-toy"
    shutil.copytree(folder / "assets" / "whisper-toy", other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.encoder.layers.0.fc1.bias"] += 1
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(
        HearbackError, match=r"its encoder is not the one .* another version of toy"
    ):
        Scorer.load(folder / "out" / "toy", device="cpu")
    assert not list(cache.glob("encoder_*"))


@pytest.mark.slow
def test_the_card_has_the_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "out" / "toy" / "card.md").read_text()
    number = r"\d\.\d{3} \[(?:\d\.\d{3}, \d\.\d{3}|–)\]"
    assert re.search(
        rf"^\| all \| 36 \| 9 \| {number} \| {number} \| {number} \|", text, re.MULTILINE
    )
    for grade in ("KG", "1", "2", "3", "KG and 1"):
        assert re.search(rf"^\| {grade} \| \d+ \| \d \| {number}", text, re.MULTILINE), grade
    assert re.search(rf"^\| substitute \| 18 \| \d \| {number}", text, re.MULTILINE)
    assert re.search(rf"^\| no grade \| {number} \| {number} \|$", text, re.MULTILINE)
    assert "36 recordings of 9 speakers" in text and "Recordings: tones." in text
    assert "--keep_folds 1" in text and str(folder) not in text
    assert "https://huggingface.co/toy/whisper-toy" in text
    assert "| licence of this scorer | not stated: the owner of the scorer decides |" in text

    assert show.read_card(str(folder / "out" / "toy")) == text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["list", "--folder", str(folder / "out")])
        listing.main()
    assert re.match(r"toy +0\.0 MB  English reading: an adapted decoder", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--backbone", "assets/whisper-toy/x"], "give its hub id, such as openai/whisper-tiny.en"),
        (["--backbone", "whisper-tiny.en"], "did you mean openai/whisper-tiny.en?"),
        (["--keep_folds", "0", "2"], "--keep_folds 2: not trained; the folds are 0 1"),
        (["--name", "../x"], "--name ../x: it names a folder"),
    ],
)
def test_flags_are_checked_before_the_training(
    further: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", flags(tmp_path, *further))
    with pytest.raises(HearbackError) as raised:
        build.main()
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_scorer_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setattr(sys, "argv", flags(tmp_path, "--out", str(tmp_path), "--name", "project"))
    with pytest.raises(HearbackError, match=r"project: is there, .* another --name"):
        build.main()
    (project / "model_configs.json").touch()  # as get_config writes it
    with pytest.raises(HearbackError, match=r"project: is there, .* another --name"):
        build.main()


def test_a_card_that_is_no_utf_8_is_shown(tmp_path: Path) -> None:
    (tmp_path / "model_configs.json").touch()
    (tmp_path / "card.md").write_bytes(b"caf\xe9")
    assert show.read_card(str(tmp_path)) == "caf\ufffd"


def test_a_scorer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match="tinny: no such scorer, and no such folder"):
        show.read_card("tinny")
    with pytest.raises(HearbackError, match="n: no such scorer, and no such folder"):
        show.read_card("n" * 300)
    with pytest.raises(HearbackError, match=r"; did you mean tiny\.en\?"):
        find_scorer("tiny_en")
    (tmp_path / "model_configs.json").touch()
    with pytest.raises(HearbackError, match="this folder's scorer has no card"):
        show.read_card(str(tmp_path))


def test_an_ensemble_with_folds_elsewhere_names_their_folder(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    for name in ("model_configs.json", "assets/modeltok_0.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(HearbackError, match=r"assets; copy model_configs\.json there, and name"):
        find_scorer(tmp_path)
    (tmp_path / "model_configs.json").rename(tmp_path / "assets" / "model_configs.json")
    assert find_scorer(tmp_path / "assets") == tmp_path / "assets"


def test_a_damaged_card_has_the_facts_that_can_be_read(tmp_path: Path) -> None:
    card_file = tmp_path / "card.md"
    card_file.write_bytes(b"\xff\n| a | b |\n| --- | --- |\n| data | so762 |\n| cut\n")
    assert read_facts(tmp_path) == [("data", "so762")]
    card_file.write_bytes(bytes(range(256)))
    assert read_facts(tmp_path) == []


def test_the_grade_adjusts_where_it_is_given() -> None:
    rng = np.random.default_rng(0)
    n_rows = 400
    grades = np.where(np.arange(n_rows) % 2, "KG", "3")
    logits = rng.normal(0, 1.5, n_rows)
    shifted = logits + np.where(grades == "KG", 1.0, -1.0)
    labels = (rng.uniform(size=n_rows) < 1 / (1 + np.exp(-shifted))).astype(float)
    joined = pd.DataFrame(
        {
            "filename": [f"{number}.wav" for number in range(n_rows)],
            "speaker": [f"s{number % 40}" for number in range(n_rows)],
            "grade": grades,
            "score": labels,
            "m": 1 / (1 + np.exp(-logits)),
        }
    )
    found = accuracy.cross_fit(joined, ["m"], assembling.COMBINE, assembling.CALIBRATION)
    table = accuracy.by_grade(joined, found)
    assert table.index.tolist() == ["all", "KG", "3", "KG and 1"]
    losses = [float(str(table.loc["all", f"log loss, {name}"]).split()[0]) for name in found]
    assert losses[0] < losses[1] - 0.02
    errors = accuracy.errors_at_threshold(joined, found)
    share = np.mean(found[accuracy.WITHOUT_GRADE][labels < 0.5] >= 0.5)
    assert str(errors.loc[accuracy.WITHOUT_GRADE, "misses"]).startswith(f"{share:.3f} [")


def test_a_card_names_no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = ["--data", "/home/some=one/data", "--out=/x=y/out"]
    monkeypatch.setattr(sys, "argv", ["python", *folders, "--set", "epochs=2", "warm=/x/y"])
    assert card.command_line().endswith(" --data data --out=out --set epochs=2 warm=y")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing can be downloaded; the cache folder is tmp_path / "cache"."""

    def refuse(what: str) -> NoReturn:
        raise HearbackError(f"{what}: no network; its cure")

    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(provide.pretrained, "download_model", lambda name, *_: refuse(name))
    monkeypatch.setattr(provide, "download_phones", lambda *_: refuse(phones.NAME))


@pytest.mark.usefixtures("no_network")
def test_all_backbones_are_provided_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["build", "--name", "mine"])  # there is no data either
    with pytest.raises(HearbackError) as raised:
        build.main()
    assert str(raised.value).splitlines() == [
        "hama-phones: no network; its cure",
        "openai/whisper-tiny.en: no network; its cure",
    ]
    assert "downloading openai/whisper-tiny.en to assets, once" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["build", "--name", "mine", "--models", "modeltoklow"])
    with pytest.raises(HearbackError, match=r"^openai/whisper-tiny\.en: no network; its cure$"):
        build.main()


@pytest.mark.usefixtures("no_network")
def test_backbones_of_the_cache_folder_need_no_download(tmp_path: Path) -> None:
    for name in ("whisper-toy", phones.NAME):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "model").write_text(name)
    lines: list[str] = []
    assets = tmp_path / "assets"
    provide.provide_directories([BACKBONE, phones.NAME], assets, lines.append)
    assert [line.partition(": from ")[0] for line in lines] == [
        str(assets / "whisper-toy"),
        str(assets / phones.NAME),
    ]
    assert (assets / "whisper-toy" / "model").read_text() == "whisper-toy"
    provide.provide_directories([BACKBONE, phones.NAME], assets, lines.append)
    assert len(lines) == 2


def test_defaults_are_of_ones_own_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["build", "--name", "mine"])
    arguments = command.read_arguments(build._competition(build.find_small_recipes()))
    assert arguments.scorer_licence == "not stated: the owner of the scorer decides"
    assert arguments.out == Path() and arguments.backbone == "openai/whisper-tiny.en"


def test_the_help_has_each_default_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["build", "--help"])
    with pytest.raises(SystemExit):
        build.main()
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: )" not in text
    assert not re.search(r"\(default: [^)]*\) \(default:", text)


def test_a_card_says_what_each_model_is_used_for() -> None:
    models = [ModelConfig("modelseg", (0, 1), 0.0), ModelConfig("modeltoklow", (0, 1), 0.449)]
    shares = {"modelseg": 0.79, "modeltoklow": 0.21}
    config = SimpleNamespace(
        models=models, words=SimpleNamespace(weight_of=shares), words_weight=0.797
    )
    assert card.describe_models(cast(EnsembleConfig, config), 6) == (
        "modeltoklow folds 0 1 of 6 scores whole recordings (weight 0.449) and single words; "
        "modelseg folds 0 1 of 6 scores single words only; the score that follows from the words "
        "counts, too (weight 0.797; 79% by modelseg, 21% by modeltoklow)"
    )
    config.words = None
    assert card.describe_models(cast(EnsembleConfig, config), 6) == (
        "modeltoklow folds 0 1 of 6 scores whole recordings (weight 0.449); "
        "modelseg folds 0 1 of 6 scores whole recordings (weight 0.000)"
    )


def test_few_speakers_have_no_interval() -> None:
    n_rows = 80
    speakers = np.arange(n_rows) // 2 % 10
    joined = pd.DataFrame(
        {
            "speaker": [f"s{each}" for each in speakers],
            "grade": np.where(speakers < 2, "2", "3"),
            "score": np.arange(n_rows) % 2,
        }
    )
    predictions = {accuracy.WITH_GRADE: np.random.default_rng(0).uniform(size=n_rows)}
    table = accuracy.by_grade(joined, predictions)
    assert table["speakers"].to_dict() == {"all": "10", "2": "2", "3": "8"}
    for column in ("log loss, grade given", "AUC, grade given"):
        assert re.fullmatch(r"\d\.\d{3} \[–\]", str(table.loc["2", column]))
        assert re.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", str(table.loc["3", column]))
    causes = np.where(speakers < 2, "omit", "")
    by_cause = accuracy.by_cause(joined, predictions, causes)
    assert by_cause.loc["omit", "speakers"] == "2"
    assert str(by_cause.loc["omit", "log loss, grade given"]).endswith(" [–]")
    unknown = joined.drop(columns="speaker").assign(filename=np.arange(n_rows).astype(str))
    assert "speakers" not in accuracy.by_grade(unknown, predictions)
