"""Hard negatives: texts that differ from the spoken one by one word or one sound.

A recording of "the cat sat" is a negative example for "the hat sat", "the cat" and "the cat sat
down". Pronunciations come from the grapheme-to-phoneme rules of the voice `hibari` (PyPI
`hibari-tts`), which also cover nonwords; the distance of two words is the Levenshtein distance of
their phonemes, divided by the number of phonemes of the longer one.

The kinds and their shares follow the negatives of `corpora.speechocean762`
(https://www.openslr.org/101/): 418 substitutions, 152 omissions, 131 insertions. For training only:
inference does not import this package, nor its dependencies.
"""

from hearback.reading.hard_negatives.generator import (
    KIND_SHARES,
    HardNegativeGenerator,
    NoHardNegativeError,
    generate_hard_negatives,
)
from hearback.reading.hard_negatives.pronunciation import hibari_pronounce, phonemes_only
from hearback.reading.hard_negatives.respelling import respellings
from hearback.reading.hard_negatives.table import (
    TABLE,
    HardNegative,
    Kind,
    read_hard_negatives,
    write_hard_negatives,
)

N_PER_TEXT = 2  # number that preprocess.py renders by default, so that epochs differ

__all__ = [
    "KIND_SHARES",
    "N_PER_TEXT",
    "TABLE",
    "HardNegative",
    "HardNegativeGenerator",
    "Kind",
    "NoHardNegativeError",
    "generate_hard_negatives",
    "hibari_pronounce",
    "phonemes_only",
    "read_hard_negatives",
    "respellings",
    "write_hard_negatives",
]
