"""Make a synthetic sample of song snippets, in the layout of the real data.

    python -m hearback.songs sample demo/songs --snippets 96 --seed 0

Everything is synthesized by this module. Voices follow the source-filter model: glottal pulses
(Klatt & Klatt 1990, KLGLOTT88) with vibrato and jitter, filtered by the formants of sung vowels
(Peterson & Barney 1952, men's means), scaled by the length of each singer's vocal tract. Music is
plucked chords (Karplus & Strong 1983), bass and drums. The pitch ranges of men and women overlap,
so pitch alone does not separate the classes. Singers and music of `test/` are not in `train/`.

The sample is for trying the steps; scores on it do not predict scores on real singing. The same
seed gives the same bytes with the same machine and package versions.
"""

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import scipy  # imports its parts as they are used
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.audio.wav import write_wav
from hearback.engine.data.tables import write_table
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write
from hearback.songs.separation.methods import SOUND_RATE
from hearback.songs.tables import CLASSES, FEMALE, MALE, SECONDS, SEVERAL

N_SAMPLES = round(SECONDS * SOUND_RATE)
N_SNIPPETS = 96  # for training; the test set has a quarter as many
SHARES = (0.15, 0.35, 0.35, 0.15)  # of the classes, as in the real data
N_SINGERS = {"train": 6, "test": 2}  # of each sex
N_TRACKS = {"train": 12, "test": 4}
SAMPLE_NAME = re.compile(r"(train|test)_[0-9]{4}\.wav")
NO_MUSIC = 0.07  # share of snippets without music, of those with a voice

# Men's formants in Hz for the vowels in heed, head, hod, hawed and who'd. The last two formants are
# the same for all vowels.
VOWELS = (
    (270, 2290, 3010, 3300, 3850),
    (530, 1840, 2480, 3300, 3850),
    (730, 1090, 2440, 3300, 3850),
    (570, 840, 2410, 3300, 3850),
    (300, 870, 2240, 3300, 3850),
)
LOWEST_NOTE = {"man": (120, 165), "woman": (200, 265)}  # Hz
N_SEMITONES = 9  # a singer's range: up to 277 and 446 Hz
TRACT = {"man": (0.94, 1.06), "woman": (1.10, 1.24)}  # factor on the formants
SCALE = (0, 2, 4, 7, 9, 12)  # semitones, pentatonic
PROGRESSIONS = ((0, 5, 7, 5), (0, -3, 5, 7), (0, 7, -3, 5), (-3, 5, 0, 7))  # roots, semitones
TRACK_SECONDS = 9.0


@dataclass(frozen=True)
class Singer:
    """The parameters of a singer's voice."""

    name: str
    sex: str  # man or woman
    lowest: float  # Hz, the lowest note
    tract: float  # factor on the formants
    vibrato_rate: float  # Hz
    vibrato_cents: float
    jitter: float  # random variation, as a share of the pitch
    open_quotient: float  # share of a period with open glottis
    breath_db: float  # level of the breath noise relative to the pulses


@dataclass(frozen=True)
class Track:
    """A piece of music from which snippets are cut."""

    name: str
    seed: tuple[int, ...]

    @cached_property
    def waveform(self) -> np.ndarray:
        """Samples of TRACK_SECONDS, (n,) float64 at SOUND_RATE, RMS 1."""
        return render_music(np.random.default_rng(self.seed))


def make_singer(sex: str, name: str, rng: np.random.Generator) -> Singer:
    """Draw a singer's parameters."""
    return Singer(
        name=name,
        sex=sex,
        lowest=rng.uniform(*LOWEST_NOTE[sex]),
        tract=rng.uniform(*TRACT[sex]),
        vibrato_rate=rng.uniform(4.8, 6.5),
        vibrato_cents=rng.uniform(20, 80),
        jitter=rng.uniform(0.003, 0.012),
        open_quotient=rng.uniform(0.45, 0.7),
        breath_db=rng.uniform(-32, -18),
    )


def make_melody(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a melody: note onsets in samples, and pitches in semitones."""
    onsets = np.cumsum(rng.uniform(0.3, 0.9, size=16)) * SOUND_RATE
    onsets = np.concatenate([[0], onsets[onsets < N_SAMPLES - 0.25 * SOUND_RATE]]).astype(int)
    steps = np.cumsum(rng.integers(-2, 3, size=len(onsets))) + rng.integers(len(SCALE))
    reflected = np.abs((steps % (2 * len(SCALE) - 2)) - (len(SCALE) - 1))
    return onsets, np.minimum(np.array(SCALE)[reflected], N_SEMITONES)


def sing(
    singer: Singer, melody: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Sing a melody on random vowels, (N_SAMPLES,) float64, RMS 1."""
    onsets, semitones = melody
    note_of = np.searchsorted(onsets, np.arange(N_SAMPLES), side="right") - 1
    source = _glottis(singer, semitones[note_of], rng)
    vowels = rng.integers(len(VOWELS), size=len(onsets))[note_of]
    voice = np.zeros(N_SAMPLES)
    for vowel in np.unique(vowels):
        share = _smooth((vowels == vowel).astype(float), 0.03)  # the mouth moves gradually
        voice += share * _resonate(source, np.array(VOWELS[vowel]) * singer.tract)
    times = (np.arange(N_SAMPLES) - onsets[note_of]) / SOUND_RATE
    loudness = (1 - np.exp(-times / 0.04)) * (0.6 + 0.4 * np.exp(-times))
    silence = np.zeros(N_SAMPLES)
    begin, end = rng.uniform(0, 0.4, size=2) * SOUND_RATE
    silence[int(begin) : N_SAMPLES - int(end)] = 1
    return _level(voice * loudness * _smooth(silence, 0.02))


def _glottis(singer: Singer, semitones: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the glottal source, (n,); `semitones`, (n,), is the pitch of each sample."""
    times = np.arange(len(semitones)) / SOUND_RATE
    vibrato = np.sin(2 * np.pi * (singer.vibrato_rate * times + rng.uniform()))
    glide = _smooth(semitones.astype(float), 0.05) + singer.vibrato_cents / 100 * vibrato
    wander = _smooth(rng.normal(size=len(times)), 0.01)
    pitch = singer.lowest * 2 ** (glide / 12) * (1 + singer.jitter * wander / wander.std())
    phase = np.cumsum(pitch) / SOUND_RATE % 1 / singer.open_quotient
    pulses = np.where(phase < 1, 2 * phase - 3 * phase**2, 0.0)  # derivative of the glottal flow
    breath = rng.normal(size=len(times)) * np.std(pulses) * 10 ** (singer.breath_db / 20)
    return pulses + breath


def _resonate(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Filter the source, (n,), by resonances in series, at `formants` in Hz."""
    radius = np.exp(-np.pi * (50 + 0.04 * formants) / SOUND_RATE)  # bandwidths in Hz
    first = -2 * radius * np.cos(2 * np.pi * formants / SOUND_RATE)
    sections = np.zeros((len(formants), 6))
    sections[:, 3], sections[:, 4], sections[:, 5] = 1, first, radius**2
    sections[:, 0] = 1 + first + radius**2  # a gain of 1 at 0 Hz
    return scipy.signal.sosfilt(sections, source)


def _smooth(values: np.ndarray, seconds: float) -> np.ndarray:
    """Return the moving average, (n,), with a triangular window of `seconds`."""
    size = int(seconds / 2 * SOUND_RATE)
    smooth = scipy.ndimage.uniform_filter1d
    return smooth(smooth(values, size, mode="nearest"), size, mode="nearest")


def _level(waveform: np.ndarray) -> np.ndarray:
    """Scale a waveform to RMS 1."""
    return waveform / np.sqrt(np.mean(waveform**2))


def render_music(rng: np.random.Generator) -> np.ndarray:
    """Render TRACK_SECONDS of chords, bass and drums, (n,) float64 at SOUND_RATE, RMS 1."""
    beat = rng.uniform(0.4, 0.65)  # seconds
    root = rng.uniform(98, 185)  # Hz
    progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    loudness = rng.uniform(0.3, 1.0, size=3)  # of chords, bass and drums
    brightness = rng.uniform(0.3, 0.9)
    music = np.zeros(round(TRACK_SECONDS * SOUND_RATE))
    for i, start in enumerate(np.arange(0, TRACK_SECONDS, beat)):
        chord = root * 2 ** (progression[i // 4 % 4] / 12)
        third = 3 if progression[i // 4 % 4] == -3 else 4
        if i % 2 == 0:
            for semitones in (0, third, 7, 12):
                string = _pluck(chord * 2 ** (semitones / 12), 2 * beat, brightness, rng)
                _add(music, loudness[0] * string, start)
        _add(music, loudness[1] * _bass(chord / 2, beat), start)
        _add(music, loudness[2] * _drum(i, rng), start)
    return _level(music)


def _add(music: np.ndarray, sound: np.ndarray, start: float) -> None:
    """Add a sound to the music in place, at `start` seconds; cut it at the end."""
    first = int(start * SOUND_RATE)
    room = music[first : first + len(sound)]
    room += sound[: len(room)]


def _pluck(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a plucked string, (n,): noise in a low-pass feedback loop (Karplus-Strong)."""
    period = round(SOUND_RATE / frequency)
    noise = rng.uniform(-1, 1, size=period)
    string = np.zeros(1 + int(seconds * SOUND_RATE))
    string[1 : 1 + period] = scipy.signal.lfilter([brightness], [1, brightness - 1], noise)
    for start in range(1 + period, len(string), period):
        stop = min(start + period, len(string))
        previous = string[start - period - 1 : stop - period]
        string[start:stop] = 0.498 * (previous[1:] + previous[:-1])
    return string[1:]


def _bass(frequency: float, seconds: float) -> np.ndarray:
    """Return a decaying tone of four harmonics, (n,)."""
    times = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    harmonics = np.arange(1, 5)[:, None]
    tone = (np.sin(2 * np.pi * frequency * harmonics * times) / harmonics**1.5).sum(axis=0)
    return 0.5 * tone * np.exp(-3 * times) * np.minimum(times / 0.005, 1)


def _drum(beat: int, rng: np.random.Generator) -> np.ndarray:
    """Return a bass drum on even beats, a snare on odd beats, (n,)."""
    times = np.arange(int(0.25 * SOUND_RATE)) / SOUND_RATE
    noise = rng.normal(size=len(times))
    if beat % 2:
        return 0.5 * noise * np.exp(-times / 0.05)
    thump = np.sin(2 * np.pi * (50 * times - 4 * np.exp(-times / 0.04)))
    return thump * np.exp(-times / 0.1) + 0.05 * noise * np.exp(-times / 0.01)


@dataclass(frozen=True)
class Snippet:
    """The content of one snippet."""

    label: int
    singers: tuple[Singer, ...]
    track: Track | None

    def render(self, rng: np.random.Generator) -> np.ndarray:
        """Return the snippet, (N_SAMPLES,) float64 at SOUND_RATE."""
        sound = np.zeros(N_SAMPLES)
        shared_melody = make_melody(rng) if rng.uniform() < 0.5 else None
        for i, singer in enumerate(self.singers):
            voice = sing(singer, shared_melody or make_melody(rng), rng)
            sound += voice * (10 ** (rng.uniform(-4, 4) / 20) if i else 1)
        if self.singers:
            sound = _level(sound) * 10 ** (rng.uniform(-2, 12) / 20)  # relative to the music
        if self.track is not None:
            first = rng.integers(len(self.track.waveform) - N_SAMPLES)
            sound = sound + self.track.waveform[first : first + N_SAMPLES]
        sound = _level(sound) * 10 ** (rng.uniform(-25, -15) / 20)
        return sound * min(1.0, 0.7 / np.abs(sound).max())


def plan(half: str, n: int, seed: int) -> list[Snippet]:
    """Choose class, singers and music of `n` snippets of a half, "train" or "test"."""
    rng = np.random.default_rng([seed, len(half)])
    singers = {
        sex: [make_singer(sex, f"{half} {sex} {i + 1}", rng) for i in range(N_SINGERS[half])]
        for sex in ("man", "woman")
    }
    everyone = [*singers["man"], *singers["woman"]]
    tracks = [Track(f"{half} track {i + 1}", (seed, len(half), i)) for i in range(N_TRACKS[half])]
    snippets = []
    for label, count in enumerate(_round_shares(n)):
        for i in range(count):
            chosen: tuple[Singer, ...] = ()
            if label in (MALE, FEMALE):  # round robin: all sing about equally often
                chosen = (singers["man" if label == MALE else "woman"][i % N_SINGERS[half]],)
            elif label == SEVERAL:
                size = 3 if rng.uniform() < 0.2 else 2
                indices = rng.choice(len(everyone), size=size, replace=False)
                chosen = tuple(everyone[index] for index in indices)
            track = (
                None if chosen and rng.uniform() < NO_MUSIC else tracks[rng.integers(len(tracks))]
            )
            if not chosen:
                track = tracks[i % len(tracks)]
            snippets.append(Snippet(label, chosen, track))
    return [snippets[i] for i in rng.permutation(len(snippets))]


def _round_shares(n: int) -> list[int]:
    """Return the number of snippets of each class, `n` in total."""
    bounds = np.rint(np.cumsum([0, *SHARES]) * n).astype(int)
    return np.diff(bounds).tolist()


def build(folder: Path, n_snippets: int = N_SNIPPETS, seed: int = 0) -> pd.DataFrame:
    """Make the sample in `folder`; return a row per snippet: half, file, label, singers, music.

    Writes train/ with train_label.txt and manifest.csv, and test/ with test_label.txt. Raises
    HearbackError if `folder` contains other snippets.
    """
    _remove_previous(folder)
    rows = []
    halves = {"train": plan("train", n_snippets, seed), "test": plan("test", n_snippets // 4, seed)}
    with tqdm(total=sum(map(len, halves.values())), desc="snippets", disable=None) as bar:
        for half, snippets in halves.items():
            (folder / half).mkdir(parents=True, exist_ok=True)
            for i, snippet in enumerate(snippets):
                # One generator per snippet: a snippet does not depend on those before it.
                rng = np.random.default_rng([seed, len(half), 1, i])
                name = f"{half}_{i:04d}.wav"
                write_wav(folder / half / name, snippet.render(rng), SOUND_RATE)
                singers = ";".join(singer.name for singer in snippet.singers)
                music = snippet.track.name if snippet.track else ""
                rows.append((half, name, snippet.label, singers, music))
                bar.update()
    table = pd.DataFrame(rows, columns=["half", "file", "label", "singers", "music"])
    train = table[table["half"] == "train"]
    write_table(train.drop(columns="half"), folder / "manifest.csv")
    for half, part in table.groupby("half"):
        lines = (part["file"] + "," + part["label"].astype(str) + "\n").str.cat()
        with atomic_write(folder / f"{half}_label.txt") as temporary:
            temporary.write_text(lines, encoding="utf-8")
    return table


def _remove_previous(folder: Path) -> None:
    """Remove an earlier sample; remove nothing and raise HearbackError for other snippets."""
    tables = [folder / name for name in ("train_label.txt", "test_label.txt", "manifest.csv")]
    sounds = [path for half in N_SINGERS for path in (folder / half).glob("*")]
    foreign = [path for path in sounds if not SAMPLE_NAME.fullmatch(path.name)]
    if foreign or (not sounds and any(path.exists() for path in tables)):
        raise HearbackError(
            f"{folder} contains other snippets ({(foreign or tables)[0]}), which are not "
            "overwritten: choose another folder, or move them away first"
        )
    for path in [*tables, *sounds]:  # tables first: they must never list missing files
        path.unlink(missing_ok=True)


def _snippet_count(text: str) -> int:
    """Parse the number of snippets; with fewer than 40 a fold or test/ may lack a class."""
    if not text.isdecimal() or not 40 <= int(text) <= 9999:
        raise ArgumentTypeError(f"invalid value {text!r}: expected 40 to 9999 snippets")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Make the sample and print its class counts."""
    parser = cli.parser(__doc__)
    parser.add_argument("folder", type=Path, help="the folder to fill, such as demo/songs")
    parser.add_argument(
        "--snippets", type=_snippet_count, default=N_SNIPPETS, help="number of training snippets"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    options = parser.parse_args(arguments)
    table = build(options.folder, options.snippets, options.seed)
    for half in ("train", "test"):
        counts = table.loc[table["half"] == half, "label"].value_counts()
        classes = ", ".join(f"{counts.get(i, 0)} {name}" for i, name in enumerate(CLASSES))
        print(f"{half}: {counts.sum()} snippets ({classes})")
    print(f"in {options.folder}")
    return 0


if __name__ == "__main__":
    cli.run(main)
