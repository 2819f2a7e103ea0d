"""The page as a file: what is in it, and that data is never markup."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import numpy as np
import pytest

from hearback.engine.page import tables
from hearback.engine.page.content import Distribution, Estimate, Page, Recordings, Words
from hearback.engine.page.render import content_hash, plain, render, to_script_json
from tests.engine.page.pages import NASTY, binary_page, classes_page

VENDOR = resources.files("hearback.engine.page") / "vendor"


class Elements(HTMLParser):
    """Collects the elements of a page: tags, attributes, and the text of each script and style."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self._inside: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.contents:
            self._inside = tag
            self.contents[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.contents[self._inside][-1] += data
        else:
            self.text.append(data)

    def with_tag(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def by_id(self, name: str) -> str:
        """Return the content of the script of an id."""
        ids = [attributes.get("id") for attributes in self.with_tag("script")]
        return self.contents["script"][ids.index(name)]


@pytest.fixture(scope="module")
def page() -> Page:
    return binary_page(60, n_clips=3)


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render(page)


@pytest.fixture(scope="module")
def elements(html: str) -> Elements:
    return Elements(html)


def policy_of(elements: Elements) -> dict[str, list[str]]:
    """Return the sources of each directive of the page's policy."""
    (policy,) = [
        meta["content"] or ""
        for meta in elements.with_tag("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    directives = [directive.split() for directive in policy.split(";")]
    return {name: sources for name, *sources in directives}


def test_the_policy_allows_what_is_inlined_and_nothing_else(elements: Elements) -> None:
    policy = policy_of(elements)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    run = [
        content
        for content, attributes in zip(
            elements.contents["script"], elements.with_tag("script"), strict=True
        )
        if "type" not in attributes
    ]
    assert policy["script-src"] == [content_hash(script) for script in run]
    nonces = [source for source in policy["style-src"] if source.startswith("'nonce-")]
    assert policy["style-src"] == [*map(content_hash, elements.contents["style"]), *nonces]
    assert len(nonces) == 1
    assert not any("unsafe" in source for sources in policy.values() for source in sources)


def test_the_policy_is_before_all_that_it_is_for(html: str) -> None:
    assert html.startswith("<!DOCTYPE html>")
    assert html.index("Content-Security-Policy") < html.index("<style") < html.index("<script")


def test_a_hash_is_of_the_bytes() -> None:
    digest = base64.b64encode(hashlib.sha256("ü".encode()).digest()).decode()
    assert content_hash("ü") == f"'sha256-{digest}'"


def test_nothing_is_loaded(elements: Elements) -> None:
    for tag, attributes in elements.elements:
        assert "src" not in attributes, tag
        href = attributes.get("href") or "#"
        assert href.startswith(("#", "data:,")), href


def test_there_are_no_inline_handlers_or_styles(elements: Elements) -> None:
    for tag, attributes in elements.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_names_and_texts_are_never_markup(page: Page, elements: Elements) -> None:
    assert not elements.with_tag("img")
    # Data, a script for each clip, and the scripts that run; no more.
    n_scripts = 1 + len(page.recordings.clips) + len(policy_of(elements)["script-src"])
    assert len(elements.with_tag("script")) == n_scripts
    assert not [each for each in elements.contents["script"] if each.lstrip().startswith("alert")]
    for name in NASTY:
        assert name in elements.text, name
    data = json.loads(elements.by_id("page-data"))
    assert data["recordings"]["filenames"][: len(NASTY)] == list(NASTY)


def test_json_can_end_no_script_element() -> None:
    text = to_script_json({"a": "</script><!--<script>&\u2028\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--<script>&\u2028\u2029"}


def test_a_name_of_undecodable_bytes_can_be_written() -> None:
    page = binary_page(3, n_clips=0)
    names = ["a\udcff.wav", "b.wav", "c.wav"]
    page = replace(page, recordings=replace(page.recordings, filenames=names))
    assert "a�.wav" in render(page).encode().decode()


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_a_number_that_is_none_is_an_error_that_says_where(value: float) -> None:
    page = binary_page(3, n_clips=0)
    page = replace(page, recordings=replace(page.recordings, seconds=[1.0, value, 2.0]))
    with pytest.raises(ValueError, match=r"page\.recordings\.seconds\[1\] is (nan|inf)"):
        render(page)


def test_numbers_are_rounded() -> None:
    words = Words(["a"], scores=[1 / 3], starts=[np.float64(2 / 3)], ends=[float(np.float32(1))])
    assert plain(words)["scores"] == [0.3333]
    assert plain(words)["starts"] == [0.6667]
    assert plain(words)["ends"] == [1.0]


@pytest.mark.parametrize(
    ("prediction", "shown"),
    [
        *[(0.79996, 0.79996), (0.8, 0.8), (0.3, 0.3), (0.0, 0.0), (1.0, 1.0)],
        *[
            (0.79999996, 0.799999),
            (0.06999999, 0.069999),
            (0.50000001, 0.500001),
            (1 - 1e-9, 0.999999),
        ],
    ],
)
def test_a_rounded_prediction_stays_on_its_side_of_each_threshold(
    prediction: float, shown: float
) -> None:
    recordings = Recordings(["a.wav"], ["a"], {}, None, {"ensemble": [prediction]})
    page = replace(binary_page(3, n_clips=0), recordings=recordings)
    assert plain(page)["recordings"]["predictions"]["ensemble"] == [shown]


def key_of(page: Page) -> str:
    return str(json.loads(Elements(render(page)).by_id("page-data"))["key"])


def test_verdicts_are_kept_by_the_content_of_a_page() -> None:
    page = binary_page(3, n_clips=0)
    key = key_of(page)
    assert key_of(replace(page, title="another", made_by="tomorrow", models=page.models[:1])) == key
    rows = page.recordings
    changes: list[dict[str, Any]] = [
        {"filenames": ["a.wav", *rows.filenames[1:]]},
        {"texts": ["a", *rows.texts[1:]]},
    ]
    for change in changes:
        assert key_of(replace(page, recordings=replace(rows, **change))) != key
    # Corrected labels: the notes of the first round stay.
    labels = [1 - (rows.labels or [0])[0], *(rows.labels or [])[1:]]
    assert key_of(replace(page, recordings=replace(rows, labels=labels))) == key


def test_names_of_groups_and_columns_keep_their_order(elements: Elements) -> None:
    data = json.loads(elements.by_id("page-data"))
    assert data["models"][0]["group_names"] == ["all", *"K123"]
    assert data["field_names"] == ["grade", "task", "speaker"]
    assert data["n_enough"] == tables.N_ENOUGH


def test_the_sound_is_in_the_page_once_and_not_in_its_data(page: Page, elements: Elements) -> None:
    data = json.loads(elements.by_id("page-data"))
    assert data["recordings"]["clips"] == {}
    assert data["with_sound"] == [0, 1, 2]
    assert json.loads(elements.by_id("clip-2"))["learner"] == page.recordings.clips["2"].learner


def test_clips_beside_the_page_are_named_and_allowed() -> None:
    page = replace(binary_page(3, n_clips=0), clip_scripts={"my page_clips/0000.js": [0, 2]})
    elements = Elements(render(page))
    data = json.loads(elements.by_id("page-data"))
    assert data["clip_scripts"] == {"my%20page_clips/0000.js": [0, 2]}
    assert policy_of(elements)["script-src"][-2:] == ["'self'", "file:"]


HEADS = [
    *("Verdict", "The data", "Models", "Can I trust 0.8?", "Is it equally good for everyone?"),
    *("A threshold", "Learning curves", "Recordings"),
]


def tables_by_section(html: str) -> dict[str, str]:
    """Return the HTML of each section's tables, by its heading, as it is without JavaScript."""
    sections = re.split(r"<h2[^>]*>", html.partition("<script")[0])[1:]
    return {section.partition("</h2>")[0]: section for section in sections}


def test_every_section_has_a_table_without_javascript(page: Page, html: str) -> None:
    sections = tables_by_section(html)
    assert list(sections)[: len(HEADS)] == HEADS
    for head in HEADS[1:]:
        assert "<table" in sections[head], head
    first = page.models[0]
    assert f"{first.log_loss.value:.3f}" in sections["Models"]
    for each in first.reliability["all"]:
        assert f'<td class="n">{each.n}</td>' in sections["Can I trust 0.8?"]
    for group in first.groups:
        assert f"<bdi>{group.value}</bdi>" in sections["Is it equally good for everyone?"]
    assert sections["A threshold"].count("<tr>") == 1 + 9
    assert "stalled: log loss 0.69" in sections["Learning curves"]
    assert sections["Recordings"].count("<tr>") == 1 + len(page.recordings)


def test_the_recordings_without_javascript_are_the_worst() -> None:
    page = binary_page(700, n_clips=0)
    section = tables_by_section(render(page))["Recordings"]
    assert "The first 500 of 700 recordings, the largest loss first." in section
    assert section.count("<tr>") == 1 + 500
    losses = page.recordings.losses["ensemble"]
    worst = page.recordings.filenames[max(range(700), key=lambda index: losses[index] or 0)]
    assert re.findall(r'<tr><th scope="row"><bdi>(.*?)</bdi>', section)[0] == worst


def test_without_labels_there_are_no_results_of_them() -> None:
    page = binary_page(20, n_clips=0, labelled=False)
    assert "Models" not in tables_by_section(render(replace(page, models=page.models[:1])))
    sections = tables_by_section(render(page))
    assert list(sections)[:5] == ["Verdict", "The data", "Models", "A threshold", "Recordings"]
    assert "nearest to 0.5 first" in sections["Recordings"]
    # It is called as in the table that the page is made of.
    assert ">Score</th>" in sections["Recordings"] and "From which score on" in render(page)
    assert "Prediction" not in sections["Recordings"]
    assert "Log loss" not in sections["Models"]


def test_recordings_without_a_score_go_to_a_person_without_javascript() -> None:
    page = binary_page(20, n_clips=0, labelled=False)
    assert "no score" not in tables_by_section(render(page))["A threshold"]
    predictions = {
        name: [None, *values[1:]] for name, values in page.recordings.predictions.items()
    }
    page = replace(page, recordings=replace(page.recordings, predictions=predictions))
    said = "1 of the 20 recordings has no score, and goes to a person at any threshold."
    assert said in tables_by_section(render(page))["A threshold"]


def test_the_model_card_is_closed() -> None:
    page = binary_page(20, n_clips=0)
    page = replace(page, verdict=replace(page.verdict, card=[("built", "today")]))
    assert re.search(r"<details>\s*<summary>Model card", render(page))


def test_a_status_is_broken_between_its_words() -> None:
    page = binary_page(20, n_clips=0, labelled=False)
    shown = Distribution("status", ["another_language_or_noise", "<b>_x"], [3, 1])
    html = render(replace(page, data=replace(page.data, distributions=[shown])))
    assert "<bdi>another_<wbr>language_<wbr>or_<wbr>noise</bdi>" in html
    assert "<bdi>&lt;b&gt;_<wbr>x</bdi>" in html


def test_shares_are_in_percent_in_every_table() -> None:
    page = classes_page(30, n_clips=0)
    metrics = {"accuracy": Estimate(0.824, 0.8, 0.85), "AUC": Estimate(0.912)}
    page = replace(page, models=[replace(page.models[0], metrics=metrics)])
    section = tables_by_section(render(page))["Models"]
    assert "82.4 % <span" in section
    assert "0.912" in section


def test_classes_have_a_confusion_matrix_in_place_of_a_threshold() -> None:
    page = classes_page(30, n_clips=0)
    sections = tables_by_section(render(page))
    assert "A threshold" not in sections
    matrix = sections["What is taken for what?"]
    counts = [int(count) for count in re.findall(r'<td class="n">(\d+)</td>', matrix)]
    assert counts == [count for row in page.models[0].confusion or [] for count in row]
    assert "<bdi>&lt;b&gt;ben&lt;/b&gt;</bdi>" in matrix


def test_a_page_without_sound_is_small() -> None:
    assert len(render(binary_page(2300, n_clips=0)).encode()) < 2_500_000


def test_vendored_files_are_those_that_were_released() -> None:
    vendored = json.loads((VENDOR / "vendored.json").read_text())
    for each in vendored:
        content = (VENDOR / each["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each["sha256"], each["file"]
    files = {path.name for path in VENDOR.iterdir()}
    assert files == {each["file"] for each in vendored} | {"vendored.json"}
    licences = {each["name"]: each["licence"] for each in vendored}
    assert licences == {"wavesurfer.js": "BSD-3-Clause", "uplot": "MIT"}


@pytest.mark.parametrize(
    ("suffix", "ends"), [(".js", r"</script|<!--|\r"), (".css", r"</style|\r")]
)
def test_no_script_or_style_can_end_its_element(suffix: str, ends: str) -> None:
    for folder in ("static", "vendor"):
        for path in (resources.files("hearback.engine.page") / folder).iterdir():
            if path.name.endswith(suffix):
                assert not re.search(ends, path.read_text(), re.IGNORECASE), path.name
