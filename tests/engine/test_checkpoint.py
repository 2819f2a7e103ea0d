"""A fold's weights and metadata, to disk and back."""

import errno
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
from hearback.engine.training.checkpoint import load_partial, save_partial
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata, why_not_done
from hearback.reading.models import load
from hearback.reading.models.scorers import Scorer, build
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.window_batches import Pair, collate
from tests.conftest import CONFIG, TINY, files_no_longer_than
from train_model2ds import RECIPE as OTHER
from train_model3mapd import RECIPE
from train_modeltok import RECIPE as TOKENS

IDENTITY: dict[str, Any] = {
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
    """A model whose fold is done."""
    torch.manual_seed(0)
    scorer = build(RECIPE, CONFIG)
    fold_metadata = {**IDENTITY, "shape": TINY.as_config(), "tokenizer": None}
    fold_files.save_fold(files, scorer.state_dict(), OOF, fold_metadata)
    return scorer


def test_a_fold_is_three_files_named_for_its_model_and_number(
    files: FoldFiles, scorer: Scorer
) -> None:
    assert sorted(path.name for path in files.assets.iterdir()) == [
        "model3mapd_3.json",
        "model3mapd_3.oof.csv",
        "model3mapd_3.safetensors",
    ]
    pd.testing.assert_frame_equal(pd.read_csv(files.oof), OOF)


def test_weights_come_back_as_their_halves_in_a_model_that_does_not_train(
    files: FoldFiles, scorer: Scorer
) -> None:
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


def remove_story(files: FoldFiles) -> None:
    files.metadata.unlink()


def leave_it_under_way(files: FoldFiles) -> None:
    remove_story(files)
    files.partial.touch()


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
        (remove_story, {}, "not trained"),
        (leave_it_under_way, {}, "under way"),
        (remove_weights, {}, "model3mapd_3.safetensors is missing"),
        (remove_predictions, {}, "model3mapd_3.oof.csv is missing"),
        (
            alter_weights,
            {},
            "model3mapd_3.safetensors is not the file that its metadata speaks of",
        ),
        (alter_predictions, {}, "model3mapd_3.oof.csv is not the file that its metadata speaks of"),
    ],
)
@pytest.mark.usefixtures("scorer")
def test_why_a_fold_is_to_be_trained(
    files: FoldFiles,
    happens: Callable[[FoldFiles], None],
    changes: dict[str, Any],
    reason: str | None,
) -> None:
    happens(files)
    assert why_not_done(files, {**IDENTITY, **changes}) == reason


@pytest.mark.usefixtures("scorer")
def test_whose_digests_count_can_be_said(files: FoldFiles) -> None:
    assert why_not_done(files, IDENTITY, sha256_of) is None
    reason = why_not_done(files, IDENTITY, lambda path: "of another file")
    assert reason == "model3mapd_3.safetensors is not the file that its metadata speaks of"


def test_a_fold_that_is_written_again_is_not_done_until_it_is_whole(
    files: FoldFiles, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frame: pd.DataFrame, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fold_files, "write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        fold_files.save_fold(files, scorer.state_dict(), OOF, IDENTITY)
    assert why_not_done(files, IDENTITY) == "not trained"


def test_a_finished_fold_leaves_nothing_of_its_way_there(files: FoldFiles, scorer: Scorer) -> None:
    files.partial.touch()
    fold_files.save_fold(files, scorer.state_dict(), OOF, IDENTITY)
    assert not files.partial.exists()


def test_a_story_that_is_not_there_is_an_error_that_says_what_to_run(files: FoldFiles) -> None:
    with pytest.raises(HearbackError, match=r"python train_model3mapd\.py --fold 3"):
        read_fold_metadata(files)
    with pytest.raises(HearbackError, match=r"python train_model3mapd\.py --fold 3 --seed 8"):
        read_fold_metadata(replace(files, model="model3mapd_s8"))


@pytest.mark.usefixtures("scorer")
def test_a_damaged_story_is_an_error_that_names_it(files: FoldFiles) -> None:
    files.metadata.write_text(files.metadata.read_text()[:-20])
    with pytest.raises(HearbackError, match=r"model3mapd_3\.json: not readable JSON"):
        read_fold_metadata(files)
    assert "not readable JSON" in str(why_not_done(files, IDENTITY))


def cut_weights_short(files: FoldFiles) -> None:
    files.weights.write_bytes(files.weights.read_bytes()[:-8])


def write_other_weights(files: FoldFiles) -> None:
    weights = {k: v.contiguous() for k, v in build(OTHER, CONFIG).state_dict().items()}
    save_file(weights, files.weights)


@pytest.mark.parametrize("happens", [remove_weights, cut_weights_short, write_other_weights])
@pytest.mark.usefixtures("scorer")
def test_weights_that_are_not_the_model_s_are_refused(
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
    """A model that reads texts, whose fold is done."""
    torch.manual_seed(0)
    scorer = build(TOKENS, CONFIG, tokenizer)
    fold_metadata = {
        **IDENTITY,
        "recipe": TOKENS.as_dict(),
        "shape": scorer.shape(),
        "tokenizer": load.keep_tokenizer(tokenizer, token_files.assets),
    }
    fold_files.save_fold(token_files, scorer.state_dict(), OOF, fold_metadata)
    return scorer


def kept_tokenizer(files: FoldFiles) -> Path:
    (path,) = files.assets.glob("tokenizer_*.json")
    return path


def test_a_model_that_reads_comes_back_with_its_reader(
    token_files: FoldFiles, token_scorer: Scorer
) -> None:
    loaded = load.load_scorer(token_files, read_fold_metadata(token_files))
    assert loaded.reader is not None and token_scorer.reader is not None
    assert loaded.reader.path == kept_tokenizer(token_files)
    source: Any = type("Source", (), {})()
    source.learner = lambda row: np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    source.contexts = [np.zeros(2, np.float32)]
    scores = []
    for scorer in (loaded, token_scorer.eval()):
        pair = PairDataset(source, [Example(0, "a red koovnorb")], "tokens", reader=scorer.reader)[
            0
        ]
        with torch.no_grad():
            scores.append(scorer(collate([pair], 10_240)))
    torch.testing.assert_close(*scores, atol=5e-3, rtol=0)


def test_folds_share_a_tokenizer_that_is_named_for_its_content(
    tmp_path: Path, tokenizer: Path
) -> None:
    kept = [load.keep_tokenizer(tokenizer, tmp_path / "assets") for _ in range(2)]
    assert kept[0] == kept[1]
    (path,) = (tmp_path / "assets").iterdir()
    assert path.read_bytes() == tokenizer.read_bytes()
    assert kept[0] == {"file": path.name, "sha256": sha256_of(tokenizer)}
    other = tmp_path / "other.json"
    other.write_text(tokenizer.read_text() + "\n")
    assert load.keep_tokenizer(other, tmp_path / "assets")["file"] != path.name
    assert len(list((tmp_path / "assets").iterdir())) == 2


def remove_tokenizer(files: FoldFiles) -> None:
    kept_tokenizer(files).unlink()


def alter_tokenizer(files: FoldFiles) -> None:
    path = kept_tokenizer(files)
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize("happens", [remove_tokenizer, alter_tokenizer])
@pytest.mark.usefixtures("token_scorer")
def test_a_tokenizer_that_is_missing_or_another_is_refused(
    token_files: FoldFiles, happens: Callable[[FoldFiles], None]
) -> None:
    fold_metadata = read_fold_metadata(token_files)
    happens(token_files)
    with pytest.raises(
        HearbackError, match=r"tokenizer_[0-9a-f]{16}\.json: missing, or not the one .*modeltok_1"
    ):
        load.load_scorer(token_files, fold_metadata)


@pytest.mark.parametrize("happens", [remove_tokenizer, alter_tokenizer])
@pytest.mark.usefixtures("token_scorer")
def test_a_fold_without_its_tokenizer_is_not_done_and_training_it_again_helps(
    token_files: FoldFiles, tokenizer: Path, happens: Callable[[FoldFiles], None]
) -> None:
    run_key = {**IDENTITY, "recipe": TOKENS.as_dict()}
    assert why_not_done(token_files, run_key) is None
    name = kept_tokenizer(token_files).name
    happens(token_files)
    reason = why_not_done(token_files, run_key)
    assert reason is not None and name in reason
    load.keep_tokenizer(tokenizer, token_files.assets)
    assert why_not_done(token_files, run_key) is None
    load.load_scorer(token_files, read_fold_metadata(token_files))


@pytest.mark.usefixtures("token_scorer")
def test_weights_of_another_vocabulary_are_refused(token_files: FoldFiles) -> None:
    fold_metadata = read_fold_metadata(token_files)
    fold_metadata["shape"]["vocab_size"] += 1
    with pytest.raises(HearbackError, match="not this model's weights"):
        load.load_scorer(token_files, fold_metadata)


class Training:
    """A small model, its optimizer, and the same data in every step."""

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
        moments = checkpoint.optimizer_tensors(self.optimizer)
        return {**self.model.state_dict(), **{f"optimizer.{k}": v for k, v in moments.items()}}

    def load(self, tensors: dict[str, Tensor]) -> None:
        of_optimizer = {
            name.removeprefix("optimizer."): tensor
            for name, tensor in tensors.items()
            if name.startswith("optimizer.")
        }
        checkpoint.load_optimizer_tensors(self.optimizer, of_optimizer)
        self.model.load_state_dict({k: tensors[k] for k in self.model.state_dict()})


class ImageTraining(Training):
    """Weights of convolutions, channels last in memory, and the optimizer that minds that."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        convolution = torch.nn.Conv2d(2, 3, 3)
        self.model = convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, fused=True)

    def step(self) -> None:
        places = torch.arange(2 * 5 * 5.0).reshape(1, 2, 5, 5)
        self.optimizer.zero_grad()
        self.model(places.cos()).square().sum().backward()
        self.optimizer.step()


PARTIAL_IDENTITY = {**IDENTITY, "attempt": 1}
NOTES = {"run_key": PARTIAL_IDENTITY, "history": [{"epoch": 1, "loss": 0.6}]}


@pytest.mark.parametrize(("kind", "n_weights"), [(Training, 4), (ImageTraining, 2)])
def test_a_training_that_goes_on_is_one_that_never_stopped(
    files: FoldFiles, kind: type[Training], n_weights: int
) -> None:
    training = kind(seed=0)
    for _ in range(3):
        training.step()
    save_partial(files.partial, training.tensors(), NOTES)
    training.step()

    kept = load_partial(files.partial, PARTIAL_IDENTITY)
    assert kept is not None
    tensors, notes = kept
    assert notes == NOTES
    resumed = kind(seed=1)
    resumed.load(tensors)
    resumed.step()
    undisturbed = training.tensors()
    assert len(undisturbed) == 4 * n_weights  # weights; two moments and the step of each
    for name, tensor in resumed.tensors().items():
        torch.testing.assert_close(tensor, undisturbed[name], atol=0, rtol=0)


def test_without_its_moments_the_next_step_would_be_another(files: FoldFiles) -> None:
    training, amnesic = Training(seed=0), Training(seed=0)
    training.step()
    amnesic.model.load_state_dict(training.model.state_dict())
    for each in (training, amnesic):
        each.step()
    assert not torch.equal(training.tensors()["0.weight"], amnesic.tensors()["0.weight"])


def test_a_partial_keeps_types_and_empty_tensors(files: FoldFiles) -> None:
    tensors = {
        "half": torch.ones(2, dtype=torch.float16),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "empty": torch.empty(0),
        "scalar": torch.tensor(3.0),
        "turned": torch.arange(6.0).view(2, 3).T,
    }
    save_partial(files.partial, tensors, NOTES)
    kept = load_partial(files.partial, PARTIAL_IDENTITY)
    assert kept is not None
    for name, tensor in tensors.items():
        torch.testing.assert_close(kept[0][name], tensor, atol=0, rtol=0)


def test_nothing_is_resumed_where_nothing_was_kept(files: FoldFiles) -> None:
    assert load_partial(files.partial, PARTIAL_IDENTITY) is None


@pytest.mark.parametrize("name", [*IDENTITY, "attempt"])
def test_another_training_s_partial_is_ignored(files: FoldFiles, name: str) -> None:
    save_partial(files.partial, {"weight": torch.ones(1)}, NOTES)
    assert load_partial(files.partial, {**PARTIAL_IDENTITY, name: "another"}) is None


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
def test_a_damaged_partial_is_an_error_that_names_it(
    files: FoldFiles, damage: Callable[[bytes], bytes]
) -> None:
    save_partial(files.partial, {"weight": torch.ones(1)}, NOTES)
    files.partial.write_bytes(damage(files.partial.read_bytes()))
    with pytest.raises(HearbackError, match=r"model3mapd_3\.partial: .* delete it"):
        load_partial(files.partial, PARTIAL_IDENTITY)


def test_the_stories_of_the_other_folds_are_those_of_the_same_training(files: FoldFiles) -> None:
    for fold, changes in enumerate(({}, {"data_fingerprint": "other"}, {}, {})):
        other = FoldFiles(files.assets, files.model, fold)
        fold_metadata = {**IDENTITY, **changes, "fold": fold}
        fold_files.save_fold(other, {"weight": torch.ones(1)}, OOF, fold_metadata)
    found = fold_files.sibling_metadata(files, IDENTITY)  # fold 3's own is none of them
    assert {fold: fold_metadata["fold"] for fold, fold_metadata in found.items()} == {0: 0, 2: 2}


def test_attempts_are_remembered_of_the_same_training_alone(files: FoldFiles) -> None:
    attempts = [{"attempt": 1, "outcome": "stalled"}]
    assert fold_files.attempts_under_way(files, IDENTITY) == []
    assert fold_files.finished_attempts(files, IDENTITY) == []
    save_partial(files.partial, {}, {**NOTES, "attempts": attempts})
    other = {**IDENTITY, "n_folds": 5}
    assert fold_files.attempts_under_way(files, IDENTITY) == attempts
    assert fold_files.attempts_under_way(files, other) == []
    fold_metadata = {**IDENTITY, "attempts": attempts}
    fold_files.save_fold(files, {"weight": torch.ones(1)}, OOF, fold_metadata)
    assert fold_files.attempts_under_way(files, IDENTITY) == []  # nothing is under way any more
    assert fold_files.finished_attempts(files, IDENTITY) == attempts
    assert fold_files.finished_attempts(files, other) == []


def test_a_file_without_notes_is_no_partial(files: FoldFiles) -> None:
    files.assets.mkdir()
    save_file({"weight": torch.ones(1)}, files.partial)
    with pytest.raises(HearbackError, match=r"model3mapd_3\.partial: .* delete it"):
        load_partial(files.partial, PARTIAL_IDENTITY)


def test_a_story_of_an_older_version_says_what_it_lacks(files: FoldFiles, scorer: Scorer) -> None:
    fold_metadata = {
        key: value for key, value in read_fold_metadata(files).items() if key != "tokenizer"
    }
    with pytest.raises(HearbackError, match="lacks tokenizer; train the fold again"):
        load.load_scorer(files, fold_metadata)


def test_a_full_disk_is_the_system_s_error_and_leaves_what_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "model_0.partial"
    save_partial(path, {"weight": torch.ones(3)}, {"run_key": {}})
    kept = path.read_bytes()
    with files_no_longer_than(1000), pytest.raises(OSError) as refusal:
        save_partial(path, {"weight": torch.ones(1000)}, {"run_key": {}})
    assert refusal.value.errno == errno.EFBIG
    assert refusal.value.filename == str(path)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]
