"""The JSON of scores, and the warnings of recordings that are too long."""

from hearback.engine.audio.notes import NotesProblem
from hearback.engine.data.problems import Report
from hearback.reading.scoring.outputs import as_json
from hearback.reading.scoring.recordings import drop_conversions, refuse_cut
from hearback.reading.scoring.results import Score, WordScore, score_frame


def test_json_has_the_scores_of_the_table() -> None:
    word = WordScore("a", "a", 0.123456, 1.8299999999999998, None)
    scores = [Score("a.wav", "a", "ok", 0.987654, (word,), 2.0000001)]
    problems = [NotesProblem.of("t.csv", 2, "a.wav", [("2 channels", "conversion")], "mono one")]
    found = as_json(scores, problems, "tiny")
    row = found["scores"][0]
    assert row["probability"] == score_frame(scores)["score"][0] == 0.9877
    assert row["seconds"] == 2.0
    assert (row["words"][0]["start_seconds"], row["words"][0]["end_seconds"]) == (1.83, None)
    assert found["problems"] == [
        {
            **{"file": "t.csv", "row": 2, "what": "2 channels", "severity": "warning"},
            **{"cure": "used as converted; where there is a mono one, use that"},
            **{"filename": "a.wav", "status": ""},
        }
    ]


def test_conversions_that_lose_nothing_are_no_problem() -> None:
    report = Report()
    for name, note in (("a.wav", ("48 kHz", "usual")), ("b.wav", ("8 kHz", "conversion"))):
        report.add(NotesProblem.of("t.csv", 2, name, [note], "mono original"))
    drop_conversions(report)
    assert [problem.filename for problem in report.problems] == ["b.wav"]


def test_cut_recordings_are_said_to_have_no_score() -> None:
    report = Report()
    notes = [("660 s long, only the first 600 s are kept", "cut"), ("2 channels", "conversion")]
    report.add(NotesProblem.of("t.csv", 2, "a.wav", notes, "mono original"))
    refuse_cut(report)
    (found,) = report.problems
    assert found.what == "not scored: 660 s long, only the first 600 s are kept"
    assert (found.status, found.severity) == ("too_long", "error")
    assert found.cure == "split the recording and its text"
