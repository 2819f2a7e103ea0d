"""Audio: decoding, stores of decoded recordings, effects, log-mel spectrograms."""
