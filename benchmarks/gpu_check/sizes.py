"""The true sizes of the recipes' backbones, under the names of Transformers' `config.json`."""

from typing import Any


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


CONFIGS = {
    "whisper-tiny.en": _config(384, 4, 4, 51864),
    "whisper-base": _config(512, 6, 6, 51865),
    "whisper-small": _config(768, 12, 12, 51865),
    "whisper-medium": _config(1024, 24, 24, 51865),
    "distil-small.en": _config(768, 12, 4, 51864),
    "distil-medium.en": _config(1024, 24, 2, 51864),
}
TINY_CONFIG = {**_config(64, 2, 2, 51864), "vocab_size": 51864}  # of a check at small size
