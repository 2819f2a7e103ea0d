"""Corpora: a synthetic sample."""
