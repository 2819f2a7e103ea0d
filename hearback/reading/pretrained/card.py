"""The model card of a scorer: data, licence, command, scores, and for whom it is wrong."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

import hearback
from hearback.engine import cli
from hearback.engine.evaluation.bootstrap import MIN_GROUPS
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.pairings import WITH_PHONES
from hearback.reading.pretrained.accuracy import WITHOUT_GRADE
from hearback.reading.pretrained.folders import show_megabytes
from hearback.reading.pretrained.sources import SOURCES, UNKNOWN, Source
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
        source: what the recordings are, or one of `SOURCES`; None: not described.
        licence: of the recordings; None: that of the source.
        scorer_licence: of the scorer itself.
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
    source: str | None
    licence: str | None
    scorer_licence: str
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
    known = SOURCES.get(facts.source or "")
    if known is None:
        known = replace(UNKNOWN, description=facts.source or UNKNOWN.description)
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
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    lines = {
        "models": describe_models(facts.config, facts.n_folds),
        "backbone": f"{page}, licence: {licence}{recogniser}; not in this folder, downloaded once",
        "learned from": f"{facts.config.n_rows} recordings{speakers}, of which "
        f"{facts.share_correct:.0%} say the text",
        "licence of the recordings": source.licence,
        "licence of this scorer": facts.scorer_licence,
        "built": f"{facts.date} with Hearback {hearback.__version__} ({versions})",
        "size": show_megabytes(facts.n_bytes),
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in lines.items())])


def describe_models(config: EnsembleConfig, n_folds: int) -> str:
    """Return what each model is used for, and how much it counts; `n_folds` were trained."""
    shares = config.words.weight_of if config.words and config.words_weight else {}
    parts = []
    for model in sorted(config.models, key=lambda each: -each.weight):
        uses = []
        if model.weight or model.name not in shares:
            uses.append(f"whole recordings (weight {model.weight:.3f})")
        if model.name in shares:
            uses.append("single words" if uses else "single words only")
        folds = " ".join(map(str, model.folds))
        parts.append(f"{model.name} folds {folds} of {n_folds} scores {' and '.join(uses)}")
    if shares:
        of_words = ", ".join(f"{share:.0%} by {name}" for name, share in shares.items())
        parts.append(
            "the score that follows from the words counts, too "
            f"(weight {config.words_weight:.3f}; {of_words})"
        )
    return "; ".join(parts)


def _how_measured(facts: CardFacts) -> str:
    unit = "recordings" if facts.n_speakers is None else "speakers"
    return (
        "Out of fold: each recording was scored by the one fold of each model that did not learn "
        f"from it, and weights and calibration are cross-fitted over {unit}. Brackets are 95 % "
        f"intervals of a bootstrap over {unit}; “[–]”: fewer than {MIN_GROUPS} {unit} (for an AUC, "
        "of the right or of the wrong ones), whose interval would be far too narrow. The folds of "
        "this scorer are averaged, which these "
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
