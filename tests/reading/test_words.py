"""Word scores: tables, calibration, training and inference."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from hearback.engine.ensemble.calibration import Line
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import (
    FoldFiles,
    read_fold_metadata,
    save_fold,
    why_not_done,
)
from hearback.engine.training.trainer import Trainer
from hearback.reading import training
from hearback.reading import words as words_module
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference import predict as predict_module
from hearback.reading.inference import submission
from hearback.reading.inference.predict import Predictions
from hearback.reading.inference.submission import InferenceOptions, write_submission
from hearback.reading.options import TrainingOptions
from hearback.reading.references import References
from hearback.reading.steps import infer
from hearback.reading.word_calibration import (
    WordCalibration,
)
from hearback.reading.words import (
    COMPLETE,
    PROBABILITY_DIGITS,
    SAID,
    count_letters,
    from_table,
    read_fold,
    said_probabilities,
    to_table,
    word_score_table,
)
from tests.conftest import TEXTS, inference_options, training_options
from tests.reading.random_models import BASE_RATES, write_fold
from train_model3mapd import RECIPE as COMPARISON
from train_modeltok import RECIPE as TOKENS

FILENAMES = ["a.wav", "b.wav", "c.wav"]
SPOKEN = ["the NA", 'null, "x"  7', "koovnorb"]  # words that CSV readers may misread
LINES = WordCalibration(("modeltok",), Line(0.5, -1.0), Line(2.0, 1.0))


def make_log_odds(texts: Sequence[str], seed: int = 0, scale: float = 2.0) -> np.ndarray:
    """Return random log-odds, (rows, positions, 2), with NaN where a text has no word."""
    n_words = np.array([len(text.split()) for text in texts])[:, None]
    positions = np.arange(n_words.max() + 1)
    log_odds = np.random.default_rng(seed).normal(1, scale, (len(texts), len(positions), 2))
    log_odds[..., SAID][positions >= n_words] = np.nan
    log_odds[..., COMPLETE][positions > n_words] = np.nan
    return log_odds


def write_words(folder: Path, words: pd.DataFrame | None) -> FoldFiles:
    files = FoldFiles(folder, "modeltok", 0)
    oof = pd.DataFrame({"filename": FILENAMES, "score": 1.0, "pred": 0.5})
    tables = {} if words is None else {"words": words}
    save_fold(files, {"weight": torch.zeros(1)}, oof, {"retrain_command": "again"}, tables)
    return files


def test_letters_are_counted_by_word() -> None:
    found = count_letters(["the sun", "", "don't"], 3)
    nan = np.nan
    np.testing.assert_array_equal(found, [[3, 3, nan], [nan, nan, nan], [5, nan, nan]])


def test_a_table_has_a_row_per_word_and_text_end() -> None:
    log_odds = make_log_odds(SPOKEN)
    table = to_table(FILENAMES, SPOKEN, log_odds)
    assert list(table.columns) == ["filename", "position", "word", "said", "complete"]
    assert list(zip(table["filename"], table["position"], table["word"], strict=True)) == [
        *(("a.wav", 0, "the"), ("a.wav", 1, "NA"), ("a.wav", 2, "")),
        *(("b.wav", 0, "null,"), ("b.wav", 1, '"x"'), ("b.wav", 2, "7"), ("b.wav", 3, "")),
        *(("c.wav", 0, "koovnorb"), ("c.wav", 1, "")),
    ]
    assert list(table["said"].isna()) == list(table["word"] == "")
    assert table["complete"].notna().all()


def test_a_table_is_read_back_in_any_order(tmp_path: Path) -> None:
    log_odds = make_log_odds(SPOKEN)
    files = write_words(tmp_path, to_table(FILENAMES, SPOKEN, log_odds))
    table = read_fold(files, read_fold_metadata(files))
    np.testing.assert_array_equal(from_table(table, FILENAMES, SPOKEN), log_odds)
    some = from_table(table[::-1], ["c.wav", "a.wav"], [SPOKEN[2], SPOKEN[0]])
    np.testing.assert_array_equal(some, log_odds[[2, 0], :3])


@pytest.mark.parametrize("texts", [["the NA", "koovnorb"], ["the NB", 'null, "x" 7']])
def test_a_missing_word_is_an_error_that_names_a_recording(texts: list[str]) -> None:
    table = to_table(FILENAMES[:1], SPOKEN[:1], make_log_odds(SPOKEN[:1]))
    with pytest.raises(HearbackError, match=r"no word scores .* such as [ab]\.wav"):
        from_table(table, FILENAMES[:2], texts)


def test_the_words_of_a_fold_are_checked_like_its_other_files(tmp_path: Path) -> None:
    files = write_words(tmp_path, to_table(FILENAMES, SPOKEN, make_log_odds(SPOKEN)))
    fold_metadata = read_fold_metadata(files)
    assert why_not_done(files, {}) is None
    files.table("words").write_text(
        files.table("words").read_text().replace("koovnorb", "koovnarb")
    )
    assert (
        why_not_done(files, {}) == "modeltok_0.words.csv does not match the digest in its metadata"
    )
    with pytest.raises(HearbackError, match=r"modeltok_0\.words\.csv: .* again"):
        read_fold(files, fold_metadata)
    files.table("words").unlink()
    assert why_not_done(files, {}) == "modeltok_0.words.csv is missing"
    with pytest.raises(HearbackError, match=r"modeltok_0\.words\.csv: missing"):
        read_fold(files, fold_metadata)


def test_a_model_without_words_deletes_those_of_an_earlier_training(tmp_path: Path) -> None:
    files = write_words(tmp_path, to_table(FILENAMES, SPOKEN, make_log_odds(SPOKEN)))
    write_words(tmp_path, None)
    assert not files.table("words").exists()
    assert set(read_fold_metadata(files)["sha256"]) == {"weights", "oof"}
    assert why_not_done(files, {}) is None


def test_scores_are_of_words_without_text_ends() -> None:
    probabilities = 0.5 + 0.5 * expit(make_log_odds(SPOKEN))  # none is limited by its neighbours
    table = word_score_table(FILENAMES, SPOKEN, probabilities)
    assert list(table.columns) == ["filename", "position", "word", "written", "score", "status"]
    assert list(table["word"]) == ["the", "NA", "null,", '"x"', "7", "koovnorb"]
    assert list(table["position"]) == [0, 1, 0, 1, 2, 0]
    expected = probabilities[..., SAID][[0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 0]]
    np.testing.assert_array_equal(table["score"], expected.round(PROBABILITY_DIGITS))


# Training


@pytest.fixture
def trained(
    make_corpus: Callable[..., Path], backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainingOptions:
    """Options to train with; letters are sounds, so that hard negatives need no voice's package."""
    monkeypatch.setattr(
        "hearback.reading.hard_negatives.generator.hibari_pronounce", lambda: str.lower
    )
    return training_options(make_corpus(), backbone)


def test_a_token_scorer_writes_its_words_and_a_comparison_does_not(
    trained: TrainingOptions,
) -> None:
    data = trained.load_data()
    for recipe in (TOKENS, COMPARISON):
        quick = replace(recipe, epochs=1, schedule_epochs=1)
        training.train_fold(quick, 0, trained, data)
    files = FoldFiles(trained.assets, TOKENS.name, 0)
    table = read_fold(files, read_fold_metadata(files))
    rows = np.flatnonzero(data.folds == 0)
    filenames, texts = data.source.filenames, data.source.texts
    log_odds = from_table(table, [filenames[row] for row in rows], [texts[row] for row in rows])
    assert len(table) == np.isfinite(log_odds[..., COMPLETE]).sum()
    assert np.nanstd(log_odds[..., SAID]) > 0
    assert not FoldFiles(trained.assets, COMPARISON.name, 0).table("words").exists()
    assert (
        "words" not in read_fold_metadata(FoldFiles(trained.assets, COMPARISON.name, 0))["sha256"]
    )


def test_the_best_epoch_s_words_survive_a_killed_training(
    trained: TrainingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TOKENS, epochs=2, schedule_epochs=2)
    data = trained.load_data()
    files = FoldFiles(trained.assets, recipe.name, 0)
    train_epoch, evaluate_epoch = Trainer.train_epoch, Trainer.evaluate_epoch
    predict = training.predict

    def good_in_first_epoch(self: Trainer) -> None:
        is_first = self.state.epoch == 0

        def predict_badly(*args: Any, **kwargs: Any) -> Predictions:
            predictions = predict(*args, **kwargs)
            if is_first:
                return predictions
            assert predictions.words is not None
            labels = data.labels[self.run.validation_rows]
            return Predictions(np.where(labels > 0.5, 0.001, 0.999), 0 * predictions.words)

        with monkeypatch.context() as patch:
            patch.setattr(training, "predict", predict_badly)
            evaluate_epoch(self)

    def killed(self: Trainer, n_examples: int, batches: Any) -> None:
        if self.state.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self, n_examples, batches)

    monkeypatch.setattr(Trainer, "evaluate_epoch", good_in_first_epoch)
    fold_metadata = training.train_fold(recipe, 0, trained, data)
    assert fold_metadata["best_epoch"] < 2
    uninterrupted = files.table("words").read_bytes()
    files.metadata.unlink()
    files.table("words").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train_fold(recipe, 0, trained, data)
    training.train_fold(recipe, 0, trained, data)
    assert files.table("words").read_bytes() == uninterrupted
    assert (read_fold(files, read_fold_metadata(files))["complete"] != 0).all()


# Inference


@pytest.fixture
def options(make_corpus: Callable[..., Path], tokenizer: Path) -> InferenceOptions:
    """Options to score words with two token models of two folds, beside one that cannot."""
    folder = make_corpus()
    voice = References(folder / "tts_data").voice
    weights = {COMPARISON: 0.5, TOKENS: 0.75, replace(TOKENS, name="modeltok2", seed=9): 0.25}
    for recipe in weights:
        for fold in (0, 1):
            write_fold(folder / "assets", recipe, fold, voice, tokenizer)
    models = tuple(ModelConfig(recipe.name, (0, 1), w) for recipe, w in weights.items())
    calibration = replace(LINES, models=("modeltok", "modeltok2"), weights=(0.75, 0.25))
    losses = {"cross_fitted": 0.5}
    config = EnsembleConfig(
        models, voice, BASE_RATES, losses, n_rows=36, combine="logits", words=calibration
    )
    config.save(folder / "model_configs.json")
    return inference_options(folder, words=folder / "words" / "scores.csv")


def word_scores(options: InferenceOptions) -> pd.DataFrame:
    assert options.words is not None
    return pd.read_csv(options.words, keep_default_na=False)


def test_every_word_has_a_score_in_submission_order(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words_module, "MOSTLY_MISSED_BELOW", 0.0)  # neighbours do not limit a word
    write_submission(options)
    table = word_scores(options)
    order = pd.read_csv(options.data / "submission_format.csv")["filename"]
    texts = pd.read_csv(options.data / "test_metadata.csv").set_index("filename")["expected_text"]
    assert list(table.columns) == ["filename", "position", "word", "written", "score", "status"]
    assert list(zip(table["filename"], table["position"], table["word"], strict=True)) == [
        (name, position, word)
        for name in order
        for position, word in enumerate(texts[name].split())
    ]
    assert table["score"].between(0, 1, inclusive="neither").all()
    assert table["score"].nunique() == len(table)


def test_words_need_no_second_pass_and_change_no_score(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_submission(replace(options, words=None))
    assert options.words is not None and not options.words.exists()
    without = options.submission.read_bytes()
    passes = []

    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        passes.append(args)
        return run(*args, **kwargs)

    run = predict_module.ModelGroup.run
    monkeypatch.setattr(predict_module.ModelGroup, "run", counted)
    write_submission(options)
    assert len(passes) == 2  # of the comparisons, and of those that read
    assert options.submission.read_bytes() == without


def test_a_word_score_is_the_calibrated_mean_of_its_log_odds(
    options: InferenceOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words_module, "MOSTLY_MISSED_BELOW", 0.0)  # neighbours do not limit a word
    write_submission(options)
    together = word_scores(options)["score"]
    config = EnsembleConfig.load(options.config)
    assert config.words is not None
    of_words = config.words.weight_of
    total = pd.Series(0.0, index=together.index)
    plain = Line(1.0, 0.0)
    for model in config.models[1:]:
        for fold in model.folds:
            words = WordCalibration((model.name,), plain, plain)
            models = (replace(model, folds=(fold,)),)
            replace(config, models=models, words=words).save(options.config)
            write_submission(options)
            scores = word_scores(options)["score"]
            total += of_words[model.name] / 2 * np.log(scores / (1 - scores))
    line = config.words.said
    np.testing.assert_allclose(together, expit(line.slope * total + line.intercept), atol=6e-5)


def test_words_of_rows_that_cannot_be_scored_are_left_out_with_a_message(
    options: InferenceOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission(options)
    before = word_scores(options)
    (options.data / "test003.wav").write_bytes(b"broken")
    write_submission(options)
    after = word_scores(options)
    assert len(TEXTS[3].split()) == 4
    expected = before[before["filename"] != "test003.wav"].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, expected, atol=1e-5, rtol=0)
    assert "lacks 1 row that could not be scored" in capsys.readouterr().out


def test_without_any_row_that_can_be_scored_the_table_is_empty(options: InferenceOptions) -> None:
    for recording in options.data.glob("test*.wav"):
        recording.write_bytes(b"broken")
    write_submission(options)
    assert word_scores(options).empty
    assert list(word_scores(options).columns) == [
        "filename",
        "position",
        "word",
        "written",
        "score",
        "status",
    ]


def test_without_a_model_that_scores_words_the_submission_is_written(
    options: InferenceOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(EnsembleConfig.load(options.config), words=None).save(options.config)
    write_submission(options)
    assert len(pd.read_csv(options.submission)) == 6
    assert options.words is not None and not options.words.exists()
    shown = capsys.readouterr().out
    assert f"{options.words} is NOT WRITTEN: the ensemble has no model that scores words" in shown
    assert "-> python train.py --models modeltok, then python get_config.py" in shown


@pytest.mark.parametrize(
    ("flags", "path"),
    [
        ([], None),
        (["--words"], Path("there/word_scores.csv")),
        (["--words", "mine.csv"], Path("mine.csv")),
    ],
)
def test_words_are_written_beside_the_submission_or_to_the_given_path(
    flags: list[str], path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[InferenceOptions] = []
    monkeypatch.setattr(submission, "write_submission", asked.append)
    monkeypatch.setattr(
        "sys.argv", ["infer.py", "--no_page", "--submission", "there/submission.csv", *flags]
    )
    infer.main()
    assert asked[0].words == path


def test_a_word_among_missed_words_is_at_most_their_mean() -> None:
    other_text = [0.0, 0.2, 0.9, 0.1, 0.1]
    one_error = [0.9, 0.0, 0.9, 0.9, np.nan]
    half_read = [0.9] * 8 + [0.0] * 7 + [0.8] + [0.0] * 4
    n_positions = len(half_read) + 1
    said = np.full((3, n_positions), np.nan)
    for row, values in enumerate((other_text, one_error, half_read)):
        said[row, : len(values)] = values
    found = said_probabilities(np.stack([said, said], axis=-1))
    np.testing.assert_allclose(found[0, :5], [0.0, 0.2, 0.26, 0.1, 0.1])
    np.testing.assert_allclose(found[1, :5], one_error)
    np.testing.assert_allclose(found[2, :6], [0.9] * 6)
    assert found[2, 15] == pytest.approx(0.8 / 9)
    assert np.isnan(found[2, 20])
    assert said_probabilities(np.full((0, 1, 2), np.nan)).shape == (0, 1)
