"""Edit expected texts by one word: similar-sounding substitutions, omissions, insertions."""

import numpy as np

from hearback.reading.corpora.speechocean762_lexicon import Lexicon
from hearback.reading.corpora.speechocean762_tables import Utterance

# 701 of the training half's 1,763 well-read recordings get an edited text, so that 46 % of the
# scores are 1, as in the competition. Any other part of the corpus gets the same shares.
EDITED_SHARE = 701 / 1763
EDIT_SHARES = {"omit": 152 / 701, "insert": 131 / 701}  # the rest: substitute
MIN_WORDS_TO_OMIT_ONE = 3


def substitute(words: list[str], lexicon: Lexicon, rng: np.random.Generator) -> list[str] | None:
    """Replace one word by a similar-sounding one; None if no word has any."""
    for position in rng.permutation(len(words)):
        near = lexicon.near(words[position])
        if near:
            return [*words[:position], str(rng.choice(near)), *words[position + 1 :]]
    return None


def omit(words: list[str], _: Lexicon, rng: np.random.Generator) -> list[str] | None:
    """Remove one word; None if too few would remain."""
    if len(words) < MIN_WORDS_TO_OMIT_ONE:
        return None
    position = rng.integers(len(words))
    return [*words[:position], *words[position + 1 :]]


def insert(words: list[str], lexicon: Lexicon, rng: np.random.Generator) -> list[str] | None:
    """Insert one word of the vocabulary."""
    position = rng.integers(len(words) + 1)
    return [*words[:position], str(rng.choice(list(lexicon.pronunciations))), *words[position:]]


def edit_texts(
    well_read: list[Utterance], lexicon: Lexicon, taken: set[str], rng: np.random.Generator
) -> dict[str, tuple[str, str]]:
    """Choose recordings to edit; return id -> (omit, insert or substitute, new text).

    New texts are not in `taken`, and are added to it: every edited text is unique, so its score
    cannot be memorized.
    """
    edited_count = round(EDITED_SHARE * len(well_read))
    counts = {why: round(share * edited_count) for why, share in EDIT_SHARES.items()}
    counts["substitute"] = edited_count - sum(counts.values())
    edits = {"omit": omit, "insert": insert, "substitute": substitute}
    waiting = [well_read[i] for i in rng.permutation(len(well_read))]
    edited: dict[str, tuple[str, str]] = {}
    for why, count in counts.items():
        left = count
        for utterance in waiting:
            if not left:
                break
            if utterance.id in edited:
                continue
            words = edits[why](utterance.text.split(), lexicon, rng)
            if words and (text := " ".join(words)) not in taken:
                edited[utterance.id] = (why, text)
                taken.add(text)
                left -= 1
    return edited
