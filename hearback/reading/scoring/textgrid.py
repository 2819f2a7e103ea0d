"""Scores as TextGrids, the annotation files of Praat (https://praat.org): one for each clip."""

import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

from hearback.engine.data.filenames import portable
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write
from hearback.reading.scoring.results import Score

_OWN_TIER = b'name = "scores"'

Interval = tuple[float, float, str]  # start and end in s, and the text


def textgrid_paths(filenames: Iterable[str], folder: Path) -> dict[str, Path]:
    """Return the TextGrid of each clip.

    A clip `a/b.wav` has the file `a/b.TextGrid` in `folder`; if any two clips would have the same
    one, every clip keeps its suffix: `a/b.wav.TextGrid`.
    """
    names = list(dict.fromkeys(filter(None, filenames)))
    stems = [posixpath.splitext(portable(name))[0] for name in names]
    # Without case: some disks hold a.TextGrid and A.TextGrid to be one.
    if len({stem.casefold() for stem in stems}) < len(stems):
        stems = list(map(portable, names))
    paths = [folder / f"{stem}.TextGrid" for stem in stems]
    return dict(zip(names, paths, strict=True))


def check_replaceable(paths: Iterable[Path]) -> None:
    """Raise HearbackError if there is a TextGrid that is not of scores: somebody's work."""
    for path in paths:
        if path.exists() and _OWN_TIER not in path.read_bytes():
            raise HearbackError(
                f"{path}: is there, and is no TextGrid of scores; choose another folder with "
                "--textgrid"
            )


def write_textgrids(scores: Sequence[Score], folder: Path) -> int:
    """Write a TextGrid for each clip that could be read; return how many there are.

    Their files are those of `textgrid_paths`. The tiers are `words` and `scores`; a clip without a
    score has its status in the second. Of several rows of a clip, the first counts.
    """
    waiting = textgrid_paths((score.filename for score in scores), folder)
    n_written = 0
    for score in scores:
        if not score.seconds or (path := waiting.pop(score.filename, None)) is None:
            continue
        with atomic_write(path) as temporary:
            temporary.write_text(format_textgrid(score), encoding="utf-8")
        n_written += 1
    return n_written


def format_textgrid(score: Score) -> str:
    """Return a clip's TextGrid, in Praat's long format. The clip has a length."""
    assert score.seconds
    words, values = _intervals(score)
    tiers = {"words": _cover(words, score.seconds), "scores": _cover(values, score.seconds)}
    end = _number(score.seconds)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f"        name = {_quoted(name)}", "        xmin = 0", f"        xmax = {end}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for at, (start, stop, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{at}]:",
                f"            xmin = {_number(start)}",
                f"            xmax = {_number(stop)}",
                f"            text = {_quoted(text)}",
            ]
    return "\n".join(lines) + "\n"


def _intervals(score: Score) -> tuple[list[Interval], list[Interval]]:
    """Return the intervals of the words and of their scores; the whole clip without times."""
    assert score.seconds
    words: list[Interval] = []
    values: list[Interval] = []
    for word in score.words:
        if word.start_seconds is not None and word.end_seconds is not None:
            span = word.start_seconds, word.end_seconds
            words.append((*span, word.word))
            if word.probability is not None:
                values.append((*span, f"{word.probability:.2f}"))
    whole = (0.0, score.seconds)
    if not words:
        words = [(*whole, score.text)]
    if not values:
        shown = score.status if score.probability is None else f"{score.probability:.2f}"
        values = [(*whole, shown)]
    return words, values


def _cover(intervals: Sequence[Interval], seconds: float) -> list[Interval]:
    """Return intervals that cover 0 to `seconds` without gaps or overlaps, as Praat needs them.

    Where two overlap, the second is cut; what has no length left is given to the one before or, at
    the beginning, to the one after.
    """
    covered: list[Interval] = []
    at = 0.0
    waiting = ""
    # Words of no length, at one time, stay in the order of the text.
    for first, last, text in sorted(intervals, key=lambda interval: interval[:2]):
        start, end = max(round(first, 4), at), min(round(last, 4), seconds)
        if end <= start:
            if covered and covered[-1][2]:
                before = covered[-1]
                covered[-1] = (before[0], before[1], f"{before[2]} {text}")
            else:
                waiting += f"{text} "
            continue
        if start > at:
            covered.append((at, start, ""))
        covered.append((start, end, f"{waiting}{text}"))
        at, waiting = end, ""
    if waiting:
        return [(0.0, seconds, waiting.rstrip())]
    if at < seconds:
        covered.append((at, seconds, ""))
    return covered


def _number(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".") or "0"


def _quoted(text: str) -> str:
    """Return a text in quotes; quotes in it are doubled."""
    return '"' + text.replace('"', '""') + '"'
