"""Read speechocean762's Kaldi tables, word scores and lexicon, with every problem reported."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from hearback.engine.data.problems import Problem, Report
from hearback.reading.corpora.speechocean762_files import (
    GIT_LFS,
    HALVES,
    KALDI_TABLES,
    SCORES,
    TOP_FOLDERS,
    Corpus,
)

CURE_LFS = "run `git lfs pull` in the checkout"
CURE_INCOMPLETE = "the corpus is incomplete: check it out or download it again"
UTTERANCE = re.compile(r"[0-9]{9}")
Fault = tuple[str, str]  # a problem, and its cure


@dataclass(frozen=True)
class Utterance:
    """A recording with its metadata in the corpus."""

    id: str
    half: str  # train or test
    audio: str  # the WAV's path in the corpus
    size: int  # the WAV's, in bytes
    text: str  # the text to read, in lower case
    speaker: str
    age: int  # years
    sex: str  # f or m
    worst: float  # the experts' median for the worst word, 0 to 10


def read_corpus(corpus: Corpus, report: Report) -> list[Utterance]:
    """Read both halves; add everything missing or malformed to the report."""
    worst = _read_scores(corpus, report)
    utterances = [each for half in HALVES for each in _read_half(corpus, half, worst, report)]
    for name, count in Counter(each.id for each in utterances).items():
        if count > 1:
            cure = "a recording belongs to one half"
            report.add(Problem("test/wav.scp", None, "in train/wav.scp too", cure, filename=name))
    return utterances


def _read_half(
    corpus: Corpus, half: str, worst: Mapping[str, float], report: Report
) -> list[Utterance]:
    """Read one half's Kaldi tables. An empty table is reported once, not for every recording."""
    tables = {name: _read_pairs(corpus, f"{half}/{name}", report) for name in KALDI_TABLES}
    utterances = []
    for name, (row, audio) in tables["wav.scp"].items():
        faults: list[Fault] = []
        if not UTTERANCE.fullmatch(name):
            faults.append(("not an utterance's name", "use nine digits"))
        if worst and name not in worst:
            faults.append((f"no scores in {SCORES}", CURE_INCOMPLETE))
        size = _check_audio(corpus, audio, faults)
        text = _look_up(name, tables["text"], f"{half}/text", faults)
        speaker = _look_up(name, tables["utt2spk"], f"{half}/utt2spk", faults)
        age = _look_up(speaker, tables["spk2age"], f"{half}/spk2age", faults, "the speaker is ")
        sex = _look_up(
            speaker, tables["spk2gender"], f"{half}/spk2gender", faults, "the speaker is "
        )
        if age and not age.isdecimal():
            faults.append((f"speaker {speaker} is {age!r} years old", "write a whole number"))
        for what, cure in faults:
            report.add(Problem(f"{half}/wav.scp", row, what, cure, filename=name))
        if not faults and all((worst, text, speaker, age, sex)):
            read = " ".join(text.lower().split())
            utterances.append(
                Utterance(name, half, audio, size, read, speaker, int(age), sex, worst[name])
            )
    return utterances


def _look_up(
    key: str,
    table: Mapping[str, tuple[int, str]],
    path: str,
    faults: list[Fault],
    who_is: str = "",
) -> str:
    """Return the key's value, or "" and a fault if it is missing in a table that has rows."""
    if key and table and key not in table:
        faults.append((f"{who_is}not in {path}", CURE_INCOMPLETE))
    return table.get(key, (0, ""))[1]


def _check_audio(corpus: Corpus, audio: str, faults: list[Fault]) -> int:
    """Return the WAV's size in bytes, with a fault if it is missing or invalid."""
    path = PurePosixPath(audio)
    if ".." in path.parts or path.parts[:1] != ("WAVE",):
        faults.append((f"{audio!r} is not a path in WAVE/", "recordings must be in WAVE/"))
        return 0
    entry = corpus.entry(audio)
    if entry is None:
        faults.append(("the recording is missing", CURE_INCOMPLETE))
    elif entry.head == GIT_LFS:
        faults.append(("the recording is a Git LFS pointer", CURE_LFS))
    elif not entry.head.startswith(b"RIFF"):
        faults.append(("the recording is empty or no WAV", CURE_INCOMPLETE))
    return entry.size if entry else 0


def read_text(corpus: Corpus, path: str, report: Report) -> str:
    """Return a table's text; empty, with a problem in the report, if it is unreadable."""
    content = corpus.read(path)
    if content is None:
        cure = f"give the folder or archive that contains {', '.join(TOP_FOLDERS)}"
        report.add(Problem(path, None, "missing", cure))
    elif content.startswith(GIT_LFS):
        report.add(Problem(path, None, "a Git LFS pointer", CURE_LFS))
    elif not content.strip():
        report.add(Problem(path, None, "empty", CURE_INCOMPLETE))
    else:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            report.add(Problem(path, None, f"not UTF-8: {error}", CURE_INCOMPLETE))
    return ""


def _read_pairs(corpus: Corpus, path: str, report: Report) -> dict[str, tuple[int, str]]:
    """Return a Kaldi table: the first word of each line -> (line number, rest of the line)."""
    pairs: dict[str, tuple[int, str]] = {}
    for row, line in enumerate(read_text(corpus, path, report).splitlines(), 1):
        words = line.split(maxsplit=1)
        if len(words) < 2:
            report.add(Problem(path, row, f"not a name and a value: {line!r}", CURE_INCOMPLETE))
        elif words[0] in pairs:
            what = f"{words[0]} is already in line {pairs[words[0]][0]}"
            report.add(Problem(path, row, what, "keep one of them"))
        else:
            pairs[words[0]] = (row, words[1].strip())
    return pairs


def _read_scores(corpus: Corpus, report: Report) -> dict[str, float]:
    """Return the score of every utterance's worst word, 0 to 10."""
    text = read_text(corpus, SCORES, report)
    if not text:
        return {}
    try:
        scores = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        report.add(Problem(SCORES, None, f"not JSON with utterances: {error}", CURE_INCOMPLETE))
        return {}
    worst = {}
    for name, utterance in scores.items():
        try:
            worst[name] = min(float(word["accuracy"]) for word in utterance["words"])
        except (KeyError, TypeError, ValueError):
            worst[name] = float("nan")
        if not 0 <= worst[name] <= 10:
            what = "no list of words with an accuracy of 0 to 10 each"
            report.add(Problem(SCORES, None, what, CURE_INCOMPLETE, filename=name))
    return worst
