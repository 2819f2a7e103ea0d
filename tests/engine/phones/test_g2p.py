"""The phones of words, with small random weights."""

from typing import Any

import pytest
import torch

from hearback.engine.phones import g2p
from hearback.engine.phones.g2p import G2PConfig, G2PNetwork, GraphemeToPhone
from hearback.engine.phones.hama import convert_g2p
from hearback.engine.phones.vocabulary import BLANK, WORD_BOUNDARY, PhoneVocabulary
from tests.engine.phones import packages
from tests.engine.phones.packages import LETTERS, PHONES

VOCABULARY = PhoneVocabulary((*PHONES, WORD_BOUNDARY, BLANK), tuple(LETTERS))
WORDS = ["a", "bad", "cab", "cage", "facade", "bee", "deed", "fade", "a'd", "bé", "zz", "dad's"]
CONFIG = G2PConfig(
    n_letters=len(LETTERS),
    n_phones=len(PHONES),
    embedding=packages.EMBEDDING,
    hidden=packages.HIDDEN,
    location_width=packages.LOCATION,
    location_kernel=3,
)


@pytest.fixture
def words() -> GraphemeToPhone:
    parts = (packages.encoder_arrays(), packages.decoder_arrays())
    encoder, decoder = (
        {name: torch.from_numpy(array) for name, array in arrays.items()} for arrays in parts
    )
    network = G2PNetwork(CONFIG)
    network.load_state_dict(convert_g2p(encoder, decoder))
    return GraphemeToPhone(network, VOCABULARY)


def test_words_get_the_same_alone_and_with_others(
    words: GraphemeToPhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(g2p, "BATCH", 3)
    together = words.phones_of(WORDS)
    assert list(together) == WORDS
    assert len(set(together.values())) > 5
    for word in WORDS:
        alone = GraphemeToPhone(words.network, VOCABULARY)
        assert alone.phones(word) == together[word]
        assert alone.ids(word) == tuple(VOCABULARY.phones.index(p) for p in together[word])


def test_a_word_is_computed_once(words: GraphemeToPhone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    decode = words.network.decode

    def count(letters: torch.Tensor, **tokens: int) -> torch.Tensor:
        calls.append(letters.shape)
        return decode(letters, **tokens)

    monkeypatch.setattr(words.network, "decode", count)
    first = words.phones_of(["bad", "cab", "bad", "fade"])
    assert sorted(calls) == [(1, 4), (2, 3)]
    assert words.phones_of(["cab", "bad"]) == {"cab": first["cab"], "bad": first["bad"]}
    assert len(calls) == 2


def test_phones_end_and_have_no_padding(
    words: GraphemeToPhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # <sos> at the start, padding anywhere, and what follows <eos> are no phones.
    tokens = torch.tensor([[1, 5, 0, 4, 3, 2, 5, 5]])
    monkeypatch.setattr(words.network, "decode", lambda *_, **__: tokens)
    assert words.phones("bad") == ("b", "a", "<unk>")


def test_other_ways_to_write_a_word(words: GraphemeToPhone) -> None:
    assert words.phones("") == ()
    assert words.phones_of([]) == {}
    assert words.phones("BAD") == words.phones("bad")
    assert words.phones("zz") == words.phones("東京")  # unknown letters
    assert words._letters("각a") == [LETTERS.index(part) for part in ("ᄀ", "ᅡ", "ᆨ", "a")]
    assert words._letters("é") == [LETTERS.index("é")]
    with pytest.raises(ValueError, match="'a b' is no single word"):
        words.phones("a b")


def test_long_words_are_cut(words: GraphemeToPhone) -> None:
    assert words.phones("a" * 300) == words.phones("a" * 128)
    assert len(words.phones("a" * 128)) <= CONFIG.max_phones


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"hidden": 0}, "hidden is '0'"), ({"hidden": True}, "hidden is 'True'"), ({"x": 1}, "x")],
)
def test_invalid_sizes_are_errors(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        G2PConfig.from_config({**CONFIG.as_dict(), **change})
    assert G2PConfig.from_config(CONFIG.as_dict()) == CONFIG


def test_the_vocabulary_is_that_of_its_lists() -> None:
    vocabulary = PhoneVocabulary.from_lists([*PHONES, "<wb>", "<blank>"], LETTERS)
    assert vocabulary == VOCABULARY
    assert vocabulary.phones[vocabulary.blank] == "<blank>"
    assert vocabulary.phones[vocabulary.word_boundary] == "<wb>"
    assert {vocabulary.phones[i] for i in range(10)} - {
        vocabulary.phones[i] for i in vocabulary.special
    } == {"a", "b", "d͡ʒ", "eɪ"}


@pytest.mark.parametrize(
    ("phones", "letters", "reason"),
    [
        (None, None, "no list of different texts"),
        ("<pad>", LETTERS, "no list of different texts"),
        ([], [], "no list of different texts"),
        ([*PHONES, 3, "<wb>", "<blank>"], LETTERS, "no list of different texts"),
        ([*PHONES, "<wb>", "<blank>"], [*LETTERS, "a"], "no list of different texts"),
        ([*PHONES, "<blank>", "<wb>"], LETTERS, "do not end with <wb> and <blank>"),
        (["<pad>", "<unk>", "<wb>", "<blank>"], LETTERS, "do not end with"),
    ],
)
def test_other_lists_are_no_vocabulary(phones: Any, letters: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PhoneVocabulary.from_lists(phones, letters)
