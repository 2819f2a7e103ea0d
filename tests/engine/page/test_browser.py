"""The page in a real browser: it plays, filters, remembers, and can be used by everyone."""

import csv
import functools
import http.server
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as Tab

from hearback.engine.page import clips
from hearback.engine.page.content import Attempt, Estimate, GroupResult, ModelResult, Page
from hearback.engine.page.render import render
from hearback.reading.scoring.results import Score, WordScore
from hearback.reading.scoring.textgrid import format_textgrid
from tests.engine.page.browser import chromium, grave_findings
from tests.engine.page.pages import ENCODED_SECONDS, NASTY, binary_page, classes_page

pytestmark = pytest.mark.slow

LOCAL = ("file:", "data:", "blob:")
Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages on disk, by name."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "readings": readings(),
        "unlabelled": binary_page(60, n_clips=3, labelled=False),
        "songs": classes_page(),
        "new_songs": without_labels(classes_page()),
        "silent": binary_page(40, n_clips=0),
        "anonymous": replace(binary_page(20, n_clips=0), is_anonymous=True),
    }
    paths = {}
    for name, page in pages.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(render(page), encoding="utf-8")
    return paths


def without_labels(page: Page) -> Page:
    recordings = replace(page.recordings, labels=None, losses={})
    models = [ModelResult(each.name, each.is_ensemble) for each in page.models]
    return replace(page, recordings=recordings, models=models)


@functools.cache
def readings() -> Page:
    return binary_page(300, n_clips=12)


@pytest.fixture
def open_page(browser: Browser, files: dict[str, Path]) -> Iterator[Open]:
    """Open a page; at the end it must have said nothing to the console, and loaded nothing."""
    said: list[str] = []
    requested: list[str] = []
    contexts = []

    def open_file(name: str | Path = "readings", hash_: str = "", **options: Any) -> Tab:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: requested.append(request.url))
        path = files[name] if isinstance(name, str) else name
        tab.goto(f"{path.as_uri()}{hash_}")
        return tab

    yield open_file
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in requested if not url.startswith(LOCAL)] == []


def count_of(tab: Tab) -> int:
    """Return how many recordings the page says that it lists."""
    text = tab.locator("#recordings-count").inner_text()
    return int(text.split(" ")[0].replace(",", ""))


def listed(tab: Tab) -> list[int]:
    """Return the indices of the recordings on this page of the list."""
    return tab.eval_on_selector_all(
        "#recordings-list button[data-clip]", "nodes => nodes.map(x => Number(x.dataset.clip))"
    )


def wait_until(tab: Tab, condition: str) -> None:
    """Wait until a script is true. Playwright's own wait needs `eval`, which the page forbids."""
    deadline = time.monotonic() + 20
    while not tab.evaluate(condition):
        assert time.monotonic() < deadline, condition
        tab.wait_for_timeout(5)


def wait_for_sound(tab: Tab, n_players: int = 2) -> None:
    wait_until(tab, f"Object.keys(hearback.sound.players()).length === {n_players}")


def seconds_of(tab: Tab, name: str) -> float:
    return float(tab.evaluate(f"hearback.sound.players().{name}.surfer.getCurrentTime()"))


def is_playing(tab: Tab, name: str) -> str:
    """Return the script that tells whether a player plays."""
    return f"hearback.sound.players().{name}.isPlaying"


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


# Sound


def test_play_moves_the_time_and_space_stops_it(open_page: Open) -> None:
    tab = open_page(hash_="#clip=0")
    wait_for_sound(tab)
    tab.locator("#play").click()
    wait_until(tab, "hearback.sound.players().learner.surfer.getCurrentTime() > 0.2")
    tab.locator("#recording").focus()
    tab.keyboard.press("Space")
    wait_until(tab, f"!{is_playing(tab, 'learner')}")
    assert 0.2 < seconds_of(tab, "learner") < ENCODED_SECONDS


def test_a_word_is_played_in_both_and_stops_at_its_end(open_page: Open) -> None:
    tab = open_page(hash_="#clip=0")
    wait_for_sound(tab)
    # The furthest that each was heard while it played, and the longest time in s in which the page
    # could not run: a busy machine stops no sound in it.
    tab.evaluate(
        """() => {
            window.furthest = {};
            window.longest = 0;
            let last = performance.now();
            const hear = (name, { currentTime }) => {
                window.furthest[name] = Math.max(window.furthest[name] ?? 0, currentTime);
            };
            setInterval(() => {
                const now = performance.now();
                window.longest = Math.max(window.longest, (now - last) / 1000);
                last = now;
            }, 5);
            for (const [name, player] of Object.entries(hearback.sound.players())) {
                const media = player.surfer.getMediaElement();
                setInterval(() => {
                    if (!media.paused) {
                        hear(name, media);
                    }
                }, 5);
                media.addEventListener("pause", () => {
                    hear(name, media);
                });
            }
        }"""
    )
    words = readings().recordings.words["0"]
    start, end = words.starts[2], words.ends[2]
    assert start and end
    tab.locator('button[data-word="2"]').click()
    wait_until(tab, is_playing(tab, "reference"))
    assert not tab.evaluate(is_playing(tab, "learner"))
    wait_until(tab, f"!{is_playing(tab, 'reference')}")
    for name in ("learner", "reference"):
        assert seconds_of(tab, name) == pytest.approx(end, abs=0.01)
        late = tab.evaluate(f"window.furthest.{name}") - end
        assert start - end < late <= 0.05 + 2 * tab.evaluate("window.longest")


def test_play_after_a_stop_inside_a_word_plays_on_to_the_end(open_page: Open) -> None:
    tab = open_page(hash_="#clip=0")
    wait_for_sound(tab)
    words = readings().recordings.words["0"]
    start, end = words.starts[7], words.ends[7]
    assert start and end
    learner = "hearback.sound.players().learner"
    tab.evaluate(f"{learner}.setRate(0.25)")  # time enough to stop inside
    # At once, before the browser has told of the stop; and later.
    for first, then in (("toggle(); hearback.sound.toggle()", None), ("toggle()", "toggle()")) * 2:
        tab.locator('button[data-word="7"]').click()
        # In the page: a busy machine may take longer to ask than the word does.
        at = tab.evaluate(
            f"""() => new Promise((resolve) => {{
                const look = setInterval(() => {{
                    const at = {learner}.surfer.getCurrentTime();
                    if (at <= {start} || !{learner}.isPlaying) {{
                        return;
                    }}
                    clearInterval(look);
                    hearback.sound.{first};
                    resolve(at);
                }}, 2);
            }})"""
        )
        assert at < end
        if then:
            assert seconds_of(tab, "learner") < end
            tab.evaluate(f"hearback.sound.{then}")
        wait_until(tab, f"!{is_playing(tab, 'learner')}")
        assert seconds_of(tab, "learner") == pytest.approx(ENCODED_SECONDS, abs=0.05)


def test_a_word_says_in_what_it_can_be_heard(open_page: Open, tmp_path: Path) -> None:
    page = binary_page(4, n_clips=2)
    silent = {**page.recordings.clips, "1": replace(page.recordings.clips["1"], reference="")}
    file = tmp_path / "hints.html"
    file.write_text(render(replace(page, recordings=replace(page.recordings, clips=silent))))
    for index, (n_players, hint) in enumerate(
        [(2, "Choose a word to hear it in both."), (1, "Choose a word to hear it."), (0, "")]
    ):
        tab = open_page(file, f"#clip={index}")
        wait_for_sound(tab, n_players)
        expect(tab.locator("#words-hint")).to_have_text(hint)
        tab.evaluate("hearback.state.set({ model: 'model2m' })")
        expect(tab.locator("#words-hint")).to_have_text(hint)
    tab = open_page("songs", "#clip=0")
    wait_for_sound(tab, 1)
    expect(tab.locator("#sound figcaption")).to_contain_text("Snippet")


def test_a_word_of_no_length_is_not_played(open_page: Open, tmp_path: Path) -> None:
    page = binary_page(4, n_clips=2)
    words = page.recordings.words["0"]
    ends = [words.starts[0], *words.ends[1:]]
    changed = {**page.recordings.words, "0": replace(words, ends=ends)}
    file = tmp_path / "empty.html"
    file.write_text(render(replace(page, recordings=replace(page.recordings, words=changed))))
    tab = open_page(file, "#clip=0")
    wait_for_sound(tab)
    expect(tab.locator('button[data-word="0"]')).to_be_disabled()
    expect(tab.locator('button[data-word="0"]')).to_contain_text("not heard")
    expect(tab.locator('button[data-word="1"]')).to_be_enabled()
    regions = tab.evaluate("hearback.sound.players().learner.regions.getRegions().length")
    assert regions == len(words.words) - 1


def test_another_word_ends_the_one_before(open_page: Open) -> None:
    tab = open_page(hash_="#clip=0")
    wait_for_sound(tab)
    tab.locator('button[data-word="1"]').click()
    tab.locator('button[data-word="7"]').click()
    wait_until(tab, is_playing(tab, "reference"))
    wait_until(tab, f"!{is_playing(tab, 'reference')}")
    end = readings().recordings.words["0"].ends[7]
    assert seconds_of(tab, "reference") == pytest.approx(end, abs=0.01)


def test_a_click_on_the_region_of_a_word_plays_it(open_page: Open) -> None:
    tab = open_page(hash_="#clip=0")
    wait_for_sound(tab)
    wave = tab.locator("#sound .wave").first
    box = wave.bounding_box()
    assert box
    words = readings().recordings.words["0"]
    start, end = words.starts[4], words.ends[4]
    assert start and end
    wave.click(position={"x": box["width"] * (start + end) / 2 / ENCODED_SECONDS, "y": 70})
    expect(tab.locator("#play")).to_have_attribute("aria-pressed", "true")
    wait_until(tab, is_playing(tab, "reference"))
    wait_until(tab, f"!{is_playing(tab, 'reference')}")
    assert seconds_of(tab, "learner") == pytest.approx(end, abs=0.01)
    expect(tab.locator("#play-reference")).to_have_attribute("aria-pressed", "false")


def test_the_spectrogram_is_drawn_and_slower_is_kept(open_page: Open) -> None:
    tab = open_page(hash_="#clip=1")
    wait_for_sound(tab)
    tab.locator("#slower").click()
    tab.locator("#spectrogram").click()
    wait_for_sound(tab)
    expect(tab.locator("#sound .spectrogram")).to_have_count(2)
    assert tab.evaluate("hearback.sound.players().learner.surfer.getPlaybackRate()") == 0.75
    expect(tab.locator("#spectrogram")).to_have_attribute("aria-pressed", "true")


def test_regions_of_words_say_their_score_without_colour(open_page: Open) -> None:
    tab = open_page(hash_="#clip=0")
    wait_for_sound(tab)
    words = readings().recordings.words["0"]
    for at, score in enumerate(words.scores):
        assert score is not None
        button = tab.locator(f'button[data-word="{at}"]')
        expect(button).to_contain_text(f"{score:.2f}"[:3])
        line = button.locator(".spelled").evaluate("x => getComputedStyle(x).borderBottomStyle")
        assert line == ("double" if score < 0.5 else "solid")
    regions = "hearback.sound.players().learner.regions.getRegions()"
    assert tab.evaluate(f"{regions}.length") == len(words.words)


def test_where_they_part_is_shown_only_where_the_score_is_low(open_page: Open) -> None:
    tab = open_page()
    for index in range(8):
        words = readings().recordings.words[str(index)]
        low = [
            at
            for at, (score, parts) in enumerate(zip(words.scores, words.diverges, strict=True))
            if parts and score is not None and score < 0.5
        ]
        tab.evaluate(f"hearback.state.set({{ clip: '{index}' }})")
        shown = tab.eval_on_selector_all(
            "button[data-word]:has(.divergence)", "x => x.map(each => Number(each.dataset.word))"
        )
        assert shown == low


def test_a_recording_without_sound_says_how_to_get_it(open_page: Open, tmp_path: Path) -> None:
    page = binary_page(4, n_clips=0)
    file = tmp_path / "silent.html"
    for changes, expected in (
        ({"report_command": "report.py --data D"}, "by report.py --data D --audio all."),
        ({}, "in this page: its file was not found, or cannot be read."),
        ({"is_anonymous": True}, "An anonymous page has no sound."),
    ):
        file.write_text(render(replace(page, **changes)))  # type: ignore[arg-type]
        tab = open_page(file, "#clip=3")
        expect(tab.locator("#sound")).to_contain_text(expected)
        assert tab.locator("button[data-word]:enabled").count() == 0


def test_sound_beside_the_page_is_loaded_when_it_is_needed(
    open_page: Open, tmp_path: Path, browser: Browser
) -> None:
    page = binary_page(20, n_clips=4)
    file = tmp_path / "a page.html"
    beside = {int(index): clip for index, clip in page.recordings.clips.items()}
    scripts = clips.write_scripts(beside, file, "a key")
    recordings = replace(page.recordings, clips={})
    page = replace(page, recordings=recordings, clip_scripts=scripts, clip_key="a key")
    file.write_text(render(page))
    tab = open_page(file)
    assert tab.locator('script[src*="clips"]').count() == 0
    tab.locator('button[data-clip="2"]').click()
    wait_for_sound(tab)

    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/a%20page.html#clip=2")
        wait_for_sound(tab)
        tab.close()
        server.shutdown()


def test_sound_of_another_page_is_refused(open_page: Open, tmp_path: Path) -> None:
    page = binary_page(20, n_clips=4)
    beside = {int(index): clip for index, clip in page.recordings.clips.items()}
    scripts = clips.write_scripts(beside, tmp_path / "page.html", "monday")
    silent = replace(page, recordings=replace(page.recordings, clips={}), clip_scripts=scripts)
    (tmp_path / "copy.html").write_text(render(replace(silent, clip_key="monday")))
    tab = open_page(tmp_path / "copy.html", "#clip=2")
    wait_for_sound(tab)
    # The page is made anew, in another order: the copy's scripts are replaced, or the tab is open.
    clips.write_scripts(beside, tmp_path / "page.html", "tuesday")
    for opened in (tab, open_page(tmp_path / "copy.html")):
        opened.reload()
        opened.evaluate("hearback.state.set({ clip: '1' })")
        expect(opened.locator("#sound")).to_contain_text(
            "No sound: the sound in page_clips/0000.js is that of another page, which was made "
            "later; open that one, or make this one again."
        )
        assert opened.evaluate("Object.keys(hearback.sound.players()).length") == 0


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


# What is listed


@pytest.mark.parametrize("group", ["all", "2"])
def test_a_bin_lists_its_recordings(open_page: Open, group: str) -> None:
    page = readings()
    predictions = page.recordings.predictions["ensemble"]
    grades = page.recordings.fields["grade"]
    tab = open_page(hash_=f"#group={group}")
    for number, each in enumerate(page.models[0].reliability[group]):
        button = tab.locator(f'button[data-bin="{number}"]')
        if not each.n:
            expect(button).to_be_disabled()
            continue
        button.click()
        inside = [
            index
            for index, value in enumerate(predictions)
            if value is not None
            and each.low <= value
            and (value < each.high or each.high == 1)
            and group in ("all", grades[index])
        ]
        assert count_of(tab) == each.n == len(inside)
        assert set(listed(tab)) <= set(inside)
        expect(tab.locator("#reliability-view")).to_contain_text(f"{each.n} recording")
        button.click()
        assert count_of(tab) == len(predictions)


def test_the_list_starts_with_the_largest_loss_and_can_be_sorted(open_page: Open) -> None:
    recordings = readings().recordings
    losses = known(list(recordings.losses["ensemble"]))
    order = sorted(range(len(losses)), key=lambda index: -losses[index])
    tab = open_page()
    assert listed(tab)[:20] == order[:20]
    expect(tab.locator('th:has([data-sort="loss"])')).to_have_attribute("aria-sort", "descending")
    tab.locator('[data-sort="prediction"]').click()
    predictions = known(list(recordings.predictions["ensemble"]))
    assert predictions[listed(tab)[0]] == max(predictions)
    tab.locator('[data-sort="prediction"]').click()
    assert predictions[listed(tab)[0]] == min(predictions)
    header = tab.locator('th:has([data-sort="prediction"])')
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(tab.locator('[data-sort="prediction"]')).to_be_focused()


def test_the_list_can_be_sorted_by_a_column(open_page: Open) -> None:
    grades = readings().recordings.fields["grade"]
    tab = open_page()
    tab.locator('[data-sort="f.grade"]').click()
    assert [grades[index] for index in listed(tab)] == (["K"] * 75 + ["1"] * 75)[:100]
    expect(tab.locator("#order")).to_have_value("other")


def test_likely_wrong_labels_are_those_that_no_model_believes(open_page: Open) -> None:
    losses = readings().recordings.losses
    least = [min(known(list(of_models))) for of_models in zip(*losses.values(), strict=True)]
    tab = open_page()
    tab.locator("#order").select_option("suspect")
    assert listed(tab)[0] == least.index(max(least))


def test_likely_wrong_labels_show_their_loss_and_can_be_of_one_label(open_page: Open) -> None:
    recordings = readings().recordings
    assert recordings.labels is not None
    tab = open_page(hash_="#order=suspect")
    least = min(known([of[listed(tab)[0]] for of in recordings.losses.values()]))
    cells = tab.locator("#recordings-list tbody tr").first
    expect(cells.locator("td").first).to_have_text(f"{least:.3f}")
    header = tab.locator("th", has_text="Least loss of any model")
    expect(header).to_have_attribute("aria-sort", "descending")
    tab.locator("#label-filter").select_option("0")
    assert count_of(tab) == list(recordings.labels).count(0)
    tab.locator("#chips .chip").click()
    assert count_of(tab) == len(recordings)
    tab.locator("#order").select_option("loss")
    expect(header).to_have_count(0)


def test_groups_and_filters_keep_their_order(open_page: Open) -> None:
    tab = open_page()
    choice = tab.locator("#reliability-view select option")
    assert choice.all_inner_texts() == ["all recordings", "K", "1", "2", "3"]
    values = 'select[data-field="grade"] option'
    shown = tab.eval_on_selector_all(values, "nodes => nodes.map(node => node.value)")
    assert shown == ["", "K", "1", "2", "3"]


def test_search_and_filters_narrow_the_list(open_page: Open) -> None:
    recordings = readings().recordings
    tab = open_page()
    tab.locator("#search").fill("speaker11")
    n = recordings.fields["speaker"].count("speaker11")
    assert count_of(tab) == n
    tab.locator('select[data-field="grade"]').select_option("3")
    assert (
        count_of(tab)
        == n
        == sum(
            speaker == "speaker11" and grade == "3"
            for speaker, grade in zip(
                recordings.fields["speaker"], recordings.fields["grade"], strict=True
            )
        )
    )
    tab.locator(".chip", has_text="all filters").click()
    assert count_of(tab) == len(recordings)


def test_the_list_has_pages(open_page: Open) -> None:
    tab = open_page()
    first = listed(tab)
    assert len(first) == 100
    tab.locator("#pager button", has_text="Next").click()
    assert not set(first) & set(listed(tab))
    expect(tab.locator("#recordings-count")).to_contain_text("101 to 200 shown")


def test_a_group_lists_its_recordings(open_page: Open) -> None:
    tab = open_page(hash_="#by=speaker")
    expect(tab.locator("#groups-view tbody tr")).to_have_count(10)
    tab.locator("#groups-view button", has_text="Show all 40").click()
    expect(tab.locator("#groups-view tbody tr")).to_have_count(40)
    expect(tab.locator("#groups-view tr.few")).to_have_count(40)
    tab.locator("#groups-view tbody button").first.click()
    assert set(tab.locator("td:last-child", has_text="speaker").all_inner_texts()) == {
        tab.locator("#groups-view tbody button").first.inner_text()
    }


@pytest.mark.parametrize("has_scripts", [True, False])
def test_causes_show_their_auc_and_other_groups_have_no_such_column(
    open_page: Open, tmp_path: Path, has_scripts: bool
) -> None:
    page = binary_page(60, n_clips=0)
    causes = [GroupResult("cause", "correct", 40, Estimate(0.3))]
    auc = Estimate(0.81, 0.7, 0.9)
    causes.append(GroupResult("cause", "omit", 20, Estimate(0.9), misses=Estimate(0.5), auc=auc))
    causes.append(GroupResult("cause", "all", 60, Estimate(0.5), auc=Estimate(0.8)))
    recordings = replace(page.recordings, fields={**page.recordings.fields, "cause": ["omit"] * 60})
    page = replace(page, recordings=recordings)
    first = replace(page.models[0], groups=[*page.models[0].groups, *causes])
    path = tmp_path / "causes.html"
    path.write_text(render(replace(page, models=[first, *page.models[1:]])), encoding="utf-8")
    tab = open_page(path, "#by=cause", java_script_enabled=has_scripts)
    table = tab.locator("#groups-view table").last
    assert table.locator("th[scope=col]").all_inner_texts()[-1] == "AUC"
    last = [row.locator("td").last.inner_text() for row in table.locator("tbody tr").all()]
    assert last[0] == "–" and last[1].startswith("0.810") and last[2] == "0.800"
    # A button lists the recordings of a cause.
    buttons = [table.locator("tbody tr").nth(at).locator("button").count() for at in range(3)]
    assert buttons == ([1, 1, 0] if has_scripts else [0, 0, 0])
    note = "AUC: how well all “said it” are told from those of a cause; 0.5 is chance."
    expect(tab.locator("#groups-view p").last).to_have_text(note)
    if has_scripts:
        tab.locator("#groups-view select").select_option("grade")
        assert "AUC" not in tab.locator("#groups-view th[scope=col]").all_inner_texts()


def test_a_fold_that_recovered_is_not_shown_as_stalled(open_page: Open, tmp_path: Path) -> None:
    stalled = [Attempt("stalled", "log loss 0.69")]
    curves = [
        replace(curve, attempts=[*stalled, Attempt("finished")] if curve.fold == 1 else stalled)
        for curve in readings().curves
        if curve.fold < 3 and curve.model == "modeltok"
    ]
    file = tmp_path / "curves.html"
    file.write_text(render(replace(binary_page(20, n_clips=0), curves=curves)))
    expect(open_page(file).locator("#curves-view p.stalled")).to_have_text(
        "Stalled (dashed): fold 0, 2"
    )


def test_another_model_changes_the_whole_page(open_page: Open) -> None:
    page = readings()
    tab = open_page()
    tab.locator('tr[data-model="model2m"] button').click()
    bins = page.models[3].reliability["all"]
    counts = tab.locator("#reliability-view tbody tr td:nth-child(2)").all_inner_texts()
    assert counts == [str(each.n) for each in bins]
    losses = known(list(page.recordings.losses["model2m"]))
    assert listed(tab)[0] == losses.index(max(losses))
    expect(tab.locator("#model-choice select")).to_have_value("model2m")
    expect(tab.locator('tr[data-model="model2m"] button')).to_have_attribute("aria-pressed", "true")


def test_the_status_follows_the_model(open_page: Open, tmp_path: Path) -> None:
    page = binary_page(60, n_clips=0)
    low, high = 0.3, 0.7

    def statuses(model: str) -> list[str]:
        values = known(list(page.recordings.predictions[model]))
        return ["unsure" if low < value < high else "ok" for value in values]

    fields = {**page.recordings.fields, "status": statuses("ensemble")}
    recordings = replace(page.recordings, fields=fields, words_by="modeltok")
    file = tmp_path / "status.html"
    file.write_text(render(replace(page, recordings=recordings, status_range=(low, high))))
    tab = open_page(file)
    for model in ("ensemble", "model2m"):
        expected = statuses(model)
        assert expected != statuses("modeltok")
        tab.locator(f'tr[data-model="{model}"] button').click()
        choice = tab.locator('select[data-field="status"]')
        shown = choice.locator("option").all_inner_texts()
        assert shown[1:] == [f"{each} ({expected.count(each)})" for each in ("ok", "unsure")]
        choice.select_option("unsure")
        unsure = [index for index, each in enumerate(expected) if each == "unsure"]
        assert sorted(listed(tab)) == unsure
        tab.locator(f'button[data-clip="{unsure[0]}"]').click()
        facts = tab.locator("#recording dl.facts div", has_text="Status")
        expect(facts.locator("dd")).to_have_text("unsure")
        expect(tab.locator("#recording h4", has_text="Words")).to_have_text(
            "Words, as scored by modeltok"
        )
        tab.locator('[data-sort="f.status"]').click()
        assert sorted(listed(tab)) == unsure
        choice.select_option("")


def test_the_lower_end_of_the_band_is_outside_unless_the_threshold_is_there(
    open_page: Open, tmp_path: Path
) -> None:
    page = binary_page(4, n_clips=0, labelled=False)
    values = [0.3, 0.3000001, 0.7, 0.5]
    predictions = dict.fromkeys(page.recordings.predictions, values)
    file = tmp_path / "band.html"
    recordings = replace(page.recordings, predictions=predictions)
    file.write_text(render(replace(page, unsure=(0.3, 0.7), recordings=recordings)))
    cells = open_page(file).locator("#threshold-table tbody td")
    assert cells.all_inner_texts() == ["1", "2", "1"]
    cells = open_page(file, "#t=0.3&hi=0.6").locator("#threshold-table tbody td")
    assert cells.all_inner_texts() == ["0", "3", "1"]


def test_the_threshold_counts_and_the_band_abstains(open_page: Open) -> None:
    page = readings()
    assert page.recordings.labels is not None
    predictions = known(list(page.recordings.predictions["ensemble"]))
    pairs = list(zip(predictions, page.recordings.labels, strict=True))
    tab = open_page(hash_="#t=0.6&lo=0.4&hi=0.8")
    rest = [pair for pair in pairs if not 0.4 <= pair[0] < 0.8]
    wrong = [(value >= 0.6) != label for value, label in pairs]
    wrong_rest = [(value >= 0.6) != label for value, label in rest]
    away = 100 * (1 - len(rest) / len(pairs))
    sentence = tab.locator("#threshold-sentence").inner_text()
    assert sentence == (
        f"{away:.1f} % go to a person; errors of the others fall from "
        f"{100 * sum(wrong) / len(pairs):.1f} % to {100 * sum(wrong_rest) / len(rest):.1f} %."
    )
    false_alarms = sum(value < 0.4 and label == 1 for value, label in pairs)
    expect(tab.locator("#threshold-table")).to_contain_text(f"{false_alarms} false alarm")
    tab.locator("#slider-t").focus()
    tab.keyboard.press("ArrowRight")
    expect(tab.locator('output[for="slider-t"]')).to_have_text("0.61")
    expect(tab.locator("#slider-t")).to_be_focused()


def test_the_threshold_leaves_the_band_as_it_was_chosen(open_page: Open) -> None:
    tab = open_page()

    def shown() -> list[str]:
        return [
            tab.locator(f'output[for="slider-{key}"]').inner_text() for key in ("t", "lo", "hi")
        ]

    for threshold, expected in (
        ("0.9", ["0.90", "0.35", "0.90"]),
        ("0.1", ["0.10", "0.10", "0.65"]),
        ("0.5", ["0.50", "0.35", "0.65"]),
    ):
        tab.locator("#slider-t").fill(threshold)
        assert shown() == expected
    tab.locator("#slider-lo").fill("0.5")
    tab.locator("#slider-hi").fill("0.5")
    tab.locator("#slider-t").fill("0.7")
    assert shown() == ["0.70", "0.70", "0.70"]
    tab.locator("#slider-lo").fill("0.6")
    assert shown() == ["0.70", "0.60", "0.70"]
    tab.locator("#threshold-reset").click()
    assert shown() == ["0.50", "0.35", "0.65"]


@pytest.mark.parametrize("threshold", [0.07, 0.29, 0.58, 1.0])
def test_counts_at_a_threshold_are_those_of_the_unrounded_predictions(
    open_page: Open, tmp_path: Path, threshold: float
) -> None:
    page = binary_page(4, n_clips=0, labelled=False)
    values = [threshold - 3e-7, threshold - 3e-5, threshold, threshold - 0.05]
    predictions = dict.fromkeys(page.recordings.predictions, values)
    file = tmp_path / "edges.html"
    recordings = replace(page.recordings, predictions=predictions)
    file.write_text(render(replace(page, unsure=None, recordings=recordings)))
    tab = open_page(file, f"#t={threshold}")
    assert tab.locator("#threshold-table tbody td").all_inner_texts() == ["3", "0", "1"]


def test_a_cell_of_the_confusion_matrix_lists_its_recordings(open_page: Open) -> None:
    confusion = classes_page().models[0].confusion
    assert confusion is not None
    tab = open_page("songs")
    tab.locator('[data-cell="0-1"]').click()
    assert count_of(tab) == confusion[0][1]
    expect(tab.locator("#chips")).to_contain_text("is anna, model says <b>ben</b>")
    tab.locator("button[data-clip]").first.click()
    tab.locator("#verdict-wrong_label").click()
    tab.locator("#right-label").select_option("2")
    assert tab.evaluate("hearback.verdicts.entries()[0][1].score") == "2"


def test_without_labels_the_most_doubtful_are_first(open_page: Open) -> None:
    tab = open_page("unlabelled")
    predictions = known(
        list(binary_page(60, n_clips=3, labelled=False).recordings.predictions["ensemble"])
    )
    doubts = [abs(value - 0.5) for value in predictions]
    assert listed(tab)[0] == doubts.index(min(doubts))
    expect(tab.locator("#reliability, #groups, #curves")).to_have_count(0)
    expect(tab.locator("#threshold-sentence")).to_contain_text("go to a person")
    expect(tab.locator('[data-sort="prediction"]')).to_contain_text("Score")


def test_recordings_without_a_score_go_to_a_person(open_page: Open, tmp_path: Path) -> None:
    page = binary_page(5, n_clips=0, labelled=False)
    predictions = {name: [0.9, None, 0.5, 0.1, None] for name in page.recordings.predictions}
    recordings = replace(page.recordings, predictions=predictions)
    file = tmp_path / "unscored.html"
    file.write_text(render(replace(page, unsure=(0.3, 0.7), recordings=recordings)))
    tab = open_page(file)
    expect(tab.locator("#threshold-sentence")).to_have_text(
        "60.0 % of 5 recordings go to a person (1 is in the band, 2 have no score); "
        f"1 of the others counts as “{page.label_names[0]}”."
    )
    assert tab.locator("#threshold-table tbody td").all_inner_texts() == ["1", "1", "1", "2"]


@pytest.mark.parametrize("width", [360, 1280])
def test_a_long_text_leaves_the_sound_on_the_first_screen(
    open_page: Open, tmp_path: Path, width: int
) -> None:
    page = binary_page(3, n_clips=3, labelled=False)
    text = " ".join(f"word{i}" for i in range(240))
    recordings = replace(page.recordings, texts=[text, *page.recordings.texts[1:]])
    file = tmp_path / "passage.html"
    file.write_text(render(replace(page, recordings=recordings)))
    tab = open_page(file, "#clip=0", viewport={"width": width, "height": 900})
    wait_for_sound(tab)

    def play_is_below() -> float:
        place = "document.querySelector('#{}').getBoundingClientRect().top"
        return float(tab.evaluate(f"{place.format('play')} - {place.format('recording')}"))

    assert play_is_below() < 600
    button = tab.get_by_role("button", name="The whole text")
    expect(button).to_have_attribute("aria-expanded", "false")
    assert grave_findings(tab) == []
    folded = play_is_below()
    button.click()
    assert play_is_below() > folded + 100
    tab.get_by_role("button", name="Less of the text").click()
    assert play_is_below() == folded


# The address, names, and what it remembers


def test_the_state_is_in_the_address_and_back_undoes_it(open_page: Open) -> None:
    tab = open_page()
    tab.locator('tr[data-model="modeltok"] button').click()
    tab.locator('select[data-field="grade"]').select_option("2")
    tab.locator("#search").fill("clip000")
    tab.locator("button[data-clip]").nth(1).click()
    state, order = tab.evaluate("hearback.state.get()"), listed(tab)
    tab.reload()
    assert tab.evaluate("hearback.state.get()") == state
    assert listed(tab) == order
    tab.go_back()
    assert tab.evaluate("hearback.state.get().clip") == ""
    assert tab.evaluate("hearback.state.get().fields") == {"grade": "2"}
    tab.go_back()
    assert tab.evaluate("hearback.state.get().fields") == {}
    assert tab.evaluate("hearback.state.get().model") == "modeltok"


@pytest.mark.parametrize(
    "hash_",
    [
        "#t=nan&clip=99999&model=no&f.no=1&bin=77",
        "#p=-1&order=constructor&dir=up&cell=7-8&bin=-1&label=2&clip=-0",
        "#p=0.5&order=f.no&cell=1&bin=1e0&label=x&clip=01",
        *("#%%%", "#verdicts"),
    ],
)
def test_an_address_of_another_page_is_no_error(open_page: Open, hash_: str) -> None:
    tab = open_page(hash_=hash_)
    assert count_of(tab) == len(readings().recordings)
    assert tab.evaluate("hearback.state.get()") == tab.evaluate("hearback.state.DEFAULTS")
    assert len(listed(tab)) == 100


def test_names_stay_text(open_page: Open) -> None:
    tab = open_page()
    tab.on("dialog", lambda dialog: pytest.fail(dialog.message))
    for index, name in enumerate(NASTY):
        tab.evaluate(f"hearback.state.set({{ clip: '{index}' }})")
        assert tab.locator(".filename bdi").evaluate("node => node.textContent") == name
        assert tab.evaluate("hearback.page.recordings.filenames").index(name) == index
    assert tab.locator("main img").count() == 0


def test_verdicts_are_kept_exported_and_read_again(open_page: Open, tmp_path: Path) -> None:
    page = readings()
    assert page.recordings.labels is not None
    tab = open_page(hash_="#clip=2")
    tab.locator("#verdict-wrong_label").click()
    tab.locator("#verdict-note").fill('a "dog", or\u2028none')
    tab.keyboard.press("Tab")
    for index, key in ((5, "a"), (0, "u")):
        tab.evaluate(f"hearback.state.set({{ clip: '{index}' }})")
        tab.locator("#recording").focus()
        tab.keyboard.press(key)
    tab.reload()
    expect(tab.locator("#verdict-count")).to_have_text(
        "3 verdicts: 1 agree, 1 wrong label, 1 unscorable."
    )
    with tab.expect_download() as started:
        tab.locator("#export-corrections").click()
    file = tmp_path / "corrections.csv"
    started.value.save_as(file)
    assert started.value.suggested_filename == "corrections.csv"
    rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode())))
    assert rows == [
        {
            "filename": NASTY[2],
            "verdict": "wrong_label",
            "score": str(1 - page.recordings.labels[2]),
            "note": 'a "dog", or\u2028none',
        },
        {"filename": NASTY[5], "verdict": "agree", "score": "", "note": ""},
        {"filename": NASTY[0], "verdict": "unscorable", "score": "", "note": ""},
    ]

    other = open_page()
    expect(other.locator("#export-corrections")).to_be_disabled()
    other.locator("#import-corrections").set_input_files(file)
    expect(other.locator("#import-status")).to_have_text("Added 3 verdicts.")
    assert other.evaluate("hearback.exports.corrections()") == file.read_bytes().decode()


def test_a_second_round_of_corrections_keeps_the_first(open_page: Open, tmp_path: Path) -> None:
    names = [f"clip{index}.wav" for index in range(20)]
    page = binary_page(20, n_clips=0)
    carried = [(names[at], "wrong_label", str(at % 2), f"note {at}") for at in (1, 2, 3)]
    carried += [("gone.wav", "unscorable", "", ""), (names[9], "agree", "", "clear")]
    page = replace(page, recordings=replace(page.recordings, filenames=names), corrections=carried)
    path = tmp_path / "second.html"
    path.write_text(render(page), encoding="utf-8")
    tab = open_page(path)
    expect(tab.locator("#verdict-use")).to_contain_text("also has the 4 corrections")
    first = "filename,verdict,score\nclip1.wav,wrong_label,1\ngone.wav,unscorable,\n"
    (tmp_path / "round1.csv").write_text(first)
    tab.locator("#import-corrections").set_input_files(tmp_path / "round1.csv")
    expect(tab.locator("#import-status")).to_have_text("Added 2 verdicts.")
    for name, verdict in ((names[2], "agree"), (names[3], "unscorable"), (names[7], "agree")):
        given = json.dumps({"verdict": verdict, "score": "", "note": "n"})
        tab.evaluate(f"hearback.verdicts.set('{name}', {given})")
    rows = list(csv.reader(io.StringIO(tab.evaluate("hearback.exports.corrections()"))))[1:]
    assert rows == [
        ["clip1.wav", "wrong_label", "1", "note 1"],
        ["clip2.wav", "wrong_label", "0", "n"],
        ["clip3.wav", "unscorable", "", "n"],
        ["gone.wav", "unscorable", "", ""],
        ["clip9.wav", "agree", "", "clear"],
        ["clip7.wav", "agree", "", "n"],
    ]


def test_a_spreadsheet_s_corrections_are_read_as_the_training_reads_them(
    open_page: Open, tmp_path: Path
) -> None:
    names = [f"clip{index}.wav" for index in range(8)]
    page = binary_page(8, n_clips=0)
    labels = [1, 0, 1, 0, 1, 1, 0, 1]
    recordings = replace(page.recordings, filenames=names, labels=labels)
    page = replace(page, recordings=recordings, label_names=["not said", "said"])
    path = tmp_path / "page.html"
    path.write_text(render(page), encoding="utf-8")
    table = tmp_path / "corrections.csv"
    table.write_text(
        "File;Verdict;Score;Note\n"
        'clip0.wav;wrong label;0,0;"a; b"\n'
        'clip1.wav; "Wrong_Label";said;\n'
        "clip2.wav;wrong_label;FALSE;\n"
        "clip3.wav;wrong_label;1.0;\n"
        "clip4.wav;wrong_label;1;\n"
        "clip5.wav;wrong_label;2;\n"
        "clip6.wav;wrong_label;;\n"
        "clip7.wav;perhaps;;\n",
        encoding="utf-8-sig",
    )
    tab = open_page(path)
    tab.locator("#import-corrections").set_input_files(table)
    expect(tab.locator("#import-status")).to_have_text(
        "Added 4 verdicts. Not taken: 1 row of a wrong label whose “score” is the label itself, "
        "1 row with a “score” that is no label, "
        "1 row of a wrong label without the right one in “score”, "
        "1 row without a verdict that is known."
    )
    assert dict(tab.evaluate("hearback.verdicts.entries()")) == {
        name: {"verdict": "wrong_label", "score": score, "note": note}
        for name, score, note in (
            *(("clip0.wav", "0", "a; b"), ("clip1.wav", "1", "")),
            *(("clip2.wav", "0", ""), ("clip3.wav", "1", "")),
        )
    }
    for separated in (
        "sep=|\nfilename|verdict\nclip6.wav|agree\n",
        "filename\tverdict\nclip7.wav\tagree",
    ):
        table.write_text(separated)
        tab.locator("#import-corrections").set_input_files(table)
        expect(tab.locator("#import-status")).to_have_text("Added 1 verdict.")
        tab.evaluate("document.getElementById('import-status').textContent = ''")


def test_the_right_label_of_a_wrong_one_is_another(open_page: Open) -> None:
    page = classes_page()
    said = page.recordings.predicted_classes["ensemble"]
    labels = page.recordings.labels
    assert labels is not None
    right = [at for at, label in enumerate(labels) if said[at] == label]
    tab = open_page("songs", f"#clip={right[0]}")
    tab.locator("#verdict-wrong_label").click()
    offered = tab.locator("#right-label option").evaluate_all("nodes => nodes.map(x => x.value)")
    assert offered == [str(label) for label in range(3) if label != labels[right[0]]]
    assert tab.locator("#right-label").input_value() in offered


def test_without_labels_a_wrong_class_is_not_offered_as_the_right_one(open_page: Open) -> None:
    said = classes_page().recordings.predicted_classes["ensemble"]
    for index in (0, 1, 2):
        tab = open_page("new_songs", f"#clip={index}")
        tab.locator("#verdict-wrong_label").click()
        offered = tab.locator("#right-label option").evaluate_all(
            "nodes => nodes.map(x => x.value)"
        )
        assert offered == [str(label) for label in range(3) if label != said[index]]
        assert tab.locator("#right-label").input_value() in offered


def test_the_page_works_where_the_address_may_not_change(open_page: Open) -> None:
    tab = open_page()
    refuse = "history.replaceState = history.pushState = () => { throw new Error('too many'); }"
    tab.evaluate(f"() => {{ {refuse} }}")
    tab.locator("#search").fill("clip00010")
    expect(tab.locator("#recordings-list button[data-clip]")).to_have_count(1)


def test_two_tabs_of_a_page_keep_the_verdicts_of_both(open_page: Open) -> None:
    one = open_page(hash_="#clip=1")
    other = one.context.new_page()
    other.goto(one.url)
    one.locator("#verdict-agree").click()
    expect(other.locator("#verdict-agree")).to_have_attribute("aria-pressed", "true")
    other.evaluate("hearback.verdictForm.give(2, 'unscorable')")
    expect(one.locator("#verdict-count")).to_contain_text("2 verdicts:")
    # Even where a tab has not heard of the other's.
    key = "`hearback:${hearback.page.key}`"
    kept = one.evaluate(f"localStorage.getItem({key})")
    verdict = {"verdict": "agree", "score": "", "note": "elsewhere"}
    one.evaluate(
        f"value => localStorage.setItem({key}, value)",
        json.dumps({**json.loads(kept), NASTY[3]: verdict}),
    )
    one.evaluate("hearback.verdictForm.give(1, 'unscorable')")
    verdicts = dict(one.evaluate("hearback.verdicts.entries()"))
    assert set(verdicts) == {NASTY[1], NASTY[2], NASTY[3]}
    assert verdicts[NASTY[3]] == verdict
    assert verdicts[NASTY[1]]["verdict"] == "unscorable"


def test_what_is_typed_is_never_lost(open_page: Open) -> None:
    tab = open_page(hash_="#clip=1")
    tab.locator("#verdict-agree").click()
    tab.locator("#verdict-note").press_sequentially("mumbles")
    expect(tab.locator("#verdict-note")).to_be_focused()
    tab.reload()  # without leaving the field
    expect(tab.locator("#verdict-note")).to_have_value("mumbles")
    tab.locator("#verdict-agree").click()
    expect(tab.locator("#verdict-hint")).to_contain_text("delete its note first")
    expect(tab.locator("#verdict-agree")).to_have_attribute("aria-pressed", "true")
    tab.locator("#verdict-unscorable").click()
    expect(tab.locator("#verdict-note")).to_have_value("mumbles")
    tab.locator("#verdict-note").fill("")
    tab.locator("#verdict-unscorable").click()
    expect(tab.locator("#verdict-unscorable")).to_have_attribute("aria-pressed", "false")
    expect(tab.locator("#verdict-count")).to_contain_text("None yet")


def test_an_import_says_which_rows_it_does_not_take(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    names = readings().recordings.filenames
    rows = [
        ["filename", "verdict", "score", "note"],
        [names[7], "wrong_label", "1", "new"],
        [names[8], "wrong_label", "", ""],
        [names[9], "wrong_label", "2", ""],
        [names[10], "constructor", "", ""],
        ["no.wav", "agree", "", ""],
    ]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    tab = open_page(hash_="#clip=7")
    tab.locator("#verdict-agree").click()
    tab.locator("#verdict-note").fill("old")
    tab.locator("#import-corrections").set_input_files(file)
    expect(tab.locator("#import-status")).to_have_text(
        "Added 1 verdict. Not taken: 1 row of a wrong label without the right one in “score”, "
        "1 row with a “score” that is no label, 1 row without a verdict that is known, "
        "1 row of no recording of this page."
    )
    entry = {"verdict": "wrong_label", "score": "1", "note": "old; new"}
    assert tab.evaluate("hearback.verdicts.entries()") == [[names[7], entry]]
    expect(tab.locator("#verdict-note")).to_have_value("old; new")


def test_only_labelled_pages_with_names_offer_corrections(open_page: Open) -> None:
    use = open_page("silent").locator("#verdict-use")
    expect(use).to_contain_text("python train.py --corrections corrections.csv")
    use = open_page("unlabelled").locator("#verdict-use")
    expect(use).to_contain_text("lists your verdicts")
    expect(use).not_to_contain_text("--corrections")
    tab = open_page("anonymous", "#clip=1")
    expect(tab.locator("#verdicts")).to_contain_text("this page is anonymous")
    expect(tab.locator("#verdicts button, #verdicts input, #verdict-form")).to_have_count(0)
    tab.locator("#recording").focus()
    tab.keyboard.press("a")
    assert tab.evaluate("hearback.verdicts.entries()") == []


def test_a_file_that_is_no_corrections_is_refused(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    tab = open_page()
    tab.locator("#import-corrections").set_input_files(file)
    expect(tab.locator("#import-status")).to_contain_text("no columns “filename” and “verdict”")


def test_verdicts_work_where_nothing_can_be_kept(open_page: Open) -> None:
    tab = open_page(hash_="#clip=1")
    tab.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
    tab.locator("#verdict-agree").click()
    expect(tab.locator("#verdict-count")).to_contain_text("1 verdict:")
    expect(tab.locator("#verdict-kept")).to_contain_text("export before you close it")


def test_a_textgrid_is_the_one_that_score_writes(open_page: Open) -> None:
    words = readings().recordings.words["7"]
    tab = open_page(hash_="#clip=7")
    scores = tuple(
        WordScore(word, word, score, round(start, 4), round(end, 4))
        for word, score, start, end in zip(
            words.words,
            words.scores,
            known(list(words.starts)),
            known(list(words.ends)),
            strict=True,
        )
    )
    score = Score("a.wav", "a", "ok", 0.5, scores, seconds=ENCODED_SECONDS)
    assert tab.evaluate("hearback.exports.textGrid(7, 2)") == format_textgrid(score)
    with tab.expect_download() as started:
        tab.locator("#export-textgrid").click()
    assert started.value.suggested_filename == "clip00007.TextGrid"
    with tab.expect_download() as started:
        tab.locator("#export-json").click()
    exported = json.loads(Path(started.value.path()).read_text())
    assert exported["filename"] == readings().recordings.filenames[7]
    assert exported["words"]["words"] == list(words.words)


# Everyone


def test_the_page_can_be_used_by_keyboard_alone(open_page: Open) -> None:
    tab = open_page()
    tab.keyboard.press("Tab")
    expect(tab.locator(".skip")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#main")).to_be_focused()
    for _ in range(80):
        tab.keyboard.press("Tab")
        if tab.evaluate("Boolean(document.activeElement.dataset.clip)"):
            break
    first, second = listed(tab)[:2]
    expect(tab.locator(f'button[data-clip="{first}"]')).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#recording")).to_be_focused()
    for key, index in (("n", second), ("k", first), ("j", second), ("p", first), ("p", first)):
        tab.keyboard.press(key)
        assert tab.evaluate("hearback.recording.openIndex()") == index
    tab.keyboard.press("?")
    expect(tab.locator("#help")).to_be_visible()
    tab.keyboard.press("Escape")
    tab.keyboard.press("a")
    expect(tab.locator("#verdict-agree")).to_have_attribute("aria-pressed", "true")
    expect(tab.locator("#live")).to_have_text("Verdict: agree")


def test_no_key_judges_a_recording_that_is_out_of_sight(open_page: Open) -> None:
    tab = open_page(hash_="#clip=2", reduced_motion="reduce")
    tab.evaluate("scrollTo(0, 0)")
    tab.keyboard.press("w")
    assert tab.evaluate("hearback.verdicts.entries()") == []
    expect(tab.locator("#recording")).to_be_focused()
    expect(tab.locator("#live")).to_have_text(
        "This recording is open. Press the key again for a verdict."
    )
    tab.keyboard.press("w")
    assert tab.evaluate("hearback.verdicts.entries()[0][1].verdict") == "wrong_label"


def test_keys_do_nothing_while_typing(open_page: Open) -> None:
    tab = open_page(hash_="#clip=1")
    tab.locator("#search").focus()
    tab.keyboard.type("napkins")
    assert tab.evaluate("hearback.recording.openIndex()") == 1
    assert tab.locator("#search").input_value() == "napkins"
    expect(tab.locator("#recordings-count")).to_have_text("0 recordings of 300.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["readings", "songs", "unlabelled"])
def test_axe_finds_nothing_grave_and_nothing_is_too_wide(
    open_page: Open, name: str, width: int, scheme: str
) -> None:
    tab = open_page(
        name, "#clip=1&bin=9&q=wav", viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    wait_for_sound(tab, 1 if name == "songs" else 2)
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    tab.evaluate("hearback.verdictForm.give(1, 'wrong_label')")
    assert grave_findings(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.evaluate("hearback.keys.showHelp()")
    assert grave_findings(tab) == []


def test_on_paper_there_is_no_navigation_and_nothing_is_cut(open_page: Open) -> None:
    tab = open_page(viewport={"width": 760, "height": 1000})
    tab.emulate_media(media="print")
    expect(tab.locator(".bar-nav")).to_be_hidden()
    assert tab.evaluate("document.documentElement.scrollWidth") == 760


def test_the_threshold_table_fits_a_telephone(open_page: Open) -> None:
    tab = open_page(viewport={"width": 360, "height": 800})
    region = tab.locator(".scroll:has(> #threshold-table)")
    assert region.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert region.evaluate("node => getComputedStyle(node).overflowX") == "auto"


def test_without_javascript_the_tables_are_there(open_page: Open) -> None:
    tab = open_page(java_script_enabled=False)
    expect(tab.locator("#recordings tbody tr")).to_have_count(300)
    expect(tab.locator("#recording")).to_be_hidden()
    expect(tab.locator("noscript p")).to_be_visible()


def test_2300_recordings_are_loaded(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "large.html"
    file.write_text(render(binary_page(2300, n_clips=200)), encoding="utf-8")
    start = time.perf_counter()
    tab = open_page(file)
    assert count_of(tab) == 2300
    print(
        f"2,300 recordings, {file.stat().st_size / 1e6:.1f} MB: {time.perf_counter() - start:.2f} s"
    )
    tab.locator("#search").fill("clip02299")
    assert count_of(tab) == 1
