"""What the sections work on: a small corpus, clips of noise, and backbones."""

import contextlib
import shutil
from contextlib import closing
from pathlib import Path

from benchmarks import clips
from benchmarks.backbones import CONFIGS, TINY_CONFIG, make_backbone
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import PHONES, TINY, Setting
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_directory
from hearback.reading.corpora import sample
from hearback.reading.dataset import load_training_data
from hearback.reading.render import render_missing
from hearback.reading.tables import read_labelled
from hearback.reading.voices import open_voice


def prepare(setting: Setting, record: Record) -> None:
    """Write the inputs of all sections that are not there yet."""
    with record.guarded("small corpus"):
        make_corpus(setting)
    with record.guarded("clips of noise"):
        make_noise(setting)
    with record.guarded("backbone of the small corpus' models"):
        record.note(make_small_backbone(setting))
    with record.guarded("recogniser of phones"):
        link_phones(setting)
    n_failed = sum(not check.passed for check in record.checks)
    record.check("inputs", not n_failed, f"{n_failed} not written", "all written")


def make_corpus(setting: Setting) -> None:
    """Write the embedded sample and its reference speech, and decode both."""
    sizes = setting.sizes
    if not (setting.data / "train_metadata.csv").exists():  # written last
        sample.build(setting.data, sizes.n_train, 0, sizes.n_speakers)
    if not (setting.tts_data / "data_paths.csv").exists():
        metadata, _ = read_labelled(setting.data, Report())
        with closing(open_voice("hibari")) as voice:
            render_missing(metadata["expected_text"], voice, setting.tts_data, progress=False)
    load_training_data(setting.data, setting.tts_data, setting.store, n_folds=3)


def make_noise(setting: Setting) -> None:
    """Write the clips of noise with references, and decode them."""
    folder = setting.noise
    if not (folder / "tts_data" / "data_paths.csv").exists():  # written last
        clips.make_noise(folder, setting.sizes.n_noise)
    clips.load(folder / "data", folder / "tts_data", folder / "store", setting.sizes.n_noise)


def make_small_backbone(setting: Setting) -> str:
    """Write the backbone of the small corpus' models; return a sentence on its weights."""
    target, found = setting.backbone, setting.find_weights(TINY)
    if found is not None and setting.is_pretrained:
        if not target.exists():
            with atomic_directory(target) as folder:
                shutil.copytree(found, folder, dirs_exist_ok=True)
        return f"The small corpus' models have the weights of {TINY}."
    config = TINY_CONFIG if setting.small else CONFIGS[TINY]
    make_backbone(target, config, tokenizer=find_tokenizer(setting))
    why = "a check at small size" if setting.small else f"{TINY} is in no folder of weights"
    return f"The small corpus' models have random weights: {why}."


def find_tokenizer(setting: Setting) -> Path | None:
    """Return the file of Whisper's tokenizer, or None if no folder of weights holds it."""
    found = setting.find_weights(TINY)
    path = None if found is None else found / "tokenizer.json"
    return path if path is not None and path.is_file() else None


def link_phones(setting: Setting) -> None:
    """Put the recogniser of phones into the assets. Raises HearbackError if it is nowhere."""
    target, found = setting.assets / PHONES, setting.find_weights(PHONES)
    if found is None:
        folders = ", ".join(map(str, setting.weights))
        raise HearbackError(f"{PHONES} is in no folder of weights ({folders}): make gpu-files")
    setting.assets.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and not target.exists():  # the folder that it names is gone
        target.unlink()
    with contextlib.suppress(FileExistsError):
        target.symlink_to(found.resolve(), target_is_directory=True)


def load_noise(setting: Setting) -> clips.Clips:
    """Return the clips of noise."""
    folder = setting.noise
    return clips.load(folder / "data", folder / "tts_data", folder / "store", setting.sizes.n_noise)
