"""speechocean762: its files, tables, edited texts and labels."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from hearback.engine.data import problems
from hearback.engine.errors import HearbackError
from hearback.reading import tables
from hearback.reading.corpora import speechocean762, speechocean762_files
from hearback.reading.corpora.speechocean762 import build, label
from hearback.reading.corpora.speechocean762_files import KALDI_TABLES, open_corpus
from hearback.reading.corpora.speechocean762_lexicon import Lexicon
from hearback.reading.corpora.speechocean762_tables import Utterance, read_corpus
from hearback.reading.word_label_table import (
    read_word_labels,
    report_disagreement,
    words_path,
)

LEXICON = """\
A\tAH0
A\tEY0
BARN\tB AA1 R N
BED\tB EH1 D
BIG\tB IH1 G
DOG\tD AO1 G
FOR\tF AO1 R
FOUR\tF AO1 R
LOG\tL AO1 G
PIG\tP IH1 G
RED\tR EH1 D
THE\tDH AH0
TO\tT UW0
TWO\tT UW0
"""
TEXTS = [
    "THE BIG DOG",
    "A PIG FOR TWO",
    "TO THE RED BARN",
    "THE RED BED",
    "A LOG TO THE PIG",
    "FOUR DOG BED",
    "RED BIG BARN",
    "TWO DOG FOR THE BARN",
]
AGES = {"0001": 6, "0002": 7, "0003": 8, "0004": 9, "0005": 43}


def write_corpus(root: Path, per_speaker: int = 8, accuracies: tuple[float, ...] = (10,)) -> Path:
    """Write a corpus in the layout of the real one; worst words cycle through `accuracies`.

    Both halves have the five speakers of AGES (the test half's names begin with 1), and no text
    comes twice.
    """
    scores: dict[str, dict[str, Any]] = {}
    details: dict[str, dict[str, Any]] = {}
    for half, first in (("train", "0"), ("test", "1")):
        folder = root / half
        folder.mkdir(parents=True)
        lines: dict[str, list[str]] = {name: [] for name in KALDI_TABLES}
        for number, age in AGES.items():
            speaker = first + number[1:]
            lines["spk2age"].append(f"{speaker}\t{age}")
            lines["spk2gender"].append(f"{speaker}\t{'f' if age % 2 else 'm'}")
            for i in range(per_speaker):
                name = f"{speaker}{i:05d}"
                text = f"{TEXTS[i % len(TEXTS)]} {' '.join(name)}"
                audio = f"WAVE/SPEAKER{speaker}/{name}.WAV"
                lines["wav.scp"].append(f"{name}\t{audio}")
                lines["text"].append(f"{name}\t{text}")
                lines["utt2spk"].append(f"{name} {speaker}")
                (root / audio).parent.mkdir(parents=True, exist_ok=True)
                tone = 0.1 * np.sin(np.arange(800 + len(scores)))
                soundfile.write(root / audio, tone, 16_000, "PCM_16", format="WAV")
                words = [{"text": word, "accuracy": 10, "total": 10} for word in text.split()]
                words[i % len(words)]["accuracy"] = accuracies[i % len(accuracies)]
                scores[name] = {"text": text, "accuracy": 1, "total": 1, "words": words}
                details[name] = {"text": text, "words": [in_detail(word) for word in words]}
        for name, content in lines.items():
            (folder / name).write_text("\n".join(content) + "\n")
    (root / "resource").mkdir()
    (root / "resource" / "scores.json").write_text(json.dumps(scores))
    (root / "resource" / "scores-detail.json").write_text(json.dumps(details))
    (root / "resource" / "lexicon.txt").write_text(LEXICON)
    return root


def spelled(word: str) -> str:
    """Return made-up phones of a word, one for each letter."""
    return " ".join("AH0" if letter in "AEIOUY" else "T" for letter in word.upper())


def in_detail(word: dict[str, Any]) -> dict[str, Any]:
    """The five experts' scores of a word, with its score as the median."""
    score = float(word["accuracy"])
    phones = spelled(word["text"])
    return {
        "text": word["text"],
        "accuracy": [score, 0.5, score, 10.0, score],
        "stress": [10.0] * 5,
        "total": [score] * 5,
        "ref-phones": phones,
        "phones": [phones, f"({phones})", phones, phones, phones],
    }


def pack(root: Path, archive: Path, prefix: str) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, arcname=prefix)
    return archive


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows_of(root: Path) -> pd.DataFrame:
    report = problems.Report()
    corpus = open_corpus(root)
    rows = label(read_corpus(corpus, report), lexicon(), np.random.default_rng(0))
    assert not report.problems, str(report)
    return rows


def lexicon() -> Lexicon:
    sounds: dict[str, list[tuple[str, ...]]] = {}
    for word, *phonemes in (line.lower().split() for line in LEXICON.splitlines()):
        sounds.setdefault(word, []).append(tuple(phoneme.rstrip("012") for phoneme in phonemes))
    return Lexicon(sounds)


def utterances(n: int, worst: float, start: int = 0) -> list[Utterance]:
    letters = "abcdefghij"
    return [
        Utterance(
            id=f"{start + i:09d}",
            half="train",
            audio="WAVE/SPEAKER0001/x.WAV",
            size=1,
            text=f"the big dog {' '.join(letters[int(digit)] for digit in str(start + i))}",
            speaker="0001",
            age=7,
            sex="f",
            worst=worst,
        )
        for i in range(n)
    ]


def test_labels_follow_the_worst_word(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", accuracies=(10, 8, 7, 3, 2, 5))
    data = tmp_path / "data"
    build(root, data)
    report = problems.Report()
    for half, first in (("train", "0"), ("test", "1")):
        metadata = tables.read_metadata(data / f"{half}_metadata.csv", report)
        tables.read_labels(data / f"{half}_labels.csv", metadata, report)
        assert metadata["speaker"].str.startswith(first).all()
        assert set(metadata["task"]) == {"sentence_repetition"}
        assert {name[:-4] + ".WAV" for name in metadata["filename"]} < {
            path.name for path in root.rglob("*.WAV")
        }
    tables.read_submission_format(data / "submission_format.csv", metadata, report)
    assert not report.errors, str(report)  # the texts have digits, which are spelled out
    provenance = pd.read_csv(data / "provenance.csv", dtype={"filename": str})
    assert set(provenance.loc[provenance["why"] == "mispronounced", "worst"]) == {2.0, 3.0}
    assert set(provenance.loc[provenance["why"] == "correct", "worst"]) == {7.0, 8.0, 10.0}
    assert provenance["worst"].isin([2, 3, 7, 8, 10]).all(), (
        "between the thresholds there is no label"
    )
    assert len(provenance) == sum(1 for path in data.glob("*.wav")) == 70
    for name in provenance["filename"]:
        source = root / "WAVE" / f"SPEAKER{name[:4]}" / name.replace(".wav", ".WAV")
        assert (data / name).read_bytes() == source.read_bytes()


def test_scores_texts_and_reasons_agree(tmp_path: Path) -> None:
    rows = rows_of(write_corpus(tmp_path / "corpus", accuracies=(10, 3)))
    assert ((rows["score"] == 1) == (rows["why"] == "correct")).all()
    as_read = rows["why"].isin(["correct", "mispronounced"])
    assert (rows["expected_text"] == rows["text_read"])[as_read].all()
    assert not (rows["expected_text"] == rows["text_read"])[~as_read].any()
    assert rows["expected_text"].is_unique
    assert (rows["expected_text"] == rows["expected_text"].str.lower()).all()


def test_the_grade_follows_the_age(tmp_path: Path) -> None:
    rows = rows_of(write_corpus(tmp_path / "corpus", per_speaker=1))
    by_age = rows.groupby("age")["grade"].unique().map(list).to_dict()
    assert by_age == {6: ["KG"], 7: ["1"], 8: ["2"], 9: ["3"], 43: ["3"]}


def test_the_shares_are_those_of_so762() -> None:
    """Its README: 1,062 correct, 535 mispronounced, 701 with another text; 46.2 % positive."""
    corpus = utterances(1763, 10) + utterances(535, 3, start=5000) + utterances(202, 5, start=8000)
    rows = label(corpus, lexicon(), np.random.default_rng(0))
    assert Counter(rows["why"]) == {
        "correct": 1062,
        "mispronounced": 535,
        "substitute": 418,
        "omit": 152,
        "insert": 131,
    }
    assert rows["score"].mean() == pytest.approx(0.462, abs=5e-4)


def test_an_edit_changes_one_word() -> None:
    sounds = lexicon()
    rows = label(utterances(300, 10), sounds, np.random.default_rng(1))
    for row in rows[rows["score"] == 0].itertuples():
        read, expected = row.text_read.split(), row.expected_text.split()
        if row.why == "substitute":
            changed = [(a, b) for a, b in zip(read, expected, strict=True) if a != b]
            ((before, after),) = changed
            assert after in sounds.near(before)
        else:
            longer, shorter = (read, expected) if row.why == "omit" else (expected, read)
            assert len(longer) == len(shorter) + 1
            assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def test_near_words_are_similar_and_no_homophones() -> None:
    sounds = lexicon()
    assert sounds.near("big") == ["pig"]
    assert sounds.near("dog") == ["log"]
    assert sorted(sounds.near("red")) == ["bed"]
    assert "two" not in sounds.near("to")
    assert "four" not in sounds.near("for")
    assert sounds.near("xylophone") == []


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "bc", 1), ("ab", "xabyz", 3)],
)
def test_the_distance_of_words_is_that_of_their_sounds(
    first: str, second: str, distance: int
) -> None:
    words = Lexicon({"first": [tuple(first)], "second": [tuple(second)]})
    assert words.distance("first", "second") == distance
    assert words.distance("second", "first") == distance


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=2)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(root, tmp_path / name, seed)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    assert content_of(tmp_path / "a") != content_of(tmp_path / "c")


@pytest.mark.parametrize("prefix", ["speechocean762", ".", "./speechocean762"])
def test_archive_and_checkout_give_the_same_files(tmp_path: Path, prefix: str) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=2)
    build(root, tmp_path / "from_folder")
    build(pack(root, tmp_path / "corpus.tar.gz", prefix), tmp_path / "from_archive")
    assert content_of(tmp_path / "from_archive") == content_of(tmp_path / "from_folder")


def test_paths_and_links_in_an_archive_cannot_escape(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=2)
    archive = tmp_path / "corpus.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("../evil", "/tmp/evil", "speechocean762/WAVE/../../../evil"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"RIFF"))
        link = tarfile.TarInfo("speechocean762/WAVE/SPEAKER0001/link.WAV")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.add(root, arcname="speechocean762")
    build(archive, tmp_path / "data")
    assert not list(tmp_path.rglob("evil*"))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *(f"{path.stem}.wav" for path in root.rglob("*.WAV")),
        "train_metadata.csv",
        "train_labels.csv",
        "train_words.csv",
        "test_metadata.csv",
        "test_labels.csv",
        "submission_format.csv",
        "provenance.csv",
    }


@pytest.mark.parametrize("packed", [False, True])
def test_a_killed_build_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=2)
    path = pack(root, tmp_path / "corpus.tar.gz", "speechocean762") if packed else root
    build(path, tmp_path / "whole")

    copies = []

    def copy(source: io.BufferedReader, target: io.BufferedWriter) -> None:
        target.write(source.read(10))
        copies.append(target)
        if len(copies) == 5:
            raise KeyboardInterrupt
        target.write(source.read())

    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(speechocean762_files.shutil, "copyfileobj", copy)
        with pytest.raises(KeyboardInterrupt):
            build(path, data)
        assert len(content_of(data)) == 4, "neither half of the fifth recording nor any table"
    before = {name: (data / name).stat().st_mtime_ns for name in content_of(data)}
    build(path, data)
    assert content_of(data) == content_of(tmp_path / "whole")
    assert all((data / name).stat().st_mtime_ns == time for name, time in before.items())


def test_every_problem_is_in_one_report(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus")
    wave = root / "WAVE" / "SPEAKER0001"
    (wave / "000100000.WAV").unlink()
    (wave / "000100001.WAV").write_bytes(b"")
    (wave / "000100002.WAV").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    )
    scores = json.loads((root / "resource" / "scores.json").read_text())
    del scores["000100003"]
    scores["000100004"]["words"][0]["accuracy"] = "good"
    scores["000100005"]["words"] = []
    (root / "resource" / "scores.json").write_text(json.dumps(scores))
    edit(root / "train" / "text", "000100006", "000100999")
    edit(root / "train" / "spk2age", "0002\t7", "0002\tseven")
    edit(root / "train" / "spk2gender", "0003\tm\n", "")
    edit(root / "test" / "wav.scp", "WAVE/SPEAKER1001/100100000.WAV", "../../etc/passwd")
    edit(root / "test" / "utt2spk", "100100001 1001", "100100001")
    with pytest.raises(problems.BadInputError) as caught:
        build(root, tmp_path / "data")
    found = {(problem.filename, problem.what) for problem in caught.value.report.errors}
    for name, what in (
        ("000100000", "the recording is missing"),
        ("000100001", "the recording is empty or no WAV"),
        ("000100002", "the recording is a Git LFS pointer"),
        ("000100003", "no scores in resource/scores.json"),
        ("000100004", "no list of words with an accuracy of 0 to 10 each"),
        ("000100005", "no list of words with an accuracy of 0 to 10 each"),
        ("000100006", "not in train/text"),
        ("000200000", "speaker 0002 is 'seven' years old"),
        ("000300007", "the speaker is not in train/spk2gender"),
        ("100100000", "'../../etc/passwd' is not a path in WAVE/"),
        ("100100001", "not in test/utt2spk"),
        (None, "not a name and a value: '100100001'"),
    ):
        assert (name, what) in found, what
    assert not (tmp_path / "data").exists()


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def test_a_missing_table_is_one_problem_not_one_per_recording(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=1)
    (root / "resource" / "scores.json").unlink()
    (root / "test" / "text").write_text("")
    with pytest.raises(problems.BadInputError) as caught:
        build(root, tmp_path / "data")
    assert {(p.file, p.what) for p in caught.value.report.errors} == {
        ("resource/scores.json", "missing"),
        ("test/text", "empty"),
    }


def test_a_recording_in_both_halves_is_a_problem(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=1)
    for table in KALDI_TABLES:
        (root / "test" / table).write_text((root / "train" / table).read_text())
    with pytest.raises(problems.BadInputError, match=r"in train/wav\.scp too"):
        build(root, tmp_path / "data")


def test_without_a_lexicon_spelling_is_used_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=4)
    (root / "resource" / "lexicon.txt").unlink()
    rows = build(root, tmp_path / "data")
    assert "resource/lexicon.txt" in capsys.readouterr().err
    assert (rows["why"] == "substitute").any()


def test_the_experts_scores_of_words_are_written_for_the_training_table(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", accuracies=(10, 8, 7, 3, 2, 5))
    data = tmp_path / "data"
    rows = build(root, data)
    words = pd.read_csv(data / "train_words.csv", dtype=str)
    assert list(words) == ["filename", "position", "word", "accuracy", "phones"]
    train = rows[rows["half"] == "train"]
    assert list(dict.fromkeys(words["filename"])) == train["filename"].tolist()
    read = words.groupby("filename")["word"].agg(" ".join).to_dict()
    assert read == dict(zip(train["filename"], train["text_read"], strict=True))
    worst = (
        words["accuracy"].str.split(" ").map(lambda scores: float(np.median([*map(float, scores)])))
    )
    assert worst.groupby(words["filename"]).min().to_dict() == dict(
        zip(train["filename"], train["worst"], strict=True)
    )
    first = words.iloc[0]
    assert first["accuracy"].split(" ")[1] == "0.5"
    phones = spelled(first["word"])
    assert first["phones"] == f"{phones} | ({phones}) | {phones} | {phones} | {phones}"
    report = problems.Report()
    metadata, labels = tables.read_labelled(data, report)
    path = words_path(data)
    word_labels = read_word_labels(path, metadata, report)
    report_disagreement(word_labels, path, metadata, labels, report)
    assert set(word_labels.by_filename) == set(metadata["filename"])
    assert not [problem for problem in report.problems if problem.file == str(path)]


def test_without_the_experts_scores_no_words_are_written_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=2)
    data = tmp_path / "data"
    build(root, data)
    assert (data / "train_words.csv").exists()
    assert capsys.readouterr().err.count("warning:") == 0
    (root / "resource" / "scores-detail.json").unlink()
    build(root, data)
    assert not (data / "train_words.csv").exists()  # that of the earlier build
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert warning == (
        "warning: resource/scores-detail.json: missing: no train_words.csv is written, so models "
        "learn from the scores of whole recordings only"
    )


def test_words_without_transcriptions_have_no_column_of_them(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=2)
    path = root / "resource" / "scores-detail.json"
    details = json.loads(path.read_text())
    for utterance in details.values():
        for word in utterance["words"]:
            del word["phones"]
    path.write_text(json.dumps(details))
    build(root, tmp_path / "data")
    words = pd.read_csv(tmp_path / "data" / "train_words.csv")
    assert list(words) == ["filename", "position", "word", "accuracy"]


def test_malformed_scores_of_experts_are_reported(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus")
    path = root / "resource" / "scores-detail.json"
    details = json.loads(path.read_text())
    del details["000100000"]
    details["000100001"]["words"] = []
    details["000100002"]["words"][0]["accuracy"] = []
    details["000100003"]["words"][0]["accuracy"] = [10, 11]
    details["000100004"]["words"][0]["accuracy"] = 10
    del details["000100005"]["words"][0]["text"]
    details["000100006"]["words"][0]["phones"] = "DH AH0"
    del details["100100000"]  # of the test half, whose words are not read
    path.write_text(json.dumps(details))
    with pytest.raises(problems.BadInputError) as caught:
        build(root, tmp_path / "data")
    assert {(problem.filename, problem.what) for problem in caught.value.report.errors} == {
        (f"00010000{at}", "no list of words with the experts' accuracies of 0 to 10 each")
        for at in range(7)
    }
    for text, what in (("[1]", "not JSON with utterances"), ("{", "not JSON"), ("", "empty")):
        path.write_text(text)
        with pytest.raises(problems.BadInputError, match=what):
            build(root, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_invalid_corpus_is_reported(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=1)
    whole = pack(root, tmp_path / "whole.tar.gz", "speechocean762").read_bytes()
    for i in range(1, 8):
        (tmp_path / f"cut{i}.tar.gz").write_bytes(whole[: i * len(whole) // 8])
    (tmp_path / "text.tar.gz").write_text("not found")
    (tmp_path / "empty").mkdir()
    for name, what in (
        ("nowhere", "no such folder or file"),
        *((f"cut{i}.tar.gz", "not a complete tar archive") for i in range(1, 8)),
        ("text.tar.gz", "not a complete tar archive"),
        ("empty", "missing"),
    ):
        with pytest.raises(problems.BadInputError, match=what):
            build(tmp_path / name, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_another_corpus_is_not_overwritten(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=1)
    data = tmp_path / "data"
    build(root, data)
    build(root, data, seed=1)  # its own tables may be replaced
    (data / "train_metadata.csv").write_text("filename,task,expected_text,grade\nabcdef.wav,,,\n")
    before = content_of(data)
    with pytest.raises(HearbackError, match="another corpus"):
        build(root, data)
    assert content_of(data) == before


def test_the_command_prints_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_corpus(tmp_path / "corpus", per_speaker=4, accuracies=(10, 3))
    assert speechocean762.main([str(root), str(tmp_path / "data"), "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "train: 20 recordings of 5 speakers" in said
    assert "10 mispronounced" in said
