"""The items of the embedded sample: prompts, expected texts, and the mistakes made on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Deletion, "say cowboy without cow": the word, the part to remove, the answer, and words that
# differ from the answer by one sound.
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

# Blending, "cup ... cake": the parts, other words with one of them, and words that differ from the
# answer by one sound.
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

# Sentences; for some of their words, a word that differs by one sound and one of other meaning.
SENTENCES: tuple[tuple[str, dict[str, tuple[str, str]]], ...] = (
    ("the dog ran to the red barn", {"dog": ("log", "cat"), "barn": ("yarn", "house")}),
    ("my mom made a big cake", {"big": ("pig", "small"), "cake": ("rake", "pie")}),
    ("we like to play in the sand", {"play": ("pray", "dig"), "sand": ("hand", "water")}),
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

# Nonwords are sequences of syllables, an onset and a vowel each, plus a coda. Their spellings are
# pronounced unambiguously in any order. Each sound maps to similar sounds; t and d are not similar,
# since American English merges them between vowels, nor are ar and or.
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
Mistakes = dict[str, tuple[str, ...]]  # substitute, omit or swap -> possible wrong texts


@dataclass(frozen=True)
class Item:
    """An item of the test, with possible mistakes."""

    task: str
    prompt: str  # as spoken by an examiner
    text: str  # the expected text
    mistakes: Mistakes


def make_items(rng: np.random.Generator) -> list[Item]:
    """Return all items of the sample; the nonwords are random."""
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
    """Return N_NONWORDS nonwords, half of two syllables and half of three, all different."""
    syllables = [(onset, vowel) for onset in CONSONANTS for vowel in VOWELS]
    chosen = iter(rng.permutation(len(syllables)))
    words: list[list[str]] = []  # lists of sounds
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
    """Yield every spelling with one sound replaced by a similar one."""
    for i, sound in enumerate(word):
        for near in CONSONANTS.get(sound) or VOWELS[sound]:
            yield "".join([*word[:i], near, *word[i + 1 :]])
