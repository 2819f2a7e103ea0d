"""A text embedder with random weights, for tests."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

TEXT_WIDTH = 12


def write_embedder(
    folder: Path, pooling: str = "mean_tokens", *, normalise: bool = True, seed: int = 0
) -> Path:
    """Write a random character-level BERT in the layout of sentence-transformers."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = {token: number for number, token in enumerate((*special, *letters))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    BertModel(config).save_pretrained(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules += [("Normalize", "2_Normalize")] if normalise else []
    entries = [{"type": f"sentence_transformers.models.{t}", "path": p} for t, p in modules]
    (folder / "modules.json").write_text(json.dumps(entries))
    modes = {f"pooling_mode_{m}": m == pooling for m in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": TEXT_WIDTH, **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder
