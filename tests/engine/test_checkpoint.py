"""Checkpoints and the files of a finished fold."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hearback.engine.errors import HearbackError
from hearback.engine.io import sha256_of
from hearback.engine.training import checkpoint, fold_files
from hearback.engine.training.checkpoint import load_checkpoint, save_checkpoint
from hearback.engine.training.fold_files import (
    FoldFiles,
    check_version,
    read_fold_metadata,
    why_not_done,
)
from hearback.reading.models import load
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import build
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.window_batches import WINDOW_SAMPLES, Pair, collate
from tests.conftest import CONFIG, TINY, files_no_longer_than
from train_model2ds import RECIPE as OTHER
from train_model3mapd import RECIPE
from train_modeltok import RECIPE as TOKENS

RUN_KEY: dict[str, Any] = {
    "recipe": RECIPE.as_dict(),
    "recipe_fingerprint": RECIPE.fingerprint,
    "n_folds": 6,
    "group_by": None,
    "data_fingerprint": "data",
}
OOF = pd.DataFrame({"filename": ["a.wav", "b.wav"], "score": [0.0, 1.0], "pred": [0.125, 0.75]})


@pytest.fixture
def files(tmp_path: Path) -> FoldFiles:
    return FoldFiles(tmp_path / "assets", RECIPE.name, 3)


@pytest.fixture
def scorer(files: FoldFiles) -> Scorer:
    """A model whose fold is saved."""
    torch.manual_seed(0)
    scorer = build(RECIPE, CONFIG)
    fold_metadata = {**RUN_KEY, "shape": TINY.as_dict(), "tokenizer": None}
    fold_files.save_fold(files, scorer.state_dict(), OOF, fold_metadata)
    return scorer


def test_fold_has_three_files(files: FoldFiles, scorer: Scorer) -> None:
    assert sorted(path.name for path in files.assets.iterdir()) == [
        "model3mapd_3.json",
        "model3mapd_3.oof.csv",
        "model3mapd_3.safetensors",
    ]
    pd.testing.assert_frame_equal(pd.read_csv(files.oof), OOF)


def test_loaded_weights_are_rounded_to_half(files: FoldFiles, scorer: Scorer) -> None:
    loaded = load.load_scorer(files, read_fold_metadata(files))
    assert not loaded.training
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    for name, tensor in scorer.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.half().float(), atol=0, rtol=0)
    pair = Pair(np.random.default_rng(0).normal(0, 0.1, 8000), np.zeros(2, np.float32), 0)
    batch = collate([pair], 10_240)
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch), scorer.eval()(batch), atol=5e-3, rtol=0)


def remove_weights(files: FoldFiles) -> None:
    files.weights.unlink()


def alter_weights(files: FoldFiles) -> None:
    content = bytearray(files.weights.read_bytes())
    content[-1] ^= 1
    files.weights.write_bytes(content)


def remove_predictions(files: FoldFiles) -> None:
    files.oof.unlink()


def alter_predictions(files: FoldFiles) -> None:
    files.oof.write_text(files.oof.read_text().replace("0.75", "0.85"))


def remove_metadata(files: FoldFiles) -> None:
    files.metadata.unlink()


def replace_metadata_by_checkpoint(files: FoldFiles) -> None:
    remove_metadata(files)
    files.checkpoint.touch()


def do_nothing(files: FoldFiles) -> None:
    pass


@pytest.mark.parametrize(
    ("happens", "changes", "reason"),
    [
        (do_nothing, {}, None),
        (do_nothing, {"data_fingerprint": "other"}, "trained with another data fingerprint"),
        (do_nothing, {"n_folds": 5, "limit": 9}, "trained with another n folds, limit"),
        (
            do_nothing,
            {"recipe": {**RECIPE.as_dict(), "dropout": 0.3, "seed": 1}, "recipe_fingerprint": "x"},
            "its recipe changed since (dropout, seed)",
        ),
        (
            do_nothing,
            {"recipe": {**RECIPE.as_dict(), "surplus": 1}},
            "its recipe changed since (surplus)",
        ),
        (remove_metadata, {}, "not trained"),
        (replace_metadata_by_checkpoint, {}, "unfinished"),
        (remove_weights, {}, "model3mapd_3.safetensors is missing"),
        (remove_predictions, {}, "model3mapd_3.oof.csv is missing"),
        (
            alter_weights,
            {},
            "model3mapd_3.safetensors does not match the digest in its metadata",
        ),
        (alter_predictions, {}, "model3mapd_3.oof.csv does not match the digest in its metadata"),
    ],
)
@pytest.mark.usefixtures("scorer")
def test_reasons_to_train_a_fold(
    files: FoldFiles,
    happens: Callable[[FoldFiles], None],
    changes: dict[str, Any],
    reason: str | None,
) -> None:
    happens(files)
    assert why_not_done(files, {**RUN_KEY, **changes}) == reason


@pytest.mark.usefixtures("scorer")
def test_digests_come_from_digest_of(files: FoldFiles) -> None:
    assert why_not_done(files, RUN_KEY, sha256_of) is None
    reason = why_not_done(files, RUN_KEY, lambda path: "of another file")
    assert reason == "model3mapd_3.safetensors does not match the digest in its metadata"


def test_interrupted_save_leaves_the_fold_not_done(
    files: FoldFiles, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frame: pd.DataFrame, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fold_files, "write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        fold_files.save_fold(files, scorer.state_dict(), OOF, RUN_KEY)
    assert why_not_done(files, RUN_KEY) == "not trained"


def test_finished_fold_has_no_checkpoint(files: FoldFiles, scorer: Scorer) -> None:
    files.checkpoint.touch()
    fold_files.save_fold(files, scorer.state_dict(), OOF, RUN_KEY)
    assert not files.checkpoint.exists()


def test_missing_metadata_is_an_error(files: FoldFiles) -> None:
    with pytest.raises(
        HearbackError, match=r"model3mapd_3\.json: missing; train model3mapd fold 3"
    ):
        read_fold_metadata(files)
    with pytest.raises(HearbackError, match=r"python train_model3mapd\.py --fold 3"):
        load.read_runnable_metadata(files, {})
    with pytest.raises(HearbackError, match=r"python train_model3mapd\.py --fold 3 --seed 8"):
        load.read_runnable_metadata(replace(files, model="model3mapd_s8"), {})


@pytest.mark.usefixtures("scorer")
def test_damaged_metadata_is_an_error(files: FoldFiles) -> None:
    files.metadata.write_text(files.metadata.read_text()[:-20])
    with pytest.raises(HearbackError, match=r"model3mapd_3\.json: not readable JSON"):
        read_fold_metadata(files)
    assert "not readable JSON" in str(why_not_done(files, RUN_KEY))


@pytest.mark.parametrize("name", ["recipe", "shape", "sha256"])
@pytest.mark.usefixtures("scorer")
def test_a_null_in_metadata_is_no_finished_fold(files: FoldFiles, name: str) -> None:
    files.metadata.write_text(json.dumps({**read_fold_metadata(files), name: None}))
    # Allowed there: a baseline has neither recipe nor shape.
    fold_metadata = read_fold_metadata(files)
    if name == "sha256":
        assert "no digests" in str(why_not_done(files, RUN_KEY))
        return
    if name == "recipe":
        assert "its recipe changed since" in str(why_not_done(files, RUN_KEY))
    with pytest.raises(HearbackError, match=f"lacks {name}, as in older versions; train the fold"):
        check_version(files, fold_metadata)


def cut_weights_short(files: FoldFiles) -> None:
    files.weights.write_bytes(files.weights.read_bytes()[:-8])


def write_other_weights(files: FoldFiles) -> None:
    weights = {k: v.contiguous() for k, v in build(OTHER, CONFIG).state_dict().items()}
    save_file(weights, files.weights)


@pytest.mark.parametrize("happens", [remove_weights, cut_weights_short, write_other_weights])
@pytest.mark.usefixtures("scorer")
def test_weights_of_another_model_are_an_error(
    files: FoldFiles, happens: Callable[[FoldFiles], None]
) -> None:
    fold_metadata = read_fold_metadata(files)
    happens(files)
    with pytest.raises(HearbackError, match=r"model3mapd_3\.safetensors: not this model's"):
        load.load_scorer(files, fold_metadata)


@pytest.fixture
def token_files(tmp_path: Path) -> FoldFiles:
    return FoldFiles(tmp_path / "assets", TOKENS.name, 1)


@pytest.fixture
def token_scorer(token_files: FoldFiles, tokenizer: Path) -> Scorer:
    """A token scorer whose fold is saved."""
    torch.manual_seed(0)
    scorer = build(TOKENS, CONFIG, tokenizer)
    fold_metadata = {
        **RUN_KEY,
        "recipe": TOKENS.as_dict(),
        "shape": scorer.backbone_config(),
        "tokenizer": load.save_tokenizer(tokenizer, token_files.assets),
    }
    fold_files.save_fold(token_files, scorer.state_dict(), OOF, fold_metadata)
    return scorer


def kept_tokenizer(files: FoldFiles) -> Path:
    (path,) = files.assets.glob("tokenizer_*.json")
    return path


def test_token_scorer_is_loaded_with_its_tokenizer(
    token_files: FoldFiles, token_scorer: Scorer
) -> None:
    loaded = load.load_scorer(token_files, read_fold_metadata(token_files))
    assert loaded.text_tokenizer is not None and token_scorer.text_tokenizer is not None
    assert loaded.text_tokenizer.path == kept_tokenizer(token_files)
    source: Any = type("Source", (), {"encoded": None})()
    source.learner = lambda row: np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    source.contexts = [np.zeros(2, np.float32)]
    source.longest_window = lambda row: WINDOW_SAMPLES
    scores = []
    for scorer in (loaded, token_scorer.eval()):
        pair = PairDataset(
            source, [Example(0, "a red koovnorb")], "tokens", text_tokenizer=scorer.text_tokenizer
        )[0]
        with torch.no_grad():
            scores.append(scorer(collate([pair], 10_240)))
    torch.testing.assert_close(*scores, atol=5e-3, rtol=0)


def test_folds_share_a_tokenizer_named_for_its_content(tmp_path: Path, tokenizer: Path) -> None:
    kept = [load.save_tokenizer(tokenizer, tmp_path / "assets") for _ in range(2)]
    assert kept[0] == kept[1]
    (path,) = (tmp_path / "assets").iterdir()
    assert path.read_bytes() == tokenizer.read_bytes()
    assert kept[0] == {"file": path.name, "sha256": sha256_of(tokenizer)}
    other = tmp_path / "other.json"
    other.write_text(tokenizer.read_text() + "\n")
    assert load.save_tokenizer(other, tmp_path / "assets")["file"] != path.name
    assert len(list((tmp_path / "assets").iterdir())) == 2


def remove_tokenizer(files: FoldFiles) -> None:
    kept_tokenizer(files).unlink()


def alter_tokenizer(files: FoldFiles) -> None:
    path = kept_tokenizer(files)
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize("happens", [remove_tokenizer, alter_tokenizer])
@pytest.mark.usefixtures("token_scorer")
def test_missing_or_altered_tokenizer_is_an_error(
    token_files: FoldFiles, happens: Callable[[FoldFiles], None]
) -> None:
    fold_metadata = read_fold_metadata(token_files)
    happens(token_files)
    with pytest.raises(
        HearbackError,
        match=r"tokenizer_[0-9a-f]{16}\.json: (missing; modeltok_1|not the file that modeltok_1)",
    ):
        load.load_scorer(token_files, fold_metadata)


@pytest.mark.parametrize("happens", [remove_tokenizer, alter_tokenizer])
@pytest.mark.usefixtures("token_scorer")
def test_fold_without_its_tokenizer_is_not_done(
    token_files: FoldFiles, tokenizer: Path, happens: Callable[[FoldFiles], None]
) -> None:
    run_key = {**RUN_KEY, "recipe": TOKENS.as_dict()}
    assert why_not_done(token_files, run_key) is None
    name = kept_tokenizer(token_files).name
    happens(token_files)
    reason = why_not_done(token_files, run_key)
    assert reason is not None and name in reason
    load.save_tokenizer(tokenizer, token_files.assets)
    assert why_not_done(token_files, run_key) is None
    load.load_scorer(token_files, read_fold_metadata(token_files))


@pytest.mark.usefixtures("token_scorer")
def test_weights_of_another_vocabulary_are_an_error(token_files: FoldFiles) -> None:
    fold_metadata = read_fold_metadata(token_files)
    fold_metadata["shape"]["vocab_size"] += 1
    with pytest.raises(HearbackError, match="not this model's weights"):
        load.load_scorer(token_files, fold_metadata)


class Training:
    """A small model and its optimizer, with the same data in every step."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        groups = [{"params": layer.parameters(), "lr": 0.01} for layer in self.model]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.1)

    def step(self) -> None:
        x = torch.linspace(-1, 1, 12).view(3, 4)
        self.optimizer.zero_grad()
        self.model(x).square().sum().backward()
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        state = checkpoint.optimizer_tensors(self.optimizer)
        return {**self.model.state_dict(), **checkpoint.with_prefix("optimizer", state)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        state = checkpoint.without_prefix("optimizer", tensors)
        checkpoint.load_optimizer_tensors(self.optimizer, state)
        self.model.load_state_dict({k: tensors[k] for k in self.model.state_dict()})


class ImageTraining(Training):
    """A convolution with channels last in memory, and a fused optimizer, which depends on that."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        convolution = torch.nn.Conv2d(2, 3, 3)
        self.model = convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, fused=True)

    def step(self) -> None:
        positions = torch.arange(2 * 5 * 5.0).reshape(1, 2, 5, 5)
        self.optimizer.zero_grad()
        self.model(positions.cos()).square().sum().backward()
        self.optimizer.step()


CHECKPOINT_KEY = {**RUN_KEY, "attempt": 1}
NOTES = {"run_key": CHECKPOINT_KEY, "history": [{"epoch": 1, "loss": 0.6}]}


@pytest.mark.parametrize(("kind", "n_weights"), [(Training, 4), (ImageTraining, 2)])
def test_resumed_training_equals_an_uninterrupted_one(
    files: FoldFiles, kind: type[Training], n_weights: int
) -> None:
    training = kind(seed=0)
    for _ in range(3):
        training.step()
    save_checkpoint(files.checkpoint, training.tensors(), NOTES)
    training.step()

    kept = load_checkpoint(files.checkpoint, CHECKPOINT_KEY)
    assert kept is not None
    tensors, notes = kept
    assert notes == NOTES
    resumed = kind(seed=1)
    resumed.load(tensors)
    resumed.step()
    uninterrupted = training.tensors()
    assert len(uninterrupted) == 4 * n_weights  # weights; two moments and the step of each
    for name, tensor in resumed.tensors().items():
        torch.testing.assert_close(tensor, uninterrupted[name], atol=0, rtol=0)


def test_next_step_depends_on_the_optimizer_state(files: FoldFiles) -> None:
    training, stateless = Training(seed=0), Training(seed=0)
    training.step()
    stateless.model.load_state_dict(training.model.state_dict())
    for each in (training, stateless):
        each.step()
    assert not torch.equal(training.tensors()["0.weight"], stateless.tensors()["0.weight"])


def test_checkpoint_keeps_types_and_empty_tensors(files: FoldFiles) -> None:
    tensors = {
        "half": torch.ones(2, dtype=torch.float16),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "empty": torch.empty(0),
        "scalar": torch.tensor(3.0),
        "transposed": torch.arange(6.0).view(2, 3).T,
    }
    save_checkpoint(files.checkpoint, tensors, NOTES)
    kept = load_checkpoint(files.checkpoint, CHECKPOINT_KEY)
    assert kept is not None
    for name, tensor in tensors.items():
        torch.testing.assert_close(kept[0][name], tensor, atol=0, rtol=0)


def test_missing_checkpoint_is_none(files: FoldFiles) -> None:
    assert load_checkpoint(files.checkpoint, CHECKPOINT_KEY) is None


@pytest.mark.parametrize("name", [*RUN_KEY, "attempt"])
def test_checkpoint_of_another_training_is_ignored(files: FoldFiles, name: str) -> None:
    save_checkpoint(files.checkpoint, {"weight": torch.ones(1)}, NOTES)
    assert load_checkpoint(files.checkpoint, {**CHECKPOINT_KEY, name: "another"}) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: b"\xff" * len(content),
        lambda content: content.replace(b"run_key", b"identify"),
    ],
)
def test_damaged_checkpoint_is_an_error(files: FoldFiles, damage: Callable[[bytes], bytes]) -> None:
    save_checkpoint(files.checkpoint, {"weight": torch.ones(1)}, NOTES)
    files.checkpoint.write_bytes(damage(files.checkpoint.read_bytes()))
    with pytest.raises(HearbackError, match=r"model3mapd_3\.checkpoint: .* delete it"):
        load_checkpoint(files.checkpoint, CHECKPOINT_KEY)


def test_sibling_metadata_is_of_the_same_training(files: FoldFiles) -> None:
    for fold, changes in enumerate(({}, {"data_fingerprint": "other"}, {}, {})):
        other = FoldFiles(files.assets, files.model, fold)
        fold_metadata = {**RUN_KEY, **changes, "fold": fold}
        fold_files.save_fold(other, {"weight": torch.ones(1)}, OOF, fold_metadata)
    found = fold_files.sibling_metadata(files, RUN_KEY)  # without fold 3's own
    assert {fold: fold_metadata["fold"] for fold, fold_metadata in found.items()} == {0: 0, 2: 2}


def test_attempts_are_of_the_same_training(files: FoldFiles) -> None:
    attempts = [{"attempt": 1, "outcome": "stalled"}]
    assert fold_files.checkpoint_attempts(files, RUN_KEY) == []
    assert fold_files.finished_attempts(files, RUN_KEY) == []
    save_checkpoint(files.checkpoint, {}, {**NOTES, "attempts": attempts})
    other = {**RUN_KEY, "n_folds": 5}
    assert fold_files.checkpoint_attempts(files, RUN_KEY) == attempts
    assert fold_files.checkpoint_attempts(files, other) == []
    fold_metadata = {**RUN_KEY, "attempts": attempts}
    fold_files.save_fold(files, {"weight": torch.ones(1)}, OOF, fold_metadata)
    assert fold_files.checkpoint_attempts(files, RUN_KEY) == []  # the checkpoint was removed
    assert fold_files.finished_attempts(files, RUN_KEY) == attempts
    assert fold_files.finished_attempts(files, other) == []


def test_checkpoint_without_notes_is_an_error(files: FoldFiles) -> None:
    files.assets.mkdir()
    save_file({"weight": torch.ones(1)}, files.checkpoint)
    with pytest.raises(HearbackError, match=r"model3mapd_3\.checkpoint: .* delete it"):
        load_checkpoint(files.checkpoint, CHECKPOINT_KEY)


def test_metadata_of_an_older_version_is_an_error(files: FoldFiles, scorer: Scorer) -> None:
    fold_metadata = {
        key: value for key, value in read_fold_metadata(files).items() if key != "tokenizer"
    }
    with pytest.raises(
        HearbackError, match="lacks tokenizer, as in older versions; train the fold again"
    ):
        load.load_scorer(files, fold_metadata)


def test_full_disk_is_an_os_error_and_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model_0.checkpoint"
    save_checkpoint(path, {"weight": torch.ones(3)}, {"run_key": {}})
    kept = path.read_bytes()
    with files_no_longer_than(1000), pytest.raises(OSError) as refusal:
        save_checkpoint(path, {"weight": torch.ones(1000)}, {"run_key": {}})
    assert refusal.value.errno == errno.EFBIG
    assert refusal.value.filename == str(path)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]
