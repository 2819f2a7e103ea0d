"""Training of a fold in every competition: its files, resuming, attempts."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from hearback.engine.errors import HearbackError
from hearback.engine.training.fold_files import read_fold_metadata, why_not_done
from hearback.engine.training.trainer import Trainer
from hearback.reading.steps import check_models as reading_step
from hearback.songs.steps import check_models as songs_step
from tests.contract.competitions import Competition
from tests.helpers import recorded_steps, results
from tests.soak import stalls
from tests.soak.stalls import Stall, injected

EACH_RECIPE = pytest.mark.parametrize(
    ("competition", "recipe"),
    [
        *(("reading", "comparison"), ("reading", "tokens"), ("reading", "phones")),
        *(("songs", "sgd"), ("songs", "adam"), ("songs", "adamw")),
        *(("toy", "small"), ("toy", "average")),
    ],
    indirect=["competition"],
)


def test_fold_writes_weights_metadata_and_predictions(competition: Competition) -> None:
    metadata = competition.train()
    files, data = competition.files(), competition.options.load_data()
    assert metadata == read_fold_metadata(files)
    oof = pd.read_csv(files.oof)
    rows = data.validation_rows(0)
    assert sorted(oof["filename"]) == sorted(data.filenames[row] for row in rows)
    epochs = metadata["epochs"]
    losses = [epoch["validation_log_loss"] for epoch in epochs]
    assert metadata["log_loss"] == losses[metadata["best_epoch"] - 1]
    if competition.recipe.keep == "best":
        assert metadata["log_loss"] == min(losses)
    assert competition.log_loss(oof) == pytest.approx(metadata["log_loss"], abs=1e-6)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(norm > 0 for epoch in epochs for norm in epoch["gradient_norms"])
    assert metadata["n_train"] == len(data.training_rows(0))
    assert metadata["n_validation"] == len(rows)
    assert not files.checkpoint.exists()
    adapted = competition.options.adapt(competition.recipe)
    assert why_not_done(files, competition.options.run_key(adapted, data)) is None


def test_another_seed_is_another_model(competition: Competition) -> None:
    name, program = competition.recipe.name, " ".join(competition.program)
    own = competition.train(seed=competition.recipe.seed)
    assert own["model"] == name and "--seed" not in own["retrain_command"]
    other = competition.train(seed=5)
    assert other["model"] == f"{name}_s5"
    assert (other["recipe"]["seed"], other["recipe"]["data_seed"]) == (5, 5)
    assert other["retrain_command"].startswith(f"python {program} --fold 0 ")
    assert "--seed 5" in other["retrain_command"]
    assert other["log_loss"] != own["log_loss"]
    own_files, files = competition.files(), competition.files(f"{name}_s5")
    assert files.oof.name == f"{name}_s5_0.oof.csv"
    assert own_files.oof.read_bytes() != files.oof.read_bytes()


@pytest.mark.parametrize(
    ("competition", "read_command"),
    [("reading", reading_step.read_command), ("songs", songs_step.read_command)],
    indirect=["competition"],
    ids=["reading", "songs"],
)
def test_metadata_has_a_command_to_retrain(competition: Competition, read_command: Any) -> None:
    changes: dict[str, Any] = {"seed": 3, "epochs": 1, "set": ("dropout=0.1",)}
    words = competition.train(**changes)["retrain_command"].split()
    assert words[: 1 + len(competition.program)] == ["python", *competition.program]
    assert words[-2:] == ["--attempt", "2"]
    (first, *rest), arguments = read_command(f"{competition.recipe.name}_s3", words)
    assert [Path(first).name, *rest] == words[1:]
    assert (arguments.fold, arguments.attempt) == (0, 2)
    options = competition.options
    assert type(options).gather(arguments) == replace(options, **changes)


@EACH_RECIPE
def test_training_is_deterministic(competition: Competition, recipe: str) -> None:
    chosen = competition.recipes[recipe]
    competition.train(chosen)
    first = results(competition.files(chosen.name))
    torch.manual_seed(77)  # the process's own random numbers do not matter
    competition.train(chosen)
    assert results(competition.files(chosen.name)) == first


@pytest.mark.parametrize(
    ("competition", "recipe"),
    [
        *(("reading", "comparison"), ("reading", "tokens"), ("reading", "phones")),
        pytest.param("songs", "adam", marks=pytest.mark.slow),
    ],
    indirect=["competition"],
)
def test_predictions_do_not_depend_on_the_number_of_workers(
    competition: Competition, recipe: str
) -> None:
    chosen = competition.recipes[recipe]
    competition.train(chosen, epochs=1)
    first = results(competition.files(chosen.name))
    competition.train(chosen, epochs=1, workers=2)
    assert results(competition.files(chosen.name)) == first


def test_another_attempt_has_other_random_numbers(competition: Competition) -> None:
    first = competition.train()
    second = competition.train(attempt=2)
    assert first["epochs"][0]["train_log_loss"] != second["epochs"][0]["train_log_loss"]
    assert second["attempt"] == 2


@pytest.mark.parametrize(
    ("competition", "recipe", "n_steps"),
    # Within the first epoch, after it, within the second: of 6, 4 and 3 steps per epoch.
    [
        *(("reading", "comparison with dropout", n_steps) for n_steps in (2, 7, 9)),
        *(("reading", "tokens", n_steps) for n_steps in (2, 7, 9)),
        ("reading", "phones", 9),
        *(("songs", "sgd", n_steps) for n_steps in (2, 4, 6)),
        *(("songs", "adam", 6), ("songs", "adamw", 2), ("songs", "adamw", 6)),
        *(("toy", recipe, n_steps) for recipe in ("small", "average") for n_steps in (1, 3, 5)),
    ],
    indirect=["competition"],
)
def test_resumed_training_is_bit_exact(competition: Competition, recipe: str, n_steps: int) -> None:
    chosen = competition.recipes[recipe]
    files = competition.files(chosen.name)
    with recorded_steps() as factors:
        metadata = competition.train(chosen)
    uninterrupted = results(files)
    for path in (files.metadata, files.oof, files.weights):
        path.unlink()

    with recorded_steps(kill_at=n_steps) as first, pytest.raises(KeyboardInterrupt):
        competition.train(chosen, checkpoint_minutes=0)
    assert files.checkpoint.exists()
    torch.manual_seed(n_steps)  # another process starts with other random numbers
    with recorded_steps() as rest:
        competition.train(chosen, checkpoint_minutes=0)
    n_total = sum(len(epoch.get("gradient_norms", ())) for epoch in metadata["epochs"])
    assert [*first, *rest] == factors and (len(first), len(factors)) == (n_steps, n_total)
    assert results(files) == uninterrupted


def test_changed_recipe_is_not_done(competition: Competition) -> None:
    competition.train()
    options, data = competition.options, competition.options.load_data()
    changed = options.adapt(competition.recipe.with_settings(["max_gradient_norm=7.0"]))
    reason = why_not_done(competition.files(), options.run_key(changed, data))
    assert reason == "its recipe changed since (max_gradient_norm)"
    other = {**options.run_key(options.adapt(competition.recipe), data), "data_fingerprint": "x"}
    assert why_not_done(competition.files(), other) == "trained with another data fingerprint"


def test_run_key_has_what_changes_a_training(competition: Competition) -> None:
    data = competition.options.load_data()

    def run_key(**changes: Any) -> dict[str, Any]:
        options = replace(competition.options, **changes)
        return options.run_key(options.adapt(competition.recipe), data)

    for change in ({"seed": 2}, {"group_by": "none"}, {"limit": 30}, {"set": ("batch_size=5",)}):
        assert run_key(**change) != run_key()
    assert run_key(workers=2, runs=Path("elsewhere")) == run_key()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_folds": 1}, "at least 2 folds"),
        ({"device": "cuda:7"}, "--device cuda:7"),
        ({"seed": 0}, "seed is 0"),
        ({"set": ("batch_size=many",)}, "batch_size is 'many'"),
    ],
)
def test_invalid_options_are_errors(
    competition: Competition, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        competition.train(**change)


def test_fold_beyond_the_last_is_an_error(competition: Competition) -> None:
    with pytest.raises(HearbackError, match="folds are 0 to 2"):
        competition.train(fold=3)


# Zero gradients for all; other faults for reading, where batches have waveforms.
EACH_STALL = pytest.mark.parametrize(
    ("competition", "stall"),
    [
        pytest.param("toy", stalls.IMMEDIATE["zero gradients"], id="toy-zero gradients"),
        *(
            pytest.param(name, stall, id=f"{name}-{fault}", marks=pytest.mark.slow)
            for name, faults in {
                "reading": stalls.IMMEDIATE,
                "songs": {"zero gradients": stalls.IMMEDIATE["zero gradients"]},
            }.items()
            for fault, stall in faults.items()
        ),
    ],
    indirect=["competition"],
)


@EACH_STALL
def test_next_attempt_follows_a_stalled_one(competition: Competition, stall: Stall) -> None:
    recipe, precision = competition.recipe.with_epochs(4), stall.precision
    expected_metadata = competition.train(recipe, attempt=2, precision=precision)
    files = competition.files()
    expected = results(files)
    files.metadata.unlink()
    per_epoch = len(expected_metadata["epochs"][-1]["gradient_norms"])

    with injected(stall.fault, attempts=[1]) as steps:
        metadata = competition.train(recipe, precision=precision)
    n_steps = steps.count(1)
    assert n_steps <= 20
    assert metadata["attempt"] == 2
    assert metadata["retrain_command"].endswith("--attempt 3")
    first, second = metadata["attempts"]
    assert (first["attempt"], first["outcome"]) == (1, "stalled")
    assert re.search(stall.reason, first["reason"])
    assert len(first["losses"]) == len(first["gradient_norms"]) == n_steps
    epoch, step = divmod(n_steps - 1, per_epoch)
    assert (first["epoch"], first["step"]) == (1 + epoch, 1 + step)
    assert (second["attempt"], second["outcome"], second["reason"]) == (2, "finished", None)
    assert (second["epoch"], second["step"]) == (4, per_epoch)
    assert results(files) == expected  # the same as with --attempt 2
    assert read_fold_metadata(files)["attempts"] == metadata["attempts"]
    assert not files.checkpoint.exists()


@EACH_STALL
def test_three_stalled_attempts_are_an_error(competition: Competition, stall: Stall) -> None:
    recipe, precision = competition.recipe.with_epochs(4), stall.precision
    files = competition.files()
    with injected(stall.fault, attempts=[1, 2, 3]) as steps:
        with pytest.raises(HearbackError) as error:
            competition.train(recipe, precision=precision)
        assert set(steps) == {1, 2, 3}
        n_steps = len(steps)
        with pytest.raises(HearbackError, match="3 attempts stalled"):
            competition.train(recipe, precision=precision)
        assert len(steps) == n_steps  # the checkpoint records the stalls, nothing is trained
    message = str(error.value)
    stalled = f"{recipe.name} fold 0: 3 attempts stalled"
    for part in (stalled, "--attempt 4", str(files.checkpoint)):
        assert part in message
    for attempt in (1, 2, 3):
        assert re.search(rf"(?m)  attempt {attempt}: epoch \d, step \d+: {stall.reason}", message)
    assert not files.metadata.exists() and not files.weights.exists()

    metadata = competition.train(recipe, attempt=4, precision=precision)
    outcomes = [(past["attempt"], past["outcome"]) for past in metadata["attempts"]]
    assert outcomes == [(1, "stalled"), (2, "stalled"), (3, "stalled"), (4, "finished")]


def test_training_resumes_in_its_second_attempt(
    competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = competition.files()
    with recorded_steps() as factors:
        competition.train(attempt=2)
    uninterrupted = results(files)
    files.metadata.unlink()

    train_epoch = Trainer.train_epoch
    with injected(stalls.zero_gradients, attempts=[1]) as steps:
        for killed_in in (0, 1):  # at the start of the second attempt, and in its second epoch

            def killed(
                self: Trainer, n_examples: int, batches: Any, epoch: int = killed_in
            ) -> None:
                if (self.run.attempt, self.state.epoch) == (2, epoch):
                    raise KeyboardInterrupt
                train_epoch(self, n_examples, batches)

            with monkeypatch.context() as patch:
                patch.setattr(Trainer, "train_epoch", killed)
                with pytest.raises(KeyboardInterrupt):
                    competition.train()
        metadata = competition.train()
    assert (steps.count(1), steps.count(2)) == (5, len(factors))
    assert [past["outcome"] for past in metadata["attempts"]] == ["stalled", "finished"]
    assert results(files) == uninterrupted


def test_stall_detection_continues_after_a_resume(competition: Competition) -> None:
    calls: list[Any] = []

    def zero_gradients_until_killed(trainer: Trainer, batch: Any) -> Any:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(batch)
        return stalls.zero_gradients(trainer, batch)

    recipe = competition.recipe.with_epochs(4)
    with (
        injected(zero_gradients_until_killed, attempts=[1]),
        pytest.raises(KeyboardInterrupt),
    ):
        competition.train(recipe, checkpoint_minutes=0.0)
    with injected(stalls.zero_gradients, attempts=[1]) as steps:
        metadata = competition.train(recipe, checkpoint_minutes=0.0)
    first = metadata["attempts"][0]
    per_epoch = len(metadata["epochs"][-1]["gradient_norms"])
    epoch, step = divmod(4, per_epoch)
    found = f"epoch {1 + epoch}, step {1 + step}: gradient norm 0 for 5 steps"
    assert first["reason"].startswith(found)
    assert len(first["losses"]) == 5
    assert steps.count(1) == 2


def test_stall_detection_does_not_change_a_healthy_training(
    competition: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = competition.files()
    with monkeypatch.context() as patch:
        patch.setattr(
            "hearback.engine.training.stall_detector.StallDetector.update", lambda self, step: None
        )
        competition.train()
    expected = results(files)
    for fold in (1, 2):  # as siblings to compare with
        competition.train(fold=fold)
    metadata = competition.train()
    assert results(files) == expected
    assert [past["outcome"] for past in metadata["attempts"]] == ["finished"]


def test_retrained_fold_records_earlier_attempts(competition: Competition) -> None:
    competition.train()
    for _ in range(2):
        again = competition.train(attempt=2)
        assert [past["attempt"] for past in again["attempts"]] == [1, 2]
    other = competition.train(competition.recipe.with_settings(["seed=5"]))
    assert [past["attempt"] for past in other["attempts"]] == [1]
