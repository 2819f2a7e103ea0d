"""A toy corpus and backbone, on which a fold trains in seconds.

Speech is a tone per letter, so recordings of different texts differ in pitch and length; the
backbone is a tiny Whisper with random weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.audio.wav import write_wav
from hearback.engine.whisper.decoder import DecoderConfig, WhisperDecoder
from hearback.engine.whisper.encoder import EncoderConfig, WhisperEncoder
from hearback.reading.render import render_missing
from hearback.reading.tables import GRADES, TASKS

ENCODER = EncoderConfig(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80
)
DECODER = DecoderConfig(
    d_model=16,
    decoder_layers=2,
    decoder_attention_heads=2,
    decoder_ffn_dim=32,
    vocab_size=300,
    max_target_positions=64,
)
N_SPARE_POSITIONS = 700  # Whisper has 1500 positions, of which 800 are loaded
SPECIAL_TOKENS = ("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")
TEXTS = ("boy", "cupcake", "koovnorb", "the dog ran home", "a red hat", "sunshine")
N_SPEAKERS = 9


def spoken(text: str, pitch: float = 200.0) -> np.ndarray:
    """Return a tone of 60 ms for each letter, (samples,) float32 at 16 kHz."""
    seconds = np.arange(int(0.06 * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [np.sin(2 * np.pi * (pitch + 40 * (ord(letter) % 32)) * seconds) for letter in text]
    return (0.3 * np.concatenate(tones)).astype(np.float32)


class ToneVoice:
    """A voice without dependencies, which renders tones."""

    sample_rate = SAMPLE_RATE

    def describe(self) -> dict[str, str | float | int]:
        """Return the voice's settings; see `Voice.describe`."""
        return {"backend": "tones", "voice": "tone", "speed": 0.7, "sample_rate": SAMPLE_RATE}

    def render(self, text: str) -> np.ndarray:
        """Render a text, (samples,) float32."""
        return spoken(text)

    def close(self) -> None:
        """Do nothing."""


def make_corpus(folder: Path, n_clips: int, rng: np.random.Generator) -> None:
    """Write `n_clips` labelled clips to `folder`/data and their references to `folder`/tts_data."""
    rows = []
    for number in range(n_clips):
        text, score = TEXTS[number % len(TEXTS)], number // len(TEXTS) % 2
        speech = spoken(text if score else TEXTS[(number + 1) % len(TEXTS)], rng.uniform(180, 260))
        name = f"train{number:03}.wav"
        waveform = speech + rng.normal(0, 0.01, len(speech))
        write_wav(folder / "data" / name, waveform, SAMPLE_RATE)
        task, grade = TASKS[number % len(TASKS)], GRADES[number // 3 % len(GRADES)]
        rows.append((name, task, text, grade, f"s{number % N_SPEAKERS}", float(score)))
    columns = ["filename", "task", "expected_text", "grade", "speaker", "score"]
    table = pd.DataFrame(rows, columns=columns)
    metadata = table.drop(columns="score")
    metadata.to_csv(folder / "data" / "train_metadata.csv", index=False)
    table[["filename", "score"]].to_csv(folder / "data" / "train_labels.csv", index=False)
    render_missing(TEXTS, ToneVoice(), folder / "tts_data", progress=False)


def make_backbone(folder: Path) -> Path:
    """Write a tiny Whisper with random weights and its tokenizer, in Transformers' layout."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    encoder, decoder = WhisperEncoder(ENCODER), WhisperDecoder(DECODER)
    with torch.no_grad():  # as small as Whisper's; otherwise all logits are huge
        decoder.embed_tokens.weight.mul_(0.1)
    tensors = {
        f"model.{part}.{name}": tensor.contiguous()
        for part, module in {"encoder": encoder, "decoder": decoder}.items()
        for name, tensor in module.state_dict().items()
    }
    name = "model.encoder.embed_positions.weight"
    spare = torch.zeros(N_SPARE_POSITIONS, ENCODER.d_model)
    tensors[name] = torch.cat([tensors[name], spare])
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "whisper", **ENCODER.as_dict(), **DECODER.as_dict()}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_tokenizer(path: Path, special_tokens: Sequence[str] = SPECIAL_TOKENS) -> None:
    """Write a byte-level BPE like Whisper's, in which some words of `TEXTS` are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=DECODER.vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" the dog ran home", " a red hat", " boy"], trainer)
    tokenizer.add_special_tokens(list(special_tokens))
    tokenizer.save(str(path))
