"""What pages say in the same words."""

import pandas as pd
import pytest

from hearback.engine.data.problems import Problem
from hearback.engine.page import wording
from hearback.engine.page.content import NO_ESTIMATE, Estimate, ModelResult, Refused
from tests.engine.toy_competition import ToyOutOfFold

EMPTY = pd.DataFrame({"filename": [], "label": [], "pred": [], "fold": [], "base": []})


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(0.2414, 0.21, 0.2762), "0.241 [0.210, 0.276]"),
        (Estimate(0.2414), "0.241"),
        (NO_ESTIMATE, "–"),
    ],
)
def test_estimates_are_shown_with_their_interval(estimate: Estimate, shown: str) -> None:
    assert wording.show(estimate) == shown


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(0.2214, 0.171, 0.2862), "22 % [17, 29]"),
        (Estimate(0.2214), "22 %"),
        (NO_ESTIMATE, "–"),
    ],
)
def test_shares_are_in_percent(estimate: Estimate, shown: str) -> None:
    assert wording.show_share(estimate) == shown


def test_the_card_names_the_ensemble_and_every_model() -> None:
    metadata = {"recipe": {"backbone": "assets/whisper-tiny.en"}}
    tables = [
        ToyOutOfFold("modeltok", 6, EMPTY, {0: metadata, 2: metadata}),
        ToyOutOfFold("baseline", 6, EMPTY, {0: {}}),
    ]
    models = [
        ModelResult("ensemble", is_ensemble=True),
        ModelResult("modeltok", weight=0.253),
        ModelResult("baseline", weight=0.0),
    ]
    kinds = {"modeltok": "tokens", "baseline": ""}
    facts = wording.describe_models(models, tables, lambda table: kinds[table.model])
    assert facts == [
        ("ensemble", "modeltok (0.25)"),
        ("modeltok", "2 of 6 folds, tokens, whisper-tiny.en"),
        ("baseline", "1 of 6 folds"),
    ]
    assert wording.describe_models(models[1:], tables, lambda _: "")[0][0] == "modeltok"
    assert wording.describe_model(models[0]) == "Out of fold and cross-fitted, the ensemble"
    assert wording.describe_model(models[1]) == "Out of fold, modeltok"


def test_problems_are_told_by_recording_or_of_the_whole() -> None:
    error = Problem("a.csv", 3, "is silent", "record it again", filename="a.wav")
    warning = Problem("a.csv", 4, "is stereo", "it is mixed down", "warning", "b.wav")
    whole = Problem("manifest.csv", None, "no manifest", "add it", "warning")
    line = Problem("a.csv", 9, "a row of nothing", "remove it")
    problems = [error, warning, whole, line]
    assert wording.refused(problems) == [Refused("a.wav", 3, "is silent", "record it again")]
    both = wording.refused(problems, warnings=True)
    assert [each.filename for each in both] == ["a.wav", "b.wav"]
    assert wording.general_warnings(problems) == ["no manifest"]


def test_rows_of_untrained_folds_are_one_sentence() -> None:
    table = pd.DataFrame({"filename": ["a", "b", "c"], "line": [2, 3, 4]})
    models = [
        ToyOutOfFold("modeltok", 4, EMPTY, {0: {}}),
        ToyOutOfFold("model1m", 4, EMPTY, {0: {}, 3: {}}),
    ]
    arguments = (table, table[:1], models, "python train.py")
    assert wording.unscored_folds(*arguments) == [
        "Not scored yet: 2 rows of folds 1 and 2. python train.py trains them."
    ]
    assert wording.not_predicted(*arguments) == []
    models = [ToyOutOfFold("modeltok", 2, EMPTY, {0: {}})]
    (one,) = wording.unscored_folds(table, table[:2], models, "python train.py")
    assert one == "Not scored yet: 1 row of fold 1. python train.py trains it."
    assert wording.unscored_folds(table, table, models, "python train.py") == []


def test_rows_that_trained_folds_have_not_scored_are_listed() -> None:
    table = pd.DataFrame({"filename": ["a", "b", "c"], "line": [2, 3, 4]})
    models = [ToyOutOfFold("modeltok", 2, EMPTY, {0: {}, 1: {}})]
    found = wording.not_predicted(table, table[:1], models, "python train.py")
    assert [(each.filename, each.row) for each in found] == [("b", 3), ("c", 4)]
    assert found[0].what == "no fold has scored it out of fold"
    assert found[0].cure == "train the missing folds: python train.py"
