"""Whispers with random weights, of the true sizes of the recipes' backbones, or tiny ones."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.clips import SEED
from hearback.engine.io import atomic_write, write_json
from hearback.engine.whisper.backbone import Part
from hearback.engine.whisper.decoder import DecoderConfig, WhisperDecoder
from hearback.engine.whisper.encoder import EncoderConfig, WhisperEncoder
from hearback.engine.whisper.tokenizer import END, NO_TIMESTAMPS, START

WHISPER_PARTS: tuple[Part, ...] = ("encoder", "decoder")
N_PUBLIC_POSITIONS = 1500  # of a published Whisper: 30 s
EMBEDDING_SCALE = 0.02  # of random tokens; a larger one gives logits that a Whisper never has
N_TOKENS = 400  # of a tokenizer that is made here


def _config(width: int, encoder: int, decoder: int, vocabulary: int) -> dict[str, Any]:
    """Return the sizes of a Whisper with heads of width 64, as all published ones have."""
    heads = width // 64
    return {
        "d_model": width,
        "encoder_layers": encoder,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "num_mel_bins": 80,
        "decoder_layers": decoder,
        "decoder_attention_heads": heads,
        "decoder_ffn_dim": 4 * width,
        "vocab_size": vocabulary,
        "max_target_positions": 448,
    }


# Under the names of Transformers' `config.json`.
CONFIGS = {
    "whisper-tiny.en": _config(384, 4, 4, 51864),
    "whisper-base": _config(512, 6, 6, 51865),
    "whisper-small": _config(768, 12, 12, 51865),
    "whisper-medium": _config(1024, 24, 24, 51865),
    "distil-small.en": _config(768, 12, 4, 51864),
    "distil-medium.en": _config(1024, 24, 2, 51864),
}
TINY_CONFIG = _config(64, 2, 2, 51864)  # of a check at small size


def make_backbone(
    folder: Path,
    config: Mapping[str, Any],
    parts: Sequence[Part] = WHISPER_PARTS,
    *,
    dtype: torch.dtype = torch.float16,
    tokenizer: Path | None = None,
) -> Path:
    """Write a Whisper with random weights in Transformers' layout, unless it is there.

    Args:
        folder: its directory.
        config: its sizes, of `parts` at least.
        parts: what is written; with a decoder also the tokenizer.
        dtype: of the weights; most published files have float32, the distilled ones float16.
        tokenizer: the file to copy; None: a byte-level BPE that is made here.

    Returns:
        `folder`.
    """
    if (folder / "config.json").exists():  # written last
        return folder
    torch.manual_seed(SEED)
    tensors = {
        f"model.{part}.{name}": tensor.to(dtype).contiguous()
        for part in parts
        for name, tensor in build_part(part, config).state_dict().items()
    }
    positions = "model.encoder.embed_positions.weight"
    missing = N_PUBLIC_POSITIONS - len(tensors[positions])
    tensors[positions] = torch.cat([tensors[positions], tensors[positions][:missing]])
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary)
    if "decoder" in parts:
        write_tokenizer(folder / "tokenizer.json", tokenizer)
    write_json(folder / "config.json", {**config, "model_type": "whisper"})
    return folder


def build_part(part: Part, config: Mapping[str, Any]) -> WhisperEncoder | WhisperDecoder:
    """Return the encoder or decoder of a Whisper of these sizes, with random weights."""
    if part == "encoder":
        return WhisperEncoder(EncoderConfig.from_config(config))
    decoder = WhisperDecoder(DecoderConfig.from_config(config))
    with torch.no_grad():
        decoder.embed_tokens.weight.mul_(EMBEDDING_SCALE)
    return decoder


def write_tokenizer(path: Path, pretrained: Path | None) -> None:
    """Write a Whisper's tokenizer: the pretrained one, or a byte-level BPE with its special tokens.

    The speed depends little on how many tokens a word has: one or two, or its letters.
    """
    if pretrained is not None:
        shutil.copyfile(pretrained, path)
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
