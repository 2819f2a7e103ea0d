"""TextGrids cover their clips, and Praat can read them."""

import itertools
import re
from pathlib import Path

import pytest

from hearback.engine.errors import HearbackError
from hearback.reading.scoring.results import Score, WordScore
from hearback.reading.scoring.textgrid import (
    check_replaceable,
    format_textgrid,
    textgrid_paths,
    write_textgrids,
)


def make_score(*words: WordScore, **changes: object) -> Score:
    values = {"filename": "a.wav", "text": "x", "status": "ok", "probability": 0.9, "seconds": 2.0}
    return Score(**{**values, "words": words, **changes})  # type: ignore[arg-type]


def read(textgrid: str) -> dict[str, list[tuple[float, float, str]]]:
    """Read Praat's long format, as its manual describes it: values in order, the rest ignored."""
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    for tier in re.split(r"item \[\d+\]:", textgrid)[1:]:
        found = re.search(r'name = "(.*)"', tier)
        assert found
        values = re.findall(r'xmin = (\S+)\s+xmax = (\S+)\s+text = "((?:[^"]|"")*)"', tier)
        size = re.search(r"intervals: size = (\d+)", tier)
        assert size and int(size[1]) == len(values)
        tiers[found[1]] = [(float(a), float(b), t.replace('""', '"')) for a, b, t in values]
    return tiers


def assert_covers(intervals: list[tuple[float, float, str]], seconds: float) -> None:
    assert intervals[0][0] == 0 and intervals[-1][1] == seconds
    assert all(start < end for start, end, _ in intervals)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(intervals))


def test_words_and_scores_are_intervals() -> None:
    textgrid = format_textgrid(
        make_score(
            WordScore("the", "The", 0.9, 0.25, 0.5),
            WordScore("cat", "cat", 0.123, 0.5, 1.0),
            WordScore("sat", "sat", None, 1.5, 1.75),
        )
    )
    assert textgrid.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n')
    tiers = read(textgrid)
    assert tiers["words"] == [
        (0, 0.25, ""),
        (0.25, 0.5, "the"),
        (0.5, 1.0, "cat"),
        (1.0, 1.5, ""),
        (1.5, 1.75, "sat"),
        (1.75, 2.0, ""),
    ]
    assert [text for *_, text in tiers["scores"]] == ["", "0.90", "0.12", ""]


@pytest.mark.parametrize(
    "times",
    [
        [(0.0, 1.0), (0.5, 1.5)],  # overlapping
        [(0.5, 1.0), (0.5, 1.0)],  # the same
        [(0.5, 0.5), (0.5, 0.5)],  # without length
        [(0.0, 2.5), (2.5, 3.0)],  # beyond the end
        [(1.9999, 2.0), (2.0, 2.0)],
    ],
)
def test_odd_times_still_cover_the_clip(times: list[tuple[float, float]]) -> None:
    score = make_score(*(WordScore("w", "w", 0.5, *span) for span in times))
    for intervals in read(format_textgrid(score)).values():
        assert_covers(intervals, 2.0)


def test_quotes_are_doubled() -> None:
    textgrid = format_textgrid(make_score(text='say "hi"', status="too_long", probability=None))
    assert 'text = "say ""hi"""' in textgrid
    tiers = read(textgrid)
    assert tiers == {"words": [(0, 2, 'say "hi"')], "scores": [(0, 2, "too_long")]}


def test_words_of_no_length_stay_in_the_order_of_the_text() -> None:
    words = [("us", 0.2, 0.9), ("who", 0.9, 0.9), ("you", 0.9, 0.9), ("are", 0.9, 0.9)]
    scored = [
        WordScore(word, word, at / 10, start, end) for at, (word, start, end) in enumerate(words)
    ]
    tiers = read(format_textgrid(make_score(*scored)))
    assert [text for *_, text in tiers["words"] if text] == ["us who you are"]
    assert [text for *_, text in tiers["scores"] if text] == ["0.00 0.10 0.20 0.30"]


def test_words_of_no_length_at_the_beginning_belong_to_the_next_one() -> None:
    words = [WordScore(word, word, 0.5, 0.0, 0.0) for word in ("the", "cat")]
    tiers = read(format_textgrid(make_score(*words, WordScore("sat", "sat", 0.9, 1.0, 1.5))))
    assert [text for *_, text in tiers["words"] if text] == ["the cat sat"]
    tiers = read(format_textgrid(make_score(*words)))
    assert [text for *_, text in tiers["words"]] == ["the cat"]


def test_somebodys_annotations_are_not_replaced(tmp_path: Path) -> None:
    scores = [make_score(filename="a.wav")]
    write_textgrids(scores, tmp_path)
    paths = textgrid_paths(["a.wav", ""], tmp_path).values()
    check_replaceable(paths)  # of an earlier run
    (tmp_path / "a.TextGrid").write_text('class = "IntervalTier"\nname = "phones"')
    with pytest.raises(HearbackError, match=r"a\.TextGrid: is there, and is no TextGrid of sc"):
        check_replaceable(paths)


def test_a_file_for_each_clip_of_known_length(tmp_path: Path) -> None:
    names = ["a.wav", "a.mp3", "deep/b.wav", "d.wav"]
    scores = [make_score(filename=name) for name in names]
    scores[3] = make_score(filename="d.wav", seconds=None, status="unreadable", probability=None)
    assert write_textgrids(scores, tmp_path / "all") == 3
    assert written(tmp_path / "all") == ["a.mp3.TextGrid", "a.wav.TextGrid", "deep/b.wav.TextGrid"]
    # One that could not be read takes no part, but its name does.
    scores[1] = make_score(filename="A.mp3", seconds=None, status="unreadable", probability=None)
    assert write_textgrids([*scores, scores[0]], tmp_path / "two") == 2
    assert written(tmp_path / "two") == ["a.wav.TextGrid", "deep/b.wav.TextGrid"]
    assert write_textgrids([*scores[2:], make_score(filename="")], tmp_path / "one") == 1
    assert written(tmp_path / "one") == ["deep/b.TextGrid"]


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.TextGrid"))
