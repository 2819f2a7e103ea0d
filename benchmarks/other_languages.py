"""How many texts in other languages are warned of, and how many English ones wrongly?

    python -m benchmarks.other_languages --data DATA
    python -m benchmarks.other_languages --texts other.txt

The sentences of benchmarks/other_languages.txt, twelve in each of 18 languages, with and without
their accents, alone and as tables of five; its English rhymes and lists of words; made-up words;
and with --data, the texts of a training table. --texts adds a file with a text on each line.
"""

import argparse
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from hearback.engine import cli
from hearback.engine.data.problems import Report
from hearback.reading.tables import metadata_path, read_metadata
from hearback.reading.text_language import MIN_WORDS, find_other_language
from hearback.reading.text_normalizer import UnspeakableTextError, normalize_text

SENTENCES = Path(__file__).with_suffix(".txt")
ENGLISH = "English"
SIZE, N_TABLES = 5, 300
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwyz", "aeiou"


def main() -> None:
    """Print a line for each language, then one for each set that is in none of them."""
    arguments = _parse()
    texts = read_sentences()
    english = texts.pop(ENGLISH)
    print(f"{'':28}{'texts':>8}{'warned of':>12}{'tables of 5':>14}{'its language':>15}")
    for accents, change in (("", str), (", no accents", without_accents)):
        changed = {name: [change(text) for text in of] for name, of in texts.items()}
        for name, of in changed.items():
            print(_line(f"{name}{accents}", of, name))
        print(_line(f"all{accents}", [text for of in changed.values() for text in of]))
    others = {"English rhymes, lists": english, **made_up_texts()}
    if arguments.data is not None:
        table = read_metadata(metadata_path(arguments.data, "train"), Report())
        others["training texts"] = table["expected_text"].tolist()
    if arguments.texts is not None:
        others[arguments.texts.name] = _normalized(arguments.texts.read_text().splitlines())
    for name, of in others.items():
        print(_line(name, of))


def read_sentences(path: Path = SENTENCES) -> dict[str, list[str]]:
    """Return the texts by language, in the form of the normalizer."""
    texts: dict[str, list[str]] = {}
    for block in path.read_text(encoding="utf-8").split("# ")[1:]:
        language, *lines = block.splitlines()
        texts[language] = _normalized(lines)
    return texts


def made_up_texts(n: int = 3_000) -> dict[str, list[str]]:
    """Return texts of one and of four made-up words of three letters, the likeliest to be words."""
    draw = random.Random(0)
    words = [
        "".join(map(draw.choice, (_CONSONANTS, _VOWELS, _CONSONANTS))) for _ in range(MIN_WORDS * n)
    ]
    four = [" ".join(words[at : at + MIN_WORDS]) for at in range(0, len(words), MIN_WORDS)]
    return {"made-up words": words[:n], "four made-up words": four}


def share_of_texts(texts: Sequence[str]) -> float:
    """Return the share of texts of `MIN_WORDS` words or more that are warned of, alone; 0 to 1."""
    long = [text for text in texts if len(text.split()) >= MIN_WORDS]
    found = [bool(find_other_language([text]).indices) for text in long]
    return sum(found) / max(len(found), 1)


def share_of_tables(texts: Sequence[str], language: str = "") -> tuple[float, float]:
    """Return the shares of tables of `SIZE` of the texts that are warned of, and as `language`."""
    draw = random.Random(0)
    found = [find_other_language(draw.sample(texts, SIZE)) for _ in range(N_TABLES)]
    warned = sum(bool(each.indices) for each in found)
    return warned / N_TABLES, sum(each.language == language for each in found) / N_TABLES


def without_accents(text: str) -> str:
    """Return a text in the letters a to z."""
    decomposed = unicodedata.normalize("NFD", text.replace("ı", "i").replace("ł", "l"))
    bare = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return bare.replace("đ", "d").replace("ß", "ss").replace("œ", "oe")


def _normalized(lines: Sequence[str]) -> list[str]:
    texts = []
    for line in lines:
        try:
            texts.append(normalize_text(line).text)
        except UnspeakableTextError:
            continue
    return [text for text in texts if text]


def _line(name: str, texts: Sequence[str], language: str = "") -> str:
    n_long = sum(len(text.split()) >= MIN_WORDS for text in texts)
    line = f"{name:28}{n_long:8}{share_of_texts(texts):12.2%}"
    if name.startswith("all"):
        return line
    warned, named = share_of_tables(texts, language)
    return line + f"{warned:14.1%}" + (f"{named:15.1%}" if language else "")


def _parse() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.prog = "python -m benchmarks.other_languages"
    parser.add_argument("--data", type=Path, help="folder with a train_metadata.csv")
    parser.add_argument("--texts", type=Path, help="file with an English text on each line")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
