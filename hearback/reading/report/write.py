"""Read what the steps wrote, and write the page."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import BadStoreError, FileStore
from hearback.engine.data.problems import Problem
from hearback.engine.page.clips import read_lengths
from hearback.engine.page.content import Page
from hearback.engine.page.flags import NO
from hearback.engine.page.origin import Origin
from hearback.engine.page.writing import PageOptions, encode_sound, write_page
from hearback.engine.training.fold_files import FoldFiles
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.pretrained.folders import CONFIG, PRETRAINED, find_scorer, read_facts
from hearback.reading.references import References
from hearback.reading.report import new_recordings, out_of_fold, verdict
from hearback.reading.report.annotation import WordAnnotator
from hearback.reading.report.predictions import collect_predictions, read_words
from hearback.reading.report.sounds import Sounds, open_references
from hearback.reading.report.tables import read_scored, words_of_scores
from hearback.reading.scoring.results import Score, score_frame
from hearback.reading.tables import normalize_expected_text
from hearback.reading.text_normalizer import UnspeakableTextError
from hearback.reading.trained import TrainedModels


@dataclass(frozen=True)
class OutOfFoldSources:
    """Where the page of trained models comes from.

    Attributes:
        data: folder of the recordings.
        assets: folder of the trained folds.
        store: folder of the decoded recordings; only lengths are read, if it is there.
        tts_data: folder of the reference speech, if there is any.
        config: file of the ensemble; None for models alone.
        device: for the times of words.
    """

    data: Path = Path("data")
    assets: Path = Path("assets")
    store: Path = Path("store")
    tts_data: Path = Path("tts_data")
    config: Path | None = None
    device: str | None = None


def write_out_of_fold(
    options: PageOptions, trained: TrainedModels, sources: OutOfFoldSources
) -> None:
    """Write the page of trained models. Raises HearbackError if what it needs is not there."""
    found = collect_predictions(trained, sources.assets, sources.config)
    seconds = _find_lengths(sources, found.rows["filename"].tolist())
    words = read_words(found, sources.assets, trained.word_labels)
    page = out_of_fold.build_page(trained, found, words, seconds)
    sounds = Sounds(
        sources.data,
        found.rows["filename"].tolist(),
        found.rows["expected_text"].tolist(),
        open_references(sources.tts_data),
    )
    folds = [
        FoldFiles(sources.assets, table.model, next(iter(table.metadata_by_fold)))
        for table in found.tables
    ]
    paths = (sources.config, trained.corrected.path)
    page = replace(page, file_names=[path.name for path in paths if path is not None])
    _write(page, sounds, options, timing=folds, aligning=folds, device=sources.device)


def _write(
    page: Page,
    sounds: Sounds,
    options: PageOptions,
    *,
    timing: Sequence[FoldFiles] = (),
    aligning: Sequence[FoldFiles] = (),
    device: str | None = None,
) -> None:
    """Encode the sounds, add times and alignments to the words, and write the page.

    For the arguments see `WordAnnotator`.
    """
    plays = options.audio != NO and not options.is_anonymous
    if plays and not any(map(sounds.is_there, range(len(sounds.filenames)))):
        what = f"none of the recordings is in {sounds.folder}: name their folder with --data"
        print(what, file=sys.stderr)
    annotator = WordAnnotator(
        dict(page.recordings.words), sounds.texts, sounds.references, timing, aligning, device
    )
    encoded = encode_sound(page, sounds, options, annotator)
    recordings = replace(page.recordings, words=annotator.words)
    write_page(replace(page, recordings=recordings), encoded, options)


def _find_lengths(sources: OutOfFoldSources, filenames: Sequence[str]) -> dict[str, float]:
    """Return the lengths of training recordings in seconds, by filename, where known.

    They are those of the store, else those in the headers of the recordings.
    """
    try:
        entries = FileStore(sources.store, "train").entries
    except BadStoreError:
        entries = {}
    lengths = {name: entry.n_samples / SAMPLE_RATE for name, entry in entries.items()}
    others = [name for name in filenames if name not in lengths]
    for name, seconds in zip(others, read_lengths(sources.data, others), strict=True):
        if seconds is not None:
            lengths[name] = seconds
    return lengths


@dataclass(frozen=True)
class ScoredBy:
    """What scored recordings without labels.

    Attributes:
        config: file of the ensemble; None if unknown.
        assets: folder of its trained folds.
        name: of the scorer that the ensemble belongs to; None for none.
        card: facts of its model card.
        is_assumed: whether nobody named `config`: it may be that of a submission only.
    """

    config: Path | None
    assets: Path
    name: str | None = None
    card: Sequence[tuple[str, str]] = ()
    is_assumed: bool = False

    @classmethod
    def scorer(cls, name: str) -> "ScoredBy":
        """Return the scorer of this name, or in this folder; HearbackError if there is none."""
        folder = find_scorer(name)
        return cls(folder / CONFIG, folder, folder.resolve().name, read_facts(folder))

    @property
    def is_shipped(self) -> bool:
        """Whether it is a scorer of this package, whose name tells nothing of anyone."""
        return self.assets.parent == PRETRAINED

    def folds(self, config: EnsembleConfig | None) -> list[FoldFiles]:
        """Return a fold of each model of the ensemble, the largest weight first."""
        models = () if config is None else config.models
        ordered = sorted(models, key=lambda model: -model.weight)
        return [FoldFiles(self.assets, model.name, model.folds[0]) for model in ordered]


def write_new_recordings(
    options: PageOptions,
    scores: Path,
    data: Path,
    scored_by: ScoredBy,
    *,
    tts_data: Path,
    device: str | None = None,
    written: Origin | None = None,
) -> None:
    """Write the page of recordings without labels, of the tables `scores` and those beside it.

    `written` is the origin of `scores`, if it is known. Where their texts have reference speech,
    words get times in both, if the ensemble has a token scorer with its weights.
    """
    tables = read_scored(scores, data, written)
    if scored_by.is_assumed and not tables.is_submission:
        scored_by = ScoredBy(None, scored_by.assets)
    config = None if scored_by.config is None else EnsembleConfig.load(scored_by.config)
    origin = scores if scored_by.config is None else scored_by.config
    page = new_recordings.build_page(
        tables.scores,
        tables.words,
        scorer=scored_by.name or origin.name,
        known_limits=verdict.describe_limits(config),
        problems=tables.problems,
        card=scored_by.card,
    )
    sounds = _sounds(page, data, open_references(tts_data))
    if not scored_by.is_shipped:
        page = replace(page, file_names=[scored_by.name or origin.name])
    timing = [] if sounds.references is None else scored_by.folds(config)
    _write(page, sounds, options, timing=timing, device=device)


def _sounds(page: Page, folder: Path, references: References | None = None) -> Sounds:
    """Return the sounds of a page of new recordings, which are in `folder`."""
    recordings = page.recordings
    return Sounds(folder, recordings.filenames, list(map(_spoken, recordings.texts)), references)


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

    It has no reference speech: a scorer needs none.

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
    _write(page, _sounds(page, folder), options)


def _spoken(text: str) -> str:
    """Return a text as it is said, or as written if it cannot be."""
    try:
        return normalize_expected_text(text).text
    except UnspeakableTextError:
        return text
