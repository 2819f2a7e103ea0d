"""Hard negatives: what they may be, how near they are, and the table of them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from hearback.engine.errors import HearbackError
from hearback.reading.hard_negatives import (
    KIND_SHARES,
    HardNegative,
    HardNegativeGenerator,
    NoHardNegative,
    generate_hard_negatives,
    hibari_pronounce,
    read_hard_negatives,
    respellings,
    sounds_only,
    write_hard_negatives,
)

TEXTS = [
    "the cat sat on the mat",
    "a hat and a bat",
    "their dog sees the sea",
    "there is a red house",
    "i read two books to you",
    "she had too much to see",
    "The mouse ran home.",
]


@pytest.fixture(scope="module")
def g2p() -> Callable[[str], str]:
    return hibari_pronounce()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(source: HardNegativeGenerator, text: str, n: int = 100) -> list[HardNegative]:
    random = rng()
    return [source.draw(text, random) for _ in range(n)]


def spelled(text: str) -> str:
    """Pronounce a text as it is spelled, a sound for each letter."""
    return text


@pytest.mark.parametrize("text", [*TEXTS, "the cat", "koovnorb", "bat", "some new words"])
def test_a_near_miss_is_marked_where_it_differs(text: str, g2p: Callable[[str], str]) -> None:
    source = HardNegativeGenerator([*TEXTS, "bat", "rat", "flat"], g2p)
    words = text.split()
    for made in drawn(source, text):
        found = made.text.split()
        right = [word for at, word in enumerate(found) if at not in made.wrong]
        if made.kind == "omit":
            assert made.wrong == ()
            assert made.gap is not None
            assert [*found[: made.gap], words[made.gap], *found[made.gap :]] == words
        elif made.kind == "insert":
            assert made.gap is None
            assert len(made.wrong) == 1
            assert right == words
        else:
            assert made.gap is None
            (at,) = made.wrong
            assert found[at] != words[at]
            assert right == words[:at] + words[at + 1 :]


@pytest.mark.parametrize("text", [*TEXTS, "sea", "read", "their", "koovnorb"])
def test_a_near_miss_sounds_different(text: str, g2p: Callable[[str], str]) -> None:
    homophones = ["see", "red", "there", "two", "to", "too", "coovnorb", "right", "write"]
    source = HardNegativeGenerator([*TEXTS, *homophones, "sea", "read"], g2p)
    said = sounds_only(g2p(text))
    for made in drawn(source, text):
        assert made.text != text
        assert sounds_only(g2p(made.text)) != said


def test_a_word_read_otherwise_in_its_sentence_is_no_near_miss(g2p: Callable[[str], str]) -> None:
    text, same = "i have read the book", "i have red the book"
    assert sounds_only(g2p("read")) != sounds_only(g2p("red"))
    assert sounds_only(g2p(text)) == sounds_only(g2p(same))
    source = HardNegativeGenerator([text, "red"], g2p)
    assert same not in {made.text for made in drawn(source, text)}


def test_the_kinds_have_their_shares() -> None:
    text = "cat hat mat bat"
    made = drawn(HardNegativeGenerator([text], spelled), text, 2000)
    counts = Counter(one.kind for one in made)
    assert set(counts) == set(KIND_SHARES)
    for kind, share in KIND_SHARES.items():
        assert counts[kind] / 2000 == pytest.approx(share, abs=0.04)


def test_every_place_is_drawn() -> None:
    text = "cat hat mat"
    made = drawn(HardNegativeGenerator([text, "rats"], spelled), text, 500)
    assert {one.gap for one in made if one.kind == "omit"} == {0, 1, 2}
    assert {one.wrong for one in made if one.kind == "insert"} == {(0,), (1,), (2,), (3,)}
    assert {one.wrong for one in made if one.kind == "substitute"} == {(0,), (1,), (2,)}


def test_nearer_words_are_likelier_and_far_ones_never_come() -> None:
    source = HardNegativeGenerator(
        ["abcdefgh abcdefgx", "abcdefxy abcdwxyz", "abcvwxyz qqqqqqqq"], spelled
    )
    made = drawn(source, "abcdefgh zzzzzzzz", 2000)
    said = Counter(one.text.split()[0] for one in made if one.kind == "substitute")
    assert set(said) == {"abcdefgx", "abcdefxy", "abcdwxyz"}
    assert said["abcdefgx"] > said["abcdefxy"] > said["abcdwxyz"]


def test_a_text_without_near_words_is_shortened_or_lengthened() -> None:
    made = drawn(HardNegativeGenerator(["abcd wxyz"], spelled), "abcd wxyz")
    assert {one.kind for one in made} == {"omit", "insert"}


def test_a_word_is_not_said_twice_in_a_row() -> None:
    source = HardNegativeGenerator(["the cat"], spelled)
    for made in drawn(source, "the cat"):
        if made.kind == "insert":
            assert made.text in {"cat the cat", "the cat the"}


def test_one_word_texts_have_neighbours_among_one_word_texts() -> None:
    source = HardNegativeGenerator(["cat", "hat", "cap", "xylem", "can of rats"], spelled)
    made = drawn(source, "cat", 300)
    neighbours = Counter(one.text for one in made if one.kind == "neighbour")
    assert set(neighbours) == {"hat", "cap"}
    # One respelling in three, as if it were a third neighbour.
    assert sum(neighbours.values()) / 300 == pytest.approx(2 / 3, abs=0.1)
    assert {one.kind for one in made} == {"neighbour", "respell"}
    assert all(one.wrong == (0,) and one.gap is None for one in made)


@pytest.mark.parametrize("word", ["koovnorb", "trebbing", "cat", "strength", "mip", "don't"])
def test_a_respelled_word_has_one_sound_changed(word: str, g2p: Callable[[str], str]) -> None:
    source = HardNegativeGenerator([word], g2p)
    said = sounds_only(g2p(word))
    made = drawn(source, word, 100)
    assert {one.kind for one in made} == {"respell"}
    assert len({one.text for one in made}) > 10
    assert {Levenshtein.distance(said, sounds_only(g2p(one.text))) for one in made} == {1}


def test_respellings_change_drop_and_add_a_group_of_letters() -> None:
    made = set(respellings("sheep", rng()))
    assert {"cheep", "shap", "eep", "shee", "sheept", "shleep"} <= made
    assert not made & {"sheep", "shp"}


def test_punctuation_and_capitals_stay(g2p: Callable[[str], str]) -> None:
    source = HardNegativeGenerator(["The cat.", "a bat, a hat"], g2p)
    made = drawn(source, "The cat.")
    last = {one.text for one in made if one.kind == "substitute" and one.wrong == (1,)}
    assert last == {"The bat.", "The hat."}
    first = {one.text for one in made if one.kind == "substitute" and one.wrong == (0,)}
    assert first == {"A cat."}
    assert {one.text for one in drawn(source, "Cat !") if one.kind == "respell"} >= {"At !"}


def test_a_word_has_one_spelling() -> None:
    source = HardNegativeGenerator(["The cat", "the dog", "THE hen"], str.lower)
    inserted = {one.text for one in drawn(source, "pig pen") if one.kind == "insert"}
    assert any(text.startswith("the ") for text in inserted)
    assert not any("The" in text or "THE" in text for text in inserted)


def test_the_order_of_the_texts_does_not_matter(g2p: Callable[[str], str]) -> None:
    forward, backward = (
        HardNegativeGenerator(TEXTS, g2p),
        HardNegativeGenerator([*TEXTS[::-1], TEXTS[0]], g2p),
    )
    for text in [*TEXTS, "koovnorb"]:
        assert drawn(forward, text, 20) == drawn(backward, text, 20)
    forward.draw("the cat", rng(5))
    assert drawn(forward, TEXTS[0], 20) == drawn(backward, TEXTS[0], 20)


def test_several_sound_different_and_start_alike(g2p: Callable[[str], str]) -> None:
    source = HardNegativeGenerator([*TEXTS, "hair", "hare", "bear", "bare", "there"], g2p)
    for text in [*TEXTS, "there"]:
        five = source.several(text, 5, rng())
        assert len({sounds_only(g2p(made.text)) for made in five}) == 5
        assert source.several(text, 2, rng()) == five[:2]
    assert source.several("there", 0, rng()) == ()


def test_what_cannot_be_changed() -> None:
    source = HardNegativeGenerator(["3"], spelled_digits := lambda text: text.replace("3", "three"))
    for text in ("3", "", "?!"):
        with pytest.raises(NoHardNegative, match="no hard negative"):
            source.draw(text, rng())
        assert source.several(text, 2, rng()) == ()
    made = HardNegativeGenerator(["3", "cat"], spelled_digits).draw("3", rng())
    assert made.kind == "insert"


def test_texts_have_random_numbers_of_their_own(g2p: Callable[[str], str]) -> None:
    three = generate_hard_negatives(TEXTS, 3, 42, g2p)
    assert generate_hard_negatives([*TEXTS[::-1], TEXTS[0]], 3, 42, g2p) == three
    assert generate_hard_negatives(TEXTS, 3, 43, g2p) != three
    assert len({tuple(made.kind for made in several) for several in three.values()}) > 2
    five = generate_hard_negatives(TEXTS, 5, 42, g2p)
    assert {text: several[:3] for text, several in five.items()} == three


def test_the_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table = {
        'say "null", please': (
            HardNegative('say "nan", please', "substitute", (1,)),
            HardNegative('say "null",', "omit", (), 2),
        ),
        "a\rb": (HardNegative("a\r\nc b", "insert", (1,)), HardNegative("b", "omit", (), 0)),
        "koovnorb": (
            HardNegative("toovnorb", "respell", (0,)),
            HardNegative("kov", "neighbour", (0,)),
        ),
    }
    write_hard_negatives(table, tmp_path)
    assert read_hard_negatives(tmp_path) == table
    write_hard_negatives({}, tmp_path)
    assert read_hard_negatives(tmp_path) == {}


def test_no_table_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"python preprocess\.py .*--hard_negatives 2"):
        read_hard_negatives(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text,near_miss\nthe cat,the hat\n",
        "text,near_miss,kind,wrong,gap\nthe cat,the hat,typo,1,\n",
        "text,near_miss,kind,wrong,gap\nthe cat,the hat,substitute,one,\n",
        "text,near_miss,kind,wrong,gap\nthe cat,the hat,substitute,2,\n",
        "text,near_miss,kind,wrong,gap\nthe cat,the,omit,,2\n",
        "text,near_miss,kind,wrong,gap\nthe cat,the hat\n",
    ],
)
def test_a_damaged_table_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "hard_negatives.csv").write_text(content)
    with pytest.raises(HearbackError, match=r"hard_negatives\.csv.*delete it"):
        read_hard_negatives(tmp_path)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b'"' + b"x" * 200_000, b"text,near_miss\xe9"])
def test_a_table_that_is_no_text_is_an_error(tmp_path: Path, damage: bytes) -> None:
    write_hard_negatives({"cat": (HardNegative("hat", "neighbour", (0,)),)}, tmp_path)
    path = tmp_path / "hard_negatives.csv"
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(HearbackError, match=r"hard_negatives\.csv.*delete it"):
        read_hard_negatives(tmp_path)
