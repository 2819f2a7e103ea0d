"""A few fuzz inputs of each kind; `python -m tests.soak.soak_input` runs thousands."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hearback.engine.data.problems import Report
from hearback.reading.tables import LONGEST_TEXT, read_labels, read_metadata, read_submission_format
from tests.soak.fuzz import try_family
from tests.soak.fuzz.audio_files import encoded
from tests.soak.fuzz.csv_tables import HEADER, try_table
from tests.soak.fuzz.filenames import (
    CONTENTS,
    put_link_inside,
    put_other_unicode_form,
    put_recording,
    try_name,
)
from tests.soak.fuzz.outcomes import REFUSED, Family, check_report
from tests.soak.fuzz.recordings import store_one, try_audio
from tests.soak.fuzz.texts import try_text
from tests.soak.fuzz.world_recordings import try_world_recording
from tests.soak.fuzz.world_tables import try_world_table
from tests.soak.fuzz.world_texts import try_world_text

# The same examples in every run, none stored: each fault found gets a test of its own.
SAME = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize(
    "family",
    [try_audio, try_name, try_table, try_world_recording, try_world_table, try_world_text],
)
@settings(SAME, max_examples=40)
@given(seed=SEEDS)
def test_every_input_is_read_or_refused_with_a_clear_error(
    tmp_path: Path, family: Family, seed: int
) -> None:
    try_family(family, np.random.default_rng(seed), tmp_path / "input")


@settings(SAME, max_examples=15)
@given(seed=SEEDS)
def test_odd_texts_are_tokenized_as_written(tmp_path: Path, seed: int) -> None:
    try_family(try_text, np.random.default_rng(seed), tmp_path / "input")


@settings(SAME, max_examples=200)
@given(contents=st.tuples(*[st.binary(max_size=200) | st.text(max_size=200).map(str.encode)] * 3))
def test_any_bytes_are_read_as_tables_or_reported(
    tmp_path: Path, contents: tuple[bytes, bytes, bytes]
) -> None:
    paths = [tmp_path / name for name in ("metadata.csv", "labels.csv", "format.csv")]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    report = Report()
    metadata = read_metadata(paths[0], report)
    assert len(read_labels(paths[1], metadata, report)) == len(metadata)
    assert all(read_submission_format(paths[2], metadata, report))
    check_report(report)


LETTERS = st.characters(codec="utf-8", exclude_characters="\0\ufffd")


@settings(SAME, max_examples=200)
@given(texts=st.lists(st.text(LETTERS, max_size=40), min_size=1, max_size=5))
def test_texts_are_read_exactly(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "metadata.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(HEADER)
        writer.writerows([f"{n}.wav", "deletion", text, "1"] for n, text in enumerate(texts))
    metadata = read_metadata(path, Report())
    assert metadata["written_text"].tolist() == [text.strip() for text in texts]
    assert all(len(text.encode()) <= LONGEST_TEXT for text in texts)


@pytest.mark.parametrize("put", CONTENTS)
def test_only_recordings_inside_the_data_folder_are_read(
    tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    for folder in ("data", "store", "outside"):
        (tmp_path / folder).mkdir()
    (tmp_path / "outside" / "secret.wav").write_bytes(encoded(0, 0))
    put(tmp_path / "data" / "clüp.wav", tmp_path / "outside")
    inside = put in (put_recording, put_link_inside, put_other_unicode_form)
    assert (store_one(tmp_path, "clüp.wav") != REFUSED) == inside
