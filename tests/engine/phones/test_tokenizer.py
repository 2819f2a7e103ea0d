"""Texts as phones, with a small dictionary and random weights."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hearback.engine.errors import HearbackError
from hearback.engine.phones import layout
from hearback.engine.phones.g2p import GraphemeToPhone
from hearback.engine.phones.tokenizer import PhoneTokenizer, read_dictionary
from hearback.engine.phones.vocabulary import ARPABET, BLANK, WORD_BOUNDARY, PhoneVocabulary
from tests.engine.phones import packages
from tests.engine.phones.packages import LETTERS, PHONES

VOCABULARY = PhoneVocabulary((*PHONES, WORD_BOUNDARY, BLANK), tuple(LETTERS))


@pytest.fixture(scope="module")
def path(phones: Path) -> Path:
    return phones / layout.PRONUNCIATIONS


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> PhoneTokenizer:
    return PhoneTokenizer(path)


def phones_of(tokenizer: PhoneTokenizer, text: str) -> list[str]:
    return [tokenizer.vocabulary.phones[token] for token in tokenizer.encode(text).tokens]


def test_a_text_is_the_phones_of_its_words_and_an_end(tokenizer: PhoneTokenizer) -> None:
    encoded = tokenizer.encode("Bay age bay")
    assert phones_of(tokenizer, "Bay age bay") == ["b", "eɪ", "eɪ", "d͡ʒ", "b", "eɪ", "<blank>"]
    assert encoded.word_ids.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert (encoded.n_words, encoded.tokens.dtype) == (3, "int64")
    assert tokenizer.blank == PHONES.index("eɪ") + 2
    assert tokenizer.word_boundary == tokenizer.blank - 1


def test_apostrophes_belong_to_the_word(tokenizer: PhoneTokenizer) -> None:
    assert phones_of(tokenizer, "'bay") == ["b", "eɪ", "<blank>"]
    known = set(tokenizer.vocabulary.phones) - {"<wb>", "<blank>"}
    assert set(phones_of(tokenizer, "bay's")[:-1]) <= known  # not in the dictionary


def test_a_word_that_the_dictionary_lacks_is_pronounced(
    tokenizer: PhoneTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    b, sound = PHONES.index("b"), PHONES.index("eɪ")

    def ids(word: str) -> tuple[int, ...]:
        asked.append(word)
        return (PHONES.index("<unk>"), b, sound)

    monkeypatch.setattr(tokenizer.g2p, "ids", ids)
    assert tokenizer.encode("bay gabe").tokens.tolist() == [b, sound, b, sound, tokenizer.blank]
    assert asked == ["gabe"]


def test_a_word_without_phones_gets_one(
    tokenizer: PhoneTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that every word has a unit that can be scored."""
    monkeypatch.setattr(tokenizer.g2p, "ids", lambda _: (PHONES.index("<unk>"),))
    encoded = tokenizer.encode("bay zz")
    assert encoded.word_ids.tolist() == [0, 0, 1, 2]
    assert encoded.tokens[2] in tokenizer.alternatives


def test_alternatives_are_the_phones_of_english(tokenizer: PhoneTokenizer) -> None:
    assert [PHONES[token] for token in tokenizer.alternatives] == ["b", "d͡ʒ", "eɪ"]
    assert isinstance(tokenizer.g2p, GraphemeToPhone)
    assert len(set(ARPABET.values())) == 40  # 39 phones, and unstressed AH


def test_a_dictionary_has_the_first_pronunciation_of_each_word() -> None:
    found = read_dictionary(packages.DICTIONARY.splitlines(), VOCABULARY)
    b, d, e = (PHONES.index(phone) for phone in ("b", "d͡ʒ", "eɪ"))
    assert found == {"'bay": [b, e], "abbey": [e, b, e], "age": [e, d], "bay": [b, e]}
    assert read_dictionary(["", "# a comment", "empty", "bay(2) B EY1"], VOCABULARY) == {}
    for unknown in ("UW1", "XX", "b"):
        with pytest.raises(ValueError, match=f"unknown phone {unknown}"):
            read_dictionary([f"word {unknown}"], VOCABULARY)


def test_the_file_of_equal_inputs_is_equal_in_every_process(path: Path, tmp_path: Path) -> None:
    """A fold names its tokenizer by the digest."""
    program = (
        "import sys; from pathlib import Path; from hearback.engine.phones.hama import convert; "
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), {})"
    )
    digests = {hashlib.sha256(path.read_bytes()).hexdigest()}
    packages.write_packages(tmp_path / "wheel")
    for number in range(3):
        target = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", program, tmp_path / "wheel", target], check=True)
        digests.add(hashlib.sha256((target / layout.PRONUNCIATIONS).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_copy_elsewhere_reads_the_same(
    path: Path, tokenizer: PhoneTokenizer, tmp_path: Path
) -> None:
    copy = tmp_path / "tokenizer_0123.safetensors"
    copy.write_bytes(path.read_bytes())
    copied = PhoneTokenizer(copy)
    assert copied.path == copy
    text = "bay gabe facade abbey"
    assert copied.encode(text).tokens.tolist() == tokenizer.encode(text).tokens.tolist()


def _changed(path: Path, target: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    """Write a file of pronunciations with other tensors and metadata."""
    vocabulary = {"phones": VOCABULARY.phones, "letters": VOCABULARY.letters}
    sizes = PhoneTokenizer(path).g2p.network.config.as_dict()
    usual = {"vocabulary": json.dumps(vocabulary), "g2p": json.dumps(sizes)}
    save_file({**load_file(path), **tensors}, target, {**usual, **metadata})
    return target


@pytest.mark.parametrize(
    ("tensors", "metadata", "reason"),
    [
        ({}, {"vocabulary": "[]"}, "list indices"),
        ({}, {"vocabulary": "{"}, "property name"),
        ({}, {"vocabulary": '{"phones": [], "letters": []}'}, "no list of different texts"),
        ({}, {"g2p": "[]"}, "no attribute"),
        ({}, {"g2p": '{"hidden": 0}'}, "hidden is '0'"),
        ({}, {"g2p": '{"hidden": 5}'}, "size mismatch|Missing key"),
        ({"g2p.bridge.bias": torch.zeros(3)}, {}, "size mismatch"),
        ({"dictionary": torch.full((3,), 255, dtype=torch.uint8)}, {}, "can't decode byte"),
        ({"dictionary": torch.full((3,), 97, dtype=torch.uint8)}, {}, "dictionary update"),
    ],
)
def test_other_content_is_an_error_that_names_the_file(
    path: Path,
    tmp_path: Path,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str],
    reason: str,
) -> None:
    changed = _changed(path, tmp_path / "it.safetensors", tensors, **metadata)
    with pytest.raises(HearbackError, match=rf"it\.safetensors: not a file of .*({reason})"):
        PhoneTokenizer(changed)


def test_a_cut_and_a_missing_file_are_errors(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(HearbackError, match=r"cut\.safetensors: not a file of pronunciations"):
            PhoneTokenizer(cut)
    with pytest.raises(HearbackError, match=r"none\.safetensors: not a file of pronunciations"):
        PhoneTokenizer(tmp_path / "none.safetensors")
