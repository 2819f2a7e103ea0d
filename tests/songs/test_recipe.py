"""The recipes of the songs, their variants and their checks."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from hearback.engine.errors import HearbackError
from hearback.songs import recipe as recipe_module
from hearback.songs import recipes
from hearback.songs.augment import Augmentation
from hearback.songs.recipe import DEFAULT_PATIENCE_EPOCHS, N_RECIPES, SongRecipe, find_recipes

RECIPES = find_recipes()
CNN4, RESNET34, WHISPER = (RECIPES[name] for name in ("cnn4", "resnet34", "whisper"))
SMALL_STEM = RECIPES["resnet34_small_stem"]

# The published values once more, on purpose: to notice recipes that drift from them.
# fmt: off
COLUMNS = ("architecture", "features", "stem", "optimizer", "learning_rate", "batch_size", "epochs",
           "schedule", "class_weights", "balanced_sampling")
TABLE = {
    "resnet34": ("resnet34", "log_mel_40", "7x7 stride 2", "adamw", 3e-4, 32, 20,
                 "cosine restarts", True, False),
    "resnet34_small_stem": ("resnet34", "mel_db_128", "3x3 stride 1", "sgd", 5e-3, 16, 24,
                            "plateau", True, True),
    "cnn4": ("cnn4", "mel_db_128", "7x7 stride 2", "adam", 1e-3, 16, 30, "multistep", True, True),
}
# fmt: on


def test_all_recipes_are_found() -> None:
    modules = {path.stem for path in Path(recipes.__path__[0]).glob("[!_]*.py")}
    assert set(RECIPES) == modules
    assert len(RECIPES) == N_RECIPES
    assert all(recipe.seed == recipe.data_seed == 1 for recipe in RECIPES.values())


@pytest.mark.parametrize("name", TABLE)
def test_recipes_of_published_systems_have_the_published_values(name: str) -> None:
    recipe = RECIPES[name]
    assert tuple(getattr(recipe, column) for column in COLUMNS) == TABLE[name]
    assert recipe.mix_up > 0 and recipe.keep == "last"
    if name == "resnet34":
        assert (recipe.weight_decay, recipe.dropout, recipe.periods) == (1e-5, 0.2, 2)
    else:
        assert recipe.mix_up == 0.4
        assert recipe.augment.reverse and recipe.augment.time_masks
        assert recipe.augment.frequency_masks


def test_whisper_models_are_trained_on_shuffled_pieces() -> None:
    assert all(r.shuffled for r in RECIPES.values() if r.architecture == "whisper")


def test_a_missing_recipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_module, "N_RECIPES", N_RECIPES + 1)
    with pytest.raises(HearbackError, match=rf"{N_RECIPES} recipes, {N_RECIPES + 1} expected"):
        find_recipes()


def test_a_module_with_the_recipe_of_another_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearback.songs.recipes.cnn4.RECIPE", RESNET34)
    with pytest.raises(HearbackError, match=r"cnn4\.py contains the recipe of resnet34"):
        find_recipes()


def test_names_include_separation_and_seed() -> None:
    assert CNN4.with_seed(1) == CNN4.with_separation("none") == CNN4
    third = CNN4.with_separation("repet").with_seed(3)
    assert third.name == "cnn4_repet_s3"
    assert (third.seed, third.data_seed, third.separate) == (3, 3, "repet")
    assert replace(third, name="cnn4", seed=1, data_seed=1, separate="none") == CNN4


def test_unknown_separations_are_refused() -> None:
    with pytest.raises(HearbackError, match="separation 'spleeter'"):
        CNN4.with_separation("spleeter")


@pytest.mark.parametrize(
    ("epochs", "milestones"), [(30, (15, 25)), (6, (3, 5)), (2, (1, 2)), (1, (1,)), (60, (30, 50))]
)
def test_milestones_scale_with_the_epochs(epochs: int, milestones: tuple[int, ...]) -> None:
    stretched = CNN4.with_epochs(epochs)
    assert (stretched.epochs, stretched.milestones) == (epochs, milestones)


def test_periods_are_limited_by_the_epochs() -> None:
    assert RESNET34.with_epochs(1).periods == 1
    assert RESNET34.with_epochs(5).periods == 2


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_round_trip_as_json(recipe: SongRecipe) -> None:
    again = SongRecipe.from_dict(recipe.as_dict())
    assert again == recipe and again.fingerprint == recipe.fingerprint
    names = {field.name for field in fields(recipe)}
    assert {*recipe.as_dict()} | SongRecipe.OMITTED_AT_DEFAULT == names


def test_the_fingerprints_stay_as_they_are() -> None:
    """A change of a fingerprint makes trained folds out of date: it must be meant."""
    assert {name: recipe.fingerprint for name, recipe in RECIPES.items()} == {
        "cnn4": "283033a642a80abb",
        "resnet34": "55a38cce1bc8f126",
        "resnet34_small_stem": "da2819bcd570e641",
        "whisper": "e48b36e696a59d8d",
    }


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("cnn4", "augment.gain=0.5", "gain is 0.5: it is for features waveform only"),
        ("whisper", "augment.frequency_masks=1", "frequency_masks is 1.0: features waveform have"),
        ("cnn4", "augment.reverse=2", "reverse is 2.0: it must be a number from 0 to 1"),
        ("cnn4", "augment.min_time_masks=9", "min_time_masks is 9: it must be at most max_time_"),
    ],
)
def test_invalid_fields_of_the_augmentation_are_named(
    model: str, setting: str, message: str
) -> None:
    with pytest.raises(HearbackError, match=f"^recipe {model}: augment.{message}"):
        RECIPES[model].with_settings([setting])


def test_the_default_patience_is_not_in_the_fingerprint() -> None:
    patient = replace(SMALL_STEM, patience_epochs=DEFAULT_PATIENCE_EPOCHS)
    assert "patience_epochs" not in patient.as_dict()
    assert SMALL_STEM.as_dict()["patience_epochs"] == 2
    assert SongRecipe.from_dict(SMALL_STEM.as_dict()).patience_epochs == 2
    assert SMALL_STEM.with_settings(["patience_epochs=10"]).fingerprint == patient.fingerprint


@pytest.mark.parametrize(("epochs", "patience"), [(24, 2), (12, 1), (48, 4), (1, 1)])
def test_patience_scales_with_the_epochs(epochs: int, patience: int) -> None:
    assert SMALL_STEM.with_epochs(epochs).patience_epochs == patience


def test_the_augmentation_is_in_the_fingerprint() -> None:
    masked = replace(CNN4, augment=Augmentation(reverse=0.4))
    assert masked.fingerprint != CNN4.fingerprint


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            RESNET34,
            {"features": "waveform"},
            "features is waveform: architecture whisper needs waveform, and no other takes it",
        ),
        (WHISPER, {"features": "log_mel_40"}, "features is log_mel_40"),
        (WHISPER, {"backbone": None}, "backbone is None"),
        (CNN4, {"backbone": "openai/whisper-tiny"}, "backbone is openai/whisper-tiny"),
        (
            CNN4,
            {"mixtures": 0.5},
            "mixtures is 0.5: only features waveform take it, and these are mel_db_128",
        ),
        (WHISPER, {"mixtures": 1.5}, "mixtures is 1.5: it must be a number from 0 to 1"),
        (CNN4, {"speed": 0.5}, "speed is 0.5"),
        (WHISPER, {"speed": 1.5}, "speed is 1.5"),
        (CNN4, {"shuffled": 0.5}, "shuffled is 0.5"),
        (WHISPER, {"shuffled": 1.5}, "shuffled is 1.5"),
        (CNN4, {"milestones": (25, 15)}, r"milestones is \(25, 15\)"),
        (CNN4, {"milestones": (15, 15)}, r"milestones is \(15, 15\)"),
        (RESNET34, {"periods": 21}, "periods is 21: it must be at most epochs, 20"),
        (RESNET34, {"periods": 0}, "periods is 0"),
        (SMALL_STEM, {"patience_epochs": -1}, "patience_epochs is -1"),
        (CNN4, {"dropout": 1.0}, "dropout is 1.0: it must be a number of at least 0 and below 1"),
        (CNN4, {"epochs": 0}, "epochs is 0"),
        (CNN4, {"seed": 0}, "seed is 0"),
        (CNN4, {"mix_up": -0.1}, "mix_up is -0.1"),
        (CNN4, {"optimizer": "lion"}, "optimizer is 'lion'"),
        (CNN4, {"average_decay": 1.0}, "average_decay is 1.0"),
    ],
)
def test_contradictory_fields_are_refused(
    recipe: SongRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HearbackError, match=f"^recipe {recipe.name}: {message}(: |$)"):
        replace(recipe, **changes)


def test_whisper_can_train_on_mixtures() -> None:
    assert replace(WHISPER, mixtures=1).mixtures == 1
