"""speechocean762 in the competition's layout.

    python -m hearback.reading.corpora.speechocean762 CORPUS data/

The corpus: 5,000 English sentences, read by 250 people whose mother tongue is Mandarin, half of
them children; five experts scored every word (Zhang et al. 2021, arXiv 2104.01378; CC BY 4.0).
CORPUS is a checkout of github.com/jimbozhang/speechocean762 or OpenSLR 101's archive
(speechocean762.tar.gz). Its word scores (`accuracy` in resource/scores.json) are the median of the
five experts, from 0 to 10: 7 or more is at most an accent, 3 or less is another word, or no word.

Categories of recordings (`why` in provenance.csv; `worst` is the score of the worst word):

- correct: the worst word has 7 or more. Score 1.
- mispronounced: the worst word has 3 or less. Score 0.
- substitute, omit, insert: read as well as the correct ones, but one word of the expected text is
  replaced by a similar-sounding one, removed, or added. Score 0.
- a worst word between 3 and 7: excluded, since the experts disagree.

The five experts' scores of every word (resource/scores-detail.json), for the training half, become
train_words.csv. They are of the words that were read, also where the expected text is another.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.reading.corpora import remove_tables, write_tables
from hearback.reading.corpora.speechocean762_edits import edit_texts
from hearback.reading.corpora.speechocean762_files import HALVES, open_corpus
from hearback.reading.corpora.speechocean762_lexicon import Lexicon, read_lexicon
from hearback.reading.corpora.speechocean762_tables import Utterance, read_corpus
from hearback.reading.corpora.speechocean762_words import read_scored_words, to_table

WELL_READ = 7.0  # the worst word's score, at least
MISPRONOUNCED = 3.0  # the worst word's score, at most
FILENAME = re.compile(r"[0-9]{9}\.wav")
PROVENANCE = ["age", "sex", "worst", "why", "text_read"]


def grade_of(age: int) -> str:
    """Return the grade for an age in years; adults are in the highest."""
    return {6: "KG", 7: "1", 8: "2"}.get(max(age, 6), "3")


def label(utterances: list[Utterance], lexicon: Lexicon, rng: np.random.Generator) -> pd.DataFrame:
    """Return a row for every scored recording, in random order.

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
    """Write the corpus at `path` to `folder` in the competition's layout; return `label`'s rows.

    Recordings already there with the right size are not copied again. Raises BadInputError with
    every problem of the corpus, before anything is written, and HearbackError if `folder` contains
    another corpus.
    """
    corpus, report = open_corpus(path), Report()
    utterances = read_corpus(corpus, report)
    lexicon = read_lexicon(corpus, utterances, report)
    words = read_scored_words(corpus, utterances, report)
    report.raise_if_errors()
    for problem in report.warnings:
        print(f"warning: {problem.file}: {problem.what}", file=sys.stderr)
    rows = label(utterances, lexicon, np.random.default_rng(seed))
    remove_tables(folder, FILENAME)
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
    train = rows[rows["half"] == "train"]
    filename_of = dict(zip(train["id"], train["filename"], strict=True))
    write_tables(folder, rows, PROVENANCE, to_table(words, filename_of))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Build the corpus and print a summary."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m hearback.reading.corpora.speechocean762"
    parser.add_argument("corpus", type=Path, help="folder of a checkout, or speechocean762.tar.gz")
    parser.add_argument("data", type=Path, help="folder to write to, such as data/")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the edited texts")
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
