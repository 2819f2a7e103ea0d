"""Read what the steps wrote, and write the page."""

import sys
from dataclasses import replace
from pathlib import Path

from hearback.engine.data.paths import containing
from hearback.engine.page.clips import Sound, decode_if_possible, read_lengths
from hearback.engine.page.content import Page
from hearback.engine.page.flags import NO
from hearback.engine.page.writing import PageOptions, encode_sound, write_page
from hearback.songs.ensemble import SongEnsemble
from hearback.songs.report import new_recordings, out_of_fold
from hearback.songs.report.predictions import collect_predictions
from hearback.songs.report.tables import read_classified
from hearback.songs.trained import TrainedModels


def write_out_of_fold(
    options: PageOptions, trained: TrainedModels, data: Path, config: Path | None = None
) -> None:
    """Write the page of trained models, whose snippets are in the folder `data`.

    `config` is the file of the ensemble, None for models alone. Raises HearbackError if what it
    needs is not there.
    """
    found = collect_predictions(trained, config)
    lengths = read_lengths(data, found.rows["filename"].tolist())
    page = out_of_fold.build_page(trained, found, lengths)
    paths = (config, trained.corrected.path)
    page = replace(page, file_names=[path.name for path in paths if path is not None])
    _write(page, data, options)


def write_new_recordings(options: PageOptions, submission: Path, data: Path, config: Path) -> None:
    """Write the page of snippets without labels in the folder `data`.

    `submission` is of the step infer, whose other tables are beside it; `config` is its ensemble.
    """
    found = read_classified(submission)
    lengths = read_lengths(data, found.filenames)
    _write(new_recordings.build_page(found, SongEnsemble.load(config), lengths), data, options)


def _write(page: Page, folder: Path, options: PageOptions) -> None:
    """Write a page of snippets, which are in `folder`."""
    contained = containing(folder, follow_links=True)
    paths = map(contained, page.recordings.filenames)
    plays = options.audio != NO and not options.is_anonymous
    if plays and not any(path is not None and path.is_file() for path in paths):
        what = f"none of the snippets is in {folder}: name their folder with --data"
        print(what, file=sys.stderr)

    def sound_of(index: int) -> Sound:
        recording = decode_if_possible(folder, page.recordings.filenames[index])
        return Sound(None if recording is None else recording.waveform)

    write_page(page, encode_sound(page, sound_of, options), options)
