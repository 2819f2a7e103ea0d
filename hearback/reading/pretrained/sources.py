"""Recordings that scorers learn from, as their cards describe them."""

from dataclasses import dataclass

SCORER_LICENCE = "not stated: the owner of the scorer decides"  # unless --scorer_licence states it


@dataclass(frozen=True)
class Source:
    """Recordings that scorers learn from: what they are, their licence, and what they are not."""

    description: str
    licence: str
    limits: str


SOURCES = {
    "speechocean762": Source(
        "the training half of speechocean762 (OpenSLR 101, https://www.openslr.org/101/; Zhang et "
        "al. 2021, “speechocean762: An Open-Source Non-native English Speech Corpus For "
        "Pronunciation Assessment”, https://arxiv.org/abs/2104.01378): English sentences read "
        "aloud by children and adults whose mother tongue is Mandarin, every word rated by five "
        "experts. `python -m hearback.reading.corpora.speechocean762` makes the tables from it: a "
        "sentence with a word rated as wrong has score 0, and part of the well-read ones are "
        "paired with a text in which one word is changed, left out or added",
        "CC BY 4.0",
        "Its readers have Mandarin as their mother tongue, half of them are adults, and grades are "
        "derived from ages: it was not tested on native speakers of English, on real grades, or on "
        "children with disorders of speech. A word counts as right if the experts heard at most an "
        "accent. All recordings are sentences read in quiet rooms: it was not tested on isolated "
        "words, nonwords, other tasks, noisy classrooms or other devices",
    )
}
UNKNOWN = Source(
    "recordings that the builder did not describe (--source)",
    "not stated (--licence)",
    "It was not tested on readers, tasks, rooms or devices that its recordings do not have",
)
