"""Models that hear no reference speech: training, inference and submissions without any."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata, why_not_done
from hearback.reading import training
from hearback.reading.dataset import load_training_data
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference.submission import write_submission
from hearback.reading.options import TrainingOptions
from hearback.reading.recipe import Recipe
from hearback.reading.references import BadReferencesError, References
from hearback.reading.submission.dry_run import ReadingDryRun
from hearback.reading.submission.pack import pack
from tests.reading.inference_data import write_ensemble, write_submission_data
from tests.reading.quick_recipes import QUICK as JOINED
from tests.reading.quick_recipes import QUICK_TOKENS as TOKENS
from train_modelali import RECIPE as ALIGNED


def keep_models(config_path: Path, names: tuple[str, ...], *, voice: bool) -> None:
    """Leave weights only to some models of an ensemble, and its voice only if `voice`."""
    config = EnsembleConfig.load(config_path)
    models = tuple(
        replace(model, weight=1 / len(names) if model.name in names else 0.0)
        for model in config.models
    )
    changed = replace(config, models=models, voice=config.voice if voice else None, fallbacks=())
    changed.save(config_path)


def done(options: TrainingOptions, recipe: Recipe) -> str | None:
    adapted = options.adapt(recipe)
    key = options.run_key(adapted, options.load_data([adapted]))
    return why_not_done(FoldFiles(options.assets, recipe.name, 0), key)


def test_a_token_scorer_is_trained_without_references(options: TrainingOptions) -> None:
    with_references = options.load_data([TOKENS])
    shutil.rmtree(options.tts_data)
    data = options.load_data([TOKENS])
    assert not data.source.has_references
    assert data.fingerprint == with_references.fingerprint
    fold_metadata = training.train_fold(TOKENS, 0, options, data)
    assert fold_metadata["voice"] is None
    assert fold_metadata["references_fingerprint"] is None
    with pytest.raises(BadReferencesError, match=r"no references there; run `python preprocess"):
        options.load_data([TOKENS, JOINED])


def test_rendering_does_not_make_a_token_scorer_out_of_date(options: TrainingOptions) -> None:
    kept = options.tts_data.rename(options.tts_data.with_name("kept"))
    training.train_fold(TOKENS, 0, options, options.load_data([TOKENS]))
    kept.rename(options.tts_data)
    assert done(options, TOKENS) is None


def test_a_comparison_is_out_of_date_with_other_references(options: TrainingOptions) -> None:
    data = options.load_data()
    fold_metadata = training.train_fold(JOINED, 0, options, data)
    assert fold_metadata["references_fingerprint"] == data.fingerprint_with_references
    assert fold_metadata["voice"] == data.source.references.voice
    assert done(options, JOINED) is None
    voice = options.tts_data / "voice.json"
    voice.write_text(json.dumps({**json.loads(voice.read_text()), "speed": 0.9}))
    assert done(options, JOINED) == "trained with another references fingerprint"


@pytest.mark.parametrize("rendered", [True, False])
@pytest.mark.parametrize("recipe", [TOKENS, JOINED])
def test_folds_of_an_earlier_version_stay_done(
    options: TrainingOptions,
    recipe: Recipe,
    rendered: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = options.load_data()
    fold_metadata = training.train_fold(recipe, 0, options, data)
    files = FoldFiles(options.assets, recipe.name, 0)
    # As version 0.2 wrote it.
    del fold_metadata["references_fingerprint"]
    former = {
        **fold_metadata,
        "sha256": read_fold_metadata(files)["sha256"],
        "data_fingerprint": data.fingerprint_with_references,
        "voice": data.source.references.voice,
    }
    files.metadata.write_text(json.dumps(former))
    capsys.readouterr()
    if not rendered:
        shutil.rmtree(options.tts_data)
        if recipe is JOINED:
            with pytest.raises(BadReferencesError):
                done(options, recipe)
            return
        # Without the references nobody can tell what the former fingerprint was of.
        assert "another data fingerprint" in str(done(options, recipe))
        return
    assert done(options, recipe) is None
    assert "brought the metadata of 1 folds of an earlier version up to date" in (
        capsys.readouterr().out
    )
    assert read_fold_metadata(files)["data_fingerprint"] == data.fingerprint
    assert done(options, recipe) is None
    assert "brought" not in capsys.readouterr().out


def test_infer_renders_and_checks_nothing_without_models_that_hear_it(
    make_corpus: Callable[..., Path], tokenizer: Path
) -> None:
    folder = make_corpus()
    options = write_ensemble(folder, tokenizer)
    keep_models(options.config, ("modeltok",), voice=True)
    write_submission(options)
    expected = options.submission.read_bytes()
    for voice in (True, False):  # of models without a weight
        keep_models(options.config, ("modeltok",), voice=voice)
        shutil.rmtree(options.tts_data, ignore_errors=True)
        write_submission(options)
        assert options.submission.read_bytes() == expected
        assert not options.tts_data.exists()


def test_an_ensemble_without_a_voice_refuses_models_that_hear_it(
    make_corpus: Callable[..., Path], tokenizer: Path
) -> None:
    options = write_ensemble(make_corpus(), tokenizer)
    keep_models(options.config, ("modeltok", "model2ds"), voice=False)
    with pytest.raises(HearbackError, match=r"model2ds_0\.json: trained with another voice than"):
        write_submission(options)


def test_a_submission_without_models_that_hear_references_has_none(
    make_corpus: Callable[..., Path], tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_corpus(n_train=6)
    options = write_submission_data(folder, tokenizer)
    keep_models(options.config, ("modeltok",), voice=False)
    shutil.rmtree(options.tts_data)
    pack(options)
    with zipfile.ZipFile(options.submission) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("tts_data/", "packages/hibari"))]
    printed = capsys.readouterr().out
    assert "no model hears reference speech: none is packed" in printed
    assert "cannot render" not in printed


@pytest.mark.slow
def test_a_dry_run_needs_no_references(
    make_corpus: Callable[..., Path], tokenizer: Path, tmp_path: Path
) -> None:
    folder = make_corpus(n_train=6)
    options = write_submission_data(folder, tokenizer)
    keep_models(options.config, ("modeltok",), voice=False)
    shutil.rmtree(options.tts_data)
    pack(options)
    dry_run = ReadingDryRun(options.submission, folder / "data", 4)
    sandbox = dry_run.set_up(tmp_path / "sandbox")
    assert sandbox.unknown == ()
    assert not (sandbox.runtime / "tts_data").exists()


def test_references_are_read_where_they_are_asked_for(make_corpus: Callable[..., Path]) -> None:
    folder = make_corpus()
    places = (folder / "data", None, folder / "store")
    data = load_training_data(*places, n_folds=3)
    assert data.fingerprint_with_references is None
    with pytest.raises(HearbackError, match="without their reference speech"):
        _ = data.source.references
    texts = References(folder / "tts_data").texts
    assert pd.Series(data.source.texts).isin(texts).all()


def test_the_aligned_model_needs_references(options: TrainingOptions) -> None:
    shutil.rmtree(options.tts_data)
    with pytest.raises(BadReferencesError):
        options.load_data([ALIGNED])
