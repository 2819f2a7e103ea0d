"""Which recordings a page plays, how much sound fits in, and where the rest is."""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.page import clips
from hearback.engine.page.clips import Sound, choose, encode
from hearback.engine.page.content import Clip
from hearback.engine.page.flags import EVERY, NO, SOME
from tests.helpers import tone


def chosen(n: int, always: list[int], how: str, seed: int = 0) -> list[int]:
    order = [index for index in range(n) if index not in always]
    return choose(order, always, how, np.random.default_rng(seed))


def test_some_are_those_without_a_score_the_first_and_others_at_random() -> None:
    found = chosen(1000, [700, 900], SOME)
    assert found[:2] == [700, 900]
    assert found[2:152] == list(range(150))
    others = found[152:]
    assert len(set(others)) == 50 and min(others) >= 150 and not {700, 900} & set(others)
    assert others == sorted(others)  # the most important first
    assert found == chosen(1000, [700, 900], SOME)
    assert found[:152] == chosen(1000, [700, 900], SOME, seed=1)[:152]
    assert others != chosen(1000, [700, 900], SOME, seed=1)[152:]


@pytest.mark.parametrize(("how", "n"), [(EVERY, 30), (SOME, 30), (NO, 0)])
def test_of_few_recordings_all_are_played(how: str, n: int) -> None:
    found = chosen(30, [4], how)
    assert len(found) == n
    assert found[:2] == ([4, 0] if n else [])


def sound_of(index: int) -> Sound:
    """Return a tone, of even numbers with a reference; number 3 is missing."""
    if index == 3:
        return Sound(None)
    return Sound(tone(200.0 + 100 * index), tone(150.0, 0.2) if index % 2 == 0 else None)


def test_clips_are_mp3_files_of_the_sounds() -> None:
    found = encode([0, 1, 3], sound_of)
    assert list(found.by_index) == [0, 1]  # what is missing is left out without a word
    assert found.n_left_out == 0
    assert found.by_index[1].reference == ""
    for content, expected in (
        (found.by_index[0].learner, tone(200.0)),
        (found.by_index[0].reference, tone(150.0, 0.2)),
    ):
        file = BytesIO(base64.b64decode(content))
        with soundfile.SoundFile(file) as opened:
            assert (opened.format, opened.subtype) == ("MP3", "MPEG_LAYER_III")
            assert (opened.samplerate, opened.channels) == (SAMPLE_RATE, 1)
            waveform = opened.read(dtype="float32")
        assert len(waveform) == len(expected)
        middle = slice(len(expected) // 4, -len(expected) // 4)
        assert np.corrcoef(waveform[middle], expected[middle])[0, 1] > 0.9


def test_each_sound_is_annotated_once_and_before_it_is_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clips, "_N_AT_ONCE", 2)
    decoded, annotated = Counter[int](), list[list[int]]()

    def decode(index: int) -> Sound:
        decoded[index] += 1
        return sound_of(index)

    def annotate(sounds: Mapping[int, Sound]) -> None:
        annotated.append([index for index, sound in sounds.items() if sound.learner is not None])

    # Those that do not fit in are annotated, too.
    found = encode([4, 3, 0, 1, 2], decode, 1, annotator=annotate)
    assert annotated == [[4], [0, 1], [2]]
    assert set(decoded.values()) == {1} and len(decoded) == 5
    assert (len(found.by_index), found.n_left_out) == (0, 4)


def test_lengths_are_those_of_the_files(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav", tone(seconds=2.0), SAMPLE_RATE)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "bad.wav").write_bytes(b"RIFF and no more")
    names = ["good.wav", "missing.wav", "inside/bad.wav", "inside", "."]
    assert clips.read_lengths(tmp_path, names) == [2.0, None, None, None, None]
    assert clips.read_lengths(tmp_path / "inside", ["../good.wav"]) == [None]


def test_sound_over_full_scale_is_clipped_and_not_refused() -> None:
    assert encode([0], lambda _: Sound(3 * tone())).by_index[0].learner


def test_the_most_important_clips_are_within_the_budget() -> None:
    whole = encode([4, 2, 0], sound_of)
    sizes = [len(clip.learner) + len(clip.reference) for clip in whole.by_index.values()]
    assert clips.n_bytes_of(whole.by_index) == sum(sizes)
    exact = encode([4, 2, 0], sound_of, sizes[0] + sizes[1])
    assert list(exact.by_index) == [4, 2]
    assert exact.n_left_out == 1
    assert list(encode([4, 2, 0], sound_of, sizes[0] - 1).by_index) == [2]  # what does fit


def read_script(path: Path) -> dict[str, dict[str, str]]:
    pattern = r'hearback\.addClips\("a key", (\{.*\})\);\n'
    match = re.fullmatch(pattern, path.read_text(encoding="utf-8"))
    assert match is not None
    found: dict[str, dict[str, str]] = json.loads(match[1])
    return found


def test_scripts_hold_all_clips_and_replace_those_of_an_earlier_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "_SCRIPT_BYTES", 100)
    page = tmp_path / "my page.html"
    many = {index: Clip("x" * 40, "y" * index) for index in (5, 2, 11, 7)}
    scripts = clips.write_scripts(many, page, "a key")
    folder = tmp_path / "my page_clips"
    assert list(scripts) == [f"{folder.name}/0000.js", f"{folder.name}/0001.js"]
    assert list(scripts.values()) == [[2, 5, 7], [11]]
    for name, indices in scripts.items():
        content = read_script(tmp_path / name)
        assert content == {str(each): many[each].__dict__ for each in indices}
    assert clips.write_scripts({1: Clip("z")}, page, "a key") == {f"{folder.name}/0000.js": [1]}
    assert [path.name for path in folder.iterdir()] == ["0000.js"]


def test_the_key_of_scripts_is_that_of_their_recordings() -> None:
    many = {2: Clip("b"), 0: Clip("a", "r")}
    key = clips.key_of(many, ["a.wav", "b.wav", "c.wav"])
    assert re.fullmatch("[0-9a-f]{16}", key)
    assert clips.key_of(dict(sorted(many.items())), ["a.wav", "b.wav", "c.wav"]) == key
    others = [
        clips.key_of(many, ["b.wav", "a.wav", "c.wav"]),
        clips.key_of({0: Clip("a", "r")}, ["a.wav", "b.wav", "c.wav"]),
        clips.key_of({**many, 2: Clip("", "b")}, ["a.wav", "b.wav", "c.wav"]),
    ]
    assert len({key, *others}) == 4


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    folder = clips.clips_folder(page)
    folder.mkdir()
    (folder / "notes.txt").touch()
    clips.remove_scripts(page)
    assert folder.is_dir()


def test_a_recording_that_cannot_be_played_is_none(tmp_path: Path) -> None:
    write_wav(tmp_path / "good.wav", tone(seconds=2.0), SAMPLE_RATE)
    (tmp_path / "bad.wav").write_bytes(b"RIFF and no more")
    found = clips.decode_if_possible(tmp_path, "good.wav", 1.0)
    assert found is not None and len(found.waveform) == SAMPLE_RATE
    for name in ("bad.wav", "missing.wav", "."):
        assert clips.decode_if_possible(tmp_path, name) is None


def test_a_clip_that_is_too_large_leaves_room_for_others() -> None:
    def sound_of_length(index: int) -> Sound:
        return Sound(tone(seconds=60.0 if index == 0 else 0.2))

    found = encode([0, 1, 2], sound_of_length, max_bytes=20_000)
    assert list(found.by_index) == [1, 2]
    assert found.n_left_out == 1


def test_only_scripts_of_clips_are_removed(tmp_path: Path) -> None:
    page, folder = tmp_path / "user.html", tmp_path / "user_clips"
    folder.mkdir()
    (folder / "0000.js").write_text("my own script")
    clips.remove_scripts(page)
    assert (folder / "0000.js").exists()
    clips.write_scripts({0: Clip("AAAA")}, tmp_path / "other.html", "a key")
    assert clips.clips_folder(tmp_path / "other.html").is_dir()
    clips.remove_scripts(tmp_path / "other.html")
    assert not clips.clips_folder(tmp_path / "other.html").exists()


def test_a_filename_that_leads_out_is_not_played(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", tone(), SAMPLE_RATE)
    (tmp_path / "data").mkdir()
    assert clips.decode_if_possible(tmp_path / "data", "../secret.wav") is None
    assert clips.decode_if_possible(tmp_path / "data", str(tmp_path / "secret.wav")) is None
    assert clips.decode_if_possible(tmp_path, "secret.wav") is not None
