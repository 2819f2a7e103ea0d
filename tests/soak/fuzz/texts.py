"""Odd expected texts, tokenized and turned into hard negatives."""

import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from hearback.engine.errors import HearbackError
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading.hard_negatives import (
    generate_hard_negatives,
    read_hard_negatives,
    write_hard_negatives,
)
from hearback.reading.tables import LONGEST_TEXT
from tests.soak.fuzz.damage import DAMAGES
from tests.soak.fuzz.outcomes import READ, REFUSED, Outcome, check_message

ODD_TEXTS = (
    "NA", "null", "nan", "None", "N/A", "true", "1", "1.0", "1e5", "007", "=1+1", "=cmd()",
    "@SUM(A1)", "+1", "-1", "it's", 'said "no"', "one, two", "two\nlines", "two\r\nlines", "a\rb",
    "naïve", unicodedata.normalize("NFD", "naïve"), "İstanbul", "ŉ", "straße", "ＡＢＣ", "ﬁn",
    "café\u200bau\u00a0lait", "\u202eright to left", "שלום", "مرحبا", "你好", "👶🏽 cries", "𝒜",
    "a" + "\u0301" * 100, "<|endoftext|>", "cat <|startoftranscript|> cat", "{0}", "%s", "\\n",
    "a\u2028b", "a\x0bb", "a\x0cb", "a\x85b", "\ufeffcat", "x" * LONGEST_TEXT,
    "'; DROP TABLE x;--",
)  # fmt: skip


def random_text(rng: np.random.Generator) -> str:
    """Return up to four parts joined: odd texts, and characters from all of Unicode."""
    parts = []
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.5:
            parts.append(ODD_TEXTS[rng.integers(len(ODD_TEXTS))])
        else:
            codes = rng.integers(1, 0x110000, int(rng.integers(1, 12)))
            parts.append("".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000))
    return " ".join(parts)


def spell(text: str) -> str:
    """Pronounce each letter as itself."""
    return "".join(filter(str.isalnum, text.casefold()))


@lru_cache
def tokenizer_json() -> bytes:
    """Return a byte-level tokenizer with Whisper's special tokens, as JSON."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"])
    return tokenizer.to_str().encode()


def try_text(rng: np.random.Generator, folder: Path) -> Outcome:
    """Tokenize odd texts, and write and read hard negatives of them."""
    path = folder / "tokenizer.json"
    path.write_bytes(tokenizer_json())
    tokenizer = TextTokenizer(path)
    # As read from tables: stripped, never empty, with at least one letter or digit.
    texts = [text for _ in range(6) if any(map(str.isalnum, text := random_text(rng).strip()))]
    for text in texts:
        encoded = tokenizer.encode(text)
        inside = set(encoded.tokens[len(tokenizer.prompt) : -1].tolist())
        assert not inside & {*tokenizer.prompt, tokenizer.end}, f"special tokens in {text!r}"
        assert set(encoded.word_ids.tolist()) == set(range(len(text.split()) + 1)), f"{text!r}"
    generated = generate_hard_negatives(texts, 2, int(rng.integers(100)), spell)
    by_text = {text: negatives for text, negatives in generated.items() if negatives}
    for negatives in by_text.values():
        for negative in negatives:
            assert all(0 <= word < len(negative.text.split()) for word in negative.wrong)
    write_hard_negatives(by_text, folder)
    assert read_hard_negatives(folder) == by_text
    table = folder / "hard_negatives.csv"
    damage = DAMAGES[rng.integers(len(DAMAGES))]
    table.write_bytes(damage(table.read_bytes(), rng))
    try:
        read_hard_negatives(folder)
    except HearbackError as error:
        check_message(error, table)
        return Outcome("texts: odd, with a damaged table of hard negatives", REFUSED)
    return Outcome("texts: odd, with a damaged table of hard negatives", READ)
