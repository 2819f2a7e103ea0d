"""Expected texts as the decoder reads them."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.whisper.tokenizer import MULTILINGUAL_END, Reading, TextReader
from tests.toy import SPECIAL_TOKENS, write_tokenizer

TINY_EN = ROOT / "assets" / "whisper-tiny.en"
END, START, NO_TIMESTAMPS = SPECIAL_TOKENS


@pytest.fixture
def reader(tokenizer: Path) -> TextReader:
    return TextReader(tokenizer)


def decoded(reader: TextReader, reading: Reading) -> str:
    tokenizer = Tokenizer.from_file(str(reader.path))
    return tokenizer.decode(reading.tokens.tolist(), skip_special_tokens=False)


def tokens_of(reader: TextReader, text: str) -> list[int]:
    return Tokenizer.from_file(str(reader.path)).encode(text, add_special_tokens=False).ids


def test_a_text_is_prompt_tokens_and_end(reader: TextReader) -> None:
    reading = reader.read("the dog ran home")
    assert decoded(reader, reading) == f"{START}{NO_TIMESTAMPS} The dog ran home{END}"
    assert tuple(reading.tokens[:2]) == reader.prompt
    assert reading.tokens[-1] == reader.end
    assert reading.tokens.dtype == reading.words.dtype == "int64"


@pytest.mark.parametrize("text", ["the dog ran home", "boy", "koovnorb", "it's  3\tdogs, ’n’ 猫"])
def test_each_token_after_the_prompt_is_of_the_word_that_it_spells(
    reader: TextReader, text: str
) -> None:
    reading = reader.read(text)
    own = reading.tokens[len(reader.prompt) :]
    assert len(own) == len(reading.words)
    words = text.split()
    assert reading.n_words == len(words)
    assert reading.words[-1] == len(words)
    assert list(reading.words) == sorted(reading.words)
    for place, word in enumerate(words):
        said = word[0].upper() + word[1:] if place == 0 else word
        assert own[reading.words == place].tolist() == tokens_of(reader, f" {said}")


def test_a_nonword_is_spelled_with_several_tokens(reader: TextReader) -> None:
    reading = reader.read("koovnorb")
    assert reading.n_words == 1
    assert (reading.words == 0).sum() > 1
    # A known word is one token, else the test above would tell nothing about words and tokens.
    assert (reader.read("a dog").words == 1).sum() == 1


def test_a_capital_begins_a_text_and_changes_no_other_letter(reader: TextReader) -> None:
    read = {text: decoded(reader, reader.read(text)) for text in ("i saw NASA", "Émile", "é", "3x")}
    prompt = START + NO_TIMESTAMPS
    assert read == {
        "i saw NASA": f"{prompt} I saw NASA{END}",
        "Émile": f"{prompt} Émile{END}",
        "é": f"{prompt} É{END}",
        "3x": f"{prompt} 3x{END}",
    }


def write_sparse_tokenizer(path: Path, ids: dict[str, int]) -> None:
    """Write a tokenizer that knows special tokens by their numbers, and nothing else."""
    names = {number: name for name, number in ids.items()}
    vocabulary = {names.get(at, f"unused {at}"): at for at in range(max(names) + 1)}
    vocabulary["?"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.save(str(path))


def test_a_multilingual_whisper_is_told_language_and_task(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    ids = {
        END: MULTILINGUAL_END,
        START: 50258,
        "<|en|>": 50259,
        "<|transcribe|>": 50359,
        NO_TIMESTAMPS: 50363,
    }
    write_sparse_tokenizer(path, ids)
    reader = TextReader(path)
    assert reader.prompt == (50258, 50259, 50359, 50363)
    assert reader.read("boy").tokens.tolist() == [*reader.prompt, 50364, MULTILINGUAL_END]


def test_an_english_only_whisper_is_not_although_it_knows_languages(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path, [*SPECIAL_TOKENS, "<|en|>", "<|transcribe|>"])
    reader = TextReader(path)
    tokenizer = Tokenizer.from_file(str(path))
    assert reader.prompt == (tokenizer.token_to_id(START), tokenizer.token_to_id(NO_TIMESTAMPS))


def test_a_missing_tokenizer_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"tokenizer\.json: not there; .*tokenizer"):
        TextReader(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("missing", SPECIAL_TOKENS)
def test_a_tokenizer_that_is_no_whisper_s_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path, [token for token in SPECIAL_TOKENS if token != missing])
    with pytest.raises(HearbackError) as refusal:
        TextReader(path)
    assert f"{path}: not a Whisper's tokenizer, it has no {missing}" in str(refusal.value)


@pytest.mark.parametrize("content", ["", "no JSON", json.dumps({"version": "1.0"})])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(HearbackError, match=r"tokenizer\.json: not a tokenizer"):
        TextReader(path)


@pytest.mark.slow
def test_tiny_en_is_prompted_as_transformers_does() -> None:
    from transformers import WhisperTokenizer

    theirs = WhisperTokenizer.from_pretrained(TINY_EN)
    reader = TextReader(TINY_EN / "tokenizer.json")
    for text in ("The dog ran home", "Koovnorb", "It's 3 o'clock"):
        assert reader.read(text).tokens.tolist() == theirs(f" {text}").input_ids


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "cat <|startoftranscript|> cat", "a<|nospeech|>"]
)
def test_a_text_that_spells_a_command_is_a_text(reader: TextReader, text: str) -> None:
    reading = reader.read(text)
    assert not set(reading.tokens[len(reader.prompt) : -1]) & {*reader.prompt, reader.end}
    assert set(reading.words) == set(range(len(text.split()) + 1))
