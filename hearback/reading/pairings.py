"""How a learner's recording is compared with the expected text, and what each way needs."""

from typing import Literal

#   joined              reference and learner concatenated into one waveform
#   aligned             reference and learner encoded separately, then aligned
#   tokens              the decoder scores the text's tokens given the encoded learner
#   text classifier     vectors of learner and text (sentence embedding), compared by a classifier
#   text cosine         … compared by their cosine
#   speech classifier   vectors of learner and reference speech, compared by a classifier
#   speech cosine       … compared by their cosine
Pairing = Literal[
    "joined",
    "aligned",
    "tokens",
    "text classifier",
    "text cosine",
    "speech classifier",
    "speech cosine",
]
WITH_TEXT_EMBEDDING: tuple[Pairing, ...] = ("text classifier", "text cosine")
WITHOUT_REFERENCE: tuple[Pairing, ...] = ("tokens", *WITH_TEXT_EMBEDDING)
