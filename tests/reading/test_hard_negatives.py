"""Hard negatives: their kinds, their distance from the original, and the table on disk."""

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
    NoHardNegativeError,
    generate_hard_negatives,
    hibari_pronounce,
    phonemes_only,
    read_hard_negatives,
    respellings,
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


def drawn(generator: HardNegativeGenerator, text: str, n: int = 100) -> list[HardNegative]:
    random = rng()
    return [generator.draw(text, random) for _ in range(n)]


def spell_digits(text: str) -> str:
    """Pronounce the digit 3."""
    return text.replace("3", "three")


def spelled(text: str) -> str:
    """Pronounce each letter as one sound."""
    return text


@pytest.mark.parametrize("text", [*TEXTS, "the cat", "koovnorb", "bat", "some new words"])
def test_wrong_words_and_gaps_are_marked(text: str, g2p: Callable[[str], str]) -> None:
    generator = HardNegativeGenerator([*TEXTS, "bat", "rat", "flat"], g2p)
    words = text.split()
    for negative in drawn(generator, text):
        found = negative.text.split()
        right = [word for at, word in enumerate(found) if at not in negative.wrong]
        if negative.kind == "omit":
            assert negative.wrong == ()
            assert negative.gap is not None
            assert [*found[: negative.gap], words[negative.gap], *found[negative.gap :]] == words
        elif negative.kind == "insert":
            assert negative.gap is None
            assert len(negative.wrong) == 1
            assert right == words
        else:
            assert negative.gap is None
            (at,) = negative.wrong
            assert found[at] != words[at]
            assert right == words[:at] + words[at + 1 :]


@pytest.mark.parametrize("text", [*TEXTS, "sea", "read", "their", "koovnorb"])
def test_a_hard_negative_sounds_different(text: str, g2p: Callable[[str], str]) -> None:
    homophones = ["see", "red", "there", "two", "to", "too", "coovnorb", "right", "write"]
    generator = HardNegativeGenerator([*TEXTS, *homophones, "sea", "read"], g2p)
    phonemes = phonemes_only(g2p(text))
    for negative in drawn(generator, text):
        assert negative.text != text
        assert phonemes_only(g2p(negative.text)) != phonemes


def test_a_homophone_in_context_is_no_hard_negative(g2p: Callable[[str], str]) -> None:
    text, same = "i have read the book", "i have red the book"
    assert phonemes_only(g2p("read")) != phonemes_only(g2p("red"))
    assert phonemes_only(g2p(text)) == phonemes_only(g2p(same))
    generator = HardNegativeGenerator([text, "red"], g2p)
    assert same not in {n.text for n in drawn(generator, text)}


def test_the_kinds_have_their_shares() -> None:
    text = "cat hat mat bat"
    negatives = drawn(HardNegativeGenerator([text], spelled), text, 2000)
    counts = Counter(n.kind for n in negatives)
    assert set(counts) == set(KIND_SHARES)
    for kind, share in KIND_SHARES.items():
        assert counts[kind] / 2000 == pytest.approx(share, abs=0.04)


def test_every_position_is_drawn() -> None:
    text = "cat hat mat"
    negatives = drawn(HardNegativeGenerator([text, "rats"], spelled), text, 500)
    assert {n.gap for n in negatives if n.kind == "omit"} == {0, 1, 2}
    assert {n.wrong for n in negatives if n.kind == "insert"} == {
        (0,),
        (1,),
        (2,),
        (3,),
    }
    assert {n.wrong for n in negatives if n.kind == "substitute"} == {
        (0,),
        (1,),
        (2,),
    }


def test_nearer_words_are_likelier_and_far_ones_excluded() -> None:
    generator = HardNegativeGenerator(
        ["abcdefgh abcdefgx", "abcdefxy abcdwxyz", "abcvwxyz qqqqqqqq"], spelled
    )
    negatives = drawn(generator, "abcdefgh zzzzzzzz", 2000)
    first_words = Counter(n.text.split()[0] for n in negatives if n.kind == "substitute")
    assert set(first_words) == {"abcdefgx", "abcdefxy", "abcdwxyz"}
    assert first_words["abcdefgx"] > first_words["abcdefxy"] > first_words["abcdwxyz"]


def test_a_text_without_near_words_is_shortened_or_lengthened() -> None:
    negatives = drawn(HardNegativeGenerator(["abcd wxyz"], spelled), "abcd wxyz")
    assert {n.kind for n in negatives} == {"omit", "insert"}


def test_an_inserted_word_is_no_repetition() -> None:
    generator = HardNegativeGenerator(["the cat"], spelled)
    for negative in drawn(generator, "the cat"):
        if negative.kind == "insert":
            assert negative.text in {"cat the cat", "the cat the"}


def test_one_word_texts_have_neighbours_among_one_word_texts() -> None:
    generator = HardNegativeGenerator(["cat", "hat", "cap", "xylem", "can of rats"], spelled)
    negatives = drawn(generator, "cat", 300)
    neighbours = Counter(n.text for n in negatives if n.kind == "neighbour")
    assert set(neighbours) == {"hat", "cap"}
    # One respelling in three, as if it were a third neighbour.
    assert sum(neighbours.values()) / 300 == pytest.approx(2 / 3, abs=0.1)
    assert {n.kind for n in negatives} == {"neighbour", "respell"}
    assert all(n.wrong == (0,) and n.gap is None for n in negatives)


@pytest.mark.parametrize("word", ["koovnorb", "trebbing", "cat", "strength", "mip", "don't"])
def test_a_respelled_word_has_one_sound_changed(word: str, g2p: Callable[[str], str]) -> None:
    generator = HardNegativeGenerator([word], g2p)
    phonemes = phonemes_only(g2p(word))
    negatives = drawn(generator, word, 100)
    assert {n.kind for n in negatives} == {"respell"}
    assert len({n.text for n in negatives}) > 10
    assert {Levenshtein.distance(phonemes, phonemes_only(g2p(n.text))) for n in negatives} == {1}


def test_respellings_change_drop_and_add_a_group_of_letters() -> None:
    spellings = set(respellings("sheep", rng()))
    assert {"cheep", "shap", "eep", "shee", "sheept", "shleep"} <= spellings
    assert not spellings & {"sheep", "shp"}


def test_punctuation_and_capitals_are_kept(g2p: Callable[[str], str]) -> None:
    generator = HardNegativeGenerator(["The cat.", "a bat, a hat"], g2p)
    negatives = drawn(generator, "The cat.")
    last = {
        negative.text
        for negative in negatives
        if negative.kind == "substitute" and negative.wrong == (1,)
    }
    assert last == {"The bat.", "The hat."}
    first = {
        negative.text
        for negative in negatives
        if negative.kind == "substitute" and negative.wrong == (0,)
    }
    assert first == {"A cat."}
    assert {
        negative.text for negative in drawn(generator, "Cat !") if negative.kind == "respell"
    } >= {"At !"}


def test_a_word_has_one_spelling() -> None:
    generator = HardNegativeGenerator(["The cat", "the dog", "THE hen"], str.lower)
    inserted = {
        negative.text for negative in drawn(generator, "pig pen") if negative.kind == "insert"
    }
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


def test_several_sound_different_and_share_a_prefix(g2p: Callable[[str], str]) -> None:
    generator = HardNegativeGenerator([*TEXTS, "hair", "hare", "bear", "bare", "there"], g2p)
    for text in [*TEXTS, "there"]:
        five = generator.draw_several(text, 5, rng())
        assert len({phonemes_only(g2p(n.text)) for n in five}) == 5
        assert generator.draw_several(text, 2, rng()) == five[:2]
    assert generator.draw_several("there", 0, rng()) == ()


def test_texts_without_hard_negatives() -> None:
    generator = HardNegativeGenerator(
        ["3"], spell_digits := lambda text: text.replace("3", "three")
    )
    for text in ("3", "", "?!"):
        with pytest.raises(NoHardNegativeError, match="no hard negative"):
            generator.draw(text, rng())
        assert generator.draw_several(text, 2, rng()) == ()
    negative = HardNegativeGenerator(["3", "cat"], spell_digits).draw("3", rng())
    assert negative.kind == "insert"


def test_each_text_has_its_own_random_numbers(g2p: Callable[[str], str]) -> None:
    three = generate_hard_negatives(TEXTS, 3, 42, g2p)
    assert generate_hard_negatives([*TEXTS[::-1], TEXTS[0]], 3, 42, g2p) == three
    assert generate_hard_negatives(TEXTS, 3, 43, g2p) != three
    assert len({tuple(n.kind for n in several) for several in three.values()}) > 2
    five = generate_hard_negatives(TEXTS, 5, 42, g2p)
    assert {text: several[:3] for text, several in five.items()} == three


def test_the_table_is_read_back_exactly(tmp_path: Path) -> None:
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


def test_a_missing_table_is_reported_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"python preprocess\.py .*--hard_negatives 2"):
        read_hard_negatives(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text,hard_negative\nthe cat,the hat\n",
        "text,hard_negative,kind,wrong,gap\nthe cat,the hat,typo,1,\n",
        "text,hard_negative,kind,wrong,gap\nthe cat,the hat,substitute,one,\n",
        "text,hard_negative,kind,wrong,gap\nthe cat,the hat,substitute,2,\n",
        "text,hard_negative,kind,wrong,gap\nthe cat,the,omit,,2\n",
        "text,hard_negative,kind,wrong,gap\nthe cat,the hat\n",
    ],
)
def test_a_damaged_table_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "hard_negatives.csv").write_text(content)
    with pytest.raises(HearbackError, match=r"hard_negatives\.csv.*delete it"):
        read_hard_negatives(tmp_path)


@pytest.mark.parametrize("damage", [b"\xff\xfe", b'"' + b"x" * 200_000, b"text,hard_negative\xe9"])
def test_a_table_with_undecodable_bytes_is_an_error(tmp_path: Path, damage: bytes) -> None:
    write_hard_negatives({"cat": (HardNegative("hat", "neighbour", (0,)),)}, tmp_path)
    path = tmp_path / "hard_negatives.csv"
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(HearbackError, match=r"hard_negatives\.csv.*delete it"):
        read_hard_negatives(tmp_path)
