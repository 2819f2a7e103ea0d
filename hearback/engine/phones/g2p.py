"""The phones of written words: a small recurrent network that reads letters and writes phones.

An encoder of letters (a convolution and two bidirectional GRUs) and a decoder (two GRUs with
attention to the letters, which moves little from phone to phone). It computes what the
grapheme-to-phoneme model of the PyPI wheel `hama` computes, for many words at once.

    g2p = load_tokenizer(Path("assets/hama-phones")).g2p
    g2p.phones("cat")  # ("k", "æ", "t")
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearback.engine.phones.vocabulary import END, PAD, START, UNKNOWN, PhoneVocabulary

BATCH = 512  # words of the same length
# What the attention loses for each letter away from where it was.
_DISTANCE_PENALTY = 0.1


@dataclass(frozen=True)
class G2PConfig:
    """Sizes of a `G2PNetwork`.

    Attributes:
        n_letters: tokens of the encoder.
        n_phones: tokens of the decoder.
        embedding: width of the tokens' vectors.
        hidden: width of the GRUs.
        frontend_kernel: letters that the encoder's convolution sees; odd.
        location_width: features of where the attention was.
        location_kernel: letters that those see; odd.
        max_letters: letters of a word that are read.
        max_phones: phones of a word that are written.
    """

    n_letters: int = 19750
    n_phones: int = 189
    embedding: int = 80
    hidden: int = 96
    frontend_kernel: int = 5
    location_width: int = 16
    location_kernel: int = 11
    max_letters: int = 128
    max_phones: int = 32

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "G2PConfig":
        """Read the sizes from a JSON object. Raises ValueError for unknown or invalid ones."""
        if unknown := config.keys() - cls.__dataclass_fields__:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        for name, value in config.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {str(value)[:40]!r}")
        return cls(**config)

    def as_dict(self) -> dict[str, int]:
        """Return the sizes as a JSON object."""
        return asdict(self)


class GraphemeToPhone:
    """Phones of words. Words that were asked for before are not computed again."""

    def __init__(self, network: "G2PNetwork", vocabulary: PhoneVocabulary) -> None:
        self.network = network.eval()
        self.vocabulary = vocabulary
        self._known: dict[str, tuple[str, ...]] = {"": ()}

    def phones(self, word: str) -> tuple[str, ...]:
        """Return a word's phones, all of them in the vocabulary; none for a word without letters.

        Upper case is read as lower case, and a character that is not in the vocabulary as unknown.
        Raises ValueError for a text with a space.
        """
        return self.phones_of([word])[word]

    def phones_of(self, words: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return the phones of each of the words, as `phones`; in batches, faster than one by one.

        What is computed for a word does not depend on the other words.
        """
        words = list(dict.fromkeys(words))
        by_length: dict[int, list[tuple[str, list[int]]]] = {}
        for word in words:
            if word not in self._known:
                letters = self._letters(word)
                by_length.setdefault(len(letters), []).append((word, letters))
        for same in by_length.values():
            for start in range(0, len(same), BATCH):
                batch = same[start : start + BATCH]
                found = self._decode([letters for _, letters in batch])
                self._known.update(zip((word for word, _ in batch), found, strict=True))
        return {word: self._known[word] for word in words}

    def ids(self, word: str) -> tuple[int, ...]:
        """Return the ids of a word's phones, which are the recogniser's too."""
        return tuple(self.vocabulary.phone_ids[phone] for phone in self.phones(word))

    def _letters(self, word: str) -> list[int]:
        """Return the ids of a word's letters; Korean syllables are read as their parts."""
        if any(map(str.isspace, word)):
            raise ValueError(f"{word!r} is no single word")
        parts = (
            unicodedata.normalize("NFD", letter) if "가" <= letter <= "힣" else letter
            for letter in word.lower()
        )
        ids = self.vocabulary.letter_ids
        letters = [ids.get(part, ids[UNKNOWN]) for part in "".join(parts)]
        return letters[: self.network.config.max_letters]

    def _decode(self, letters: list[list[int]]) -> list[tuple[str, ...]]:
        """Return the phones of words of the same length."""
        device = self.network.bridge.weight.device
        ids, vocabulary = self.vocabulary.phone_ids, self.vocabulary
        tokens = self.network.decode(
            torch.tensor(letters, device=device),
            padding=vocabulary.letter_ids[PAD],
            start=ids[START],
            end=ids[END],
        )
        return [self._spoken(row) for row in tokens.tolist()]

    def _spoken(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Return the phones up to the end, without padding."""
        ids, phones = self.vocabulary.phone_ids, self.vocabulary.phones
        spoken: list[str] = []
        for token in tokens:
            if token == ids[END]:
                break
            if token == ids[PAD] or (token == ids[START] and not spoken):
                continue
            spoken.append(phones[token])
        return tuple(spoken)


class G2PNetwork(nn.Module):
    """The encoder of letters and the decoder of phones."""

    def __init__(self, config: G2PConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or G2PConfig()
        width, hidden = config.embedding, config.hidden
        self.letters = nn.Embedding(config.n_letters, width)
        kernel = config.frontend_kernel
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.pointwise = nn.Linear(width, width, bias=False)
        self.frontend_norm = nn.LayerNorm(width)
        self.encoder1 = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.encoder2 = nn.GRU(2 * hidden, hidden, batch_first=True, bidirectional=True)
        self.encoder_residual = nn.Linear(width, 2 * hidden, bias=False)
        self.encoder_norm = nn.LayerNorm(2 * hidden)
        self.keys = nn.Linear(2 * hidden, hidden, bias=False)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.decoder = G2PDecoder(config)

    @torch.no_grad()
    def decode(self, letters: Tensor, *, padding: int, start: int, end: int) -> Tensor:
        """Return the most likely phones, one after the other.

        Args:
            letters: (batch, letters) int64, ids of words of the same length.
            padding: id of the letter before and behind a word.
            start: id of the phone before a word.
            end: id of the phone behind a word.

        Returns:
            (batch, phones) int64, up to `max_phones`; what follows an `end` is to be ignored.
        """
        encoded, states = self.encode(letters, padding)
        keys = self.keys(encoded)
        attention = torch.full(letters.shape, 1 / letters.shape[1], device=letters.device)
        token = torch.full((len(letters),), start, device=letters.device)
        is_done = torch.zeros_like(token, dtype=torch.bool)
        tokens = []
        for _ in range(self.config.max_phones):
            logits, states, attention = self.decoder(token, encoded, keys, attention, states)
            token = logits.argmax(-1)
            tokens.append(token)
            is_done |= token == end
            if is_done.all():
                break
        return torch.stack(tokens, dim=1)

    def encode(self, letters: Tensor, padding: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return encoded letters and the decoder's first states.

        Returns:
            (batch, letters, 2 * hidden), and two of (batch, hidden).
        """
        margin = self.config.frontend_kernel // 2
        # Behind a word the letters are padding, before it there is nothing.
        embedded = self.letters(F.pad(letters, (0, margin), value=padding))
        seen = F.pad(embedded.transpose(1, 2), (margin, 0))
        mixed = self.pointwise(self.depthwise(seen).transpose(1, 2))
        x = self.frontend_norm(embedded[:, : letters.shape[1]] + mixed)
        first, last1 = self.encoder1(x)
        second, last2 = self.encoder2(first)
        encoded = self.encoder_norm(second + self.encoder_residual(x))
        # Both directions of a GRU, one behind the other.
        states = [self.bridge(torch.cat([*last], dim=-1)).tanh() for last in (last1, last2)]
        return encoded, (states[0], states[1])


class G2PDecoder(nn.Module):
    """One step of the decoder: the next phone of each word."""

    def __init__(self, config: G2PConfig) -> None:
        super().__init__()
        width, hidden, location = config.embedding, config.hidden, config.location_width
        self.phones = nn.Embedding(config.n_phones, width)
        self.residual = nn.Linear(width, hidden, bias=False)
        kernel = config.location_kernel
        self.location_conv = nn.Conv1d(1, location, kernel, padding=kernel // 2, bias=False)
        self.location = nn.Linear(location, hidden, bias=False)
        self.gru1 = nn.GRUCell(width, hidden)
        self.gru2 = nn.GRUCell(hidden, hidden)
        self.state_norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.energy = nn.Linear(hidden, 1, bias=False)
        self.context_norm = nn.LayerNorm(2 * hidden)
        self.fusion = nn.Linear(3 * hidden, hidden)
        self.fusion_norm = nn.LayerNorm(hidden)
        self.output_in = nn.Linear(hidden, width)
        self.output = nn.Linear(width, config.n_phones, bias=False)

    def forward(
        self,
        token: Tensor,
        encoded: Tensor,
        keys: Tensor,
        attention: Tensor,
        states: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Compute the logits of the next phone.

        Args:
            token: (batch,) int64, the phone before.
            encoded: (batch, letters, 2 * hidden).
            keys: (batch, letters, hidden).
            attention: (batch, letters), where it was; its sum is 1.
            states: of the two GRUs, (batch, hidden) each.

        Returns:
            (batch, n_phones) logits, the new states and the new attention.
        """
        embedded = self.phones(token)
        first = self.gru1(embedded, states[0])
        second = self.gru2(first, states[1])
        state = self.state_norm(second + self.residual(embedded))
        location = self.location(self.location_conv(attention[:, None]).transpose(1, 2))
        energy = self.energy((self.query(state)[:, None] + keys + location).tanh())[..., 0]
        places = torch.arange(attention.shape[1], device=attention.device, dtype=attention.dtype)
        centre = (attention * places).sum(-1, keepdim=True)
        attention = (energy - _DISTANCE_PENALTY * (places - centre).abs()).softmax(-1)
        context = self.context_norm((attention[:, None] @ encoded)[:, 0])
        fused = self.fusion_norm(self.fusion(torch.cat([state, context], dim=-1)).tanh())
        return self.output(self.output_in(fused)), (first, second), attention
