"""A report of problems can be read: equal faults, and equal cures, stand once."""

from hearback.engine.data.problems import Problem, Report


def test_a_cure_of_several_faults_stands_once_below_them() -> None:
    rows = [
        ("is an M4A file", "install av", "a.m4a"),
        ("is missing", "put it there", "b.wav"),
        ("is a WebM file", "install av", "c.webm"),
        ("is an M4A file", "install av", "d.m4a"),
    ]
    problems = [Problem("t.csv", 2 + i, *row[:2], filename=row[2]) for i, row in enumerate(rows)]
    assert str(Report(problems)).splitlines() == [
        "4 errors",
        "",
        "t.csv",
        "  error: is an M4A file",
        "    line 2 ('a.m4a')",
        "    line 5 ('d.m4a')",
        "  error: is a WebM file",
        "    line 4 ('c.webm')",
        "    -> install av",
        "  error: is missing",
        "    line 3 ('b.wav')",
        "    -> put it there",
    ]


def test_of_many_faults_the_first_are_listed() -> None:
    problems = [Problem("t.csv", i, f"fault {i}", f"cure {i % 3}") for i in range(250)]
    lines = str(Report(problems)).splitlines()
    assert sum("error: " in line for line in lines) == 200
    assert lines[-1] == "  … and 50 other faults"
