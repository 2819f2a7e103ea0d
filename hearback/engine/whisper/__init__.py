"""Whisper models: encoder, decoder, tokenizer, heads, pretrained weights and their conversion."""
