"""The five steps, as commands."""
