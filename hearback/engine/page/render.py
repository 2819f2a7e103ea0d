"""A `Page` as one HTML file: data, scripts and styles are in it, and it loads nothing else."""

import base64
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hearback.engine.page import tables
from hearback.engine.page.content import Page

_PACKAGE = "hearback.engine.page"
_STYLES = (
    "vendor/uPlot.min.css",
    "static/colours.css",
    "static/frame.css",
    "static/controls.css",
    "static/tables.css",
    "static/charts.css",
    "static/recording.css",
    "static/media.css",  # the last: it overrules the others
)
_SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "vendor/wavesurfer.min.js",
    "vendor/wavesurfer-regions.min.js",
    "vendor/wavesurfer-spectrogram.min.js",
    # Ours: each adds to the namespace `hearback`; main.js starts the page.
    "static/base.js",
    "static/state.js",
    "static/charts.js",
    "static/selection.js",
    "static/models.js",
    "static/reliability.js",
    "static/groups.js",
    "static/confusion.js",
    "static/threshold.js",
    "static/curves.js",
    "static/imports.js",
    "static/verdicts.js",
    "static/exports.js",
    "static/recordings.js",
    "static/player.js",
    "static/words.js",
    "static/sound.js",
    "static/verdict_form.js",
    "static/recording.js",
    "static/keys.js",
    "static/main.js",
)
DIGITS = 4
_PREDICTION_DIGITS = 6
_PREDICTIONS = "page.recordings.predictions."  # their place in a page
_STEP = 0.01  # of the thresholds, and a part of a bin: rounding moves no prediction across one
# Inside <script> only these can end the element or change how it is parsed.
_ESCAPES = str.maketrans(
    {character: f"\\u{ord(character):04x}" for character in ("<", ">", "&", "\u2028", "\u2029")}
)


def render(page: Page) -> str:
    """Return the page as HTML.

    Raises:
        ValueError: a number of the page is NaN or infinite.
    """
    key = _content_key(page)
    scripts = [_read(name) for name in _SCRIPTS]
    styles = [_read(name) for name in _STYLES]
    data = plain(dataclasses.replace(page, recordings=_recordings_without_clips(page)))
    data |= {"key": key, "style_nonce": key, "with_sound": sorted(map(int, page.recordings.clips))}
    data["n_enough"] = tables.N_ENOUGH
    # A script sorts keys such as "1" and "10" of an object before all others.
    data["field_names"] = list(page.recordings.fields)
    for model, result in zip(data["models"], page.models, strict=True):
        model["group_names"] = list(result.reliability)
    data["clip_scripts"] = {
        quote(name): list(indices) for name, indices in page.clip_scripts.items()
    }
    del data["file_names"]
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            tables=tables,
            policy=_policy(scripts, styles, key, has_clip_scripts=bool(page.clip_scripts)),
            scripts=[Markup(script) for script in scripts],
            styles=[Markup(style) for style in styles],
            data=to_script_json(data),
            clips={
                index: to_script_json(plain(clip)) for index, clip in page.recordings.clips.items()
            },
        )
    )
    # Undecodable bytes of a file's name are lone surrogates, which UTF-8 cannot hold.
    return html.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value: Any, path: str = "page") -> Any:  # noqa: ANN401
    """Return a content dataclass as what JSON holds; numbers are rounded to `DIGITS` digits.

    A prediction has more digits, and stays on its side of each threshold of the page: a page's
    counts are those of the tables that it was made from.

    Raises:
        ValueError: a number is NaN or infinite; the message says where.
    """
    if dataclasses.is_dataclass(value):
        return {
            each.name: plain(getattr(value, each.name), f"{path}.{each.name}")
            for each in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): plain(each, f"{path}.{name}") for name, each in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [plain(each, f"{path}[{index}]") for index, each in enumerate(value)]
    return _rounded(value, path)


def _rounded(value: Any, path: str) -> int | float | bool:  # noqa: ANN401
    number = value.item() if hasattr(value, "item") else value  # NumPy's own types
    if isinstance(number, int):
        return number
    if not math.isfinite(number):
        raise ValueError(f"{path} is {number}: a page holds finite numbers, or None")
    if not path.startswith(_PREDICTIONS):
        return round(number, DIGITS)
    rounded = round(number, _PREDICTION_DIGITS)
    edge = round(round(rounded / _STEP) * _STEP, _PREDICTION_DIGITS)
    if number < edge <= rounded:
        return round(edge - 10**-_PREDICTION_DIGITS, _PREDICTION_DIGITS)
    if rounded <= edge < number:
        return round(edge + 10**-_PREDICTION_DIGITS, _PREDICTION_DIGITS)
    return rounded


def to_script_json(value: object) -> Markup:
    """Return JSON that can stand in a <script> element of type application/json."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


def _recordings_without_clips(page: Page) -> Any:  # noqa: ANN401
    return dataclasses.replace(page.recordings, clips={})


def _policy(
    scripts: Sequence[str], styles: Sequence[str], nonce: str, has_clip_scripts: bool
) -> str:
    """Return the Content-Security-Policy: only what is in the page, and its clips beside it.

    `nonce` is that of the style element that wavesurfer.js makes.
    """
    script_sources = [*map(content_hash, scripts)]
    if has_clip_scripts:
        # From a disk, 'self' is enough for Chromium; by the standard it matches no file there.
        script_sources += ["'self'", "file:"]
    style_sources = [*map(content_hash, styles), f"'nonce-{nonce}'"]
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(script_sources)}",
            f"style-src {' '.join(style_sources)}",
            "img-src data: blob:",
            "media-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def content_hash(content: str) -> str:
    """Return the source expression that allows an inline script or style of this content."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _content_key(page: Page) -> str:
    """Return what verdicts are kept under: the same for the same recordings and texts.

    Labels do not count: a page that is made with the first corrections keeps their notes.
    """
    rows = page.recordings
    content = json.dumps([list(rows.filenames), list(rows.texts), list(page.label_names)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _read(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": tables.breakable,
        "number": tables.number,
        "percent": tables.percent,
        "position": tables.position,
    }
    return environment
