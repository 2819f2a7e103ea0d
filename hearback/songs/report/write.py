"""Read what the steps wrote, and write the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hearback.engine.data.problems import Report
from hearback.engine.page.clips import Sound, decode_if_possible
from hearback.engine.page.content import Page
from hearback.engine.page.writing import PageOptions, choose_clips, write_page
from hearback.songs import SUBFOLDER
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.report import new_recordings, out_of_fold
from hearback.songs.report.predictions import read_predictions
from hearback.songs.report.tables import read_classified
from hearback.songs.tables import read_corrected_snippets


@dataclass(frozen=True)
class OutOfFoldSources:
    """Where the page of trained models comes from.

    Attributes:
        data: folder of the labels and snippets.
        assets: folder of the trained folds.
        config: file of the ensemble; None for models alone.
        models: None for all.
        corrections: CSV of corrected labels.
    """

    data: Path = Path("data", SUBFOLDER)
    assets: Path = Path("assets", SUBFOLDER)
    config: Path | None = None
    models: Sequence[str] | None = None
    corrections: Path | None = None


def write_out_of_fold(options: PageOptions, sources: OutOfFoldSources) -> None:
    """Write the page of trained models. Raises HearbackError if what it needs is not there."""
    report = Report()
    snippets, corrected = read_corrected_snippets(sources.data, sources.corrections, report)
    found = read_predictions(snippets, sources.assets, sources.config, sources.models, corrected)
    page = out_of_fold.build_page(snippets, found, report.problems)
    _write(page, sources.data, options)


def write_new_recordings(options: PageOptions, submission: Path, data: Path, config: Path) -> None:
    """Write the page of snippets without labels in the folder `data`.

    `submission` is of the step infer, whose other tables are beside it; `config` is its ensemble.
    """
    found = read_classified(submission)
    page = new_recordings.build_page(found, SongEnsemble.load(config))
    _write(page, data, options)


def _write(page: Page, folder: Path, options: PageOptions) -> None:
    """Write a page of snippets, which are in `folder`."""

    def sound_of(index: int) -> Sound:
        recording = decode_if_possible(folder, page.recordings.filenames[index])
        return Sound(None if recording is None else recording.waveform)

    write_page(page, choose_clips(page, options), sound_of, options)
