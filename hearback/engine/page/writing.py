"""Write a page: choose what it plays, take names out if asked to, and render it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hearback.engine.data.problems import count_noun
from hearback.engine.io import atomic_write, check_writable
from hearback.engine.page import clips
from hearback.engine.page.clips import Annotator, Clips, Sound
from hearback.engine.page.content import Page
from hearback.engine.page.flags import DEFAULT_PAGE, EVERY, SOME
from hearback.engine.page.render import render

# What messages quote: names of files and people. An apostrophe inside of a word is none.
_QUOTED = re.compile(r"""(?<!\w)(['"]).*?\1(?!\w)""", re.DOTALL)


@dataclass(frozen=True)
class PageOptions:
    """How a page is written.

    Attributes:
        out: file to write.
        audio: which recordings it plays, one of `flags.AUDIO`.
        is_anonymous: whether names of files, speakers and all sound are left out.
        seed: of the random recordings that it plays.
        progress: whether bars are shown.
        command: writes this page again, without --audio; "" if none does.
    """

    out: Path = DEFAULT_PAGE
    audio: str = SOME
    is_anonymous: bool = False
    seed: int = 0
    progress: bool = False
    command: str = ""


def choose_clips(page: Page, options: PageOptions) -> list[int]:
    """Return the indices of the recordings to play: by loss of the first model, or by doubt.

    Recordings without labels and without a score come first.
    """
    if options.is_anonymous:
        return []
    values, always = _interest(page)
    order = [index for index in np.argsort(-values, kind="stable").tolist() if index not in always]
    return clips.choose(order, sorted(always), options.audio, np.random.default_rng(options.seed))


def _interest(page: Page) -> tuple[np.ndarray, set[int]]:
    """Return how interesting each recording is, (rows,), and those to play in any case.

    These have no score. With labels, a score is missing where a fold is: that is nothing to hear.
    """
    recordings, first = page.recordings, page.models[0].name
    predictions = np.array(recordings.predictions[first], float)
    if page.labelled:
        values = np.array(recordings.losses[first], float)
    elif page.kind == "binary":
        values = -np.abs(predictions - 0.5)
    else:
        values = -predictions
    unscored = np.isnan(predictions)
    always = [] if page.labelled else np.flatnonzero(unscored).tolist()
    return np.where(unscored, -np.inf, values), set(always)


def encode_sound(
    page: Page,
    sound_of: Callable[[int], Sound],
    options: PageOptions,
    annotator: Annotator | None = None,
) -> Clips:
    """Encode the sound of the recordings to play; for `SOME`, what does not fit in is left out.

    `annotator` is called with the sounds, each once, a few at a time. Raises HearbackError before
    that if the page cannot be written.
    """
    check_writable(options.out)
    limit = clips.MAX_BYTES if options.audio == SOME else float("inf")
    progress = "sound" if options.progress else None
    return clips.encode(choose_clips(page, options), sound_of, limit, progress, annotator)


def write_page(page: Page, encoded: Clips, options: PageOptions) -> None:
    """Write the page with its sound from `encode_sound`; say where it is.

    Sound that is too large for the page is put beside it.
    """
    found, scripts, key = encoded.by_index, {}, ""
    if clips.n_bytes_of(found) > clips.MAX_BYTES_INSIDE:
        key = clips.key_of(found, page.recordings.filenames)
        scripts, found = clips.write_scripts(found, options.out, key), {}
    else:
        clips.remove_scripts(options.out)
    recordings = replace(
        page.recordings, clips={str(index): clip for index, clip in sorted(found.items())}
    )
    page = replace(page, recordings=recordings, clip_scripts=scripts, clip_key=key)
    if options.audio != EVERY:
        page = replace(page, report_command=options.command)
    if options.is_anonymous:
        page = anonymize(page)
    with atomic_write(options.out) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    n = len(encoded.by_index)
    sound = f"{n} of them to listen to" if n else "without sound"
    beside = f", their sound in {clips.clips_folder(options.out)}/" if scripts else ""
    left = f"; {encoded.n_left_out} more did not fit in (--audio all)" if encoded.n_left_out else ""
    megabytes = options.out.stat().st_size / 1e6
    print(
        f"wrote {options.out}: {count_noun(len(recordings), 'recording')}, {sound}{beside}{left} "
        f"({megabytes:.1f} MB)"
    )


def anonymize(page: Page) -> Page:
    """Return a page without names of files and people, notes, and sound.

    Recordings are numbered; the expected texts stay. What messages quote is left out, and
    `Page.file_names`.
    """

    def hide(text: str) -> str:
        for name in sorted(page.file_names, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "(a file)", text)
        return text

    recordings = page.recordings
    numbers = [f"recording {index + 1}" for index in range(len(recordings))]
    number_of = dict(zip(recordings.filenames, numbers, strict=True))
    fields = {name: x for name, x in recordings.fields.items() if name != page.people}
    models = [
        replace(model, groups=[group for group in model.groups if group.by != page.people])
        for model in page.models
    ]
    refused = [
        replace(
            each,
            filename=number_of.get(each.filename, "another recording"),
            what=_without_names(each.what, each.filename),
            cure=_without_names(each.cure, each.filename),
        )
        for each in page.data.refused
    ]
    warnings = [hide(_without_names(each)) for each in page.verdict.warnings]
    sentences = list(map(hide, page.verdict.sentences))
    card = [(name, hide(value)) for name, value in page.verdict.card]
    facts = [(name, hide(value)) for name, value in page.data.facts]
    return replace(
        page,
        verdict=replace(page.verdict, sentences=sentences, warnings=warnings, card=card),
        models=models,
        data=replace(page.data, facts=facts, refused=refused),
        recordings=replace(recordings, filenames=numbers, fields=fields, notes=(), clips={}),
        clip_scripts={},
        clip_key="",
        report_command="",
        corrections=(),
        file_names=(),
        is_anonymous=True,
    )


def _without_names(message: str, filename: str = "") -> str:
    """Return a message without what it quotes, and without the name of its recording."""
    message = _QUOTED.sub("(a name)", message)
    return message.replace(filename, "it") if filename else message
