"""An embedded sample: a small screener with all four tasks and known answers.

    python -m hearback.reading.corpora.sample data/

Made from the word lists below, by a voice (hibari) bent with WORLD (Morise et al. 2016, by way of
pyworld) into learners: each has a pitch, a vocal tract and a pace of their own, and sits in a room
of their own; each clip has its own noise and level. About half of the clips say the expected text.
The others say another word (`substitute`), leave out a word or a part (`omit`), or change one
sound (`swap`); `said` and `how` in provenance.csv tell. The learners of the test half say nothing
in the training half.

It is for trying the steps out, and says nothing of how well a model hears children. The same seed
gives the same bytes, on the same machine and versions.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyworld
import scipy.signal
import soxr
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.errors import HearbackError
from hearback.reading.corpora import make_way, write_tables
from hearback.reading.tables import GRADES, TASKS
from hearback.reading.voices import open_voice

N_TRAIN, N_TEST, N_SPEAKERS = 360, 60, 24
OURS = re.compile(r"sample_[0-9]+\.wav")
PROVENANCE = ["prompt", "said", "how", "pitch", "formants", "pace", "snr_db"]

# What share of a task's clips says the expected text; 0.47 over all, as in the competition.
SAID_RIGHT = {
    "deletion": 0.54,
    "blending": 0.57,
    "nonword_repetition": 0.38,
    "sentence_repetition": 0.39,
}
VOICE_SPEEDS = (0.8, 0.95, 1.1)  # the voice's own pace is 1
FRAME_MS = 5.0  # WORLD's usual step

# Deletion, "say cowboy without cow": the whole, what to leave out, the answer, and words that
# differ from the answer by a sound.
DELETIONS = (
    ("cowboy", "cow", "boy", ("toy", "bay")),
    ("sunshine", "shine", "sun", ("fun", "sum")),
    ("rainbow", "bow", "rain", ("lane", "rail")),
    ("football", "foot", "ball", ("tall", "bell")),
    ("toothbrush", "tooth", "brush", ("crush", "brash")),
    ("starfish", "star", "fish", ("dish", "fit")),
    ("snowman", "snow", "man", ("pan", "men")),
    ("popcorn", "corn", "pop", ("top", "pot")),
    ("bedroom", "bed", "room", ("zoom", "root")),
    ("sandbox", "sand", "box", ("fox", "backs")),
    ("pancake", "pan", "cake", ("lake", "cape")),
    ("seashell", "sea", "shell", ("bell", "shall")),
)

# Blending, "cup ... cake": the parts, other words that begin or end so, and words that differ from
# the answer by a sound.
BLENDINGS = (
    ("cup", "cake", ("pancake",), ("cutcake", "cuplake")),
    ("butter", "fly", ("dragonfly",), ("mutterfly", "flutterfly")),
    ("sun", "flower", ("sunshine",), ("funflower", "sunshower")),
    ("basket", "ball", ("baseball",), ("casketball", "basketbell")),
    ("rain", "coat", ("raindrop",), ("raingoat", "lanecoat")),
    ("tooth", "paste", ("toothbrush",), ("toothbaste", "boothpaste")),
    ("lady", "bug", ("ladybird",), ("ladybag", "babybug")),
    ("space", "ship", ("spacesuit",), ("spacechip", "spaceshop")),
    ("note", "book", ("bookcase",), ("boatbook", "notehook")),
    ("dog", "house", ("farmhouse",), ("loghouse", "dogmouse")),
    ("jelly", "fish", ("goldfish",), ("jellydish", "bellyfish")),
    ("snow", "ball", ("snowflake",), ("slowball", "snowbell")),
)

# Sentences, and for some of their words one that differs by a sound and one that means otherwise.
SENTENCES: tuple[tuple[str, dict[str, tuple[str, str]]], ...] = (
    ("the dog ran to the red barn", {"dog": ("log", "cat"), "barn": ("yarn", "house")}),
    ("my mom made a big cake", {"big": ("pig", "small"), "cake": ("rake", "pie")}),
    ("we like to play in the sand", {"dry_run": ("pray", "dig"), "sand": ("hand", "water")}),
    ("the cat sat under the old bed", {"cat": ("bat", "dog"), "bed": ("bread", "chair")}),
    ("can you help me find my hat", {"find": ("bind", "wash"), "hat": ("mat", "shoe")}),
    ("he put the frog in the box", {"frog": ("fog", "mouse"), "box": ("fox", "bag")}),
    ("the sun is hot in the summer", {"sun": ("bun", "sand"), "hot": ("cot", "warm")}),
    ("she has two brown goats", {"brown": ("crown", "black"), "goats": ("coats", "sheep")}),
    (
        "they walked home after school in the rain",
        {"walked": ("talked", "ran"), "rain": ("train", "snow")},
    ),
    (
        "the little bird sang a song for me",
        {"bird": ("bard", "girl"), "song": ("long", "tune")},
    ),
    (
        "dad and i went to the park to fly a kite",
        {"park": ("bark", "beach"), "fly": ("fry", "buy"), "kite": ("bite", "plane")},
    ),
    (
        "the boy who lost his shoe had to hop home",
        {"boy": ("toy", "girl"), "shoe": ("zoo", "sock"), "hop": ("top", "walk")},
    ),
)

# Nonwords are strung together from syllables of an onset and a vowel, and end with a coda. Their
# spellings leave no doubt, in any order, about how they sound. Each has sounds near it; t and d
# are not near, for between vowels American English makes one sound of them, nor are ar and or.
N_NONWORDS = 12
CONSONANTS = {
    "b": ("p", "d"),
    "d": ("b", "n"),
    "f": ("v", "p"),
    "k": ("t", "p"),
    "m": ("n", "b"),
    "n": ("m", "d"),
    "p": ("b", "k"),
    "t": ("k", "p"),
}
VOWELS = {
    "ar": ("ay", "oo"),
    "ay": ("ee", "oy"),
    "ee": ("ay", "oo"),
    "oo": ("ee", "or"),
    "or": ("oo", "oy"),
    "oy": ("or", "ay"),
}

Mistakes = dict[str, tuple[str, ...]]  # substitute, omit or swap -> what is said instead


@dataclass(frozen=True)
class Item:
    """A thing to say, and what those say who get it wrong."""

    task: str
    prompt: str  # as an examiner would say it
    text: str  # the expected text
    mistakes: Mistakes


@dataclass(frozen=True)
class Learner:
    """How one learner speaks. Factors are relative to the voice."""

    name: str
    grade: str
    skill: float  # how much likelier than the others to be right; log odds
    pitch: float  # factor
    formants: float  # factor: a shorter vocal tract has higher ones
    voice_speed: float  # one of VOICE_SPEEDS
    stretch: float  # factor on the duration, on top of the voice's speed
    reverb_seconds: float  # until the room's echo is 60 dB down
    direct_db: float  # how much louder than the echo the learner is


@dataclass(frozen=True)
class Clip:
    """One recording to be made."""

    half: str  # train or test
    learner: Learner
    item: Item
    said: str
    how: str  # correct, substitute, omit or swap


def make_items(rng: np.random.Generator) -> list[Item]:
    """Return everything that is asked in the sample; the nonwords are invented."""
    items = []
    mistakes: Mistakes
    for whole, removed, answer, near in DELETIONS:
        mistakes = {"substitute": (whole, removed), "swap": near}
        items.append(Item("deletion", f"say {whole} without {removed}", answer, mistakes))
    for first, second, others, near in BLENDINGS:
        mistakes = {"substitute": others, "omit": (first, second), "swap": near}
        items.append(Item("blending", f"{first} ... {second}", first + second, mistakes))
    for sentence, changes in SENTENCES:
        words = sentence.split()
        mistakes = {
            "substitute": tuple(
                _change(words, word, other) for word, (_, other) in changes.items()
            ),
            "omit": tuple(" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))),
            "swap": tuple(_change(words, word, near) for word, (near, _) in changes.items()),
        }
        items.append(Item("sentence_repetition", f"say: {sentence}", sentence, mistakes))
    return items + _make_nonwords(rng)


def _change(words: Sequence[str], word: str, other: str) -> str:
    return " ".join(other if each == word else each for each in words)


def _make_nonwords(rng: np.random.Generator) -> list[Item]:
    """Invent N_NONWORDS words, half of two syllables and half of three; no two share a syllable."""
    syllables = [(onset, vowel) for onset in CONSONANTS for vowel in VOWELS]
    chosen = iter(rng.permutation(len(syllables)))
    words: list[list[str]] = []  # as sounds
    for i in range(N_NONWORDS):
        n_syllables = 2 if i < N_NONWORDS // 2 else 3
        sounds = [sound for _ in range(n_syllables) for sound in syllables[next(chosen)]]
        words.append([*sounds, str(rng.choice(list(CONSONANTS)))])
    items = []
    for word, other in zip(words, [*words[1:], words[0]], strict=True):
        text = "".join(word)
        onsets = range(0, len(word) - 1, 2)
        mistakes: Mistakes = {
            "substitute": ("".join(other),),
            "omit": tuple("".join(word[:i] + word[i + 2 :]) for i in onsets),
            "swap": tuple(_swap_sounds(word)),
        }
        items.append(Item("nonword_repetition", f"say: {text}", text, mistakes))
    return items


def _swap_sounds(word: list[str]) -> Iterator[str]:
    """Give every spelling that differs from the word by one sound for a near one."""
    for i, sound in enumerate(word):
        for near in CONSONANTS.get(sound) or VOWELS[sound]:
            yield "".join([*word[:i], near, *word[i + 1 :]])


def make_learner(name: str, grade: str, rng: np.random.Generator) -> Learner:
    """Return a learner; the younger, the higher and the less sure."""
    age = GRADES.index(grade)
    return Learner(
        name=name,
        grade=grade,
        skill=0.4 * (age - 1.5) + rng.normal(0, 0.5),
        pitch=float(np.clip(1.45 - 0.08 * age + rng.normal(0, 0.10), 1.05, 1.75)),
        formants=float(np.clip(1.22 - 0.04 * age + rng.normal(0, 0.03), 1.04, 1.30)),
        voice_speed=float(rng.choice(VOICE_SPEEDS)),
        stretch=float(rng.uniform(0.93, 1.08)),
        reverb_seconds=float(rng.uniform(0.15, 0.5)),
        direct_db=float(rng.uniform(6, 18)),
    )


def plan(n_train: int, n_test: int, n_speakers: int, seed: int) -> list[Clip]:
    """Decide who says what, in random order. Raises HearbackError for sizes that cannot be."""
    least_speakers = 2 if n_test else 1
    if n_train < 1 or n_test < 0 or n_speakers < least_speakers:
        raise HearbackError(
            f"--n_train {n_train} --n_test {n_test} --speakers {n_speakers}: a sample has at least "
            "one training clip, and at least one speaker for each half"
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
    """Deal the items out, all equally often, and choose who is right: a share of each task."""
    rounds = -(-n // len(items))
    deck = [items[i] for _ in range(rounds) for i in rng.permutation(len(items))][:n]
    asked = [(item, learners[i % len(learners)]) for i, item in enumerate(deck)]
    # Adding this noise to log odds and taking the largest draws in proportion to the odds.
    luck = rng.gumbel(size=n)
    clips = []
    for task in TASKS:
        rows = [i for i, (item, _) in enumerate(asked) if item.task == task]
        rows.sort(key=lambda i: -(asked[i][1].skill + luck[i]))
        n_right = round(SAID_RIGHT[task] * len(rows))
        for rank, i in enumerate(rows):
            item, learner = asked[i]
            how, said = "correct", item.text
            if rank >= n_right:
                how = str(rng.choice(sorted(item.mistakes)))
                said = str(rng.choice(item.mistakes[how]))
            clips.append(Clip(half, learner, item, said, how))
    return clips


@dataclass(frozen=True)
class Speech:
    """WORLD's analysis of speech, a row per FRAME_MS."""

    f0: np.ndarray  # (frames,), Hz, 0 where there is no voice
    envelope: np.ndarray  # (frames, bins), power
    aperiodicity: np.ndarray  # (frames, bins), 0 to 1

    @classmethod
    def of(cls, waveform: np.ndarray, sample_rate: int) -> Self:
        """Analyse a waveform, (n,); what is above SAMPLE_RATE / 2 is lost."""
        samples = soxr.resample(waveform.astype(np.float64), sample_rate, SAMPLE_RATE)
        rough, times = pyworld.dio(samples, SAMPLE_RATE, frame_period=FRAME_MS)
        f0 = pyworld.stonemask(samples, rough, times, SAMPLE_RATE)
        envelope = pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE)
        aperiodicity = pyworld.d4c(samples, f0, times, SAMPLE_RATE)
        return cls(f0, envelope, aperiodicity)

    def bend(self, pitch: float, formants: float, stretch: float) -> np.ndarray:
        """Return the speech with its pitch, formants and duration multiplied, (n,), float64."""
        return pyworld.synthesize(
            self.f0 * pitch,
            np.exp(_stretch_bins(np.log(self.envelope), formants)),
            _stretch_bins(self.aperiodicity, formants),
            SAMPLE_RATE,
            FRAME_MS * stretch,
        )


def _stretch_bins(frames: np.ndarray, factor: float) -> np.ndarray:
    """Move what is at bin b to b * factor, (frames, bins); the last bin fills what is left."""
    n_bins = frames.shape[1]
    source = np.minimum(np.arange(n_bins) / factor, n_bins - 1)
    low = np.minimum(source.astype(int), n_bins - 2)
    share = source - low
    return np.ascontiguousarray(frames[:, low] * (1 - share) + frames[:, low + 1] * share)


def reverberate(
    waveform: np.ndarray, seconds: float, direct_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Add a room's echo: noise that is 60 dB down after `seconds`, `direct_db` below the speech.

    Takes and gives (n,) at SAMPLE_RATE; the echo is cut off at the end.
    """
    times = np.arange(1, int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.normal(size=len(times)) * 10 ** (-3 * times / seconds)
    echo *= 10 ** (-direct_db / 20) / np.linalg.norm(echo)
    response = np.concatenate([[1.0], echo])
    return scipy.signal.fftconvolve(waveform, response)[: len(waveform)]


def add_noise(
    waveform: np.ndarray, snr_db: float, pink: bool, rng: np.random.Generator
) -> np.ndarray:
    """Add white or pink noise, `snr_db` below the louder half of the waveform, (n,)."""
    spectrum = np.fft.rfft(rng.normal(size=len(waveform)))
    if pink:
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    noise = np.fft.irfft(spectrum, len(waveform))
    power = waveform**2
    loud = power[power >= np.median(power)].mean()
    return waveform + noise * np.sqrt(loud / np.mean(noise**2)) * 10 ** (-snr_db / 20)


def record(
    speech: Speech, learner: Learner, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the learner's recording, (n,) at SAMPLE_RATE, and what became of it in figures."""
    pitch = learner.pitch * rng.uniform(0.96, 1.04)
    stretch = learner.stretch * rng.uniform(0.96, 1.04)
    waveform = speech.bend(pitch, learner.formants, stretch)
    silence = [np.zeros(int(rng.uniform(0.05, 0.4) * SAMPLE_RATE)) for _ in range(2)]
    waveform = np.concatenate([silence[0], waveform, silence[1]])
    waveform = reverberate(waveform, learner.reverb_seconds, learner.direct_db, rng)
    snr_db = rng.uniform(12, 35)
    waveform = add_noise(waveform, snr_db, bool(rng.integers(2)), rng)
    waveform *= rng.uniform(0.1, 0.9) / np.abs(waveform).max()
    figures = {
        "pitch": pitch,
        "formants": learner.formants,
        "pace": learner.voice_speed / stretch,
        "snr_db": snr_db,
    }
    return waveform, {name: round(value, 3) for name, value in figures.items()}


def build(
    folder: Path,
    n_train: int = N_TRAIN,
    n_test: int = N_TEST,
    n_speakers: int = N_SPEAKERS,
    seed: int = 0,
) -> pd.DataFrame:
    """Make the sample in `folder`; return a row per clip.

    Columns: half, filename, task, expected_text, grade, speaker, score, and those of PROVENANCE.
    Raises HearbackError for sizes that cannot be, and where `folder` holds another corpus.
    """
    clips = plan(n_train, n_test, n_speakers, seed)
    make_way(folder, OURS)
    rows = {}
    for i, speech in _analyse(clips):
        clip = clips[i]
        # A clip has its own randomness, so that it does not depend on who spoke before it.
        waveform, figures = record(speech, clip.learner, np.random.default_rng([seed, i]))
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
            **figures,
        }
    table = pd.DataFrame([rows[i] for i in sorted(rows)])
    write_tables(folder, table, PROVENANCE)
    return table


def _analyse(clips: Sequence[Clip]) -> Iterator[tuple[int, Speech]]:
    """Give each clip's place and its speech; each text is rendered once at each voice speed."""

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
    """Make the sample and say what is in it."""
    parser = cli.parser(__doc__)
    parser.prog = "python -m hearback.reading.corpora.sample"
    parser.add_argument("data", type=Path, help="the folder to fill, such as data/")
    parser.add_argument("--n_train", type=int, default=N_TRAIN, help="training clips")
    parser.add_argument("--n_test", type=int, default=N_TEST, help="test clips")
    parser.add_argument("--speakers", type=int, default=N_SPEAKERS, help="of both halves together")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other clips")
    options = parser.parse_args(arguments)
    rows = build(options.data, options.n_train, options.n_test, options.speakers, options.seed)
    for half in sorted(rows["half"].unique(), reverse=True):
        part = rows[rows["half"] == half]
        said = f"{part['speaker'].nunique()} speakers, {part['score'].mean():.1%} correct"
        print(f"{half}: {len(part)} clips of {part['expected_text'].nunique()} texts, {said}")
    print(f"in {options.data}")
    return 0


if __name__ == "__main__":
    cli.run(main)
