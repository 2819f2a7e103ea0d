"""Texts as phones: a pronouncing dictionary, and the phones of words that it does not have.

The dictionary is CMU's (about 126,000 English words; BSD licence), its ARPAbet mapped to the
recogniser's phones. Words that it lacks, such as nonwords, are pronounced by `GraphemeToPhone`.
Both are in one file, so that a trained fold needs no more than its tokenizer:

    pronunciations.safetensors
      g2p.*         the weights of `G2PNetwork`
      dictionary    bytes: a line "word token token …" for each word
      metadata      sizes of the network, and the vocabulary
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.phones.g2p import G2PConfig, G2PNetwork, GraphemeToPhone
from hearback.engine.phones.vocabulary import ARPABET, PhoneVocabulary
from hearback.engine.whisper.tokenizer import TokenizedText

_DICTIONARY = "dictionary"
_G2P = "g2p."
_UNREADABLE = (
    *(SafetensorError, OSError),
    *(AttributeError, KeyError, TypeError, ValueError, RuntimeError),  # of other content
)


class PhoneTokenizer:
    """Encodes texts as phones; the end of a text is the blank.

    Attributes:
        path: its file.
        vocabulary: the phones.
        g2p: pronounces the words that the dictionary does not have.
        alternatives: tokens of the phones of English, which may stand for each other.
    """

    def __init__(self, path: Path) -> None:
        """Load a file of `pronunciations`. Raises HearbackError if it cannot be read."""
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tokens = json.loads(metadata["vocabulary"])
            config = G2PConfig.from_config(json.loads(metadata["g2p"]))
            self.vocabulary = PhoneVocabulary.from_lists(tokens["phones"], tokens["letters"])
            network = G2PNetwork(config)
            network.load_state_dict(_within(tensors, _G2P))
            lines = bytes(tensors[_DICTIONARY].numpy()).decode().splitlines()
            # Tokens as text: few of the words are ever asked for.
            self._dictionary = dict(line.split(" ", 1) for line in lines)
        except _UNREADABLE as error:
            what = " ".join(str(error).split())[:200]
            raise HearbackError(f"{path}: not a file of pronunciations ({what})") from None
        self.g2p = GraphemeToPhone(network.float(), self.vocabulary)
        ids = self.vocabulary.phone_ids
        self.alternatives = tuple(
            sorted(ids[phone] for phone in set(ARPABET.values()) if phone in ids)
        )

    @property
    def blank(self) -> int:
        """The id of CTC's blank."""
        return self.vocabulary.blank

    @property
    def word_boundary(self) -> int:
        """The id of the boundary of two words."""
        return self.vocabulary.word_boundary

    def phones(self, tokens: np.ndarray) -> tuple[str, ...]:
        """Return the phones of tokens, (tokens,), in IPA."""
        return tuple(self.vocabulary.phones[token] for token in tokens.tolist())

    def encode(self, text: str) -> TokenizedText:
        """Return the phones of a text of at least one word, and its end."""
        tokens: list[int] = []
        word_ids: list[int] = []
        words = text.split()
        for index, word in enumerate(words):
            phones = self._pronounce(word.lower())
            tokens += phones
            word_ids += [index] * len(phones)
        return TokenizedText(
            tokens=np.array([*tokens, self.blank], dtype=np.int64),
            word_ids=np.array([*word_ids, len(words)], dtype=np.int64),
        )

    def _pronounce(self, word: str) -> list[int]:
        """Return the tokens of a word, at least one."""
        if word in self._dictionary:
            return [int(token) for token in self._dictionary[word].split()]
        spoken = [token for token in self.g2p.ids(word) if token not in self.vocabulary.special]
        return spoken or [self.alternatives[0]]


def read_dictionary(lines: list[str], vocabulary: PhoneVocabulary) -> dict[str, list[int]]:
    """Return the first pronunciation of each word of CMU's dictionary, as tokens.

    A line is "word PHONE PHONE … # comment"; other pronunciations are "word(2) …".
    Raises ValueError for a phone that is unknown.
    """
    pronunciations: dict[str, list[int]] = {}
    for line in lines:
        word, *phones = line.partition("#")[0].split() or [""]
        if word and phones and not word.endswith(")"):
            pronunciations[word] = [_token(phone, vocabulary) for phone in phones]
    return pronunciations


def _token(phone: str, vocabulary: PhoneVocabulary) -> int:
    """Return the token of a phone of ARPAbet, with or without its stress."""
    ipa = ARPABET.get(phone) or ARPABET.get(phone.rstrip("012"))
    if ipa not in vocabulary.phone_ids:
        raise ValueError(f"unknown phone {phone}")
    return vocabulary.phone_ids[ipa]


def pronunciations(
    dictionary: Mapping[str, list[int]],
    g2p: Mapping[str, Tensor],
    config: G2PConfig,
    vocabulary: PhoneVocabulary,
) -> bytes:
    """Return the file of a `PhoneTokenizer`; the same for the same inputs."""
    lines = "\n".join(f"{word} {' '.join(map(str, ids))}" for word, ids in dictionary.items())
    tensors = {_G2P + name: tensor.half().contiguous() for name, tensor in g2p.items()}
    tensors[_DICTIONARY] = torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8)
    tokens = {"phones": vocabulary.phones, "letters": vocabulary.letters}
    metadata = {
        "vocabulary": json.dumps(tokens, ensure_ascii=False),
        "g2p": json.dumps(config.as_dict(), sort_keys=True),
    }
    return _with_metadata(save(tensors), metadata)


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Add metadata to the content of a file; safetensors would write it in a random order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = {"__metadata__": dict(metadata), **json.loads(content[8:start])}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + content[start:]


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, in float32, without it."""
    return {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
