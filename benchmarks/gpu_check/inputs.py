"""What the sections work on: a small corpus, clips of noise, and backbones."""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from benchmarks import clips
from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import PHONES, TINY, Setting
from benchmarks.gpu_check.sizes import CONFIGS, TINY_CONFIG
from hearback.engine.data.problems import Report
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, write_json
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.decoder import DecoderConfig, WhisperDecoder
from hearback.engine.whisper.encoder import EncoderConfig, WhisperEncoder
from hearback.engine.whisper.tokenizer import END, NO_TIMESTAMPS, START
from hearback.reading.corpora import sample
from hearback.reading.dataset import load_training_data
from hearback.reading.render import render_missing
from hearback.reading.tables import read_labelled
from hearback.reading.voices import open_voice

EMBEDDING_SCALE = 0.02  # of random tokens; a larger one gives logits that a Whisper never has
WHISPER_PARTS: tuple[Part, ...] = ("encoder", "decoder")
N_TOKENS = 400  # of a tokenizer that is made here


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
            shutil.copytree(found, target)
        return f"The small corpus' models have the weights of {TINY}."
    make_backbone(target, TINY_CONFIG if setting.small else CONFIGS[TINY], setting)
    why = "a check at small size" if setting.small else f"{TINY} is in no folder of weights"
    return f"The small corpus' models have random weights: {why}."


def link_phones(setting: Setting) -> None:
    """Put the recogniser of phones into the assets. Raises HearbackError if it is nowhere."""
    target, found = setting.assets / PHONES, setting.find_weights(PHONES)
    if found is None:
        folders = ", ".join(map(str, setting.weights))
        raise HearbackError(f"{PHONES} is in no folder of weights ({folders}): make gpu-files")
    setting.assets.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        target.symlink_to(found.resolve(), target_is_directory=True)


def make_backbone(
    folder: Path, config: Mapping[str, Any], setting: Setting, parts: Sequence[Part] = WHISPER_PARTS
) -> Path:
    """Write a Whisper of these sizes with random weights, unless it is there; return its folder."""
    if (folder / "config.json").exists():  # written last
        return folder
    torch.manual_seed(clips.SEED)
    tensors = {}
    for part in parts:
        module: nn.Module
        if part == "encoder":
            module = WhisperEncoder(EncoderConfig.from_config(config))
        else:
            module = WhisperDecoder(DecoderConfig.from_config(config))
            with torch.no_grad():
                module.embed_tokens.weight.mul_(EMBEDDING_SCALE)
        for name, tensor in module.state_dict().items():
            tensors[f"model.{part}.{name}"] = tensor.half().contiguous()
    positions = "model.encoder.embed_positions.weight"
    missing = clips.N_PUBLIC_POSITIONS - len(tensors[positions])
    tensors[positions] = torch.cat([tensors[positions], tensors[positions][:missing]])
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary)
    write_tokenizer(folder / "tokenizer.json", setting.find_weights(TINY))
    write_json(folder / "config.json", {**config, "model_type": "whisper"})
    return folder


def write_tokenizer(path: Path, pretrained: Path | None) -> None:
    """Write a Whisper's tokenizer: the pretrained one, or a byte-level BPE with its special tokens.

    The speed depends little on how many tokens a word has: one or two, or its letters.
    """
    if pretrained is not None and (pretrained / path.name).is_file():
        shutil.copyfile(pretrained / path.name, path)
        return
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS - 3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" the text of one hundred and twenty three words"], trainer)
    tokenizer.add_special_tokens([END, START, NO_TIMESTAMPS])
    tokenizer.save(str(path))


def load_noise(setting: Setting) -> clips.Clips:
    """Return the clips of noise."""
    folder = setting.noise
    return clips.load(folder / "data", folder / "tts_data", folder / "store", setting.sizes.n_noise)
