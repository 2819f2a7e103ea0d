"""The step infer in every competition: every recording gets a line of the submission."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hearback.engine.data.tables import PROBLEMS
from hearback.engine.ensemble.config import ModelConfig
from hearback.engine.ensemble.prior import prior_on_failure
from hearback.engine.errors import HearbackError
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.inference import submission as reading_submission
from hearback.songs import inference as songs_inference
from tests.reading.inference_data import write_ensemble
from tests.reading.random_models import BASE_RATES
from tests.songs import inference_data as songs_data


@dataclass(frozen=True)
class Inference:
    """A competition's inference on a few recordings.

    Attributes:
        options: of write_submission.
        write_submission: scores the recordings and writes the submission.
        probabilities: reads those of the written submission, (rows, classes), by filename.
        models: the ensemble's models.
        choose: writes a configuration with other models.
        filenames: of the recordings, in the submission's order.
        scorable: the recordings that can be scored.
        prior: the probabilities of `scorable[0]` if it cannot be read.
        train_command: trains the folds of the first model.
    """

    options: Any
    write_submission: Callable[[Any], None]
    probabilities: Callable[[], pd.DataFrame]
    models: Sequence[ModelConfig]
    choose: Callable[[Sequence[ModelConfig]], object]
    filenames: list[str]
    scorable: list[str]
    prior: list[float]
    train_command: str

    def run(self, models: Sequence[ModelConfig] | None = None) -> pd.DataFrame:
        """Run the models, all of them unless given; return the probabilities by filename."""
        self.choose(self.models if models is None else models)
        self.write_submission(self.options)
        return self.probabilities()

    def problems(self) -> Path:
        """Return the path of the list of problems."""
        return self.options.submission.with_name(PROBLEMS)


@pytest.fixture
def reading(make_corpus: Callable[..., Path], tokenizer: Path) -> Inference:
    """Three models with random weights on six clips."""
    options = write_ensemble(make_corpus(), tokenizer)
    config = EnsembleConfig.load(options.config)
    expected = pd.read_csv(options.data / "submission_format.csv")["filename"].tolist()
    return Inference(
        options=options,
        write_submission=reading_submission.write_submission,
        probabilities=lambda: pd.read_csv(options.submission).set_index("filename"),
        models=config.models,
        choose=lambda models: replace(config, models=tuple(models)).save(options.config),
        filenames=expected,
        scorable=sorted(expected),
        prior=[BASE_RATES["deletion"]],
        train_command=r"python train_model2ds\.py --fold 7",
    )


@pytest.fixture
def songs(trained: Path, tmp_path: Path) -> Inference:
    """Two models on seven snippets, of which two are unreadable."""
    options = songs_data.write_unseen(tmp_path, trained)
    beside = options.submission.with_name("submission_probabilities.csv")
    album = [f"album/{number}.wav" for number in ("11", "22", "3", "33")]
    return Inference(
        options=options,
        write_submission=songs_inference.write_submission,
        probabilities=lambda: pd.read_csv(beside).set_index("filename"),
        models=songs_data.MODELS,
        choose=lambda models: songs_data.write_config(tmp_path, models),
        filenames=[*album, "broken.ogg", "long.flac.wav", "silent.wav"],
        scorable=[*album, "long.flac.wav"],
        prior=list(songs_data.SHARES),
        train_command="python -m hearback.songs train",
    )


@pytest.fixture(params=["reading", "songs"])
def inference(request: pytest.FixtureRequest) -> Inference:
    """Each competition's."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Inference)
    return found


def test_every_recording_gets_a_line_in_order(inference: Inference) -> None:
    probabilities = inference.run()
    submission = pd.read_csv(inference.options.submission)
    assert submission["filename"].tolist() == inference.filenames
    assert sorted(probabilities.index) == sorted(inference.filenames)
    scored = probabilities.loc[inference.scorable]
    assert ((scored > 0) & (scored < 1)).all(axis=None)
    assert len(scored.drop_duplicates()) == len(scored)


def test_probabilities_are_the_weighted_mean_of_the_models_means_over_folds(
    inference: Inference,
) -> None:
    together = inference.run().loc[inference.scorable]
    expected = pd.DataFrame(0.0, index=together.index, columns=together.columns)
    of_folds = []
    for model in inference.models:
        for fold in model.folds:
            alone = inference.run([ModelConfig(model.name, (fold,), 1.0)]).loc[together.index]
            of_folds.append(alone)
            expected += model.weight / len(model.folds) * alone
    assert not np.allclose(of_folds[0], of_folds[1])
    pd.testing.assert_frame_equal(together, expected, atol=1e-6, rtol=0)


def test_an_unreadable_recording_gets_the_prior_and_is_listed(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    before = inference.run()
    broken, *rest = inference.scorable
    path = inference.options.data / broken
    content = path.read_bytes()
    path.write_bytes(b"broken")
    after = inference.run()
    assert after.loc[broken].tolist() == pytest.approx(inference.prior)
    pd.testing.assert_frame_equal(after.loc[rest], before.loc[rest], atol=1e-5, rtol=0)
    listed = pd.read_csv(inference.problems())
    assert broken in set(listed["filename"])
    assert not set(rest) & set(listed.loc[listed["severity"] == "error", "filename"])
    n_unscored = len(inference.filenames) - len(rest)
    assert f"{n_unscored} of them at the" in capsys.readouterr().out

    path.write_bytes(content)  # problems of an earlier run do not stay
    pd.testing.assert_frame_equal(inference.run(), before, atol=1e-5, rtol=0)
    kept = pd.read_csv(inference.problems()) if inference.problems().exists() else listed[:0]
    assert broken not in set(kept["filename"])


def test_a_missing_fold_is_an_error_with_the_command_that_trains_it(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    first = inference.models[0]
    with pytest.raises(HearbackError, match=rf"{first.name}_7\.json.*{inference.train_command}"):
        inference.run([ModelConfig(first.name, (0, 7), 1.0)])
    # The submission is there all the same.
    check_is_prior(inference)
    assert "SCORING FAILED: all rows of" in capsys.readouterr().err


@pytest.mark.parametrize("error", [HearbackError("damaged"), RuntimeError("out of memory")])
def test_any_failure_of_the_models_leaves_a_submission_of_priors(
    inference: Inference, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for module in (reading_submission, songs_inference):
        monkeypatch.setattr(module, "read_folds", fail)
    with pytest.raises(type(error), match=str(error)):
        inference.run()
    check_is_prior(inference)


@pytest.mark.parametrize("damage", ["missing", "no JSON", "no models"])
def test_a_damaged_configuration_leaves_a_submission(
    inference: Inference, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = inference.options.config
    inference.choose(inference.models)
    if damage == "missing":
        config.unlink()
    elif damage == "no JSON":
        config.write_text(config.read_text()[:-40])
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), "models": []}))
    with pytest.raises(HearbackError, match="get_config"):
        inference.write_submission(inference.options)
    error = capsys.readouterr().err
    if damage == "no models":
        check_is_prior(inference)
        return
    n_columns = len(inference.prior)
    found = inference.probabilities().loc[inference.filenames].to_numpy()
    assert found == pytest.approx(np.full(found.shape, 1 / max(n_columns, 2)))
    assert f"are in {config}" in error and "SCORING FAILED: all rows of" in error


def test_a_failure_after_the_scores_says_that_they_are_there(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = prior_on_failure(inference.options.submission, lambda: "no prior")
    with pytest.raises(HearbackError, match="damaged"), guard:
        inference.run()
        raise HearbackError("damaged")
    expected = f"FAILED after all scores were written to {inference.options.submission}"
    assert expected in capsys.readouterr().err


def test_a_failure_keeps_the_submission_of_an_earlier_run(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    inference.run()
    before = inference.options.submission.read_bytes()
    with pytest.raises(HearbackError, match="_7"):
        inference.run([ModelConfig(inference.models[0].name, (7,), 1.0)])
    assert inference.options.submission.read_bytes() == before
    assert "is left as it was" in capsys.readouterr().err


def test_a_configuration_without_a_model_gives_priors_and_says_so(
    inference: Inference, capsys: pytest.CaptureFixture[str]
) -> None:
    config = inference.options.config
    inference.run()
    values = json.loads(config.read_text())
    for model in values["models"]:
        model["weight"] = 0.0
    config.write_text(json.dumps({**values, "combine": "logits"}))
    inference.write_submission(inference.options)
    check_is_prior(inference)
    assert f"NO MODEL of {config} has a weight" in capsys.readouterr().out
    listed = pd.read_csv(inference.problems())
    assert listed["what"].str.contains("no model has a weight, so nothing was scored").any()


def test_without_any_recording_all_rows_have_the_prior(inference: Inference) -> None:
    for name in inference.scorable:
        (inference.options.data / name).write_bytes(b"broken")
    inference.run()
    check_is_prior(inference)


def check_is_prior(inference: Inference) -> None:
    """Check that every row has base rates, that of the first recording being `prior`."""
    submission = pd.read_csv(inference.options.submission)
    assert submission["filename"].tolist() == inference.filenames
    found = inference.probabilities().loc[inference.scorable[0]].tolist()
    assert found == pytest.approx(inference.prior)
