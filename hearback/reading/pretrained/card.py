"""The model card of a scorer: data, licence, command, scores, and for whom it is wrong."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import hearback
from hearback.engine import cli
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.pairings import WITH_PHONES
from hearback.reading.pretrained.accuracy import WITHOUT_GRADE
from hearback.reading.pretrained.folders import show_megabytes
from hearback.reading.recipe import Recipe
from hearback.reading.scoring.statistics import PERCENTS, Statistics
from hearback.reading.scoring.status import UNSURE_ABOVE, UNSURE_BELOW

# Titles of the tables.
BY_GRADE, BY_CAUSE, AT_THRESHOLD = "By grade", "By cause of the score", "Decisions at 0.5"
_NOTES = {
    BY_GRADE: "",
    BY_CAUSE: "The log loss is that of the rows of the cause; the AUC tells them from all rows of "
    "score 1.",
    AT_THRESHOLD: "False alarms: the share of the recordings that say the text and score below "
    "0.5. Misses: the share of the others that score above it.",
}


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
_UNKNOWN = Source(
    "recordings that the builder did not describe (--source)",
    "not stated (--licence)",
    "It was not tested on readers, tasks, rooms or devices that its recordings do not have",
)
_LICENCES = {"openai": "MIT"}  # of backbones, by their owner on the hub


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the scores.

    Attributes:
        name: the scorer's.
        config: its ensemble.
        recipes: of its folds.
        n_folds: number of folds of the cross-validation.
        n_speakers: None if unknown.
        share_correct: mean score of the recordings.
        source: what the recordings are, or one of `SOURCES`.
        licence: of the recordings; "": that of the source.
        date: of the build.
        command: that built it.
        versions: of the packages that trained it.
        statistics: of the recordings.
        n_bytes: size of its folder.
    """

    name: str
    config: EnsembleConfig
    recipes: Sequence[Recipe]
    n_folds: int
    n_speakers: int | None
    share_correct: float
    source: str
    licence: str
    date: str
    command: str
    versions: Mapping[str, str]
    statistics: Statistics
    n_bytes: int


def write(facts: CardFacts, sections: Mapping[str, pd.DataFrame]) -> str:
    """Return the card, in Markdown; `sections` are tables of texts by title."""
    source = _source(facts)
    parts = [
        f"# {facts.name}",
        _what_it_is(facts),
        _facts_table(facts, source),
        f"Recordings: {source.description}.",
        "Built in a folder with `data/` and `assets/` by",
        f"```\n{facts.command}\n```",
        "## How well it does",
        _how_measured(facts),
        *(
            part
            for title, frame in sections.items()
            for part in (f"### {title}", _NOTES[title], _table(frame))
        ),
        "## For whom it is wrong",
        f"{source.limits}.",
        f"The middle 90 % of its recordings: {_ranges(facts.statistics)}. Longer, noisier or other "
        "recordings may score lower though they are well read: `score.py` prints a line where a "
        "set of recordings is unlike these.",
        "A score says how likely it is that the whole text was said, not how well it was read. "
        f"Scores between {UNSURE_ABOVE} and {UNSURE_BELOW} (`unsure`) should be checked by ear. "
        "Decide nothing about a child by a score alone.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _source(facts: CardFacts) -> Source:
    known = SOURCES.get(facts.source)
    if known is None:
        known = replace(_UNKNOWN, description=facts.source or _UNKNOWN.description)
    return replace(known, licence=facts.licence or known.licence)


def _what_it_is(facts: CardFacts) -> str:
    """Return the card's first sentence, which `list` shows."""
    recipe, pairs = facts.recipes[0], [recipe.pair for recipe in facts.recipes]
    members = [
        _counted(pairs.count("tokens"), "an adapted decoder", "adapted decoders"),
        _counted(
            pairs.count("segments"), "a head on segments of phones", "heads on segments of phones"
        ),
    ]
    return (
        f"English reading: {' and '.join(filter(None, members))}, on the frozen encoder of "
        f"{recipe.backbone}, {facts.config.n_rows} recordings, {facts.date}."
    )


def _counted(n: int, one: str, several: str) -> str:
    """Return nothing, `one`, or the number and `several`."""
    return f"{n} {several}" if n > 1 else one * n


def _facts_table(facts: CardFacts, source: Source) -> str:
    backbone = facts.recipes[0].backbone
    recogniser = ""
    if any(recipe.pair in WITH_PHONES for recipe in facts.recipes):
        recogniser = (
            "; the recogniser of phones of the PyPI wheel hama 1.7.0, licence: Apache-2.0, and "
            "CMU's dictionary, licence: BSD"
        )
    page = f"https://huggingface.co/{backbone}"
    licence = _LICENCES.get(backbone.partition("/")[0], "see there")
    speakers = "" if facts.n_speakers is None else f" of {facts.n_speakers} speakers"
    models = "; ".join(
        f"{model.name} folds {' '.join(map(str, model.folds))} (weight {model.weight:.3f})"
        for model in facts.config.models
    )
    if facts.config.words and facts.config.words_weight:
        shares = facts.config.words.weight_of.items()
        of_words = ", ".join(f"{name} {share:.2f}" for name, share in shares)
        models += f"; their words together (weight {facts.config.words_weight:.3f}: {of_words})"
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    lines = {
        "models": f"{models}, of {facts.n_folds} folds",
        "backbone": f"{page}, licence: {licence}{recogniser}; not in this folder, downloaded once",
        "learned from": f"{facts.config.n_rows} recordings{speakers}, of which "
        f"{facts.share_correct:.0%} say the text",
        "licence of the recordings": source.licence,
        "licence of this scorer": "that of Hearback, MIT; name the source of the recordings",
        "built": f"{facts.date} with Hearback {hearback.__version__} ({versions})",
        "size": show_megabytes(facts.n_bytes),
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in lines.items())])


def _how_measured(facts: CardFacts) -> str:
    unit = "recordings" if facts.n_speakers is None else "speakers"
    return (
        "Out of fold: each recording was scored by the one fold of each model that did not learn "
        f"from it, and weights and calibration are cross-fitted over {unit}. Brackets are 95 % "
        f"intervals of a bootstrap over {unit}. The folds of this scorer are averaged, which these "
        f"scores of single folds do not show. “{WITHOUT_GRADE}” is what you get where your table "
        "has no grades. Log losses are in nats; a coin has 0.693."
    )


def _ranges(statistics: Statistics) -> str:
    """Return the 5 % and 95 % percentiles of what is known of the recordings."""
    names = {"seconds": "s", "contrast_db": "dB above the noise", "letters_per_second": "letters/s"}
    low, high = PERCENTS.index(5), PERCENTS.index(95)
    return ", ".join(
        f"{values[low]:.1f} to {values[high]:.1f} {unit}"
        for name, unit in names.items()
        if (values := statistics["percentiles"].get(name))
    )


def _table(frame: pd.DataFrame) -> str:
    """Return a table of texts in Markdown."""
    header = [str(frame.index.name), *map(str, frame.columns)]
    rows = [
        [str(name), *map(str, row)] for name, row in zip(frame.index, frame.values, strict=True)
    ]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def command_line() -> str:
    """Return the command that runs this process, its absolute paths shortened to their names."""
    words = [_shortened(word) for word in sys.argv[1:]]
    return shlex.join([*cli.program(), *words])


def _shortened(word: str) -> str:
    # The path itself may have a "=".
    flag, equals, value = ("", "", word) if Path(word).is_absolute() else word.partition("=")
    path = Path(value)
    return f"{flag}{equals}{path.name}" if path.is_absolute() else word
