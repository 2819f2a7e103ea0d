"""Read what the steps wrote, and write the page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import BadStoreError, Store
from hearback.engine.data.problems import Problem
from hearback.engine.page.content import Page
from hearback.engine.page.writing import PageOptions, choose_clips, write_page
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading import evaluation
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.pretrained.folders import CONFIG, find_scorer, read_facts
from hearback.reading.report import new_recordings, out_of_fold, verdict
from hearback.reading.report.predictions import read_predictions, read_words
from hearback.reading.report.sounds import (
    Sounds,
    add_divergences,
    add_times,
    open_references,
    open_timer,
)
from hearback.reading.report.tables import read_scored, words_of_scores
from hearback.reading.scoring.results import Score, score_frame
from hearback.reading.tables import speak
from hearback.reading.text_normalizer import UnspeakableTextError


@dataclass(frozen=True)
class OutOfFoldSources:
    """Where the page of trained models comes from.

    Attributes:
        data: folder of the training tables and recordings.
        assets: folder of the trained folds.
        store: folder of the decoded recordings; only lengths are read, if it is there.
        tts_data: folder of the reference speech, if there is any.
        config: file of the ensemble; None for models alone.
        models: None for all.
        causes: CSV of the causes of scores.
        corrections: CSV of corrected labels.
        device: for the times of words.
    """

    data: Path = Path("data")
    assets: Path = Path("assets")
    store: Path = Path("store")
    tts_data: Path = Path("tts_data")
    config: Path | None = None
    models: Sequence[str] | None = None
    causes: Path | None = None
    corrections: Path | None = None
    device: str | None = None


def write_out_of_fold(options: PageOptions, sources: OutOfFoldSources) -> None:
    """Write the page of trained models. Raises HearbackError if what it needs is not there."""
    metadata, causes, corrected = evaluation.read_corrected_metadata(
        sources.data, sources.causes, sources.corrections
    )
    found = read_predictions(metadata, sources.assets, sources.config, sources.models, corrected)
    words = read_words(found, sources.assets)
    seconds = read_lengths(sources.store, "train")
    page = out_of_fold.build_page(metadata, causes, found, words, seconds)
    sounds = Sounds(
        sources.data,
        found.rows["filename"].tolist(),
        found.rows["expected_text"].tolist(),
        open_references(sources.tts_data),
    )
    indices = choose_clips(page, options)
    folds = [
        FoldFiles(sources.assets, table.model, next(iter(table.metadata_by_fold)))
        for table in found.tables
    ]
    timer = open_timer(folds, sources.device) if indices else None
    if timer is not None:
        words = add_times(words, sounds, indices, timer)
    words = add_divergences(words, sounds, indices, folds, sources.device)
    page = replace(page, recordings=replace(page.recordings, words=words))
    write_page(page, indices, sounds, options)


def read_lengths(folder: Path, name: str) -> dict[str, float]:
    """Return the lengths of the recordings of a store, in seconds by filename; {} without one."""
    try:
        entries = Store(folder, name).entries
    except BadStoreError:
        return {}
    return {filename: entry.n_samples / SAMPLE_RATE for filename, entry in entries.items()}


def write_new_recordings(
    options: PageOptions,
    scores: Path,
    data: Path,
    *,
    tts_data: Path,
    config: Path | None,
    scorer: str | None = None,
) -> None:
    """Write the page of recordings without labels, of the tables `scores` and those beside it.

    `config` is the ensemble that scored them, or `scorer` the name or folder of what did; both are
    None if unknown.
    """
    tables = read_scored(scores, data)
    folder = None if scorer is None else find_scorer(scorer)
    config = folder / CONFIG if folder is not None else config
    loaded = None if config is None else EnsembleConfig.load(config)
    page = new_recordings.build_page(
        tables.scores,
        tables.words,
        scorer=scorer or (scores.name if config is None else config.name),
        known_limits=verdict.describe_limits(loaded),
        problems=tables.problems,
        card=() if folder is None else read_facts(folder),
    )
    write_scored_page(page, data, options, tts_data)


def write_scored_page(
    page: Page, folder: Path, options: PageOptions, tts_data: Path | None = None
) -> None:
    """Write a page of new recordings, which are in `folder`."""
    references = None if tts_data is None else open_references(tts_data)
    texts = list(map(_spoken, page.recordings.texts))
    sounds = Sounds(folder, page.recordings.filenames, texts, references)
    write_page(page, choose_clips(page, options), sounds, options)


def write_score_page(
    scores: Sequence[Score],
    options: PageOptions,
    *,
    folder: Path,
    scorer: str,
    config: EnsembleConfig,
    problems: Sequence[Problem] = (),
    card: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page of what `score.py` found of recordings in `folder`.

    Args:
        scores: of the recordings.
        options: of the page.
        folder: of the recordings.
        scorer: name of what scored them.
        config: its ensemble.
        problems: of the input.
        card: facts of its model card.
    """
    page = new_recordings.build_page(
        score_frame(scores),
        words_of_scores(scores),
        scorer=scorer,
        known_limits=verdict.describe_limits(config),
        problems=problems,
        card=card,
    )
    write_scored_page(page, folder, options)


def _spoken(text: str) -> str:
    """Return a text as it is said, or as written if it cannot be."""
    try:
        return speak(text).text
    except UnspeakableTextError:
        return text
