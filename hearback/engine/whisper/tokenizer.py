"""Expected texts as a Whisper's decoder reads them: prompt, text, end."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from hearback.engine.errors import HearbackError

START, END = "<|startoftranscript|>", "<|endoftext|>"
# A multilingual Whisper is told the language and the task; an English-only one knows both.
MULTILINGUAL = ("<|en|>", "<|transcribe|>")
MULTILINGUAL_END = 50257  # the number of END there; an English-only vocabulary is one shorter
NO_TIMESTAMPS = "<|notimestamps|>"


@dataclass(frozen=True)
class Reading:
    """A text in tokens.

    `tokens` (tokens,) int64 are the prompt, the text's own and the end of text; `words` (targets,)
    int64 says of each token after the prompt which word of the text it belongs to, and the number
    of words for the end of text.
    """

    tokens: np.ndarray
    words: np.ndarray

    @property
    def n_words(self) -> int:
        """The number of the text's words."""
        return int(self.words[-1])


class TextReader:
    """Texts to tokens, with the tokenizer of a backbone."""

    def __init__(self, path: Path) -> None:
        """Load a `tokenizer.json`; HearbackError where it is missing or not a Whisper's."""
        if not path.is_file():
            raise HearbackError(f"{path}: not there; a token scorer needs its backbone's tokenizer")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust binding raises nothing more special
            raise HearbackError(f"{path}: not a tokenizer ({error})") from None
        self.path = path
        # A text may spell "<|endoftext|>" like any other letters; it must not end there.
        self._tokenizer.encode_special_tokens = True
        # The English-only tokenizers know the names of languages and tasks too, so their presence
        # tells nothing.
        multilingual = self._id(END) == MULTILINGUAL_END
        prompt = (START, *(MULTILINGUAL if multilingual else ()), NO_TIMESTAMPS)
        self.prompt = tuple(map(self._id, prompt))
        self.end = self._id(END)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise HearbackError(f"{self.path}: not a Whisper's tokenizer, it has no {token}")
        return found

    def read(self, text: str) -> Reading:
        """Return a text of at least one word as the decoder reads it.

        A capital letter begins it, for so do the transcripts that Whisper learned from: on real
        learners, untrained, that is worth 0.014 in log loss (docs/results.md).
        """
        tokens, words = list(self.prompt), []
        for place, word in enumerate((text[:1].upper() + text[1:]).split()):
            # Word by word, so that each token is of one word; Whisper's tokens never span a space.
            own = self._tokenizer.encode(f" {word}", add_special_tokens=False).ids
            tokens += own
            words += [place] * len(own)
        n_words = len(text.split())
        return Reading(
            tokens=np.array([*tokens, self.end], dtype=np.int64),
            words=np.array([*words, n_words], dtype=np.int64),
        )
