"""How a learner's recording is compared with the expected text, and what each way needs."""

from typing import Literal

#   joined              reference and learner concatenated into one waveform
#   aligned             reference and learner encoded separately, then aligned
#   tokens              the decoder scores the text's tokens given the encoded learner
#   phones              a recogniser of phones scores the text's phones
#   segments            the learner's encoder frames, pooled over the segment of each phone
#   text classifier     vectors of learner and text (sentence embedding), compared by a classifier
#   text cosine         … compared by their cosine
#   speech classifier   vectors of learner and reference speech, compared by a classifier
#   speech cosine       … compared by their cosine
Pairing = Literal[
    "joined",
    "aligned",
    "tokens",
    "phones",
    "segments",
    "text classifier",
    "text cosine",
    "speech classifier",
    "speech cosine",
]
WITH_TEXT_EMBEDDING: tuple[Pairing, ...] = ("text classifier", "text cosine")
SCORES_WORDS: tuple[Pairing, ...] = ("tokens", "phones", "segments")  # and learn from words' labels
WITH_PHONES: tuple[Pairing, ...] = ("phones", "segments")  # need the recogniser of phones
# At inference, in windows of up to 30 s; the others in windows of 16 s. Token scorers have fixed
# positions, which need no training, and phone scorers none. Longer recordings are split by the
# words that a token scorer finds in them.
HEARS_30_S: tuple[Pairing, ...] = SCORES_WORDS
WITHOUT_REFERENCE: tuple[Pairing, ...] = (*SCORES_WORDS, *WITH_TEXT_EMBEDDING)
