"""Records: validation, JSON, settings and seeds."""

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.training.field_types import Range, Share
from hearback.engine.training.fields import InvalidFieldsError, Rule, ValidatedFields
from hearback.engine.training.recipe import FoldRecipe, Record, split_seed


@dataclass(frozen=True)
class Inner(ValidatedFields):
    KIND = "filling"

    share: Share = 0.0
    masks: int = 1
    most_masks: int = 9

    def _rules(self) -> Iterator[Rule]:
        yield "masks", self.masks <= self.most_masks, f"it must be at most {self.most_masks}"


@dataclass(frozen=True)
class Middle(ValidatedFields):
    KIND = "layer"

    thickness: float
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, kw_only=True)
class Outer(Record):
    KIND = "dish"

    name: str
    rate: Annotated[float, Range(at_least=0)]
    maximum: Annotated[float, Range(below=9)] | None = None
    steps: tuple[int, ...] = ()
    range: tuple[float, float] = (0.0, 1.0)
    kind: Literal["warm", "cold"] = "warm"
    n_plates: int = 1
    is_hot: bool = False
    inner: Inner = field(default_factory=Inner)
    weights: tuple[float, ...] | None = None
    middle: Middle = field(default_factory=lambda: Middle(1.0))

    def _rules(self) -> Iterator[Rule]:
        is_kept = self.maximum is None or self.maximum >= self.rate
        yield "maximum", is_kept, f"it must be at least rate, {self.rate}"


SOUP = Outer(name="soup", rate=0.5)
FULL = Outer(
    name="full",
    rate=0.25,
    maximum=2.0,
    steps=(1, 5, 9),
    range=(0.5, 0.75),
    kind="cold",
    n_plates=3,
    is_hot=True,
    inner=Inner(0.5, 2),
)


@pytest.mark.parametrize("record", [SOUP, FULL], ids=lambda record: record.name)
def test_json_round_trip(record: Outer) -> None:
    again = Outer.from_dict(record.as_dict())
    assert again == record
    assert isinstance(again.inner, Inner) and isinstance(again.steps, tuple)
    assert again.fingerprint == record.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "stew"},
        {"maximum": 1.0},
        {"steps": (1,)},
        {"range": (0.0, 0.5)},
        {"kind": "cold"},
        {"is_hot": True},
        {"inner": Inner(masks=2)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_field_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert replace(SOUP, **changes).fingerprint != SOUP.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": "fast"}, "rate is 'fast': it must be a number of at least 0"),
        ({"rate": float("nan")}, "rate is nan: it must be a number of at least 0"),
        ({"rate": True}, "rate is True: it must be a number of at least 0"),
        ({"rate": -1.0}, "rate is -1.0: it must be a number of at least 0"),
        ({"steps": (1, 2.5)}, "steps is (1, 2.5): it must be a list, each a whole number"),
        ({"steps": [1]}, "steps is [1]: it must be a list, each a whole number"),
        ({"range": (0.0,)}, "range is (0.0,): it must be a list of 2, each a number"),
        (
            {"range": (0.0, 1.0, 2.0)},
            "range is (0.0, 1.0, 2.0): it must be a list of 2, each a number",
        ),
        ({"kind": "tepid"}, "kind is 'tepid': it must be 'warm' or 'cold'"),
        ({"n_plates": 1.0}, "n_plates is 1.0: it must be a whole number"),
        ({"is_hot": 1}, "is_hot is 1: it must be true or false"),
        (
            {"inner": {"share": 0.5}},
            "inner is {'share': 0.5}: it must be an object with the fields of Inner",
        ),
        ({"maximum": "9"}, "maximum is '9': it must be a number below 9 or null"),
        ({"maximum": 0.1}, "maximum is 0.1: it must be at least rate, 0.5"),
    ],
)
def test_an_invalid_value_is_an_error_with_its_rule(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HearbackError, match=f"^dish soup: {re.escape(message)}$"):
        replace(SOUP, **changes)


def test_a_rule_is_checked_beside_ranges_but_said_once_per_field() -> None:
    message = "^dish soup: rate is -1.0: .* at least 0; maximum is -2.0: .* at least rate, -1.0$"
    with pytest.raises(HearbackError, match=message):
        replace(SOUP, rate=-1.0, maximum=-2.0)
    with pytest.raises(
        HearbackError, match=r"^dish soup: maximum is 10\.0: [^;]* below 9 or null$"
    ):
        replace(SOUP, rate=11.0, maximum=10.0)


def test_all_invalid_values_are_reported() -> None:
    with pytest.raises(HearbackError, match=r"kind is 'tepid'.*; n_plates is 2\.5"):
        SOUP.with_settings(["kind=tepid", "n_plates=2.5"])


def test_int_for_a_float_is_the_same_record() -> None:
    whole = SOUP.with_settings(["rate=1", "maximum=2"])
    assert whole.fingerprint == SOUP.with_settings(["rate=1.0", "maximum=2.0"]).fingerprint
    assert SOUP.with_settings(["n_plates=2"]).n_plates == 2


def test_settings_are_json_or_bare_words() -> None:
    changed = SOUP.with_settings(
        ["kind=cold", "steps=[3, 4]", 'inner={"share": 0.5}', "maximum=null", "is_hot=true"]
    )
    assert changed == replace(SOUP, kind="cold", steps=(3, 4), inner=Inner(share=0.5), is_hot=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("colour=red", "a dish has no field colour"),
        ("rate", "'rate': a setting is FIELD=VALUE"),
        ("name=stew", "'name=stew': a setting is FIELD=VALUE"),
        ("name.x=1", "'name.x=1': a setting is FIELD=VALUE"),
        (".rate=1", "'.rate=1': a setting is FIELD=VALUE"),
        ("rate=fast", "rate is 'fast'"),
        ("inner=3", "inner is 3: it must be an object with the fields of Inner"),
    ],
)
def test_invalid_settings_are_errors(setting: str, message: str) -> None:
    with pytest.raises(HearbackError, match=message):
        SOUP.with_settings([setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            'inner={"shares": 1}',
            "a dish has no field inner.shares; inner has masks, most_masks, share; "
            "did you mean share?",
        ),
        (
            "middle.inner.shares=1",
            "a dish has no field middle.inner.shares; middle.inner has masks, most_masks, share; "
            "did you mean share?",
        ),
        ("iner.share=1", "a dish has no field iner; it has inner, is_hot, kind, maximum, middle, "),
        ('middle={"inner": {}}', "not a dish: it lacks 'middle.thickness'"),
        ("inner.share=2", "dish soup: inner.share is 2.0: it must be a number from 0 to 1"),
        ("inner.share=much", "dish soup: inner.share is 'much': it must be a number from 0 to 1"),
        ("inner.masks=[1]", "dish soup: inner.masks is [1]: it must be a whole number"),
        ("inner.masks=10", "dish soup: inner.masks is 10: it must be at most 9"),
        ("middle.inner.masks=10", "dish soup: middle.inner.masks is 10: it must be at most 9"),
        ("rate.share=1", "dish soup: rate is {'share': 1}: it must be a number of at least 0"),
        (f"rate=1{'0' * 400}", f"dish soup: rate is 1{'0' * 400}: it must be a number of at l"),
    ],
)
def test_fields_of_a_group_have_the_messages_of_other_fields(setting: str, message: str) -> None:
    with pytest.raises(HearbackError, match=f"^{re.escape(message)}"):
        SOUP.with_settings([setting])


def test_all_invalid_values_of_groups_are_reported() -> None:
    settings = ["rate=-1", "inner.share=-1", "inner.masks=0.5", "middle.thickness=thin"]
    with pytest.raises(HearbackError) as raised:
        SOUP.with_settings(settings)
    assert str(raised.value) == (
        "dish soup: rate is -1.0: it must be a number of at least 0; "
        "inner.share is -1.0: it must be a number from 0 to 1; "
        "inner.masks is 0.5: it must be a whole number; "
        "middle.thickness is 'thin': it must be a number"
    )
    with pytest.raises(HearbackError, match=r"^filling: share is 2: .* 1$"):
        Inner(share=2)


def test_a_setting_changes_one_field_of_a_group() -> None:
    settings = ['inner={"share": 0.5}', "inner.masks=2", "middle.inner.share=1"]
    middle = Middle(1.0, Inner(share=1.0))
    assert SOUP.with_settings(settings) == replace(SOUP, inner=Inner(0.5, 2), middle=middle)
    assert FULL.with_settings(["inner.masks=7"]).inner == Inner(0.5, 7)


@pytest.mark.parametrize(
    ("whole", "number"),
    [
        ("range=[0, 1]", "range=[0.0, 1.0]"),
        ("weights=[1, 2.5]", "weights=[1.0, 2.5]"),
        ("inner.share=1", "inner.share=1.0"),
        ('middle={"thickness": 2}', 'middle={"thickness": 2.0}'),
    ],
)
def test_int_for_a_float_within_another_value_is_the_same_record(whole: str, number: str) -> None:
    assert SOUP.with_settings([whole]).fingerprint == SOUP.with_settings([number]).fingerprint
    steps = SOUP.with_settings(["steps=[1, 2]"]).steps
    assert list(map(type, steps)) == [int, int]


def test_an_error_of_a_worker_keeps_its_message() -> None:
    error = InvalidFieldsError("dish soup", {"rate": "-1: it must be a number of at least 0"})
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_missing_field_is_an_error() -> None:
    values = {name: value for name, value in SOUP.as_dict().items() if name != "rate"}
    with pytest.raises(HearbackError, match=r"not a dish: .*'rate'"):
        Outer.from_dict(values)


@dataclass(frozen=True)
class Trained(FoldRecipe):
    name: str = "model1"
    seed: int = 7
    data_seed: int = 55


def test_another_seed_is_another_model() -> None:
    eighth = Trained().with_seed(8)
    assert (eighth.name, eighth.seed, eighth.data_seed) == ("model1_s8", 8, 8)
    assert eighth.fingerprint != Trained().fingerprint


@pytest.mark.parametrize("seed", [7, None])
def test_own_seed_leaves_the_recipe_unchanged(seed: int | None) -> None:
    assert Trained().with_seed(seed) == Trained()


def test_seed_below_one_is_an_error() -> None:
    with pytest.raises(HearbackError, match="seed is 0"):
        Trained().with_seed(0)


@pytest.mark.parametrize(
    ("model", "recipe", "seed"),
    [
        ("modeltok_s8", "modeltok", 8),
        ("modeltok_s12", "modeltok", 12),
        ("modeltok", "modeltok", None),
        ("modeltok_s0", "modeltok_s0", None),
        ("model2s", "model2s", None),
        ("model_ablation_text_cosine", "model_ablation_text_cosine", None),
    ],
)
def test_split_seed(model: str, recipe: str, seed: int | None) -> None:
    assert split_seed(model) == (recipe, seed)
