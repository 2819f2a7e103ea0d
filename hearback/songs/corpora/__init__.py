"""Data sets for the songs."""
