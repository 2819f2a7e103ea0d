"""What a written page holds: the sound that fits, and for an anonymous one no names."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.page import clips
from hearback.engine.page.clips import Sound
from hearback.engine.page.content import (
    DataSummary,
    Estimate,
    GroupResult,
    ModelResult,
    Page,
    Recordings,
    Refused,
    Verdict,
)
from hearback.engine.page.flags import AUDIO, EVERY, NO, SOME
from hearback.engine.page.writing import (
    PageOptions,
    anonymize,
    choose_clips,
    encode_sound,
    write_page,
)
from tests.engine.page.page_reader import read_page
from tests.helpers import tone

N = 6
NAMES = [f"anna-schmidt-{number}.wav" for number in range(N)]
LOSSES = [0.1, 0.9, 0.3, None, 0.5, 0.2]
PREDICTIONS = [0.9, 0.41, 0.7, None, 0.6, 0.8]
# What an anonymous page must not hold: names of files and people, notes, and sound.
PERSONAL = ("schmidt", "Anna", "Frau Berg", "sneezes", "AFhpbmcA")  # the last: an MP3's header


def make_page(*, labelled: bool = True, kind: str = "binary", people: str = "speaker") -> Page:
    labels = [1, 1, 0, 1, 0, 1] if labelled else None
    names = ["Anna S", "Frau Berg", "", "Anna S", "Anna S", "Frau Berg"]
    recordings = Recordings(
        filenames=NAMES,
        texts=["the cat"] * N,
        fields={people: names, "grade": ["1"] * N},
        labels=labels,
        predictions={"ensemble": PREDICTIONS},
        losses={"ensemble": LOSSES} if labelled else {},
        predicted_classes={"ensemble": [1] * N} if kind == "classes" else {},
        notes=["Anna sneezes"] * N,
        seconds=[0.3] * N,
    )
    groups = [
        GroupResult(people, "Frau Berg", 2, Estimate(0.5)),
        GroupResult("grade", "1", N, Estimate(0.4)),
    ]
    refused = [
        Refused(NAMES[2], 3, f"{NAMES[2]} is silent", "is 'anna-schmidt-2 b.wav' meant?"),
        Refused("left/anna-schmidt.wav", None, "a recording without a label", "add its line"),
    ]
    warnings = ["2 filenames are spelled otherwise: 'Anna.WAV' is 'anna-schmidt.wav', don't they?"]
    return Page(
        title="Did they say it?",
        made_by="Hearback",
        kind=kind,
        verdict=Verdict(["Good."], warnings),
        data=DataSummary([("recordings", str(N))], refused=refused),
        models=[ModelResult("ensemble", True, n=N, groups=groups)],
        recordings=recordings,
        label_names=("not said", "said"),
        people=people,
    )


def sound_of(index: int) -> Sound:
    return Sound(tone(200.0 + 50 * index), tone(150.0))


def write(page: Page, options: PageOptions) -> None:
    write_page(page, encode_sound(page, sound_of, options), options)


def test_the_largest_losses_are_played_first() -> None:
    # A recording without a prediction is the last: where labels are, only a fold is missing.
    assert choose_clips(make_page(), PageOptions()) == [1, 4, 2, 5, 0, 3]


def test_without_labels_unscored_and_doubtful_recordings_are_played_first() -> None:
    assert choose_clips(make_page(labelled=False), PageOptions()) == [3, 1, 4, 2, 5, 0]
    classes = make_page(labelled=False, kind="classes")
    assert choose_clips(classes, PageOptions()) == [3, 1, 4, 2, 5, 0]


@pytest.mark.parametrize("audio", AUDIO)
def test_the_page_has_the_chosen_sound_and_says_so(
    tmp_path: Path, audio: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    write(make_page(), PageOptions(out, audio))
    recordings = read_page(out)["recordings"]
    expected = [] if audio == NO else list(map(str, range(N)))
    assert sorted(recordings["clips"]) == expected
    assert recordings["filenames"] == NAMES
    said = capsys.readouterr().out
    sound = "without sound" if audio == NO else "6 of them to listen to"
    assert said.startswith(f"wrote {out}: 6 recordings, {sound} (")
    assert not clips.clips_folder(out).exists()


def test_sound_over_the_budget_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clips.encode([0], sound_of).by_index
    monkeypatch.setattr(clips, "MAX_BYTES", 2.5 * clips.n_bytes_of(clip))
    out = tmp_path / "report.html"
    write(make_page(), PageOptions(out, SOME))
    assert len(read_page(out)["recordings"]["clips"]) == 2
    assert "2 of them to listen to; 4 more did not fit in (--audio all)" in capsys.readouterr().out
    write(make_page(), PageOptions(out, EVERY))
    assert len(read_page(out)["recordings"]["clips"]) == N


def test_sound_that_is_too_large_for_a_page_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clips, "MAX_BYTES_INSIDE", 1000)
    out = tmp_path / "report.html"
    write(make_page(), PageOptions(out, EVERY))
    page = read_page(out)
    assert page["recordings"]["clips"] == {}
    assert page["clip_scripts"] == {"report_clips/0000.js": list(range(N))}
    script = (tmp_path / "report_clips" / "0000.js").read_text(encoding="utf-8")
    key = page["clip_key"]
    content = json.loads(script.removeprefix(f'hearback.addClips("{key}", ').removesuffix(");\n"))
    assert set(content) == set(map(str, range(N)))
    assert f"their sound in {tmp_path / 'report_clips'}/" in capsys.readouterr().out
    # The next page plays nothing: the scripts of this one must not stay.
    write(make_page(), PageOptions(out, NO))
    assert not (tmp_path / "report_clips").exists()


@pytest.mark.parametrize("people", ["speaker", "singers", "who reads"])
@pytest.mark.parametrize("labelled", [True, False])
def test_an_anonymous_page_has_no_names_notes_or_sound_anywhere(
    tmp_path: Path, labelled: bool, people: str
) -> None:
    page = make_page(labelled=labelled, people=people)
    open_page, out = tmp_path / "open.html", tmp_path / "report.html"
    write(page, PageOptions(open_page))
    assert all(each in open_page.read_text(encoding="utf-8") for each in PERSONAL)
    write(page, PageOptions(out, is_anonymous=True))
    html = out.read_text(encoding="utf-8")
    assert not [each for each in PERSONAL if each.lower() in _without_code(html).lower()]
    recordings = read_page(out)["recordings"]
    assert recordings["filenames"] == [f"recording {number}" for number in range(1, N + 1)]
    assert recordings["fields"] == {"grade": ["1"] * N}
    assert recordings["texts"] == ["the cat"] * N
    assert recordings["clips"] == {}


def _without_code(html: str) -> str:
    """Return a page without its scripts and styles, which know no recording."""
    for tag in ("<script>", "<style>"):
        parts = html.split(tag)
        end = tag.replace("<", "</")
        html = parts[0] + "".join(part.partition(end)[2] for part in parts[1:])
    return html


def test_an_anonymous_page_keeps_what_is_not_personal() -> None:
    page = anonymize(make_page())
    assert page.data.refused == [
        Refused("recording 3", 3, "it is silent", "is (a name) meant?"),
        Refused("another recording", None, "a recording without a label", "add its line"),
    ]
    assert page.verdict.warnings == [
        "2 filenames are spelled otherwise: (a name) is (a name), don't they?"
    ]
    assert [group.by for group in page.models[0].groups] == ["grade"]
    assert page.recordings.losses == make_page().recordings.losses


def test_an_anonymous_page_hides_the_names_of_files_in_its_words() -> None:
    page = make_page()
    verdict = Verdict(
        ["6 recordings, scored by anna.csv: 3 ok."],
        ["The ensemble of e.json is not shown."],
        [("ensemble", "of e.json, one model")],
    )
    data = replace(page.data, facts=[("corrections", "anna.csv: 2 labels changed")])
    named = replace(page, verdict=verdict, data=data, file_names=["anna.csv", "e.json"])
    hidden = anonymize(named)
    assert hidden.verdict == Verdict(
        ["6 recordings, scored by (a file): 3 ok."],
        ["The ensemble of (a file) is not shown."],
        [("ensemble", "of (a file), one model")],
    )
    assert hidden.data.facts == [("corrections", "(a file): 2 labels changed")]
    assert "anna.csv" not in str(hidden) and hidden.file_names == ()


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (PageOptions(audio=SOME, command="python report.py --data D"), "python report.py --data D"),
        (PageOptions(audio=NO, command="python report.py"), "python report.py"),
        (PageOptions(audio=EVERY, command="python report.py"), ""),
        (PageOptions(audio=SOME, is_anonymous=True, command="python report.py"), ""),
        (PageOptions(), ""),
    ],
)
def test_a_page_names_the_command_that_adds_sound_if_there_is_more(
    tmp_path: Path, options: PageOptions, command: str
) -> None:
    options = replace(options, out=tmp_path / "report.html")
    write(make_page(), options)
    assert read_page(options.out)["report_command"] == command


def test_an_anonymous_page_has_no_scripts_of_an_earlier_page_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "MAX_BYTES_INSIDE", 1000)
    out = tmp_path / "report.html"
    write(make_page(), PageOptions(out, EVERY))
    write(make_page(), PageOptions(out, EVERY, is_anonymous=True))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_refused_before_the_sound_is_encoded(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    options = PageOptions(tmp_path / "file" / "report.html")

    def refuse(_: int) -> Sound:
        raise AssertionError("encoded")

    with pytest.raises(HearbackError):
        encode_sound(make_page(), refuse, options)


def test_the_random_recordings_depend_on_the_seed_alone() -> None:
    n = 300
    page = make_page()
    losses = np.linspace(1, 0, n).tolist()
    recordings = replace(
        page.recordings, losses={"ensemble": losses}, predictions={"ensemble": [0.5] * n}
    )
    many = replace(page, recordings=recordings)
    first, again, other = (choose_clips(many, PageOptions(seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first[:150] == other[:150] == list(range(150))
