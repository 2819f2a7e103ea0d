"""A tiny corpus and a tiny backbone that the tests share."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hearback.audio import SAMPLE_RATE, Store, write_wav
from hearback.dataset import read_labelled
from hearback.decoder import DecoderShape, WhisperDecoder
from hearback.encoder import EncoderShape, WhisperEncoder
from hearback.pairs import PairSource
from hearback.references import References, render_missing
from hearback.tables import GRADES, TASKS, Report

TINY = EncoderShape(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80
)
TINY_DECODER = DecoderShape(
    d_model=16,
    decoder_layers=2,
    decoder_attention_heads=2,
    decoder_ffn_dim=32,
    vocab_size=300,
    max_target_positions=64,
)
CONFIG = {"model_type": "whisper", **TINY.as_config(), **TINY_DECODER.as_config()}
SPECIAL_TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
TEXTS = ("boy", "cupcake", "koovnorb", "the dog ran home", "a red hat", "sunshine")


def spoken(text: str, pitch: float = 200.0) -> np.ndarray:
    """A tone of 60 ms for each letter: another text is another tune, and it takes longer."""
    seconds = np.arange(int(0.06 * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * (pitch + 40 * (ord(c) % 32)) * seconds) for c in text]
    return (0.3 * np.concatenate(tones)).astype(np.float32)


class ToneVoice:
    """A voice that needs no package."""

    sample_rate = SAMPLE_RATE

    def describe(self) -> dict[str, str | float | int]:
        return {"backend": "tones", "voice": "tone", "speed": 0.7, "sample_rate": SAMPLE_RATE}

    def render(self, text: str) -> np.ndarray:
        return spoken(text)

    def close(self) -> None:
        pass


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., Path]:
    """Write data/ (train and test) and tts_data/ into the test's folder, and return the folder."""

    def make(n_train: int = 36, n_test: int = 6, folder: Path = tmp_path) -> Path:
        rng = np.random.default_rng(0)
        for split, n_rows in (("train", n_train), ("test", n_test)):
            rows = []
            for number in range(n_rows):
                text, score = TEXTS[number % len(TEXTS)], number // len(TEXTS) % 2
                name = f"{split}{number:03}.wav"
                said = text if score else TEXTS[(number + 1) % len(TEXTS)]
                waveform = spoken(said, 220.0) + rng.normal(0, 0.01, len(spoken(said)))
                write_wav(folder / "data" / name, waveform, SAMPLE_RATE)
                task, grade = TASKS[number % 4], GRADES[number // 3 % 4]
                rows.append((name, task, text, grade, f"s{number % 9}", float(score)))
            columns = ["filename", "task", "expected_text", "grade", "speaker", "score"]
            table = pd.DataFrame(rows, columns=columns)
            table.drop(columns="score").to_csv(
                folder / "data" / f"{split}_metadata.csv", index=False
            )
            scores = table[["filename", "score"]]
            if split == "train":
                scores.to_csv(folder / "data" / "train_labels.csv", index=False)
            else:
                placeholder = scores[::-1].assign(score=0.0)
                placeholder.to_csv(folder / "data" / "submission_format.csv", index=False)
        render_missing(TEXTS, ToneVoice(), folder / "tts_data", progress=False)
        return folder

    return make


def write_tokenizer(path: Path, special_tokens: Sequence[str] = SPECIAL_TOKENS) -> None:
    """Write a byte-level BPE like a Whisper's, with some words of `TEXTS` in one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_DECODER.vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" the dog ran home", " a red hat", " boy"], trainer)
    tokenizer.add_special_tokens(list(special_tokens))
    tokenizer.save(str(path))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in Transformers' layout: a tiny Whisper of random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    encoder, decoder = WhisperEncoder(TINY), WhisperDecoder(TINY_DECODER)
    with torch.no_grad():  # small, as a Whisper's are; else every token's logit would be huge
        decoder.embed_tokens.weight.mul_(0.1)
    parts = {"encoder": encoder, "decoder": decoder}
    tensors = {
        f"model.{part}.{name}": tensor.contiguous()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    name = "model.encoder.embed_positions.weight"
    tensors[name] = torch.cat([tensors[name], torch.zeros(700, TINY.d_model)])
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="session")
def tokenizer(backbone: Path) -> Path:
    """The tiny backbone's tokenizer."""
    return backbone / "tokenizer.json"


@pytest.fixture
def make_source(make_corpus: Callable[..., Path]) -> Callable[[int], PairSource]:
    """Give so many labelled clips of six texts, of several lengths."""

    def make(n_clips: int) -> PairSource:
        folder = make_corpus(n_train=n_clips, n_test=0)
        report = Report()
        metadata, labels = read_labelled(folder / "data", report)
        path = folder / "data" / "train_metadata.csv"
        recordings = Store.build(
            metadata, folder / "data", path, folder / "store", "train", report=report
        )
        return PairSource(metadata, References(folder / "tts_data"), recordings, labels)

    return make
