"""Broken and fuzz input, a little of each kind; `python -m tests.soak.soak_input` has more."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hearback.engine.data.problems import Report
from hearback.reading.tables import LONGEST_TEXT, read_labels, read_metadata, read_submission_format
from tests.soak import fuzz

# The same examples every time, none kept: what is found is written down as a test of its own.
SAME = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize("family", [fuzz.try_audio, fuzz.try_name, fuzz.try_table])
@settings(SAME, max_examples=40)
@given(seed=SEEDS)
def test_every_input_is_read_or_refused_with_a_clear_error(
    tmp_path: Path, family: fuzz.Family, seed: int
) -> None:
    fuzz.try_family(family, np.random.default_rng(seed), tmp_path / "input")


@settings(SAME, max_examples=15)
@given(seed=SEEDS)
def test_odd_texts_are_read_as_what_they_spell(tmp_path: Path, seed: int) -> None:
    fuzz.try_family(fuzz.try_text, np.random.default_rng(seed), tmp_path / "input")


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
    fuzz.check_report(report)


LETTERS = st.characters(codec="utf-8", exclude_characters="\0\ufffd")


@settings(SAME, max_examples=200)
@given(texts=st.lists(st.text(LETTERS, max_size=40), min_size=1, max_size=5))
def test_texts_stay_to_the_letter(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "metadata.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(fuzz.HEADER)
        writer.writerows([f"{n}.wav", "deletion", text, "1"] for n, text in enumerate(texts))
    metadata = read_metadata(path, Report())
    assert metadata["expected_text"].tolist() == [text.strip() for text in texts]
    assert all(len(text.encode()) <= LONGEST_TEXT for text in texts)


@pytest.mark.parametrize("put", fuzz.CONTENTS)
def test_what_lies_under_a_name_is_a_recording_inside_or_refused(
    tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    for folder in ("data", "store", "outside"):
        (tmp_path / folder).mkdir()
    (tmp_path / "outside" / "secret.wav").write_bytes(fuzz.encoded(0, 0))
    put(tmp_path / "data" / "clüp.wav", tmp_path / "outside")
    inside = put in (fuzz.put_recording, fuzz.put_link_inside)
    assert (fuzz.store_one(tmp_path, "clüp.wav") != fuzz.REFUSED) == inside
