"""The steps of the reading competition, as commands."""
