"""Recipes, one module each: `python -m hearback.songs.recipes.NAME` trains a fold."""
