"""Tokenizing expected texts for the decoder."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.whisper.tokenizer import (
    MULTILINGUAL_END,
    TextTokenizer,
    TokenizedText,
    serialize_tokenizer,
)
from tests.toy import SPECIAL_TOKENS, write_tokenizer

TINY_EN = ROOT / "assets" / "whisper-tiny.en"
END, START, NO_TIMESTAMPS = SPECIAL_TOKENS


@pytest.fixture
def text_tokenizer(tokenizer: Path) -> TextTokenizer:
    return TextTokenizer(tokenizer)


def decoded(text_tokenizer: TextTokenizer, tokenized: TokenizedText) -> str:
    tokenizer = Tokenizer.from_file(str(text_tokenizer.path))
    return tokenizer.decode(tokenized.tokens.tolist(), skip_special_tokens=False)


def tokens_of(text_tokenizer: TextTokenizer, text: str) -> list[int]:
    return Tokenizer.from_file(str(text_tokenizer.path)).encode(text, add_special_tokens=False).ids


def test_a_text_becomes_prompt_tokens_and_end(text_tokenizer: TextTokenizer) -> None:
    tokenized = text_tokenizer.encode("the dog ran home")
    assert decoded(text_tokenizer, tokenized) == f"{START}{NO_TIMESTAMPS} The dog ran home{END}"
    assert tuple(tokenized.tokens[:2]) == text_tokenizer.prompt
    assert tokenized.tokens[-1] == text_tokenizer.end
    assert tokenized.tokens.dtype == tokenized.word_ids.dtype == "int64"


@pytest.mark.parametrize("text", ["the dog ran home", "boy", "koovnorb", "it's  3\tdogs, ’n’ 猫"])
def test_word_ids_give_the_word_of_each_token(text_tokenizer: TextTokenizer, text: str) -> None:
    tokenized = text_tokenizer.encode(text)
    own = tokenized.tokens[len(text_tokenizer.prompt) :]
    assert len(own) == len(tokenized.word_ids)
    words = text.split()
    assert tokenized.n_words == len(words)
    assert tokenized.word_ids[-1] == len(words)
    assert list(tokenized.word_ids) == sorted(tokenized.word_ids)
    for index, word in enumerate(words):
        spelling = word[0].upper() + word[1:] if index == 0 else word
        assert own[tokenized.word_ids == index].tolist() == tokens_of(
            text_tokenizer, f" {spelling}"
        )


def test_a_nonword_has_several_tokens(text_tokenizer: TextTokenizer) -> None:
    tokenized = text_tokenizer.encode("koovnorb")
    assert tokenized.n_words == 1
    assert (tokenized.word_ids == 0).sum() > 1
    # A known word is one token; otherwise the test above would not cover such words.
    assert (text_tokenizer.encode("a dog").word_ids == 1).sum() == 1


def test_only_the_first_letter_is_capitalised(text_tokenizer: TextTokenizer) -> None:
    texts = {
        text: decoded(text_tokenizer, text_tokenizer.encode(text))
        for text in ("i saw NASA", "Émile", "é", "3x")
    }
    prompt = START + NO_TIMESTAMPS
    assert texts == {
        "i saw NASA": f"{prompt} I saw NASA{END}",
        "Émile": f"{prompt} Émile{END}",
        "é": f"{prompt} É{END}",
        "3x": f"{prompt} 3x{END}",
    }


def write_sparse_tokenizer(path: Path, ids: dict[str, int]) -> None:
    """Write a tokenizer with only special tokens, at the given ids."""
    names = {number: name for name, number in ids.items()}
    vocabulary = {names.get(at, f"unused {at}"): at for at in range(max(names) + 1)}
    vocabulary["?"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.save(str(path))


def test_a_multilingual_prompt_has_language_and_task(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    ids = {
        END: MULTILINGUAL_END,
        START: 50258,
        "<|en|>": 50259,
        "<|transcribe|>": 50359,
        NO_TIMESTAMPS: 50363,
    }
    write_sparse_tokenizer(path, ids)
    text_tokenizer = TextTokenizer(path)
    assert text_tokenizer.prompt == (50258, 50259, 50359, 50363)
    assert text_tokenizer.encode("boy").tokens.tolist() == [
        *text_tokenizer.prompt,
        50364,
        MULTILINGUAL_END,
    ]


def test_an_english_only_prompt_has_neither_although_the_tokens_exist(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path, [*SPECIAL_TOKENS, "<|en|>", "<|transcribe|>"])
    text_tokenizer = TextTokenizer(path)
    tokenizer = Tokenizer.from_file(str(path))
    assert text_tokenizer.prompt == (
        tokenizer.token_to_id(START),
        tokenizer.token_to_id(NO_TIMESTAMPS),
    )


def test_a_missing_tokenizer_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"tokenizer\.json: file not found; .*tokenizer"):
        TextTokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("missing", SPECIAL_TOKENS)
def test_a_tokenizer_of_another_model_is_rejected(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path, [token for token in SPECIAL_TOKENS if token != missing])
    with pytest.raises(HearbackError) as refusal:
        TextTokenizer(path)
    assert f"{path}: not a Whisper tokenizer: it has no {missing}" in str(refusal.value)


@pytest.mark.parametrize("content", ["", "no JSON", json.dumps({"version": "1.0"})])
def test_a_file_that_is_not_a_tokenizer_is_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(HearbackError, match=r"tokenizer\.json: not a tokenizer .* or copy that of"):
        TextTokenizer(path)


@pytest.mark.slow
def test_tiny_en_s_prompt_equals_that_of_transformers() -> None:
    from transformers import WhisperTokenizer

    theirs = WhisperTokenizer.from_pretrained(TINY_EN)
    text_tokenizer = TextTokenizer(TINY_EN / "tokenizer.json")
    for text in ("The dog ran home", "Koovnorb", "It's 3 o'clock"):
        assert text_tokenizer.encode(text).tokens.tolist() == theirs(f" {text}").input_ids


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "cat <|startoftranscript|> cat", "a<|nospeech|>"]
)
def test_special_tokens_spelled_in_a_text_are_plain_text(
    text_tokenizer: TextTokenizer, text: str
) -> None:
    tokenized = text_tokenizer.encode(text)
    assert not set(tokenized.tokens[len(text_tokenizer.prompt) : -1]) & {
        *text_tokenizer.prompt,
        text_tokenizer.end,
    }
    assert set(tokenized.word_ids) == set(range(len(text.split()) + 1))


def test_a_missing_tokenizer_can_be_made_from_the_slow_one_s_files(
    tmp_path: Path, tokenizer: Path
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    model = json.loads(tokenizer.read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    new = [token for token in SPECIAL_TOKENS if token not in model["vocab"]]
    added = {token: len(model["vocab"]) + number for number, token in enumerate(new)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(HearbackError) as refusal:
        TextTokenizer(folder / "tokenizer.json")
    command = shlex.split(str(refusal.value).partition("merges.txt there: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert TextTokenizer(folder / "tokenizer.json").prompt


@pytest.mark.parametrize(
    ("config", "cure"),
    [
        ('{"vocab_size": 51866}', "https://huggingface.co/openai/whisper-large-v3,"),
        ("[]", "which the backbone was fine-tuned from"),
    ],
)
def test_a_missing_tokenizer_is_named_by_its_vocabulary(
    tmp_path: Path, config: str, cure: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(HearbackError, match=cure):
        TextTokenizer(tmp_path / "tokenizer.json")


def test_files_of_one_tokenizer_are_serialized_alike(tokenizer: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "older.json", [*SPECIAL_TOKENS, "<|nocaptions|>", "<|0.00|>"])
    values = json.loads((tmp_path / "older.json").read_text())
    # As other versions of the library write it: merges as texts, another name, no timestamps.
    values["model"]["merges"] = [
        each if isinstance(each, str) else " ".join(each) for each in values["model"]["merges"]
    ]
    values["added_tokens"] = [
        each | {"content": each["content"].replace("nocaptions", "nospeech")}
        for each in values["added_tokens"]
        if each["content"] != "<|0.00|>"
    ]
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps(values, indent=2))
    plain = tmp_path / "plain.json"
    plain.write_bytes(serialize_tokenizer(tmp_path / "older.json"))
    assert serialize_tokenizer(newer) == plain.read_bytes() == serialize_tokenizer(plain)
    assert serialize_tokenizer(tokenizer) != plain.read_bytes()  # has no token for no speech

    before, after = TextTokenizer(tmp_path / "older.json"), TextTokenizer(plain)
    assert (after.prompt, after.end, after.no_speech) == (
        before.prompt,
        before.end,
        before.no_speech,
    )
    for text in ("the dog ran home", "koovnorb", "<|endoftext|> boy", "it's  3\tdogs, ’n’ 猫"):
        assert after.encode(text).tokens.tolist() == before.encode(text).tokens.tolist()


def test_a_tokenizer_that_is_not_like_whispers_is_kept_as_it_is(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "words.json"))
    content = (tmp_path / "words.json").read_bytes()
    assert serialize_tokenizer(tmp_path / "words.json") == content


@pytest.mark.slow
def test_the_real_tokenizer_encodes_the_same_when_serialized(tmp_path: Path) -> None:
    plain = tmp_path / "plain.json"
    plain.write_bytes(serialize_tokenizer(TINY_EN / "tokenizer.json"))
    before, after = TextTokenizer(TINY_EN / "tokenizer.json"), TextTokenizer(plain)
    assert (after.prompt, after.end, after.no_speech) == (
        before.prompt,
        before.end,
        before.no_speech,
    )
    for text in ("the cat sat on the mat", "koovnorb", "<|en|> it's café 12", "猫"):
        assert after.encode(text).tokens.tolist() == before.encode(text).tokens.tolist()
