"""Score recordings without labels: how likely is it that the learner said the text?

    python score.py clip.wav --text "the cat sat"
    python score.py recordings/       clip.wav beside clip.txt or clip.lab, in subfolders too
    python score.py table.csv         columns filename and text; perhaps grade, task, speaker
    python score.py manifest.json     JSON lines, as NeMo writes them

Prints a table, in which words that were probably not said are in brackets (of over 60 recordings,
the 20 lowest scores and 20 recordings without one), and writes scores.csv, scores_words.csv, and
scores.html, a page to look at and to listen to (for a single recording only with --out and --page).
Every row has a status: ok, unsure (a person should listen), or why there is no score. The exit
status is 2 if no row has a score.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.failures import USER_ERROR_STATUS, ended_by_signals
from hearback.engine.io import STANDARD_OUTPUT, check_apart, check_not_read, check_writable
from hearback.engine.machine import PRECISIONS
from hearback.engine.page import flags as page_flags
from hearback.engine.page.origin import Origin, write_origin
from hearback.reading import step_command
from hearback.reading.pretrained.folders import DEFAULT_SCORER

if TYPE_CHECKING:
    from hearback.engine.page.writing import PageOptions
    from hearback.reading.scoring.inputs import Inputs
    from hearback.reading.scoring.results import Score
    from hearback.reading.scoring.scorer import Scorer

DEFAULT_OUT = Path("scores.csv")
_OUTPUT_FLAGS = "--out, --json or --page"


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("input", type=Path, help="a recording, a folder of recordings, or a table")
    add("--text", help="the text of the recording (default: that of the file beside it)")
    add("--data", type=Path, help="folder of a table's recordings (default: that of the table)")
    add("--grade", help="of the reader: KG, 1, 2 or 3 (default: not adjusted by grade)")
    add("--task", help="deletion, blending, nonword_repetition or sentence_repetition")
    add("--scorer", default=DEFAULT_SCORER, help="a shipped scorer (tiny.en, base), or a folder")
    add(
        "--out",
        type=Path,
        help=f"table to write, with its words beside it (default: {DEFAULT_OUT} and "
        "scores_words.csv, except for a single recording)",
    )
    add(
        "--json",
        type=Path,
        metavar="PATH",
        help="also write everything as JSON to this file; with - to standard output, in place of "
        "the table",
    )
    add(
        "--textgrid",
        type=Path,
        metavar="FOLDER",
        help="also write a TextGrid (Praat) for each recording to this folder",
    )
    add(
        "--store",
        type=Path,
        help="folder that keeps the decoded recordings for the next time (default: a temporary "
        "one)",
    )
    page_flags.add_page_flags(
        parser,
        "page to write (default: scores.html beside scores.csv); report.py --scores scores.csv "
        "writes it with other recordings to listen to",
    )
    add("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the matrix products; auto: half precision if the device has it, else float32",
    )
    return parser


def main() -> int:
    """Parse the command line, score, and show and write the scores.

    Returns 0, or 2 if no recording has a score.
    """
    arguments = _parser().parse_args()
    _check_decodable(arguments)
    # Imported after the command line: torch takes a second.
    from hearback.engine.data.problems import count_noun  # noqa: PLC0415
    from hearback.reading.scoring.inputs import read_inputs  # noqa: PLC0415
    from hearback.reading.scoring.outputs import write_scores, write_scores_json  # noqa: PLC0415
    from hearback.reading.scoring.scorer import Scorer  # noqa: PLC0415
    from hearback.reading.scoring.screen import show  # noqa: PLC0415
    from hearback.reading.scoring.textgrid import write_textgrids  # noqa: PLC0415

    report = Report()
    inputs = read_inputs(
        arguments.input,
        arguments.text,
        report,
        grade=arguments.grade or "",
        task=arguments.task or "",
        data=arguments.data,
    )
    is_single = arguments.input.is_file() and not inputs.is_table
    out = arguments.out or (None if is_single else DEFAULT_OUT)
    _check_table(out)
    default = None if out is None else page_flags.page_beside(out)
    page = page_flags.choose_page(arguments.page, default, is_off=arguments.no_page)
    _check_outputs(out, arguments.json, arguments.textgrid, page)
    _check_replaceable(inputs, arguments, out, page)
    scorer = Scorer.load(arguments.scorer, device=arguments.device, precision=arguments.precision)
    scores, found = _score(scorer, inputs, report, arguments, progress=not is_single)
    report = _with_statuses(report, inputs, scores)
    # With JSON on standard output, what else is said goes to standard error.
    is_piped = arguments.json == STANDARD_OUTPUT
    with contextlib.redirect_stdout(sys.stderr if is_piped else sys.stdout):
        if not is_piped:
            show(scores)
        _print_problems(found)
        if out is not None:
            write_scores(scores, out)
            _write_problems(report, out)
            write_origin(out, _origin(out, inputs.folder, arguments.scorer))
        if arguments.json is not None and not is_piped:
            write_scores_json(scores, report.problems, scorer.name, arguments.json)
        if arguments.textgrid is not None:
            n = write_textgrids(scores, arguments.textgrid)
            print(f"wrote {arguments.textgrid}: {count_noun(n, 'TextGrid')}")
        again = "" if out is None else page_flags.report_command(step_command("report"), out, page)
        page_flags.end_with_page(
            page,
            lambda options: _write_page(options, scores, inputs, scorer, report),
            command=again,
        )
    if is_piped:
        write_scores_json(scores, report.problems, scorer.name, arguments.json)
    return _status_of(scores)


def _score(
    scorer: "Scorer",
    inputs: "Inputs",
    report: Report,
    arguments: argparse.Namespace,
    *,
    progress: bool,
) -> tuple["list[Score]", Report]:
    """Return the scores, and the problems that the scorer found.

    Those of the input are printed before the work that takes long. All go into the report.
    """
    from hearback.reading.scoring.recordings import open_recordings  # noqa: PLC0415

    # Decoded recordings of learners are not left behind when the process is ended.
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="hearback-score-") as temporary:
        scorer.check(inputs, report)
        folder = arguments.store or Path(temporary)
        recordings = open_recordings(inputs, folder, report, progress=progress)
        _print_problems(report, inputs.notes)
        _check_any_there(inputs, report, arguments.data)
        known = set(report.problems)
        scores = scorer.score_decoded(inputs, recordings, report, progress=progress)
    return scores, Report(each for each in report.problems if each not in known)


def _with_statuses(report: Report, inputs: "Inputs", scores: "Sequence[Score]") -> Report:
    """Return the problems in the order of the rows, each with the status of its row."""
    from hearback.reading.scoring import status  # noqa: PLC0415

    rows: dict[tuple[int | None, str], str] = {}
    lines, names = inputs.frame["line"], inputs.frame["filename"]
    for line, name, score in zip(lines, names, scores, strict=True):
        if line is not None:
            rows[line, ""] = score.status
        rows[line, name] = score.status
    return status.with_row_status(report, rows)


def _write_problems(report: Report, out: Path) -> None:
    """Write the problems beside the table `out`."""
    from hearback.engine.data.problems import count_noun  # noqa: PLC0415
    from hearback.engine.data.tables import problems_path, save_problems  # noqa: PLC0415

    save_problems(report, out)
    if report.problems:
        print(f"wrote {problems_path(out)}: {count_noun(len(report.problems), 'problem')}")


def _origin(out: Path, data: Path, scorer: str) -> Origin:
    """Return what the page of the table `out` needs to be made again."""
    from hearback.reading.pretrained.folders import PRETRAINED, find_scorer  # noqa: PLC0415
    from hearback.reading.words import words_path  # noqa: PLC0415

    folder = find_scorer(scorer)
    folders = {"data": data}
    if is_shipped := folder.parent == PRETRAINED:
        scorer = folder.name
    else:
        folders["scorer"] = folder
    return Origin(folders, scorer if is_shipped else "", {"words": words_path(out)})


def _status_of(scores: "Sequence[Score]") -> int:
    """Return the exit status; 2, with a line, if there is no score."""
    from hearback.reading.scoring.results import count_statuses  # noqa: PLC0415

    if any(score.probability is not None for score in scores):
        return 0
    why = count_statuses(scores)
    what = f"none of {len(scores)} recordings has a score"
    if len(scores) == 1:
        what, why = "the recording has no score", scores[0].status
    print(f"{what}: {why}", file=sys.stderr)
    return USER_ERROR_STATUS


def _check_any_there(inputs: "Inputs", report: Report, data: Path | None) -> None:
    """Raise HearbackError if no recording of a table is there: the folder is another one."""
    from hearback.engine.data.filenames import portable  # noqa: PLC0415

    names = set(filter(None, inputs.frame["filename"]))
    unreadable = {each.filename for each in report.errors}
    if not inputs.is_table or not names or not names <= unreadable:
        return
    if any((inputs.folder / portable(name)).exists() for name in names):
        return
    cure = "name the folder that has them with --data"
    if data is not None:
        cure = "--data is the folder that the table's filenames are relative to"
    raise HearbackError(
        f"{inputs.origin}: none of its {len(names)} recordings is in {inputs.folder}; {cure}"
    )


def _write_page(
    options: "PageOptions",
    scores: "Sequence[Score]",
    inputs: "Inputs",
    scorer: "Scorer",
    report: Report,
) -> None:
    # Here: what it imports takes a while, too.
    from hearback.reading.pretrained.folders import find_scorer, read_facts  # noqa: PLC0415
    from hearback.reading.report.write import write_score_page  # noqa: PLC0415

    scorer_folder = find_scorer(scorer.name)
    write_score_page(
        scores,
        options,
        folder=inputs.folder,
        scorer=scorer_folder.resolve().name,
        config=scorer.ensemble.config,
        problems=report.problems,
        card=read_facts(scorer_folder),
    )


def _check_decodable(arguments: argparse.Namespace) -> None:
    """Raise HearbackError for a path or text with bytes that no output can have."""
    from hearback.engine.data.text_files import is_unicode, shown_name  # noqa: PLC0415

    for name, value in vars(arguments).items():
        if name == "input" or not isinstance(value, (str, Path)) or is_unicode(str(value)):
            continue  # `read_inputs` checks the input
        cure = "write it again" if name == "text" else "name another one"
        what = "is no UTF-8, and no table can have it"
        raise HearbackError(f"--{name} {shown_name(str(value))}: {what}; {cure}")


def _check_table(out: Path | None) -> None:
    """Raise HearbackError if a table of that name would be a surprise, or cannot be."""
    if out == STANDARD_OUTPUT:
        raise HearbackError("--out -: tables are files; --json - writes to standard output")
    if out is not None:
        _check_no_folder(out)


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        raise HearbackError(f"{path}: is a folder; name a file in it")


def _check_outputs(
    out: Path | None, json: Path | None, textgrid: Path | None, page: Path | None
) -> None:
    """Check before the work that the outputs can be written."""

    if page is not None:
        page_flags.check_page(page, "--page")
    for path in (out, None if json == STANDARD_OUTPUT else json):
        if path is not None:
            _check_no_folder(path)
            check_writable(path)
    if textgrid is not None:
        if textgrid.exists() and not textgrid.is_dir():
            raise HearbackError(f"{textgrid}: is a file; name a folder for the TextGrids")
        check_writable(textgrid / "clip.TextGrid")


def _tables_beside(out: Path | None) -> tuple[Path, ...]:
    """Return the table of scores, and what is written beside it."""
    from hearback.engine.data.tables import problems_path  # noqa: PLC0415
    from hearback.engine.page.origin import origin_path  # noqa: PLC0415
    from hearback.reading.words import words_path  # noqa: PLC0415

    return () if out is None else (out, words_path(out), problems_path(out), origin_path(out))


def _check_replaceable(
    inputs: "Inputs", arguments: argparse.Namespace, out: Path | None, page: Path | None
) -> None:
    """Raise HearbackError if an output would replace another one, or a file that is read."""
    from hearback.reading.scoring.paired_files import possible_texts  # noqa: PLC0415
    from hearback.reading.scoring.textgrid import (  # noqa: PLC0415
        check_replaceable,
        textgrid_paths,
    )

    others = [path for path in (arguments.json, page) if path not in (None, STANDARD_OUTPUT)]
    outputs = [*_tables_beside(out), *others]
    check_apart(outputs, _OUTPUT_FLAGS)
    if arguments.textgrid is not None:
        check_replaceable(textgrid_paths(inputs.frame["filename"], arguments.textgrid).values())
    recordings = [str(inputs.folder / name) for name in inputs.frame["filename"]]
    texts = [text for recording in recordings for text in possible_texts(recording)]
    check_not_read(outputs, (arguments.input, *recordings, *texts), _OUTPUT_FLAGS)


def _print_problems(report: Report, notes: tuple[str, ...] = ()) -> None:
    """Print notes and problems to standard error."""
    for note in notes:
        print(note, file=sys.stderr)
    if report.problems:
        print(f"{report}\n", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
