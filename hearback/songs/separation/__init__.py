"""Separation of the voice from the music."""
