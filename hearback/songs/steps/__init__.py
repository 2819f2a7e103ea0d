"""The steps of the songs, as commands."""
