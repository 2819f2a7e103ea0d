"""The recipes: validation, settings, presets, fingerprints and JSON."""

import json
import re
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.errors import HearbackError
from hearback.reading.augment import Augmentation
from hearback.reading.recipe import N_RECIPES, PRESETS, Recipe, find_recipes
from tests.reading.quick_recipes import UNLABELLED

ROOT = Path(__file__).parents[2]
RECIPES = find_recipes(ROOT)
RECIPE = RECIPES["model1m"]
SHIPPED_FOLDS = sorted((ROOT / "hearback/reading/pretrained").glob("*/model*_?.json"))

# The design's table, repeated on purpose to detect scripts that deviate from it.
MEDIUM, SMALL = "openai/whisper-medium", "openai/whisper-small"
DISTIL_M, DISTIL_S = "distil-whisper/distil-medium.en", "distil-whisper/distil-small.en"
BOTH = "attention+mean"
# Learner's and reference's.
A = (Augmentation(pitch=0.4, stretch=0.4, noise=0.4, gain=0.4, envelope=0.4), Augmentation())
A2 = (Augmentation(pitch=0.4, stretch=0.4, noise=0.4, gain=0.4, envelope=0.2), Augmentation())
B = (
    Augmentation(pitch=0.4, stretch=0.4, noise=0.4, gain=0.4, envelope=0.3, cuts=0.4),
    Augmentation(stretch=0.4, noise=0.4, gain=0.4, cuts=0.4),
)
COLUMNS = (
    *("backbone", "pooling", "hidden", "dropout", "dropout_on", "learning_rate"),
    *("epochs", "schedule_epochs", "cycles", "batch_size", "weight_decay", "seed", "data_seed"),
)
# fmt: off
TABLE: dict[str, tuple[Any, ...]] = {
    "model1m":    (MEDIUM, "mean", None, 0.4, "frames", 1e-5, 4, 5, 0.25, 16, 1e-3, 42, 42, A),
    "model2m":    (MEDIUM, "mean", None, 0.4, "frames", 1e-5, 4, 5, 0.25, 16, 1e-3, 42, 55, A),
    "model2dm":   (DISTIL_M, "mean", 128, 0.4, "frames", 1e-5, 4, 5, 0.25, 16, 1e-3, 4221, 4221, A),
    "model2s":    (SMALL, "mean", 128, 0.2, "frames", 2e-5, 5, 5, 0.25, 16, 1e-6, 333, 333, A2),
    "model2ds":   (DISTIL_S, "mean", None, 0.2, "frames", 2e-5, 5, 5, 0.25, 16, 1e-6, 666, 666, A2),
    "model3mb":   (MEDIUM, "mean", None, 0.4, "frames", 1e-5, 4, 4, 0.5, 8, 1e-3, 321, 321, B),
    "model3mapd": (MEDIUM, "attention", None, 0.4, "pooled", 1e-5, 4, 4, 0.5, 16, 1e-3, 88, 88, B),
    "model3mcp":  (MEDIUM, BOTH, "width", 0.4, "frames", 1e-5, 4, 4, 0.5, 16, 1e-3, 1, 1, B),
    "model3scp":  (SMALL, BOTH, "width", 0.4, "frames", 1e-5, 4, 4, 0.5, 16, 1e-3, 897, 897, B),
    "model3dsap":
        (DISTIL_S, "attention", None, 0.4, "frames", 1e-5, 4, 4, 0.5, 16, 1e-3, 1124, 1124, B),
}
# fmt: on


# The recipes beyond the competition's ten: pair and token_score.
OTHER_RECIPES = {
    "modeltok": ("tokens", "likelihood"),
    "modeltokown": ("tokens", "own"),
    "modeltokb": ("tokens", "likelihood"),
    "modeltokzero": ("tokens", "likelihood"),
    "modeltoklow": ("tokens", "likelihood"),
    "modelali": ("aligned", "likelihood"),
    "modelgop": ("phones", "likelihood"),
    "modelseg": ("segments", "likelihood"),
}


def test_all_scripts_are_found() -> None:
    assert set(RECIPES) == {*TABLE, *OTHER_RECIPES}
    assert len(RECIPES) == N_RECIPES == 18


@pytest.mark.parametrize("name", OTHER_RECIPES)
def test_other_scripts_have_their_pairing(name: str) -> None:
    assert (RECIPES[name].pair, RECIPES[name].token_score) == OTHER_RECIPES[name]


@pytest.mark.parametrize("name", TABLE)
def test_a_script_s_recipe_equals_its_row_of_the_table(name: str) -> None:
    *row, (learner, reference) = TABLE[name]
    values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    # Fields that are not in the row have the shared defaults.
    expected = Recipe(name, **values, augment_learner=learner, augment_reference=reference)
    assert RECIPES[name] == expected


def test_the_recipes_share_the_defaults() -> None:
    shared = {
        "adam_epsilon": 1e-6,
        "adam_betas": (0.9, 0.999),
        "negatives": 0.0,
        "hard_negatives": 0.0,
        "pair": "joined",
        "window": "trimmed",
    }
    assert asdict(RECIPE).items() >= shared.items()
    ranges = {
        **{"cuts_fewest": 1, "cuts_most": 6, "cut_share_low": 0.025, "cut_share_high": 0.075},
        **{"pitch_semitones": 5, "stretch_low": 0.7, "stretch_high": 1.3},
        **{"envelope_std": 0.8, "envelope_mean": -0.3, "noise_std": 0.03},
        **{"gain_low": 0.7, "gain_high": 1.3, "speed": 0, "colour": 0},
    }
    assert asdict(RECIPE.augment_learner).items() >= ranges.items()


def test_a_missing_script_or_a_wrong_name_is_an_error(tmp_path: Path) -> None:
    for script in ROOT.glob("train_model*.py"):
        shutil.copy(script, tmp_path)
    (tmp_path / "train_model2s.py").unlink()
    with pytest.raises(HearbackError, match=r"17 train_model\*\.py, 18 expected"):
        find_recipes(tmp_path)
    shutil.copy(ROOT / "train_model1m.py", tmp_path / "train_model2s.py")
    with pytest.raises(HearbackError, match=r"train_model2s\.py holds the recipe of model1m"):
        find_recipes(tmp_path)


OF_TOKEN_SCORERS = (
    *("adapter_rank", "adapter_layers", "adapted_share", "n_augmented", "uses_context"),
    *("uses_word_labels", "joined_clips"),
)
OF_WORD_LABELS = ("read_texts", "soft_labels", "labelled_word_loss")
UNLABELLED_LOW = replace(RECIPES["modeltoklow"], **UNLABELLED)
WITH_WORDS = {"pair": "tokens", "uses_word_labels": True}
OTHER_CHOICES = {
    **{"pooling": "attention", "dropout_on": "pooled", "window": "fixed"},
    **{"pair": "tokens", "token_score": "own"},
}


def another_value(name: str, value: Any) -> Any:
    """A valid value of the field that differs from `value`."""
    match value:
        case str():
            return OTHER_CHOICES.get(name, "another")
        case int():
            return value + 1 if type(value) is int else not value
        case float():
            return value / 2 if value else 0.5
        case tuple():
            return value[1:] if isinstance(value[0], str) else tuple(part / 2 for part in value)
        case Augmentation():
            return replace(value, gain=0.9)
        case None:
            numbers = ("hidden", "head_learning_rate", "labelled_word_loss")
            return 1 if name in numbers else "another"
    raise AssertionError(f"{name}: add another valid value here")


@pytest.mark.parametrize("name", [entry.name for entry in fields(Recipe)])
def test_the_fingerprint_changes_with_every_field(name: str) -> None:
    recipe = UNLABELLED_LOW if name in OF_TOKEN_SCORERS else RECIPE
    if name in OF_WORD_LABELS:
        recipe = replace(UNLABELLED_LOW, uses_word_labels=True)
    if name == "phone_loss":
        recipe = RECIPES["modelgop"]
    if name == "encoder_layers":
        recipe = RECIPES["modelseg"]
    value = getattr(recipe, name)
    other = replace(recipe, **{name: another_value(name, value)})
    assert other.fingerprint != recipe.fingerprint
    assert replace(other, **{name: value}).fingerprint == recipe.fingerprint


@pytest.mark.parametrize("name", [entry.name for entry in fields(Augmentation)])
def test_the_fingerprint_changes_with_every_field_of_an_augmentation(name: str) -> None:
    here = RECIPE.augment_learner
    value = getattr(here, name)
    # The upper end of a range can only be raised.
    changed = value + 1 if name.endswith("high") else another_value(name, value)
    other = replace(RECIPE, augment_learner=replace(here, **{name: changed}))
    assert other.fingerprint != RECIPE.fingerprint


# A change of a fingerprint makes trained folds out of date: it must be meant.
FINGERPRINTS = {
    "model1m": "9b2f9eefd0385132",
    "model2dm": "e46176bf2feacf45",
    "model2ds": "7cc64aae6ed5d32b",
    "model2m": "ada2a80391f11657",
    "model2s": "94ec837cc90ae0d8",
    "model3dsap": "9318a29c757abd69",
    "model3mapd": "09ab0c239de2c8ac",
    "model3mb": "a4e00f546e3886a7",
    "model3mcp": "f0f59e11b6cfc1bb",
    "model3scp": "bd20dde9c401fd16",
    "modelali": "70f99b9c34ab6b44",
    "modelgop": "f610caf66c043215",
    "modelseg": "2c4a41ad8d673446",
    "modeltok": "b01a196f0da79a31",
    "modeltokb": "d450931bc6391e2b",
    "modeltoklow": "7682506aea6e2009",
    "modeltokown": "2b9c201e785962b8",
    "modeltokzero": "9f549f4ac56ac78a",
}


def test_the_fingerprints_stay_as_they_are() -> None:
    assert {name: recipe.fingerprint for name, recipe in RECIPES.items()} == FINGERPRINTS
    assert len(set(FINGERPRINTS.values())) == len(RECIPES)


@pytest.mark.parametrize("metadata", SHIPPED_FOLDS, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_fingerprints_of_shipped_folds_stay_as_they_are(metadata: Path) -> None:
    fold = json.loads(metadata.read_text(encoding="utf-8"))
    assert Recipe.from_dict(fold["recipe"]).fingerprint == fold["recipe_fingerprint"]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_unchanged_by_json(recipe: Recipe) -> None:
    loaded = Recipe.from_dict(json.loads(json.dumps(recipe.as_dict())))
    assert loaded == recipe
    assert loaded.fingerprint == recipe.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 6}, "epochs is 6"),
        ({"epochs": 0}, "epochs is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"negatives": -1.0}, "negatives is -1.0"),
        ({"hard_negatives": -0.5}, r"hard_negatives is -0\.5"),
        ({"hard_negative_weight": -1.0}, r"hard_negative_weight is -1\.0"),
        ({"word_loss": -0.1}, r"word_loss is -0\.1"),
        ({"word_loss": float("inf")}, "word_loss is inf"),
        ({"uses_word_labels": True}, "uses_word_labels is True"),
        ({"pair": "tokens", "read_texts": 0.5}, r"read_texts is 0\.5"),
        ({"pair": "tokens", "soft_labels": 0.5}, r"soft_labels is 0\.5"),
        ({"joined_clips": 0.5}, r"joined_clips is 0\.5"),  # of a pair with a reference
        ({"pair": "tokens", "joined_clips": -0.5}, r"joined_clips is -0\.5"),
        ({"pair": "tokens", "labelled_word_loss": 0.1}, r"labelled_word_loss is 0\.1"),
        ({**WITH_WORDS, "labelled_word_loss": -0.1}, r"labelled_word_loss is -0\.1"),
        ({**WITH_WORDS, "phone_loss": 0.1}, r"phone_loss is 0\.1"),  # it hears tokens
        ({"pair": "phones", "phone_loss": 0.1}, r"phone_loss is 0\.1"),
        ({**WITH_WORDS, "read_texts": 1.5}, r"read_texts is 1\.5"),
        ({**WITH_WORDS, "read_texts": -0.5}, r"read_texts is -0\.5"),
        ({**WITH_WORDS, "soft_labels": 1.5}, r"soft_labels is 1\.5"),
        ({"average_decay": 1.0}, r"average_decay is 1\.0"),
        ({"average_decay": -0.1}, r"average_decay is -0\.1"),
        ({"frozen_share": 1.5}, r"frozen_share is 1\.5"),
        ({"pair": "apart"}, "pair is 'apart'"),
        ({"token_score": "likely"}, "token_score is 'likely'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": -1e-5}, "learning_rate is -1e-05"),
        ({"head_learning_rate": -1e-5}, "head_learning_rate is -1e-05"),
        ({"pooling": "foo"}, "pooling is 'foo'"),
        ({"hidden": "wide"}, "hidden is 'wide'"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"seed": None}, "seed is None"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"warmup_share": 2.0}, r"warmup_share is 2\.0"),
        ({"window_step_seconds": 0.0}, "window_step_seconds is 0.0"),
        (
            {"epochs": 9, "batch_size": 0},
            "^recipe model1m: batch_size is 0: [^;]*; epochs is 9: [^;]* schedule_epochs, 5$",
        ),
    ],
)
def test_invalid_values_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HearbackError, match=message):
        replace(RECIPE, **changes)


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("dropout=0.1", "dropout", 0.1),
        ("learning_rate=3e-4", "learning_rate", 3e-4),
        ("hidden=64", "hidden", 64),
        ("hidden=width", "hidden", "width"),
        ('hidden="width"', "hidden", "width"),
        ("head_learning_rate=null", "head_learning_rate", None),
        ("backbone=assets/whisper-tiny.en", "backbone", "assets/whisper-tiny.en"),
        ("pair=tokens", "pair", "tokens"),
        ("token_score=own", "token_score", "own"),
        ("hard_negatives=2", "hard_negatives", 2.0),
        ("hard_negative_weight=0.5", "hard_negative_weight", 0.5),
        ("word_loss=0.25", "word_loss", 0.25),
        ("adam_betas=[0.9, 0.98]", "adam_betas", (0.9, 0.98)),
        ('augment_learner={"gain": 0.5}', "augment_learner", Augmentation(gain=0.5)),
        ("augment_reference.gain=1", "augment_reference", Augmentation(gain=1.0)),
    ],
)
def test_a_setting_changes_only_its_field(setting: str, name: str, value: Any) -> None:
    assert RECIPE.with_settings([setting]) == replace(RECIPE, **{name: value})


def test_settings_are_validated_together() -> None:
    changed = RECIPE.with_settings(["epochs=8", "schedule_epochs=8"])  # either alone is invalid
    assert (changed.epochs, changed.schedule_epochs) == (8, 8)
    assert RECIPE.with_settings([]) == RECIPE


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("droput=0.1", "no field droput"),
        ("augment_learner.gian=0.1", r"no field augment_learner\.gian; .*; did you mean gain\?$"),
        ('augment_learner={"gian": 1}', r"no field augment_learner\.gian; .*; did you mean gain"),
        ("dropout", "FIELD=VALUE"),
        ("name=model2m", "FIELD=VALUE"),
        ("dropout=1.5", "dropout is 1.5"),
    ],
)
def test_an_invalid_setting_is_an_error(setting: str, message: str) -> None:
    with pytest.raises(HearbackError, match=message):
        RECIPE.with_settings([setting])


WITH_PAIR = "only models with pair {} take it, and this one has pair {}"


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        (
            "model2ds",
            "soft_labels=0.5",
            f"0.5: {WITH_PAIR.format('tokens, phones or segments', 'joined')}",
        ),
        ("modeltok", "phone_loss=0.5", f"0.5: {WITH_PAIR.format('phones or segments', 'tokens')}"),
        ("modeltok", "encoder_layers=3", f"3: {WITH_PAIR.format('segments', 'tokens')}"),
        ("modelali", "uses_context=false", "False: only models with pair tokens, phones or segmen"),
        ("modeltokown", "soft_labels=0.5", "0.5: it needs uses_word_labels=true"),
        ("modelgop", "phone_loss=-1", "-1.0: it must be a number of at least 0"),
        ("modelgop", "soft_labels=2", "2.0: it must be a number from 0 to 1"),
        ("modelgop", "word_loss=lots", "'lots': it must be a number of at least 0"),
        ("modelgop", "frozen_share=0.5", "0.5: models with pair phones need 0"),
        ("modelgop", "augment_learner=3", "3: it must be an object with the fields of Augmentatio"),
        ("modelgop", "augment_learner.gain=2", "2.0: it must be a number from 0 to 1"),
        ("modelgop", "augment_reference.gain=loud", "'loud': it must be a number from 0 to 1"),
        ("modelgop", "augment_learner.gain_low=9", "9.0: it must be at most gain_high, 1.5"),
        ("modeltok", "epochs=9", "9: it must be at most schedule_epochs, "),
        ("modelali", "adam_betas=[1]", "(1,): it must be a list of 2, each a number"),
        ("model1m", "hidden=wide", "'wide': it must be a whole number, 'width' or null"),
        ("modeltoklow", "adapted_share=0", "0.0: it must be a number above 0 and of at most 1"),
        ("modeltoklow", 'adapter_layers=["fc3"]', "('fc3',): the layers are self_attn.q_proj, "),
    ],
)
def test_the_message_of_an_invalid_setting_has_its_rule(
    model: str, setting: str, message: str
) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(HearbackError, match=f"^recipe {model}: {name} is {re.escape(message)}"):
        RECIPES[model].with_settings([setting])


def test_augmented_versions_need_a_frozen_encoder() -> None:
    message = (
        r"^recipe modelseg: frozen_share is 0\.0: models with pair segments need 1; "
        r"n_augmented is 3: above 0 it needs a frozen encoder \(frozen_share=1\)$"
    )
    with pytest.raises(HearbackError, match=message):
        RECIPES["modelseg"].with_settings(["frozen_share=0"])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_preset_is_valid_for_every_recipe_and_keeps_its_model(
    recipe: Recipe, preset: str
) -> None:
    changed = recipe.with_preset(preset)
    same = ("name", "backbone", "pair", "token_score", "pooling", "hidden", "seed", "data_seed")
    for name in same:
        assert getattr(changed, name) == getattr(recipe, name)
    assert changed == replace(recipe, **PRESETS[preset].get(recipe.pair, {}))


def test_the_competition_s_preset_changes_nothing() -> None:
    assert RECIPE.with_preset("competition") == RECIPE


@pytest.mark.parametrize(("epochs", "schedule"), [(1, 1), (2, 2), (3, 4), (4, 5), (8, 10)])
def test_the_schedule_scales_with_the_epochs(epochs: int, schedule: int) -> None:
    changed = RECIPE.with_epochs(epochs)
    assert changed == replace(RECIPE, epochs=epochs, schedule_epochs=schedule)


def test_zero_epochs_are_rejected() -> None:
    with pytest.raises(HearbackError, match="epochs is 0"):
        RECIPE.with_epochs(0)


@pytest.mark.parametrize(
    "setting",
    ["epochs=three", "dropout=abc", 'augment_learner={"foo":1}', "augment_learner=3", "seed=1.5"],
)
def test_a_setting_of_the_wrong_type_is_an_error(setting: str) -> None:
    with pytest.raises(HearbackError):
        RECIPES["model1m"].with_settings([setting])


def test_the_fingerprint_does_not_depend_on_how_zero_is_written() -> None:
    recipe = RECIPES["model1m"]
    assert recipe.with_settings(["negatives=0"]).fingerprint == recipe.fingerprint
    settings = [
        "speed_by_grade=[1, 1, 1, 1]",
        "augment_learner.cuts=0",
        "repeats_by_grade=[1,1,1,1]",
    ]
    assert recipe.with_settings(settings).fingerprint == recipe.fingerprint


def test_an_untrained_recipe_has_no_epochs_to_change() -> None:
    untrained = RECIPES["modeltokzero"]
    assert untrained.with_epochs(3) == untrained


def test_recipes_tell_what_must_be_rendered() -> None:
    need_none = {name for name, recipe in RECIPES.items() if not recipe.needs_rendering}
    families = ("modeltok", "modelgop", "modelseg")
    assert need_none == {name for name in RECIPES if name.startswith(families)}
    text = replace(RECIPE, pair="text cosine", text_embedder="some/embedder")
    assert not text.hears_reference
    assert not text.needs_rendering
    assert replace(text, hard_negatives=0.5).needs_rendering  # they are in the references' folder
    assert not replace(RECIPES["modeltok"], hard_negatives=0.5).needs_rendering
