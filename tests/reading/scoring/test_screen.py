"""The table on the screen is readable without colours, and in narrow terminals."""

import io

import pytest
from wcwidth import wcswidth

from hearback.reading.scoring.results import Score, WordScore
from hearback.reading.scoring.screen import Screen


def make_score(filename: str, *words: tuple[str, float], **changes: object) -> Score:
    values: dict[str, object] = {
        **{"filename": filename, "text": " ".join(word for word, _ in words)},
        **{"status": "ok", "probability": 0.5},
        "words": tuple(WordScore(word, word, value, 0.0, 0.0) for word, value in words),
    }
    return Score(**{**values, **changes})  # type: ignore[arg-type]


SCORES = [
    make_score("a.wav", ("the", 0.9), ("cat", 0.7), ("sat", 0.2)),
    make_score("deep/日本.wav", ("boy", 0.9)),
    make_score("c.wav", status="silent", probability=None, notes=("the recording is silent",)),
]


def test_doubtful_words_are_in_brackets_without_colours() -> None:
    lines = Screen(100).table(SCORES).splitlines()
    assert lines == [
        "score  status  recording      text",
        " 0.50  ok      a.wav          the cat [sat]",
        " 0.50  ok      deep/日本.wav  boy",
        "    –  silent  c.wav          the recording is silent",
        "",
        "3 recordings: 2 ok, 1 silent",
    ]


def test_names_cannot_change_what_the_terminal_shows() -> None:
    scores = [
        make_score("a\nb\x1b[31m.wav", ("boy", 0.9)),
        make_score("\u202egpj.wav", ("boy", 0.9)),
    ]
    lines = Screen(100).table(scores).splitlines()
    assert lines[1:3] == [
        r" 0.50  ok      a\nb\x1b[31m.wav  boy",
        r" 0.50  ok      \u202egpj.wav     boy",
    ]


def test_a_cure_is_shown_once() -> None:
    notes = ["is an M4A file; install av", "is a WebM file; install av", "is missing", "is missing"]
    scores = [
        make_score(f"{i}.wav", status="unreadable", probability=None, notes=("48 kHz", note))
        for i, note in enumerate(notes)
    ]
    lines = Screen(100).table(scores).splitlines()[1:5]
    assert [line.split(".wav ")[1].strip() for line in lines] == [
        "is an M4A file; install av",
        "is a WebM file; see above",
        "is missing",
        "is missing",
    ]


def test_colours_come_on_top_of_brackets_and_underlines() -> None:
    table = Screen(100, has_colours=True).table(SCORES)
    assert "the \033[33mcat\033[0m \033[31m\033[4m[sat]\033[0m" in table


@pytest.mark.parametrize("width", [20, 30, 40, 60, 100])
def test_texts_are_wrapped_at_the_width(width: int) -> None:
    text = [("word", 0.9)] * 20
    scores = [make_score("a.wav", *text)]
    lines = Screen(width).table(scores).splitlines()
    assert sum(line.count("word") for line in lines) == 20
    body = [line for line in lines if "word" in line]
    assert all(wcswidth(line) <= width for line in body)


def test_a_single_recording_is_one_recording() -> None:
    assert Screen(100).table(SCORES[:1]).endswith("1 recording: 1 ok")


def test_of_many_recordings_the_lowest_scores_are_shown() -> None:
    scores = [make_score(f"{i}.wav", ("boy", 0.9), probability=i / 100) for i in range(100)]
    lines = Screen(100).table(scores).splitlines()
    assert lines[1].split()[0] == "0.00" and len(lines) == 1 + 20 + 3
    assert lines[21] == "… the 20 lowest of 100 recordings are shown"


def test_of_many_recordings_those_without_a_score_are_shown_too() -> None:
    scores = [make_score(f"{i}.wav", ("boy", 0.9), probability=i / 100) for i in range(70)]
    silent = [unscored_of(f"s{i}.wav") for i in range(30)]
    table = Screen(100).table([*silent[:2], *scores])
    assert "s0.wav" in table and "s1.wav" in table
    assert "… the 20 lowest and 2 without a score of 72 recordings are shown" in table
    table = Screen(100).table([*silent, *scores])
    assert "… the 20 lowest and 20 of 30 without a score of 100 recordings are shown" in table
    table = Screen(100).table(silent * 3)
    assert "… 20 of 90 without a score of 90 recordings are shown" in table


def unscored_of(filename: str) -> Score:
    return Score(filename, "boy", "silent", None, notes=("the recording is silent",))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_need_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Screen.of(Terminal()).has_colours
    assert not Screen.of(io.StringIO()).has_colours
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen.of(Terminal()).has_colours
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen.of(Terminal()).has_colours
