"""The phone scorer: its evidence, and a fold of it in every step, with small random weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.phones import layout
from hearback.engine.phones.vocabulary import ARPABET
from hearback.engine.training.fold_files import (
    FoldFiles,
    TrainedFold,
    read_fold_metadata,
    shared_files,
)
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.evaluation import read_out_of_fold
from hearback.reading.inference.folds import EnsembleFold
from hearback.reading.inference.model_group import load_model_groups
from hearback.reading.inference.predict import predict
from hearback.reading.inference.submission import write_submission
from hearback.reading.models import load
from hearback.reading.models.evidence import phone_losses
from hearback.reading.models.phone_head import Recognition
from hearback.reading.models.phone_scorer import PhoneScorer
from hearback.reading.models.provide import provide_backbones
from hearback.reading.options import TrainingOptions
from hearback.reading.pairs import Example, PairDataset
from hearback.reading.steps import check_models, get_config, train_model
from hearback.reading.submission.pack import PackingOptions, pack
from hearback.reading.training import ReadingTask, train_fold
from hearback.reading.window_batches import UNKNOWN, Batch, Pair, collate, window_samples
from hearback.reading.word_calibration import WordCalibration
from hearback.reading.word_labels import ReadWords, WordLabels
from tests import toy, world_inputs
from tests.conftest import inference_options, training_options
from tests.helpers import run_step
from tests.reading.inference_data import CPU
from tests.reading.quick_recipes import QUICK_GOP, QUICK_TOKENS
from tests.reading.random_models import BASE_RATES, write_fold

pytestmark = pytest.mark.usefixtures("letters_as_sounds")
N_FOLDS = 3
NAME = QUICK_GOP.name


def make_world(folder: Path, phones: Path, n_clips: int = 36) -> Path:
    """Write a corpus and the recogniser; its test rows are the first six of the training."""
    toy.make_corpus(folder, n_clips, np.random.default_rng(0))
    shutil.copytree(phones, folder / "assets" / layout.NAME)
    table = pd.read_csv(folder / "data" / "train_metadata.csv").head(6)
    table.to_csv(folder / "data" / "test_metadata.csv", index=False)
    rows = table[["filename"]].assign(score=0.0)
    rows.to_csv(folder / "data" / "submission_format.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, phones: Path, backbone: Path) -> Path:
    """A folder with all folds of a phone scorer."""
    folder = make_world(tmp_path_factory.mktemp("trained"), phones)
    options = training_options(folder, backbone)
    data = options.load_data()
    for fold in range(N_FOLDS):
        train_fold(QUICK_GOP, fold, options, data)
    shutil.rmtree(folder / "assets" / layout.NAME)  # a trained fold needs only its own files
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder, which a test may change."""
    return shutil.copytree(trained, tmp_path / "world")


@pytest.fixture
def options(trained: Path, backbone: Path) -> TrainingOptions:
    return training_options(trained, backbone)


@pytest.fixture
def scorer(trained: Path) -> PhoneScorer:
    files = FoldFiles(trained / "assets", NAME, 0)
    found = load.load_scorer(files, read_fold_metadata(files))
    assert isinstance(found, PhoneScorer)
    return found


def files_of(options: TrainingOptions) -> FoldFiles:
    return FoldFiles(options.assets, NAME, 0)


def write_config(folder: Path, *models: str) -> None:
    EnsembleConfig(
        models=tuple(ModelConfig(name, (0,), 1 / len(models)) for name in models),
        voice=None,
        base_rates=BASE_RATES,
        log_losses={"cross_fitted": 0.5},
        n_rows=36,
        words=WordCalibration(models, Line(), Line()),
    ).save(folder / "model_configs.json")


def test_a_fold_s_files_reproduce_its_predictions_and_words(
    scorer: PhoneScorer, options: TrainingOptions
) -> None:
    data, files = options.load_data(), FoldFiles(options.assets, NAME, 0)
    rows = np.flatnonzero(data.folds == 0)
    predictions = predict(scorer, data.source, rows, **CPU)
    oof = pd.read_csv(files.oof)["pred"]
    assert oof.nunique() == len(rows)
    np.testing.assert_allclose(predictions.clips, oof, atol=2e-3)
    words = pd.read_csv(files.table("words"))
    assert len(words) == sum(len(data.source.texts[row].split()) + 1 for row in rows)
    tokenizer = read_fold_metadata(files)["tokenizer"]["file"]
    assert tokenizer.startswith("tokenizer_") and tokenizer.endswith(".safetensors")
    assert scorer.text_tokenizer.path == options.assets / tokenizer


def pairs_of(scorer: PhoneScorer, options: TrainingOptions) -> list[Pair]:
    source = options.load_data().source
    examples = [Example(row, source.texts[row], 1.0) for row in range(8)]
    dataset = PairDataset(source, examples, "phones", text_tokenizer=scorer.text_tokenizer)
    return [dataset[index] for index in range(len(dataset))]


def test_the_recogniser_is_trained_too(scorer: PhoneScorer, options: TrainingOptions) -> None:
    logits, words = scorer.training_step(collate(pairs_of(scorer, options), 5 * SAMPLE_RATE))
    (logits.sum() + words).backward()
    assert words > 0
    for name in ("stem", "blocks.0.attention.qkv", "blocks.1.ffn2.fc2", "proj"):
        gradient = scorer.encoder.get_submodule(name).get_parameter("weight").grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0
    trained = {id(parameter) for parameter in scorer.backbone_parameters()}
    assert trained == {id(parameter) for parameter in scorer.encoder.parameters()}


def logits_of(scorer: PhoneScorer, pairs: list[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of pairs in one batch, and the scores of their words."""
    window = max(window_samples(pair.n_samples, "trimmed", 0.64) for pair in pairs)
    with torch.inference_mode():
        logits, words = scorer.forward_with_words(collate(pairs, window))
    assert words is not None
    return logits, words


def test_a_batch_gives_what_its_clips_give_alone(
    scorer: PhoneScorer, options: TrainingOptions
) -> None:
    pairs = pairs_of(scorer, options)
    # Shorter than its phones: prolonged by silence.
    pairs[3] = replace(pairs[3], waveform=pairs[3].waveform[:800])
    pairs[4] = replace(pairs[4], waveform=pairs[4].waveform[:1])
    together, words = logits_of(scorer, pairs)
    assert together.isfinite().all()
    for index, pair in enumerate(pairs):
        alone, of_alone = logits_of(scorer, [pair])
        torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=1e-5)
        n_positions = of_alone.shape[1]
        torch.testing.assert_close(
            words[index, :n_positions], of_alone[0], atol=1e-4, rtol=1e-4, equal_nan=True
        )
        assert words[index, n_positions:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_it_computes_in_float32_whatever_the_others_do(
    trained: Path, options: TrainingOptions, dtype: torch.dtype
) -> None:
    files = FoldFiles(trained / "assets", NAME, 0)
    fold = EnsembleFold(0, files, read_fold_metadata(files))
    ((group, _),) = load_model_groups([fold], CPU["device"], dtype, 1e9)
    source = options.load_data().source
    rows = list(range(6))
    expected = predict(load.load_scorer(files, fold.metadata), source, rows, **CPU)
    found = predict(group.models[0], source, rows, device=CPU["device"], dtype=dtype)
    np.testing.assert_allclose(found.clips, expected.clips, atol=1e-6)


def test_an_ensemble_with_a_token_scorer_scores_rows_and_words(
    folder: Path, tokenizer: Path
) -> None:
    write_fold(folder / "assets", QUICK_TOKENS, 0, None, tokenizer)
    write_config(folder, NAME, QUICK_TOKENS.name)
    options = inference_options(folder, words=folder / "word_scores.csv")
    write_submission(options)
    submission = pd.read_csv(options.submission)
    assert len(submission) == submission["score"].nunique() == 6
    assert submission["score"].between(0, 1, inclusive="neither").all()
    words = pd.read_csv(folder / "word_scores.csv")
    assert words["filename"].nunique() == 6
    assert words["score"].between(0, 1).all()
    assert not (folder / "submission_problems.csv").exists()
    write_config(folder, NAME)
    write_submission(options)  # alone
    alone = pd.read_csv(options.submission)
    assert alone["score"].nunique() == 6
    assert not np.allclose(alone["score"], submission["score"])


@pytest.mark.parametrize("with_tokens", [False, True])
def test_infer_hears_30_s_with_models_of_tokens_and_phones(
    folder: Path, tokenizer: Path, with_tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fold(folder / "assets", QUICK_TOKENS, 0, None, tokenizer)
    write_config(folder, NAME, *[QUICK_TOKENS.name] * with_tokens)
    options = inference_options(folder)
    name = pd.read_csv(folder / "data" / "test_metadata.csv")["filename"][0]
    noise = np.random.default_rng(0).normal(0, 0.01, 22 * SAMPLE_RATE).astype(np.float32)
    speech = toy.spoken("boy")
    noise[-len(speech) :] = speech  # after 21 s
    write_wav(folder / "data" / name, noise, SAMPLE_RATE)
    lengths = set()
    recognise = PhoneScorer.recognise

    def recorded(self: PhoneScorer, batch: Batch) -> Recognition:
        lengths.add(int(batch.n_frames.max()) * 0.02)
        return recognise(self, batch)

    monkeypatch.setattr(PhoneScorer, "recognise", recorded)
    write_submission(options)
    assert not (folder / "submission_problems.csv").exists()
    assert max(lengths) == pytest.approx(22)


def test_the_tables_and_the_ensemble_have_the_family(folder: Path) -> None:
    _, output, errors = run_step(check_models, folder, "--no_page")
    assert NAME in output, errors
    (table,) = read_out_of_fold(folder / "assets")
    assert table.family == "phone scorer"
    config = folder / "model_configs.json"
    status, output, errors = run_step(get_config, folder, "--config", str(config))
    assert status in (0, None), errors
    found = EnsembleConfig.load(config)
    assert [model.name for model in found.models] == [NAME]
    assert found.words is not None and found.words.models == (NAME,)


def test_the_submission_has_its_tokenizer_and_its_code(folder: Path) -> None:
    import zipfile

    write_config(folder, NAME)
    archive = pack(
        PackingOptions(
            assets=folder / "assets",
            config=folder / "model_configs.json",
            tts_data=folder / "tts_data",
            wheels=folder / "wheels",
            submission=folder / "submission.zip",
        )
    )
    names = set(zipfile.ZipFile(archive).namelist())
    (tokenizer,) = (name for name in names if name.startswith("assets/tokenizer_"))
    assert tokenizer.endswith(".safetensors")
    code = {f"hearback/engine/phones/{name}.py" for name in ("ctc", "edits", "g2p", "tokenizer")}
    assert code | {f"assets/{NAME}_0.safetensors", "hearback/reading/models/phone_head.py"} <= names
    assert not [name for name in names if "hama" in name and not name.endswith(".py")]


def test_another_whisper_does_not_change_it(options: TrainingOptions) -> None:
    adapted = replace(options, backbone="openai/whisper-small").adapt(QUICK_GOP)
    assert adapted == QUICK_GOP
    assert options.pretrained_models(adapted) == {(layout.NAME, options.assets)}


@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["train", "plan"])
def test_its_script_refuses_another_whisper(plan: tuple[str, ...]) -> None:
    flags = ("--fold=0", "--backbone=openai/whisper-base", *plan)
    finished = world_inputs.run_step(lambda: train_model.main(QUICK_GOP), *flags)
    assert finished.status == 2
    refusal = f"--backbone openai/whisper-base: {NAME} does not use it; leave the flag out"
    assert refusal in finished.printed


def test_a_missing_recogniser_is_one_error_before_the_data_are_read(tmp_path: Path) -> None:
    folders = [f"--{name}={tmp_path / name}" for name in ("data", "tts_data", "store", "assets")]
    finished = world_inputs.run_step(
        lambda: train_model.main(QUICK_GOP),
        *(*folders, f"--runs={tmp_path / 'runs'}", "--fold=0"),
    )
    assert finished.status == 2
    (line,) = (line for line in finished.printed.splitlines() if "hama-phones" in line)
    assert "Download it with: python -m hearback.engine.phones.pretrained --assets" in line
    assert "data" not in finished.printed.replace(str(tmp_path), "")


def test_a_damaged_file_of_pronunciations_is_an_error(
    tmp_path: Path, phones: Path, backbone: Path
) -> None:
    options = training_options(make_world(tmp_path, phones), backbone)
    path = options.assets / layout.NAME / layout.PRONUNCIATIONS
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(HearbackError, match=r"pronunciations\.safetensors is damaged"):
        train_fold(QUICK_GOP, 0, options, options.load_data())


def test_files_of_the_recogniser_that_are_missing_are_provided(
    tmp_path: Path, phones: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = training_options(make_world(tmp_path, phones), backbone)
    data = options.load_data()
    untrained = replace(QUICK_GOP, epochs=0, schedule_epochs=0)  # its recogniser is the pretrained
    fold = TrainedFold(0, files_of(options), train_fold(untrained, 0, options, data))
    names = {shared.name for shared in shared_files(fold.metadata).values()}
    assert sorted(name.split("_")[0] for name in names) == ["encoder", "tokenizer"]
    for name in names:
        (options.assets / name).unlink()
    (options.assets / layout.NAME).rename(tmp_path / layout.NAME)
    monkeypatch.setenv("HEARBACK_CACHE", str(tmp_path / "cache"))
    provide_backbones([fold], lambda _: None, backbones=tmp_path)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == names
    scorer = load.load_scorer(fold.files, fold.metadata)
    rows = np.flatnonzero(data.folds == 0)
    found = predict(scorer, data.source, rows, **CPU).clips
    np.testing.assert_allclose(found, pd.read_csv(fold.files.oof)["pred"], atol=2e-3)


def test_it_learns_from_words_where_they_have_labels(
    tmp_path: Path,
    phones: Path,
    backbone: Path,
    trained: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_recordings = read_fold_metadata(FoldFiles(trained / "assets", NAME, 0))
    assert of_recordings["word_labels"] is None
    options = training_options(make_world(tmp_path, phones), backbone)
    table = pd.read_csv(options.data / "train_metadata.csv")
    rows = [
        {"filename": row["filename"], "position": position, "word": word, "share": number % 2}
        for number, row in enumerate(table.to_dict("records"))
        for position, word in enumerate(row["expected_text"].split())
    ]
    pd.DataFrame(rows).to_csv(options.data / "train_words.csv", index=False)
    data = options.load_data([options.adapt(QUICK_GOP)])
    assert f"{NAME}: " in capsys.readouterr().out
    metadata = train_fold(QUICK_GOP, 0, options, data)
    assert metadata["word_labels"]["words"] == len(rows)
    assert metadata["epochs"][-1]["train_log_loss"] != of_recordings["epochs"][-1]["train_log_loss"]


def test_its_features_are_finite_before_any_training(
    tmp_path: Path, phones: Path, backbone: Path
) -> None:
    from hearback.engine.training.task import FoldRun

    options = training_options(make_world(tmp_path, phones), backbone)
    data = options.load_data()
    model = ReadingTask(FoldRun(options.adapt(QUICK_GOP), 0, options, data)).build_model()
    assert isinstance(model, PhoneScorer)
    pairs = pairs_of(model, options)
    with torch.inference_mode():
        features = model.pretrained_features(collate(pairs, 5 * SAMPLE_RATE))
    assert features is not None and features.isfinite().all()
    assert features.std(0).gt(0).sum() > 10


def test_it_learns_from_phones_where_words_are_transcribed(
    scorer: PhoneScorer, options: TrainingOptions
) -> None:
    source = options.load_data().source
    words = source.texts[0].split()
    tokenizer = scorer.text_tokenizer
    spelled = {phone: symbol for symbol, phone in ARPABET.items()}
    encoded = tokenizer.encode(source.texts[0])
    phones = tokenizer.phones(encoded.tokens[encoded.word_ids == 0])
    assert set(phones) <= set(spelled)
    first = " ".join([f"({spelled[phones[0]]})", *(spelled[phone] for phone in phones[1:])])
    read = replace(
        ReadWords.of(words, np.ones(len(words))),
        transcriptions=(first, *("" for _ in words[1:])),
    )
    examples = [Example(0, source.texts[0], 1.0), Example(1, source.texts[1], 1.0)]
    labels = WordLabels({source.filenames[0]: read})
    dataset = PairDataset(source, examples, "phones", text_tokenizer=tokenizer, word_labels=labels)
    pairs = [dataset[index] for index in range(2)]
    known = pairs[0].texts[0].phones
    assert known is not None and pairs[1].texts[0].phones is None
    assert known[: len(phones)].tolist() == [0.0] + [1.0] * (len(phones) - 1)
    assert (known[len(phones) :] == UNKNOWN).all()
    longest = max(pair.n_samples for pair in pairs)
    batch = collate(pairs, window_samples(longest, "trimmed", 0.64))
    assert batch.texts is not None
    scorer.train()
    scores, _ = scorer.score_texts(batch)
    losses = phone_losses(scores, batch.texts)
    assert losses[0] > 0 and losses[1] == 0
    scorer.recipe = replace(scorer.recipe, uses_word_labels=True, phone_loss=0.0)
    torch.manual_seed(0)
    _, without = scorer.training_step(batch)
    scorer.recipe = replace(scorer.recipe, phone_loss=0.5)
    torch.manual_seed(0)
    _, with_phones = scorer.training_step(batch)
    torch.manual_seed(0)
    expected = phone_losses(scorer.score_texts(batch)[0], batch.texts).sum()
    torch.testing.assert_close(with_phones - without, 0.5 * expected, rtol=1e-3, atol=1e-5)
