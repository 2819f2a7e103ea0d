"""Step 1 (preprocess.py): check the tables, decode the recordings, render the references."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.store import Store
from hearback.engine.audio.store_builder import build_store
from hearback.engine.data.folds import find_unlearnable_labels
from hearback.engine.data.problems import Problem, Report
from hearback.engine.errors import HearbackError
from hearback.engine.training.options import N_FOLDS
from hearback.reading.hard_negatives import (
    N_PER_TEXT,
    HardNegative,
    generate_hard_negatives,
    write_hard_negatives,
)
from hearback.reading.pairings import WITHOUT_REFERENCE
from hearback.reading.pairs import PairSource
from hearback.reading.recipe import find_recipes
from hearback.reading.references import References
from hearback.reading.render import UnrenderedTextsError, has_words, render_missing
from hearback.reading.tables import (
    LABELS,
    labels_path,
    metadata_path,
    read_labels,
    read_metadata,
    read_submission_format,
)
from hearback.reading.voices import open_voice
from hearback.reading.window_coverage import ANY_MODELS, report_uncovered
from hearback.reading.word_label_table import read_word_labels, report_disagreement, words_path


@dataclass(frozen=True)
class Tables:
    """The tables of a split, "train" or "test": the path and rows of its metadata, and problems."""

    name: str
    table: Path
    metadata: pd.DataFrame
    report: Report


@dataclass(frozen=True)
class Split(Tables):
    """A split's tables and its stored recordings."""

    store: Store


def read_tables(name: str, args: argparse.Namespace) -> Tables | None:
    """Check the tables of "train" or "test"; None if there is no metadata."""
    table = metadata_path(args.data, name)
    if not table.is_file():
        return None
    report = Report()
    metadata = read_metadata(table, report)
    labels, listed = labels_path(args.data), args.data / "submission_format.csv"
    if name == "train":
        values = np.full(len(metadata), np.nan)
        if labels.is_file():
            values = read_labels(labels, metadata, report).to_numpy()
            report.extend(find_unlearnable_labels(values, LABELS, N_FOLDS, str(labels)))
        words = words_path(args.data)
        word_labels = read_word_labels(words, metadata, report)
        report_disagreement(word_labels, words, metadata, values, report)
    if name == "test" and listed.is_file():
        read_submission_format(listed, metadata, report)
    return Tables(name, table, metadata, report)


def read_split(tables: Tables, args: argparse.Namespace) -> Split:
    """Decode the recordings of "train" or "test" that are not in the store yet."""
    table, metadata, report = tables.table, tables.metadata, tables.report
    store = build_store(metadata, args.data, table, args.store, tables.name, report=report)
    return Split(tables.name, table, metadata, report, store)


def hard_negatives_of(
    train: Split | None, args: argparse.Namespace
) -> dict[str, tuple[HardNegative, ...]]:
    """Return the hard negatives of each training text."""
    if args.hard_negatives == 0 or (args.hard_negatives is None and train is None):
        return {}
    if train is None:
        raise HearbackError(
            f"--hard_negatives needs the training texts, and {args.data} has no "
            "train_metadata.csv: put it there, or omit the flag"
        )
    texts = filter(has_words, train.metadata["expected_text"])
    n_per_text = N_PER_TEXT if args.hard_negatives is None else args.hard_negatives
    return generate_hard_negatives(texts, n_per_text, args.seed)


def save_hard_negatives(
    hard_negatives: Mapping[str, tuple[HardNegative, ...]], references: References, folder: Path
) -> None:
    """Write the table of the hard negatives with a reference, and print their number."""
    rendered = {
        text: [negative for negative in negatives if negative.text in references]
        for text, negatives in hard_negatives.items()
    }
    write_hard_negatives(rendered, folder)
    n_drawn, n_rendered = (sum(map(len, table.values())) for table in (hard_negatives, rendered))
    print(f"{n_rendered} hard negatives of {len(rendered)} texts", end="")
    print(f"; {n_drawn - n_rendered} without a reference left out" * (n_rendered < n_drawn))


def render(splits: Iterable[Split], hard_negatives: Iterable[str], args: argparse.Namespace) -> int:
    """Render missing references; return their number. Failures go into the reports."""
    options = {
        "hibari": {"voice": args.hibari_voice},
        "melo": {
            "python": args.melo_python,
            "model_dir": args.melo_model,
            "device": args.melo_device,
        },
    }
    texts = [text for split in splits for text in split.metadata["expected_text"]]
    voice = open_voice(args.voice, args.speed, **options[args.voice])
    try:
        # The check of the table has reported texts without words.
        all_texts = [*filter(has_words, texts), *hard_negatives]
        return render_missing(all_texts, voice, args.tts_data, jobs=args.jobs)
    except UnrenderedTextsError as error:
        for split in splits:
            split.report.extend(find_unrendered(split, error.failures))
        return error.n_rendered
    finally:
        voice.close()


@dataclass(frozen=True)
class Rendered:
    """The references, how many of them are new, and the hard negatives by training text."""

    references: References
    n_new: int
    hard_negatives: Mapping[str, tuple[HardNegative, ...]]


def render_all(train: Split | None, splits: Iterable[Split], args: argparse.Namespace) -> Rendered:
    """Render the missing references of the texts of the splits and of their hard negatives."""
    hard_negatives = hard_negatives_of(train, args)
    negative_texts = [each.text for negatives in hard_negatives.values() for each in negatives]
    n_new = render(splits, negative_texts, args)
    return Rendered(References(args.tts_data), n_new, hard_negatives)


def show_references(rendered: Rendered, folder: Path) -> None:
    """Print the number of references and their lengths; save the table of the hard negatives."""
    references = rendered.references
    seconds = [references.n_samples(text) / SAMPLE_RATE for text in references.texts]
    print(f"{len(references)} references in {folder}, {rendered.n_new} of them new", end="")
    if seconds:
        print(f"; {sum(seconds) / len(seconds):.1f} s on average, {max(seconds):.1f} s at most")
    if rendered.hard_negatives:
        save_hard_negatives(rendered.hard_negatives, references, folder)


def find_unrendered(split: Split, failures: Mapping[str, str]) -> Iterable[Problem]:
    """Yield a problem for each row with a text that the voice failed to render."""
    for row in split.metadata.itertuples():
        if row.expected_text in failures:
            what = f"no reference for {row.expected_text!r}: {failures[row.expected_text]}"
            cure = "change the text, or use another voice"
            yield Problem(str(split.table), row.line, what, cure, filename=row.filename)


def report_uncovered_speech(splits: Iterable[Split], references: References | None) -> None:
    """Report rows that do not fit in the models' window, as warnings: they are trained on.

    `references` is None if no model hears any.
    """
    coverages = [
        coverage
        for coverage in ANY_MODELS
        if references is not None or coverage.pairing in WITHOUT_REFERENCE
    ]
    for split in splits:
        faulty = {problem.row for problem in split.report.errors}
        metadata, is_stored = split.metadata, split.metadata["filename"].isin(split.store.entries)
        usable = metadata[is_stored & ~metadata["line"].isin(faulty)]
        if references is not None:
            usable = usable[usable["expected_text"].isin(references.texts)]
        source = PairSource(usable, references, split.store)
        report_uncovered(source, usable, str(split.table), coverages, split.report)


def join_reports(train: Tables | None, test: Tables | None) -> Report:
    """Join the reports. Errors in single test rows become warnings: infer.py handles them."""
    report = Report(train.report.problems if train else [])
    for problem in test.report.problems if test else []:
        single_row = problem.filename is not None or (problem.row or 0) > 1
        report.add(replace(problem, severity="warning") if single_row else problem)
    return report


def _is_hopeless(tables: Tables, data: Path) -> bool:
    """Return whether tables have errors that no look at the recordings can add to.

    Those of rows of the metadata and the labels are reported with those of their recordings.
    """
    words = str(words_path(data))
    return bool(tables.report.table_errors) or any(
        error.file == words for error in tables.report.errors
    )


def preprocess(args: argparse.Namespace) -> int:
    """Run step 1 with its flags; return 0, or 2 if there are errors."""
    recipes = find_recipes()
    needs_rendering = any(recipes[name].needs_rendering for name in args.models or recipes)
    if args.hard_negatives and not needs_rendering:
        raise HearbackError(
            f"--hard_negatives {args.hard_negatives}: {', '.join(args.models)} need no rendered "
            "ones; omit one of the two flags"
        )
    tables = [read_tables(name, args) for name in ("train", "test")]
    if not any(tables):
        raise HearbackError(
            f"neither train_metadata.csv nor test_metadata.csv in {args.data}: put the data there, "
            "or make a sample with `python -m hearback.reading.corpora.sample data`"
        )
    if any(_is_hopeless(each, args.data) for each in tables if each):
        print(join_reports(*tables), file=sys.stderr)
        return 2  # before anything is decoded
    train, test = (None if each is None else read_split(each, args) for each in tables)
    splits = [split for split in (train, test) if split]
    rendered = None
    try:
        if needs_rendering:
            rendered = render_all(train, splits, args)
        report_uncovered_speech(splits, rendered.references if rendered else None)
    finally:
        report = join_reports(train, test)
        if report.problems:
            print(report, file=sys.stderr)
    print(f"{sum(len(split.store) for split in splits)} recordings in {args.store}")
    if rendered is not None:
        show_references(rendered, args.tts_data)
    else:
        hears = "hears" if len(args.models) == 1 else "hear"
        print(f"no reference speech rendered: {', '.join(args.models)} {hears} none (--models)")
    return 2 if report.errors or (args.strict and report.warnings) else 0
