"""speechocean762 in the competition's layout.

    python -m hearback.reading.corpora.speechocean762 CORPUS data/

The corpus: 5,000 English sentences, read by 250 people whose mother tongue is Mandarin, half of
them children; five experts scored every word (Zhang et al. 2021, arXiv 2104.01378; CC BY 4.0).
CORPUS is a checkout of github.com/jimbozhang/speechocean762 or OpenSLR 101's archive
(speechocean762.tar.gz). Its word scores (`accuracy` in resource/scores.json) run from 0 to 10 and
are the five experts' median: 7 or more is at most an accent, 3 or less another word, or no word.

What becomes of a recording (`why` in provenance.csv; `worst` is the score of its worst word):

- correct: the worst word has 7 or more. Score 1.
- mispronounced: the worst word has 3 or less. Score 0.
- substitute, omit, insert: read as well as the correct ones, but one word of the expected text is
  changed for a near-sounding one, left out, or added. Score 0.
- a worst word between 3 and 7: left out, for the experts themselves waver.
"""

import json
import re
import shutil
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np
import pandas as pd
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.data.problems import Problem, Report
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write
from hearback.reading.corpora import make_way, write_tables

WELL_READ = 7.0  # the worst word's score, at least
MISPRONOUNCED = 3.0  # the worst word's score, at most
# Of the training half's 1,763 well-read recordings 701 have their text changed, so that 46 % of
# the scores are 1, as in the competition. Any other part of the corpus gets the same shares.
EDITED_SHARE = 701 / 1763
EDIT_SHARES = {"omit": 152 / 701, "insert": 131 / 701}  # the rest: substitute
FEWEST_WORDS_TO_OMIT_ONE = 3

HALVES = ("train", "test")
SCORES, LEXICON = "resource/scores.json", "resource/lexicon.txt"
KALDI_TABLES = ("wav.scp", "text", "utt2spk", "spk2age", "spk2gender")
TOP_FOLDERS = (*HALVES, "resource", "WAVE")
TABLE_LIMIT = 2**29  # bytes that a table in an archive may have; the largest has a twentieth of it
GIT_LFS = b"version https://git-lfs"  # how a file begins that Git LFS has not brought yet
CURE_LFS = "run `git lfs pull` in the checkout"
CURE_WHOLE = "check it out or download it again: the corpus is not whole"
UTTERANCE = re.compile(r"[0-9]{9}")
OURS = re.compile(r"[0-9]{9}\.wav")
Fault = tuple[str, str]  # what is wrong, and its cure
PROVENANCE = ["age", "sex", "worst", "why", "text_read"]


@dataclass(frozen=True)
class Entry:
    """A file of the corpus: its size in bytes and how it begins."""

    size: int
    head: bytes


class Corpus(Protocol):
    """Where the corpus's files come from; paths are relative to its root, with slashes."""

    def read(self, path: str) -> bytes | None:
        """Return a table's content; None where there is no such file."""

    def entry(self, path: str) -> Entry | None:
        """Return what is known of a recording; None where there is no such file."""

    def copy(self, targets: Mapping[str, Path]) -> Iterator[str]:
        """Copy recordings to their targets, each whole or not at all; give each path when done."""


class Checkout:
    """The corpus as a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """Return a table's content; None where there is no such file."""
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def entry(self, path: str) -> Entry | None:
        """Return what is known of a recording; None where there is no such file."""
        file = self.root / path
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return Entry(file.stat().st_size, stream.read(len(GIT_LFS)))

    def copy(self, targets: Mapping[str, Path]) -> Iterator[str]:
        """Copy recordings to their targets, each whole or not at all; give each path when done."""
        for path, target in targets.items():
            with (self.root / path).open("rb") as stream:
                _write(stream, target)
            yield path


class Archive:
    """The corpus as a tar archive, compressed or not, read from front to end and never unpacked.

    A first pass keeps the tables and notes the recordings, a second copies those asked for. Only
    the bytes of plain files are used, under names of our own, so that no link or path in the
    archive leads anywhere. Raises tarfile.TarError, EOFError, OSError or zlib.error where the
    archive is damaged.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self._tables: dict[str, bytes] = {}
        self._entries: dict[str, Entry] = {}
        tables = {SCORES, LEXICON, *(f"{half}/{name}" for half in HALVES for name in KALDI_TABLES)}
        for path, size, stream in self._files():
            if path in tables:
                if size > TABLE_LIMIT:
                    raise tarfile.ReadError(f"{path} has {size} bytes")
                self._tables[path] = stream.read()
            elif path.startswith("WAVE/"):
                self._entries[path] = Entry(size, stream.read(len(GIT_LFS)))

    def read(self, path: str) -> bytes | None:
        """Return a table's content; None where there is no such file."""
        return self._tables.get(path)

    def entry(self, path: str) -> Entry | None:
        """Return what is known of a recording; None where there is no such file."""
        return self._entries.get(path)

    def copy(self, targets: Mapping[str, Path]) -> Iterator[str]:
        """Copy recordings to their targets, each whole or not at all; give each path when done."""
        left = dict(targets)
        for path, _, stream in self._files() if left else ():
            if path in left:
                _write(stream, left.pop(path))
                yield path
            if not left:
                return
        if left:
            raise HearbackError(f"{self.archive} changed while it was read: start again")

    def _files(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        """Give each plain file: its path below the corpus's root, its size in bytes, its content.

        The root is the archive's, or the one folder in it (OpenSLR's has `speechocean762/`).
        """
        # Not "r|*", which takes a compressed file that is cut off for a shorter one.
        with tarfile.open(self.archive, "r:*") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                root = next((i for i, part in enumerate(parts[:2]) if part in TOP_FOLDERS), None)
                stream = tar.extractfile(member) if member.isfile() else None
                if root is not None and stream is not None:
                    yield "/".join(parts[root:]), member.size, stream


def _write(stream: IO[bytes], target: Path) -> None:
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(stream, file)


def open_corpus(path: Path) -> Corpus:
    """Open a checkout (a folder) or an archive (a file). Raises BadInput where it is neither."""
    if path.is_dir():
        return Checkout(path)
    report = Report()
    if path.is_file():
        try:
            return Archive(path)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            what = f"not a whole tar archive: {error}"
            report.add(Problem(str(path), None, what, "download speechocean762.tar.gz again"))
    else:
        cure = "give the folder of a checkout, or speechocean762.tar.gz from openslr.org/101"
        report.add(Problem(str(path), None, "no such folder or file", cure))
    report.raise_if_errors()
    raise AssertionError("a report with an error raises")


@dataclass(frozen=True)
class Utterance:
    """A recording, and what the corpus says of it."""

    id: str
    half: str  # train or test
    audio: str  # the WAV's path in the corpus
    size: int  # the WAV's, in bytes
    text: str  # what was to be read, in lower case
    speaker: str
    age: int  # years
    sex: str  # f or m
    worst: float  # the experts' median for the worst word, 0 to 10


def read_corpus(corpus: Corpus, report: Report) -> list[Utterance]:
    """Read both halves; everything that is missing or malformed goes into the report."""
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
    """Read one half's Kaldi tables. An empty table has been reported, and is not asked again."""
    tables = {name: _read_pairs(corpus, f"{half}/{name}", report) for name in KALDI_TABLES}
    utterances = []
    for name, (row, audio) in tables["wav.scp"].items():
        faults: list[Fault] = []
        if not UTTERANCE.fullmatch(name):
            faults.append(("not an utterance's name", "it has nine digits"))
        if worst and name not in worst:
            faults.append((f"no scores in {SCORES}", CURE_WHOLE))
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
    """Return the key's value, or an empty string; a table with other keys must have this one."""
    if key and table and key not in table:
        faults.append((f"{who_is}not in {path}", CURE_WHOLE))
    return table.get(key, (0, ""))[1]


def _check_audio(corpus: Corpus, audio: str, faults: list[Fault]) -> int:
    """Return the WAV's size in bytes; 0, and a fault, where it is not one."""
    path = PurePosixPath(audio)
    if ".." in path.parts or path.parts[:1] != ("WAVE",):
        faults.append((f"{audio!r} is not a path in WAVE/", "recordings lie in the corpus's WAVE/"))
        return 0
    entry = corpus.entry(audio)
    if entry is None:
        faults.append(("the recording is missing", CURE_WHOLE))
    elif entry.head == GIT_LFS:
        faults.append(("the recording is a Git LFS pointer", CURE_LFS))
    elif not entry.head.startswith(b"RIFF"):
        faults.append(("the recording is empty or no WAV", CURE_WHOLE))
    return entry.size if entry else 0


def _read_text(corpus: Corpus, path: str, report: Report) -> str:
    """Return a table's text; empty, and reported, where there is none to be had."""
    content = corpus.read(path)
    if content is None:
        cure = f"give the folder or archive that holds {', '.join(TOP_FOLDERS)}"
        report.add(Problem(path, None, "missing", cure))
    elif content.startswith(GIT_LFS):
        report.add(Problem(path, None, "a Git LFS pointer", CURE_LFS))
    elif not content.strip():
        report.add(Problem(path, None, "empty", CURE_WHOLE))
    else:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            report.add(Problem(path, None, f"not UTF-8: {error}", CURE_WHOLE))
    return ""


def _read_pairs(corpus: Corpus, path: str, report: Report) -> dict[str, tuple[int, str]]:
    """Read a Kaldi table: the first word of each line -> (line number, the rest of the line)."""
    pairs: dict[str, tuple[int, str]] = {}
    for row, line in enumerate(_read_text(corpus, path, report).splitlines(), 1):
        words = line.split(maxsplit=1)
        if len(words) < 2:
            report.add(Problem(path, row, f"not a name and a value: {line!r}", CURE_WHOLE))
        elif words[0] in pairs:
            what = f"{words[0]} stands in line {pairs[words[0]][0]} already"
            report.add(Problem(path, row, what, "keep one of them"))
        else:
            pairs[words[0]] = (row, words[1].strip())
    return pairs


def _read_scores(corpus: Corpus, report: Report) -> dict[str, float]:
    """Read every utterance's worst word score, 0 to 10."""
    text = _read_text(corpus, SCORES, report)
    if not text:
        return {}
    try:
        scores = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        report.add(Problem(SCORES, None, f"not JSON with utterances: {error}", CURE_WHOLE))
        return {}
    worst = {}
    for name, utterance in scores.items():
        try:
            worst[name] = min(float(word["accuracy"]) for word in utterance["words"])
        except (KeyError, TypeError, ValueError):
            worst[name] = float("nan")
        if not 0 <= worst[name] <= 10:
            what = "no list of words with an accuracy of 0 to 10 each"
            report.add(Problem(SCORES, None, what, CURE_WHOLE, filename=name))
    return worst


def grade_of(age: int) -> str:
    """Return the grade that an age in years stands for; a grown-up's is the highest."""
    return {6: "KG", 7: "1", 8: "2"}.get(max(age, 6), "3")


def edit_distance(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Return how many sounds must be changed, dropped or added to make one of the other."""
    previous = list(range(len(second) + 1))
    for i, sound in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (sound != other)))
        previous = row
    return previous[-1]


@dataclass
class Lexicon:
    """The corpus's vocabulary and how its words sound.

    `pronunciations` gives each word's variants as sequences of sounds: phonemes without their
    stress, or the word's letters.
    """

    pronunciations: dict[str, list[tuple[str, ...]]]
    _near: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def distance(self, first: str, second: str) -> int:
        """Return the smallest edit distance between two words' variants; 0 for homophones."""
        return min(
            edit_distance(a, b)
            for a in self.pronunciations[first]
            for b in self.pronunciations[second]
        )

    def near(self, word: str) -> list[str]:
        """Return the words that sound nearest, but not the same; at most half of `word` differs.

        Words of one sound may change it. None are returned for a word that is not in the lexicon.
        """
        if word not in self._near:
            self._near[word] = self._find_near(word)
        return self._near[word]

    def _find_near(self, word: str) -> list[str]:
        lengths = {len(variant) for variant in self.pronunciations.get(word, ())}
        best, found = max(1, max(lengths, default=0) // 2), []
        for other, variants in self.pronunciations.items() if lengths else ():
            if min(abs(len(variant) - n) for variant in variants for n in lengths) > best:
                continue  # their lengths alone make them differ more
            distance = self.distance(word, other)
            if 0 < distance < best:
                best, found = distance, [other]
            elif distance == best:
                found.append(other)
        return found


def read_lexicon(corpus: Corpus, utterances: Iterable[Utterance], report: Report) -> Lexicon:
    """Read the pronunciations of the corpus's words.

    Without resource/lexicon.txt words are near when their spellings are, and a warning says so.
    """
    words = sorted({word for each in utterances for word in each.text.split()})
    if corpus.read(LEXICON) is None:
        what = "missing: words count as near-sounding where their spellings are near"
        cure = "take it from the corpus"
        report.add(Problem(LEXICON, None, what, cure, severity="warning"))
        return Lexicon({word: [tuple(word)] for word in words})
    pronunciations: dict[str, list[tuple[str, ...]]] = {}
    for row, line in enumerate(_read_text(corpus, LEXICON, report).splitlines(), 1):
        word, *phonemes = line.lower().split() or [""]
        if phonemes:
            variant = tuple(phoneme.rstrip("012") for phoneme in phonemes)
            pronunciations.setdefault(word, []).append(variant)
        else:
            what = f"not a word and its phonemes: {line!r}"
            report.add(Problem(LEXICON, row, what, CURE_WHOLE))
    return Lexicon({word: pronunciations[word] for word in words if word in pronunciations})


def substitute(words: list[str], lexicon: Lexicon, rng: np.random.Generator) -> list[str] | None:
    """Change one word for a near-sounding one; None where no word has any."""
    for position in rng.permutation(len(words)):
        near = lexicon.near(words[position])
        if near:
            return [*words[:position], str(rng.choice(near)), *words[position + 1 :]]
    return None


def omit(words: list[str], _: Lexicon, rng: np.random.Generator) -> list[str] | None:
    """Leave one word out; None where too few would remain."""
    if len(words) < FEWEST_WORDS_TO_OMIT_ONE:
        return None
    position = rng.integers(len(words))
    return [*words[:position], *words[position + 1 :]]


def insert(words: list[str], lexicon: Lexicon, rng: np.random.Generator) -> list[str] | None:
    """Add one word of the vocabulary."""
    position = rng.integers(len(words) + 1)
    return [*words[:position], str(rng.choice(list(lexicon.pronunciations))), *words[position:]]


def edit_texts(
    well_read: list[Utterance], lexicon: Lexicon, taken: set[str], rng: np.random.Generator
) -> dict[str, tuple[str, str]]:
    """Choose the recordings whose text is changed: id -> (omit, insert or substitute, new text).

    New texts are none of `taken`, and are added to it: a changed text comes once, so that its
    score cannot be learned by heart.
    """
    edited_count = round(EDITED_SHARE * len(well_read))
    counts = {why: round(share * edited_count) for why, share in EDIT_SHARES.items()}
    counts["substitute"] = edited_count - sum(counts.values())
    edits = {"omit": omit, "insert": insert, "substitute": substitute}
    waiting = [well_read[i] for i in rng.permutation(len(well_read))]
    edited: dict[str, tuple[str, str]] = {}
    for why, count in counts.items():
        left = count
        for utterance in waiting:
            if not left:
                break
            if utterance.id in edited:
                continue
            words = edits[why](utterance.text.split(), lexicon, rng)
            if words and (text := " ".join(words)) not in taken:
                edited[utterance.id] = (why, text)
                taken.add(text)
                left -= 1
    return edited


def label(utterances: list[Utterance], lexicon: Lexicon, rng: np.random.Generator) -> pd.DataFrame:
    """Return a row for every recording that gets a score, in random order.

    Columns: id, half, filename, task, expected_text, grade, speaker, score, age, sex, worst, why,
    text_read.
    """
    taken = {each.text for each in utterances}
    edited: dict[str, tuple[str, str]] = {}
    for half in HALVES:
        well_read = [each for each in utterances if each.half == half and each.worst >= WELL_READ]
        edited |= edit_texts(well_read, lexicon, taken, rng)
    rows = []
    for each in utterances:
        if MISPRONOUNCED < each.worst < WELL_READ:
            continue
        why, text = ("correct" if each.worst >= WELL_READ else "mispronounced"), each.text
        why, text = edited.get(each.id, (why, text))
        rows.append(
            {
                "id": each.id,
                "half": each.half,
                "filename": f"{each.id}.wav",
                "task": "sentence_repetition",
                "expected_text": text,
                "grade": grade_of(each.age),
                "speaker": each.speaker,
                "score": float(why == "correct"),
                "age": each.age,
                "sex": each.sex,
                "worst": each.worst,
                "why": why,
                "text_read": each.text,
            }
        )
    return pd.DataFrame([rows[i] for i in rng.permutation(len(rows))])


def build(path: Path, folder: Path, seed: int = 0) -> pd.DataFrame:
    """Bring the corpus at `path` to `folder` in the competition's layout; return `label`'s rows.

    Recordings that are there already, whole, are not copied again. Raises BadInput with every
    problem of the corpus, before anything is written, and HearbackError where `folder` holds
    another corpus.
    """
    corpus, report = open_corpus(path), Report()
    utterances = read_corpus(corpus, report)
    lexicon = read_lexicon(corpus, utterances, report)
    report.raise_if_errors()
    for problem in report.warnings:
        print(f"warning: {problem.file}: {problem.what}", file=sys.stderr)
    rows = label(utterances, lexicon, np.random.default_rng(seed))
    make_way(folder, OURS)
    by_id = {each.id: each for each in utterances}
    targets = {}
    for name in rows["id"]:
        target = folder / f"{name}.wav"
        if not target.exists() or target.stat().st_size != by_id[name].size:
            targets[by_id[name].audio] = target
    for _ in tqdm(
        corpus.copy(targets), total=len(targets), desc="recordings", unit="file", disable=None
    ):
        pass
    write_tables(folder, rows, PROVENANCE)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Build the corpus and say what it became."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m hearback.reading.corpora.speechocean762"
    parser.add_argument("corpus", type=Path, help="a checkout's folder, or speechocean762.tar.gz")
    parser.add_argument("data", type=Path, help="the folder to fill, such as data/")
    parser.add_argument("--seed", type=int, default=0, help="of the changed texts")
    options = parser.parse_args(arguments)
    rows = build(options.corpus, options.data, options.seed)
    for half in HALVES:
        part = rows[rows["half"] == half]
        whys = ", ".join(f"{count} {why}" for why, count in part["why"].value_counts().items())
        speakers, rate = part["speaker"].nunique(), part["score"].mean()
        print(f"{half}: {len(part)} recordings of {speakers} speakers, {rate:.1%} correct ({whys})")
    print(f"in {options.data}")
    return 0


if __name__ == "__main__":
    cli.run(main)
