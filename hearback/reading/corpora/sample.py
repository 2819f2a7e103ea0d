"""The embedded sample: a small synthetic corpus with all four tasks and known answers.

    python -m hearback.reading.corpora.sample data/

A synthetic voice (hibari) speaks word lists (`sample_items`) and is transformed into different
learners (`sample_audio`), who differ in pitch, vocal tract, pace and room; noise and level vary by
clip. About half of the clips contain the expected text. The rest contain another word
(`substitute`), lack a word or a part (`omit`), or have one sound changed (`swap`); see the columns
`said` and `how` of provenance.csv. The training and the test half have different learners.

The sample is only for trying out the steps: scores on it do not predict scores on children. The
same seed gives the same bytes, with the same machine and versions.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.reading.corpora import remove_tables, write_tables
from hearback.reading.corpora.sample_audio import Learner, Speech, make_learner, record
from hearback.reading.corpora.sample_items import Item, make_items
from hearback.reading.tables import GRADES, TASKS
from hearback.reading.voices import open_voice

N_TRAIN, N_TEST, N_SPEAKERS = 360, 60, 24
FILENAME = re.compile(r"sample_[0-9]+\.wav")
PROVENANCE = ["prompt", "said", "how", "pitch", "formants", "pace", "snr_db"]

# The share of correct clips by task; 0.47 over all, as in the competition.
SHARE_CORRECT = {
    "deletion": 0.54,
    "blending": 0.57,
    "nonword_repetition": 0.38,
    "sentence_repetition": 0.39,
}


@dataclass(frozen=True)
class Clip:
    """The plan of one recording."""

    half: str  # train or test
    learner: Learner
    item: Item
    said: str
    how: str  # correct, substitute, omit or swap


def plan(n_train: int, n_test: int, n_speakers: int, seed: int) -> list[Clip]:
    """Return the plan of all clips, in random order. Raises HearbackError for invalid sizes."""
    min_speakers = 2 if n_test else 1
    if n_train < 1 or n_test < 0 or n_speakers < min_speakers:
        raise HearbackError(
            f"--n_train {n_train} --n_test {n_test} --speakers {n_speakers}: a sample needs at "
            "least one training clip, and at least one speaker for each half"
        )
    rng = np.random.default_rng(seed)
    items = make_items(rng)
    n_test_speakers = -(-n_speakers * n_test // (n_train + n_test))  # rounded up
    n_test_speakers = min(n_test_speakers, n_speakers - 1)
    learners = [
        make_learner(f"s{i + 1:02d}", GRADES[i % len(GRADES)], rng) for i in range(n_speakers)
    ]
    test = _plan_half("test", n_test, learners[:n_test_speakers], items, rng)
    train = _plan_half("train", n_train, learners[n_test_speakers:], items, rng)
    clips = test + train
    return [clips[i] for i in rng.permutation(len(clips))]


def _plan_half(
    half: str, n: int, learners: list[Learner], items: list[Item], rng: np.random.Generator
) -> list[Clip]:
    """Distribute the items evenly, and choose the correct clips: a fixed share of each task."""
    rounds = -(-n // len(items))
    deck = [items[i] for _ in range(rounds) for i in rng.permutation(len(items))][:n]
    pairs = [(item, learners[i % len(learners)]) for i, item in enumerate(deck)]
    # Gumbel-top-k trick: the largest sums of log odds and noise are a sample weighted by the odds.
    noise = rng.gumbel(size=n)
    clips = []
    for task in TASKS:
        rows = [i for i, (item, _) in enumerate(pairs) if item.task == task]
        rows.sort(key=lambda i: -(pairs[i][1].skill + noise[i]))
        n_correct = round(SHARE_CORRECT[task] * len(rows))
        for rank, i in enumerate(rows):
            item, learner = pairs[i]
            how, said = "correct", item.text
            if rank >= n_correct:
                how = str(rng.choice(sorted(item.mistakes)))
                said = str(rng.choice(item.mistakes[how]))
            clips.append(Clip(half, learner, item, said, how))
    return clips


def build(
    folder: Path,
    n_train: int = N_TRAIN,
    n_test: int = N_TEST,
    n_speakers: int = N_SPEAKERS,
    seed: int = 0,
) -> pd.DataFrame:
    """Write the sample to `folder`; return a row per clip.

    Columns: half, filename, task, expected_text, grade, speaker, score, and those of PROVENANCE.
    Raises HearbackError for invalid sizes, and if `folder` contains another corpus.
    """
    clips = plan(n_train, n_test, n_speakers, seed)
    remove_tables(folder, FILENAME)
    rows = {}
    for i, speech in _analyse(clips):
        clip = clips[i]
        # Each clip has its own random numbers, independent of the order of clips.
        waveform, parameters = record(speech, clip.learner, np.random.default_rng([seed, i]))
        filename = f"sample_{i:05d}.wav"
        write_wav(folder / filename, waveform, SAMPLE_RATE)
        rows[i] = {
            "half": clip.half,
            "filename": filename,
            "task": clip.item.task,
            "expected_text": clip.item.text,
            "grade": clip.learner.grade,
            "speaker": clip.learner.name,
            "score": float(clip.how == "correct"),
            "prompt": clip.item.prompt,
            "said": clip.said,
            "how": clip.how,
            **parameters,
        }
    table = pd.DataFrame([rows[i] for i in sorted(rows)])
    write_tables(folder, table, PROVENANCE)
    return table


def _analyse(clips: Sequence[Clip]) -> Iterator[tuple[int, Speech]]:
    """Yield each clip's index and its speech; each text is rendered once per voice speed."""

    def rendering(i: int) -> tuple[float, str]:
        return clips[i].learner.voice_speed, clips[i].said

    order: Iterable[int] = sorted(range(len(clips)), key=rendering)
    with tqdm(total=len(clips), desc="recordings", unit="clip", disable=None) as bar:
        for speed, of_speed in groupby(order, key=lambda i: rendering(i)[0]):
            voice = open_voice("hibari", speed=speed)
            for said, of_text in groupby(of_speed, key=lambda i: rendering(i)[1]):
                speech = Speech.of(voice.render(said), voice.sample_rate)
                for i in of_text:
                    yield i, speech
                    bar.update()
            voice.close()


def main(arguments: list[str] | None = None) -> int:
    """Make the sample and print a summary."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m hearback.reading.corpora.sample"
    parser.add_argument("data", type=Path, help="folder to write to, such as data/")
    parser.add_argument("--n_train", type=int, default=N_TRAIN, help="number of training clips")
    parser.add_argument("--n_test", type=int, default=N_TEST, help="number of test clips")
    parser.add_argument(
        "--speakers", type=int, default=N_SPEAKERS, help="number of speakers, of both halves"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    options = parser.parse_args(arguments)
    rows = build(options.data, options.n_train, options.n_test, options.speakers, options.seed)
    for half in sorted(rows["half"].unique(), reverse=True):
        part = rows[rows["half"] == half]
        summary = f"{part['speaker'].nunique()} speakers, {part['score'].mean():.1%} correct"
        print(f"{half}: {len(part)} clips of {part['expected_text'].nunique()} texts, {summary}")
    print(f"in {options.data}")
    return 0


if __name__ == "__main__":
    cli.run(main)
